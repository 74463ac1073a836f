use super::*;
use crate::dlms::security::{Keys, SecurityQuirks, SecuritySuite, hex};
use proptest::prelude::*;

pub(super) const CLIENT: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");
pub(super) const SERVER: SystemTitle = SystemTitle(*b"MMM\x00\x00\xbcaN");
pub(super) const REQUEST: &str = "C0010000080000010000FF0200";
pub(super) const RESPONSE: &str = "C40100000600BC614E";
const INITIATE: &str = "01011000112233445566778899AABBCCDDEEFF0000065F1F0400007E1F04B0";

pub(super) fn keys(suite: SecuritySuite) -> Keys {
    let key = |octet: u8| {
        let octets: Vec<u8> = (0..(suite.key_bits() / 8) as u8).map(|index| octet + index).collect();
        Key::from_octets(&octets).unwrap()
    };
    Keys { unicast: Some(key(0x00)), broadcast: Some(key(0x40)), authentication: Some(key(0xd0)) }
}

pub(super) fn config(title: SystemTitle) -> CipheredConfig {
    CipheredConfig::new(keys(SecuritySuite::Suite0), title)
}

fn client(config: CipheredConfig) -> Ciphered {
    Ciphered::client(config, Counter::reserved(1, 1_000), ReceivedCounters::default()).unwrap()
}

fn server(config: CipheredConfig) -> Ciphered {
    Ciphered::server(config, Counter::reserved(100, 1_100), ReceivedCounters::default()).unwrap()
}

/// Lets both begin a ciphered association and hand over a dedicated key, where there is one.
fn associate(client: &mut Ciphered, server: &mut Ciphered) {
    client.begin(true, Level::NONE).unwrap();
    server.begin(true, Level::NONE).unwrap();
    server.meet(Some(&CLIENT.0)).unwrap();
    client.meet(Some(&SERVER.0)).unwrap();
    let request = client.protect(Purpose::Initiate, hex(INITIATE)).unwrap();
    assert_eq!(server.unprotect(Purpose::Initiate, request), Ok(hex(INITIATE)));
    let response = server.protect(Purpose::Initiate, hex("0800065F1F040000501F01F40007")).unwrap();
    if let Some(key) = client.offered_key().cloned() {
        server.agree_on_key(key.expose()).unwrap();
        client.agree_on_key(key.expose()).unwrap();
    }
    client.unprotect(Purpose::Initiate, response).unwrap();
    client.agreed(client.conformance());
}

pub(super) fn pair(client_config: CipheredConfig, server_config: CipheredConfig) -> (Ciphered, Ciphered) {
    let (mut client, mut server) = (client(client_config), server(server_config));
    associate(&mut client, &mut server);
    (client, server)
}

fn usual() -> (Ciphered, Ciphered) {
    pair(config(CLIENT), config(SERVER))
}

/// DLMS UA 1000-2 (Green Book) ed. 8, the AARQ with ciphering and the get-request, as the tests of u9n/dlms-cosem and of jDLMS print
/// them.
#[test]
fn the_examples_of_the_green_book_are_met_octet_by_octet() {
    for (purpose, plain, golden) in [
        (
            Purpose::Initiate,
            INITIATE,
            "21303001234567801302FF8A7874133D414CED25B42534D28DB0047720606B175BD52211BE6841DB204D39EE6FDB8E356855",
        ),
        (Purpose::Service, REQUEST, "C81E3001234567411312FF935A47566827C467BC7D825C3BE4A77C3FCC056B6B"),
    ] {
        let counter = Counter::reserved(0x0123_4567, 0x0123_4568);
        let mut sender = Ciphered::client(config(SERVER), counter, ReceivedCounters::default()).unwrap();
        sender.begin(true, Level::NONE).unwrap();
        assert_eq!(sender.protect(purpose, hex(plain)), Ok(hex(golden)));
        assert_eq!(sender.protect(purpose, hex(plain)), Err(ProtectionError::CounterExhausted));
        let mut receiver = server(config(CLIENT));
        receiver.begin(true, Level::NONE).unwrap();
        receiver.meet(Some(&SERVER.0)).unwrap();
        assert_eq!(receiver.unprotect(purpose, hex(golden)), Ok(hex(plain)));
        assert!(receiver.is_authenticated());
    }
}

