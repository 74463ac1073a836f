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

fn asking(obis: &[&str]) -> ReadOptions {
    ReadOptions { obis: obis.iter().map(|code| (*code).to_owned()).collect(), ..ReadOptions::default() }
}

/// What is printed of a meter that is read so.
async fn printed(options: &ReadOptions) -> String {
    let (address, serving) = meter().await;
    let mut out = Vec::new();
    read(&checked(&address), "m", options, &mut out).await.unwrap();
    serving.await.unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn a_meter_is_read_once_over_tcp() {
    let text = printed(&asking(&["1-0:1.8.0", "1-0:1.7.0", "1-0:99.9.9"])).await;
    for line in ["identity               SIM0001", "Wh", "230e1 W", "1-0:99.9.9             meter refused"] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let text = printed(&ReadOptions { json: true, ..ReadOptions::default() }).await;
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["meter"], "SIM0001");
    assert_eq!(object["values"][0]["code"], "1-0:1.8.0");
}

/// Controls, seen to fail: the password asked for; the scaler of another object.
#[tokio::test]
async fn all_objects_of_a_meter_are_shown_with_what_may_be_read_of_them() {
    let options = ReadOptions { object_list: true, ..ReadOptions::default() };
    let text = printed(&options).await;
    for line in [
        "0-0:42.0.0             Data (1 v0): logical device name\n   2 value                          SIM0001\n",
        "1-0:1.8.0              Register (3 v0): active energy import\n",
        "   3 scaler_unit                    10^0 Wh\n",
        "   2 value                          230e1 W\n",
        "   4 status                         (this client may not read it)\n",
        "   2 buffer                         (not asked: `read --profile` does)\n",
        "   4 capture_period                 900\n",
        "   7 secret                         (not asked: it is a secret)\n",
        "1-0:199.0.0            unknown class (40000 v0)\n   2                                (meter refused: ",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let text = printed(&ReadOptions { json: true, ..options }).await;
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert_eq!((&lines[2]["code"], &lines[2]["attributes"][0]["value"]), (&"1-0:1.7.0".into(), &"230e1".into()));
    assert_eq!(
        (&lines[2]["name"], &lines[2]["class_name"]),
        (&"active power import, instantaneous".into(), &"Extended register".into())
    );
    assert!(lines[5]["attributes"][0]["refused"].as_str().unwrap().starts_with("meter refused: "), "{}", lines[5]);
}

/// Control, seen to fail: all of what the meter has is shown.
#[tokio::test]
async fn a_load_profile_is_shown_between_two_instants() {
    let at = |label: i64| Some(protocols::metering::UtcMillis(T0.0 - 60_000 + label * 900_000).to_string());
    let options =
        ReadOptions { profile: Some("1-0:99.1.0".to_owned()), from: at(-3), to: at(-1), ..ReadOptions::default() };
    let text = printed(&ReadOptions { csv: true, ..options.clone() }).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "captured_at,quality,1-0:1.8.0 [Wh]");
    assert_eq!(lines[1], format!("{},good,1093", at(-3).unwrap()));
    assert_eq!((lines.len(), lines[2]), (3, &*format!("{},good,1094", at(-2).unwrap())));
    let text = printed(&options).await;
    assert!(text.starts_with("captured_at          quality 1-0:1.8.0 Wh\n"), "{text}");
    assert!(text.contains("good            1093\n") && text.lines().count() == 3, "{text}");
    let text = printed(&ReadOptions { json: true, ..options.clone() }).await;
    let row: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&row["quality"], &row["values"][0]["value"]), (&"good".into(), &"1093".into()));
    let (address, serving) = meter().await;
    let absent = ReadOptions { profile: Some("1-0:99.9.0".to_owned()), ..ReadOptions::default() };
    let error = read(&checked(&address), "m", &absent, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(
        error.starts_with("1-0:99.9.0: meter refused: ") && error.contains("\nhint: `read --object-list`"),
        "{error}"
    );
    drop(serving);
    let turned = ReadOptions { from: at(0), to: at(-1), ..options.clone() };
    let error = read(&checked("127.0.0.1:1"), "m", &turned, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.contains("is not before --to"), "{error}");
    let unreadable = ReadOptions { from: Some("yesterday".to_owned()), ..options };
    let error = read(&checked("127.0.0.1:1"), "m", &unreadable, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.contains("\"yesterday\" is no instant"), "{error}");
}

/// In another framing secrets would not be found.
#[test]
fn a_trace_knows_what_a_meter_speaks() {
    for (settings, expected) in [
        ("protocol = \"dlms-wrapper\"", Framing::Wrapper),
        ("protocol = \"dlms-hdlc\"", Framing::Hdlc),
        ("protocol = \"iec62056-21\"", Framing::Iec62056_21),
        ("protocol = \"mbus\"\naddress = \"5\"", Framing::Mbus),
    ] {
        let text = format!(
            "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"a:1\"\n[[meter]]\nname = \"m\"\nline = \"l\"\n{settings}\n"
        );
        let checked = Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap();
        assert_eq!(framing(&checked.lines[0].meters[0].addressing), expected);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_told_with_a_hint() {
    let mut out = Vec::new();
    let error = read(&checked("127.0.0.1:1"), "x", &asking(&[]), &mut out).await.unwrap_err().to_string();
    assert!(error.contains("there is no meter or port \"x\"") && error.contains("hint: known meters: m"), "{error}");
    let error = read(&checked("127.0.0.1:1"), "m", &asking(&[]), &mut out).await.unwrap_err().to_string();
    assert!(error.contains("refuses connections") && error.contains("hint:"), "{error}");
    let error = read(&checked("127.0.0.1:1"), "m", &asking(&["x"]), &mut out).await.unwrap_err();
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
        read(&checked, "m", &ReadOptions::default(), &mut out).await.unwrap();
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
    let error = read(&checked, "m", &ReadOptions::default(), &mut Vec::new()).await.unwrap_err().to_string();
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
        let obis = wanted.iter().map(|code| (*code).to_owned()).collect();
        let mut out = Vec::new();
        let options = ReadOptions { obis, json, ..ReadOptions::default() };
        super::read(&checked, "m", &options, &mut out).await.unwrap();
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

/// Control, seen to fail: cells of another code in a column.
#[test]
fn rows_that_carry_their_codes_make_a_table() {
    use protocols::metering::{Quality, Quantity, TelegramReading, Unit, UtcMillis};
    let reading = |code: &str, label: i64, value| {
        let code: Code = code.parse().unwrap();
        TelegramReading::new(
            code,
            Kind::Register,
            UtcMillis(label * 900_000),
            Quantity::new(value, -1, Unit::WATT_HOUR),
        )
    };
    let doubtful = TelegramReading { quality: Quality::CLOCK_ADJUSTED, ..reading("1-0:2.8.0", 1, 7) };
    let readings = vec![reading("1-0:1.8.0", 0, 10), reading("1-0:1.8.0", 1, 25), doubtful];
    let table = rows::Table::of_rows(readings, &[], &[""; 0]);
    let mut out = Vec::new();
    table.print(&ReadOptions { csv: true, ..ReadOptions::default() }, &mut out).unwrap();
    let expected = "captured_at,quality,1-0:1.8.0 [Wh],1-0:2.8.0 [Wh]\n1970-01-01T00:00:00Z,good,1.0,\n\
                    1970-01-01T00:15:00Z,clock-adjusted,2.5,0.7\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}
