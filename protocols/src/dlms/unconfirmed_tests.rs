//! Requests that nobody answers, and associations that nobody asked for.

use std::time::Duration;

use super::apdu::{CosemAttribute, tag};
use super::client::{
    Assignment, ClientConfig, ClientError, ClientEvent, ClientSession, Invocation, PreEstablished, Referencing,
    RequestError, Selected,
};
use super::conformance::Conformance;
use super::pair::{APDU, CLOCK, DummyLink, ECHO, ENERGY, MISSING, PRIVATE, PROFILE, Pair, RESET, profile};
use super::security::{
    Ciphered, CipheredConfig, Counter, Key, Keys, Level, ProtectionError, ReceivedCounters, SystemTitle,
};
use super::server::{ClientRole, ObjectServer, PreEstablishedClient, ServerConfig, ServerConnection, ServerSession};
use crate::hdlc::{ClientAddress, HdlcAddress, HdlcClient, HdlcConfig, HdlcServer};
use crate::link::Link;
use crate::wrapper::{WrapperClient, WrapperConfig, WrapperServer};

const BOTH: [Referencing; 2] = [Referencing::LogicalNames, Referencing::ShortNames];

fn client(referencing: Referencing) -> ClientConfig {
    ClientConfig { proposed: ClientConfig::PROPOSED_WITH_COMMANDS, referencing, ..ClientConfig::default() }
}

fn server(referencing: Referencing) -> ServerConfig {
    let conformance = ServerConfig::CONFORMANCE_WITH_COMMANDS;
    ServerConfig { conformance, referencing, ..ServerConfig::default() }
}

fn assignment(target: CosemAttribute, value: &[u8]) -> Assignment {
    Assignment { target: Selected::whole(target), value: value.to_vec() }
}

fn sent<C: Link, S: Link>(pair: &Pair<C, S>) -> Vec<Result<(), RequestError>> {
    let sent = pair.events.iter().filter_map(|event| match event {
        ClientEvent::Sent { result, .. } => Some(result.clone()),
        _ => None,
    });
    sent.collect()
}

/// Negative control: answer them all the same, and the value that is read afterwards is another's.
fn unanswered_over<C: Link, S: Link>(client_link: C, server_link: S, referencing: Referencing) {
    let mut pair = Pair::new(
        ClientSession::new(client_link, client(referencing)),
        ServerConnection::new(server_link, ServerSession::new(server(referencing))),
    );
    pair.client.set_unconfirmed(pair.now, assignment(CLOCK, &[0x11, 1])).unwrap();
    pair.client.set_unconfirmed(pair.now, assignment(ENERGY, &[0x11, 2])).unwrap();
    pair.client.invoke_unconfirmed(pair.now, Invocation { method: RESET, parameters: None }).unwrap();
    let echo = Invocation { method: ECHO, parameters: Some(vec![0x11, 3]) };
    pair.client.invoke_unconfirmed(pair.now, echo).unwrap();
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.client.set_unconfirmed(pair.now, assignment(CLOCK, &[0x11, 4])).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!((&pair.result, pair.events.last()), (&Ok(()), Some(&ClientEvent::Released)), "{referencing:?}");
    assert_eq!(sent(&pair), vec![Ok(()); 5], "{referencing:?}");
    let written: Vec<_> = pair.objects.written.iter().map(|(target, _, value)| (*target, value[1])).collect();
    assert_eq!(written, [(CLOCK, 1), (ENERGY, 2), (CLOCK, 4)], "{referencing:?}");
    assert_eq!(pair.objects.invoked, [(RESET, None), (ECHO, Some(vec![0x11, 3]))], "{referencing:?}");
    let values: Vec<_> = pair.events.iter().filter(|event| matches!(event, ClientEvent::Value { .. })).collect();
    assert!(matches!(values[..], [ClientEvent::Value { value, .. }] if value.data.len() == 5), "{values:?}");
    assert!(!pair.events.iter().any(|event| matches!(event, ClientEvent::Ignored(_))), "{:?}", pair.events);
    assert!(pair.now < Duration::from_secs(1_002), "something was waited for");
}

#[test]
fn unconfirmed_requests_are_carried_out_and_not_answered() {
    for referencing in BOTH {
        unanswered_over(DummyLink::default(), DummyLink::default(), referencing);
        let config = || WrapperConfig::new(16, 1);
        unanswered_over(WrapperClient::new(config()), WrapperServer::new(config()), referencing);
        let config = || HdlcConfig::new(ClientAddress::PUBLIC, HdlcAddress::two(1, 17).unwrap());
        unanswered_over(HdlcClient::new(config()), HdlcServer::new(config()), referencing);
    }
}

