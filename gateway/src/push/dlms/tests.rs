use std::sync::Arc;

use protocols::cosem::register::ScalerUnit;
use protocols::dlms::apdu::GeneralBlock;
use protocols::dlms::datetime::{ClockRules, ClockStatus, DateTime};
use protocols::dlms::security::{
    Key, Keys, Level, PushConfig, PushReceiver, ReceivedCounters, SecurityControl, SecurityQuirks, SecuritySuite,
    protect_push,
};
use protocols::dlms::value::DataValue;
use protocols::hdlc::{HdlcAddress, push_frames};
use protocols::mbus::{DlmsApdu, encode_segments};
use protocols::metering::{Kind, Quality, Unit};
use protocols::uplink::MeterState;

use super::*;
use crate::config::metering::{MediumSettings, PushProtocol, Transport};
use crate::inventory::InventoryKeeper;
use crate::push::PushPort;
use crate::push::seal::tests::{OURS, TITLE, keys, sealed};
use crate::push::tests::{T0, hear, port, settings};

fn dlms(framing: PushFraming) -> PortSettings {
    PortSettings { protocol: PushProtocol::Dlms { framing, clock: ClockRules::default() }, ..settings() }
}

fn ciphered(framing: PushFraming) -> PortSettings {
    PortSettings { keys: Some(keys(Some([2; 16]), false)), ..dlms(framing) }
}

/// A push at `at`, with a name or without.
fn apdu(at: UtcMillis, name: Option<&[u8]>) -> Vec<u8> {
    let value = |c: u8, d: u8, value: i64, unit| {
        DataValue::Structure(vec![
            DataValue::OctetString(vec![1, 0, c, d, 0, 255]),
            DataValue::DoubleLongUnsigned(value as u32),
            ScalerUnit::new(0, unit).encode(),
        ])
    };
    let named = name.map(|name| {
        let code = DataValue::OctetString(vec![0, 0, 96, 1, 0, 255]);
        DataValue::Structure(vec![code, DataValue::OctetString(name.to_vec())])
    });
    let values = [value(1, 8, at.since(T0) / 1000, Unit::WATT_HOUR), value(1, 7, 450, Unit::WATT)];
    let stamp = DateTime::from_utc(at, 60, ClockStatus::GOOD);
    crate::push::notification::tests::push(Some(stamp), named.into_iter().chain(values).collect())
}

fn in_hdlc(apdu: &[u8]) -> Vec<u8> {
    push_frames(HdlcAddress::one(16).unwrap(), HdlcAddress::one(1).unwrap(), apdu, 48)
}

fn in_mbus(apdu: Vec<u8>) -> Vec<u8> {
    encode_segments(&DlmsApdu { address: 0xff, source: 1, destination: 0x67, apdu }, 0x53).unwrap()
}

fn in_wrapper(apdu: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    Wpdu { source: 1, destination: 16, apdu }.encode(&mut octets).unwrap();
    octets
}

const FRAMINGS: [PushFraming; 3] = [PushFraming::Hdlc, PushFraming::Mbus, PushFraming::Wrapper];

fn framed(framing: PushFraming, apdu: Vec<u8>) -> Vec<u8> {
    match framing {
        PushFraming::Hdlc => in_hdlc(&apdu),
        PushFraming::Mbus => in_mbus(apdu),
        PushFraming::Wrapper => in_wrapper(&apdu),
    }
}

#[test]
fn an_hour_of_pushes_is_thinned_and_stamped_by_the_meter() {
    let mut port = port(dlms(PushFraming::Hdlc));
    let mut readings = Vec::new();
    for count in 0..360 {
        let at = T0.plus_ms(count * 10_000);
        readings.extend(hear(&mut port, in_hdlc(&apdu(at, Some(b"KFM0001"))), at.plus_ms(1_500)).0);
    }
    let at = |kind: Kind| {
        let of_kind = readings.iter().filter(|reading| reading.series.kind == kind);
        of_kind.map(|reading| reading.captured_at.since(T0) / 1000).collect::<Vec<_>>()
    };
    assert_eq!(at(Kind::Register), [0, 900, 1_800, 2_700]);
    assert_eq!(at(Kind::Instant), (0..60).map(|minute| minute * 60).collect::<Vec<_>>());
    let first = &readings[0];
    assert_eq!((first.series.meter.as_str(), first.quality), ("KFM0001", Quality::GOOD));
}

