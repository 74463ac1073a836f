use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocols::mbus::{
    Baud, Builder, Civil, Datum, Input, Key, Output, Place, SecondaryAddress, Slave, SlaveConfig, SlaveData, Status,
    maker_code,
};
use protocols::metering::{Kind, ObisCode, Quantity, TelegramReading, Unit, UtcMillis};
use protocols::uplink::{MeterEntry, MeterState};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;
use crate::config::Config;
use crate::config::metering::Addressing;
use crate::link::StreamLink;
use crate::outbox::Outbox;
use crate::reading::testing::{SetClock, T0, TokioClock};
use crate::reading::tests::{parts, stored};
use crate::trust::ClockTrust;

/// A water meter, under the hands of the test.
struct Body {
    number: u32,
    litres: i64,
    /// At the end of days of October.
    frozen: Vec<(u8, i64)>,
    clock: Option<Civil>,
    status: u8,
    key: Option<Key>,
}

#[derive(Clone)]
struct SharedBody(Arc<Mutex<Body>>);

fn address(number: u32) -> SecondaryAddress {
    SecondaryAddress::of_number(number, maker_code("SIM").unwrap(), 1, 0x07)
}

impl SharedBody {
    fn new(number: u32) -> Self {
        let frozen = vec![(30, 900), (31, 950)];
        Self(Arc::new(Mutex::new(Body { number, litres: 1_000, frozen, clock: None, status: 0, key: None })))
    }

    fn with<R>(&self, change: impl FnOnce(&mut Body) -> R) -> R {
        change(&mut self.0.lock().unwrap())
    }
}

impl SlaveData for SharedBody {
    fn telegrams(&mut self) -> Vec<Vec<u8>> {
        let body = self.0.lock().unwrap();
        let volume = |litres| {
            let quantity = Quantity::new(litres, -3, Unit::CUBIC_METRE);
            TelegramReading::new(ObisCode::new(8, 0, 1, 0, 0, 255), Kind::Register, T0, quantity)
        };
        let mut builder = Builder::new(address(body.number)).status(Status(body.status));
        builder = builder.reading(&volume(body.litres), 0).unwrap();
        // So much of a heat sensor that it takes a second telegram.
        for storage in 20..45 {
            let place = Place { storage, ..Place::PRESENT };
            builder = builder.record(place, &[0x5a], &Datum::Integer(210, 4)).unwrap();
        }
        for (storage, (day, litres)) in (1..).zip(&body.frozen) {
            let date = Civil { year: Some(2026), month: Some(10), day: Some(*day), ..Civil::default() };
            builder = builder.storage_date(storage, date).unwrap().reading(&volume(*litres), storage).unwrap();
        }
        if let Some(clock) = body.clock {
            builder = builder.clock(clock).unwrap();
        }
        match &body.key {
            Some(key) => builder.finish_enciphered(key),
            None => builder.finish(),
        }
    }
}

const BAUD: Baud = Baud::B2400;

/// Slaves that share a line: each hears everything, and what they say takes its time.
async fn serve(mut stream: DuplexStream, mut slaves: Vec<(Slave, SharedBody)>) {
    let origin = Instant::now();
    let mut buffer = [0; 1024];
    loop {
        let mut wake = None;
        for (slave, _) in &mut slaves {
            loop {
                match slave.poll() {
                    Output::Send(octets) => {
                        for piece in octets.chunks(32) {
                            tokio::time::sleep(BAUD.transmit_time(piece.len())).await;
                            if stream.write_all(piece).await.is_err() {
                                return;
                            }
                        }
                    }
                    Output::Event(()) => {}
                    Output::WaitUntil(at) => {
                        wake = [wake, at].into_iter().flatten().min();
                        break;
                    }
                }
            }
        }
        let until = wake.map_or_else(|| Instant::now() + Duration::from_secs(3600), |at| origin + at);
        let received = tokio::time::timeout_at(until, stream.read(&mut buffer)).await;
        let input = match &received {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(count)) => {
                tokio::time::sleep(BAUD.transmit_time(*count)).await;
                Input::Received(&buffer[..*count])
            }
            Err(_) => Input::Tick,
        };
        for (slave, body) in &mut slaves {
            slave.handle(origin.elapsed(), input, body);
        }
    }
}

/// A gateway with some meters at the end of a line, of which it knows one.
struct Site {
    parts: SessionParts,
    outbox: Arc<Mutex<Outbox>>,
    meter: Arc<MeterSettings>,
    memory: MeterMemory,
    link: StreamLink<DuplexStream>,
}

