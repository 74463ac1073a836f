use protocols::iec62056_21::{Readout, Settings};

use super::*;
use crate::rng::Rate;
use crate::speak::p1::telegram::tests::{START, meter};

fn run(block_check: bool, rates: FaultRates, pushes: i64, every_ms: i64) -> Vec<Sending> {
    let mut meter = meter();
    let mut feed = D0Feed::new(&meter, 1, block_check, rates);
    let sent = (0..pushes).filter_map(|index| {
        meter.step_to(START.plus_ms(index * every_ms));
        feed.next(&meter)
    });
    sent.collect()
}

/// What a reader makes of octets, in the words of the truth but for the time, which is that of their arrival.
fn read(octets: &[u8]) -> Vec<TruthLine> {
    let (mut rest, mut lines) = (octets, Vec::new());
    loop {
        match scan_push(rest) {
            PushScan::NeedMore => return lines,
            PushScan::Garbage { skip, .. } => rest = &rest[skip..],
            PushScan::Push { push, used } => {
                rest = &rest[used..];
                let Ok(block) = push.into_block(false) else { continue };
                let readout = Readout::decode(&block, &Settings::default(), START).unwrap();
                assert_eq!(readout.problems, []);
                lines.extend(readout.readings.iter().map(|reading| TruthLine::pushed(&readout.meter, "d0", reading)));
            }
        }
    }
}

fn octets_and_truth(sent: Vec<Sending>) -> (Vec<u8>, Vec<TruthLine>) {
    let octets = sent.iter().flat_map(|sending| sending.octets.clone()).collect();
    let truth = sent.into_iter().flat_map(|sending| sending.truth);
    (octets, truth.map(|line| TruthLine { captured_at: START.to_string(), ..line }).collect())
}

#[test]
fn what_a_reader_finds_is_what_the_truth_tells() {
    for block_check in [true, false] {
        let (octets, truth) = octets_and_truth(run(block_check, FaultRates::default(), 100, 30_000));
        assert_eq!(truth.len(), 100 * 8);
        let quality = if block_check { "good" } else { "unauthenticated" };
        assert_eq!((&*truth[0].meter, &*truth[0].code, &*truth[0].quality), ("SIM:000001", "1-0:1.8.0", quality));
        assert_eq!(read(&octets), truth);
    }
}

/// Controls, seen to fail: the truth kept of what was damaged; a push not looked for behind one whose end was lost.
#[test]
fn damage_never_alters_a_value_and_the_truth_knows_what_got_through() {
    let fifth = Rate::from_f64(0.2, 1.0).unwrap();
    let faults = [Fault::LineNoise, Fault::DroppedBytes, Fault::WrongCrc, Fault::Silence, Fault::SlowAnswers];
    let rates = faults.into_iter().fold(FaultRates::default(), |rates, fault| rates.with(fault, fifth));
    let sent = run(true, rates, 3_000, 1_000);
    let damaged = sent.iter().filter(|sending| sending.truth.is_empty()).count();
    assert!((700..1_900).contains(&damaged) && sent.len() < 2_700, "{damaged} of {}", sent.len());
    let (octets, truth) = octets_and_truth(sent);
    assert_eq!(read(&octets), truth);
}
