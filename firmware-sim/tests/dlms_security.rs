//! Secured DLMS meters: whoever has what is printed at the start reads them, and nobody else; and what is played on their readers.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::net::TcpStream;
use std::time::Duration;

use common::{Client, LOAD, places, reader_config, start};
use firmware_sim::speak::LinePlace;
use protocols::cosem::security_setup::{GlobalKey, KEY_TRANSFER, KeyData, SecuritySetup};
use protocols::dlms::acse::Password;
use protocols::dlms::apdu::{CosemMethod, DataAccessResult};
use protocols::dlms::client::{Authentication, ClientConfig, ClientError, ReadError, RequestError, Stage};
use protocols::dlms::data::Data;
use protocols::dlms::security::{
    AgreementKey, AgreementPublicKey, Challenge, Ciphered, CipheredConfig, Counter, GlobalKeys, HighLevel, Key,
    KeyChange, KeyChangeStep, KeyTransport, Keys, Level, ReceivedCounters, SecuritySuite, Signing, SigningKey,
    StepOutcome, StoredKeys, SystemTitle, TransportKeys, VerifyingKey, Wrapping, wrap_key,
};
use protocols::hdlc::{ClientAddress, HdlcAddress, HdlcClient, HdlcConfig};
use protocols::link::Link;
use protocols::metering::ObisCode;
use protocols::wrapper::{WrapperClient, WrapperConfig};

const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
const COUNTER: ObisCode = ObisCode::new(0, 0, 43, 1, 0, 255);
const TITLE: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");

