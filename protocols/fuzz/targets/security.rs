use std::sync::LazyLock;

use protocols::dlms::security::{
    AgreementKey, Key, KeyTransport, Keys, Level, ProtectionError, PushConfig, PushReceiver, ReceivedCounters,
    SecurityControl, SecurityQuirks, SecuritySuite, Signing, SigningKey, SystemTitle, TransportKeys, unwrap_key,
};

const METER: SystemTitle = SystemTitle(*b"KAM\x00\x00\xbcaN");

const OWNER: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");

fn key_pairs() -> TransportKeys {
    let agreement = |octet| AgreementKey::from_octets(&[octet; 32]).expect("above zero and below the order");
    let signing = SigningKey::from_octets(&[3; 32]).expect("above zero and below the order");
    TransportKeys {
        key_encrypting: Some(Key::from([9; 16])),
        agreement: Some(agreement(1)),
        peer_agreement: Some(agreement(2).public_key()),
        peer_signing: Some(signing.verifying_key()),
        ..TransportKeys::NONE
    }
}

/// Who takes a push, and whether he checks it.
static CONFIGS: LazyLock<Vec<(PushConfig, bool)>> = LazyLock::new(|| {
    let keys = Keys {
        unicast: Some(Key::from([1; 16])),
        broadcast: Some(Key::from([2; 16])),
        authentication: Some(Key::from([3; 16])),
    };
    let strict = PushConfig::new(keys);
    let quirks = SecurityQuirks { empty_title: true, unverified: true, any_suite: true, ..SecurityQuirks::default() };
    let lenient = PushConfig { sender: Some(METER), minimum: Level::NONE, quirks, ..strict.clone() };
    let blind = PushConfig { minimum: Level::NONE, ..PushConfig::new(Keys::default()) };
    let mut configs = vec![(strict.clone(), true), (lenient, false), (blind, false)];
    for key in [KeyTransport::Wrapped, KeyTransport::OnePass, KeyTransport::StaticUnified] {
        for signing in [None, Some(Signing::Inside), Some(Signing::Outside)] {
            let (suite, transport, title) = (SecuritySuite::Suite1, key_pairs(), Some(OWNER));
            configs.push((PushConfig { suite, key, transport, signing, title, ..strict.clone() }, true));
        }
    }
    configs
});

/// Octets as a push, taken by who wants it authenticated, by who takes everything, and by who knows nothing; and as a wrapped key. What is
/// accepted is no longer than what came, and said to be authenticated only by who checks it, and once.
pub(crate) fn target(data: &[u8]) {
    for (config, checks) in CONFIGS.iter() {
        let mut receiver = PushReceiver::new(config.clone(), ReceivedCounters::default()).expect("keys of suite 0");
        match receiver.receive(data) {
            Ok(pushed) => {
                assert!(!pushed.apdu.is_empty() && pushed.apdu.len() <= data.len());
                assert!(*checks || !pushed.authenticated);
                assert!(!format!("{pushed:?}{:?}", pushed.notification()).is_empty());
                let again = receiver.receive(data);
                assert!(!pushed.authenticated || matches!(again, Err(ProtectionError::Replayed { .. })));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Some(&octet) = data.first()
        && let Ok(control) = SecurityControl::decode(octet)
    {
        assert_eq!(control.octet(), octet);
    }
    if let Ok(key) = unwrap_key(&Key::from([9; 16]), data) {
        assert_eq!(key.bits() / 8 + 8, data.len());
    }
}
