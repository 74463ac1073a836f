//! ACCESS and notifications between client and server, and against meters that do not keep to the rules.

use super::acse::Password;
use super::apdu::{
    AccessResponse, AccessResult, ActionResult, DataAccessResult, ExceptionResponse, ExceptionService, ExceptionState,
    LongInvokeId, tag,
};
use super::client::{
    Accessing, Assignment, Authentication, ClientConfig, ClientError, ClientEvent, ClientSession, Ignored, Invocation,
    Invoked, RequestError, Selected, Value,
};
use super::conformance::Conformance;
use super::notification::{decode_event_notification, encode_event_notification};
use super::pair::{CLOCK, DummyLink, ECHO, ENERGY, MISSING, PRIVATE, PROFILE, Pair, RESET, SERIAL};
use super::security::{
    Ciphered, CipheredConfig, Counter, Key, Keys, Plain, Protection, ReceivedCounters, SystemTitle, Wrapping,
};
use super::server::{ServerConfig, ServerConnection, ServerSession};
use super::value::DataValue;

type DummyPair<P> = Pair<DummyLink, DummyLink, P>;

fn pair<P: Protection>(conformance: Conformance, server_takes: u16, [ours, theirs]: [P; 2]) -> DummyPair<P> {
    let client = ClientConfig {
        authentication: Authentication::Low(Password::new("12345678")),
        proposed: ClientConfig::PROPOSED_WITH_COMMANDS | Conformance::GENERAL_BLOCK_TRANSFER,
        max_receive_pdu_size: 200,
        ..ClientConfig::default()
    };
    let server = ServerConfig {
        reader_password: Some(Password::new("12345678")),
        conformance,
        max_receive_pdu_size: server_takes,
        ..ServerConfig::default()
    };
    Pair::new(
        ClientSession::with_protection(DummyLink::default(), client, ours),
        ServerConnection::new(DummyLink::default(), ServerSession::with_protection(server, theirs)),
    )
}

const ALL: Conformance = ServerConfig::CONFORMANCE_WITH_COMMANDS;

fn everything() -> Vec<Accessing> {
    let set =
        |target, value: &[u8]| Accessing::Set(Assignment { target: Selected::whole(target), value: value.to_vec() });
    let call = |method, parameters| Accessing::Action(Invocation { method, parameters });
    vec![
        Accessing::Get(Selected::whole(ENERGY)),
        set(CLOCK, &[0x11, 1]),
        Accessing::Get(Selected::whole(MISSING)),
        call(ECHO, Some(vec![0x11, 2])),
        call(RESET, None),
        set(MISSING, &[0x11, 3]),
        Accessing::Get(Selected { attribute: PROFILE, selection: Some(vec![2, 0x11, 7]) }),
        Accessing::Get(Selected::whole(PRIVATE)),
    ]
}

