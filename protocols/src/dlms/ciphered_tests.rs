//! Client and server together, ciphered and proving who they are to each other.

use super::acse::{Diagnostic, Password};
use super::apdu::{ActionResult, ExceptionResponse, ExceptionService, ExceptionState};
use super::client::{Authentication, ClientConfig, ClientError, ClientEvent, ClientSession};
use super::pair::{APDU, CLOCK, DummyLink, ENERGY, PRIVATE, PROFILE, Pair, SERIAL, profile};
use super::security::{
    Challenge, Ciphered, CipheredConfig, Counter, HighLevel, Key, KeySet, Keys, Level, Plain, Protection,
    ProtectionError, ReceivedCounters, SigningKey, SystemTitle, Wrapping, hex,
};
use super::server::{ClientRole, HighLevelClient, ServerConfig, ServerConnection, ServerEvent, ServerSession};
use crate::hdlc::{ClientAddress, HdlcAddress, HdlcClient, HdlcConfig, HdlcServer};
use crate::link::Link;

pub(super) const CLIENT: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");
pub(super) const SERVER: SystemTitle = SystemTitle(*b"MMM\x00\x00\xbcaN");
pub(super) const SECRET: &str = "known to both";
/// GET of the clock, whose invoke id no client uses here.
const GET: &str = "c0014e 0008 0000010000ff 02 00";

fn keys() -> Keys {
    Keys::new(Key::from([0x11; 16]), Key::from([0x22; 16]))
}

fn ciphering(title: SystemTitle) -> CipheredConfig {
    CipheredConfig::new(keys(), title)
}

pub(super) fn client_side(config: CipheredConfig) -> Ciphered {
    Ciphered::client(config, Counter::reserved(10, 10_000), ReceivedCounters::default()).unwrap()
}

pub(super) fn server_side(config: CipheredConfig) -> Ciphered {
    Ciphered::server(config, Counter::reserved(500, 10_000), ReceivedCounters::default()).unwrap()
}

fn challenge(octet: u8) -> Challenge {
    Challenge::new([octet; Challenge::LEN]).unwrap()
}

pub(super) fn mechanisms(secret: &str) -> [HighLevel; 5] {
    let secret = || Password::new(secret);
    [
        HighLevel::Gmac,
        HighLevel::Manufacturer(secret()),
        HighLevel::Md5(secret()),
        HighLevel::Sha1(secret()),
        HighLevel::Sha256(secret()),
    ]
}

pub(super) fn proving(how: HighLevel) -> ClientConfig {
    let authentication = Authentication::High { how, challenge: challenge(0xc1) };
    ClientConfig { authentication, ..ClientConfig::default() }
}

/// A meter that lets in whoever proves it, as reader.
pub(super) fn meter(how: HighLevel, minimum: Level) -> ServerConfig {
    let reader = HighLevelClient { role: ClientRole::Reader, how, title: None, minimum };
    ServerConfig { high_level: vec![reader], ..ServerConfig::default() }
}

fn session<P: Protection>(config: ServerConfig, protection: P) -> ServerSession<P> {
    let mut session = ServerSession::with_protection(config, protection);
    session.set_challenge(challenge(0x5e));
    session
}

pub(super) type DummyPair<P> = Pair<DummyLink, DummyLink, P>;

pub(super) fn pair<P: Protection>(client: ClientConfig, ours: P, server: ServerConfig, theirs: P) -> DummyPair<P> {
    Pair::new(
        ClientSession::with_protection(DummyLink::default(), client, ours),
        ServerConnection::new(DummyLink::default(), session(server, theirs)),
    )
}

pub(super) fn read_everything<C: Link, S: Link, P: Protection>(pair: &mut Pair<C, S, P>) {
    for attribute in [ENERGY, PRIVATE, SERIAL, PROFILE] {
        pair.client.get(pair.now, attribute, None).unwrap();
    }
    pair.client.release(pair.now).unwrap();
    pair.run();
}

fn values(events: &[ClientEvent]) -> Vec<&[u8]> {
    let mut values = Vec::new();
    for event in events {
        if let ClientEvent::Value { value, .. } = event {
            values.push(&value.data[..]);
        }
    }
    values
}