fn octets(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Keys and mechanism as the place tells them.
fn client_side(place: &LinePlace, level: Level, first: u32) -> (ClientConfig, Ciphered) {
    let security = place.security.as_ref().unwrap();
    let password = || Password::new(place.password.as_deref().unwrap());
    let key = |hex: &str| Key::from_hex(hex).unwrap();
    let how = match security.authentication {
        "low" => None,
        "manufacturer" => Some(HighLevel::Manufacturer(password())),
        "md5" => Some(HighLevel::Md5(password())),
        "sha1" => Some(HighLevel::Sha1(password())),
        "gmac" => Some(HighLevel::Gmac),
        "sha256" => Some(HighLevel::Sha256(password())),
        _ => Some(HighLevel::Ecdsa {
            ours: SigningKey::from_hex(security.signing_key.as_deref().unwrap()).unwrap(),
            theirs: VerifyingKey::from_octets(&octets(security.meter_public_key.as_deref().unwrap())).unwrap(),
        }),
    };
    let challenge = Challenge::new([0xc1; Challenge::LEN]).unwrap();
    let authentication = how.map_or(Authentication::Low(password()), |how| Authentication::High { how, challenge });
    let keys = Keys::new(key(&security.encryption_key), key(&security.authentication_key));
    let mut config = CipheredConfig::new(keys, TITLE);
    config.suite =
        [SecuritySuite::Suite0, SecuritySuite::Suite1, SecuritySuite::Suite2][usize::from(security.security_suite)];
    config.peer = Some(SystemTitle::from_hex(&security.meter_title).unwrap());
    (config.level, config.minimum) = (level, level);
    let transport = security.ciphering.map(|name| match name {
        "wrapped" => KeyTransport::Wrapped,
        "one-pass" => KeyTransport::OnePass,
        _ => KeyTransport::StaticUnified,
    });
    config.wrapping = transport.map_or(Wrapping::Service, Wrapping::Ciphering);
    config.signing = security.signing.map(|name| if name == "inside" { Signing::Inside } else { Signing::Outside });
    let drawn = vec![0x01; if security.security_suite == 2 { 48 } else { 32 }];
    let (private, public) = (security.agreement_key.as_deref(), security.meter_agreement_key.as_deref());
    config.transport = TransportKeys {
        key_encrypting: Some(key(&security.key_encrypting_key)),
        wrapped: Some(Key::from_octets(&vec![0x55; config.suite.key_bits() / 8]).unwrap()),
        agreement: private.map(|hex| AgreementKey::from_hex(hex).unwrap()),
        ephemeral: Some(AgreementKey::from_octets(&drawn).unwrap())
            .filter(|_| transport == Some(KeyTransport::OnePass)),
        peer_agreement: public.map(|hex| AgreementPublicKey::from_octets(&octets(hex)).unwrap()),
        signing: security.signing_key.as_deref().map(|hex| SigningKey::from_hex(hex).unwrap()),
        peer_signing: security.meter_public_key.as_deref().map(|hex| VerifyingKey::from_octets(&octets(hex)).unwrap()),
    };
    let ciphered = Ciphered::client(config, Counter::reserved(first, 100_000), ReceivedCounters::default()).unwrap();
    (ClientConfig { authentication, ..reader_config(None) }, ciphered)
}

fn connect(place: &LinePlace) -> TcpStream {
    let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream
}

fn link(place: &LinePlace, client: u16) -> Box<dyn Link> {
    if let Some(wport) = place.wport {
        let config = WrapperConfig { response_timeout_ms: 1_000, ..WrapperConfig::new(client, wport) };
        return Box::new(WrapperClient::new(config));
    }
    let address = HdlcAddress::two(1, place.hdlc_address.unwrap()).unwrap();
    let client = ClientAddress::new(u8::try_from(client).unwrap()).unwrap();
    Box::new(HdlcClient::new(HdlcConfig::new(client, address)))
}

type Reader = Client<TcpStream, Box<dyn Link>, Ciphered>;

fn reader(place: &LinePlace, level: Level, first: u32) -> Result<Reader, ClientError> {
    let (config, ciphered) = client_side(place, level, first);
    Client::associate_with(connect(place), link(place, 1), config, ciphered)
}

fn secured(protocol: &str, rest: &str) -> String {
    format!("history_days = 0.2\n[[meters]]\nprotocol = \"{protocol}\"\n{rest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_and_suite_lets_in_who_knows_and_nobody_else() {
    let mut sections = vec!["history_days = 0.2\n".to_owned()];
    for protocol in ["dlms-tcp", "dlms-hdlc"] {
        for suite in 0..3 {
            for authentication in ["low", "manufacturer", "md5", "sha1", "gmac", "sha256", "ecdsa"] {
                if suite > 0 || authentication != "ecdsa" {
                    sections.push(format!(
                        "[[meters]]\nprotocol = {protocol:?}\nsecurity = {{ authentication = {authentication:?}, suite = {suite} }}\n"
                    ));
                }
            }
        }
    }
    let fleet = start(&sections.concat()).await;
    let places = places(&fleet);
    assert_eq!(places.len(), 40);
    tokio::task::spawn_blocking(move || {
        for (meter, place) in &places {
            let mut reader = reader(place, Level::AUTHENTICATED_ENCRYPTED, 10).unwrap();
            assert!(reader.value((3, ENERGY, 2)).is_ok(), "{meter}");
            assert!(reader.value((7, LOAD, 2)).unwrap().len() > 100, "{meter}");
            reader.release().unwrap();
            // Less protection than is asked for, another key, and no security at all.
            let weak = self::reader(place, Level::AUTHENTICATED, 1_000).err();
            assert!(weak.is_some_and(|error| error.is_refusal()), "{meter}");
            let mut other = place.clone();
            other.security.as_mut().unwrap().encryption_key.replace_range(..2, "ff");
            let wrong = self::reader(&other, Level::AUTHENTICATED_ENCRYPTED, 2_000).err();
            assert!(wrong.as_ref().is_some_and(ClientError::is_refusal), "{meter}: {wrong:?}");
            let password = reader_config(place.password.as_deref());
            let plain = Client::associate(connect(place), link(place, 1), password).err();
            assert!(plain.as_ref().is_some_and(ClientError::is_refusal), "{meter}: {plain:?}");
        }
    })
    .await
    .unwrap();
    fleet.stop().await;
}

/// Another key than it was.
fn strange(key: &mut String) {
    let octet = if key[2..4] == *"17" { "18" } else { "17" };
    key.replace_range(2..4, octet);
}

/// Control, seen to fail: give the meter no transport in `MeterSecurity::new`.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_and_signatures_let_in_who_has_them_and_nobody_else() {
    let mut sections = vec!["history_days = 0.2\n".to_owned()];
    for (suite, ciphering, signing) in [
        (0, "wrapped", "none"),
        (1, "wrapped", "inside"),
        (1, "one-pass", "none"),
        (1, "static-unified", "outside"),
        (2, "one-pass", "inside"),
        (2, "static-unified", "none"),
        (2, "global", "outside"),
    ] {
        sections.push(format!(
            "[[meters]]\nprotocol = \"dlms-tcp\"\n\
             security = {{ suite = {suite}, ciphering = {ciphering:?}, signing = {signing:?} }}\n"
        ));
    }
    let fleet = start(&sections.concat()).await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        for (meter, place) in &places {
            for first in [10, 1_000] {
                let mut reader = reader(place, Level::AUTHENTICATED_ENCRYPTED, first).unwrap();
                assert!(reader.value((3, ENERGY, 2)).is_ok(), "{meter}");
                assert!(reader.value((7, LOAD, 2)).unwrap().len() > 100, "{meter}");
                reader.release().unwrap();
            }
            let is_heard = |change: fn(&mut LinePlace), first| {
                let mut other = place.clone();
                change(&mut other);
                let heard = self::reader(&other, Level::AUTHENTICATED_ENCRYPTED, first);
                heard.is_ok_and(|mut reader| reader.value((3, ENERGY, 2)).is_ok())
            };
            // Whoever takes other kinds of keys than the meter wants is not heard, and who has others of the same kind neither.
            let in_general = |place: &mut LinePlace| {
                let security = place.security.as_mut().unwrap();
                (security.ciphering, security.signing) = (None, None);
            };
            assert!(!is_heard(in_general, 2_000), "{meter}");
            let security = place.security.as_ref().unwrap();
            if security.ciphering == Some("wrapped") {
                let change = |place: &mut LinePlace| strange(&mut place.security.as_mut().unwrap().key_encrypting_key);
                assert!(!is_heard(change, 3_000), "{meter}");
            }
            if security.ciphering == Some("static-unified") {
                let change =
                    |place: &mut LinePlace| strange(place.security.as_mut().unwrap().agreement_key.as_mut().unwrap());
                assert!(!is_heard(change, 3_000), "{meter}");
            }
            if security.signing.is_some() {
                let change =
                    |place: &mut LinePlace| strange(place.security.as_mut().unwrap().signing_key.as_mut().unwrap());
                assert!(!is_heard(change, 4_000), "{meter}");
            }
            assert!(is_heard(|_| {}, 5_000), "{meter} is deaf to everybody");
        }
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_client_sees_where_the_counter_stands_and_a_manager_sees_everything() {
    let fleet = start(&secured("dlms-tcp", "security = {}")).await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let place = &places[0].1;
        let counter = || {
            let mut public = Client::associate(connect(place), link(place, 16), reader_config(None)).unwrap();
            let refused = public.get((3, ENERGY, 2), None).unwrap();
            assert_eq!(refused, Err(ReadError::Refused(DataAccessResult::ReadWriteDenied)));
            let value = public.value((1, COUNTER, 2)).unwrap();
            public.release().unwrap();
            Data::from_bytes(&value).unwrap().integer().unwrap()
        };
        assert_eq!(counter(), 0);
        let mut first = reader(place, Level::AUTHENTICATED_ENCRYPTED, 500).unwrap();
        assert!(first.value((3, ENERGY, 2)).is_ok());
        let used = first.protection().counter().peek().unwrap() - 1;
        first.release().unwrap();
        assert_eq!(counter(), i64::from(used));
        // What was used before is refused, with what is expected instead.
        let replayed = reader(place, Level::AUTHENTICATED_ENCRYPTED, used).err();
        assert_eq!(replayed, Some(ClientError::CounterRefused { expected: Some(used + 1) }));

        let (config, ciphered) = client_side(place, Level::AUTHENTICATED_ENCRYPTED, 1_000);
        let security = place.security.as_ref().unwrap();
        assert_eq!(security.management_authentication, "sha256");
        let how = HighLevel::Sha256(Password::new(security.management_password.as_str()));
        let challenge = Challenge::new([0xc2; Challenge::LEN]).unwrap();
        let config = ClientConfig { authentication: Authentication::High { how, challenge }, ..config };
        let mut manager = Client::associate_with(connect(place), link(place, 2), config, ciphered).unwrap();
        assert!(manager.value((7, LOAD, 2)).is_ok());
    })
    .await
    .unwrap();
    fleet.stop().await;
}

