use protocols::sml::{Readout, Settings};

use super::*;
use crate::rng::Rate;
use crate::speak::p1::telegram::tests::{START, meter};

fn run(time: TimeForm, rates: FaultRates, files: i64, every_ms: i64) -> Vec<Sending> {
    let mut meter = meter();
    let mut feed = SmlFeed::new(&meter, 1, time, rates);
    let sent = (0..files).filter_map(|index| {
        meter.step_to(START.plus_ms(index * every_ms));
        feed.next(&meter)
    });
    sent.collect()
}

/// What a reader makes of octets, in the words of the truth.
fn read(octets: &[u8]) -> Vec<TruthLine> {
    let (mut rest, mut lines) = (octets, Vec::new());
    loop {
        match scan(rest) {
            Scan::NeedMore => return lines,
            Scan::Garbage { skip, .. } => rest = &rest[skip..],
            Scan::File { file, used } => {
                rest = &rest[used..];
                let Ok(readout) = Readout::decode(&file, &Settings::default(), START) else { continue };
                assert_eq!(readout.problems, []);
                for meter in readout.meters {
                    lines.extend(meter.readings.iter().map(|reading| TruthLine::pushed(&meter.meter, "sml", reading)));
                }
            }
        }
    }
}

fn octets_and_truth(sent: Vec<Sending>) -> (Vec<u8>, Vec<TruthLine>) {
    let octets = sent.iter().flat_map(|sending| sending.octets.clone()).collect();
    (octets, sent.into_iter().flat_map(|sending| sending.truth).collect())
}

#[test]
fn what_a_reader_finds_is_what_the_truth_tells() {
    let (octets, truth) = octets_and_truth(run(TimeForm::Timestamp, FaultRates::default(), 300, 120_000));
    assert_eq!(truth.len(), 300 * 7);
    assert_eq!(truth[0].meter, "1SIM0000000001");
    assert!(truth.iter().any(|line| line.code == "1-0:16.7.0" && line.value.starts_with('-')), "it feeds in at noon");
    assert_eq!(read(&octets), truth);
}

#[test]
fn a_meter_that_knows_only_its_seconds_is_stamped_by_whoever_reads_it() {
    let (octets, mut truth) = octets_and_truth(run(TimeForm::SecondsIndex, FaultRates::default(), 20, 1_000));
    assert!(truth.iter().any(|line| line.captured_at != START.to_string()));
    for line in &mut truth {
        line.captured_at = START.to_string();
    }
    assert_eq!(read(&octets), truth);
}

/// Control, seen to fail: the truth kept of what was damaged.
#[test]
fn damage_never_alters_a_value_and_the_truth_knows_what_got_through() {
    let fifth = Rate::from_f64(0.2, 1.0).unwrap();
    let faults = [Fault::LineNoise, Fault::DroppedBytes, Fault::WrongCrc, Fault::Silence, Fault::SlowAnswers];
    let rates = faults.into_iter().fold(FaultRates::default(), |rates, fault| rates.with(fault, fifth));
    let sent = run(TimeForm::Timestamp, rates, 3_000, 1_000);
    assert_eq!(sent, run(TimeForm::Timestamp, rates, 3_000, 1_000), "the same seed sends the same bytes");
    let damaged = sent.iter().filter(|sending| sending.truth.is_empty()).count();
    assert!((700..1_900).contains(&damaged) && sent.len() < 2_700, "{damaged} of {}", sent.len());
    let (octets, truth) = octets_and_truth(sent);
    assert_eq!(read(&octets), truth);
}

#[test]
fn no_two_files_have_the_same_stamp() {
    assert_eq!(run(TimeForm::Timestamp, FaultRates::default(), 100, 250).len(), 26, "a new one each second");
}