pub(super) fn assert_everything<C: Link, S: Link, P: Protection>(pair: &Pair<C, S, P>, context: &str) {
    assert_eq!(pair.result, Ok(()), "{context}");
    let profile = profile();
    let expected = [&[0x06, 0x00, 0xbc, 0x61, 0x4e][..], &[0x11, 0x2a], b"\x09\x08ABC12345", &profile];
    assert!(values(&pair.events) == expected, "{context}: {:?}", pair.events.len());
    assert!(pair.server_events.contains(&ServerEvent::Associated(ClientRole::Reader)), "{context}");
}

#[test]
fn every_mechanism_reads_everything_under_every_protection() {
    for how in mechanisms(SECRET) {
        for level in [Level::NONE, Level::AUTHENTICATED, Level::ENCRYPTED, Level::AUTHENTICATED_ENCRYPTED] {
            for (wrapping, own_key) in [
                (Wrapping::Service, false),
                (Wrapping::Service, true),
                (Wrapping::General, false),
                (Wrapping::General, true),
            ] {
                let own_key = own_key && level.encrypted;
                let context = format!("{how:?}, {level}, {wrapping:?}, {own_key}");
                let config = CipheredConfig { level, minimum: level, wrapping, ..ciphering(CLIENT) };
                let config = CipheredConfig { dedicated: own_key.then(|| Key::from([0x33; 16])), ..config };
                let theirs = server_side(CipheredConfig { level, minimum: level, wrapping, ..ciphering(SERVER) });
                let client = ClientConfig { max_receive_pdu_size: 500, ..proving(how.clone()) };
                let mut pair = pair(client, client_side(config), meter(how.clone(), level), theirs);
                pair.fault = Box::new(move |message| {
                    assert!(message.len() <= 501, "{} octets", message.len());
                    let is_plain = matches!(message[..], [_] | [_, 0x60..=0x63, ..]);
                    assert!(is_plain || (message[1] >= 0xc8) == (level != Level::NONE), "{message:02x?}");
                    true
                });
                read_everything(&mut pair);
                assert_everything(&pair, &context);
                let authenticated = level.authenticated;
                assert_eq!(pair.client.protection().is_authenticated(), authenticated, "{context}");
            }
        }
    }
}

#[test]
fn ciphered_apdus_go_in_segments_over_hdlc() {
    let mut config = HdlcConfig::new(ClientAddress::new(0x20).unwrap(), HdlcAddress::two(1, 17).unwrap());
    (config.information_transmit_max, config.information_receive_max) = (128, 128);
    let theirs = session(meter(HighLevel::Gmac, Level::AUTHENTICATED_ENCRYPTED), server_side(ciphering(SERVER)));
    let link = HdlcClient::new(config.clone());
    let ours = client_side(ciphering(CLIENT));
    let mut pair = Pair::new(
        ClientSession::with_protection(link, proving(HighLevel::Gmac), ours),
        ServerConnection::new(HdlcServer::new(config), theirs),
    );
    read_everything(&mut pair);
    assert_everything(&pair, "over HDLC");
}

#[test]
fn signatures_read_everything_and_those_of_strangers_nothing() {
    let key = |octet| SigningKey::from_octets(&[octet; 32]).unwrap();
    let server_how = HighLevel::Ecdsa { ours: key(2), theirs: key(1).verifying_key() };
    for (signing, is_known) in [(1, true), (3, false)] {
        let how = HighLevel::Ecdsa { ours: key(signing), theirs: key(2).verifying_key() };
        let (ours, theirs) = (client_side(ciphering(CLIENT)), server_side(ciphering(SERVER)));
        let mut pair = pair(proving(how), ours, meter(server_how.clone(), Level::AUTHENTICATED_ENCRYPTED), theirs);
        read_everything(&mut pair);
        if is_known {
            assert_everything(&pair, "signed");
        } else {
            assert_eq!(pair.result, Err(ClientError::ProofRefused(ActionResult::READ_WRITE_DENIED)));
            assert_eq!(pair.objects.reads, 0);
        }
    }
}

#[test]
fn mechanisms_without_titles_need_no_keys() {
    let [_, manufacturer, md5, sha1, sha256] = mechanisms(SECRET);
    for how in [manufacturer, md5, sha1] {
        let mut pair = pair(proving(how.clone()), Plain, meter(how, Level::NONE), Plain);
        read_everything(&mut pair);
        assert_everything(&pair, "plain");
    }
    let mut pair = pair(proving(sha256.clone()), Plain, meter(sha256, Level::NONE), Plain);
    pair.run();
    let unknown = Diagnostic::CALLING_AP_TITLE_NOT_RECOGNISED;
    assert!(matches!(pair.result, Err(ClientError::Rejected { diagnostic, .. }) if diagnostic == unknown));
}

