//! general-ciphering and general-signing in associations.

use super::tests::{CLIENT, REQUEST, RESPONSE, SERVER, config, keys, pair};
use super::*;
use crate::dlms::security::{AgreementKey, SecuritySuite, SigningKey, TransportKeys, hex, wrap_key};
use proptest::prelude::*;

const TRANSPORTS: [KeyTransport; 4] =
    [KeyTransport::Identified, KeyTransport::Wrapped, KeyTransport::OnePass, KeyTransport::StaticUnified];
const SIGNINGS: [Option<Signing>; 3] = [None, Some(Signing::Inside), Some(Signing::Outside)];

fn curve_octets(suite: SecuritySuite, octet: u8) -> Vec<u8> {
    vec![octet; if suite == SecuritySuite::Suite2 { 48 } else { 32 }]
}

fn agreement(suite: SecuritySuite, octet: u8) -> AgreementKey {
    AgreementKey::from_octets(&curve_octets(suite, octet)).unwrap()
}

fn signing(suite: SecuritySuite, octet: u8) -> SigningKey {
    SigningKey::from_octets(&curve_octets(suite, octet)).unwrap()
}

/// All keys of one side, whose octets begin with `ours`; the peer's begin with `theirs`.
fn transport(suite: SecuritySuite, ours: u8, theirs: u8) -> TransportKeys {
    let symmetric = |octet| Key::from_octets(&vec![octet; suite.key_bits() / 8]).unwrap();
    TransportKeys {
        key_encrypting: Some(symmetric(0xe0)),
        wrapped: Some(symmetric(ours)),
        agreement: Some(agreement(suite, ours)),
        ephemeral: Some(agreement(suite, ours + 1)),
        peer_agreement: Some(agreement(suite, theirs).public_key()),
        signing: Some(signing(suite, ours + 2)),
        peer_signing: Some(signing(suite, theirs + 2).verifying_key()),
    }
}

fn side(suite: SecuritySuite, title: SystemTitle, how: KeyTransport, signing: Option<Signing>) -> CipheredConfig {
    let (ours, theirs) = if title == CLIENT { (0x11, 0x21) } else { (0x21, 0x11) };
    CipheredConfig {
        suite,
        keys: keys(suite),
        wrapping: Wrapping::Ciphering(how),
        transport: transport(suite, ours, theirs),
        signing,
        ..config(title)
    }
}

fn sides(suite: SecuritySuite, how: KeyTransport, signing: Option<Signing>) -> (Ciphered, Ciphered) {
    let (client, mut server) = pair(side(suite, CLIENT, how, signing), side(suite, SERVER, how, signing));
    server.agreed(server.conformance());
    (client, server)
}

fn every_form() -> impl Iterator<Item = (SecuritySuite, KeyTransport, Option<Signing>)> {
    [SecuritySuite::Suite1, SecuritySuite::Suite2].into_iter().flat_map(|suite| {
        TRANSPORTS.into_iter().flat_map(move |how| SIGNINGS.into_iter().map(move |signing| (suite, how, signing)))
    })
}

#[test]
fn keys_of_every_kind_and_signatures_protect_both_directions() {
    for (suite, how, signing) in every_form() {
        let (mut client, mut server) = sides(suite, how, signing);
        for _ in 0..2 {
            let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
            assert_eq!(asked[0], if signing == Some(Signing::Outside) { 0xdf } else { 0xdd });
            assert!(asked.len() <= hex(REQUEST).len() + client.overhead());
            assert_eq!(server.unprotect(Purpose::Service, asked), Ok(hex(REQUEST)), "{how:?} {signing:?}");
            let answered = server.protect(Purpose::Service, hex(RESPONSE)).unwrap();
            assert!(answered.len() <= hex(RESPONSE).len() + server.overhead());
            assert_eq!(client.unprotect(Purpose::Service, answered), Ok(hex(RESPONSE)), "{how:?} {signing:?}");
        }
        assert!(client.is_authenticated() && server.is_authenticated());
    }
}

