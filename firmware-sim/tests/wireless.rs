//! Wireless M-Bus: what a reader of a receiver decodes is what the truth says, and what came twice is in it once.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use common::{Told, places, read_as_told, start, told, truth};
use firmware_sim::speak::LinePlace;
use protocols::iec62056_21::MeterClock;
use protocols::mbus::{Key, Listener, RadioMode, Readout, Receiver, Reception, Settings, WirelessFrame};
use protocols::metering::UtcMillis;
use tokio::time::{Instant, sleep};

/// How often each was said, without its time, which is that of the arrival.
type Said = BTreeMap<Told, usize>;

fn timeless(told: Told) -> Told {
    let (code, kind, period, _, nth, value, unit, quality) = told;
    (code, kind, period, String::new(), nth, value, unit, quality)
}

fn count(all: impl Iterator<Item = Told>) -> Said {
    let mut said = Said::new();
    all.for_each(|one| *said.entry(timeless(one)).or_default() += 1);
    said
}

/// The frames of a while, and how often one came twice behind itself, and how often there was something else.
fn listen(place: &LinePlace, receiver: Receiver, for_ms: u64) -> (Vec<WirelessFrame>, usize, usize) {
    let mut stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + Duration::from_millis(for_ms);
    let mut listener = Listener::new(receiver, RadioMode::CT);
    let (mut frames, mut doubled, mut garbage): (Vec<WirelessFrame>, _, _) = (Vec::new(), 0, 0);
    while Instant::now() < deadline {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).unwrap_or(0);
        listener.feed(&chunk[..count]);
        while let Some(reception) = listener.next_reception() {
            match reception {
                Reception::Frame { frame, .. } if frames.last() == Some(&frame) => doubled += 1,
                Reception::Frame { frame, .. } => frames.push(frame),
                _ => garbage += 1,
            }
        }
    }
    (frames, doubled, garbage)
}

/// Controls, seen to fail: count the access number no more; put what came twice into the truth twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_receiver_finds_what_the_truth_says_once() {
    for (name, receiver, encrypted, medium) in [
        ("rtl-wmbus", Receiver::RtlWmbus, true, "heat"),
        ("im871a", Receiver::Im871a, false, "water"),
        ("im871a", Receiver::Im871a, true, "electricity"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let fleet = start(&format!(
            "truth = {path:?}\nspeed = 600.0\nhistory_days = 70.0\n[[meters]]\nprotocol = \"wmbus\"\ninterval_ms = 50\n\
             receiver = {name:?}\nencrypted = {encrypted}\nmedium = {medium:?}\nzone = \"CET\"\n\
             faults = {{ duplicate = 0.2, wrong-crc = 0.1 }}"
        ))
        .await;
        let place = places(&fleet)[0].1.clone();
        assert_eq!(place.receiver, Some(name));
        let of_place = place.clone();
        let heard = tokio::task::spawn_blocking(move || listen(&of_place, receiver, 3_000)).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        let (frames, doubled, garbage) = heard;
        assert!(doubled > 0 && garbage > 0, "{name}: {doubled} came twice, {garbage} were spoilt");
        let key = place.encryption_key.as_deref().map(|digits| {
            let key = protocols::dlms::security::Key::from_hex(digits).unwrap();
            Key::try_from(&key).unwrap()
        });
        assert_eq!(key.is_some(), encrypted);
        let settings = Settings { clock: MeterClock::CET, ..Settings::default() };
        let mut readings = Vec::new();
        for frame in &frames {
            assert!(frame.carries_values());
            let telegram = frame.telegram(key.as_ref()).unwrap();
            assert_eq!(telegram.header.mode, if encrypted { 5 } else { 0 });
            let readout = Readout::decode(&[telegram], &settings, UtcMillis(0)).unwrap();
            assert_eq!((Some(readout.meter.as_str()), readout.problems.len()), (place.identity.as_deref(), 0));
            assert!(readout.clock.is_some());
            readings.extend(readout.readings.iter().map(read_as_told));
        }
        let lines = truth(&path);
        assert!(lines.iter().all(|line| line["pushed_at"].is_i64() && line["protocol"] == "wmbus"), "{lines:?}");
        // A value of the past is told again and again, and in the truth once.
        let is_present = |told: &Told| told.1 != "billing";
        let found = count(readings.iter().filter(|told| is_present(told)).cloned());
        let said = count(lines.iter().map(told).filter(is_present));
        let of = |said: &Said| said.values().sum::<usize>();
        assert!(found.iter().all(|(told, times)| said.get(told) >= Some(times)), "{name}: {found:?} {said:?}");
        assert!(of(&found) > 30 && of(&said) - of(&found) <= 5 * 5, "{name}: {} of {}", of(&found), of(&said));
        let past = lines.iter().map(told).filter(|told| !is_present(told)).collect::<Vec<_>>();
        assert!(!past.is_empty() && past.iter().all(|told| readings.contains(told)), "{past:?}");
        fleet.stop().await;
    }
}