/// Control, seen to fail: give up pieces of a frame at once.
#[test]
fn pushes_come_in_any_pieces_of_any_frame_in_clear_or_not() {
    let push = |at, counter| sealed(&apdu(at, Some(b"KFM0001")), Level::AUTHENTICATED_ENCRYPTED, counter);
    let later = T0.plus_ms(900_000);
    for framing in FRAMINGS {
        let frames = |apdu: Vec<u8>| framed(framing, apdu);
        let plain = [frames(apdu(T0, Some(b"KFM0001"))), frames(apdu(later, Some(b"KFM0001")))].concat();
        let closed = [frames(push(T0, 1)), frames(push(later, 2))].concat();
        for (settings, stream) in [(dlms(framing), plain), (ciphered(framing), closed)] {
            for size in [1, 7, 64, 9_999] {
                let mut port = port(settings.clone());
                let heard = stream.chunks(size).map(|piece| hear(&mut port, piece.to_vec(), T0).0.len()).sum::<usize>();
                assert_eq!(heard, 4, "{framing:?} in pieces of {size}");
            }
        }
    }
}

/// Each block in a frame of its own, as Landis+Gyr E450 have it.
fn in_blocks(apdu: &[u8]) -> Vec<Vec<u8>> {
    let pieces: Vec<_> = apdu.chunks(30).collect();
    let block = |(number, data): (u16, &&[u8])| {
        let last = usize::from(number) == pieces.len();
        GeneralBlock { last, streaming: true, window: 0, number, acknowledged: 0, data }.encode()
    };
    (1..).zip(&pieces).map(block).map(|block| in_hdlc(&block)).collect()
}

/// Control, seen to fail: take a block for a push.
#[test]
fn a_push_in_blocks_is_put_together_in_clear_or_not() {
    let closed = |at, counter| sealed(&apdu(at, Some(b"KFM0001")), Level::AUTHENTICATED_ENCRYPTED, counter);
    let later = T0.plus_ms(900_000);
    let plain = [apdu(T0, Some(b"KFM0001")), apdu(later, Some(b"KFM0001"))];
    for (settings, pushes) in
        [(dlms(PushFraming::Hdlc), plain), (ciphered(PushFraming::Hdlc), [closed(T0, 1), closed(later, 2)])]
    {
        let mut port = port(settings);
        let [first, second] = pushes.map(|push| in_blocks(&push));
        assert!(first.len() > 2);
        assert_eq!(hear(&mut port, first.concat(), T0).0.len(), 2);
        let torn = [&second[..1], &second[2..]].concat().concat();
        let heard = port.receive(&mut torn.clone(), later);
        assert_eq!((heard.telegrams, heard.refused[0].trouble), (0, Trouble::Frame), "{:?}", heard.refused);
        assert_eq!(port.receive(&mut second.concat(), later).telegrams, 1, "it begins anew with the first");
    }
}

/// Negative control: never ask `is_late`.
#[test]
fn a_frame_that_stops_gives_way_to_the_next() {
    for framing in [PushFraming::Hdlc, PushFraming::Mbus] {
        let mut port = port(dlms(framing));
        // The length is there, and promises more than comes.
        let beginning: &[u8] =
            if framing == PushFraming::Hdlc { &[0x7e, 0xa7, 0xff] } else { &[0x68, 0xff, 0xff, 0x68] };
        port.receive(&mut beginning.to_vec(), T0);
        let mut push = framed(framing, apdu(T0, Some(b"KFM0001")));
        let heard = port.receive(&mut push, T0.plus_ms(10_000));
        assert_eq!(heard.telegrams, 1, "{framing:?}: {heard:?}");
    }
}

#[test]
fn damage_is_told_and_costs_its_own_push_only() {
    for framing in [PushFraming::Hdlc, PushFraming::Mbus] {
        let frames = |at| {
            let apdu = apdu(at, Some(b"KFM0001"));
            if framing == PushFraming::Hdlc { in_hdlc(&apdu) } else { in_mbus(apdu) }
        };
        let mut spoilt = frames(T0);
        spoilt[20] ^= 0x10;
        let mut port = port(dlms(framing));
        let heard = port.receive(&mut [spoilt, frames(T0.plus_ms(60_000))].concat(), T0);
        assert_eq!(
            (heard.telegrams, heard.refused[0].trouble),
            (1, Trouble::Frame),
            "{framing:?}: {:?}",
            heard.refused
        );
    }
}

