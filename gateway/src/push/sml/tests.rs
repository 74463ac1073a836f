use std::sync::Arc;

use protocols::metering::{Kind, ObisCode, Quality, Quantity, StampedBy, Unit};
use protocols::sml::{Builder, Entry, SmlTime, StatusWord, Value};
use protocols::uplink::MeterState;

use super::*;
use crate::config::metering::PushProtocol;
use crate::inventory::InventoryKeeper;
use crate::push::PushPort;
use crate::push::tests::{T0, hear, port, settings};

const SERVER: [u8; 10] = [0x0a, 0x01, b'S', b'I', b'M', 0, 0, 0, 0, 0x2a];
const METER: &str = "1SIM0000000042";
const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
const POWER: ObisCode = ObisCode::new(1, 0, 16, 7, 0, 255);
/// A basic meter with all three voltages.
const IN_ORDER: StatusWord = StatusWord(0x001c_0104);
const FEEDING_IN: StatusWord = StatusWord(0x001c_0904);

fn sml() -> PortSettings {
    PortSettings { protocol: PushProtocol::Sml { quirks: Quirks::default() }, ..settings() }
}

fn builder(at: UtcMillis) -> Builder {
    Builder::new(&SERVER).sensor_time(SmlTime::SecIndex((at.since(T0) / 1000) as u32 + 1_000))
}

/// A file of this second, by a meter that knows only how long it is in operation.
fn file(at: UtcMillis, status: StatusWord) -> Vec<u8> {
    let energy = Value::Unsigned { value: 10_000 + at.since(T0).unsigned_abs() / 1000, width: 8 };
    let power = Value::Integer { value: 450, width: 4 };
    let (status, scaler) = (Some(status), Some(-1));
    builder(at)
        .octets(ObisCode::new(1, 0, 96, 50, 1, 1), b"SIM")
        .entry(&Entry { status, scaler, unit: Some(Unit::WATT_HOUR), ..Entry::new(ENERGY, energy) })
        .entry(&Entry { unit: Some(Unit::WATT), scaler: Some(0), ..Entry::new(POWER, power) })
        .finish()
}

fn second(count: i64) -> UtcMillis {
    T0.plus_ms(count * 1000 + 137)
}

#[test]
fn an_hour_of_files_is_thinned_and_stamped_by_their_arrival() {
    let mut port = port(sml());
    let (mut readings, mut events) = (Vec::new(), Vec::new());
    for count in 0..3_600 {
        let status = if count < 1_800 { IN_ORDER } else { StatusWord(IN_ORDER.0 | 1 << 10) };
        let (more, said) = hear(&mut port, file(second(count), status), second(count));
        readings.extend(more);
        events.extend(said);
    }
    let of = |code: ObisCode| readings.iter().filter(move |reading| reading.series.code == code.into());
    let at = |code| of(code).map(|reading| reading.captured_at.since(T0)).collect::<Vec<_>>();
    assert_eq!(at(POWER), (0..60).map(|minute| minute * 60_000 + 137).collect::<Vec<_>>());
    assert_eq!(at(ENERGY), [137, 900_137, 1_800_137, 2_700_137]);
    let first = of(ENERGY).next().unwrap();
    assert_eq!(
        (first.series.meter.as_str(), first.series.kind, first.stamped_by),
        (METER, Kind::Register, StampedBy::Gateway)
    );
    assert_eq!(first.quantity, Quantity::new(10_000, -1, Unit::WATT_HOUR));
    assert_eq!(
        of(ENERGY).map(|reading| reading.quality).collect::<Vec<_>>()[1..],
        [Quality::GOOD, Quality::NOT_VALID, Quality::NOT_VALID]
    );
    let told: Vec<_> = events.iter().map(|event| (&*event.log, &*event.text, event.at.since(T0))).collect();
    assert_eq!(told, [("sml:status", "", 137), ("sml:status", "cover opened", 1_800_137)]);
}

