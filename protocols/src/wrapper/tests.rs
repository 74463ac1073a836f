use proptest::prelude::*;

use super::*;
use crate::hdlc::pair::{Exchange, Faults, Pair, Random};

fn config() -> WrapperConfig {
    WrapperConfig { response_timeout_ms: 1_000, ..WrapperConfig::new(16, 1) }
}

fn wpdu(source: u16, destination: u16, apdu: &[u8]) -> Vec<u8> {
    let mut out = vec![0xa5; 2];
    Wpdu { source, destination, apdu }.encode(&mut out).unwrap();
    out.split_off(2)
}

fn client() -> WrapperClient {
    let mut client = WrapperClient::new(config());
    client.connect(Duration::ZERO);
    assert_eq!(client.poll(), LinkOutput::Connected);
    client
}

fn server() -> WrapperServer {
    let mut server = WrapperServer::new(config());
    server.connect(Duration::ZERO);
    assert_eq!(server.poll(), LinkOutput::Connected);
    server
}

fn receive(link: &mut impl Link, octets: &[u8]) -> Result<(), LinkError> {
    link.handle(Duration::ZERO, LinkInput::Received(octets))
}

/// The outputs until the link waits.
fn drain(link: &mut impl Link) -> Vec<LinkOutput> {
    std::iter::from_fn(|| match link.poll() {
        LinkOutput::WaitUntil(_) => None,
        output => Some(output),
    })
    .collect()
}

#[test]
fn the_header_has_four_fields_of_two_octets() {
    assert_eq!(wpdu(16, 1, &[0xc0, 1]), [0, 1, 0, 16, 0, 1, 0, 2, 0xc0, 1]);
    let mut client = client();
    client.send(Duration::ZERO, &[0xc0]).unwrap();
    assert_eq!(client.poll(), LinkOutput::Send(vec![0, 1, 0, 16, 0, 1, 0, 1, 0xc0]));
    assert_eq!(client.poll(), LinkOutput::WaitUntil(Some(Duration::from_secs(1))));
}

#[test]
fn an_apdu_longer_than_the_length_field_is_refused() {
    let mut client = client();
    assert_eq!(client.send(Duration::ZERO, &vec![0; 65_536]), Err(LinkError::TooLong { limit: 65_535 }));
    assert!(drain(&mut client).is_empty());
    client.send(Duration::ZERO, &vec![0; 65_535]).unwrap();
}

// Negative control: drop the rest of the read after the first WPDU in `Stream::read`.
#[test]
fn several_wpdus_may_come_in_one_read() {
    let mut client = client();
    let read = [wpdu(1, 16, &[0x0f, 1]), wpdu(1, 16, &[0xc4]), wpdu(1, 16, &[0x0f, 2])[..5].to_vec()].concat();
    receive(&mut client, &read).unwrap();
    assert_eq!(drain(&mut client), [LinkOutput::Apdu(vec![0x0f, 1]), LinkOutput::Apdu(vec![0xc4])]);
    receive(&mut client, &wpdu(1, 16, &[0x0f, 2])[5..]).unwrap();
    assert_eq!(drain(&mut client), [LinkOutput::Apdu(vec![0x0f, 2])]);
}

#[test]
fn a_wpdu_may_come_octet_by_octet() {
    let mut server = server();
    let (last, before) =
        [wpdu(16, 1, &[0xc0]), wpdu(16, 1, &[])].concat().split_last().map(|(l, b)| (*l, b.to_vec())).unwrap();
    let mut apdus = 0;
    for octet in before {
        receive(&mut server, &[octet]).unwrap();
        apdus += drain(&mut server).len();
    }
    assert_eq!(apdus, 1);
    receive(&mut server, &[last]).unwrap();
    assert_eq!(drain(&mut server), [LinkOutput::Apdu(vec![])]);
}

#[test]
fn another_version_is_a_violation_at_its_second_octet() {
    for version in [[0, 2], [1, 0], [0x7e, 0xa0]] {
        let mut client = client();
        assert_eq!(receive(&mut client, &version), Err(LinkError::Violation("not wrapper version 1")));
        assert_eq!(client.send(Duration::ZERO, &[0xc0]), Err(LinkError::NotReady));
        assert_eq!(drain(&mut client), []);
        assert_eq!(receive(&mut client, &wpdu(1, 16, &[0xc4])), Ok(()));
        assert_eq!(drain(&mut client), []);
    }
}

// Negative control: look at the destination only.
#[test]
fn wpdus_between_other_ports_are_skipped() {
    let mut client = client();
    client.send(Duration::ZERO, &[0xc0]).unwrap();
    drain(&mut client);
    receive(&mut client, &[wpdu(1, 17, &[1]), wpdu(2, 16, &[2]), wpdu(16, 1, &[3])].concat()).unwrap();
    assert_eq!(client.poll(), LinkOutput::WaitUntil(Some(Duration::from_secs(1))));
    receive(&mut client, &wpdu(1, 16, &[4])).unwrap();
    assert_eq!(drain(&mut client), [LinkOutput::Apdu(vec![4])]);

    let mut server = server();
    receive(&mut server, &[wpdu(16, 2, &[1]), wpdu(16, ALL_STATION, &[2])].concat()).unwrap();
    assert_eq!(drain(&mut server), [LinkOutput::Apdu(vec![2])]);
}