#[test]
fn requests_and_answers_have_the_wrapper_of_their_service_or_the_general_one() {
    for (wrapping, dedicated, request, response) in [
        (Wrapping::Service, None, 0xc8, 0xcc),
        (Wrapping::Service, Some([9; 16].into()), 0xd0, 0xd4),
        (Wrapping::General, None, 0xdb, 0xdb),
        (Wrapping::General, Some([9; 16].into()), 0xdc, 0xdc),
    ] {
        let asking = CipheredConfig { dedicated, wrapping, ..config(CLIENT) };
        let (mut client, mut server) = pair(asking, config(SERVER));
        let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
        assert_eq!(asked[0], request);
        assert!(asked.len() <= hex(REQUEST).len() + client.overhead());
        assert_eq!(server.unprotect(Purpose::Service, asked), Ok(hex(REQUEST)));
        let answered = server.protect(Purpose::Service, hex(RESPONSE)).unwrap();
        assert_eq!(answered[0], response);
        assert!(answered.len() <= hex(RESPONSE).len() + server.overhead());
        assert_eq!(client.unprotect(Purpose::Service, answered), Ok(hex(RESPONSE)));
    }
}

#[test]
fn general_wrappers_are_used_only_where_they_were_agreed_on() {
    let (mut client, _) = pair(CipheredConfig { wrapping: Wrapping::General, ..config(CLIENT) }, config(SERVER));
    assert_eq!(client.conformance(), Conformance::GENERAL_PROTECTION);
    client.agreed(Conformance::GET);
    assert_eq!(client.protect(Purpose::Service, hex(REQUEST)).unwrap()[0], 0xc8);
}

#[test]
fn the_overhead_is_what_the_longest_apdu_gets() {
    for wrapping in [Wrapping::Service, Wrapping::General] {
        let (mut client, _) = pair(CipheredConfig { wrapping, ..config(CLIENT) }, config(SERVER));
        // ACCESS has no wrapper of its own.
        let apdu = vec![0xd9; 65_000];
        let protected = client.protect(Purpose::Service, apdu.clone()).unwrap();
        assert_eq!(protected.len(), apdu.len() + client.overhead());
    }
}

#[test]
fn proofs_and_initiate_are_under_the_global_unicast_key_whatever_services_use() {
    let asking = CipheredConfig { dedicated: Some([9; 16].into()), ..config(CLIENT) };
    let (mut client, _) = pair(asking, config(SERVER));
    assert_eq!(client.protect(Purpose::Proof, hex("c3014100")).unwrap()[0], 0xcb);
    let broadcast = |title| CipheredConfig { broadcast: true, ..config(title) };
    let (mut client, mut server) = pair(broadcast(CLIENT), broadcast(SERVER));
    assert_eq!(client.protect(Purpose::Proof, hex("c3014100")).unwrap()[2], 0x30);
    let request = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(request[..3], [0xc8, 0x1e, 0x70]);
    assert_eq!(server.unprotect(Purpose::Service, request), Ok(hex(REQUEST)));
    let answer = server.protect(Purpose::Service, hex(RESPONSE)).unwrap();
    assert_eq!(answer[2], 0x70);
    assert_eq!(client.unprotect(Purpose::Service, answer), Ok(hex(RESPONSE)));
}

