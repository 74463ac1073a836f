use std::path::Path;

use tokio::net::TcpListener;

use super::*;
use crate::config::Config;
use crate::reading::testing::{MeterBody, T0, TokioClock, serve_wrapper};

fn checked(address: &str) -> Checked {
    let text = format!(
        "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"{address}\"\n[[meter]]\nname = \"m\"\nline = \"l\"\n"
    );
    Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap()
}

/// A meter behind a real socket, for one connection.
async fn meter() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let body = MeterBody::shared(&TokioClock::shared(T0), "SIM0001", 1);
    let serving = tokio::spawn(async move {
        let (mut outside, _) = listener.accept().await.unwrap();
        let (inside, mut relay) = tokio::io::duplex(4096);
        let server = tokio::spawn(serve_wrapper(inside, 1, body));
        drop(tokio::io::copy_bidirectional(&mut outside, &mut relay).await);
        drop(relay);
        server.await.unwrap();
    });
    (address, serving)
}

#[tokio::test]
async fn a_meter_is_read_once_over_tcp() {
    let (address, serving) = meter().await;
    let mut out = Vec::new();
    let obis = ["1-0:1.8.0", "1-0:1.7.0", "1-0:99.9.9"].map(str::to_owned);
    read(&checked(&address), "m", &obis, false, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    for line in ["identity               SIM0001", "Wh", "230e1 W", "1-0:99.9.9             meter refused"] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    serving.await.unwrap();
    let (address, serving) = meter().await;
    let mut out = Vec::new();
    read(&checked(&address), "m", &[], true, &mut out).await.unwrap();
    let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(object["meter"], "SIM0001");
    assert_eq!(object["values"][0]["code"], "1-0:1.8.0");
    serving.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_told_with_a_hint() {
    let mut out = Vec::new();
    let error = read(&checked("127.0.0.1:1"), "x", &[], false, &mut out).await.unwrap_err().to_string();
    assert!(error.contains("there is no meter or port \"x\"") && error.contains("hint: known meters: m"), "{error}");
    let error = read(&checked("127.0.0.1:1"), "m", &[], false, &mut out).await.unwrap_err().to_string();
    assert!(error.contains("refuses connections") && error.contains("hint:"), "{error}");
    let error = read(&checked("127.0.0.1:1"), "m", &["x".to_owned()], false, &mut out).await.unwrap_err();
    assert!(format!("{error:#}").contains("is no code"), "{error:#}");
    assert!(out.is_empty());
}
