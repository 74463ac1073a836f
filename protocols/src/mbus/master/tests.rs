use super::*;
use crate::mbus::pair::{Faults, Pair, Telegrams};
use crate::mbus::{Baud, Builder, Datum, Place, Slave, SlaveConfig};
use std::collections::BTreeSet;

const BAUD: Baud = Baud::B2400;

fn address(number: u32) -> SecondaryAddress {
    SecondaryAddress::of_number(number, 0x4d2c, 1, 0x07)
}

/// So many values that they take some telegrams.
fn telegrams(number: u32, values: i64) -> Vec<Vec<u8>> {
    let builder = (0..values).fold(Builder::new(address(number)), |builder, value| {
        let place = Place { storage: value as u64, ..Place::PRESENT };
        let datum = Datum::Integer(i64::from(number) * 1000 + value, 6);
        builder.record(place, &[0x13], &datum).expect("a record")
    });
    builder.finish()
}

fn slave(primary: u8, number: u32, values: i64, is_echoing: bool) -> (Slave, Telegrams) {
    let config = SlaveConfig { echo: is_echoing, ..SlaveConfig::new(primary, address(number), BAUD) };
    (Slave::new(config), Telegrams(telegrams(number, values)))
}

fn pair(slaves: Vec<(Slave, Telegrams)>, faults: Faults, seed: u64) -> Pair {
    let config = MasterConfig { echo: faults.is_echoing, ..MasterConfig::new(BAUD) };
    Pair::new(Master::new(config), slaves, BAUD, faults, seed)
}

fn read(pair: &mut Pair, target: Target) -> MasterEvent {
    pair.events.clear();
    pair.master.read(pair.now, target).expect("it is idle");
    pair.run();
    assert_eq!(pair.events.len(), 1, "{:?}", pair.events);
    pair.events[0].clone()
}

