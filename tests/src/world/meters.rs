//! The virtual meters of a fleet behind memory transports: two DLMS meters that a host of its own answers for, one on a line, one at a
//! port, two CAD devices, and one that has short names or goes to a listener of the gateway. What [`fleet`](super::fleet) has drawn for them, the simulator makes as from any other fleet file.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use firmware_sim::clock::Zone;
use firmware_sim::config::FleetFile;
use firmware_sim::consumption::{Consumption, Household};
use firmware_sim::faults::{Fault, FaultRates};
use firmware_sim::meter::{MeterSpec, VirtualMeter};
use firmware_sim::pace::Pace;
use firmware_sim::profile::ProfileSpec;
use firmware_sim::quirks::Quirks;
use firmware_sim::rng::Rate;
use firmware_sim::speak::cad::{CadFeed, PUSHED};
use firmware_sim::speak::line::Listener;
use firmware_sim::speak::lines::{Lines, Member, Surroundings};
use firmware_sim::speak::publisher::Publication;
use firmware_sim::speak::security::MeterSecurity;
use firmware_sim::speak::{LinePlace, Place, Protocol};
use firmware_sim::station::Station;
use firmware_sim::truth::{Truth, TruthLine};
use gateway::actors::line::MediumFactory;
use gateway::link::Medium;
use gateway::link::memory::MemoryMedium;
use protocols::cad::minimal;
use protocols::metering::{MeterId, UtcMillis};
use tokio::sync::{mpsc, watch};

use super::clock::START;
use super::fleet::Drawn;
use super::net::FeedBroker;
use crate::random::Random;

/// How long the meters have lived before anybody reads them.
const HISTORY_MS: i64 = 5 * 3_600_000;
const CAD_EVERY_MS: i64 = 20_000;
/// Of the pushes of one device, each of which is followed by a correction of one of the last so many.
const CORRECTED_PERCENT: u64 = 3;
const CORRECTED_PAST_MAX: usize = 20;
/// The profile's period, and that of read-outs: 24 in the two hours.
pub(super) const PERIOD_S: u32 = 300;

pub(super) struct Meters {
    pub(super) truth: Arc<Truth>,
    pub(super) pace: Arc<Pace>,
    /// Addresses of the settings below, and what they lead to.
    media: HashMap<String, Arc<dyn Medium>>,
    /// The gateway's sections for them.
    pub(super) toml: Vec<String>,
    /// What is in the fleet.
    pub(super) kinds: BTreeSet<&'static str>,
    stations: Vec<Arc<Station>>,
    security: Vec<Arc<MeterSecurity>>,
    /// Of what pushes.
    stop: watch::Sender<bool>,
    /// Of what answers: it never stops, since what was captured can still be read.
    lines_stop: watch::Sender<bool>,
}

fn rate(percent: u64) -> Rate {
    Rate::from_f64(percent as f64 / 100.0, 1.0).expect("a percentage is a probability")
}

impl Meters {
    /// Draws the meters and starts them; `folder` takes their secrets.
    pub(super) fn start(random: &mut Random, feeds: &Arc<FeedBroker>, folder: &Path) -> anyhow::Result<Self> {
        let mut meters = Self {
            truth: Arc::new(Truth::kept()),
            pace: Arc::new(Pace::starting(START, START, 1.0)),
            media: HashMap::new(),
            toml: Vec::new(),
            kinds: BTreeSet::new(),
            stations: Vec::new(),
            security: Vec::new(),
            stop: watch::Sender::new(false),
            lines_stop: watch::Sender::new(false),
        };
        for (number, draw) in (1..).zip([Drawn::plain, Drawn::protected, Drawn::on_line, Drawn::pushing]) {
            let drawn = draw(random);
            meters.start_drawn(random, number, &drawn, folder)?;
        }
        for number in 5..=6 {
            meters.start_cad(random, number, feeds);
        }
        // Drawn last: the others of a seed stay what they were.
        let newcomer = Drawn::newcomer(random);
        meters.start_drawn(random, 7, &newcomer, folder)?;
        Ok(meters)
    }

    pub(super) fn medium(&self) -> MediumFactory {
        let media = self.media.clone();
        Arc::new(move |settings| media[&settings.to_string()].clone())
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

    /// How often the gateway has used an invocation counter that was not above all that it had used under the key.
    pub(super) fn counters_repeated(&self) -> u64 {
        self.security.iter().map(|security| security.counters_repeated()).sum()
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
        (profiles, quirks, faults): (Vec<ProfileSpec>, Quirks, FaultRates),
    ) -> (Arc<Station>, u64) {
        let seed = random.next_u64();
        let spec = MeterSpec {
            id: id(number),
            seed,
            zone: Zone::CENTRAL_EUROPE,
            drift_ppm: random.below(200) as i32 - 100,
            profiles,
            quirks,
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

    /// One that has a line or a port.
    fn start_drawn(&mut self, random: &mut Random, number: u32, drawn: &Drawn, folder: &Path) -> anyhow::Result<()> {
        let fleet = FleetFile::parse(&drawn.fleet_toml(number))?.check()?;
        let group = fleet.groups.first().context("a fleet without a group")?;
        let settings = group.line.as_ref().context("a meter without a line")?;
        let made = (group.profiles.clone(), group.quirks, group.faults);
        let (station, seed) = self.station(number, group.protocol, random, made);
        let address = drawn.address(number);
        let listener = Listener::Memory(self.open(&address, drawn.stays_open()));
        let stop = if group.protocol.pushes_at_port() { &self.stop } else { &self.lines_stop };
        let (pace, truth, stopping) = (self.pace.clone(), self.truth.clone(), stop.subscribe());
        let place = LinePlace { address: Some(address), ..LinePlace::default() };
        let mut lines = Lines::default();
        let members = vec![Member { station, seed }];
        lines.start(group, settings, members, (listener, place), &Surroundings { pace, truth, stopping });
        let Some(Place::Line(place)) = lines.places.pop() else { anyhow::bail!("a meter without a place") };
        self.security.append(&mut lines.security);
        self.kinds.extend(drawn.kinds());
        self.toml.push(drawn.gateway_toml(number, id(number).as_str(), &place, folder)?);
        Ok(())
    }

    fn start_cad(&mut self, random: &mut Random, number: u32, feeds: &Arc<FeedBroker>) {
        let faults = FaultRates::default()
            .with(Fault::Duplicate, rate(5))
            .with(Fault::DroppedBytes, rate(2))
            .with(Fault::SlowAnswers, rate(5));
        let (station, seed) = self.station(number, Protocol::Cad, random, (Vec::new(), Quirks::default(), faults));
        self.kinds.insert("cad");
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