/// Control, seen to fail: let `resume` do nothing.
#[test]
fn counters_go_with_what_is_stored_and_old_pushes_are_refused_after_a_restart() {
    let push = |at: UtcMillis, counter| in_hdlc(&sealed(&apdu(at, None), Level::AUTHENTICATED_ENCRYPTED, counter));
    let inventory = InventoryKeeper::default();
    let new = || PushPort::new(Arc::new(ciphered(PushFraming::Hdlc)), inventory.clone());
    let mut port = new();
    let heard = port.receive(&mut push(T0, 41), T0);
    assert_eq!(
        heard.requests[0].readings[0].series.meter.as_str(),
        "53494D000000002A",
        "who has the keys is the meter"
    );
    let [(id, next)] = heard.requests[0].counters[..] else { panic!("{:?}", heard.requests[0].counters) };
    let settings = ciphered(PushFraming::Hdlc);
    assert_eq!((id.key, id.title, next), (settings.keys.unwrap().encryption.fingerprint(), TITLE, 42));
    let mut port = new();
    port.resume(&[(id.title, next)]);
    let heard = port.receive(&mut push(T0, 41), T0);
    assert_eq!((heard.telegrams, heard.refused[0].trouble), (0, Trouble::Replayed));
    let (trouble, cause) = port.silent();
    assert!(trouble == Trouble::Replayed && cause.contains("it needs a new one"), "{cause}");
    assert_eq!(inventory.snapshot().1.meters[0].state, MeterState::Refusing);
    assert_eq!(port.receive(&mut push(T0, 42), T0).telegrams, 1);
}

#[test]
fn whoever_named_himself_last_is_who_speaks() {
    let mut port = port(dlms(PushFraming::Hdlc));
    let nameless = |seconds: i64| in_hdlc(&apdu(T0.plus_ms(seconds * 1000), None));
    assert_eq!(port.receive(&mut nameless(0), T0).refused[0].trouble, Trouble::NoIdentity);
    hear(&mut port, in_hdlc(&apdu(T0, Some(b"KFM0001"))), T0);
    let (readings, _) = hear(&mut port, nameless(900), T0);
    assert!(readings.len() == 2 && readings.iter().all(|reading| reading.series.meter.as_str() == "KFM0001"));
}

/// Controls, seen to fail: every push confirmed; the name of one meter kept for the next; what found no room confirmed.
#[test]
fn a_push_in_wrapper_frames_is_confirmed_when_its_meter_wants_it() {
    let mut confirmed = apdu(T0, Some(b"KFM0001"));
    confirmed[1] |= 0x40;
    let mut port = port(dlms(PushFraming::Wrapper));
    let heard = port.receive(&mut in_wrapper(&confirmed), T0);
    let expected = [0, 1, 0, 16, 0, 1, 0, 6, 0x10, 0x40, 0, 0, 7, 0];
    let confirmation = heard.confirmations[0].clone();
    assert_eq!((heard.requests.len(), heard.confirmations.len(), confirmation.is_sealed()), (1, 1, false));
    assert_eq!(port.confirm(confirmation).unwrap(), expected);
    assert!(port.receive(&mut in_wrapper(&apdu(T0, Some(b"KFM0001"))), T0).confirmations.is_empty());
    // What finds no room may be said again later.
    port.set_room(crate::push::Room { for_optional: false, for_strangers: true });
    let heard = port.receive(&mut in_wrapper(&confirmed), T0);
    assert_eq!((heard.optional_skipped, heard.confirmations.len()), (1, 0));
    // Nothing that is stored comes of it: it is not confirmed, and another meter's name is not its own.
    port.reopened();
    let mut nameless = apdu(T0, None);
    nameless[1] |= 0x40;
    let heard = port.receive(&mut in_wrapper(&nameless), T0);
    assert_eq!((heard.refused[0].trouble, heard.confirmations.len()), (Trouble::NoIdentity, 0));
}