#[test]
fn what_cannot_be_sent_so_is_said() {
    for referencing in BOTH {
        let small = ServerConfig { max_receive_pdu_size: 64, ..server(referencing) };
        let mut pair = Pair::new(
            ClientSession::new(DummyLink::default(), client(referencing)),
            ServerConnection::new(DummyLink::default(), ServerSession::new(small)),
        );
        let long = [&[0x09, 100][..], &[0; 100]].concat();
        pair.client.set_unconfirmed(pair.now, assignment(CLOCK, &long)).unwrap();
        pair.client.set_unconfirmed(pair.now, assignment(MISSING, &[0x11, 1])).unwrap();
        pair.run();
        let results = sent(&pair);
        assert!(matches!(results[0], Err(RequestError::RequestTooLong { limit: 64, .. })), "{results:?}");
        // A logical name leaves all the same.
        assert_eq!(results[1].is_ok(), referencing == Referencing::LogicalNames, "{results:?}");
        assert!(pair.objects.written.is_empty());
        let mut reading = Pair::new(
            ClientSession::new(DummyLink::default(), ClientConfig { referencing, ..ClientConfig::default() }),
            ServerConnection::new(DummyLink::default(), ServerSession::new(server(referencing))),
        );
        reading.client.set_unconfirmed(reading.now, assignment(CLOCK, &[0x11, 1])).unwrap();
        reading.run();
        let missing =
            if referencing == Referencing::ShortNames { Conformance::UNCONFIRMED_WRITE } else { Conformance::SET };
        assert_eq!(sent(&reading), [Err(RequestError::NotNegotiated(missing))]);
    }
}

fn known(referencing: Referencing) -> (ClientConfig, ServerConfig) {
    let client = ClientConfig { pre_established: Some(PreEstablished::default()), ..client(referencing) };
    let known = PreEstablishedClient {
        role: ClientRole::Reader,
        minimum: Level::AUTHENTICATED_ENCRYPTED,
        max_receive_pdu_size: 500,
    };
    (client, ServerConfig { pre_established: Some(known), ..server(referencing) })
}

// Negative control: send an AARQ all the same.
#[test]
fn a_pre_established_association_is_neither_asked_for_nor_released() {
    for referencing in BOTH {
        let (client, server) = known(referencing);
        let mut pair = Pair::new(
            ClientSession::new(DummyLink::default(), client),
            ServerConnection::new(DummyLink::default(), ServerSession::new(server)),
        );
        pair.fault = Box::new(|message| {
            assert!(!matches!(message.get(1), Some(0x60..=0x63)), "{message:02x?}");
            true
        });
        for attribute in [ENERGY, PRIVATE, PROFILE] {
            pair.client.get(pair.now, attribute, None).unwrap();
        }
        pair.client.set(pair.now, CLOCK, vec![0x11, 1]).unwrap();
        pair.client.release(pair.now).unwrap();
        pair.run();
        assert_eq!((&pair.result, pair.events.last()), (&Ok(()), Some(&ClientEvent::Released)), "{referencing:?}");
        let values: Vec<_> = pair
            .events
            .iter()
            .filter_map(|event| match event {
                ClientEvent::Value { value, .. } => Some(&value.data[..]),
                _ => None,
            })
            .collect();
        assert!(values == [&[0x06, 0x00, 0xbc, 0x61, 0x4e][..], &[0x11, 0x2a], &profile()], "{referencing:?}");
        assert_eq!(pair.objects.written.len(), 1, "{referencing:?}");
    }
}