// Negative control: let the server take any proof.
#[test]
fn who_does_not_know_the_secret_reads_nothing() {
    for (how, guess) in mechanisms(SECRET).into_iter().zip(mechanisms("guessed")) {
        let mut other = ciphering(CLIENT);
        other.level = Level::NONE;
        if matches!(how, HighLevel::Gmac) {
            other.keys = Keys::new(Key::from([0x12; 16]), Key::from([0x22; 16]));
        }
        let theirs = CipheredConfig { level: Level::NONE, ..ciphering(SERVER) };
        let mut pair = pair(proving(guess), client_side(other), meter(how.clone(), Level::NONE), server_side(theirs));
        pair.client.get(pair.now, ENERGY, None).unwrap();
        pair.run();
        let refused = ClientError::ProofRefused(ActionResult::READ_WRITE_DENIED);
        assert!(refused.is_refusal());
        assert_eq!((pair.result, pair.objects.reads), (Err(refused), 0), "{how:?}");
        let rejected = ServerEvent::Rejected(Diagnostic::AUTHENTICATION_FAILURE);
        assert_eq!(pair.server_events[1..2], [rejected], "{how:?}");
    }
}

// Negative control: let the client take any answer of the server.
#[test]
fn a_server_that_does_not_prove_itself_is_left() {
    for how in mechanisms(SECRET) {
        let plain = |title| CipheredConfig { level: Level::NONE, ..ciphering(title) };
        let mut pair = pair(
            proving(how.clone()),
            client_side(plain(CLIENT)),
            meter(how.clone(), Level::NONE),
            server_side(plain(SERVER)),
        );
        pair.fault = Box::new(|message| {
            if message.starts_with(&[APDU, 0xc7]) {
                *message.last_mut().unwrap() ^= 1;
            }
            true
        });
        pair.client.get(pair.now, ENERGY, None).unwrap();
        pair.run();
        let unproven = ClientError::Unproven { source: ProtectionError::Forged };
        assert_eq!((pair.result, pair.objects.reads), (Err(unproven), 0), "{how:?}");
    }
}

#[test]
fn nothing_is_served_before_the_proof_and_one_wrong_proof_ends_the_association() {
    let how = HighLevel::Md5(Password::new(SECRET));
    let aarq = hex(
        "6036a1090607608574050801018a0207808b0760857405080203ac0a80084b35366956616759be10040e01000000065f1f0400007e1f04b0",
    );
    let mut server = session(meter(how, Level::NONE), Plain);
    let mut objects = super::pair::Objects::default();
    let mut answer = |server: &mut ServerSession, apdu: &[u8]| server.answer(apdu, &mut objects).unwrap();
    let aare = answer(&mut server, &aarq);
    let (accepted, required) = (hex("a203020100"), hex("a305a10302010e"));
    assert!(aare.windows(5).any(|window| window == accepted) && aare.windows(7).any(|window| window == required));
    assert!(aare.windows(16).any(|window| window == [0x5e; 16]), "no challenge in {aare:02x?}");
    assert_eq!((server.client(), server.take_event()), (None, None));
    assert!(server.wants_challenge(), "a challenge is used once");
    for early in [GET, "c301c1 000f 0000280000ff 02 00", "c301c1 0046 000060030aff 01 00"] {
        assert_eq!(answer(&mut server, &hex(early)), hex("d80101"), "{early}");
    }
    let wrong = hex("c301c1 000f 0000280000ff 01 01 0910 00000000000000000000000000000000");
    assert_eq!(answer(&mut server, &wrong), hex("c701c1 03 00"));
    assert_eq!(server.take_event(), Some(ServerEvent::Rejected(Diagnostic::AUTHENTICATION_FAILURE)));
    assert_eq!(answer(&mut server, &wrong), hex("d80101"), "one proof, no guessing");
    // Without another challenge nobody can begin: for now.
    let aare = answer(&mut server, &aarq);
    assert!(aare.windows(5).any(|window| window == hex("a203020102")), "{aare:02x?}");
    assert_eq!(objects.reads, 0);
}