#[test]
fn an_answer_has_the_transaction_of_its_request() {
    for signing in SIGNINGS {
        let (mut client, mut server) = sides(SecuritySuite::Suite1, KeyTransport::OnePass, signing);
        let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
        assert_eq!(asked[1..18], [&[8, 0, 0, 0, 0, 0, 0, 0, 2][..], &[8], &CLIENT.0[..7]].concat());
        server.unprotect(Purpose::Service, asked.clone()).unwrap();
        let answered = server.protect(Purpose::Service, hex(RESPONSE)).unwrap();
        assert_eq!(answered[1..10], asked[1..10]);
        assert_eq!(answered[10..28], [&[8][..], &SERVER.0, &[8], &CLIENT.0].concat());
    }
}

#[test]
fn one_flipped_bit_anywhere_is_refused_and_nothing_is_taken_twice() {
    for (suite, how, signing) in every_form().filter(|(suite, ..)| *suite == SecuritySuite::Suite1) {
        let (mut client, mut server) = sides(suite, how, signing);
        let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
        // Each octet once: a signature takes its time.
        for at in 0..asked.len() {
            let mut flipped = asked.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(server.unprotect(Purpose::Service, flipped).is_err(), "{how:?} {signing:?} {at}");
        }
        assert!(server.unprotect(Purpose::Service, asked.clone()).is_ok());
        let again = server.unprotect(Purpose::Service, asked.clone());
        assert!(matches!(again, Err(ProtectionError::Replayed { .. })), "{how:?} {signing:?}");
        server.end();
        server.begin(true, Level::NONE).unwrap();
        server.meet(Some(&CLIENT.0)).unwrap();
        let later = server.unprotect(Purpose::Service, asked);
        assert!(matches!(later, Err(ProtectionError::Replayed { .. })), "{how:?} {signing:?}");
    }
}

// Negative control: accept whatever key an APDU brings.
#[test]
fn a_frame_chooses_neither_the_kind_of_its_key_nor_whether_it_is_signed() {
    let suite = SecuritySuite::Suite1;
    for theirs in TRANSPORTS {
        for ours in TRANSPORTS.into_iter().filter(|ours| *ours != theirs) {
            let (mut client, _) = sides(suite, ours, None);
            let (_, mut server) = sides(suite, theirs, None);
            let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
            let refused = server.unprotect(Purpose::Service, asked);
            assert!(matches!(refused, Err(ProtectionError::KeySet { .. })), "{ours:?} to {theirs:?}: {refused:?}");
        }
    }
    for (ours, theirs) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        let (mut client, _) = sides(suite, KeyTransport::OnePass, SIGNINGS[ours]);
        let (_, mut server) = sides(suite, KeyTransport::OnePass, SIGNINGS[theirs]);
        let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
        let refused = server.unprotect(Purpose::Service, asked);
        let is_named = matches!(
            refused,
            Err(ProtectionError::Unsigned { .. } | ProtectionError::Signed | ProtectionError::Mismatch { .. })
        );
        assert!(is_named, "{ours} to {theirs}: {refused:?}");
    }
}

#[test]
fn less_protection_than_configured_is_refused_under_every_key() {
    for how in TRANSPORTS {
        let weak = CipheredConfig { level: Level::AUTHENTICATED, ..side(SecuritySuite::Suite1, CLIENT, how, None) };
        let (mut client, _) = sides(SecuritySuite::Suite1, how, None);
        client.config.level = weak.level;
        let (_, mut server) = sides(SecuritySuite::Suite1, how, None);
        let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
        let required = Level::AUTHENTICATED_ENCRYPTED;
        let refused = ProtectionError::Weak { found: Level::AUTHENTICATED, required };
        assert_eq!(server.unprotect(Purpose::Service, asked), Err(refused));
    }
}