// Negative control: let the frame choose among the keys that there are.
#[test]
fn a_frame_does_not_choose_its_key() {
    let refused = |keys: KeySet| Err(ProtectionError::KeySet { found: keys.name() });
    // A whole fleet has the broadcast key; who uses it is not let in where unicast is configured, nor the other way round.
    let broadcast = |title| CipheredConfig { broadcast: true, ..config(title) };
    let (mut shouting, mut listening) = pair(broadcast(CLIENT), broadcast(SERVER));
    let (mut talking, mut server) = usual();
    let shouted = shouting.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, shouted), refused(KeySet::GlobalBroadcast));
    let talked = talking.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(listening.unprotect(Purpose::Service, talked), refused(KeySet::GlobalUnicast));
    // No dedicated key was agreed on.
    let dedicated = CipheredConfig { dedicated: Some([9; 16].into()), ..config(CLIENT) };
    let (mut dedicated, mut other) = pair(dedicated, config(SERVER));
    let request = dedicated.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, request), refused(KeySet::Dedicated));
    // A request under the dedicated key is not answered under the global one.
    let request = dedicated.protect(Purpose::Proof, hex(REQUEST)).unwrap();
    other.unprotect(Purpose::Proof, request).unwrap();
    let global = other.protect(Purpose::Service, hex(RESPONSE)).unwrap();
    dedicated.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(dedicated.unprotect(Purpose::Service, global), refused(KeySet::GlobalUnicast));
}

#[test]
fn less_protection_than_configured_is_refused() {
    let levels = [Level::NONE, Level::AUTHENTICATED, Level::ENCRYPTED, Level::AUTHENTICATED_ENCRYPTED];
    for minimum in levels {
        for level in levels {
            let mut receiver = server(CipheredConfig { minimum, ..config(SERVER) });
            receiver.begin(true, Level::NONE).unwrap();
            receiver.meet(Some(&CLIENT.0)).unwrap();
            let mut sender = client(CipheredConfig { level, ..config(CLIENT) });
            sender.begin(true, Level::NONE).unwrap();
            let request = sender.protect(Purpose::Service, hex(REQUEST)).unwrap();
            let result = receiver.unprotect(Purpose::Service, request);
            if level.covers(minimum) {
                assert_eq!(result, Ok(hex(REQUEST)), "{level} where {minimum} is asked for");
                assert_eq!(receiver.is_authenticated(), level.authenticated);
                // The answer is not protected less than the request, nor less than configured.
                let answer = receiver.protect(Purpose::Service, hex(RESPONSE)).unwrap();
                assert_eq!(answer[2], 0x30);
            } else {
                assert_eq!(result, Err(ProtectionError::Weak { found: level, required: minimum }));
            }
        }
    }
    // What one association asks for besides.
    let (mut client, mut server) = pair(
        CipheredConfig { level: Level::ENCRYPTED, minimum: Level::NONE, ..config(CLIENT) },
        CipheredConfig { minimum: Level::NONE, ..config(SERVER) },
    );
    server.begin(true, Level::AUTHENTICATED).unwrap();
    server.meet(Some(&CLIENT.0)).unwrap();
    let request = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    let weak = ProtectionError::Weak { found: Level::ENCRYPTED, required: Level::AUTHENTICATED };
    assert_eq!(server.unprotect(Purpose::Service, request), Err(weak));
}

#[test]
fn what_is_not_ciphered_is_refused_but_for_the_errors_of_a_meter() {
    let (mut client, mut server) = usual();
    for apdu in [REQUEST, RESPONSE, "0f0000000100", "d80101", "0e010601", "d900", "6200"] {
        let apdu = hex(apdu);
        let refused = Err(ProtectionError::Unprotected { tag: apdu[0] });
        assert_eq!(server.unprotect(Purpose::Service, apdu.clone()), refused);
        let expected = if matches!(apdu[0], 0xd8 | 0x0e) { Ok(apdu.clone()) } else { refused };
        assert_eq!(client.unprotect(Purpose::Service, apdu), expected);
    }
    assert!(matches!(server.unprotect(Purpose::Service, Vec::new()), Err(ProtectionError::Malformed { .. })));
    let plain = server.unprotect(Purpose::Initiate, hex("01000000065f1f0400007e1f04b0"));
    assert_eq!(plain, Err(ProtectionError::Unprotected { tag: 0x01 }));
}