#[test]
fn each_client_has_its_own_secret_its_own_rights_and_its_own_minimum() {
    let manager = SystemTitle(*b"MMM\x00\x00\x00\x00\x02");
    let high_level = vec![
        HighLevelClient {
            role: ClientRole::Manager,
            how: HighLevel::Sha256(Password::new("of the manager")),
            title: Some(manager),
            minimum: Level::AUTHENTICATED_ENCRYPTED,
        },
        HighLevelClient {
            role: ClientRole::Reader,
            how: HighLevel::Sha256(Password::new(SECRET)),
            title: None,
            minimum: Level::AUTHENTICATED,
        },
    ];
    let server = ServerConfig { high_level, ..ServerConfig::default() };
    let theirs = || server_side(CipheredConfig { minimum: Level::NONE, ..ciphering(SERVER) });
    for (title, secret, level, expected) in [
        (manager, "of the manager", Level::AUTHENTICATED_ENCRYPTED, Ok(ClientRole::Manager)),
        (manager, "of the manager", Level::AUTHENTICATED, Err(Diagnostic::AUTHENTICATION_FAILURE)),
        (manager, SECRET, Level::AUTHENTICATED_ENCRYPTED, Err(Diagnostic::AUTHENTICATION_FAILURE)),
        (CLIENT, SECRET, Level::AUTHENTICATED, Ok(ClientRole::Reader)),
        (CLIENT, SECRET, Level::ENCRYPTED, Err(Diagnostic::AUTHENTICATION_FAILURE)),
        (CLIENT, SECRET, Level::NONE, Err(Diagnostic::APPLICATION_CONTEXT_NOT_SUPPORTED)),
        (CLIENT, "of the manager", Level::AUTHENTICATED, Err(Diagnostic::AUTHENTICATION_FAILURE)),
    ] {
        let ours = client_side(CipheredConfig { level, minimum: Level::NONE, ..ciphering(title) });
        let client = proving(HighLevel::Sha256(Password::new(secret)));
        let mut pair = pair(client, ours, server.clone(), theirs());
        pair.client.get(pair.now, PRIVATE, None).unwrap();
        pair.run();
        let expected_event = expected.map_or_else(ServerEvent::Rejected, ServerEvent::Associated);
        assert!(pair.server_events.contains(&expected_event), "{title} {level}: {:?}", pair.server_events);
        // Of the objects of these tests the manager has no right to the private one.
        assert_eq!(values(&pair.events).len(), usize::from(expected == Ok(ClientRole::Reader)));
    }
}

#[test]
fn a_public_client_without_ciphering_is_let_in_beside_ciphering_ones() {
    let server = ServerConfig {
        reader_password: Some(Password::new("12345678")),
        reader_minimum: Level::AUTHENTICATED_ENCRYPTED,
        ..ServerConfig::default()
    };
    let plain = |title| CipheredConfig { level: Level::NONE, ..ciphering(title) };
    let mut open =
        pair(ClientConfig::default(), client_side(plain(CLIENT)), server.clone(), server_side(ciphering(SERVER)));
    open.client.get(open.now, CLOCK, None).unwrap();
    open.run();
    assert_eq!((values(&open.events).len(), open.client.protection().is_authenticated()), (1, false));
    // The password in clear is not enough where ciphering is asked for.
    let low =
        ClientConfig { authentication: Authentication::Low(Password::new("12345678")), ..ClientConfig::default() };
    let mut in_clear = pair(low.clone(), client_side(plain(CLIENT)), server.clone(), server_side(ciphering(SERVER)));
    in_clear.run();
    assert!(in_clear.result.is_err_and(|error| error.is_refusal()));
    let mut ciphered = pair(low, client_side(ciphering(CLIENT)), server, server_side(ciphering(SERVER)));
    ciphered.client.get(ciphered.now, PRIVATE, None).unwrap();
    ciphered.run();
    assert_eq!(values(&ciphered.events), [&[0x11, 0x2a]]);
}

