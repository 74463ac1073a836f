use super::*;
use crate::captures::{capture, logged};
use crate::dlms::notification::NotificationBody;
use crate::dlms::security::general::encode_header;
use crate::dlms::security::signing::sign;
use crate::dlms::security::{
    AgreementKey, Ciphered, CipheredConfig, Counter, Protection as _, Purpose, SecurityControl, SigningKey, Wrapping,
    hex, wrap_key,
};
use crate::hdlc::{PushListener, UiReassembler};
use proptest::prelude::*;
use std::time::Duration;

const METER: SystemTitle = SystemTitle(*b"KAM\x00\x00\xbcaN");
const OWNER: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");
const NOTIFICATION: &str = "0f 00000001 00 0600bc614e";

fn key(octet: u8) -> Key {
    Key::from([octet; 16])
}

fn keys() -> Keys {
    Keys { unicast: Some(key(1)), broadcast: Some(key(2)), authentication: Some(key(3)) }
}

fn receiver(config: PushConfig) -> PushReceiver {
    PushReceiver::new(config, ReceivedCounters::default()).unwrap()
}

/// A meter that pushes as it is configured, from counter 7 on.
fn meter(change: impl Fn(&mut CipheredConfig)) -> Ciphered {
    let mut config = CipheredConfig { wrapping: Wrapping::General, ..CipheredConfig::new(keys(), METER) };
    change(&mut config);
    let mut meter = Ciphered::client(config, Counter::reserved(7, 1_000), ReceivedCounters::default()).unwrap();
    meter.begin(true, Level::NONE).unwrap();
    meter.agreed(meter.conformance());
    meter
}

fn push(meter: &mut Ciphered) -> Vec<u8> {
    meter.protect(Purpose::Service, hex(NOTIFICATION)).unwrap()
}

/// A push in general-ciphering, authenticated and encrypted.
fn general_ciphering(key_info: &[u8], cipher: &Key, broadcast: bool) -> Vec<u8> {
    let fields = hex("08 0000000000000001 08 4b414d0000bc614e 00 00 00");
    let lock = Lock { cipher, authentication: Some(&key(3)), title: METER, fields: &fields };
    let control = SecurityControl { suite: SecuritySuite::Suite0, level: Level::AUTHENTICATED_ENCRYPTED, broadcast };
    let content = lock.close(control, 7, &hex(NOTIFICATION)).unwrap();
    [&[0xdd], &fields[..], key_info, &[content.len() as u8], &content].concat()
}

#[test]
fn a_protected_push_is_taken_once() {
    let mut meter = meter(|_| {});
    let mut receiver = receiver(PushConfig::new(keys()));
    let first = push(&mut meter);
    let pushed = receiver.receive(&first).unwrap();
    assert_eq!((pushed.authenticated, pushed.sender), (true, Some((METER, 7))));
    let notification = pushed.notification().unwrap();
    assert_eq!(notification.body, NotificationBody::Data(crate::dlms::data::Data::DoubleLongUnsigned(12_345_678)));
    assert_eq!(receiver.receive(&first), Err(ProtectionError::Replayed { counter: 7, expected: 8 }));
    assert!(receiver.receive(&push(&mut meter)).is_ok());
    assert_eq!(receiver.received().greatest(KeySet::GlobalUnicast, METER), Some(8));
}

#[test]
fn a_push_is_protected_at_least_as_configured() {
    let levels = [Level::NONE, Level::AUTHENTICATED, Level::ENCRYPTED, Level::AUTHENTICATED_ENCRYPTED];
    for minimum in levels {
        for level in levels {
            let push = push(&mut meter(|config| config.level = level));
            let result = receiver(PushConfig { minimum, ..PushConfig::new(keys()) }).receive(&push);
            if level.covers(minimum) {
                assert_eq!(result.map(|pushed| pushed.authenticated), Ok(level.authenticated));
            } else {
                assert_eq!(result, Err(ProtectionError::Weak { found: level, required: minimum }));
            }
        }
        let plain = receiver(PushConfig { minimum, ..PushConfig::new(keys()) }).receive(&hex(NOTIFICATION));
        assert_eq!(plain.is_ok_and(|pushed| !pushed.authenticated), minimum == Level::NONE);
    }
}

