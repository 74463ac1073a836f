use std::path::Path;

use protocols::dlms::security::{Level, SecuritySuite};
use tokio::net::TcpListener;

use super::*;
use crate::config::Config;
use crate::reading::testing::secured::{BodySecurity, Files};
use crate::reading::testing::{MeterBody, SharedBody, T0, TokioClock, serve_wrapper};

fn checked(address: &str) -> Checked {
    let text = format!(
        "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"{address}\"\n[[meter]]\nname = \"m\"\nline = \"l\"\n"
    );
    Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap()
}

async fn meter() -> (String, tokio::task::JoinHandle<()>) {
    behind_a_socket(MeterBody::shared(&TokioClock::shared(T0), "SIM0001", 1)).await
}

/// A meter behind a real socket, for one connection.
async fn behind_a_socket(body: SharedBody) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
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

/// Control, seen to fail: the lock not taken.
#[tokio::test]
async fn a_secured_meter_is_read_by_the_counters_of_the_outbox_and_not_beside_the_gateway() {
    let files = Files::new();
    std::fs::create_dir(files.path("data")).unwrap();
    let secured = |address: &str| {
        let section = files.section("gmac", SecuritySuite::Suite0);
        let text = format!(
            "[gateway]\nid = \"gw\"\ndata_dir = {:?}\n[[line]]\nname = \"l\"\ntcp = \"{address}\"\n\
             [[meter]]\nname = \"m\"\nline = \"l\"\n{section}",
            files.path("data")
        );
        Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap()
    };
    let body = MeterBody::shared(&TokioClock::shared(T0), "SIM0001", 1);
    body.lock().unwrap().security =
        Some(BodySecurity::new("gmac", SecuritySuite::Suite0, Level::AUTHENTICATED_ENCRYPTED));
    let counter = || body.lock().unwrap().security.as_ref().unwrap().counter();
    let mut last = counter();
    for has_outbox in [false, true, true] {
        let (address, serving) = behind_a_socket(body.clone()).await;
        let checked = secured(&address);
        if has_outbox {
            drop(run::open_outbox(&checked).unwrap());
        }
        let mut out = Vec::new();
        read(&checked, "m", &[], false, &mut out).await.unwrap();
        assert!(String::from_utf8(out).unwrap().contains("Wh"));
        serving.await.unwrap();
        assert!(counter() > last);
        last = counter();
        let meter = &checked.lines[0].meters[0];
        let key = meter.security.cipher.as_ref().unwrap().config.keys.unicast.as_ref().unwrap().fingerprint();
        if has_outbox {
            // Ours, and the meter's.
            assert_eq!(run::open_outbox(&checked).unwrap().counters(key).unwrap().len(), 2);
        }
    }
    let checked = secured("127.0.0.1:1");
    let _lock = run::lock(&checked).unwrap();
    let error = read(&checked, "m", &[], false, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.starts_with("m: the gateway runs") && error.contains("hint: `status`"), "{error}");
}

struct Water;

impl protocols::mbus::SlaveData for Water {
    fn telegrams(&mut self) -> Vec<Vec<u8>> {
        use protocols::mbus::{Builder, SecondaryAddress, maker_code};
        use protocols::metering::{ObisCode, Quantity, TelegramReading, Unit};
        let address = SecondaryAddress::of_number(12_345_678, maker_code("SIM").unwrap(), 1, 0x07);
        let volume = Quantity::new(1_234, -3, Unit::CUBIC_METRE);
        let volume = TelegramReading::new(ObisCode::new(8, 0, 1, 0, 0, 255), Kind::Register, T0, volume);
        Builder::new(address).reading(&volume, 0).unwrap().finish()
    }
}

const LONG: std::time::Duration = std::time::Duration::from_secs(60);

/// A meter on M-Bus behind a real socket, for one connection.
async fn water_meter() -> (String, tokio::task::JoinHandle<()>) {
    use protocols::mbus::{Baud, Input, Output, SecondaryAddress, Slave, SlaveConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let of = SecondaryAddress::of_number(12_345_678, 1, 1, 0x07);
        let (origin, mut slave) = (Instant::now(), Slave::new(SlaveConfig::new(5, of, Baud::B38400)));
        let mut buffer = [0; 256];
        loop {
            let wait = match slave.poll() {
                Output::Send(octets) => {
                    stream.write_all(&octets).await.unwrap();
                    continue;
                }
                Output::Event(()) => continue,
                Output::WaitUntil(at) => at.map_or_else(|| Instant::now() + LONG, |at| origin + at),
            };
            let received = tokio::time::timeout_at(wait, stream.read(&mut buffer)).await;
            let input = match &received {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(count)) => Input::Received(&buffer[..*count]),
                Err(_) => Input::Tick,
            };
            slave.handle(origin.elapsed(), input, &mut Water);
        }
    });
    (address, serving)
}

#[tokio::test]
async fn a_meter_on_m_bus_is_read_out_once() {
    let read = async |json: bool, wanted: &[&str]| {
        let (address, serving) = water_meter().await;
        let text = format!(
            "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"{address}\"\n[[meter]]\nname = \"m\"\nline = \"l\"\n\
             protocol = \"mbus\"\naddress = \"5\"\ninitial_baud = 38400\n"
        );
        let checked = Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap();
        let wanted: Vec<String> = wanted.iter().map(|code| (*code).to_owned()).collect();
        let mut out = Vec::new();
        super::read(&checked, "m", &wanted, json, &mut out).await.unwrap();
        serving.await.unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = read(false, &["8-0:1.0.0", "mbus:5A"]).await;
    for line in [
        "identity               SIM:12345678:01:07",
        "1.234 m3",
        "mbus:5A                refused: the meter does not tell it",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let object: serde_json::Value = serde_json::from_str(&read(true, &[]).await).unwrap();
    assert_eq!((&object["meter"], &object["values"][0]["value"]), (&"SIM:12345678:01:07".into(), &"1.234".into()));
}
