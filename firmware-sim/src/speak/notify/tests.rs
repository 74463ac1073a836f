use std::collections::HashSet;

use protocols::dlms::notification::{decode_data_notification, encode_data_notification_confirm};
use protocols::dlms::security::{Level, ProtectionError, SecurityControl, SecuritySuite, SystemTitle, protect_push};

use super::*;
use crate::config::{FleetFile, KeyFiles};
use crate::fleet::make;
use crate::speak::LinePlace;

const START: &str = "2026-11-23T00:00:00Z";
const HOUR_MS: i64 = 3_600_000;
const OURS: SystemTitle = SystemTitle(*b"XMP\0\0\0\0\x01");

/// A meter that captures every quarter of an hour into a ring of eight.
fn meter() -> VirtualMeter {
    let text = format!(
        "start_at = {START:?}\n[[meters]]\nprotocol = \"dlms-notify\"\npush_to = \"127.0.0.1:4059\"\n\
         profile = {{ capture_period_s = 900, depth_entries = 8, columns = [\"import-register\", \"average-power\"] }}"
    );
    let fleet = FleetFile::parse(&text).unwrap().check().unwrap();
    let mut meter = make(&fleet, START.parse().unwrap()).unwrap().remove(0).meter;
    meter.step_to(START.parse().unwrap());
    meter
}

fn seal(meter: &VirtualMeter) -> (Seal, LinePlace) {
    let mut place = LinePlace::default();
    (Seal::new(&KeyFiles::default(), None, meter.id(), 7, &mut place), place)
}

fn keys(place: &LinePlace) -> protocols::dlms::security::Keys {
    let key = |digits: &Option<String>| protocols::dlms::security::Key::from_hex(digits.as_deref().unwrap()).unwrap();
    protocols::dlms::security::Keys::new(key(&place.encryption_key), key(&place.authentication_key))
}

fn confirm(id: u32) -> Vec<u8> {
    let mut apdu = Vec::new();
    encode_data_notification_confirm(id, None, &mut apdu);
    apdu
}

fn invoke_id(apdu: &[u8]) -> u32 {
    decode_data_notification(apdu).unwrap().long_invoke_id_and_priority
}

/// Negative controls: say the next without a confirmation; take any confirmation.
#[test]
fn an_entry_is_said_until_it_is_confirmed_and_then_the_next() {
    let mut meter = meter();
    let mut notifier = Notifier::new(&meter, true, None);
    assert_eq!(notifier.next(&meter), None, "what was captured before is not pushed");
    meter.step_to(meter.world().plus_ms(HOUR_MS));
    let first = notifier.next(&meter).unwrap().clone();
    let told = notifier.take_truth();
    let what: Vec<_> = told.iter().map(|line| (&*line.code, line.kind, &*line.captured_at)).collect();
    let label = "2026-11-23T00:15:00Z";
    assert_eq!(what, [("1-0:1.8.0", "register", label), ("1-0:1.5.0", "instant", label)]);
    let id = invoke_id(&first.apdu);
    assert!(id & CONFIRMED != 0);
    notifier.sent();
    notifier.reconnected(meter.shown());
    for wrong in [confirm(id + 1), first.apdu.clone(), vec![0x10]] {
        assert!(!notifier.heard(&wrong));
    }
    assert_eq!(notifier.next(&meter).unwrap().apdu, first.apdu, "and again");
    assert_eq!(notifier.take_truth(), [], "it was told");
    assert!(notifier.heard(&confirm(id)) && !notifier.heard(&confirm(id)));
    let second = notifier.next(&meter).unwrap();
    assert_eq!((invoke_id(&second.apdu), &*second.truth[0].captured_at), (id + 1, "2026-11-23T00:30:00Z"));
}

#[test]
fn what_is_not_to_be_confirmed_is_said_once() {
    let mut meter = meter();
    let mut notifier = Notifier::new(&meter, false, None);
    meter.step_to(meter.world().plus_ms(HOUR_MS));
    let mut labels = Vec::new();
    while let Some(push) = notifier.next(&meter) {
        assert_eq!(invoke_id(&push.apdu) & CONFIRMED, 0);
        labels.push(push.truth[0].captured_at.clone());
        notifier.sent();
    }
    assert_eq!(labels.len(), 4, "{labels:?}");
}

/// Negative controls: seal again with the counter that was used; take what is not sealed, or our own words.
#[test]
fn what_is_sealed_is_sealed_anew_on_another_connection_and_takes_sealed_confirmations_only() {
    let mut meter = meter();
    let (seal, place) = seal(&meter);
    let keys = keys(&place);
    let mut notifier = Notifier::new(&meter, true, Some(seal.clone()));
    let mut listener = seal.listener();
    meter.step_to(meter.world().plus_ms(HOUR_MS));
    let mut counters = HashSet::new();
    let mut id = 0;
    for _ in 0..3 {
        let apdu = notifier.next(&meter).unwrap().apdu.clone();
        let pushed = listener.receive(&apdu).unwrap();
        assert!(matches!(listener.receive(&apdu), Err(ProtectionError::Replayed { .. })));
        assert!(counters.insert(pushed.sender.unwrap().1));
        id = invoke_id(&pushed.apdu);
        notifier.reconnected(meter.shown());
    }
    let control =
        SecurityControl { suite: SecuritySuite::Suite0, level: Level::AUTHENTICATED_ENCRYPTED, broadcast: false };
    let sealed = |title, counter, apdu: &[u8]| protect_push(&keys, title, control, counter, apdu).unwrap();
    let own = SystemTitle::from_hex(place.system_title.as_deref().unwrap()).unwrap();
    let mut forged = sealed(OURS, 1, &confirm(id));
    *forged.last_mut().unwrap() ^= 1;
    for wrong in [confirm(id), sealed(own, 1, &confirm(id)), forged, sealed(OURS, 2, &confirm(id + 1))] {
        assert!(!notifier.heard(&wrong), "{wrong:02x?}");
    }
    assert!(!notifier.heard(&sealed(OURS, 2, &confirm(id))), "the counter was used");
    assert!(notifier.heard(&sealed(OURS, 3, &confirm(id))));
}

#[test]
fn entries_that_leave_the_ring_before_they_are_said_are_left_out() {
    let mut meter = meter();
    let mut notifier = Notifier::new(&meter, true, None);
    meter.step_to(meter.world().plus_ms(3 * HOUR_MS));
    let push = notifier.next(&meter).unwrap();
    assert_eq!(push.truth[0].captured_at, "2026-11-23T01:15:00Z", "twelve were captured, the last eight are there");
}