impl Site {
    fn new(meter: &str, bodies: &[&SharedBody]) -> Self {
        let text = format!(
            "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"a:1\"\n[[meter]]\nname = \"m\"\nline = \"l\"\n\
             protocol = \"mbus\"\n{meter}"
        );
        let checked = Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap();
        let meter = checked.lines[0].meters[0].clone();
        let (parts, outbox) = parts(&TokioClock::shared(T0));
        parts.inventory.enter(MeterEntry {
            name: "m".to_owned(),
            meter: None,
            metering_point: None,
            protocol: meter.protocol.name().to_owned(),
            expected: Vec::new(),
            last_read_at: None,
            clock_offset_ms: None,
            state: MeterState::Unknown,
            cause: String::new(),
        });
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let slave = |(primary, body): (u8, &&SharedBody)| {
            let number = body.with(|body| body.number);
            (Slave::new(SlaveConfig::new(primary, address(number), BAUD)), (*body).clone())
        };
        tokio::spawn(serve(theirs, (1..).zip(bodies).map(slave).collect()));
        Self { parts, outbox, memory: MeterMemory::new(meter.reads.len()), meter, link: StreamLink(ours) }
    }

    async fn visit(&mut self) -> Result<Visited, SessionError> {
        let Addressing::Mbus(settings) = self.meter.addressing.clone() else { panic!("{:?}", self.meter) };
        let due: Vec<usize> = (0..self.meter.reads.len()).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        let order = Order { due: &due, yield_at: Duration::MAX, deadline };
        let mut bus = Bus::new(&mut self.link, &settings, deadline)?;
        visit(&self.parts, &self.meter, &settings, &mut self.memory, &mut bus, &order).await
    }

    fn entry(&self) -> MeterEntry {
        self.parts.inventory.snapshot().1.meters.remove(0)
    }

    /// What lies in the outbox and is named so.
    fn rows(&self, what: &str) -> Vec<String> {
        stored(&self.outbox).into_keys().map(|(_, _, text)| text).filter(|text| text.contains(what)).collect()
    }
}

/// Negative control: store frozen values each time.
#[tokio::test(start_paused = true)]
async fn all_telegrams_of_a_meter_are_stored_and_frozen_values_once() {
    let body = SharedBody::new(12_345_678);
    let mut site = Site::new("address = \"1\"\n", &[&body]);
    site.visit().await.unwrap();
    let entry = site.entry();
    assert_eq!(
        (entry.state, entry.meter.unwrap().as_str(), &*entry.protocol),
        (MeterState::Ok, "SIM:12345678:01:07", "mbus")
    );
    assert_eq!(site.rows("8-0:1.0.0 register"), ["SIM:12345678:01:07  8-0:1.0.0 register 1.000 m3 "]);
    assert_eq!(site.rows("8-0:1.0.0 billing").len(), 2);
    assert_eq!(site.rows("mbus:5A-s").len(), 25, "storages without a date keep their number");
    let stored = site.parts.metrics.value(crate::telemetry::Metric::ReadingsStored);
    tokio::time::advance(Duration::from_secs(900)).await;
    body.with(|body| {
        body.litres = 1_010;
        body.frozen[1].1 = 951;
    });
    site.visit().await.unwrap();
    assert_eq!(site.rows("8-0:1.0.0 register").len(), 2);
    let again = site.parts.metrics.value(crate::telemetry::Metric::ReadingsStored) - stored;
    assert_eq!(again, 1 + 25 + 1, "and the one that was revised");
    assert_eq!(site.parts.metrics.value(crate::telemetry::Metric::ReadingsRepeated), 0);
}

