//! Ports of SML, D0, DLMS and ciphered P1: what a reader of TCP or of a pty decodes is what the truth says.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use common::{Told, places, read_as_told, start, told, truth};
use firmware_sim::speak::LinePlace;
use protocols::dlms::security::{Key, Keys, PushConfig, PushReceiver, ReceivedCounters};
use protocols::hdlc::{UiReassembler, frame};
use protocols::iec62056_21::{self, PushScan, scan_push};
use protocols::mbus::{Quirks, Reassembler, Scanner};
use protocols::metering::UtcMillis;
use protocols::p1::{self, CipheredScan, scan_ciphered};
use protocols::sml;
use tokio::time::{Instant, sleep};

/// The octets of a while.
fn listen(mut stream: impl Read, for_ms: u64) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_millis(for_ms);
    let mut octets = Vec::new();
    while Instant::now() < deadline {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).unwrap_or(0);
        octets.extend(&chunk[..count]);
    }
    octets
}

fn read_sml(octets: &[u8]) -> (String, BTreeSet<Told>) {
    let (mut scanner, mut meter, mut all) = (sml::Scanner::default(), String::new(), BTreeSet::new());
    scanner.feed(octets);
    while let Some(found) = scanner.next_file() {
        let Ok(file) = found else { continue };
        let Ok(readout) = sml::Readout::decode(&file, &sml::Settings::default(), UtcMillis(0)) else { continue };
        assert_eq!(readout.problems, []);
        meter = readout.meters[0].meter.to_string();
        all.extend(readout.meters[0].readings.iter().map(read_as_told));
    }
    (meter, all)
}

fn connect(place: &LinePlace) -> TcpStream {
    let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    stream
}

fn truth_of(path: &Path, protocol: &str, meter: &str) -> BTreeSet<Told> {
    let lines = truth(path);
    for line in &lines {
        assert!(line["pushed_at"].is_i64() && line["protocol"] == protocol && line["meter"] == meter, "{line}");
    }
    lines.iter().map(told).collect()
}