#[test]
fn an_association_without_ciphering_passes_plain_apdus_and_no_others() {
    let mut server = server(config(SERVER));
    server.begin(false, Level::NONE).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, hex(REQUEST)), Ok(hex(REQUEST)));
    assert_eq!(server.protect(Purpose::Service, hex(RESPONSE)), Ok(hex(RESPONSE)));
    assert_eq!(server.overhead(), 0);
    assert_eq!(server.unprotect(Purpose::Service, hex("c800")), Err(ProtectionError::Ciphered { tag: 0xc8 }));
    assert!(!server.is_authenticated());
}

// Negative control: do not remember counters.
#[test]
fn nothing_is_accepted_twice_not_even_in_another_association() {
    let (mut client, mut server) = usual();
    let first = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    let second = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, second.clone()), Ok(hex(REQUEST)));
    let replayed = |counter| Err(ProtectionError::Replayed { counter, expected: 4 });
    assert_eq!(server.unprotect(Purpose::Service, first), replayed(2));
    assert_eq!(server.unprotect(Purpose::Service, second.clone()), replayed(3));
    server.end();
    server.begin(true, Level::NONE).unwrap();
    server.meet(Some(&CLIENT.0)).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, second.clone()), replayed(3));
    // Nor by a server that was started anew and told what the old one knew.
    let kept = server.received().clone();
    let mut next = Ciphered::server(config(SERVER), Counter::reserved(2_000, 3_000), kept).unwrap();
    next.begin(true, Level::NONE).unwrap();
    next.meet(Some(&CLIENT.0)).unwrap();
    assert_eq!(next.unprotect(Purpose::Service, second), replayed(3));
    assert_eq!(next.received().greatest(KeySet::GlobalUnicast, CLIENT), Some(3));
}

#[test]
fn a_forged_apdu_with_a_great_counter_shuts_nobody_out() {
    let (mut client, mut server) = usual();
    let mut forged = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    forged[3..7].fill(0xff);
    assert_eq!(server.unprotect(Purpose::Service, forged), Err(ProtectionError::Forged));
    let request = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, request), Ok(hex(REQUEST)));
}

#[test]
fn what_nothing_authenticates_is_remembered_no_longer_than_the_association() {
    let weak = |title| CipheredConfig { level: Level::ENCRYPTED, minimum: Level::ENCRYPTED, ..config(title) };
    let (mut client, mut server) = pair(weak(CLIENT), weak(SERVER));
    let request = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, request.clone()), Ok(hex(REQUEST)));
    assert!(matches!(server.unprotect(Purpose::Service, request), Err(ProtectionError::Replayed { .. })));
    assert_eq!(server.received(), &ReceivedCounters::default());
    assert!(!server.is_authenticated());
}

#[test]
fn who_sends_is_who_was_met() {
    let stranger = SystemTitle(*b"XXX\x00\x00\x00\x00\x01");
    let general = CipheredConfig { wrapping: Wrapping::General, ..config(CLIENT) };
    let (mut client, mut server) = pair(general, config(SERVER));
    let mut request = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    request[2..10].copy_from_slice(&stranger.0);
    let other = ProtectionError::Title { expected: CLIENT, found: stranger };
    assert_eq!(server.unprotect(Purpose::Service, request.clone()), Err(other.clone()));
    request.splice(1..10, [0]);
    assert_eq!(server.unprotect(Purpose::Service, request), Err(ProtectionError::NoTitle));
    // Our own title: what we sent is sent back to us.
    assert_eq!(server.meet(Some(&SERVER.0)), Err(ProtectionError::OwnTitle));
    assert_eq!(server.meet(Some(b"short")), Err(ProtectionError::NoTitle));
    let mut choosy = super::tests::server(CipheredConfig { peer: Some(CLIENT), ..config(SERVER) });
    choosy.begin(true, Level::NONE).unwrap();
    assert_eq!(choosy.meet(Some(&stranger.0)), Err(other));
    assert_eq!(choosy.meet(None), Ok(()));
    let mut open = super::tests::server(config(SERVER));
    open.begin(true, Level::NONE).unwrap();
    assert_eq!((open.meet(None), open.meet(Some(&[]))), (Err(ProtectionError::NoTitle), Err(ProtectionError::NoTitle)));
    open.begin(false, Level::NONE).unwrap();
    assert_eq!((open.meet(None), open.meet(Some(&[]))), (Ok(()), Ok(())));
}

