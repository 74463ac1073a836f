//! Meters of IEC 62056-21 on lines: what a reader of TCP or of a pty finds is what the truth says.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Told, places, start, told_of, truth};
use firmware_sim::meter::VirtualMeter;
use firmware_sim::speak::LinePlace;
use protocols::iec62056_21::{
    Baud, Client, ClientConfig, ClientEvent, DataBlock, DeviceAddress, Goal, Input, MeterClock, Output, Password,
    Profile, ReadLevel, ReadRequest, Readout, SessionError, Settings,
};
use protocols::metering::{TelegramReading, UtcMillis};
use tokio::time::Instant;

/// A reader over any stream whose reads give up after a while.
struct Reader<S> {
    stream: S,
    client: Client,
    origin: Instant,
}

impl<S: Read + Write> Reader<S> {
    fn new(stream: S, place: &LinePlace, baud: Baud) -> Self {
        let address = DeviceAddress::new(place.device_address.as_deref().unwrap()).unwrap();
        // On a pty nobody changes the rate, and nobody has to.
        let config = ClientConfig { initial_baud: baud, retries_max: 8, ..ClientConfig::new(address) };
        Self { stream, client: Client::new(config), origin: Instant::now() }
    }

    fn event(&mut self) -> Result<ClientEvent, SessionError> {
        loop {
            match self.client.poll() {
                Output::Send(octets) => self.stream.write_all(&octets).unwrap(),
                Output::SetLine(_) => {}
                Output::Event(event) => return Ok(event),
                Output::WaitUntil(_) => {
                    let mut buffer = [0; 1024];
                    let count = self.stream.read(&mut buffer).unwrap_or(0);
                    let input = if count == 0 { Input::Tick } else { Input::Received(&buffer[..count]) };
                    self.client.handle(self.origin.elapsed(), input)?;
                }
            }
        }
    }

    fn read_out(&mut self) -> DataBlock {
        self.client.sign_on(self.origin.elapsed(), Goal::Readout).unwrap();
        loop {
            if let ClientEvent::ReadOut(block) = self.event().unwrap() {
                return block;
            }
        }
    }

    fn log_in(&mut self, password: &str) -> Result<(), SessionError> {
        self.client.sign_on(self.origin.elapsed(), Goal::Programming).unwrap();
        while !matches!(self.event()?, ClientEvent::Programming { .. }) {}
        self.client.log_in(self.origin.elapsed(), &Password::plain(password).unwrap())?;
        while self.event()? != ClientEvent::LoggedIn {}
        Ok(())
    }

    fn read(&mut self, level: ReadLevel, address: &str, argument: &str) -> Result<DataBlock, String> {
        let request = ReadRequest::new(level, address, argument).unwrap();
        self.client.read(self.origin.elapsed(), &request).unwrap();
        match self.event().unwrap() {
            ClientEvent::Answered(block) => Ok(block),
            ClientEvent::Refused { reason } => Err(reason),
            other => panic!("{other:?}"),
        }
    }
}

fn connect(place: &LinePlace) -> TcpStream {
    let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    stream
}

fn told(reading: &TelegramReading) -> Told {
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
}

fn utc() -> Settings {
    Settings { clock: MeterClock::UTC, ..Settings::default() }
}

const FAST: &str = "initial_baud = 19200\nbaud = 19200\n";

#[tokio::test(flavor = "multi_thread")]
async fn each_meter_of_a_line_is_read_out_by_its_address() {
    let fleet = start(&format!("[[meters]]\ncount = 2\nprotocol = \"iec62056-21\"\n{FAST}")).await;
    let places = places(&fleet);
    assert_eq!(places[0].1.address, places[1].1.address, "one line");
    let read = tokio::task::spawn_blocking(move || {
        for (meter, place) in places {
            let block = Reader::new(connect(&place), &place, Baud::B19200).read_out();
            let readout = Readout::decode(&block, &utc(), UtcMillis(0)).unwrap();
            assert_eq!((readout.meter.as_str(), readout.problems.len()), (&*meter, 0), "{:?}", readout.problems);
            assert!(readout.readings.len() == 8 && readout.clock.is_some(), "{readout:?}");
        }
    });
    read.await.unwrap();
    fleet.stop().await;
}

/// Controls, seen to fail: one header for all rows; no answer without power in a frozen world.
#[tokio::test(flavor = "multi_thread")]
async fn the_load_profile_is_what_the_truth_says_when_blocks_are_spoilt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let fleet = start(&format!(
        "truth = {path:?}\nhistory_days = 1.5\nspeed = 600.0\n[[meters]]\nprotocol = \"iec62056-21\"\n{FAST}\
         faults = {{ wrong-crc = 0.1, slow-answers = 0.02, power-failure = 1.0, clock-jump = 2.0 }}\n\
         profile = {{ columns = [\"import-register\", \"import-interval\", \"average-voltage\", \"average-power\"] }}"
    ))
    .await;
    fleet.freeze();
    fleet.stations()[0].now(VirtualMeter::power_down);
    let (meter, place) = places(&fleet).remove(0);
    let profile = tokio::task::spawn_blocking(move || {
        let mut reader = Reader::new(connect(&place), &place, Baud::B19200);
        reader.log_in(place.password.as_deref().unwrap()).unwrap();
        assert!(reader.read(ReadLevel::R1, "1.8.0", "").unwrap().content.starts_with(b"1.8.0("));
        assert!(reader.read(ReadLevel::R1, "99.99.99", "").is_err());
        reader.read(ReadLevel::R6, "P.01", ";").unwrap()
    });
    let Profile { readings, problems } = Profile::decode(&profile.await.unwrap(), &utc(), UtcMillis(0));
    assert_eq!(problems, []);
    let read: std::collections::BTreeSet<Told> = readings.iter().map(told).collect();
    let told = told_of(&truth(&path), &meter, false);
    assert!(read.len() > 400, "{} read", read.len());
    assert_eq!(read, told);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_opens_nothing_and_a_reader_on_a_pty_changes_the_rate() {
    let fleet = start("[[meters]]\nprotocol = \"iec62056-21\"\nline = \"pty\"").await;
    let (meter, place) = places(&fleet).remove(0);
    assert_eq!(place.baud, Some(300));
    let read = tokio::task::spawn_blocking(move || {
        let open = || {
            let port = tokio_serial::new(place.path.as_deref().unwrap(), 300).timeout(Duration::from_millis(10));
            port.open().unwrap()
        };
        // By its break the meter is ready for the next call at once; after a read-out it waits for an acknowledgement.
        let refused = Reader::new(open(), &place, Baud::B300).log_in("wrong");
        assert_eq!(refused, Err(SessionError::PasswordRefused));
        let block = Reader::new(open(), &place, Baud::B300).read_out();
        assert_eq!(Readout::decode(&block, &utc(), UtcMillis(0)).unwrap().meter.as_str(), meter);
    });
    read.await.unwrap();
    fleet.stop().await;
}
