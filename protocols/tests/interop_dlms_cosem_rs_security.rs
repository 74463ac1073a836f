//! Our ciphering and our high level security against those of `dlms-cosem-rs`: every level of protection, suite, key and mechanism that
//! it has, in both directions.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail the test")]

mod peer;

use std::time::Duration;

use dlms_cosem_rs::acse::AuthMechanism;
use dlms_cosem_rs::client as theirs;
use dlms_cosem_rs::security::{
    FixedRandom, Key as TheirKey, KeyRing, KeySet as TheirKeySet, RustCryptoProvider, Secret, SecurityPolicy,
    SecuritySuite as TheirSuite, SystemTitle as TheirTitle,
};
use dlms_cosem_rs::server::{Server, ServerConfig as TheirServerConfig};
use dlms_cosem_rs::xdlms::{AttributeDescriptor, DataAccessResult as TheirResult};
use protocols::dlms::acse::{Diagnostic, Password};
use protocols::dlms::apdu::{ActionResult, DataAccessResult};
use protocols::dlms::client::{Authentication, ClientConfig, ClientError, ClientEvent, ClientSession, ReadError};
use protocols::dlms::conformance::Conformance;
use protocols::dlms::security::{
    Challenge, Ciphered, CipheredConfig, Counter, HighLevel, Key, Keys, Level, Protection as _, ReceivedCounters,
    SecurityQuirks, SecuritySuite, SystemTitle, Wrapping,
};
use protocols::dlms::server::{ClientRole, HighLevelClient, ServerConfig, ServerEvent};
use protocols::wrapper::{WrapperClient, WrapperConfig};

use peer::{
    CLIENT_WPORT, CLOCK, ENERGY, MISSING, OurServer, PASSWORD, PROFILE, SCALER, SERVER_WPORT, TheirObjects,
    TheirServer, contents, quarter, rows, run, single, their_read,
};

const CLIENT_TITLE: [u8; 8] = *b"CLI\x00\x00\x00\x00\x01";
const SERVER_TITLE: [u8; 8] = *b"SRV\x00\x00\x00\x00\x01";
const LEVELS: [Level; 4] = [Level::NONE, Level::AUTHENTICATED, Level::ENCRYPTED, Level::AUTHENTICATED_ENCRYPTED];

/// How an association is protected, in the words of both.
#[derive(Debug, Clone, Copy)]
struct Case {
    mechanism: AuthMechanism,
    suite: SecuritySuite,
    level: Level,
    keys: TheirKeySet,
}

/// All that makes sense: a dedicated key must be hidden on its way. The sessions of the other side never use the broadcast key.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mechanism in [AuthMechanism::None, AuthMechanism::Low, AuthMechanism::HighGmac] {
        for suite in [SecuritySuite::Suite0, SecuritySuite::Suite1, SecuritySuite::Suite2] {
            for level in LEVELS {
                cases.push(Case { mechanism, suite, level, keys: TheirKeySet::GlobalUnicast });
                if level.encrypted {
                    cases.push(Case { mechanism, suite, level, keys: TheirKeySet::Dedicated });
                }
            }
        }
    }
    cases
}

impl Case {
    /// Keys of the length of the suite, told apart by their first octet.
    fn octets(self, first: u8) -> Vec<u8> {
        (0..(self.suite.key_bits() / 8) as u8).map(|index| first.wrapping_add(index)).collect()
    }

    fn our_config(self, title: [u8; 8]) -> CipheredConfig {
        let key = |first| Some(Key::from_octets(&self.octets(first)).unwrap());
        let keys = Keys { unicast: key(0x10), authentication: key(0x30), ..Keys::default() };
        let quirks = SecurityQuirks { proof_under_dedicated: true, ..SecurityQuirks::NONE };
        CipheredConfig {
            suite: self.suite,
            level: self.level,
            minimum: self.level,
            quirks,
            dedicated: key(0x40).filter(|_| self.keys == TheirKeySet::Dedicated),
            ..CipheredConfig::new(keys, SystemTitle(title))
        }
    }