#[test]
fn an_empty_title_is_taken_where_it_is_known_that_the_meter_sends_it_so() {
    let quirks = SecurityQuirks { empty_title: true, ..SecurityQuirks::NONE };
    let general = CipheredConfig { wrapping: Wrapping::General, ..config(SERVER) };
    let mut meter = client(general);
    meter.begin(true, Level::NONE).unwrap();
    meter.agreed(Conformance::GENERAL_PROTECTION);
    let mut answer = meter.protect(Purpose::Service, hex(RESPONSE)).unwrap();
    answer.splice(1..10, [0]);
    for (quirks, expected) in [(quirks, Ok(hex(RESPONSE))), (SecurityQuirks::NONE, Err(ProtectionError::NoTitle))] {
        let mut reader = client(CipheredConfig { quirks, peer: Some(SERVER), ..config(CLIENT) });
        reader.begin(true, Level::NONE).unwrap();
        assert_eq!(reader.unprotect(Purpose::Service, answer.clone()), expected);
    }
}

#[test]
fn a_tag_that_is_not_verified_authenticates_nothing() {
    let quirks = SecurityQuirks { unverified: true, ..SecurityQuirks::NONE };
    let blind_keys = Keys { authentication: None, ..keys(SecuritySuite::Suite0) };
    let blind = CipheredConfig { quirks, minimum: Level::ENCRYPTED, keys: blind_keys, ..config(SERVER) };
    let (mut client, _) = usual();
    let mut request = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    *request.last_mut().unwrap() ^= 1;
    let mut receiver = server(blind.clone());
    receiver.begin(true, Level::NONE).unwrap();
    receiver.meet(Some(&CLIENT.0)).unwrap();
    assert_eq!(receiver.unprotect(Purpose::Service, request.clone()), Ok(hex(REQUEST)));
    assert!(!receiver.is_authenticated());
    let mut strict = server(CipheredConfig { minimum: Level::AUTHENTICATED, ..blind });
    strict.begin(true, Level::NONE).unwrap();
    strict.meet(Some(&CLIENT.0)).unwrap();
    let weak = ProtectionError::Weak { found: Level::ENCRYPTED, required: Level::AUTHENTICATED };
    assert_eq!(strict.unprotect(Purpose::Service, request), Err(weak));
}

#[test]
fn another_suite_than_the_keys_are_for_is_refused_unless_the_meter_is_known_for_it() {
    let announced = CipheredConfig { suite: SecuritySuite::Suite1, ..config(CLIENT) };
    let mut meter = client(announced);
    meter.begin(true, Level::NONE).unwrap();
    let answer = meter.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(answer[2], 0x31);
    let quirks = SecurityQuirks { any_suite: true, ..SecurityQuirks::NONE };
    for (quirks, expected) in
        [(quirks, Ok(hex(REQUEST))), (SecurityQuirks::NONE, Err(ProtectionError::Suite { id: 1 }))]
    {
        let mut receiver = server(CipheredConfig { quirks, ..config(SERVER) });
        receiver.begin(true, Level::NONE).unwrap();
        receiver.meet(Some(&CLIENT.0)).unwrap();
        assert_eq!(receiver.unprotect(Purpose::Service, answer.clone()), expected);
    }
}