#[test]
fn the_sender_is_the_one_that_is_known() {
    let push = push(&mut meter(|_| {}));
    let expected = SystemTitle(*b"ABC00000");
    let mut choosy = receiver(PushConfig { sender: Some(expected), ..PushConfig::new(keys()) });
    assert_eq!(choosy.receive(&push), Err(ProtectionError::Title { expected, found: METER }));
    let mut empty = push.clone();
    empty.splice(1..10, [0]);
    let quirks = SecurityQuirks { empty_title: true, ..SecurityQuirks::NONE };
    for (sender, quirks, is_ok) in
        [(Some(METER), quirks, true), (None, quirks, false), (Some(METER), SecurityQuirks::NONE, false)]
    {
        let mut receiver = receiver(PushConfig { sender, quirks, ..PushConfig::new(keys()) });
        assert_eq!(receiver.receive(&empty).is_ok(), is_ok, "{sender:?} {quirks:?}");
    }
    // An event-notification in the wrapper of its own service names nobody.
    let event =
        meter(|config| config.wrapping = Wrapping::Service).protect(Purpose::Service, hex("c2 00 0003")).unwrap();
    assert_eq!(event[0], 0xca);
    assert_eq!(receiver(PushConfig::new(keys())).receive(&event), Err(ProtectionError::NoTitle));
    let known = PushConfig { sender: Some(METER), ..PushConfig::new(keys()) };
    assert_eq!(receiver(known).receive(&event).unwrap().apdu, hex("c2 00 0003"));
}

#[test]
fn the_key_is_the_one_that_is_configured() {
    let unicast = push(&mut meter(|_| {}));
    let broadcast = push(&mut meter(|config| config.broadcast = true));
    let dedicated = [&[0xdc], &unicast[1..]].concat();
    for (push, is_broadcast, refused) in [
        (&unicast, false, None),
        (&broadcast, true, None),
        (&unicast, true, Some(KeySet::GlobalUnicast)),
        (&broadcast, false, Some(KeySet::GlobalBroadcast)),
        (&dedicated, false, Some(KeySet::Dedicated)),
    ] {
        let result = receiver(PushConfig { broadcast: is_broadcast, ..PushConfig::new(keys()) }).receive(push);
        assert_eq!(result.err(), refused.map(|keys| ProtectionError::KeySet { found: keys.name() }));
    }
}

#[test]
fn general_ciphering_names_its_key_or_brings_it() {
    let own = [&hex("010100 18")[..], &wrap_key(&key(9), &key(4))].concat();
    let named = |found| Err(ProtectionError::KeySet { found });
    for (info, cipher, broadcast, transport, expected) in [
        (hex("00"), key(1), false, KeyTransport::Identified, Ok(())),
        (hex("010000"), key(1), false, KeyTransport::Identified, Ok(())),
        (hex("010001"), key(2), true, KeyTransport::Identified, Ok(())),
        (own.clone(), key(4), false, KeyTransport::Wrapped, Ok(())),
        // Negative control: let the push choose among the keys that there are.
        (own.clone(), key(4), false, KeyTransport::Identified, named("wrapped")),
        (hex("010000"), key(1), false, KeyTransport::Wrapped, named("global unicast")),
        (hex("010001"), key(2), false, KeyTransport::Identified, named("global broadcast")),
        (hex("0102 01 02 00"), key(1), false, KeyTransport::Identified, named("agreed")),
        (hex("010002"), key(1), false, KeyTransport::Identified, Err(ProtectionError::Malformed { what: "key-info" })),
    ] {
        let push = general_ciphering(&info, &cipher, broadcast);
        let transport_keys = TransportKeys { key_encrypting: Some(key(9)), ..TransportKeys::NONE };
        let config = PushConfig { broadcast, key: transport, transport: transport_keys, ..PushConfig::new(keys()) };
        let result = receiver(config.clone()).receive(&push);
        assert_eq!(result.map(|pushed| assert!(pushed.authenticated)), expected, "{info:02x?}");
        // The fields are authenticated too: here the transaction-id.
        let mut altered = push;
        altered[9] ^= 1;
        assert!(receiver(config).receive(&altered).is_err());
    }
    let config = PushConfig { key: KeyTransport::Wrapped, ..PushConfig::new(keys()) };
    let unknown = receiver(config).receive(&general_ciphering(&own, &key(4), false));
    assert_eq!(unknown, Err(ProtectionError::MissingKey { which: "key-encrypting" }));
}