#[test]
fn what_is_for_somebody_else_or_by_somebody_else_is_refused() {
    let suite = SecuritySuite::Suite1;
    let other = SystemTitle(*b"XXX00001");
    for signing in SIGNINGS {
        let (mut client, mut server) = sides(suite, KeyTransport::OnePass, signing);
        client.association.peer = Some(other);
        let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
        let refused = server.unprotect(Purpose::Service, asked);
        assert_eq!(refused, Err(ProtectionError::Title { expected: SERVER, found: other }));
        // Whoever has no signing key that is known agrees on no key.
        let (mut client, mut server) = sides(suite, KeyTransport::OnePass, signing);
        client.config.transport.signing = Some(self::signing(suite, 0x77));
        let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
        assert_eq!(server.unprotect(Purpose::Service, asked), Err(ProtectionError::Forged));
    }
}

#[test]
fn a_key_that_was_brought_need_not_be_brought_again() {
    let (mut client, mut server) = sides(SecuritySuite::Suite1, KeyTransport::Wrapped, None);
    let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    let next = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    // Behind the header: key-info, its 24 octets of wrapped key and what stands before them.
    let without = [&next[..30], &[0], &next[30 + 4 + 24..]].concat();
    let missing = server.unprotect(Purpose::Service, without.clone());
    assert_eq!(missing, Err(ProtectionError::MissingKey { which: "wrapped" }));
    server.unprotect(Purpose::Service, asked).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, without), Ok(hex(REQUEST)));
}

#[test]
fn a_server_without_a_key_of_its_own_answers_under_that_of_the_request() {
    let (mut client, mut server) = sides(SecuritySuite::Suite1, KeyTransport::Wrapped, None);
    server.config.transport.wrapped = None;
    assert_eq!(server.protect(Purpose::Service, hex(RESPONSE)), Err(ProtectionError::MissingKey { which: "wrapped" }));
    let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    server.unprotect(Purpose::Service, asked).unwrap();
    let answered = server.protect(Purpose::Service, hex(RESPONSE)).unwrap();
    let key = wrap_key(&Key::from([0xe0; 16]), &Key::from([0x11; 16]));
    assert_eq!(answered[30..34 + 24], [&[1, 1, 0, 24][..], &key].concat());
    assert_eq!(client.unprotect(Purpose::Service, answered), Ok(hex(RESPONSE)));
}

#[test]
fn keys_that_are_missing_or_of_another_curve_waste_no_counter() {
    let suite = SecuritySuite::Suite1;
    let wrong = CipheredConfig {
        transport: transport(SecuritySuite::Suite2, 0x11, 0x21),
        ..side(suite, CLIENT, KeyTransport::OnePass, None)
    };
    let wrong = CipheredConfig {
        transport: TransportKeys { key_encrypting: None, wrapped: None, ..wrong.transport.clone() },
        ..wrong
    };
    assert_eq!(wrong.check(), Err(ProtectionError::Curve { suite: 1 }));
    let both = CipheredConfig { dedicated: Some([9; 16].into()), ..side(suite, CLIENT, KeyTransport::OnePass, None) };
    assert!(matches!(both.check(), Err(ProtectionError::Unsupported { .. })));
    let (mut client, _) = sides(suite, KeyTransport::OnePass, None);
    client.config.transport.ephemeral = None;
    let (before, missing) = (client.counter().left(), ProtectionError::MissingKey { which: "ephemeral agreement" });
    assert_eq!(client.protect(Purpose::Service, hex(REQUEST)), Err(missing));
    assert_eq!(client.counter().left(), before);
    for signing in [Signing::Inside, Signing::Outside] {
        // Where the peer has not agreed on general protection, nothing goes out without it.
        let (mut client, _) = sides(suite, KeyTransport::Identified, Some(signing));
        client.agreed(Conformance::NONE);
        let refused = client.protect(Purpose::Service, hex(REQUEST));
        assert!(matches!(refused, Err(ProtectionError::Unsupported { .. })));
    }
}

proptest! {
    #[test]
    fn no_octets_panic(
        mut apdu in prop::collection::vec(any::<u8>(), 1..120),
        how in prop::sample::select(&TRANSPORTS[..]), signing in prop::sample::select(&SIGNINGS[..]), is_signed: bool,
    ) {
        let (_, mut server) = sides(SecuritySuite::Suite1, how, signing);
        apdu[0] = if is_signed { 0xdf } else { 0xdd };
        prop_assert!(server.unprotect(Purpose::Service, apdu).is_err());
    }
}
