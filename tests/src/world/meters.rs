//! Five virtual meters of the simulator behind memory transports: two DLMS meters that a host of its own answers for, one on an
//! HDLC line, one P1 port, two CAD devices. (The P1 meter has a gas meter behind it, which is one more.)

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firmware_sim::clock::Zone;
use firmware_sim::consumption::{Consumption, Household};
use firmware_sim::faults::{Fault, FaultRates};
use firmware_sim::meter::{MeterSpec, VirtualMeter};
use firmware_sim::pace::Pace;
use firmware_sim::profile::{CapturePeriod, Column, ProfileSpec};
use firmware_sim::quirks::Quirks;
use firmware_sim::rng::Rate;
use firmware_sim::speak::cad::{CadFeed, PUSHED};
use firmware_sim::speak::dlms::{DlmsAddress, DlmsLine, LineMeter};
use firmware_sim::speak::line::Listener;
use firmware_sim::speak::p1::{Dsmr, P1Port, P1Settings, Schedule, TelegramFeed};
use firmware_sim::speak::{Protocol, publisher::Publication};
use firmware_sim::station::Station;
use firmware_sim::truth::{Truth, TruthLine};
use gateway::actors::line::MediumFactory;
use gateway::config::metering::MediumSettings;
use gateway::link::Medium;
use gateway::link::memory::MemoryMedium;
use protocols::cad::minimal;
use protocols::hdlc::HdlcAddress;
use protocols::metering::{MeterId, UtcMillis};
use tokio::sync::{mpsc, watch};

use super::clock::START;
use super::net::FeedBroker;
use crate::random::Random;

/// How long the meters have lived before anybody reads them.
const HISTORY_MS: i64 = 5 * 3_600_000;
const PASSWORD: &str = "world-reader";
const CAD_EVERY_MS: i64 = 20_000;
const P1_EVERY_MS: u64 = 30_000;
/// Of the pushes of one device, each of which is followed by a correction of one of the last so many.
const CORRECTED_PERCENT: u64 = 3;
const CORRECTED_PAST_MAX: usize = 20;
/// The profile's period: 24 entries in the two hours.
const PERIOD_S: u32 = 300;

pub(super) struct Meters {
    pub(super) truth: Arc<Truth>,
    pub(super) pace: Arc<Pace>,
    /// Addresses of the settings below, and what they lead to.
    media: HashMap<String, Arc<dyn Medium>>,
    /// The gateway's sections for them.
    pub(super) toml: Vec<String>,
    stations: Vec<Arc<Station>>,
    /// Of what pushes.
    stop: watch::Sender<bool>,
    /// Of what answers: it never stops, since what was captured can still be read.
    lines_stop: watch::Sender<bool>,
}

fn rate(percent: u64) -> Rate {
    Rate::from_f64(percent as f64 / 100.0, 1.0).expect("a percentage is a probability")
}