/// A meter that pushes to `OWNER` by key pairs of suite 1, and who takes what it pushes.
fn by_key_pairs(transport: KeyTransport, signing: Option<Signing>) -> (Ciphered, PushReceiver) {
    let private = |octet| AgreementKey::from_octets(&[octet; 32]).unwrap();
    let signing_key = SigningKey::from_octets(&[0x51; 32]).unwrap();
    let meter = meter(|config| {
        config.suite = SecuritySuite::Suite1;
        config.peer = Some(OWNER);
        (config.wrapping, config.signing) = (Wrapping::Ciphering(transport), signing);
        config.transport = TransportKeys {
            agreement: Some(private(1)),
            ephemeral: Some(private(2)),
            peer_agreement: Some(private(3).public_key()),
            signing: Some(signing_key.clone()),
            ..TransportKeys::NONE
        };
    });
    let ours = TransportKeys {
        agreement: Some(private(3)),
        peer_agreement: Some(private(1).public_key()),
        peer_signing: Some(signing_key.verifying_key()),
        ..TransportKeys::NONE
    };
    let config = PushConfig {
        suite: SecuritySuite::Suite1,
        key: transport,
        transport: ours,
        signing,
        title: Some(OWNER),
        ..PushConfig::new(keys())
    };
    (meter, receiver(config))
}

#[test]
fn pushes_under_agreed_keys_and_with_signatures_are_taken_once() {
    for transport in [KeyTransport::Identified, KeyTransport::OnePass, KeyTransport::StaticUnified] {
        for signing in [None, Some(Signing::Inside), Some(Signing::Outside)] {
            let (mut meter, mut receiver) = by_key_pairs(transport, signing);
            let first = push(&mut meter);
            assert_eq!(first[0], if signing == Some(Signing::Outside) { 0xdf } else { 0xdd });
            let pushed = receiver.receive(&first).unwrap();
            assert_eq!((pushed.authenticated, pushed.sender), (true, Some((METER, 7))));
            assert_eq!(receiver.receive(&first), Err(ProtectionError::Replayed { counter: 7, expected: 8 }));
            assert!(receiver.receive(&push(&mut meter)).is_ok());
            // Neither without the signature that is asked for, nor for somebody else.
            let other = if signing.is_none() { Some(Signing::Inside) } else { None };
            let (mut other, _) = by_key_pairs(transport, other);
            assert!(matches!(
                receiver.receive(&push(&mut other)),
                Err(ProtectionError::Unsigned { .. }
                    | ProtectionError::Mismatch { .. }
                    | ProtectionError::Replayed { .. })
            ));
            receiver.config.title = Some(METER);
            let elsewhere = receiver.receive(&push(&mut meter));
            assert_eq!(elsewhere, Err(ProtectionError::Title { expected: METER, found: OWNER }));
        }
    }
}

#[test]
fn a_signature_alone_authenticates_nothing() {
    let (_, mut receiver) = by_key_pairs(KeyTransport::Identified, Some(Signing::Inside));
    let header = encode_header(&[1], METER, OWNER);
    let signed = sign(&SigningKey::from_octets(&[0x51; 32]).unwrap(), &header, &hex(NOTIFICATION));
    let weak = ProtectionError::Weak { found: Level::NONE, required: Level::AUTHENTICATED_ENCRYPTED };
    assert_eq!(receiver.receive(&signed), Err(weak));
    receiver.config.minimum = Level::NONE;
    let pushed = receiver.receive(&signed).unwrap();
    assert_eq!((pushed.apdu, pushed.authenticated), (hex(NOTIFICATION), false));
    assert_eq!(receiver.receive(&hex(NOTIFICATION)), Err(ProtectionError::Unsigned { tag: 0x0f }));
}

