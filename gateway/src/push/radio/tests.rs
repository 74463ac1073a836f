use std::time::Duration;

use protocols::mbus::{Builder, Key, SND_NR, maker_code};
use protocols::metering::{Kind, ObisCode, Quantity, StampedBy, TelegramReading, Unit};
use protocols::uplink::MeterState;

use super::*;
use crate::config::metering::{PortSettings, PushProtocol, RadioKey};
use crate::inventory::InventoryKeeper;
use crate::push::tests::{T0, settings};
use crate::push::{Heard, PushPort};

const VOLUME: ObisCode = ObisCode::new(8, 0, 1, 0, 0, 255);
const WATER: u8 = 7;
const KEY: [u8; 16] = [7; 16];
const FINGERPRINT: [u8; 16] = [1; 16];

fn address(number: u32) -> SecondaryAddress {
    SecondaryAddress::of_number(number, maker_code("SIM").unwrap(), 1, WATER)
}

fn meter(number: u32, key: Option<[u8; 16]>) -> Arc<RadioMeter> {
    Arc::new(RadioMeter {
        name: format!("m{number}").into(),
        address: address(number),
        key: key.map(|key| RadioKey { key: Key::new(key), fingerprint: FINGERPRINT }),
        readout: protocols::mbus::Settings::default(),
        metering_point: None,
        silent_after: Duration::from_secs(600),
        clock_off_above_s: Some(60),
    })
}

fn radio(meters: Vec<Arc<RadioMeter>>) -> PortSettings {
    let protocol = PushProtocol::Wmbus { receiver: Receiver::Hex, mode: RadioMode::CT };
    let radio = RadioSettings { meters, elsewhere: vec![address(99)] };
    PortSettings { protocol, radio, registers_every_s: 1, ..settings() }
}

fn port(meters: Vec<Arc<RadioMeter>>) -> (PushPort, InventoryKeeper) {
    let inventory = InventoryKeeper::default();
    (PushPort::new(Arc::new(radio(meters)), inventory.clone()), inventory)
}

fn builder(number: u32, access: u8, litres: i64) -> Builder {
    let volume = TelegramReading::new(VOLUME, Kind::Register, T0, Quantity::new(litres, -3, Unit::CUBIC_METRE));
    Builder::new(address(number)).access(access).reading(&volume, 0).unwrap()
}

fn line(number: u32, payload: Vec<u8>) -> Vec<u8> {
    let frame = WirelessFrame { control: SND_NR, address: address(number), payload };
    Receiver::Hex.hand_out(&frame, T0).unwrap()
}

fn clear(number: u32, access: u8, litres: i64) -> Vec<u8> {
    line(number, builder(number, access, litres).finish().remove(0))
}

fn hear(port: &mut PushPort, octets: &[u8], second: i64) -> Heard {
    port.receive(&mut octets.to_vec(), T0.plus_ms(second * 1000))
}

/// Of each stored reading: the meter, when, the value.
fn stored(heard: &Heard) -> Vec<(String, i64, String)> {
    let readings = heard.requests.iter().flat_map(|request| &request.readings);
    let told = readings.map(|reading| {
        (reading.series.meter.to_string(), reading.captured_at.since(T0) / 1000, reading.quantity.decimal())
    });
    told.collect()
}

fn states(inventory: &InventoryKeeper) -> Vec<(String, MeterState, String)> {
    let meters = inventory.snapshot().1.meters;
    meters.into_iter().map(|entry| (entry.name, entry.state, entry.cause)).collect()
}