fn answered(event: MasterEvent) -> Vec<Vec<u8>> {
    match event {
        MasterEvent::Answered(answer) => answer.telegrams,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_meter_is_read_by_either_address() {
    for is_echoing in [false, true] {
        let slaves = vec![slave(1, 11_111_111, 60, is_echoing), slave(2, 22_222_222, 3, is_echoing)];
        let mut pair = pair(slaves, Faults { is_echoing, ..Faults::default() }, 1);
        let first = telegrams(11_111_111, 60);
        assert!(first.len() > 2);
        assert_eq!(answered(read(&mut pair, Target::Primary(1))), first);
        assert_eq!(pair.sent, 1 + first.len());
        assert_eq!(answered(read(&mut pair, Target::Secondary(address(22_222_222).into()))), telegrams(22_222_222, 3));
        assert!(!pair.slaves[1].0.is_selected());
        assert_eq!(answered(read(&mut pair, Target::Primary(1))), first);
    }
}

#[test]
fn silence_a_collision_and_a_stranger_are_told_apart() {
    let slaves = vec![slave(1, 11_111_111, 3, false), slave(1, 22_222_222, 3, false)];
    let mut pair = pair(slaves, Faults::default(), 1);
    let error = |event: MasterEvent| match event {
        MasterEvent::Failed { error, .. } => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(error(read(&mut pair, Target::Primary(9))), MasterError::Silent { attempts: 3, .. }));
    assert_eq!(error(read(&mut pair, Target::Primary(1))), MasterError::Damaged { attempts: 3 });
    assert_eq!(error(read(&mut pair, Target::Secondary(Selection::ANY))), MasterError::Damaged { attempts: 3 });
    assert!(matches!(
        error(read(&mut pair, Target::Secondary("99999999".parse().unwrap()))),
        MasterError::Silent { .. }
    ));
    assert_eq!(pair.master.read(pair.now, Target::Primary(251)), Err(MasterError::Address { address: 251 }));
    // It answers for another number.
    let liar = (slave(1, 11_111_111, 3, false).0, Telegrams(telegrams(33_333_333, 3)));
    let mut pair = self::pair(vec![liar], Faults::default(), 1);
    let expected = MasterError::OtherMeter { address: address(33_333_333) };
    assert_eq!(error(read(&mut pair, Target::Secondary(address(11_111_111).into()))), expected);
}

#[test]
fn a_meter_that_never_ends_is_given_up() {
    let mut endless = slave(1, 11_111_111, 3, false);
    let announcing = |number: u8| {
        let mut telegram = telegrams(u32::from(number), 3).remove(0);
        telegram.push(0x1f);
        telegram
    };
    endless.1 = Telegrams((0..200).map(announcing).collect());
    let mut pair = pair(vec![endless], Faults::default(), 1);
    let event = read(&mut pair, Target::Primary(1));
    assert!(matches!(event, MasterEvent::Failed { error: MasterError::TooMany { limit: 32 }, .. }), "{event:?}");
    pair.slaves[0].1 = Telegrams(vec![announcing(1)]);
    let event = read(&mut pair, Target::Primary(1));
    assert!(matches!(event, MasterEvent::Failed { error: MasterError::Stuck, .. }), "{event:?}");
}

/// Controls, seen to fail: leave the reset out; give the master no key.
#[test]
fn an_application_is_reset_where_wanted_and_enciphered_telegrams_are_read_to_the_last() {
    let key = crate::mbus::Key::new([9; 16]);
    let builder = (0..60).fold(Builder::new(address(11_111_111)), |builder, value| {
        let place = Place { storage: value, ..Place::PRESENT };
        builder.record(place, &[0x13], &Datum::Integer(value as i64, 6)).expect("a record")
    });
    let enciphered = builder.finish_enciphered(&key);
    assert!(enciphered.len() > 2);
    let slave = || (slave(1, 11_111_111, 0, false).0, Telegrams(enciphered.clone()));
    for subcode in [None, Some(0), Some(0x10)] {
        let config = MasterConfig { application_reset: subcode, key: Some(key.clone()), ..MasterConfig::new(BAUD) };
        let mut pair = Pair::new(Master::new(config), vec![slave()], BAUD, Faults::default(), 1);
        assert_eq!(answered(read(&mut pair, Target::Primary(1))), enciphered);
        assert_eq!(pair.sent, 1 + usize::from(subcode.is_some()) + enciphered.len());
        assert_eq!(answered(read(&mut pair, Target::Secondary(address(11_111_111).into()))), enciphered);
    }
}

#[test]
fn alarms_are_asked_for() {
    let mut pair = pair(vec![slave(1, 11_111_111, 3, false)], Faults::default(), 1);
    pair.master.read_alarm(pair.now, Target::Primary(1)).expect("idle");
    assert_eq!(pair.master.read(pair.now, Target::Primary(1)), Err(MasterError::NotReady));
    pair.run();
    assert_eq!(pair.events, [MasterEvent::NoAlarm { target: Target::Primary(1) }]);
}

/// Controls, seen to fail: take a telegram that says the same as an earlier one; do not toggle the frame count bit.
#[test]
fn whatever_the_line_does_no_reading_is_wrong_or_double() {
    let (mut read_whole, mut failed) = (0, 0);
    for seed in 0..300 {
        let faults = Faults {
            lost: 40,
            flipped: 60,
            cut: 30,
            dropped: 30,
            inserted: 30,
            noise: 40,
            doubled: 60,
            late: 60,
            is_echoing: seed % 3 == 0,
            is_fragmented: seed % 2 == 0,
        };
        let numbers = [11_111_111, 11_111_112, 31_111_111];
        let slaves =
            (1..).zip(numbers).map(|(primary, number)| slave(primary, number, 70, faults.is_echoing)).collect();
        let mut pair = pair(slaves, faults, seed);
        for (primary, number) in (1..).zip(numbers) {
            for target in [Target::Primary(primary), Target::Secondary(address(number).into())] {
                match read(&mut pair, target) {
                    MasterEvent::Answered(answer) => {
                        assert_eq!(answer.telegrams, telegrams(number, 70), "seed {seed}, {target:?}");
                        read_whole += 1;
                    }
                    MasterEvent::Failed { .. } => failed += 1,
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
        }
    }
    assert!(read_whole > 900 && failed > 20, "{read_whole} read, {failed} failed");
}

#[test]
fn the_search_finds_every_meter_of_a_line() {
    let numbers: BTreeSet<u32> = [1, 12_345_678, 12_345_679, 12_355_678, 90_000_000, 99_999_999].into();
    let slaves = numbers.iter().map(|&number| slave(0, number, 5, false)).collect();
    let mut pair = pair(slaves, Faults::default(), 1);
    pair.master.search(pair.now, Selection::ANY).expect("idle");
    pair.run();
    let found: BTreeSet<_> = pair
        .events
        .iter()
        .filter_map(|event| match event {
            MasterEvent::Found { address, primary: 0 } => Some(*address),
            _ => None,
        })
        .collect();
    assert_eq!(found, numbers.iter().map(|&number| address(number)).collect());
    assert!(matches!(pair.events.last(), Some(MasterEvent::Searched { probes: 1..=200, is_cut: false })));
    assert!(pair.slaves.iter().all(|(slave, _)| !slave.is_selected()));
}

#[test]
fn two_meters_with_one_number_are_told() {
    let slaves = vec![slave(1, 12_345_678, 3, false), slave(2, 12_345_678, 5, false)];
    let mut pair = pair(slaves, Faults::default(), 1);
    pair.master.search(pair.now, "1234567F".parse().unwrap()).expect("idle");
    pair.run();
    let unresolved = MasterEvent::Unresolved { selection: "12345678".parse().unwrap() };
    assert_eq!(pair.events[0], unresolved);
    assert_eq!(pair.events.len(), 2);
}
