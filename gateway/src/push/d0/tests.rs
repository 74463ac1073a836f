use std::sync::Arc;

use protocols::iec62056_21::{
    Identification, LinesBuilder, MeterClock, Push, StampForm, encode_checked_push, encode_push,
};
use protocols::metering::{Kind, Quality, Quantity, StampedBy, Unit};
use protocols::p1::Layout;
use protocols::uplink::MeterState;

use super::*;
use crate::config::metering::PushProtocol;
use crate::inventory::InventoryKeeper;
use crate::push::PushPort;
use crate::push::tests::{T0, hear, port, settings};

fn d0(masked_parity: bool) -> PortSettings {
    PortSettings { protocol: PushProtocol::D0 { quirks: ReadQuirks::default(), masked_parity }, ..settings() }
}

/// A push at `at` that tells its serial number, its clock and two values.
fn push(at: UtcMillis, serial: &str) -> Vec<u8> {
    let lines = LinesBuilder::new(MeterClock::CET, StampForm::Zst12)
        .text("0.0.0", serial)
        .text("F.F", "00")
        .clock(at)
        .quantity("1.8.0", Quantity::new(1_000 + at.since(T0) / 1000, 0, Unit::WATT_HOUR), Layout::ENERGY)
        .unwrap()
        .quantity("1.7.0", Quantity::new(450, 0, Unit::WATT), Layout::POWER)
        .unwrap()
        .finish();
    encoded(&lines)
}

fn encoded(lines: &[u8]) -> Vec<u8> {
    let identification =
        Identification { manufacturer: "SIM".into(), baud: b'5', enhanced: vec![], model: "METERPOST".into() };
    let mut octets = Vec::new();
    encode_push(&mut octets, &identification, lines);
    octets
}

#[test]
fn an_hour_of_pushes_is_thinned_and_stamped_by_their_arrival() {
    let mut port = port(d0(false));
    let (mut readings, mut events) = (Vec::new(), Vec::new());
    for count in 0..1_800 {
        let at = T0.plus_ms(count * 2_000 + 250);
        let (more, said) = hear(&mut port, push(at, "12345678"), at);
        readings.extend(more);
        events.extend(said);
    }
    let at = |code: &str| {
        let of_code = readings.iter().filter(|reading| reading.series.code.to_string() == code);
        of_code.map(|reading| reading.captured_at.since(T0)).collect::<Vec<_>>()
    };
    assert_eq!(at("1-0:1.7.0").len(), 60);
    assert_eq!(at("1-0:1.8.0"), [250, 900_250, 1_800_250, 2_700_250]);
    let first = &readings[0];
    assert_eq!((first.series.meter.as_str(), first.series.kind), ("SIM:12345678", Kind::Register));
    assert_eq!((first.stamped_by, first.quality), (StampedBy::Gateway, Quality::UNAUTHENTICATED));
    assert_eq!(events.iter().map(|event| &*event.log).collect::<Vec<_>>(), ["0-0:97.97.0"], "the error register, once");
}

/// Control, seen to fail: parity not looked at, with which a value is altered.
#[test]
fn wrong_parity_spoils_the_line_in_which_it_stands() {
    let mut octets = push(T0, "12345678");
    MaskedParity::mask(&mut octets);
    let (readings, _) = hear(&mut port(d0(true)), octets.clone(), T0);
    assert_eq!(readings.len(), 2);
    // One bit on the way: 000001.000 would be 000003.000.
    let place = octets.windows(3).position(|three| three.iter().map(|octet| octet & 0x7f).eq(*b"1.0")).unwrap();
    octets[place] ^= 0x02;
    let mut port = port(d0(true));
    let heard = port.receive(&mut octets, T0);
    let kinds: Vec<_> = heard.requests[0].readings.iter().map(|reading| reading.series.kind).collect();
    assert_eq!((heard.telegrams, kinds, heard.problems.len()), (1, vec![Kind::Instant], 1), "{:?}", heard.problems);
    let mut next = push(T0.plus_ms(900_000), "12345678");
    MaskedParity::mask(&mut next);
    assert_eq!(hear(&mut port, next, T0.plus_ms(900_000)).0.len(), 2);
}

#[test]
fn eight_bits_of_which_one_is_parity_are_read_as_seven() {
    let mut octets = push(T0, "12345678");
    MaskedParity::mask(&mut octets);
    assert_eq!(hear(&mut port(d0(false)), octets, T0).0.len(), 2);
}

#[test]
fn a_push_that_is_cut_gives_way_to_the_next() {
    let mut port = port(d0(false));
    let cut = push(T0, "12345678");
    let stream =
        [&cut[..60], b"\r\n", &push(T0, "12345678")[..], b"xx", &push(T0.plus_ms(900_000), "12345678")].concat();
    let (mut telegrams, mut refused) = (0, Vec::new());
    for piece in stream.chunks(11) {
        let heard = port.receive(&mut piece.to_vec(), T0);
        telegrams += heard.telegrams;
        refused.extend(heard.refused);
    }
    assert_eq!(telegrams, 2);
    assert!(refused.len() == 1 && refused[0].text.starts_with("a push was cut after"), "{refused:?}");
}

/// With STX, ETX and a block check, which some meters have.
fn checked(at: UtcMillis) -> Vec<u8> {
    let octets = push(at, "12345678");
    let PushScan::Push { push: Push { identification, content, .. }, .. } = scan_push(&octets) else {
        panic!("a push")
    };
    let mut checked = Vec::new();
    encode_checked_push(&mut checked, &identification, content);
    checked
}

#[test]
fn a_block_check_that_is_there_counts() {
    let (readings, _) = hear(&mut port(d0(false)), checked(T0), T0);
    assert!(readings.len() == 2 && readings.iter().all(|reading| reading.quality == Quality::GOOD));
    let mut spoilt = checked(T0);
    let last = spoilt.len() - 1;
    spoilt[last] ^= 0x01;
    let heard = port(d0(false)).receive(&mut spoilt.clone(), T0);
    assert_eq!((heard.telegrams, heard.refused[0].trouble), (0, Trouble::Crc));
    let (readings, _) = hear(&mut port(PortSettings { accept_invalid_crc: true, ..d0(false) }), spoilt, T0);
    assert!(readings.iter().all(|reading| reading.quality == Quality::CRC_INVALID));
}

#[test]
fn identity_clock_and_emptiness_are_told() {
    let inventory = InventoryKeeper::default();
    let mut port =
        PushPort::new(Arc::new(PortSettings { serial: "SIM:2".parse().ok(), ..d0(false) }), inventory.clone());
    port.set_clock_correction(Some(0));
    assert!(port.receive(&mut push(T0, "1"), T0).requests[0].hold_identity);
    let entry = || inventory.snapshot().1.meters.remove(0);
    assert_eq!((entry().state, &*entry().protocol), (MeterState::WrongIdentity, "d0"));
    port.receive(&mut push(T0.plus_ms(90_000), "2"), T0);
    assert_eq!((entry().state, entry().clock_offset_ms), (MeterState::ClockOff, Some(90_000)));
    let nameless = encoded(b"1.8.0(000001.000*kWh)\r\n");
    let refused = |settings: PortSettings, octets: &[u8]| {
        crate::push::tests::port(settings).receive(&mut octets.to_vec(), T0).refused[0].trouble
    };
    assert_eq!(refused(d0(false), &nameless), Trouble::NoIdentity);
    assert_eq!(refused(d0(false), &encoded(b"0.0.0(1)\r\n")), Trouble::Empty);
}
