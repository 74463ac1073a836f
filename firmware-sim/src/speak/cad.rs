//! Consumer access device: a meter's readings as JSON, published at a fixed interval.

use std::sync::Arc;

use protocols::cad::minimal;
use protocols::metering::{Kind, MeterId, Quality, StampedBy, TelegramReading, UtcMillis};

use super::Protocol;
use super::publisher::Publication;
use crate::faults::{Fault, FaultRates, LineFaults};
use crate::meter::VirtualMeter;
use crate::registers::Measurand;
use crate::rng::mix_below;
use crate::truth::TruthLine;

/// What is pushed of every meter.
pub const PUSHED: [Measurand; 2] = [Measurand::ImportEnergy, Measurand::ImportPower];
/// What is pushed too of a meter whose household feeds in.
pub const PUSHED_BY_PRODUCERS: [Measurand; 4] =
    [Measurand::ImportEnergy, Measurand::ExportEnergy, Measurand::ImportPower, Measurand::ExportPower];

/// Marks of a clock that went back; beyond it `nth` stays at its maximum.
const MARKS_MAX: usize = 255;

/// One meter's pushes, in order of world time.
#[derive(Debug)]
pub struct CadFeed {
    meter: MeterId,
    /// Place of the meter in the fleet, for its bound in the publisher's queue.
    index: usize,
    topic: Arc<str>,
    measurands: Vec<Measurand>,
    every_ms: i64,
    next_at: UtcMillis,
    faults: LineFaults,
    /// What a slow device has not handed out yet.
    held: Vec<Publication>,
    last_at: Option<UtcMillis>,
    /// For each time that the meter's clock went back: what it showed before.
    marks: Vec<UtcMillis>,
}