/// What was told and not read was on its way at the end.
fn compare(read: &BTreeSet<Told>, told: &BTreeSet<Told>, in_flight_max: usize) {
    assert!(read.len() >= 100 && read.is_subset(told), "{} read, {:?}", read.len(), read.difference(told).next());
    assert!(told.len() - read.len() <= in_flight_max, "{} of {} were read", read.len(), told.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_sml_on_tcp_finds_what_the_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let fleet = start(&format!(
        "truth = {path:?}\nspeed = 600.0\n[[meters]]\nprotocol = \"sml\"\ninterval_ms = 50\nsolar_peak_w = 4000\n\
         faults = {{ wrong-crc = 0.1, line-noise = 0.1, dropped-bytes = 0.1, silence = 0.1 }}"
    ))
    .await;
    let place = places(&fleet)[0].1.clone();
    assert_eq!(place.identity.as_deref(), Some("1SIM0000000001"));
    sleep(Duration::from_millis(300)).await;
    assert_eq!(truth(&path), [] as [serde_json::Value; 0], "nobody listens yet");
    let octets = tokio::task::spawn_blocking(move || listen(connect(&place), 4_000)).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let (meter, found) = read_sml(&octets);
    compare(&found, &truth_of(&path, "sml", &meter), 3 * 7);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_sml_on_a_pty_finds_what_the_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let fleet = start(&format!(
        "truth = {path:?}\nspeed = 60.0\n[[meters]]\nprotocol = \"sml\"\nline = \"pty\"\ninterval_ms = 100"
    ))
    .await;
    let place = places(&fleet)[0].1.clone();
    let octets = tokio::task::spawn_blocking(move || {
        let port = tokio_serial::new(place.path.unwrap(), 9_600).timeout(Duration::from_millis(50));
        listen(port.open().unwrap(), 4_000)
    });
    let (meter, found) = read_sml(&octets.await.unwrap());
    fleet.stop().await;
    compare(&found, &truth_of(&path, "sml", &meter), 5 * 7);
}

/// Without the time, which is that of the arrival.
fn timeless(all: BTreeSet<Told>) -> BTreeSet<Told> {
    all.into_iter()
        .map(|(code, kind, period, _, nth, value, unit, quality)| {
            (code, kind, period, String::new(), nth, value, unit, quality)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_d0_finds_what_the_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let fleet = start(&format!(
        "truth = {path:?}\nspeed = 600.0\n[[meters]]\nprotocol = \"d0\"\ninterval_ms = 50\n\
         faults = {{ wrong-crc = 0.1, line-noise = 0.1, dropped-bytes = 0.1 }}"
    ))
    .await;
    let place = places(&fleet)[0].1.clone();
    let octets = tokio::task::spawn_blocking(move || listen(connect(&place), 4_000)).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let (mut rest, mut found) = (&octets[..], BTreeSet::new());
    loop {
        rest = match scan_push(rest) {
            PushScan::NeedMore => break,
            PushScan::Garbage { skip, .. } => &rest[skip..],
            PushScan::Push { push, used } => {
                if let Ok(block) = push.into_block(false) {
                    let settings = iec62056_21::Settings::default();
                    let readout = iec62056_21::Readout::decode(&block, &settings, UtcMillis(0)).unwrap();
                    assert_eq!((readout.problems, readout.meter.as_str()), (Vec::new(), "SIM:000001"));
                    found.extend(readout.readings.iter().map(read_as_told));
                }
                &rest[used..]
            }
        };
    }
    compare(&timeless(found), &timeless(truth_of(&path, "d0", "SIM:000001")), 3 * 8);
    fleet.stop().await;
}

/// What opens the pushes of a meter.
fn receiver(place: &LinePlace) -> PushReceiver {
    let key = |digits: &Option<String>| digits.as_deref().map(|digits| Key::from_hex(digits).unwrap());
    let authentication = key(&place.authentication_key).or_else(|| Some(p1::AUTHENTICATION_KEY.into()));
    let keys = Keys { unicast: key(&place.encryption_key), broadcast: None, authentication };
    PushReceiver::new(PushConfig::new(keys), ReceivedCounters::default()).unwrap()
}

fn apdus(octets: &[u8], framing: &str) -> Vec<Vec<u8>> {
    let mut apdus = Vec::new();
    if framing == "mbus" {
        let (mut scanner, mut reassembler) = (Scanner::new(Quirks::default()), Reassembler::default());
        scanner.feed(octets);
        while let Some(next) = scanner.next_frame() {
            let Ok(frame) = next else { continue };
            apdus.extend(reassembler.take(frame).ok().flatten().map(|whole| whole.apdu));
        }
        return apdus;
    }
    let (mut reassembler, mut rest) = (UiReassembler::new(65_536, Duration::ZERO), octets);
    loop {
        rest = match frame::scan(rest) {
            frame::Scan::NeedMore => return apdus,
            frame::Scan::Garbage { skip, .. } => &rest[skip..],
            frame::Scan::Frame { frame, used } => {
                apdus.extend(reassembler.accept(Duration::ZERO, &frame));
                &rest[used..]
            }
        };
    }
}

/// Values of the bodies that the simulator makes: code, value, scaler and unit in a structure each.
fn values(apdu: &[u8]) -> Vec<(String, String, String)> {
    use protocols::cosem::register::ScalerUnit;
    use protocols::dlms::datetime::ClockRules;
    use protocols::dlms::notification::{NotificationBody, decode_data_notification};
    let notification = decode_data_notification(apdu).unwrap();
    let NotificationBody::Data(body) = notification.body else { panic!("described values") };
    let at = notification.date_time.unwrap().to_utc(ClockRules::default()).unwrap().utc;
    let value = |element: protocols::dlms::data::Data<'_>| {
        let [code, value, scaler_unit] = element.structure()?.exactly()?;
        let quantity = ScalerUnit::decode(&scaler_unit).unwrap().quantity(&value).unwrap();
        Some((code.obis().unwrap().to_string(), at.to_string(), quantity.to_string()))
    };
    body.elements().unwrap().iter().filter_map(value).collect()
}

/// Control, seen to fail: never raise the counter.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_dlms_pushes_finds_what_the_truth_says_in_clear_or_not() {
    for (framing, encrypted) in [("hdlc", false), ("hdlc", true), ("mbus", true)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let fleet = start(&format!(
            "truth = {path:?}\nspeed = 600.0\n[[meters]]\nprotocol = \"dlms-push\"\ninterval_ms = 50\nframing = {framing:?}\n\
             encrypted = {encrypted}\nzone = \"CET\"\nfaults = {{ wrong-crc = 0.1 }}"
        ))
        .await;
        let place = places(&fleet)[0].1.clone();
        let of_place = place.clone();
        let octets = tokio::task::spawn_blocking(move || listen(connect(&of_place), 3_000)).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        let mut receiver = encrypted.then(|| receiver(&place));
        let mut found = BTreeSet::new();
        for apdu in apdus(&octets, framing) {
            let plain = receiver.as_mut().map_or(apdu.clone(), |receiver| receiver.receive(&apdu).unwrap().apdu);
            found.extend(values(&plain));
        }
        let told: BTreeSet<_> = truth(&path)
            .iter()
            .map(|line| ["code", "captured_at", "value", "unit"].map(|key| line[key].as_str().unwrap().to_owned()))
            .map(|[code, at, value, unit]| (code, at, format!("{value} {unit}")))
            .collect();
        let found: BTreeSet<_> = found.into_iter().collect();
        assert!(
            found.len() >= 100 && found.is_subset(&told),
            "{framing}: {} read, {:?}",
            found.len(),
            found.difference(&told).next()
        );
        assert!(told.len() - found.len() <= 3 * 11, "{framing}: {} of {} were read", found.len(), told.len());
        fleet.stop().await;
    }
}

/// Control, seen to fail: never raise the counter.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_ciphered_p1_finds_what_the_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let fleet = start(&format!(
        "truth = {path:?}\nspeed = 600.0\n[[meters]]\nprotocol = \"p1\"\ninterval_ms = 50\nencrypted = true\n\
         faults = {{ wrong-crc = 0.1, line-noise = 0.1 }}"
    ))
    .await;
    let place = places(&fleet)[0].1.clone();
    assert!(place.authentication_key.is_none(), "that of Luxembourg is known");
    let of_place = place.clone();
    let octets = tokio::task::spawn_blocking(move || listen(connect(&of_place), 4_000)).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let (mut receiver, mut rest, mut found) = (receiver(&place), &octets[..], BTreeSet::new());
    loop {
        rest = match scan_ciphered(rest) {
            CipheredScan::NeedMore => break,
            CipheredScan::Garbage { skip, .. } => &rest[skip..],
            CipheredScan::Block { apdu } => match receiver.receive(apdu) {
                Ok(pushed) => {
                    let telegram = p1::Telegram::parse(&pushed.apdu).unwrap();
                    let readout = p1::Readout::decode(&telegram, &p1::Settings::default(), UtcMillis(0)).unwrap();
                    found.extend(readout.meters.iter().flat_map(|meter| meter.readings.iter().map(read_as_told)));
                    &rest[apdu.len()..]
                }
                Err(_) => &rest[1..],
            },
        };
    }
    compare(&found, &truth_of(&path, "p1", "SIM:000001"), 3 * 8);
    fleet.stop().await;
}