    fn their_provider(self, random: u8, dedicated: bool) -> RustCryptoProvider<FixedRandom> {
        let key = |first| Some(TheirKey::from_slice(&self.octets(first)).unwrap());
        let mut ring = KeyRing { guek: key(0x10), gak: key(0x30), ..KeyRing::default() };
        ring.dedicated = key(0x40).filter(|_| dedicated);
        RustCryptoProvider::with_rng(ring, FixedRandom(random))
    }

    fn their_policy(self, keys: TheirKeySet) -> SecurityPolicy {
        let suite = TheirSuite::from_id(self.suite.id()).unwrap();
        SecurityPolicy {
            suite,
            authenticated: self.level.authenticated,
            encrypted: self.level.encrypted,
            key_set: keys,
        }
    }

    fn password(self) -> Option<Secret> {
        (self.mechanism == AuthMechanism::Low).then(|| Secret::new(PASSWORD.as_bytes()).unwrap())
    }

    fn our_client(self, change: impl Fn(&mut CipheredConfig)) -> ClientSession<WrapperClient, Ciphered> {
        let authentication = match self.mechanism {
            AuthMechanism::None => Authentication::None,
            AuthMechanism::Low => Authentication::Low(Password::new(PASSWORD)),
            _ => {
                let challenge = Challenge::new([0xc1; Challenge::LEN]).unwrap();
                Authentication::High { how: HighLevel::Gmac, challenge }
            }
        };
        let mut ciphering = self.our_config(CLIENT_TITLE);
        change(&mut ciphering);
        let protection =
            Ciphered::client(ciphering, Counter::reserved(1, 10_000), ReceivedCounters::default()).unwrap();
        let config = ClientConfig { authentication, max_receive_pdu_size: 600, ..ClientConfig::default() };
        let link = WrapperClient::new(WrapperConfig::new(CLIENT_WPORT, SERVER_WPORT));
        ClientSession::with_protection(link, config, protection)
    }

    fn their_server(self) -> TheirServer<FixedRandom> {
        let config = TheirServerConfig {
            system_title: Some(TheirTitle::new(SERVER_TITLE)),
            mechanism: self.mechanism,
            password: self.password(),
            // It takes up a dedicated key where the client hands one over.
            security: self.their_policy(TheirKeySet::GlobalUnicast),
            max_pdu_size: 600,
            ..TheirServerConfig::default()
        };
        Server::new(config, TheirObjects::default(), self.their_provider(0x5e, false))
    }

    fn our_server(self) -> OurServer<Ciphered> {
        let gmac = HighLevelClient { role: ClientRole::Reader, how: HighLevel::Gmac, title: None, minimum: self.level };
        let config = ServerConfig {
            reader_password: Some(Password::new(PASSWORD)),
            reader_minimum: self.level,
            high_level: vec![gmac],
            ..ServerConfig::default()
        };
        let ciphering = CipheredConfig { dedicated: None, ..self.our_config(SERVER_TITLE) };
        let protection =
            Ciphered::server(ciphering, Counter::reserved(1, 10_000), ReceivedCounters::default()).unwrap();
        OurServer::new(config, protection)
    }

    fn their_client(self) -> theirs::ClientSession<RustCryptoProvider<FixedRandom>> {
        let config = theirs::ClientConfig {
            client_sap: CLIENT_WPORT as u8,
            system_title: Some(TheirTitle::new(CLIENT_TITLE)),
            mechanism: self.mechanism,
            password: self.password(),
            security: self.their_policy(self.keys),
            max_pdu_size: 300,
            ..theirs::ClientConfig::default()
        };
        let is_dedicated = self.keys == TheirKeySet::Dedicated;
        theirs::ClientSession::new(config, self.their_provider(0xc1, is_dedicated))
    }
}