/// The blocks of a push in frames of the wrapper from `source`; with a window, each waits to be acknowledged.
fn in_wrapped_blocks(apdu: &[u8], source: u16, window: u8) -> Vec<Vec<u8>> {
    let pieces: Vec<_> = apdu.chunks(30).collect();
    let block = |(number, data): (u16, &&[u8])| {
        let last = usize::from(number) == pieces.len();
        let block = GeneralBlock { last, streaming: window == 0, window, number, acknowledged: 0, data }.encode();
        let mut octets = Vec::new();
        Wpdu { source, destination: 16, apdu: &block }.encode(&mut octets).unwrap();
        octets
    };
    (1..).zip(&pieces).map(block).collect()
}

/// Controls, seen to fail: one transfer for all; forget who sent when another end speaks; leave the source out of who sends.
#[test]
fn pushes_in_blocks_of_several_meters_at_one_port_do_not_spoil_each_other() {
    let names = [&b"KFM0001"[..], b"KFM0002", b"KFM0003"];
    let pushes = names.map(|name| apdu(T0, Some(name)));
    // Two on one connection, one on another.
    let sent = [(1, in_wrapped_blocks(&pushes[0], 1, 0)), (1, in_wrapped_blocks(&pushes[1], 2, 0))];
    let sent = sent.into_iter().chain([(2, in_wrapped_blocks(&pushes[2], 1, 0))]).collect::<Vec<_>>();
    let mut port = port(dlms(PushFraming::Wrapper));
    let mut meters = Vec::new();
    for place in 0..sent[0].1.len() {
        for (end, blocks) in &sent {
            port.turn_to(*end);
            let (readings, refused) = {
                let heard = port.receive(&mut blocks[place].clone(), T0);
                (heard.requests.into_iter().flat_map(|request| request.readings).collect::<Vec<_>>(), heard.refused)
            };
            assert_eq!(refused, []);
            meters.extend(readings.into_iter().map(|reading| reading.series.meter.as_str().as_bytes().to_vec()));
        }
    }
    meters.dedup();
    assert_eq!(meters, names);
    // Blocks that are protected each, of two titles, on the same connection.
    let mut port = self::port(ciphered(PushFraming::Wrapper));
    let other = SystemTitle(*b"SIM\0\0\0\0\x2b");
    let closed = |title, counter, block: &[u8]| {
        let wrapper::Scan::Wpdu { wpdu, .. } = wrapper::scan(block, 1_000) else { panic!("a frame") };
        let keys = Keys::new(Key::from([1; 16]), Key::from([2; 16]));
        let level = Level::AUTHENTICATED_ENCRYPTED;
        let control = SecurityControl { suite: SecuritySuite::Suite0, level, broadcast: false };
        in_wrapper(&protect_push(&keys, title, control, counter, wpdu.apdu).unwrap())
    };
    let mut telegrams = 0;
    for (counter, (one, two)) in (1..).zip(sent[0].1.iter().zip(&sent[1].1)) {
        for octets in [closed(TITLE, counter, one), closed(other, counter, two)] {
            let heard = port.receive(&mut octets.clone(), T0);
            assert_eq!(heard.refused, []);
            telegrams += heard.telegrams;
        }
    }
    assert_eq!(telegrams, 2);
}

/// What a meter that takes blocks hears: which of its own have come, and what is in ours.
fn block_told(octets: &[u8]) -> (u16, Vec<u8>) {
    let wrapper::Scan::Wpdu { wpdu, .. } = wrapper::scan(octets, 1_000) else { panic!("{octets:02x?}") };
    let block = GeneralBlock::decode(wpdu.apdu).unwrap();
    (block.acknowledged, block.data.to_vec())
}

