use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocols::metering::{Kind, Quality, Quantity, Reading, Series, StampedBy, Unit, UtcMillis};

use super::*;
use crate::config::Config;
use crate::http::Observed;
use crate::inventory::InventoryKeeper;
use crate::outbox::{OutboxHandle, StoreRequest};
use crate::telemetry::Metrics;

const T0: i64 = 1_795_400_000_000;

fn checked(folder: &Path, listen: std::net::SocketAddr) -> Checked {
    let text = format!("[gateway]\nid = \"gw-1\"\ndata_dir = {folder:?}\n[http]\nlisten = \"{listen}\"");
    Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap()
}

/// Two rows under each of two identities.
fn held() -> Vec<StoreRequest> {
    let reading = |meter: &str, at: i64| Reading {
        series: Series {
            meter: meter.parse().unwrap(),
            code: "1-0:1.8.0".parse().unwrap(),
            kind: Kind::Register,
            period_s: 0,
        },
        captured_at: UtcMillis(T0 + at),
        nth: 0,
        quantity: Quantity::new(at, 0, Unit::WATT_HOUR),
        quality: Quality::GOOD,
        read_at: UtcMillis(T0),
        occurred_at: None,
        clock_offset_ms: None,
        stamped_by: StampedBy::Meter,
    };
    let request = |meter: &str| StoreRequest {
        readings: vec![reading(meter, 0), reading(meter, 1)],
        hold_identity: true,
        ..StoreRequest::default()
    };
    vec![request("KFM:8"), request("KFM:9")]
}

async fn accepted(checked: &Checked, meter: &str) -> Result<String, String> {
    let mut out = Vec::new();
    let outcome = accept(checked, meter, &mut out).await;
    outcome.map(|()| String::from_utf8(out).unwrap()).map_err(|error| error.to_string())
}

/// Control, seen to fail: the file opened beside a running gateway.
#[tokio::test]
async fn accept_releases_in_the_running_gateway_and_in_the_file_of_a_stopped_one() {
    let folder = tempfile::tempdir().unwrap();
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let checked = checked(folder.path(), listener.local_addr().unwrap());
    let mut outbox = run::open_outbox(&checked).unwrap();
    for request in held() {
        outbox.transaction(|outbox| outbox.store(&request)).unwrap();
    }
    // Running: it has the lock, and answers.
    let lock = run::lock(&checked).unwrap();
    let (handle, shared) = OutboxHandle::inline(outbox);
    let observed = Observed {
        gateway: "gw-1".to_owned(),
        outbox: handle,
        metrics: Metrics::default(),
        inventory: InventoryKeeper::default(),
    };
    let served = tokio::spawn(http::serve(listener, observed));
    let text = accepted(&checked, "KFM:9").await.unwrap();
    assert!(text.starts_with("2 rows of KFM:9 are released") && text.contains("serial = \"KFM:9\""), "{text}");
    assert_eq!(accepted(&checked, "KFM:9").await.unwrap_err(), "nothing is held of KFM:9\nhint: held: KFM:8");
    assert!(accepted(&checked, "not a meter").await.unwrap_err().contains("hint: give the identity"));
    let usage = shared.lock().unwrap().usage().unwrap();
    assert_eq!((usage.rows_held, usage.rows_unsealed), (2, 2), "the gateway that runs knows of it");
    served.abort();
    drop(served.await);
    // Its connections end when it does.
    let ended = async {
        while Arc::strong_count(&shared) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    drop((shared, lock));
    // Stopped.
    let text = accepted(&checked, "KFM:8").await.unwrap();
    assert!(text.starts_with("2 rows of KFM:8 are released"), "{text}");
    assert_eq!(accepted(&checked, "KFM:8").await.unwrap_err(), "nothing is held of KFM:8\nhint: no meter is held");
    let usage = look_into(&checked).unwrap().usage().unwrap();
    assert_eq!((usage.rows_held, usage.rows_unsealed), (0, 4));
}

/// Control, seen to fail: without the check of host and header.
#[tokio::test]
async fn a_page_in_a_browser_on_this_machine_accepts_nothing() {
    use http_body_util::Empty;
    let listener = http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let listen = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = run::open_outbox(&checked(folder.path(), listen)).unwrap();
    for request in held() {
        outbox.transaction(|outbox| outbox.store(&request)).unwrap();
    }
    let (handle, shared) = OutboxHandle::inline(outbox);
    let observed = Observed {
        gateway: "gw-1".to_owned(),
        outbox: handle,
        metrics: Metrics::default(),
        inventory: InventoryKeeper::default(),
    };
    tokio::spawn(http::serve(listener, observed));
    for (method, host, command) in [
        ("POST", listen.to_string(), None),
        ("POST", "rebound.example.org".to_owned(), Some("1")),
        ("GET", listen.to_string(), Some("1")),
    ] {
        let stream = tokio::net::TcpStream::connect(listen).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let mut request = hyper::Request::builder().method(method).uri("/accept/KFM:9").header("host", host);
        if let Some(value) = command {
            request = request.header(http::COMMAND_HEADER, value);
        }
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
        assert!(response.status().is_client_error(), "{method} {command:?}");
    }
    assert_eq!(shared.lock().unwrap().usage().unwrap().rows_held, 4);
}