fn read_all(case: Case, wrapping: Wrapping) {
    let mut client = case.our_client(|config| config.wrapping = wrapping);
    client.associate(Duration::ZERO).unwrap();
    for attribute in [ENERGY, SCALER, PROFILE, MISSING] {
        client.get(Duration::ZERO, attribute, None).unwrap();
    }
    client.release(Duration::ZERO).unwrap();
    let events = run(&mut client, &mut case.their_server()).unwrap_or_else(|error| panic!("{case:?}: {error:?}"));
    let ClientEvent::Associated(agreed) = events[0] else { panic!("{case:?}: {events:?}") };
    let is_general = agreed.conformance.contains(Conformance::GENERAL_PROTECTION);
    assert_eq!(is_general, wrapping == Wrapping::General, "{case:?}");
    for (event, attribute) in events[1..].iter().zip([ENERGY, SCALER, PROFILE]) {
        assert_eq!(single(event).ok(), contents(attribute, None), "{case:?}, {attribute}");
    }
    assert_eq!(single(&events[4]), Err(ReadError::Refused(DataAccessResult::ObjectUndefined)));
    assert_eq!(client.protection().is_authenticated(), case.level.authenticated, "{case:?}");
}

#[test]
fn our_client_reads_their_server_under_every_protection() {
    for case in cases() {
        read_all(case, Wrapping::Service);
        // Their server has general wrappers for global keys; a dedicated one is in general-ded.
        if case.level != Level::NONE {
            read_all(case, Wrapping::General);
        }
    }
}

/// The association of their client with our server, proofs included.
fn associate(
    client: &mut theirs::ClientSession<RustCryptoProvider<FixedRandom>>,
    server: &mut OurServer<Ciphered>,
) -> theirs::AssociationStep {
    let mut out = [0; 1_024];
    let length = client.associate_request(&mut out).unwrap();
    match client.handle_associate_response(&server.exchange(&out[..length])).unwrap() {
        theirs::AssociationStep::HlsReplyRequired => {
            let length = client.hls_reply_request(&mut out).unwrap();
            client.handle_hls_reply_response(&server.exchange(&out[..length])).unwrap()
        }
        step => step,
    }
}

#[test]
fn their_client_reads_our_server_under_every_protection() {
    for case in cases() {
        let (mut client, mut server) = (case.their_client(), case.our_server());
        assert_eq!(associate(&mut client, &mut server), theirs::AssociationStep::Established, "{case:?}");
        let role = if case.mechanism == AuthMechanism::None { ClientRole::Public } else { ClientRole::Reader };
        assert_eq!(server.events, [ServerEvent::Connected, ServerEvent::Associated(role)], "{case:?}");
        for attribute in [ENERGY, CLOCK, PROFILE] {
            let read = their_read(&mut client, &mut server, attribute, None);
            assert_eq!(read.ok(), contents(attribute, None), "{case:?}, {attribute}");
        }
        assert_eq!(their_read(&mut client, &mut server, MISSING, None), Err(TheirResult::ObjectUndefined));
        assert_eq!(contents(PROFILE, None), Some(rows(&quarter(0), &quarter(95))));
        let protection = server.connection.session().protection();
        assert_eq!(protection.is_authenticated(), case.level.authenticated, "{case:?}");
    }
}

/// What they cipher in a wrapper of the service, put in a general one: what is inside is the same.
#[test]
fn their_request_in_a_general_wrapper_is_answered_in_one_that_they_understand() {
    let mut general = 0;
    for case in cases().into_iter().filter(|case| case.level != Level::NONE) {
        let (mut client, mut server) = (case.their_client(), case.our_server());
        associate(&mut client, &mut server);
        let (mut out, mut scratch) = ([0; 1_024], [0; 1_024]);
        let descriptor = AttributeDescriptor::new(ENERGY.class_id, dlms_cosem_rs::obis::Obis(ENERGY.obis.0), 2);
        let length = client.get_request(descriptor, None, &mut out).unwrap();
        let tag = if out[0] == 0xc8 { 0xdb } else { 0xdc };
        let request = [&[tag, 8], &CLIENT_TITLE[..], &out[1..length]].concat();
        let answer = server.exchange(&request);
        assert_eq!(answer[..10], [&[tag, 8], &SERVER_TITLE[..]].concat(), "{case:?}");
        assert!(matches!(client.handle_response(&answer, &mut scratch).unwrap(), theirs::Response::Data(_)));
        general += 1;
    }
    assert_eq!(general, 45, "three mechanisms, three suites, three levels, two of them with two kinds of keys");
}