/// Controls, seen to fail: give up what lacks a block; confirm outside of a block; acknowledge nothing that is not confirmed.
#[test]
fn a_meter_that_takes_blocks_is_asked_for_lost_ones_and_told_in_a_block() {
    let mut confirmed = apdu(T0, Some(b"KFM0001"));
    confirmed[1] |= 0x40;
    let blocks = in_wrapped_blocks(&confirmed, 1, 1);
    assert!(blocks.len() > 2);
    let mut port = port(dlms(PushFraming::Wrapper));
    let first = port.receive(&mut blocks[0].clone(), T0);
    assert_eq!(block_told(&first.answers[0]), (1, Vec::new()));
    let gap = port.receive(&mut blocks[2].clone(), T0);
    assert_eq!((block_told(&gap.answers[0]), gap.refused.len()), ((1, Vec::new()), 0));
    let rest = port.receive(&mut blocks[1..].concat(), T0);
    assert_eq!((rest.telegrams, rest.answers.len()), (1, blocks.len() - 2), "not of the last");
    let octets = port.confirm(rest.confirmations[0].clone()).unwrap();
    let confirm = vec![0x10, 0x40, 0, 0, 7, 0];
    assert_eq!(block_told(&octets), (blocks.len() as u16, confirm));
    let again = port.receive(&mut blocks.last().unwrap().clone(), T0);
    assert_eq!((&again.answers[..], again.telegrams), (&[octets][..], 0), "it got lost");
    // Not confirmed: that all has come is all there is to say.
    let plain = in_wrapped_blocks(&apdu(T0.plus_ms(900_000), Some(b"KFM0001")), 1, 1);
    let heard = port.receive(&mut plain.concat(), T0);
    assert_eq!((heard.telegrams, heard.answers.len(), heard.closings.len()), (1, plain.len() - 1, 1));
    let last = port.close_blocks(heard.closings[0]).unwrap();
    assert_eq!(block_told(&last), (plain.len() as u16, Vec::new()));
}

/// Controls: close in `notified`, at once; say it of what found no room.
#[test]
fn that_all_blocks_of_a_push_have_come_is_not_said_before_it_is_stored() {
    let blocks = in_wrapped_blocks(&apdu(T0, Some(b"KFM0001")), 1, 1);
    let acknowledged = |octets: &Vec<u8>| block_told(octets).0;
    let settings = PortSettings { serial: MeterId::new("KFM0002").ok(), ..dlms(PushFraming::Wrapper) };
    let mut port = port(settings);
    port.set_room(crate::push::Room { for_optional: true, for_strangers: false });
    let heard = port.receive(&mut blocks.concat(), T0);
    assert_eq!((heard.telegrams, heard.requests.len(), heard.closings.len()), (1, 0, 0), "nothing of it is taken");
    assert!(heard.answers.iter().map(acknowledged).all(|last| usize::from(last) < blocks.len()), "{heard:?}");
    port.set_room(crate::push::Room::default());
    let heard = port.receive(&mut blocks.concat(), T0);
    assert_eq!((heard.requests.len(), heard.closings.len()), (1, 1));
    // While it is not stored, or if it never is, the last block may come as often as it likes.
    let last = blocks.last().unwrap();
    assert!(port.receive(&mut last.clone(), T0).answers.is_empty());
    let told = port.close_blocks(heard.closings[0]).unwrap();
    assert_eq!(usize::from(acknowledged(&told)), blocks.len());
    assert_eq!(port.receive(&mut last.clone(), T0).answers, [told], "it got lost");
    // Who takes no blocks hears nothing of them.
    let streamed = in_wrapped_blocks(&apdu(T0.plus_ms(900_000), Some(b"KFM0001")), 2, 0);
    let heard = port.receive(&mut streamed.concat(), T0);
    assert_eq!((heard.telegrams, heard.answers.len()), (1, 0));
    assert!(heard.closings.into_iter().all(|closing| port.close_blocks(closing).is_none()));
}

/// Control, seen to fail: keep what a datagram begins.
#[test]
fn what_is_cut_off_in_one_datagram_does_not_go_on_in_the_next() {
    let mut port = port(dlms(PushFraming::Wrapper));
    let whole = in_wrapper(&apdu(T0, Some(b"KFM0001")));
    port.turn_to(1);
    assert_eq!(port.receive(&mut whole[..20].to_vec(), T0).refused, []);
    port.turn_to(1);
    let heard = port.receive(&mut whole.clone(), T0);
    assert_eq!((heard.telegrams, heard.refused.len(), heard.refused[0].trouble), (1, 1, Trouble::Frame));
    port.turn_to(2);
    assert_eq!(port.receive(&mut whole.clone(), T0).refused, []);
}

