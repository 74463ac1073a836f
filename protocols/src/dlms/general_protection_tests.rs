//! Client and server together, with general-ciphering and general-signing.

use super::ciphered_tests::{
    CLIENT, SECRET, SERVER, assert_everything, client_side, mechanisms, meter, pair, proving, read_everything,
    server_side,
};
use super::client::ClientConfig;
use super::security::{
    AgreementKey, CipheredConfig, Key, KeyTransport, Keys, Level, Protection as _, SecuritySuite, Signing, SigningKey,
    SystemTitle, TransportKeys, Wrapping,
};

fn side(title: SystemTitle, transport: KeyTransport, signing: Option<Signing>) -> CipheredConfig {
    let (ours, theirs) = if title == CLIENT { (0x11, 0x21) } else { (0x21, 0x11) };
    let agreement = |octet| AgreementKey::from_octets(&[octet; 32]).unwrap();
    let signing_key = |octet| SigningKey::from_octets(&[octet; 32]).unwrap();
    CipheredConfig {
        suite: SecuritySuite::Suite1,
        wrapping: Wrapping::Ciphering(transport),
        transport: TransportKeys {
            key_encrypting: Some(Key::from([0xe0; 16])),
            wrapped: Some(Key::from([ours; 16])),
            agreement: Some(agreement(ours)),
            ephemeral: Some(agreement(ours + 1)),
            peer_agreement: Some(agreement(theirs).public_key()),
            signing: Some(signing_key(ours + 2)),
            peer_signing: Some(signing_key(theirs + 2).verifying_key()),
        },
        signing,
        ..CipheredConfig::new(Keys::new(Key::from([0x11; 16]), Key::from([0x22; 16])), title)
    }
}

/// Control, seen to fail: a server that does not note what was agreed on.
#[test]
fn everything_is_read_under_keys_of_every_kind_and_with_signatures() {
    let transports =
        [KeyTransport::Identified, KeyTransport::Wrapped, KeyTransport::OnePass, KeyTransport::StaticUnified];
    for transport in transports {
        for signing in [None, Some(Signing::Inside), Some(Signing::Outside)] {
            // The proof is the same whatever brings the key.
            let count = if transport == KeyTransport::Identified { usize::MAX } else { 1 };
            for how in mechanisms(SECRET).into_iter().take(count) {
                let context = format!("{transport:?}, {signing:?}, {how:?}");
                let (ours, theirs) = (side(CLIENT, transport, signing), side(SERVER, transport, signing));
                let client = ClientConfig { max_receive_pdu_size: 1_000, ..proving(how.clone()) };
                let meter = meter(how, Level::AUTHENTICATED_ENCRYPTED);
                let mut pair = pair(client, client_side(ours), meter, server_side(theirs));
                let tag = if signing == Some(Signing::Outside) { 0xdf } else { 0xdd };
                let told = context.clone();
                pair.fault = Box::new(move |message| {
                    assert!(message.len() <= 1_001, "{told}: {} octets", message.len());
                    let is_protected = matches!(message[..], [_] | [_, 0x60..=0x63, ..]) || message[1] == tag;
                    assert!(is_protected, "{told}: {message:02x?}");
                    true
                });
                read_everything(&mut pair);
                assert_everything(&pair, &context);
                assert!(pair.client.protection().is_authenticated(), "{context}");
            }
        }
    }
}