#[test]
fn whoever_has_other_keys_is_refused_in_both_directions() {
    let case = Case {
        mechanism: AuthMechanism::HighGmac,
        suite: SecuritySuite::Suite0,
        level: Level::NONE,
        keys: TheirKeySet::GlobalUnicast,
    };
    let other_keys = |config: &mut CipheredConfig| config.keys.authentication = Some(Key::from([7; 16]));
    let mut client = case.our_client(other_keys);
    client.associate(Duration::ZERO).unwrap();
    let error = run(&mut client, &mut case.their_server()).unwrap_err();
    assert_eq!(error, ClientError::ProofRefused(ActionResult::READ_WRITE_DENIED));
    for level in [Level::AUTHENTICATED, Level::AUTHENTICATED_ENCRYPTED] {
        let case = Case { level, ..case };
        let mut client = case.our_client(other_keys);
        client.associate(Duration::ZERO).unwrap();
        let error = run(&mut client, &mut case.their_server()).unwrap_err();
        assert!(matches!(error, ClientError::Rejected { diagnostic: Diagnostic::AUTHENTICATION_FAILURE, .. }));
    }
    // Their client has another authentication key than our server.
    for level in LEVELS.into_iter().filter(|level| !level.encrypted || level.authenticated) {
        let case = Case { level, ..case };
        let mut ring = case.their_provider(0xc1, false);
        ring.keys_mut().gak = Some(TheirKey::new([7; 16]));
        let config = theirs::ClientConfig {
            system_title: Some(TheirTitle::new(CLIENT_TITLE)),
            mechanism: case.mechanism,
            security: case.their_policy(case.keys),
            ..theirs::ClientConfig::default()
        };
        let (mut client, mut server) = (theirs::ClientSession::new(config, ring), case.our_server());
        assert!(matches!(associate(&mut client, &mut server), theirs::AssociationStep::Rejected { .. }), "{level}");
        assert_eq!(server.events[1..], [ServerEvent::Rejected(Diagnostic::AUTHENTICATION_FAILURE)]);
        assert_eq!(server.connection.session().client(), None);
    }
}

#[test]
fn a_client_that_starts_its_counter_anew_is_told_the_one_to_go_on_from() {
    let case = Case {
        mechanism: AuthMechanism::HighGmac,
        suite: SecuritySuite::Suite0,
        level: Level::AUTHENTICATED_ENCRYPTED,
        keys: TheirKeySet::GlobalUnicast,
    };
    // Ours at theirs.
    let mut server = case.their_server();
    let session = |first: u32, server: &mut TheirServer<FixedRandom>| {
        let mut client = case.our_client(|_| {});
        client.protection_mut().counter_mut().skip_to(first);
        client.associate(Duration::ZERO).unwrap();
        client.get(Duration::ZERO, ENERGY, None).unwrap();
        client.release(Duration::ZERO).unwrap();
        run(&mut client, server)
    };
    assert!(session(1, &mut server).is_ok());
    let Err(ClientError::CounterRefused { expected: Some(expected) }) = session(1, &mut server) else { panic!() };
    assert!(session(expected, &mut server).is_ok());
    // Theirs at ours.
    let mut server = case.our_server();
    assert_eq!(associate(&mut case.their_client(), &mut server), theirs::AssociationStep::Established);
    let challenge = Challenge::new([0x5f; Challenge::LEN]).unwrap();
    server.connection.session_mut().set_challenge(challenge);
    let mut again = case.their_client();
    let theirs::AssociationStep::Exception(exception) = associate(&mut again, &mut server) else { panic!() };
    let expected = format!("{exception:?}");
    assert!(expected.contains('4'), "AARQ, proof and its APDU are spent: {expected}");
}
