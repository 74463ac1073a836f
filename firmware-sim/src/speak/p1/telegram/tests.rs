use protocols::p1::{Policy, Readout, Scan, Settings, scan};

use super::*;
use crate::clock::Zone;
use crate::consumption::{Consumption, Household};
use crate::meter::MeterSpec;
use crate::quirks::{Quirk, Quirks};
use crate::rng::Rate;

pub(crate) const START: UtcMillis = UtcMillis(1_795_401_315_000);

pub(crate) fn meter() -> VirtualMeter {
    let spec = MeterSpec {
        id: "SIM:000001".parse().unwrap(),
        seed: 1,
        zone: Zone::UTC,
        drift_ppm: 40,
        profiles: Vec::new(),
        quirks: Quirks::of([Quirk::SixDigitDisplay]),
        faults: FaultRates::default(),
        import_start_wh: 12_345_678,
        installed_at: START.plus_ms(-7_200_000),
    };
    VirtualMeter::new(spec, Consumption::Household(Household::seeded(1, Zone::UTC, 4_000)))
}

fn run(settings: P1Settings, rates: FaultRates, telegrams: i64, every_ms: i64) -> Vec<Sending> {
    let mut meter = meter();
    let mut feed = TelegramFeed::new(&meter, 1, settings, None, rates);
    let sent = (0..telegrams).filter_map(|index| {
        meter.step_to(START.plus_ms(index * every_ms));
        let sending = feed.next(&meter)?;
        feed.sent(&sending);
        Some(sending)
    });
    sent.collect()
}

/// What a reader makes of octets: the lines of the truth, in order, each gas value once.
fn read(octets: &[u8]) -> Vec<TruthLine> {
    let (mut rest, mut lines) = (octets, Vec::new());
    let mut gas_at = None;
    let received_at = START.plus_ms(86_400_000);
    loop {
        match scan(rest) {
            Scan::NeedMore => return lines,
            Scan::Garbage { skip, .. } => rest = &rest[skip..],
            Scan::Telegram { telegram, used } => {
                rest = &rest[used..];
                let settings = Settings { policy: Policy::default(), ..Settings::default() };
                let Ok(readout) = Readout::decode(&telegram, &settings, received_at) else { continue };
                assert_eq!(readout.problems, []);
                for meter in readout.meters {
                    for reading in meter.readings {
                        if meter.channel > 0 && gas_at.replace(reading.captured_at) == Some(reading.captured_at) {
                            continue;
                        }
                        lines.push(TruthLine::pushed(&meter.meter, "p1", &reading));
                    }
                }
            }
        }
    }
}

const BOTH: [P1Settings; 2] =
    [P1Settings { dsmr: Dsmr::V5, has_gas: true }, P1Settings { dsmr: Dsmr::V4, has_gas: false }];

#[test]
fn what_a_reader_finds_is_what_the_truth_tells() {
    for settings in BOTH {
        let sent = run(settings, FaultRates::default(), 300, 30_000);
        let octets: Vec<u8> = sent.iter().flat_map(|sending| sending.octets.clone()).collect();
        let truth: Vec<TruthLine> = sent.into_iter().flat_map(|sending| sending.truth).collect();
        let per_telegram = if settings.dsmr == Dsmr::V5 { 8 } else { 7 };
        let gas = truth.iter().filter(|line| line.code == "0-1:24.2.1").count();
        assert_eq!(truth.len() - gas, 300 * per_telegram);
        // Two hours and a half from 02:35 on.
        assert_eq!(gas, if settings.has_gas { 4 } else { 0 });
        assert_eq!(read(&octets), truth);
    }
}

#[test]
fn damage_never_alters_a_value_and_the_truth_knows_what_got_through() {
    let fifth = Rate::from_f64(0.2, 1.0).unwrap();
    let faults = [Fault::LineNoise, Fault::DroppedBytes, Fault::WrongCrc, Fault::Silence, Fault::SlowAnswers];
    let rates = faults.into_iter().fold(FaultRates::default(), |rates, fault| rates.with(fault, fifth));
    let sent = run(BOTH[0], rates, 3_000, 1_000);
    assert_eq!(sent, run(BOTH[0], rates, 3_000, 1_000), "the same seed sends the same bytes");
    let damaged = sent.iter().filter(|sending| sending.truth.is_empty()).count();
    assert!((700..1_900).contains(&damaged) && sent.len() < 2_700, "{damaged} of {}", sent.len());
    let octets: Vec<u8> = sent.iter().flat_map(|sending| sending.octets.clone()).collect();
    let truth: Vec<TruthLine> = sent.into_iter().flat_map(|sending| sending.truth).collect();
    assert_eq!(read(&octets), truth);
}

#[test]
fn no_two_telegrams_have_the_same_stamp() {
    assert_eq!(run(BOTH[0], FaultRates::default(), 100, 250).len(), 26, "a new one each second");
    let mut meter = meter();
    let mut feed = TelegramFeed::new(&meter, 1, BOTH[0], None, FaultRates::default());
    meter.step_to(START);
    assert!(feed.next(&meter).is_some());
    meter.set_clock(meter.shown().plus_ms(-60_000));
    meter.step_to(START.plus_ms(30_000));
    assert_eq!(feed.next(&meter), None);
    meter.step_to(START.plus_ms(61_000));
    assert!(feed.next(&meter).is_some());
}