/// The octets of hexadecimal text beside a capture.
fn key_of(path: &str) -> Option<Key> {
    Some(Key::from_hex(&String::from_utf8(capture(&format!("dlms_push/{path}"))?).unwrap()).unwrap())
}

/// The value of the first `name="..."` in the decoded file.
fn attribute<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("{name}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

/// Controls, seen to fail: answer authenticated and encrypted whatever came; leave the header of general-ciphering out of the tag.
#[test]
fn a_push_is_answered_as_it_was_protected_and_under_our_own_title() {
    const CONFIRM: &str = "10 40000001 00";
    let whole = PushConfig { minimum: Level::ENCRYPTED, ..PushConfig::new(keys()) };
    let by_meter = |ours| receiver(PushConfig { sender: Some(ours), ..whole.clone() });
    for level in [Level::ENCRYPTED, Level::AUTHENTICATED_ENCRYPTED] {
        let mut listener = receiver(whole.clone());
        let push = push(&mut meter(|config| config.level = level));
        let pushed = listener.receive(&push).unwrap();
        let protection = pushed.protection.unwrap();
        let answer = listener.answer(&protection, OWNER, 21, &hex(CONFIRM)).unwrap();
        let wrapper = [&[0xdb, 8][..], &OWNER.0].concat();
        // The security control octet is the one of the push; the counter is ours.
        assert_eq!((&answer[..10], answer[11], &answer[12..16]), (&wrapper[..], push[11], &[0, 0, 0, 21][..]));
        let told = by_meter(OWNER).receive(&answer).unwrap();
        assert_eq!((told.apdu, told.authenticated), (hex(CONFIRM), level.authenticated));
        assert!(by_meter(METER).receive(&answer).is_err(), "whoever answers is not the meter");
    }
    let mut listener = receiver(whole.clone());
    let pushed = listener.receive(&general_ciphering(&hex("00"), &key(1), false)).unwrap();
    let answer = listener.answer(&pushed.protection.unwrap(), OWNER, 21, &hex(CONFIRM)).unwrap();
    let header = hex("dd 08 0000000000000001 08 4d4d4d0000000001 08 4b414d0000bc614e 00 00 010000");
    assert_eq!(answer[..header.len()], header[..], "the transaction of the push, from us to the meter");
    assert_eq!(by_meter(OWNER).receive(&answer).unwrap().apdu, hex(CONFIRM));
    let mut altered = answer;
    altered[9] ^= 1;
    assert!(by_meter(OWNER).receive(&altered).is_err());
    // Under a key that all share nobody is answered.
    let mut listener = receiver(PushConfig { broadcast: true, ..PushConfig::new(keys()) });
    let pushed = listener.receive(&push(&mut meter(|config| config.broadcast = true))).unwrap();
    let refused = listener.answer(&pushed.protection.unwrap(), OWNER, 21, &hex(CONFIRM));
    assert!(matches!(refused, Err(ProtectionError::Unsupported { .. })), "{refused:?}");
}

/// Control, seen to fail: know every counter again that is not above the greatest.
#[test]
fn the_last_push_is_known_when_it_comes_again_and_no_other_is() {
    let mut meter = meter(|_| {});
    let mut receiver = receiver(PushConfig::new(keys()));
    let [first, last, next] = [(); 3].map(|()| push(&mut meter));
    assert_eq!(receiver.repeated(&first), None, "nothing was taken yet");
    receiver.receive(&first).unwrap();
    let pushed = receiver.receive(&last).unwrap();
    assert_eq!(receiver.repeated(&last), Some(pushed));
    assert_eq!((receiver.repeated(&first), receiver.repeated(&next)), (None, None));
    let mut forged = last.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(receiver.repeated(&forged), None, "a counter alone says nothing");
    assert_eq!(receiver.repeated(&hex(NOTIFICATION)), None);
    assert_eq!(receiver.receive(&last), Err(ProtectionError::Replayed { counter: 8, expected: 9 }), "it is not stored");
}

fn decoded(name: &str) -> Option<String> {
    Some(String::from_utf8(capture(&format!("dlms_push/{name}_decoded.xml"))?).unwrap())
}

/// The wrapper and the values are those of the decoded file.
fn assert_decoded(pushed: &Pushed, xml: &str) {
    let (sender, counter) = pushed.sender.unwrap();
    let title = SystemTitle::from_hex(attribute(xml, "SystemTitle")).unwrap();
    assert_eq!((sender, counter), (title, attribute(xml, "FrameCounter").parse().unwrap()));
    let (_, notification) = xml.split_once("<DataNotification").unwrap();
    crate::dlms::notification::tests::compare("push", &pushed.apdu, &format!("<DataNotification{notification}"));
}

// Control, seen to fail: use the two keys of the meter the wrong way round.
#[test]
fn a_recorded_push_of_kamstrup_is_authenticated_and_has_the_values_that_are_known_for_it() {
    let name = "hdlc_kamstrup_omnipower";
    let (Some(octets), Some(xml)) = (logged(&format!("dlms_push/{name}.log")), decoded(name)) else { return };
    let (Some(unicast), Some(gak)) = (key_of(&format!("{name}.key")), key_of(&format!("{name}.gak"))) else { return };
    let mut listener = PushListener::new(UiReassembler::new(4096, Duration::from_secs(2)), Duration::from_millis(400));
    let apdus = listener.receive(Duration::ZERO, &octets);
    let [apdu] = &apdus[..] else { panic!("{} APDUs", apdus.len()) };
    let mut verifying = receiver(PushConfig::new(Keys::new(unicast.clone(), gak)));
    let pushed = verifying.receive(apdu).unwrap();
    assert!(pushed.authenticated);
    assert_decoded(&pushed, &xml);
    for bit in 0..apdu.len() * 8 {
        let mut flipped = apdu.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(verifying.receive(&flipped).is_err(), "bit {bit}");
    }
    // Without the authentication key, as some operators have it.
    let keys = Keys { authentication: None, ..Keys::new(unicast.clone(), unicast) };
    let quirks = SecurityQuirks { unverified: true, ..SecurityQuirks::NONE };
    let mut blind = receiver(PushConfig { minimum: Level::ENCRYPTED, quirks, ..PushConfig::new(keys) });
    let pushed = blind.receive(apdu).unwrap();
    assert!(!pushed.authenticated);
    assert_decoded(&pushed, &xml);
}

/// The user data of M-Bus long frames behind control, address, CI and the two transport addresses.
fn mbus_payload(mut octets: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    while let [0x68, length, _, 0x68, rest @ ..] = octets {
        let (frame, after) = rest.split_at(usize::from(*length));
        payload.extend(&frame[5..]);
        octets = &after[2..];
    }
    payload
}

#[test]
fn a_recorded_push_of_netz_noe_is_encrypted_only_and_has_the_values_that_are_known_for_it() {
    let name = "mbus_netz_noe_p1";
    let (Some(octets), Some(xml)) = (logged(&format!("dlms_push/{name}.log")), decoded(name)) else { return };
    let Some(unicast) = key_of(&format!("{name}.key")) else { return };
    let keys = Keys { unicast: Some(unicast), ..Keys::default() };
    let apdu = mbus_payload(&octets);
    let mut strict = receiver(PushConfig::new(keys.clone()));
    assert!(matches!(strict.receive(&apdu), Err(ProtectionError::Weak { found: Level::ENCRYPTED, .. })));
    let mut receiver = receiver(PushConfig { minimum: Level::ENCRYPTED, ..PushConfig::new(keys) });
    let pushed = receiver.receive(&apdu).unwrap();
    assert!(!pushed.authenticated);
    assert_decoded(&pushed, &xml);
}

proptest! {
    #[test]
    fn no_octets_panic(mut apdu in prop::collection::vec(any::<u8>(), 0..90), tag in prop::sample::select(vec![0x0f, 0xca, 0xdb, 0xdc, 0xdd, 0xdf])) {
        if let Some(first) = apdu.first_mut() {
            *first = tag;
        }
        let quirks = SecurityQuirks { empty_title: true, unverified: true, any_suite: true, ..SecurityQuirks::NONE };
        let config = PushConfig { sender: Some(METER), minimum: Level::NONE, quirks, ..PushConfig::new(keys()) };
        drop(receiver(config).receive(&apdu));
        drop(receiver(PushConfig::new(keys())).receive(&apdu));
    }
}