#[test]
fn a_pre_established_association_is_ciphered_where_there_are_keys() {
    let titles = [SystemTitle(*b"MMM\x00\x00\x00\x00\x01"), SystemTitle(*b"MMM\x00\x00\xbcaN")];
    let config = |ours: usize, theirs: Option<usize>| {
        let keys = Keys::new(Key::from([0x11; 16]), Key::from([0x22; 16]));
        CipheredConfig { peer: theirs.map(|theirs| titles[theirs]), ..CipheredConfig::new(keys, titles[ours]) }
    };
    for referencing in BOTH {
        for peer in [Some(1), None] {
            let (client, server) = known(referencing);
            let ours = Ciphered::client(config(0, peer), Counter::reserved(1, 1_000), ReceivedCounters::default());
            let theirs = Ciphered::server(config(1, Some(0)), Counter::reserved(1, 1_000), ReceivedCounters::default());
            let mut client = ClientSession::with_protection(DummyLink::default(), client, ours.unwrap());
            if peer.is_none() {
                // Nobody tells whose answers are to be believed.
                let refused = client.associate(Duration::ZERO);
                assert_eq!(refused, Err(ClientError::Protection(ProtectionError::NoTitle)));
                continue;
            }
            let session = ServerSession::with_protection(server, theirs.unwrap());
            let server = ServerConnection::new(DummyLink::default(), session);
            let mut pair: Pair<DummyLink, DummyLink, Ciphered> = Pair::new(client, server);
            pair.fault = Box::new(|message| {
                let plain = [tag::GET_REQUEST, tag::GET_RESPONSE, tag::READ_REQUEST, tag::READ_RESPONSE];
                assert!(!matches!(message[..], [APDU, tag, ..] if plain.contains(&tag)), "{message:02x?}");
                true
            });
            pair.client.get(pair.now, ENERGY, None).unwrap();
            pair.client.release(pair.now).unwrap();
            pair.run();
            assert_eq!(pair.result, Ok(()), "{referencing:?}");
            let read = pair
                .events
                .iter()
                .any(|event| matches!(event, ClientEvent::Value { value, .. } if value.data.len() == 5));
            assert!(read, "{referencing:?}: {:?}", pair.events);
        }
    }
}

#[test]
fn an_association_that_is_asked_for_takes_the_place_of_the_other_until_it_ends() {
    let (_, server) = known(Referencing::LogicalNames);
    let mut session = ServerSession::new(ServerConfig { public_client: false, ..server });
    assert_eq!(session.client(), Some(ClientRole::Reader));
    let mut objects = super::pair::Objects::default();
    // Who is refused is who he was.
    let refused = session.answer(&[0x60, 0x00], &mut objects);
    assert!(refused.is_some_and(|aare| aare[0] == 0x61));
    assert_eq!(session.client(), Some(ClientRole::Reader));
    session.reset();
    assert_eq!(session.client(), Some(ClientRole::Reader));
}

/// Control, seen to fail: let the next request answer for it.
#[test]
fn an_exception_after_an_unconfirmed_write_shifts_no_answer() {
    let mut pair = Pair::new(
        ClientSession::new(DummyLink::default(), client(Referencing::ShortNames)),
        ServerConnection::new(DummyLink::default(), ServerSession::new(server(Referencing::ShortNames))),
    );
    let mut was_written = false;
    pair.fault = Box::new(move |message| {
        was_written |= message.get(1) == Some(&tag::UNCONFIRMED_WRITE_REQUEST);
        if was_written && message.get(1) == Some(&tag::READ_RESPONSE) {
            // The meter does not know the service, and says so; its answer to what came next follows.
            *message = vec![APDU, tag::EXCEPTION_RESPONSE, 1, 2];
        }
        true
    });
    pair.client.set_unconfirmed(pair.now, assignment(CLOCK, &[0x11, 1])).unwrap();
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.client.get(pair.now, PRIVATE, None).unwrap();
    pair.run();
    assert!(matches!(pair.result, Err(ClientError::AssociationException(_))), "{:?} {:?}", pair.result, pair.events);
}

/// Control, seen to fail: take the first block of another request for a repetition.
#[test]
fn a_write_that_was_given_up_has_no_part_in_the_next() {
    let (_, config) = known(Referencing::ShortNames);
    let mut session = ServerSession::new(config);
    let mut objects = super::pair::Objects::default();
    let name = objects.short_names().attribute(CLOCK).unwrap().to_be_bytes();
    let written = |value: u8| [&[1, 2][..], &name, &[1, 9, 2, value, value]].concat();
    let block = |last: bool, number: u8, data: &[u8]| {
        [&[0x06, 1, 7, u8::from(last), 0, number, 1, 9, data.len() as u8][..], data].concat()
    };
    let (given_up, wanted) = (written(0xaa), written(0xbb));
    session.answer(&block(false, 1, &given_up[..7]), &mut objects);
    session.answer(&block(false, 1, &wanted[..6]), &mut objects);
    session.answer(&block(true, 2, &wanted[6..]), &mut objects);
    let values: Vec<_> = objects.written.iter().map(|(_, _, value)| value.clone()).collect();
    assert_eq!(values, [vec![9, 2, 0xbb, 0xbb]]);
}