/// The client that manages a meter, with these keys.
fn manager(place: &LinePlace, keys: &GlobalKeys, first: u32) -> Result<Reader, ClientError> {
    let (config, _) = client_side(place, Level::AUTHENTICATED_ENCRYPTED, first);
    let security = place.security.as_ref().unwrap();
    let how = HighLevel::Sha256(Password::new(security.management_password.as_str()));
    let challenge = Challenge::new([0xc2; Challenge::LEN]).unwrap();
    let config = ClientConfig { authentication: Authentication::High { how, challenge }, ..config };
    let peer = Some(SystemTitle::from_hex(&security.meter_title).unwrap());
    let ciphering = CipheredConfig { peer, ..CipheredConfig::new(keys.of_associations(), TITLE) };
    let counter = Counter::reserved(first, 100_000);
    let ciphered = Ciphered::client(ciphering, counter, ReceivedCounters::default()).unwrap();
    Client::associate_with(connect(place), link(place, 2), config, ciphered)
}

fn outcome(result: &Result<(), RequestError>) -> StepOutcome {
    if result.is_ok() { StepOutcome::Done } else { StepOutcome::Refused }
}

/// One step of a change of keys. Of the first transfer nobody hears the answer.
fn take_step(place: &LinePlace, step: &KeyChangeStep, first: u32, is_first_transfer: bool) -> StepOutcome {
    let key_transfer = CosemMethod::new(64, SecuritySetup::LOGICAL_NAME, KEY_TRANSFER);
    match step {
        KeyChangeStep::Transfer { keys, parameters } if is_first_transfer => {
            manager(place, keys, first).unwrap().invoke_and_leave(key_transfer, parameters.clone());
            StepOutcome::Unknown
        }
        KeyChangeStep::Transfer { keys, parameters } => {
            let mut manager = manager(place, keys, first).unwrap();
            let outcome = outcome(&manager.invoke(key_transfer, parameters.clone()));
            // The answer is still under the old keys, and so is the end of the association.
            manager.release().unwrap();
            outcome
        }
        KeyChangeStep::Try { keys, parameters } => match (manager(place, keys, first), parameters) {
            (Ok(mut manager), Some(parameters)) => outcome(&manager.invoke(key_transfer, parameters.clone())),
            (Ok(_), None) => StepOutcome::Done,
            (Err(error), _) => {
                assert!(error.is_refusal(), "{error:?}");
                StepOutcome::Refused
            }
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_in_effect_and_a_lost_answer_loses_none() {
    let fleet = start(&secured("dlms-tcp", "security = {}")).await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let place = &places[0].1;
        let security = place.security.as_ref().unwrap();
        let told = |hex: &str| Key::from_hex(hex).unwrap();
        let old = GlobalKeys {
            unicast: told(&security.encryption_key),
            broadcast: None,
            authentication: Some(told(&security.authentication_key)),
            key_encrypting: told(&security.key_encrypting_key),
        };
        let new = |octet| Key::from([octet; 16]);
        let wanted = vec![
            (GlobalKey::UnicastEncryption, new(0x71)),
            (GlobalKey::Authentication, new(0x72)),
            (GlobalKey::KeyEncrypting, new(0x73)),
        ];
        let mut disk = StoredKeys { in_force: old.clone(), pending: None };
        let mut change = KeyChange::new(disk.clone(), wanted.clone());
        let (mut first, mut transfers) = (1_000, 0);
        while change.step() != KeyChangeStep::Finished {
            let step = change.step();
            let outcome = match step {
                KeyChangeStep::Store(keys) => {
                    disk = keys;
                    StepOutcome::Done
                }
                step => {
                    transfers += u32::from(matches!(step, KeyChangeStep::Transfer { .. }));
                    first += 1_000;
                    let is_first = transfers == 1 && matches!(step, KeyChangeStep::Transfer { .. });
                    take_step(place, &step, first, is_first)
                }
            };
            change.handle(outcome);
        }
        // The transfer that nobody answered had arrived.
        assert_eq!(transfers, 3);
        let expected = wanted.into_iter().fold(old.clone(), |keys, (which, key)| keys.with(which, key));
        assert_eq!(disk, StoredKeys { in_force: expected.clone(), pending: None });
        assert!(manager(place, &old, 50_000).err().is_some_and(|error| error.is_refusal()));
        let mut manager = manager(place, &expected, 60_000).unwrap();
        let setup = manager.value((64, SecuritySetup::LOGICAL_NAME, 2)).unwrap();
        assert_eq!(setup, [0x16, 0x6c]);
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_manages_a_meter_sees_its_security_setup_and_transfers_keys() {
    let fleet = start(&secured("dlms-tcp", "security = {}")).await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let place = &places[0].1;
        let security = place.security.as_ref().unwrap();
        let encrypting = Key::from_hex(&security.key_encrypting_key).unwrap();
        let octets = wrap_key(&encrypting, &Key::from([0x71; 16]));
        let parameters = KeyData::encode(&[KeyData { key: GlobalKey::UnicastEncryption, octets }]);
        let key_transfer = CosemMethod::new(64, SecuritySetup::LOGICAL_NAME, KEY_TRANSFER);
        let mut reader = reader(place, Level::AUTHENTICATED_ENCRYPTED, 10).unwrap();
        assert!(reader.invoke(key_transfer, parameters).is_err());
        let refused = reader.get((64, SecuritySetup::LOGICAL_NAME, 2), None).unwrap();
        assert_eq!(refused, Err(ReadError::Refused(DataAccessResult::ReadWriteDenied)));
        reader.release().unwrap();
        // The old key is in force.
        assert!(self::reader(place, Level::AUTHENTICATED_ENCRYPTED, 1_000).is_ok());
    })
    .await
    .unwrap();
    fleet.stop().await;
}

/// Control, seen to fail: leave `tamper` out.
#[tokio::test(flavor = "multi_thread")]
async fn tampered_answers_are_not_taken() {
    for fault in ["wrong-tag", "replayed-answer", "downgrade"] {
        let fleet = start(&secured("dlms-tcp", &format!("security = {{}}\nfaults = {{ {fault} = 1.0 }}"))).await;
        let places = places(&fleet);
        tokio::task::spawn_blocking(move || {
            let place = &places[0].1;
            let (mut config, ciphered) = client_side(place, Level::AUTHENTICATED_ENCRYPTED, 10);
            config.response_timeout = Duration::from_secs(3);
            let reader = Client::associate_with(connect(place), link(place, 1), config, ciphered);
            let read = reader.and_then(|mut reader| {
                reader.value((3, ENERGY, 2))?;
                reader.value((3, ENERGY, 2))
            });
            // Passed over, as if nothing had come.
            let silent = matches!(read, Err(ClientError::Silent { .. }));
            assert!(silent, "{fault}: {read:?}");
        })
        .await
        .unwrap();
        fleet.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_that_takes_counters_for_greater_says_so_or_hangs_up() {
    for quirk in ["", "quirks = [\"silent-counter-error\"]\n"] {
        let rest = format!("{quirk}security = {{ authentication = \"sha1\" }}\nfaults = {{ counter-jump = 1.0 }}");
        let fleet = start(&secured("dlms-tcp", &rest)).await;
        let places = places(&fleet);
        tokio::task::spawn_blocking(move || {
            let place = &places[0].1;
            reader(place, Level::AUTHENTICATED_ENCRYPTED, 10).unwrap().release().unwrap();
            let refused = reader(place, Level::AUTHENTICATED_ENCRYPTED, 100).err().unwrap();
            if quirk.is_empty() {
                let ClientError::CounterRefused { expected: Some(expected) } = refused else { panic!("{refused:?}") };
                assert!(expected > 5_000, "{expected}");
            } else {
                let gone =
                    matches!(refused, ClientError::Closed { stage: Stage::Associating } | ClientError::Link { .. });
                assert!(gone, "{refused:?}");
            }
        })
        .await
        .unwrap();
        fleet.stop().await;
    }
}
