//! P1 ports: what a reader of TCP or of a pty decodes is what the truth says.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use common::{Told, places, start, told, truth};
use firmware_sim::speak::LinePlace;
use protocols::metering::UtcMillis;
use protocols::p1::{Readout, Scan, Settings, scan};
use tokio::time::{Instant, sleep};

type ByMeter = BTreeMap<String, BTreeSet<Told>>;

/// Reads telegrams for a while, or until there are so many.
fn read(mut stream: impl Read, telegrams: usize) -> ByMeter {
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut octets, mut found, mut count) = (Vec::new(), ByMeter::new(), 0);
    while count < telegrams && Instant::now() < deadline {
        let mut chunk = [0; 4096];
        let got = stream.read(&mut chunk).unwrap_or(0);
        octets.extend(&chunk[..got]);
        loop {
            let used = match scan(&octets) {
                Scan::NeedMore => break,
                Scan::Garbage { skip, .. } => skip,
                Scan::Telegram { telegram, used } => {
                    // No stamp of a P1 meter needs the time of its arrival.
                    if let Ok(readout) = Readout::decode(&telegram, &Settings::default(), UtcMillis(0)) {
                        assert_eq!(readout.problems, []);
                        count += 1;
                        for meter in readout.meters {
                            let readings = meter.readings.into_iter().map(|reading| {
                                (
                                    reading.code.to_string(),
                                    reading.kind.name().to_owned(),
                                    u64::from(reading.period_s),
                                    reading.captured_at.to_string(),
                                    u64::from(reading.nth),
                                    reading.quantity.decimal(),
                                    reading.quantity.unit.to_string(),
                                    reading.quality.to_string(),
                                )
                            });
                            found.entry(meter.meter.to_string()).or_default().extend(readings);
                        }
                    }
                    used
                }
            };
            octets.drain(..used);
        }
    }
    assert!(count >= telegrams, "{count} telegrams only");
    found
}

fn truth_by_meter(path: &Path) -> ByMeter {
    let mut all = ByMeter::new();
    for line in truth(path) {
        assert!(line["pushed_at"].is_i64() && line["protocol"] == "p1", "{line}");
        let is_new = all.entry(line["meter"].as_str().unwrap().to_owned()).or_default().insert(told(&line));
        assert!(is_new, "told twice: {line}");
    }
    all
}

fn connect(place: &LinePlace) -> TcpStream {
    let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    stream
}

/// Everything read is told; what is told and not read was sent after the last look.
fn compare(read: &ByMeter, told: &ByMeter, in_flight_max: usize) {
    assert_eq!(read.keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>());
    for (meter, read) in read {
        assert!(read.is_subset(&told[meter]), "{meter}: {:?}", read.difference(&told[meter]).next());
        let missing = told[meter].len() - read.len();
        assert!(missing <= in_flight_max, "{meter}: {missing} readings were not read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_on_tcp_finds_what_the_truth_says_and_without_one_nothing_is_captured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    // An hour passes in six seconds: the gas meter's value changes.
    let fleet = start(&format!(
        "truth = {path:?}\nspeed = 600.0\n[[meters]]\nprotocol = \"p1\"\ngas = true\ninterval_ms = 50\n\
         faults = {{ wrong-crc = 0.1, line-noise = 0.1, silence = 0.1 }}"
    ))
    .await;
    let places = places(&fleet);
    assert_eq!(places[0].1.gas_meter.as_deref(), Some("SIM-GAS:000001"));
    sleep(Duration::from_millis(300)).await;
    assert_eq!(truth(&path), [] as [serde_json::Value; 0]);
    let place = places[0].1.clone();
    let found = tokio::task::spawn_blocking(move || read(connect(&place), 150)).await.unwrap();
    // A reader that left is noticed: at most what was on its way then is told.
    sleep(Duration::from_millis(300)).await;
    let told = truth_by_meter(&path);
    compare(&found, &told, 3 * 8);
    assert!(found["SIM-GAS:000001"].len() >= 2, "{:?}", found["SIM-GAS:000001"]);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(truth_by_meter(&path), told);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_on_a_pty_finds_what_the_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("truth.jsonl"), folder.path().join("p1"));
    let fleet = start(&format!(
        "truth = {path:?}\n[[meters]]\ncount = 2\nprotocol = \"p1\"\nline = \"pty\"\npath = {link:?}\ndsmr = \"4.2\"\n\
         interval_ms = 1000\nzone = \"CET\"\npace = true"
    ))
    .await;
    let places = places(&fleet);
    assert_eq!(places[1].1.path.as_deref(), Some(&*format!("{}-2", link.display())));
    let readers = places.into_iter().map(|(_, place)| {
        tokio::task::spawn_blocking(move || {
            let port = tokio_serial::new(place.path.unwrap(), 115_200).timeout(Duration::from_millis(50));
            read(port.open().unwrap(), 3)
        })
    });
    let mut found = ByMeter::new();
    for reader in readers.collect::<Vec<_>>() {
        found.extend(reader.await.unwrap());
    }
    fleet.stop().await;
    compare(&found, &truth_by_meter(&path), 2 * 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pty_at_which_nobody_reads_does_not_hold_anything_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let fleet =
        start(&format!("truth = {path:?}\n[[meters]]\nprotocol = \"p1\"\nline = \"pty\"\ninterval_ms = 1000")).await;
    let places = places(&fleet);
    sleep(Duration::from_secs(9)).await;
    let unread = truth(&path).len();
    assert!(unread > 0, "what fits into the buffer was sent");
    let place = places[0].1.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let port = tokio_serial::new(place.path.unwrap(), 115_200).timeout(Duration::from_millis(50));
        read(port.open().unwrap(), 8)
    });
    let found = reader.await.unwrap();
    let begun = Instant::now();
    fleet.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(4));
    compare(&found, &truth_by_meter(&path), unread + 2 * 8);
}