fn accessed(events: &[ClientEvent]) -> Vec<Invoked> {
    let found = events.iter().find_map(|event| match event {
        ClientEvent::Accessed { results, .. } => Some(results.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{events:?}"))
}

fn expected() -> Vec<Invoked> {
    let value = |data: &[u8]| Ok(Some(Value { data: data.to_vec(), surplus: 0 }));
    let missing = || Err(RequestError::Refused(DataAccessResult::ObjectUndefined));
    vec![
        value(&[0x06, 0x00, 0xbc, 0x61, 0x4e]),
        Ok(None),
        missing(),
        value(&[0x11, 2]),
        Ok(None),
        missing(),
        value(&[0x09, 3, 2, 0x11, 7]),
        value(&[0x11, 0x2a]),
    ]
}

#[test]
fn reading_writing_and_invoking_is_one_exchange_in_order() {
    let mut pair = pair(ALL, 1_024, [Plain, Plain]);
    pair.client.access(pair.now, everything()).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(pair.result, Ok(()));
    assert_eq!(accessed(&pair.events), expected());
    assert_eq!(pair.objects.written, [(CLOCK, None, vec![0x11, 1])]);
    assert_eq!(pair.objects.invoked, [(ECHO, Some(vec![0x11, 2])), (RESET, None)]);
    // AARQ, ACCESS, RLRQ and their answers, and the farewell.
    assert_eq!(pair.messages, 7);
}

#[test]
fn a_long_list_is_split_or_goes_in_general_blocks() {
    let mut pair = pair(ALL, 50, [Plain, Plain]);
    pair.client.access(pair.now, everything()).unwrap();
    pair.run();
    assert_eq!(accessed(&pair.events), expected());
    // AARQ, three ACCESS of up to three, and their answers.
    assert_eq!(pair.messages, 8);

    let mut pair = self::pair(ALL | Conformance::GENERAL_BLOCK_TRANSFER, 50, [Plain, Plain]);
    let mut wanted = everything();
    wanted.push(Accessing::Get(Selected::whole(PROFILE)));
    wanted.push(Accessing::Get(Selected::whole(SERIAL)));
    pair.client.access(pair.now, wanted).unwrap();
    pair.run();
    assert_eq!(pair.result, Ok(()));
    let results = accessed(&pair.events);
    assert_eq!(results[..8], expected());
    assert_eq!(results[8].as_ref().unwrap().as_ref().unwrap().data, super::pair::profile());
}

#[test]
fn access_has_a_general_wrapper_where_it_is_ciphered() {
    for wrapping in [Wrapping::Service, Wrapping::General] {
        let config = |octet| {
            let keys = Keys::new(Key::from([0x11; 16]), Key::from([0x22; 16]));
            CipheredConfig { wrapping, ..CipheredConfig::new(keys, SystemTitle([b'M', b'M', b'M', 0, 0, 0, 0, octet])) }
        };
        let counter = || Counter::reserved(10, 10_000);
        let ours = Ciphered::client(config(1), counter(), ReceivedCounters::default()).unwrap();
        let theirs = Ciphered::server(config(2), counter(), ReceivedCounters::default()).unwrap();
        let mut pair = pair(ALL, 200, [ours, theirs]);
        pair.fault = Box::new(|message| {
            assert!(message.len() <= 201, "{}", message.len());
            assert!(matches!(message[..], [_] | [_, 0x60..=0x63 | 0xdb, ..]), "{message:02x?}");
            true
        });
        pair.client.access(pair.now, everything()).unwrap();
        pair.run();
        assert_eq!(pair.result, Ok(()));
        assert_eq!(accessed(&pair.events), expected());
        assert!(pair.client.protection().is_authenticated());
    }
}

#[test]
fn what_was_not_agreed_on_or_does_not_fit_is_refused() {
    let mut without = pair(ServerConfig::CONFORMANCE, 1_024, [Plain, Plain]);
    without.client.access(without.now, everything()).unwrap();
    without.run();
    let refused = Err(RequestError::NotNegotiated(Conformance::ACCESS));
    assert!(accessed(&without.events).iter().all(|result| *result == refused));

    let mut pair = pair(ALL, 60, [Plain, Plain]);
    let value = DataValue::OctetString(vec![0; 60]).to_vec();
    let too_long = Accessing::Set(Assignment { target: Selected::whole(CLOCK), value });
    let profile = Accessing::Get(Selected::whole(PROFILE));
    pair.client.access(pair.now, vec![too_long, profile]).unwrap();
    pair.run();
    let exception = ExceptionResponse::new(ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong);
    let refused = [Err(RequestError::RequestTooLong { size: 80, limit: 60 }), Err(RequestError::Exception(exception))];
    assert_eq!(accessed(&pair.events), refused);
    assert!(pair.objects.written.is_empty());
}

/// What a client makes of its ACCESS of [`ENERGY`] when the answer becomes another.
fn answered(response: &AccessResponse<'_>) -> (Vec<ClientEvent>, Result<(), ClientError>) {
    let mut pair = pair(ALL, 1_024, [Plain, Plain]);
    let other = response.encode();
    pair.fault = Box::new(move |message| {
        if message.get(1) == Some(&tag::ACCESS_RESPONSE) {
            message.truncate(1);
            message.extend(&other);
        }
        true
    });
    pair.client.access(pair.now, vec![Accessing::Get(Selected::whole(ENERGY))]).unwrap();
    pair.run();
    (pair.events, pair.result)
}

#[test]
fn answers_to_something_else_are_no_values() {
    let right = AccessResponse {
        invoke: LongInvokeId::confirmed(1),
        date_time: None,
        data: vec![&[0x11, 1]],
        results: vec![AccessResult::Get(DataAccessResult::Success)],
    };
    assert!(accessed(&answered(&right).0)[0].is_ok());
    for results in [
        vec![AccessResult::Set(DataAccessResult::Success)],
        vec![AccessResult::Action(ActionResult::SUCCESS)],
        vec![AccessResult::Get(DataAccessResult::Success); 2],
        vec![],
    ] {
        let data = vec![&[0x11, 1][..]; results.len()];
        let (events, result) = answered(&AccessResponse { data, results, ..right.clone() });
        assert_eq!(result, Ok(()));
        assert!(matches!(accessed(&events)[0], Err(RequestError::Unreadable(_))));
    }
    let (events, result) = answered(&AccessResponse { invoke: LongInvokeId::confirmed(0x1_0001), ..right });
    assert!(matches!(result, Err(ClientError::Silent { .. })));
    assert!(events.contains(&ClientEvent::Ignored(Ignored::InvokeId { expected: 1, found: 1 })));
}

#[test]
fn a_meter_notifies_its_client_between_requests() {
    let mut pair = pair(ALL, 1_024, [Plain, Plain]);
    let mut apdu = Vec::new();
    encode_event_notification(None, ENERGY, &DataValue::Unsigned(7), &mut apdu);
    pair.run();
    pair.server.notify(pair.now, apdu.clone(), &mut pair.objects).unwrap();
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert_eq!(pair.events[1], ClientEvent::Notification(apdu.clone()));
    assert_eq!(decode_event_notification(&apdu).unwrap().attribute, ENERGY);
    assert!(matches!(pair.events[2], ClientEvent::Value { .. }));
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert!(pair.server.notify(pair.now, apdu, &mut pair.objects).is_err(), "nobody is there");
}