impl CadFeed {
    /// Pushes every `every_ms` of world time from `start_at` on, staggered by the seed.
    pub fn new(
        (index, meter): (usize, &MeterId),
        seed: u64,
        start_at: UtcMillis,
        every_ms: i64,
        measurands: Vec<Measurand>,
        rates: FaultRates,
    ) -> Self {
        let every_ms = every_ms.max(1);
        let phase_ms = mix_below(seed, &[0xcad], every_ms as u64) as i64;
        Self {
            meter: meter.clone(),
            index,
            topic: minimal::topic(meter).into(),
            measurands,
            every_ms,
            next_at: start_at.plus_ms(phase_ms),
            faults: LineFaults::new(seed, rates),
            held: Vec::new(),
            last_at: None,
            marks: Vec::new(),
        }
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// World time of the next push.
    pub const fn next_at(&self) -> UtcMillis {
        self.next_at
    }

    /// What goes out at [`Self::next_at`], to which the meter has been stepped: nothing, one push, or several.
    pub fn push(&mut self, meter: &VirtualMeter) -> Vec<Publication> {
        self.next_at = self.next_at.plus_ms(self.every_ms);
        if !meter.is_powered() || self.faults.strikes(Fault::Silence) {
            return Vec::new();
        }
        let publication = self.publication(meter);
        let bare = |payload: Vec<u8>| Publication { payload, truth: Vec::new(), ..publication.clone() };
        if self.faults.strikes(Fault::DroppedBytes) {
            // A cut object is no JSON, so that nobody can take it for a reading; the whole one follows.
            let cut = publication.payload.len() * 2 / 3;
            self.held.push(bare(publication.payload[..cut].to_vec()));
        }
        let again = self.faults.strikes(Fault::Duplicate).then(|| bare(publication.payload.clone()));
        self.held.push(publication);
        self.held.extend(again);
        if self.faults.delay_ms() > 0 { Vec::new() } else { self.flush() }
    }

    /// What is still held back: to be published when the device is switched off.
    pub fn flush(&mut self) -> Vec<Publication> {
        std::mem::take(&mut self.held)
    }

    fn publication(&mut self, meter: &VirtualMeter) -> Publication {
        let captured_at = meter.shown();
        let nth = self.nth(captured_at);
        let reading = |measurand: &Measurand| TelegramReading {
            code: measurand.obis().into(),
            kind: if measurand.is_momentary() { Kind::Instant } else { Kind::Register },
            period_s: 0,
            captured_at,
            nth,
            quantity: meter.value(*measurand),
            quality: Quality::GOOD,
            occurred_at: None,
            stamped_by: StampedBy::Meter,
        };
        let readings: Vec<TelegramReading> = self.measurands.iter().map(reading).collect();
        let payload = minimal::encode(&self.meter, captured_at, &readings).into_bytes();
        let name = Protocol::Cad.name();
        let truth = readings.iter().map(|reading| TruthLine::pushed(&self.meter, name, reading)).collect();
        Publication { meter_index: self.index, topic: self.topic.clone(), payload, truth }
    }

    /// How often this stamp may have been given before: once for each time that the clock went back over it.
    fn nth(&mut self, captured_at: UtcMillis) -> u8 {
        if let Some(last_at) = self.last_at
            && captured_at <= last_at
            && self.marks.len() < MARKS_MAX
        {
            self.marks.push(last_at);
        }
        self.last_at = Some(captured_at);
        let passes = self.marks.iter().filter(|mark| **mark >= captured_at).count();
        u8::try_from(passes).unwrap_or(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Zone;
    use crate::consumption::{Consumption, Household};
    use crate::meter::MeterSpec;
    use crate::quirks::Quirks;
    use crate::rng::Rate;

    const START: UtcMillis = UtcMillis(1_795_401_315_000);

    fn meter() -> VirtualMeter {
        let spec = MeterSpec {
            id: "SIM:000001".parse().unwrap(),
            seed: 1,
            zone: Zone::UTC,
            drift_ppm: 0,
            profiles: Vec::new(),
            quirks: Quirks::default(),
            faults: FaultRates::default(),
            import_start_wh: 12_345_678,
            installed_at: START,
        };
        VirtualMeter::new(spec, Consumption::Household(Household::seeded(1, Zone::UTC, 0)))
    }

    fn feed(rates: FaultRates) -> CadFeed {
        CadFeed::new((0, &"SIM:000001".parse().unwrap()), 1, START, 10_000, PUSHED.to_vec(), rates)
    }

    fn run(pushes: usize, rates: FaultRates) -> Vec<Publication> {
        let (mut meter, mut feed) = (meter(), feed(rates));
        let pushed = (0..pushes).flat_map(|_| {
            meter.step_to(feed.next_at());
            feed.push(&meter)
        });
        pushed.collect()
    }

    #[test]
    fn a_push_is_what_the_dialect_says() {
        let pushed = run(1, FaultRates::default());
        assert_eq!(&*pushed[0].topic, "meterpost/cad/SIM:000001/reading");
        let telegram = minimal::decode(&pushed[0].payload).unwrap();
        assert_eq!((telegram.meter.as_str(), telegram.problems.len()), ("SIM:000001", 0));
        for (reading, truth) in telegram.readings.iter().zip(&pushed[0].truth) {
            assert_eq!(&TruthLine::pushed(&telegram.meter, "cad", reading), truth);
        }
        assert_eq!(telegram.readings[0].quantity.to_string(), "12345678 Wh");
        assert_eq!(pushed[0].truth[1].unit, "W");
    }

    #[test]
    fn the_same_seed_pushes_the_same_bytes() {
        let rates = Fault::ALL
            .iter()
            .fold(FaultRates::default(), |rates, (fault, _)| rates.with(*fault, Rate::from_f64(0.2, 1.0).unwrap()));
        assert_eq!(run(500, rates), run(500, rates));
    }

    #[test]
    fn faults_never_lose_or_alter_what_is_in_the_truth() {
        let half = Rate::from_f64(0.5, 1.0).unwrap();
        let rates = FaultRates::default().with(Fault::Duplicate, half).with(Fault::DroppedBytes, half);
        let all = run(200, rates.with(Fault::SlowAnswers, half).with(Fault::Silence, half));
        let (mut duplicates, mut cut) = (0, 0);
        for publication in &all {
            match minimal::decode(&publication.payload) {
                Ok(telegram) if !publication.truth.is_empty() => assert_eq!(telegram.readings.len(), 2),
                Ok(_) => duplicates += 1,
                Err(_) => cut += 1,
            }
        }
        assert!(duplicates > 20 && cut > 20, "{duplicates} duplicates, {cut} cut");
        let stamps: Vec<&String> = all.iter().filter_map(|p| p.truth.first()).map(|line| &line.captured_at).collect();
        assert!(stamps.len() > 50 && stamps.is_sorted());
    }

    #[test]
    fn a_clock_set_back_counts_its_stamps_up() {
        let (mut meter, mut feed) = (meter(), feed(FaultRates::default()));
        let mut seen = std::collections::BTreeSet::new();
        let mut nths = Vec::new();
        for round in 0..12 {
            meter.step_to(feed.next_at());
            if matches!(round, 4 | 8) {
                meter.set_clock(meter.shown().plus_ms(-30_000));
            }
            for line in feed.push(&meter).remove(0).truth {
                assert!(seen.insert((line.code.clone(), line.captured_at.clone(), line.nth)), "{line:?} twice");
                nths.push(line.nth);
            }
        }
        assert_eq!(nths.into_iter().step_by(2).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1, 1, 0, 2, 2, 1, 0]);
    }

    #[test]
    fn without_power_nothing_is_pushed() {
        let (mut meter, mut feed) = (meter(), feed(FaultRates::default()));
        meter.step_to(feed.next_at());
        meter.power_down();
        assert!(feed.push(&meter).is_empty());
    }
}