#[test]
fn each_meter_of_a_receiver_has_its_values_under_its_own_name() {
    let (mut port, inventory) = port(vec![meter(1, None), meter(2, None)]);
    assert_eq!(states(&inventory).len(), 2, "a receiver is no meter");
    let heard = hear(&mut port, &[clear(1, 1, 1_500), clear(2, 9, 20)].concat(), 3);
    let expected = [("SIM:00000001:01:07", "1.500"), ("SIM:00000002:01:07", "0.020")];
    assert_eq!(stored(&heard), expected.map(|(meter, value)| (meter.to_owned(), 3, value.to_owned())));
    assert!(heard.requests.iter().flat_map(|request| &request.readings).all(|it| it.stamped_by == StampedBy::Gateway));
    let ok = |name: &str| (name.to_owned(), MeterState::Ok, String::new());
    assert_eq!(states(&inventory), [ok("m1"), ok("m2")]);
    let entry = &inventory.snapshot().1.meters[0];
    assert_eq!((&*entry.protocol, entry.clock_offset_ms), ("wmbus", None));
}

#[test]
fn a_meter_may_go_by_the_name_on_its_label() {
    let mut named = (*meter(1, None)).clone();
    named.readout.alias = Some("12345678".parse().unwrap());
    let (mut port, _) = port(vec![Arc::new(named)]);
    assert_eq!(stored(&hear(&mut port, &clear(1, 1, 1_500), 0))[0].0, "12345678");
}

/// Controls, seen to fail: repetitions taken; known by their access number alone; known for ever.
#[test]
fn a_telegram_that_is_heard_again_is_taken_once() {
    let (mut port, _) = port(vec![meter(1, None)]);
    let heard = hear(&mut port, &clear(1, 1, 1_500).repeat(2), 0);
    assert_eq!((stored(&heard).len(), heard.repeated_of), (1, 1), "a receiver hands it out twice");
    let heard = hear(&mut port, &clear(1, 1, 1_500), 20);
    assert_eq!((stored(&heard).len(), heard.repeated_of, heard.telegrams), (0, 1, 0), "the meter sends it again");
    assert_eq!(stored(&hear(&mut port, &clear(1, 2, 1_500), 30)).len(), 1, "the same value said anew");
    assert_eq!(stored(&hear(&mut port, &clear(1, 2, 1_600), 31)).len(), 1, "another value");
    assert_eq!(hear(&mut port, &clear(1, 1, 1_500), 40).repeated_of, 1, "late");
    assert_eq!(stored(&hear(&mut port, &clear(1, 1, 1_500), 500)).len(), 1, "the access number begins anew");
}

/// Control, seen to fail: give up nothing.
#[test]
fn a_line_that_stops_does_not_take_the_next_with_it() {
    let (mut port, _) = port(vec![meter(1, None)]);
    let telegram = clear(1, 1, 1_500);
    assert!(hear(&mut port, &telegram[..20], 0).requests.is_empty());
    let heard = hear(&mut port, &telegram, 5);
    assert_eq!((stored(&heard).len(), heard.noise), (1, 1));
}

#[test]
fn a_telegram_that_a_repeater_sends_again_is_the_same() {
    let (mut port, _) = port(vec![meter(1, None)]);
    let inner = builder(1, 1, 1_500).finish().remove(0);
    let hop = |communication: u8| line(1, [&[0x8c, communication, 0x31][..], &inner].concat());
    let heard = hear(&mut port, &[hop(0x20), hop(0x30)].concat(), 0);
    assert_eq!((stored(&heard).len(), heard.repeated_of), (1, 1));
}