#[test]
fn keys_of_another_length_and_a_dedicated_key_in_clear_are_refused() {
    let long = CipheredConfig { suite: SecuritySuite::Suite2, ..config(CLIENT) };
    let refused = Ciphered::client(long, Counter::reserved(0, 1), ReceivedCounters::default()).unwrap_err();
    assert_eq!(refused, ProtectionError::KeyLength { bits: 128, expected: 256 });
    let in_clear = CipheredConfig { level: Level::AUTHENTICATED, dedicated: Some([9; 16].into()), ..config(CLIENT) };
    let refused = Ciphered::client(in_clear, Counter::reserved(0, 1), ReceivedCounters::default()).unwrap_err();
    assert_eq!(refused, ProtectionError::Weak { found: Level::AUTHENTICATED, required: Level::ENCRYPTED });
    let authenticated =
        |title| CipheredConfig { level: Level::AUTHENTICATED, minimum: Level::AUTHENTICATED, ..config(title) };
    let (_, mut server) = pair(authenticated(CLIENT), authenticated(SERVER));
    assert!(matches!(server.agree_on_key(&[9; 16]), Err(ProtectionError::Weak { .. })));
    let (_, mut server) = usual();
    for wrong in [0, 15, 32] {
        assert!(matches!(server.agree_on_key(&vec![9; wrong]), Err(ProtectionError::KeyLength { .. })));
    }
}

#[test]
fn the_apdu_inside_is_the_one_that_the_wrapper_names() {
    let (mut client, mut server) = usual();
    let mut other = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    other[0] = 0xcb;
    let mismatch = |outer, inner| Err(ProtectionError::Mismatch { outer, inner });
    assert_eq!(server.unprotect(Purpose::Service, other), mismatch(0xcb, 0xc0));
    let nested = client.protect(Purpose::Service, hex("dbaa")).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, nested), mismatch(0xdb, 0xdb));
}

#[test]
fn what_is_not_supported_says_so() {
    let (_, mut server) = usual();
    let error = |apdu: &str, server: &mut Ciphered| server.unprotect(Purpose::Service, hex(apdu)).unwrap_err();
    assert_eq!(error("c8 05 b0 00000001", &mut server), ProtectionError::Compressed);
    assert_eq!(error("c8 05 33 00000001", &mut server), ProtectionError::Suite { id: 3 });
    assert_eq!(error("df", &mut server), ProtectionError::Signed);
}

#[test]
fn a_proof_may_share_the_counter_of_its_apdu_only_where_the_meter_wants_it() {
    for (proof_shares_counter, next) in [(false, 3), (true, 2)] {
        let quirks = SecurityQuirks { proof_shares_counter, ..SecurityQuirks::NONE };
        let (mut client, _) = pair(CipheredConfig { quirks, ..config(CLIENT) }, config(SERVER));
        assert_eq!(client.prove(b"P6wRJ21F").unwrap()[..5], [0x10, 0, 0, 0, 2]);
        assert_eq!(client.protect(Purpose::Proof, hex("c3014100")).unwrap()[3..7], [0, 0, 0, next]);
    }
}

#[test]
fn nothing_that_is_printed_shows_a_key() {
    let dedicated = CipheredConfig { dedicated: Some([0xa7; 16].into()), ..config(CLIENT) };
    let (client, server) = pair(dedicated, config(SERVER));
    // 0xa7 and the first octets of the global keys, as they would be shown.
    for text in [format!("{client:?}"), format!("{server:#?}")] {
        for shown in ["167", "a7", "A7", "208, 209", "d0, d1", "d0d1", "64, 65", "0, 1, 2"] {
            assert!(!text.contains(shown), "{shown} in {text}");
        }
        assert!(text.contains("Key(128 bits)"));
    }
}

#[test]
fn new_keys_are_those_of_the_next_association_and_counters_begin_anew_with_them() {
    let (mut client, mut server) = usual();
    let new = Keys { unicast: Some(Key::from([0x77; 16])), ..keys(SecuritySuite::Suite0) };
    server.renew(new.clone()).unwrap();
    assert!(matches!(server.renew(keys(SecuritySuite::Suite2)), Err(ProtectionError::KeyLength { .. })));
    // Whoever has sent them is answered under the old ones.
    let asked = client.protect(Purpose::Service, hex(REQUEST)).unwrap();
    assert_eq!(server.unprotect(Purpose::Service, asked.clone()), Ok(hex(REQUEST)));
    let mut client = super::tests::client(CipheredConfig { keys: new, ..config(CLIENT) });
    associate(&mut client, &mut server);
    assert_eq!(server.received().greatest(KeySet::GlobalUnicast, CLIENT), Some(1));
    let old = server.unprotect(Purpose::Service, asked.clone());
    assert_eq!(old, Err(ProtectionError::Forged));
    // With another authentication key alone, no counter is taken twice.
    let other = Keys { authentication: Some(Key::from([0x78; 16])), ..server.config.keys.clone() };
    server.renew(other).unwrap();
    server.begin(true, Level::NONE).unwrap();
    assert_eq!(server.received().greatest(KeySet::GlobalUnicast, CLIENT), Some(1));
}