/// Control, seen to fail: `own_stamps: true`, with which every second is stored.
#[test]
fn values_that_the_meter_stamps_one_by_one_are_thinned_too() {
    let mut port = port(sml());
    let mut count = 0;
    for second in 0..120 {
        let at = T0.plus_ms(second * 1000);
        let val_time = Some(SmlTime::Timestamp(at.seconds() as u32));
        let value = Value::Integer { value: second, width: 4 };
        let entry = Entry { val_time, unit: Some(Unit::WATT), scaler: Some(0), ..Entry::new(POWER, value) };
        count += hear(&mut port, builder(at).entry(&entry).finish(), at.plus_ms(300)).0.len();
    }
    assert_eq!(count, 2);
}

/// Control, seen to fail: the CRC not looked at.
#[test]
fn damage_costs_the_files_that_it_hits_and_no_other() {
    let mut port = port(sml());
    let files: Vec<Vec<u8>> = (0..6).map(|count| file(second(count * 60), IN_ORDER)).collect();
    let mut spoilt = files[1].clone();
    spoilt[40] ^= 0x04;
    let cut = &files[3][..files[3].len() / 2];
    let stream = [&files[0], &spoilt, &files[2], cut, &files[4], &b"\x1b\x1bnoise"[..], &files[5]].concat();
    let (mut energies, mut refused) = (Vec::new(), Vec::new());
    for (place, piece) in stream.chunks(7).enumerate() {
        let heard = port.receive(&mut piece.to_vec(), second(place as i64));
        refused.extend(heard.refused.into_iter().map(|refusal| refusal.trouble));
        let readings = heard.requests.into_iter().flat_map(|request| request.readings);
        energies.extend(
            readings.filter(|reading| reading.series.code == ENERGY.into()).map(|reading| reading.quantity.mantissa),
        );
    }
    // All within one slot of registers: the first of it.
    assert_eq!((energies, refused), (vec![10_000], vec![Trouble::Crc, Trouble::Frame]));
    let heard = port.receive(&mut file(second(900), IN_ORDER), second(900));
    assert_eq!(heard.telegrams, 1);
}

#[test]
fn a_crc_that_is_wrong_is_taken_if_the_operator_says_so() {
    let mut spoilt = file(second(0), IN_ORDER);
    let last = spoilt.len() - 1;
    spoilt[last] ^= 1;
    let heard = port(sml()).receive(&mut spoilt.clone(), T0);
    assert_eq!((heard.telegrams, heard.refused[0].trouble), (0, Trouble::Crc), "{:?}", heard.refused);
    let (readings, _) = hear(&mut port(PortSettings { accept_invalid_crc: true, ..sml() }), spoilt, T0);
    assert!(!readings.is_empty() && readings.iter().all(|reading| reading.quality.contains(Quality::CRC_INVALID)));
}

#[test]
fn quirks_are_those_of_the_settings() {
    let power = |quirks: Quirks| {
        let settings = PortSettings { protocol: PushProtocol::Sml { quirks }, ..sml() };
        let (readings, _) = hear(&mut port(settings), file(T0, FEEDING_IN), T0);
        readings.into_iter().find(|reading| reading.series.code == POWER.into()).unwrap().quantity.mantissa
    };
    assert_eq!(power(Quirks::default()), 450);
    assert_eq!(power(Quirks { power_sign_from_status: true, ..Quirks::default() }), -450);
}

#[test]
fn a_value_that_cannot_be_read_costs_itself_alone() {
    let huge = Value::Unsigned { value: u64::MAX, width: 8 };
    let entry = Entry { unit: Some(Unit::WATT_HOUR), scaler: Some(0), ..Entry::new(ENERGY, huge) };
    let octets = builder(T0).entry(&entry).quantity(POWER, Quantity::new(450, 0, Unit::WATT)).finish();
    let heard = port(sml()).receive(&mut octets.clone(), T0);
    assert_eq!(heard.problems, ["message 2, entry 1, 1-0:1.8.0: a value of more than 63 bits does not fit"]);
    let request = &heard.requests[0];
    assert_eq!((request.readings.len(), request.events.len()), (1, 1), "the value is kept as it was sent");
}