/// Control, seen to fail: let all of them go by the port's name.
#[test]
fn meters_that_come_to_a_listener_have_an_entry_each() {
    let medium = MediumSettings::Listen { address: "127.0.0.1:1".parse().unwrap(), transport: Transport::Tcp };
    let settings = PortSettings { medium, clock_off_above_s: Some(60), ..dlms(PushFraming::Wrapper) };
    let inventory = InventoryKeeper::default();
    let mut port = PushPort::new(Arc::new(settings), inventory.clone());
    let says = |port: &mut PushPort, name: &[u8], seconds: i64| {
        port.set_clock_correction(Some(0));
        port.receive(&mut in_wrapper(&apdu(T0.plus_ms(seconds * 1_000), Some(name))), T0);
    };
    says(&mut port, b"KFM0001", 0);
    says(&mut port, b"KFM0002", 900);
    let version = inventory.version();
    says(&mut port, b"KFM0001", 0);
    says(&mut port, b"KFM0002", 900);
    assert_eq!(inventory.version(), version, "that they take turns is no news");
    let meters = inventory.snapshot().1.meters;
    let entries: Vec<_> = meters.iter().map(|entry| (&*entry.name, entry.state, entry.expected.len())).collect();
    let expected =
        [("p1", MeterState::Ok, 0), ("p1 KFM0001", MeterState::Ok, 2), ("p1 KFM0002", MeterState::ClockOff, 2)];
    assert_eq!(entries, expected);
}

/// What a meter reads in a confirmation of its push: the plain APDU, and our counter.
fn told(octets: &[u8]) -> (Vec<u8>, u32) {
    let wrapper::Scan::Wpdu { wpdu, used } = wrapper::scan(octets, 1_000) else { panic!("{octets:02x?}") };
    assert_eq!((wpdu.source, wpdu.destination, used), (16, 1, octets.len()));
    let keys = Keys::new(Key::from([1; 16]), Key::from([2; 16]));
    let quirks = SecurityQuirks { any_suite: true, ..SecurityQuirks::NONE };
    let config = PushConfig { sender: Some(OURS), quirks, ..PushConfig::new(keys) };
    let pushed = PushReceiver::new(config, ReceivedCounters::default()).unwrap().receive(wpdu.apdu).unwrap();
    (pushed.apdu, pushed.sender.unwrap().1)
}

/// Controls, seen to fail: confirm in clear; make a confirmation anew for what comes again; confirm what was not stored.
#[test]
fn a_sealed_push_is_confirmed_sealed_and_when_it_comes_again_as_before() {
    const CONFIRM: [u8; 6] = [0x10, 0x40, 0, 0, 7, 0];
    let push = |counter| {
        let mut apdu = apdu(T0.plus_ms(i64::from(counter) * 900_000), Some(b"KFM0001"));
        apdu[1] |= 0x40;
        in_wrapper(&sealed(&apdu, Level::AUTHENTICATED_ENCRYPTED, counter))
    };
    let settings = ciphered(PushFraming::Wrapper);
    let key = settings.keys.as_ref().unwrap().encryption.fingerprint();
    let mut port = port(settings.clone());
    let heard = port.receive(&mut push(1), T0);
    let [confirmation] = &heard.confirmations[..] else { panic!("{heard:?}") };
    assert_eq!((confirmation.is_sealed(), port.wants_counters()), (true, Some(CounterId { key, title: OURS })));
    assert!(matches!(port.confirm(confirmation.clone()), Err(CloseError::Counter)), "none is reserved");
    port.give_counters(Counter::reserved(70, 72));
    let octets = port.confirm(confirmation.clone()).unwrap();
    assert_eq!(told(&octets), (CONFIRM.to_vec(), 70));
    // The meter has not heard it.
    let again = port.receive(&mut push(1), T0);
    assert_eq!((again.requests.len(), again.refused.len(), again.repeated), (0, 0, 1), "{again:?}");
    assert_eq!(port.confirm(again.confirmations[0].clone()).unwrap(), octets, "no counter is used up");
    let next = port.receive(&mut push(2), T0);
    assert_eq!(told(&port.confirm(next.confirmations[0].clone()).unwrap()), (CONFIRM.to_vec(), 71));
    assert!(port.wants_counters().is_some());
    let old = port.receive(&mut push(1), T0);
    assert_eq!((old.refused[0].trouble, old.confirmations.len()), (Trouble::Replayed, 0), "it is not the last");
    // Taken, and nobody was told yet: it comes in again, and what it says is known.
    port.receive(&mut push(3), T0);
    let again = port.receive(&mut push(3), T0);
    assert_eq!((again.telegrams, again.confirmations.len(), again.repeated, again.requests.len()), (1, 1, 0, 0));
    // After a restart nobody knows whether it was stored.
    let mut port = self::port(settings);
    port.resume(&[(TITLE, 3), (OURS, 72)]);
    let again = port.receive(&mut push(2), T0);
    assert_eq!((again.telegrams, again.refused.len(), again.repeated), (1, 0, 0));
    port.give_counters(Counter::reserved(72, 80));
    assert_eq!(told(&port.confirm(again.confirmations[0].clone()).unwrap()), (CONFIRM.to_vec(), 72));
}