#[test]
fn sides_that_disagree_on_ciphering_or_keys_do_not_associate() {
    let gmac = || HighLevel::Gmac;
    let server = || meter(gmac(), Level::AUTHENTICATED_ENCRYPTED);
    let wrong_key =
        CipheredConfig { keys: Keys::new(Key::from([0x12; 16]), Key::from([0x22; 16])), ..ciphering(CLIENT) };
    let wrong_authentication =
        CipheredConfig { keys: Keys::new(Key::from([0x11; 16]), Key::from([0x23; 16])), ..ciphering(CLIENT) };
    let in_clear = CipheredConfig { level: Level::NONE, ..ciphering(CLIENT) };
    for config in [wrong_key, wrong_authentication, in_clear] {
        let mut pair = pair(proving(gmac()), client_side(config), server(), server_side(ciphering(SERVER)));
        pair.client.get(pair.now, ENERGY, None).unwrap();
        pair.run();
        assert!(pair.result.as_ref().is_err_and(ClientError::is_refusal), "{:?}", pair.result);
        assert_eq!(pair.objects.reads, 0);
    }
}

#[test]
fn a_counter_that_was_used_before_is_named_and_the_client_can_jump_ahead() {
    let kept = {
        let ours = client_side(ciphering(CLIENT));
        let mut first =
            pair(proving(HighLevel::Gmac), ours, meter(HighLevel::Gmac, Level::NONE), server_side(ciphering(SERVER)));
        read_everything(&mut first);
        assert_everything(&first, "first");
        first.server.session().protection().received().clone()
    };
    let greatest = kept.greatest(KeySet::GlobalUnicast, CLIENT).unwrap();
    let server = || Ciphered::server(ciphering(SERVER), Counter::reserved(20_000, 30_000), kept.clone()).unwrap();
    let restored = || client_side(ciphering(CLIENT));
    let mut again = pair(proving(HighLevel::Gmac), restored(), meter(HighLevel::Gmac, Level::NONE), server());
    again.run();
    assert_eq!(again.result, Err(ClientError::CounterRefused { expected: Some(greatest + 1) }));
    let mut ahead = restored();
    ahead.counter_mut().skip_to(greatest + 1);
    let mut jumped = pair(proving(HighLevel::Gmac), ahead, meter(HighLevel::Gmac, Level::NONE), server());
    read_everything(&mut jumped);
    assert_everything(&jumped, "after the jump");
}

#[test]
fn a_request_that_is_sent_back_in_time_is_answered_with_the_counter() {
    let mut recorded = Vec::new();
    let mut pair = pair(
        proving(HighLevel::Gmac),
        client_side(ciphering(CLIENT)),
        meter(HighLevel::Gmac, Level::NONE),
        server_side(ciphering(SERVER)),
    );
    pair.run();
    for _ in 0..2 {
        pair.client.get(pair.now, ENERGY, None).unwrap();
        pair.run();
    }
    let protection = pair.server.session().protection();
    let greatest = protection.received().greatest(KeySet::GlobalUnicast, CLIENT).unwrap();
    let mut twin = client_side(ciphering(CLIENT));
    twin.begin(true, Level::NONE).unwrap();
    recorded.extend(twin.protect(super::security::Purpose::Service, hex(GET)).unwrap());
    let answer = pair.server.session_mut().answer(&recorded, &mut pair.objects).unwrap();
    let service = ExceptionService::InvocationCounterError(Some(greatest + 1));
    assert_eq!(
        ExceptionResponse::decode(&answer),
        Ok(ExceptionResponse::new(ExceptionState::ServiceNotAllowed, service))
    );
    assert_eq!(pair.objects.reads, 2);
}

#[test]
fn exceptions_of_ciphering_end_the_session_with_their_own_errors() {
    for (exception, expected) in [
        ("d80106 0000002a", ClientError::CounterRefused { expected: Some(42) }),
        ("d80106", ClientError::CounterRefused { expected: None }),
        ("d80105", ClientError::Undeciphered),
    ] {
        let exception = hex(&exception.replace(' ', ""));
        let ours = client_side(ciphering(CLIENT));
        let mut pair =
            pair(proving(HighLevel::Gmac), ours, meter(HighLevel::Gmac, Level::NONE), server_side(ciphering(SERVER)));
        pair.run();
        pair.fault = Box::new(move |message| {
            if message.starts_with(&[APDU, 0xcc]) {
                message.splice(1.., exception.iter().copied());
            }
            true
        });
        pair.client.get(pair.now, ENERGY, None).unwrap();
        pair.run();
        assert!(expected.is_refusal());
        assert_eq!(pair.result, Err(expected));
    }
}