#[test]
fn whoever_is_not_expected_is_held_and_who_says_no_name_is_believed() {
    let inventory = InventoryKeeper::default();
    let expected = |serial: &str| PortSettings { serial: MeterId::new(serial).ok(), ..sml() };
    let mut port = PushPort::new(Arc::new(expected("1SIM0000000043")), inventory.clone());
    let heard = port.receive(&mut file(T0, IN_ORDER), T0);
    assert!(heard.requests.iter().all(|request| request.hold_identity));
    let entry = inventory.snapshot().1.meters.remove(0);
    let cause = format!("expected 1SIM0000000043, found {METER}");
    assert_eq!((entry.state, entry.cause, &*entry.protocol), (MeterState::WrongIdentity, cause, "sml"));
    let nameless = Builder::new(&[]).quantity(ENERGY, Quantity::new(1, 0, Unit::WATT_HOUR)).finish();
    let mut port = PushPort::new(Arc::new(sml()), inventory.clone());
    assert_eq!(port.receive(&mut nameless.clone(), T0).refused[0].trouble, Trouble::NoIdentity);
    let (readings, _) = hear(&mut crate::push::tests::port(expected(METER)), nameless, T0);
    assert_eq!(readings[0].series.meter.as_str(), METER);
}

/// Of a concentrator.
#[test]
fn the_expected_one_of_several_meters_is_that_of_the_port() {
    let list = |server: &[u8]| Builder::new(server).quantity(ENERGY, Quantity::new(1, 0, Unit::WATT_HOUR)).content();
    let other = [&SERVER[..9], &[0x2b]].concat();
    let content = [list(&other), list(&SERVER)].concat();
    let octets = protocols::sml::encode_file(&content, protocols::sml::CrcAlgorithm::X25);
    let inventory = InventoryKeeper::default();
    let settings = PortSettings { serial: MeterId::new(METER).ok(), ..sml() };
    let mut port = PushPort::new(Arc::new(settings), inventory.clone());
    let heard = port.receive(&mut octets.clone(), T0);
    assert!(!heard.requests[0].hold_identity && heard.requests[0].readings.len() == 2, "{heard:?}");
    let meters = inventory.snapshot().1.meters;
    let names: Vec<_> = meters.iter().map(|entry| (&*entry.name, entry.meter.as_ref().unwrap().as_str())).collect();
    assert_eq!(names, [("p1", METER), ("p1 1SIM0000000043", "1SIM0000000043")]);
}

#[test]
fn a_meter_that_knows_the_time_is_judged_by_it() {
    let inventory = InventoryKeeper::default();
    let mut port = PushPort::new(Arc::new(sml()), inventory.clone());
    port.set_clock_correction(Some(0));
    let mut state_of = |time: SmlTime| {
        let energy = Quantity::new(1, 0, Unit::WATT_HOUR);
        port.receive(&mut Builder::new(&SERVER).sensor_time(time).quantity(ENERGY, energy).finish(), T0);
        let entry = inventory.snapshot().1.meters.remove(0);
        (entry.state, entry.clock_offset_ms)
    };
    let shown = |offset_s: i64| SmlTime::Timestamp((T0.seconds() + offset_s) as u32);
    assert_eq!(state_of(shown(-60)), (MeterState::Ok, Some(-60_000)));
    assert_eq!(state_of(shown(61)), (MeterState::ClockOff, Some(61_000)));
    assert_eq!(state_of(SmlTime::SecIndex(5)), (MeterState::Ok, None));
}

#[test]
fn a_sound_file_without_values_says_so() {
    let inventory = InventoryKeeper::default();
    let mut port = PushPort::new(Arc::new(sml()), inventory.clone());
    let mut octets = protocols::sml::encode_file(&[], protocols::sml::CrcAlgorithm::X25);
    assert_eq!(port.receive(&mut octets, T0).refused[0].trouble, Trouble::Empty);
    let (trouble, cause) = port.silent();
    assert!(trouble == Trouble::Empty && cause.starts_with("the telegrams hold no values: "), "{cause}");
    assert_eq!(inventory.snapshot().1.meters[0].state, MeterState::Refusing);
}

#[test]
fn endless_noise_takes_no_memory() {
    let mut port = port(sml());
    for noise in [0x1b, 0x01, 0x76, 0] {
        for _ in 0..200 {
            port.receive(&mut [noise; 1024], T0);
            port.receive(&mut { *b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01" }, T0);
            assert!(port.hearing.pending() <= protocols::sml::FILE_LEN_MAX + 1024);
        }
    }
}
