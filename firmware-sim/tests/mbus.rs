//! Meters on M-Bus: what a reader of a line finds is what the truth says.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{places, read_as_told, start, told, truth};
use firmware_sim::speak::LinePlace;
use protocols::iec62056_21::MeterClock;
use protocols::mbus::{
    Baud, Input, Key, Master, MasterConfig, MasterError, MasterEvent, Output, Readout, Settings, Target, Telegram,
};
use protocols::metering::{Kind, UtcMillis};
use tokio::time::Instant;

const BAUD: Baud = Baud::B38400;
const FAST: &str = "baud = 38400\n";

/// A reader that asks one meter after the other.
struct Reader {
    stream: TcpStream,
    master: Master,
    origin: Instant,
}

impl Reader {
    fn new(place: &LinePlace, key: Option<Key>) -> Self {
        let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let config = MasterConfig { key, retries_max: 8, ..MasterConfig::new(BAUD) };
        Self { stream, master: Master::new(config), origin: Instant::now() }
    }

    fn event(&mut self) -> MasterEvent {
        loop {
            match self.master.poll() {
                Output::Send(octets) => self.stream.write_all(&octets).unwrap(),
                Output::Event(event) => return event,
                Output::WaitUntil(_) => {
                    let mut buffer = [0; 1024];
                    let count = self.stream.read(&mut buffer).unwrap_or(0);
                    let input = if count == 0 { Input::Tick } else { Input::Received(&buffer[..count]) };
                    self.master.handle(self.origin.elapsed(), input);
                }
            }
        }
    }

    fn read(&mut self, target: Target, key: Option<&Key>) -> Result<Readout, MasterError> {
        while !self.master.is_idle() {
            self.stream.set_nonblocking(false).unwrap();
            let mut buffer = [0; 1024];
            let count = self.stream.read(&mut buffer).unwrap_or(0);
            let input = if count == 0 { Input::Tick } else { Input::Received(&buffer[..count]) };
            self.master.handle(self.origin.elapsed(), input);
            while let Output::Send(octets) = self.master.poll() {
                self.stream.write_all(&octets).unwrap();
            }
        }
        self.master.read(self.origin.elapsed(), target).unwrap();
        match self.event() {
            MasterEvent::Answered(answer) => {
                let telegrams = answer.telegrams.iter().map(|octets| Telegram::decode(octets, None, key).unwrap());
                let telegrams: Vec<_> = telegrams.collect();
                let settings = Settings { clock: MeterClock::CET, ..Settings::default() };
                Ok(Readout::decode(&telegrams, &settings, UtcMillis(1_795_000_000_000)).unwrap())
            }
            MasterEvent::Failed { error, .. } => Err(error),
            other => panic!("{other:?}"),
        }
    }
}

/// Control, seen to fail: date frozen values on the day after.
#[tokio::test(flavor = "multi_thread")]
async fn each_medium_is_read_by_either_address_and_its_frozen_values_are_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let media = ["water", "warm-water", "heat", "gas", "electricity"];
    let groups = media.map(|medium| {
        format!("[[meters]]\ncount = 2\nprotocol = \"mbus\"\nmedium = {medium:?}\nzone = \"CET\"\n{FAST}faults = {{ wrong-crc = 0.05, silence = 0.02 }}\n")
    });
    let fleet = start(&format!(
        "truth = {path:?}\nstart_at = \"2026-11-20T10:00:00Z\"\nhistory_days = 200.0\n{}",
        groups.concat()
    ))
    .await;
    fleet.freeze();
    let places = places(&fleet);
    let read = tokio::task::spawn_blocking(move || {
        let (mut frozen, mut count) = (BTreeSet::new(), 0);
        for (number, (_, place)) in places.iter().enumerate() {
            let targets = [
                Target::Primary(place.primary_address.unwrap()),
                Target::Secondary(place.secondary_address.as_deref().unwrap().parse().unwrap()),
            ];
            for target in targets {
                let readout = Reader::new(place, None).read(target, None).unwrap();
                assert_eq!((Some(readout.meter.as_str()), readout.problems.len()), (place.identity.as_deref(), 0));
                assert!(readout.clock.is_some(), "{readout:?}");
                let (billing, now): (Vec<_>, Vec<_>) =
                    readout.readings.iter().partition(|reading| reading.kind == Kind::Billing);
                assert_eq!((billing.len(), now.len() >= 2), (6, true), "meter {number}: {readout:?}");
                let of = |kind| now.iter().filter(move |reading| reading.kind == kind).count();
                assert!(of(Kind::Register) > 0 && of(Kind::Instant) > 0);
                frozen.extend(billing.into_iter().map(|reading| (readout.meter.to_string(), read_as_told(reading))));
                count += 1;
            }
        }
        assert_eq!(count, 20);
        frozen
    });
    let frozen = read.await.unwrap();
    let (present, past): (Vec<_>, Vec<_>) = truth(&path).into_iter().partition(|line| line["stamped_by"] == "reader");
    let told: BTreeSet<_> = past.iter().map(|line| (line["meter"].as_str().unwrap().to_owned(), told(line))).collect();
    assert_eq!(frozen.len(), 60);
    assert_eq!(frozen, told);
    assert!(present.len() >= 2 * 20 && present.iter().all(|line| line["kind"] != "billing"), "{}", present.len());
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enciphered_meter_is_read_with_its_key_and_secondary_addresses_tell_meters_apart() {
    let fleet = start(&format!(
        "history_days = 1.0\n[[meters]]\ncount = 3\nprotocol = \"mbus\"\nmedium = \"heat\"\nprimary_address_first = 0\nencrypted = true\n{FAST}"
    ))
    .await;
    let places = places(&fleet);
    let read = tokio::task::spawn_blocking(move || {
        for (_, place) in &places {
            assert_eq!(place.primary_address, Some(0));
            let digits = place.encryption_key.as_deref().unwrap();
            let key = protocols::dlms::security::Key::from_hex(digits).unwrap();
            let key = Key::try_from(&key).unwrap();
            let target = Target::Secondary(place.secondary_address.as_deref().unwrap().parse().unwrap());
            let mut reader = Reader::new(place, Some(key.clone()));
            let readout = reader.read(target, Some(&key)).unwrap();
            assert_eq!(Some(readout.meter.as_str()), place.identity.as_deref());
            assert!(readout.readings.len() >= 4);
            assert!(
                matches!(reader.read(Target::Primary(0), Some(&key)), Err(MasterError::Damaged { .. })),
                "all answer"
            );
        }
    });
    read.await.unwrap();
    fleet.stop().await;
}