// Negative control: compare with the limit only when the APDU is there.
#[test]
fn a_length_beyond_the_limit_is_refused_before_anything_is_kept() {
    let mut server = WrapperServer::new(WrapperConfig { apdu_octets_max: 1_000, ..config() });
    server.connect(Duration::ZERO);
    assert_eq!(receive(&mut server, &[0, 1, 0, 16, 0, 1, 0x03, 0xe9]), Err(LinkError::TooLong { limit: 1_000 }));
}

// Negative control: leave out `is_unsolicited` in the client.
#[test]
fn a_notification_does_not_answer_the_request() {
    let mut client = client();
    client.send(Duration::ZERO, &[0xc0]).unwrap();
    assert_eq!(client.send(Duration::ZERO, &[0xc0]), Err(LinkError::NotReady));
    receive(&mut client, &wpdu(1, 16, &[0x0f])).unwrap();
    assert_eq!(client.send(Duration::ZERO, &[0xc0]), Err(LinkError::NotReady));
    let error = client.handle(Duration::from_secs(1), LinkInput::Tick);
    assert_eq!(error, Err(LinkError::Silent { attempts: 1, timeout_ms: 1_000 }));
}

// Negative control: leave out the extension of the deadline in `handle`.
#[test]
fn an_answer_that_is_on_its_way_is_waited_for() {
    let mut client = client();
    client.send(Duration::ZERO, &[0xc0]).unwrap();
    drain(&mut client);
    let answer = wpdu(1, 16, &[0xc4; 60]);
    for (index, part) in answer.chunks(10).enumerate() {
        client.handle(Duration::from_millis(900 * index as u64), LinkInput::Received(part)).unwrap();
    }
    assert_eq!(drain(&mut client), [LinkOutput::Apdu(vec![0xc4; 60])]);
    assert_eq!(client.poll(), LinkOutput::WaitUntil(None));
}

#[test]
fn answers_go_to_the_client_that_asked_and_another_one_begins_anew() {
    let mut server = server();
    receive(&mut server, &wpdu(16, 1, &[0x60])).unwrap();
    assert_eq!(drain(&mut server), [LinkOutput::Apdu(vec![0x60])]);
    server.send(Duration::ZERO, &[0x61]).unwrap();
    assert_eq!(drain(&mut server), [LinkOutput::Send(wpdu(1, 16, &[0x61]))]);
    receive(&mut server, &wpdu(32, 1, &[0x60])).unwrap();
    assert_eq!(drain(&mut server), [LinkOutput::Disconnected, LinkOutput::Connected, LinkOutput::Apdu(vec![0x60])]);
    assert_eq!(server.client_wport(), Some(32));
    server.send(Duration::ZERO, &[0x61]).unwrap();
    assert_eq!(drain(&mut server), [LinkOutput::Send(wpdu(1, 32, &[0x61]))]);
}

#[test]
fn a_connection_that_fell_silent_is_dropped() {
    let mut server = server();
    let late = Duration::from_secs(100);
    server.handle(late, LinkInput::Received(&wpdu(16, 1, &[0xc0]))).unwrap();
    assert_eq!(drain(&mut server).len(), 1);
    server.handle(Duration::from_secs(279), LinkInput::Tick).unwrap();
    assert_eq!(server.poll(), LinkOutput::WaitUntil(Some(Duration::from_secs(280))));
    server.handle(Duration::from_secs(280), LinkInput::Tick).unwrap();
    assert_eq!(drain(&mut server), [LinkOutput::Disconnected]);
    assert_eq!(server.send(late, &[0xc4]), Err(LinkError::NotReady));
}

// TCP delays and cuts, but loses nothing.
#[test]
fn client_and_server_exchange_apdus_of_every_size() {
    // Four kilooctets in such pieces take two seconds each way.
    let patient = WrapperConfig { response_timeout_ms: 5_000, ..config() };
    for seed in 0..1_000 {
        let mut random = Random::seeded(seed);
        let exchange = Exchange::random(3, if random.chance(100) { 4096 } else { 300 }, &mut random);
        let faults = Faults { latency_ms: 20, is_fragmented: true, ..Faults::default() };
        let mut pair = Pair::new(WrapperClient::new(patient.clone()), WrapperServer::new(config()), faults, seed);
        let outcome = pair.run(&exchange);
        assert_eq!((outcome.answered, outcome.error), (3, None), "seed {seed}");
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let mut exchange = Exchange::random(1, 50, &mut Random::seeded(1));
    exchange.think_ms = 5_000;
    let mut pair = Pair::new(WrapperClient::new(config()), WrapperServer::new(config()), Faults::default(), 1);
    assert_eq!(pair.run(&exchange).error, Some(LinkError::Silent { attempts: 1, timeout_ms: 1_000 }));
}

proptest! {
    #[test]
    fn wpdus_round_trip(source: u16, destination: u16, apdu in prop::collection::vec(any::<u8>(), 0..3000)) {
        let octets = wpdu(source, destination, &apdu);
        let expected = Wpdu { source, destination, apdu: &apdu };
        prop_assert_eq!(scan(&octets, 3000), Scan::Wpdu { wpdu: expected, used: octets.len() });
        for end in [0, 1, 7, octets.len() - 1] {
            prop_assert_eq!(scan(&octets[..end], 3000), Scan::NeedMore);
        }
    }

    #[test]
    fn no_octets_panic(octets in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..2], 0..40), limit: usize) {
        if let Scan::Wpdu { used, .. } = scan(&octets, limit) {
            prop_assert!(used <= octets.len());
        }
    }
}