/// Controls, seen to fail: no look at the counter; at that of this process only.
#[test]
fn message_counters_rise_over_restarts_too() {
    let sealed = |counter: u32, access: u8, litres: i64| {
        line(1, builder(1, access, litres).finish_authenticated(&Key::new(KEY), counter).remove(0))
    };
    let (mut first, _) = port(vec![meter(1, Some(KEY))]);
    let heard = hear(&mut first, &sealed(70, 1, 1_500), 0);
    assert_eq!(stored(&heard).len(), 1);
    let title = SystemTitle(address(1).to_octets());
    assert_eq!(heard.requests[0].counters, [(CounterId { key: FINGERPRINT, title }, 71)]);
    let (mut second, inventory) = port(vec![meter(1, Some(KEY)), meter(2, Some(KEY))]);
    assert_eq!(second.keys().into_iter().collect::<Vec<_>>(), [FINGERPRINT]);
    second.resume_of(FINGERPRINT, &[(title, 71)]);
    for (counter, expected) in [(70, "message counter 70 comes after 70"), (5, "message counter 5 comes after 70")] {
        let heard = hear(&mut second, &sealed(counter, 9, 1_600), 10);
        assert!(heard.requests.is_empty());
        assert_eq!(
            heard.refused_of,
            [("m1".into(), Refusal { trouble: Trouble::Replayed, text: expected.to_owned() })]
        );
    }
    let uncounted = line(1, builder(1, 3, 9).finish_enciphered(&Key::new(KEY)).remove(0));
    assert_eq!(hear(&mut second, &uncounted, 11).refused_of[0].1.trouble, Trouble::Replayed, "mode 5");
    assert_eq!(states(&inventory)[0].1, MeterState::Refusing);
    assert_eq!(stored(&hear(&mut second, &sealed(71, 4, 1_700), 12)).len(), 1);
    assert_eq!(states(&inventory)[0].1, MeterState::Ok);
}

/// Controls, seen to fail: take what is in clear; the hint of the port.
#[test]
fn a_meter_with_the_wrong_key_is_named_and_the_others_go_on() {
    let (mut port, inventory) =
        port(vec![meter(1, Some([8; 16])), meter(2, None), meter(3, Some(KEY)), meter(4, Some(KEY))]);
    let sealed = |number| line(number, builder(number, 1, 5).finish_enciphered(&Key::new(KEY)).remove(0));
    let heard = hear(&mut port, &[sealed(1), sealed(2), clear(3, 1, 5), sealed(4)].concat(), 0);
    let refused: Vec<_> = heard.refused_of.iter().map(|(name, refusal)| (&**name, refusal.trouble)).collect();
    assert_eq!(refused, [("m1", Trouble::WrongKey), ("m2", Trouble::NoMeterKey), ("m3", Trouble::InClear)]);
    assert_eq!(stored(&heard), [("SIM:00000004:01:07".to_owned(), 0, "0.005".to_owned())]);
    let states = states(&inventory);
    assert!(states[..3].iter().all(|(_, state, _)| *state == MeterState::Refusing), "{states:?}");
    assert!(
        states[0].2.starts_with("the key is wrong: is encryption_key_file in the section of the meter"),
        "{states:?}"
    );
    assert!(states[1].2.ends_with("set encryption_key_file in the section of the meter"), "{states:?}");
    assert_eq!(states[3].1, MeterState::Ok);
    assert!(heard.is_alive && heard.refused.is_empty());
}

/// Controls, seen to fail: tell those of other ports; tell each time.
#[test]
fn meters_without_a_section_are_told_once_with_the_section_that_they_lack() {
    let (mut port, _) = port(vec![meter(1, None)]);
    let sealed = line(3, builder(3, 1, 5).finish_enciphered(&Key::new(KEY)).remove(0));
    let heard = hear(&mut port, &[clear(2, 1, 5), sealed.clone(), clear(2, 2, 6), clear(99, 1, 5)].concat(), 0);
    assert_eq!((heard.ignored, heard.strangers.len(), heard.requests.len(), heard.is_alive), (4, 2, 0, true));
    let section = heard.strangers[0].section("radio");
    assert_eq!(
        section,
        "[[meter]]\nname = \"SIM-00000002-01-07\"\nprotocol = \"wmbus\"\nport = \"radio\"\naddress = \"SIM:00000002:01:07\"\n"
    );
    assert!(heard.strangers[1].section("radio").ends_with("encryption_key_file = \"...\"\n"));
    assert!(hear(&mut port, &sealed, 60).strangers.is_empty(), "once");
    // What is sent to a meter has the address of whoever sends it.
    let request = WirelessFrame { control: 0x5b, address: address(1), payload: vec![0x78] };
    let heard = hear(&mut port, &Receiver::Hex.hand_out(&request, T0).unwrap(), 61);
    assert_eq!((heard.ignored, heard.refused_of.len()), (1, 0));
}

