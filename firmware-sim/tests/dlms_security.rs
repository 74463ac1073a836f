//! Secured DLMS meters: whoever has what is printed at the start reads them, and nobody else; and what is played on their readers.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::net::TcpStream;
use std::time::Duration;

use common::{Client, LOAD, places, reader_config, start};
use firmware_sim::speak::LinePlace;
use protocols::dlms::acse::Password;
use protocols::dlms::apdu::DataAccessResult;
use protocols::dlms::client::{Authentication, ClientConfig, ClientError, ReadError, Stage};
use protocols::dlms::data::Data;
use protocols::dlms::security::{
    Challenge, Ciphered, CipheredConfig, Counter, HighLevel, Key, Keys, Level, ReceivedCounters, SecuritySuite,
    SigningKey, SystemTitle, VerifyingKey,
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

/// Negative control: leave `tamper` out.
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