#[test]
fn counters_that_are_used_up_end_the_session_before_one_is_used_twice() {
    let few = |title, count: u32| (ciphering(title), Counter::reserved(500, 500 + count));
    let (config, counter) = few(CLIENT, 4);
    let ours = Ciphered::client(config, counter, ReceivedCounters::default()).unwrap();
    let mut short =
        pair(proving(HighLevel::Gmac), ours, meter(HighLevel::Gmac, Level::NONE), server_side(ciphering(SERVER)));
    read_everything(&mut short);
    assert_eq!(short.result, Err(ClientError::Protection(ProtectionError::CounterExhausted)));
    assert_eq!(values(&short.events).len(), 1, "AARQ, proof, its APDU, one GET");

    let (config, counter) = few(SERVER, 4);
    let theirs = Ciphered::server(config, counter, ReceivedCounters::default()).unwrap();
    let mut short =
        pair(proving(HighLevel::Gmac), client_side(ciphering(CLIENT)), meter(HighLevel::Gmac, Level::NONE), theirs);
    read_everything(&mut short);
    assert!(short.server_events.contains(&ServerEvent::Unprotected));
    assert_eq!(values(&short.events).len(), 1);

    // An owner that sees to it in time goes on.
    let (config, counter) = few(CLIENT, 4);
    let ours = Ciphered::client(config, counter, ReceivedCounters::default()).unwrap();
    let mut extended =
        pair(proving(HighLevel::Gmac), ours, meter(HighLevel::Gmac, Level::NONE), server_side(ciphering(SERVER)));
    assert!(extended.client.protection().counter().is_low());
    extended.client.protection_mut().counter_mut().extend(10_000);
    read_everything(&mut extended);
    assert_everything(&extended, "extended");
}

#[test]
fn a_request_that_is_repeated_has_a_counter_of_its_own() {
    let client = ClientConfig { attempts: 4, ..proving(HighLevel::Gmac) };
    let server = meter(HighLevel::Gmac, Level::AUTHENTICATED_ENCRYPTED);
    let mut pair = pair(client, client_side(ciphering(CLIENT)), server, server_side(ciphering(SERVER)));
    // The GETs of the session are lost but for every third of their copies; a late answer is passed over.
    let mut copies = 0;
    pair.fault = Box::new(move |message| {
        let is_get = message.starts_with(&[APDU, 0xc8]);
        copies += usize::from(is_get);
        !is_get || copies % 3 == 0
    });
    let request = pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(pair.result, Ok(()));
    assert!(
        pair.events
            .iter()
            .any(|event| matches!(event, ClientEvent::Value { request: answered, .. } if *answered == request))
    );
    assert_eq!(pair.objects.reads, 1);
}

// Negative control: forget the challenges once they are answered.
#[test]
fn a_proof_whose_answer_is_lost_may_be_made_again() {
    for how in mechanisms(SECRET) {
        let client = ClientConfig { attempts: 3, ..proving(how.clone()) };
        let server = meter(how.clone(), Level::AUTHENTICATED_ENCRYPTED);
        let mut pair = pair(client, client_side(ciphering(CLIENT)), server, server_side(ciphering(SERVER)));
        let mut lost = 0;
        pair.fault = Box::new(move |message| {
            let is_lost = message.starts_with(&[APDU, 0xcf]) && lost < 2;
            lost += usize::from(is_lost);
            !is_lost
        });
        read_everything(&mut pair);
        assert_everything(&pair, &format!("{how:?}"));
        let associated = |event: &&ServerEvent| matches!(event, ServerEvent::Associated(_));
        assert_eq!(pair.server_events.iter().filter(associated).count(), 1, "{how:?}");
    }
}

#[test]
fn an_answer_altered_on_the_way_is_no_answer() {
    let ours = client_side(ciphering(CLIENT));
    let mut pair =
        pair(proving(HighLevel::Gmac), ours, meter(HighLevel::Gmac, Level::NONE), server_side(ciphering(SERVER)));
    pair.run();
    pair.fault = Box::new(|message| {
        if message.starts_with(&[APDU, 0xcc]) {
            message[10] ^= 0x10;
        }
        true
    });
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert!(matches!(pair.result, Err(ClientError::Silent { .. })), "{:?}", pair.result);
    let forged = ClientEvent::Ignored(super::client::Ignored::Protection(ProtectionError::Forged));
    assert!(pair.events.contains(&forged) && values(&pair.events).is_empty());
}