/// A full and a compact frame of a Multical 21 of Kamstrup, published examples (wmbusmeters, `simulations`).
///
/// Control, seen to fail: formats not remembered.
#[test]
fn a_compact_telegram_is_read_by_the_format_of_a_full_one() {
    let (mut port, inventory) = port(vec![meter(1, None)]);
    let octets = |text: &str| {
        let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        line(1, pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect())
    };
    let full = octets("7802FF207100041308190000441308190000615B7F616713");
    let compact = octets("79EDA86AB6710008190000081900007F13");
    let heard = hear(&mut port, &compact, 0);
    assert_eq!((heard.refused_of.len(), heard.refused_of[0].1.trouble), (1, Trouble::Format));
    assert_eq!(states(&inventory)[0].1, MeterState::Unknown, "it is only not known yet");
    let volume = |heard: &Heard| stored(heard).iter().any(|(_, _, value)| value == "6.408");
    assert!(volume(&hear(&mut port, &full, 1)));
    let heard = hear(&mut port, &compact, 2);
    assert!(volume(&heard) && heard.telegrams == 1, "{heard:?}");
}

/// Control, seen to fail: a meter counts as heard when another is.
#[test]
fn a_meter_that_is_not_heard_for_long_is_silent() {
    let (mut port, inventory) = port(vec![meter(1, None), meter(2, None)]);
    assert_eq!(port.look_every(), Duration::from_secs(60), "of the port, which is less");
    let at = Duration::from_secs;
    port.look_for_silence(at(1_000));
    hear(&mut port, &clear(1, 1, 5), 0);
    port.look_for_silence(at(1_300));
    port.look_for_silence(at(1_600));
    let silent = ("m2".to_owned(), MeterState::Silent, "no telegram for 600 s".to_owned());
    assert_eq!(states(&inventory)[1], silent);
    assert_eq!(states(&inventory)[0].1, MeterState::Ok);
    hear(&mut port, &clear(2, 1, 5), 0);
    port.look_for_silence(at(1_900));
    assert_eq!(
        states(&inventory).iter().map(|(_, state, _)| *state).collect::<Vec<_>>(),
        [MeterState::Silent, MeterState::Ok]
    );
    port.closed("the other end is gone");
    assert!(
        states(&inventory)
            .iter()
            .all(|(_, state, cause)| (*state, &**cause) == (MeterState::Silent, "the other end is gone"))
    );
}

#[test]
fn noise_is_counted_and_a_receiver_that_leaves_checks_out_is_told() {
    let (mut noisy, _) = port(vec![meter(1, None)]);
    let heard = hear(&mut noisy, &[b"whoever\nsays this\n".to_vec(), clear(1, 1, 5)].concat(), 0);
    assert_eq!((heard.noise, heard.telegrams, stored(&heard).len()), (2, 1, 1));
    let protocol = PushProtocol::Wmbus { receiver: Receiver::Amb8465, mode: RadioMode::CT };
    let mut port = PushPort::new(Arc::new(PortSettings { protocol, ..radio(Vec::new()) }), InventoryKeeper::default());
    assert_eq!(port.reopened()[..5], [0xff, 0x04, 0x01, 0x09, 0xf3]);
    let heard = hear(&mut port, &[0xff, 0x8a, 0x03, 0x05, 0x01, 0x00, 0x72], 0);
    assert_eq!(heard.refused[0].trouble, Trouble::Receiver);
    assert!(port.silent().1.ends_with("switch UART_CMD_Out on (05h in its memory) with its maker's tool"));
    let bare =
        Receiver::Amb8465.hand_out(&WirelessFrame { control: SND_NR, address: address(1), payload: vec![0x78] }, T0);
    assert_eq!(hear(&mut port, &bare.unwrap(), 1).answers, [vec![0xff, 0x0a, 0x02, 0x45, 0x01, 0xb3]], "asked again");
}