/// Negative control: leave `is_verified` out.
#[test]
fn what_nobody_can_verify_is_stored_and_uses_up_no_counter_of_ours() {
    let mut apdu = apdu(T0, Some(b"KFM0001"));
    apdu[1] |= 0x40;
    let settings = PortSettings { keys: Some(keys(Some([2; 16]), true)), ..dlms(PushFraming::Wrapper) };
    for (level, confirmations) in [(Level::ENCRYPTED, 0), (Level::AUTHENTICATED_ENCRYPTED, 1)] {
        let heard = port(settings.clone()).receive(&mut in_wrapper(&sealed(&apdu, level, 1)), T0);
        let told = (heard.requests.len(), heard.confirmations.len(), heard.unconfirmed);
        assert_eq!(told, (1, confirmations, 1 - confirmations as u64), "{level:?}");
    }
}

/// Control, seen to fail: leave out who it is from.
#[test]
fn what_bears_our_own_title_is_no_push() {
    let keys = Keys::new(Key::from([1; 16]), Key::from([2; 16]));
    let level = Level::AUTHENTICATED_ENCRYPTED;
    let control = SecurityControl { suite: SecuritySuite::Suite0, level, broadcast: false };
    let push = protect_push(&keys, OURS, control, 1, &apdu(T0, Some(b"KFM0001"))).unwrap();
    let mut port = port(ciphered(PushFraming::Wrapper));
    let heard = port.receive(&mut in_wrapper(&push), T0);
    assert_eq!((heard.telegrams, heard.refused[0].trouble), (0, Trouble::Protection));
}

/// Control, seen to fail: say nothing of what the reassembler drops.
#[test]
fn a_push_that_never_ends_is_told() {
    let (to, from) = (HdlcAddress::one(16).unwrap(), HdlcAddress::one(1).unwrap());
    // Without the last frame, which alone says that it is.
    let mut endless = push_frames(to, from, &vec![0x0f; 2 * APDU_OCTETS_MAX], 2_000);
    endless.truncate(endless.len() - 1_000);
    let mut port = port(dlms(PushFraming::Hdlc));
    let heard = port.receive(&mut endless, T0);
    let first = &heard.refused[0];
    assert_eq!((first.trouble, &*first.text), (Trouble::Frame, "a push did not end within 65536 octets"));
    assert_eq!(port.silent().0, Trouble::Frame);
}

/// Negative control: keep all flags.
#[test]
fn endless_noise_takes_no_memory() {
    for framing in FRAMINGS {
        let mut hearing = DlmsHearing::new(&dlms(framing), framing, Rules::default());
        for noise in [0x7e_u8, 0x68, 0xa7, 0x00, 0xff] {
            for _ in 0..200 {
                hearing.hear(&mut [noise; 1024], T0);
                assert!(hearing.pending() < 8 * 1024, "{} octets kept of {noise:02x}", hearing.pending());
            }
            for _ in 0..200 {
                hearing.hear(&mut [noise; 1024], T0);
                hearing.hear(&mut [0x7e, 0xa7, 0xff, 0x68, 0xff, 0xff, 0x68], T0);
                assert!(hearing.pending() < 8 * 1024, "{} octets kept", hearing.pending());
            }
        }
    }
}