/// Negative control: leave the selection out.
#[tokio::test(start_paused = true)]
async fn of_several_meters_the_one_that_is_addressed_answers() {
    let (one, other) = (SharedBody::new(11_111_111), SharedBody::new(22_222_222));
    for address in ["\"2\"", "\"22222222\"", "\"2222222F2D4D0107\""] {
        let mut site = Site::new(&format!("address = {address}\n"), &[&one, &other]);
        site.visit().await.unwrap_or_else(|error| panic!("{address}: {}", error.text()));
        assert_eq!(site.entry().meter.unwrap().as_str(), "SIM:22222222:01:07");
    }
    let mut nobody = Site::new("address = \"33333333\"\n", &[&one, &other]);
    let error = nobody.visit().await.unwrap_err();
    assert_eq!(error.state(), Some(MeterState::Silent));
    assert!(error.text().ends_with("are its address, and the rate of its line, right?"), "{}", error.text());
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_expected_is_held() {
    let body = SharedBody::new(12_345_678);
    let mut site = Site::new("address = \"1\"\nserial = \"SIM:87654321:01:07\"\n", &[&body]);
    assert_eq!(site.visit().await.unwrap().state, MeterState::WrongIdentity);
    assert_eq!(site.entry().cause, "expected SIM:87654321:01:07, found SIM:12345678:01:07");
    let mut site = Site::new("address = \"1\"\nserial = \"SIM:12345678:01:07\"\n", &[&body]);
    assert_eq!(site.visit().await.unwrap().state, MeterState::Ok);
}

fn key_file(folder: &tempfile::TempDir, digits: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.path().join(&digits[..2]);
    std::fs::write(&path, digits).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("address = \"1\"\nencryption_key_file = {path:?}\n")
}

/// Negative control: give the master no key, with which the second telegram is not asked for.
#[tokio::test(start_paused = true)]
async fn an_enciphered_meter_is_read_with_its_key_only() {
    let body = SharedBody::new(12_345_678);
    body.with(|body| body.key = Some(Key::new([7; 16])));
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::new(&key_file(&folder, &"07".repeat(16)), &[&body]);
    site.visit().await.unwrap();
    assert_eq!((site.rows("8-0:1.0.0 billing").len(), site.rows("mbus:5A-s").len()), (2, 25));
    for (settings, hint) in [
        ("address = \"1\"\n".to_owned(), "no key is known: set encryption_key_file in its section"),
        (key_file(&folder, &"08".repeat(16)), "the key is wrong: is encryption_key_file of its section right?"),
    ] {
        let mut site = Site::new(&settings, &[&body]);
        let error = site.visit().await.unwrap_err();
        assert!(error.text().ends_with(hint), "{}", error.text());
        assert_eq!((error.state(), stored(&site.outbox).len()), (Some(MeterState::Refusing), 0));
    }
}

/// Negative control: leave the half minute out.
#[tokio::test(start_paused = true)]
async fn the_clock_and_the_status_are_told() {
    let body = SharedBody::new(12_345_678);
    // T0 is 2026-11-23 00:01:00 UTC.
    let shown = |hour, minute| Civil {
        year: Some(2026),
        month: Some(11),
        day: Some(23),
        hour: Some(hour),
        minute: Some(minute),
        ..Civil::default()
    };
    body.with(|body| (body.clock, body.status) = (Some(shown(1, 0)), Status::POWER_LOW.0));
    let settings = "address = \"1\"\nutc_offset_minutes = 60\ndaylight_saving_minutes = 60\nclock_off_above_s = 40\n";
    let mut site = Site::new(settings, &[&body]);
    site.visit().await.unwrap();
    let entry = site.entry();
    assert_eq!(
        (entry.state, entry.clock_offset_ms.map(|ms| ms.abs() <= 32_000)),
        (MeterState::Ok, Some(true)),
        "{entry:?}"
    );
    assert_eq!(site.rows("mbus:status").len(), 1);
    body.with(|body| body.clock = Some(shown(2, 1)));
    site.visit().await.unwrap();
    assert_eq!(site.entry().state, MeterState::ClockOff);
    assert_eq!(site.rows("mbus:status").len(), 1, "it has not changed");
}

/// Negative control: do not ask `kind_in`.
#[tokio::test(start_paused = true)]
async fn a_section_takes_what_it_names() {
    let body = SharedBody::new(12_345_678);
    let read = "address = \"1\"\n[[meter.read]]\nsource = \"readout\"\ncodes = [\"8-0:1.0.0\", \"mbus:5A-s20\"]\n";
    let mut site = Site::new(read, &[&body]);
    site.visit().await.unwrap();
    assert_eq!((site.rows("8-0:1.0.0").len(), site.rows("mbus:5A").len()), (3, 1));
}

/// Negative control: leave out `stamp_by` in `read_live_values`; the value is dated two hours early.
#[tokio::test(start_paused = true)]
async fn what_was_read_out_before_the_clock_was_set_right_is_dated_by_the_right_time() {
    let body = SharedBody::new(12_345_678);
    let mut site = Site::new("address = \"1\"\n", &[&body]);
    let right = site.parts.clock.clone();
    let clock = SetClock::shared(&right, -2 * 3_600_000);
    site.parts.clock = clock.clone();
    site.parts.trust = ClockTrust::new(clock.clone(), 1);
    site.parts.trust.on_cloud_time(right.wall());
    let Addressing::Mbus(settings) = site.meter.addressing.clone() else { panic!("{:?}", site.meter) };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut bus = Bus::new(&mut site.link, &settings, deadline).unwrap();
    let (who, readout) = read_out(&mut bus, &settings, None, &site.parts.clock).await.unwrap();
    let mut told = Some((readout, Moment::now(&site.parts.clock)));
    clock.set(0);
    let order = Order { due: &[0], yield_at: Duration::MAX, deadline };
    Session::new(&site.parts, &site.meter, &mut site.memory, &mut told, who).visit(&order).await.unwrap();
    let rows = stored(&site.outbox);
    let (at, ..) = rows.keys().find(|(_, _, what)| what.contains("8-0:1.0.0 register")).unwrap();
    assert!((T0..=right.wall()).contains(&UtcMillis(*at)), "{}", UtcMillis(*at));
}