fn wrappings() -> impl Strategy<Value = Wrapping> {
    prop_oneof![Just(Wrapping::Service), Just(Wrapping::General)]
}

fn suites() -> impl Strategy<Value = SecuritySuite> {
    prop_oneof![Just(SecuritySuite::Suite0), Just(SecuritySuite::Suite1), Just(SecuritySuite::Suite2)]
}

/// Any suite, level, key set and wrapper; both sides the same.
fn sides() -> impl Strategy<Value = (Ciphered, Ciphered, bool)> {
    (suites(), any::<(bool, bool)>(), any::<(bool, bool)>(), wrappings()).prop_map(
        |(suite, (authenticated, encrypted), (broadcast, dedicated), wrapping)| {
            let level = Level { authenticated, encrypted };
            let own_key = Key::from_octets(&vec![9; suite.key_bits() / 8]).unwrap();
            let config = |title| CipheredConfig {
                suite,
                keys: keys(suite),
                level,
                minimum: level,
                broadcast: broadcast && !dedicated,
                dedicated: (dedicated && encrypted).then(|| own_key.clone()),
                wrapping,
                ..CipheredConfig::new(Keys::default(), title)
            };
            let (client, server) = pair(config(CLIENT), config(SERVER));
            (client, server, authenticated)
        },
    )
}

fn apdus() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::sample::select(vec![0xc0, 0xc1, 0xc3, 0xc4, 0xc5, 0xc7, 0xc2, 0x0f, 0xd9]),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(|(tag, rest)| [&[tag], &rest[..]].concat())
}

proptest! {
    #[test]
    fn every_apdu_comes_back_under_every_protection((mut client, mut server, authenticated) in sides(), apdus in prop::collection::vec(apdus(), 1..5)) {
        for apdu in apdus {
            let protected = client.protect(Purpose::Service, apdu.clone()).unwrap();
            prop_assert!(protected.len() <= apdu.len() + Wrapper::General(Scope::Global).overhead());
            prop_assert_eq!(server.unprotect(Purpose::Service, protected), Ok(apdu.clone()));
            let answer = server.protect(Purpose::Service, apdu.clone()).unwrap();
            prop_assert_eq!(client.unprotect(Purpose::Service, answer), Ok(apdu));
        }
        prop_assert_eq!((client.is_authenticated(), server.is_authenticated()), (authenticated, authenticated));
    }

    // Negative control: pass over a wrong tag.
    #[test]
    fn one_flipped_bit_anywhere_is_refused((mut client, mut server, authenticated) in sides(), apdu in apdus()) {
        let protected = client.protect(Purpose::Service, apdu).unwrap();
        for bit in 0..protected.len() * 8 {
            let mut flipped = protected.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let result = server.unprotect(Purpose::Service, flipped);
            prop_assert!(!authenticated || result.is_err(), "bit {}", bit);
        }
    }

    #[test]
    fn no_octets_panic((mut client, mut server, _) in sides(), mut apdu in prop::collection::vec(any::<u8>(), 1..80), tag in prop::sample::select(vec![0x21, 0x28, 0xc8, 0xcc, 0xd0, 0xdb, 0xdc, 0xdd, 0xdf])) {
        apdu[0] = tag;
        drop((client.unprotect(Purpose::Service, apdu.clone()), server.unprotect(Purpose::Initiate, apdu)));
    }
}