impl Meters {
    /// Starts the meters; `folder` takes their password.
    pub(super) fn start(random: &mut Random, feeds: &Arc<FeedBroker>, folder: &Path) -> anyhow::Result<Self> {
        let password = folder.join("password");
        std::fs::write(&password, PASSWORD)?;
        let pace = Arc::new(Pace::starting(START, START, 1.0));
        let truth = Arc::new(Truth::kept());
        let (stop, lines_stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut meters =
            Self { truth, pace, media: HashMap::new(), toml: Vec::new(), stations: Vec::new(), stop, lines_stop };
        for number in 1..=2 {
            meters.start_dlms(random, number, Protocol::DlmsTcp, &password);
        }
        meters.start_dlms(random, 3, Protocol::DlmsHdlc, &password);
        meters.start_p1(random, 4);
        for number in 5..=6 {
            meters.start_cad(random, number, feeds);
        }
        Ok(meters)
    }

    pub(super) fn medium(&self) -> MediumFactory {
        let media = self.media.clone();
        Arc::new(move |settings| match settings {
            MediumSettings::Tcp { address, .. } => media[address].clone(),
            MediumSettings::Serial { .. } => unreachable!("all meters of the world are behind addresses"),
        })
    }

    /// Sets the clock of a meter that is read, back or forward by up to two hours; sometimes again before anybody has looked.
    /// Changes never add up to nothing: that no reader could see.
    pub(super) async fn set_a_clock(&self, random: &mut Random, tell: impl Fn(&str)) {
        let asked: Vec<_> = self.stations.iter().filter(|station| station.protocol().carries_profiles()).collect();
        let station = asked[random.below(asked.len() as u64) as usize];
        for _ in 0..=random.below(2) {
            let minutes = 1 + random.below(120) as i64;
            let by_ms = if random.below(2) == 0 { -minutes * 60_000 } else { minutes * 60_000 + 20_000 };
            let shown = station.now(|meter| {
                meter.set_clock(meter.shown().plus_ms(by_ms));
                meter.shown()
            });
            tell(&format!("the clock of {} is set by {} s and shows {shown}", station.id(), by_ms / 1000));
            tokio::time::sleep(Duration::from_millis(random.below(60_000))).await;
        }
    }

    /// Whatever pushes falls silent. Those that are read live on.
    pub(super) fn calm_down(&self) {
        self.stop.send_replace(true);
    }

    /// Power returns where it failed.
    pub(super) fn restore_power(&self) {
        for station in &self.stations {
            station.now(|meter| {
                while !meter.is_powered() {
                    meter.power_up();
                }
            });
        }
    }

    fn station(
        &mut self,
        number: u32,
        protocol: Protocol,
        random: &mut Random,
        faults: FaultRates,
    ) -> (Arc<Station>, u64) {
        let seed = random.next_u64();
        let columns = vec![Column::ImportRegister, Column::ImportInterval];
        let period = CapturePeriod::Seconds(PERIOD_S);
        let profile = ProfileSpec { obis: ProfileSpec::LOAD_1, period, depth: 400, columns, is_billing: false };
        let spec = MeterSpec {
            id: id(number),
            seed,
            zone: Zone::CENTRAL_EUROPE,
            drift_ppm: random.below(200) as i32 - 100,
            profiles: if protocol.carries_profiles() { vec![profile] } else { Vec::new() },
            quirks: Quirks::default(),
            faults,
            import_start_wh: random.below(30_000_000),
            installed_at: START.plus_ms(-HISTORY_MS),
        };
        let household = Household::seeded(seed, Zone::CENTRAL_EUROPE, 0);
        let meter = VirtualMeter::new(spec, Consumption::Household(household));
        let station = Arc::new(Station::new(meter, protocol, self.pace.clone(), self.truth.clone()));
        station.at(START, |_| ());
        self.stations.push(station.clone());
        (station, seed)
    }

    fn open(&mut self, address: &str, stays_open: bool) -> mpsc::UnboundedReceiver<tokio::io::DuplexStream> {
        let (medium, opened) = MemoryMedium::new(address, stays_open);
        self.media.insert(address.to_owned(), Arc::new(medium));
        opened
    }

    fn start_dlms(&mut self, random: &mut Random, number: u32, protocol: Protocol, password: &Path) {
        // In some lives, power fails once or twice within the two hours.
        let daily = |random: &mut Random| Rate::from_f64(random.below(8) as f64, 48.0).expect("below the most");
        let faults = FaultRates::default()
            .with(Fault::PowerFailure, daily(random))
            .with(Fault::SlowAnswers, rate(random.below(5)))
            .with(Fault::Silence, rate(random.below(5)));
        let (station, seed) = self.station(number, protocol, random, faults);
        let (address, place) = if protocol == Protocol::DlmsHdlc {
            let address = HdlcAddress::two(1, 17).expect("a physical address of two octets");
            let address = DlmsAddress::Hdlc { address, information_octets_max: 128 };
            (address, "protocol = \"dlms-hdlc\"\nphysical = 17\n")
        } else {
            (DlmsAddress::Wport(1), "protocol = \"dlms-wrapper\"\n")
        };
        let name = format!("meter-{number}:4059");
        let listener = Listener::Memory(self.open(&name, protocol == Protocol::DlmsHdlc));
        let meters = vec![LineMeter::new(station, address, PASSWORD, Quirks::default())];
        let line = DlmsLine { listener, meters, speed: None, faults, seed };
        tokio::spawn(line.run(self.lines_stop.subscribe()));
        self.toml.push(format!(
            "[[line]]\nname = \"line-{number}\"\ntcp = \"{name}\"\n[[meter]]\nname = \"m{number}\"\nline = \"line-{number}\"\n\
             serial = \"{}\"\n{place}server = 1\nclient = 1\npassword_file = \"{}\"\n\
             [[meter.read]]\nsource = \"profile\"\nprofile = \"1-0:99.1.0\"\nevery_s = 300\nbackfill_days = 1\n\
             kinds = {{ \"1-0:1.29.0\" = \"interval\" }}\n",
            id(number),
            password.display(),
        ));
    }

    fn start_p1(&mut self, random: &mut Random, number: u32) {
        let faults = FaultRates::default().with(Fault::WrongCrc, rate(3)).with(Fault::Silence, rate(3));
        let (station, seed) = self.station(number, Protocol::P1, random, faults);
        let settings = P1Settings { dsmr: Dsmr::V5, has_gas: true };
        let name = format!("meter-{number}:2001");
        let port = P1Port {
            feed: station.at(START, |meter| TelegramFeed::new(meter, seed, settings, None, faults)),
            station,
            truth: self.truth.clone(),
            schedule: Schedule::new(self.pace.clone(), P1_EVERY_MS),
            listener: Listener::Memory(self.open(&name, true)),
            speed: None,
        };
        tokio::spawn(port.run(self.stop.subscribe()));
        self.toml.push(format!(
            "[[port]]\nname = \"p1\"\ntcp = \"{name}\"\nevery_s = 1\nregisters_every_s = 1\nclock_check = \"off\"\nsilent_after_s = 120\n"
        ));
    }

    fn start_cad(&mut self, random: &mut Random, number: u32, feeds: &Arc<FeedBroker>) {
        let faults = FaultRates::default()
            .with(Fault::Duplicate, rate(5))
            .with(Fault::DroppedBytes, rate(2))
            .with(Fault::SlowAnswers, rate(5));
        let (station, seed) = self.station(number, Protocol::Cad, random, faults);
        let feed = CadFeed::new((0, &id(number)), seed, START, CAD_EVERY_MS, PUSHED.to_vec(), faults);
        let (truth, pace, feeds) = (self.truth.clone(), self.pace.clone(), feeds.clone());
        let corrector = Corrector { random: Random::new(random.next_u64()), past: VecDeque::new() };
        tokio::spawn(push(station, (feed, corrector), truth, pace, feeds, self.stop.subscribe()));
    }
}

fn id(number: u32) -> MeterId {
    MeterId::new(&format!("SIM:{number:06}")).expect("a plain id")
}

/// A device that thinks better of it: now and then it says again what it said some minutes ago, with another value.
struct Corrector {
    random: Random,
    past: VecDeque<Publication>,
}

impl Corrector {
    /// What goes out beside this one.
    fn correct(&mut self, publication: &Publication) -> Option<Publication> {
        if publication.truth.is_empty() {
            return None;
        }
        // Not the last one: the device may be about to repeat it.
        let (lot, place) = (self.random.below(100), self.random.below(self.past.len() as u64) as usize);
        let said = self.past.get(place).filter(|_| lot < CORRECTED_PERCENT).cloned();
        self.past.push_back(publication.clone());
        if self.past.len() > CORRECTED_PAST_MAX {
            self.past.pop_front();
        }
        let said = said?;
        let telegram = minimal::decode(&said.payload).expect("a message of the simulator");
        let mut readings = telegram.readings;
        for reading in &mut readings {
            reading.quantity.mantissa += 1 + self.random.below(1_000) as i64;
        }
        let captured_at = readings[0].captured_at;
        let payload = minimal::encode(&telegram.meter, captured_at, &readings).into_bytes();
        let truth = readings.iter().map(|reading| TruthLine::pushed(&telegram.meter, "cad", reading)).collect();
        Some(Publication { payload, truth, ..said })
    }
}

/// Pushes until it is told to stop, and then hands out what a slow device still holds.
async fn push(
    station: Arc<Station>,
    (mut feed, mut corrector): (CadFeed, Corrector),
    truth: Arc<Truth>,
    pace: Arc<Pace>,
    feeds: Arc<FeedBroker>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut publish = |publications: Vec<Publication>| {
        for publication in publications {
            let correction = corrector.correct(&publication);
            for publication in [publication].into_iter().chain(correction) {
                // Acknowledged at once: from now on, the broker answers for it.
                truth.write(&publication.truth);
                feeds.publish(&publication.topic, publication.payload);
            }
        }
    };
    loop {
        let at: UtcMillis = feed.next_at();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return publish(feed.flush()),
            () = tokio::time::sleep(pace.wall_until(at).max(Duration::from_millis(1))) => {}
        }
        publish(station.at(at, |meter| feed.push(meter)));
    }
}
