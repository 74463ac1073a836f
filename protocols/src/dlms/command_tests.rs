//! SET and ACTION between client and server, and against meters that do not keep to the rules.

use std::time::Duration;

use super::acse::Password;
use super::apdu::{
    ActionOutcome, ActionRequest, ActionResponse, ActionResult, CosemAttribute, DataAccessResult, DataBlock, InvokeId,
    SetRequest, SetResponse, tag, write_outcomes,
};
use super::client::{
    Assignment, Authentication, ClientConfig, ClientError, ClientEvent, ClientOutput, ClientSession, Ignored,
    Invocation, Limits, RequestError, Selected, Stage, Value,
};
use super::conformance::Conformance;
use super::pair::{APDU, CLOCK, DISCONNECT, DummyLink, ECHO, ENERGY, MISSING, PRIVATE, PROFILE, Pair, RESET};
use super::security::{
    Ciphered, CipheredConfig, Counter, Key, Keys, Protection, ReceivedCounters, SystemTitle, Wrapping, hex,
};
use super::server::{ObjectServer, ServerConfig, ServerConnection, ServerSession};
use super::value::DataValue;
use crate::link::LinkInput;
use proptest::prelude::*;

fn client(server_takes: u16) -> (ClientConfig, ServerConfig) {
    let client = ClientConfig {
        authentication: Authentication::Low(Password::new("12345678")),
        proposed: ClientConfig::PROPOSED_WITH_COMMANDS,
        max_receive_pdu_size: 128,
        ..ClientConfig::default()
    };
    let server = ServerConfig {
        reader_password: Some(Password::new("12345678")),
        conformance: ServerConfig::CONFORMANCE_WITH_COMMANDS,
        max_receive_pdu_size: server_takes,
        ..ServerConfig::default()
    };
    (client, server)
}

type DummyPair = Pair<DummyLink, DummyLink>;

fn pair((client, server): (ClientConfig, ServerConfig)) -> DummyPair {
    Pair::new(
        ClientSession::new(DummyLink::default(), client),
        ServerConnection::new(DummyLink::default(), ServerSession::new(server)),
    )
}

fn assignments(items: &[(CosemAttribute, &[u8])]) -> Vec<Assignment> {
    items.iter().map(|&(target, value)| Assignment { target: Selected::whole(target), value: value.to_vec() }).collect()
}

fn octets(len: usize) -> Vec<u8> {
    DataValue::OctetString((0..len).map(|index| index as u8).collect()).to_vec()
}

fn written(events: &[ClientEvent]) -> Vec<Result<(), RequestError>> {
    let found = events.iter().find_map(|event| match event {
        ClientEvent::Written { results, .. } => Some(results.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{events:?}"))
}

fn invoked(events: &[ClientEvent]) -> Vec<Result<Option<Vec<u8>>, RequestError>> {
    let found = events.iter().find_map(|event| match event {
        ClientEvent::Invoked { results, .. } => Some(results.clone()),
        _ => None,
    });
    let results = found.unwrap_or_else(|| panic!("{events:?}"));
    results.into_iter().map(|result| result.map(|returned| returned.map(|Value { data, .. }| data))).collect()
}

const NOT_THERE: RequestError = RequestError::Refused(DataAccessResult::ObjectUndefined);

#[test]
fn values_of_any_length_are_written_once_and_whole() {
    for (server_takes, len, messages) in
        [(0, 5_000, 7), (1_024, 10, 7), (1_024, 5_000, 15), (64, 5_000, 195), (40, 30, 9)]
    {
        let mut pair = pair(client(server_takes));
        let limit = usize::from(server_takes);
        pair.fault = Box::new(move |message| {
            assert!(
                message.get(1) != Some(&tag::SET_REQUEST) || limit == 0 || message.len() <= 1 + limit,
                "{}",
                message.len()
            );
            true
        });
        pair.client.set(pair.now, CLOCK, octets(len)).unwrap();
        pair.client.release(pair.now).unwrap();
        pair.run();
        assert_eq!(pair.result, Ok(()), "{server_takes}");
        assert_eq!(written(&pair.events), [Ok(())]);
        assert_eq!(pair.objects.written, [(CLOCK, None, octets(len))]);
        assert_eq!(pair.messages, messages, "PDU size {server_takes}");
    }
}

#[test]
fn a_list_is_written_in_one_exchange_and_keeps_its_order() {
    let mut pair = pair(client(1_024));
    let [a, b] = [&[0x11, 0x01][..], &[0x06, 0, 0, 0, 2]];
    pair.client.set_list(pair.now, assignments(&[(CLOCK, a), (MISSING, a), (PRIVATE, b)])).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(written(&pair.events), [Ok(()), Err(NOT_THERE), Ok(())]);
    assert_eq!(pair.objects.written, [(CLOCK, None, a.to_vec()), (PRIVATE, None, b.to_vec())]);
    // AARQ, SET, RLRQ and their answers, and the farewell.
    assert_eq!(pair.messages, 7);
}

#[test]
fn a_list_that_is_too_long_for_a_request_goes_in_blocks() {
    let mut pair = pair(client(64));
    let (long, short) = (octets(200), octets(3));
    pair.client.set_list(pair.now, assignments(&[(CLOCK, &long), (MISSING, &short), (PRIVATE, &short)])).unwrap();
    pair.run();
    assert_eq!(written(&pair.events), [Ok(()), Err(NOT_THERE), Ok(())]);
    assert_eq!(pair.objects.written, [(CLOCK, None, long), (PRIVATE, None, short)]);
}

#[test]
fn a_selection_goes_with_what_is_written() {
    let mut pair = pair(client(1_024));
    let target = Selected { attribute: PROFILE, selection: Some(vec![2, 0x11, 0x07]) };
    pair.client.set_list(pair.now, vec![Assignment { target: target.clone(), value: octets(2_000) }]).unwrap();
    pair.client.set_list(pair.now, vec![Assignment { target, value: octets(2) }]).unwrap();
    pair.run();
    let selection = Some(vec![2, 0x11, 0x07]);
    assert_eq!(pair.objects.written, [(PROFILE, selection.clone(), octets(2_000)), (PROFILE, selection, octets(2))]);
}

#[test]
fn methods_take_and_return_values_of_any_length() {
    for (server_takes, len) in [(0, 5_000), (1_024, 10), (1_024, 5_000), (64, 5_000), (40, 60)] {
        let mut pair = pair(client(server_takes));
        let limit = usize::from(server_takes);
        pair.fault = Box::new(move |message| {
            let max = match message.get(1) {
                Some(&tag::ACTION_REQUEST) if limit > 0 => limit,
                Some(&tag::ACTION_RESPONSE) => 128,
                _ => usize::MAX - 1,
            };
            assert!(message.len() <= 1 + max, "{}", message.len());
            true
        });
        pair.client.invoke(pair.now, ECHO, Some(octets(len))).unwrap();
        pair.client.invoke(pair.now, RESET, None).unwrap();
        pair.run();
        assert_eq!(pair.result, Ok(()));
        assert_eq!(invoked(&pair.events), [Ok(Some(octets(len)))], "{server_takes} {len}");
        assert_eq!(invoked(&pair.events[2..]), [Ok(None)]);
        assert_eq!(pair.objects.invoked, [(ECHO, Some(octets(len))), (RESET, None)]);
    }
}

#[test]
fn a_list_of_methods_goes_both_ways_in_blocks() {
    for (server_takes, len) in [(1_024, 5), (1_024, 300), (64, 300)] {
        let (config, server) = client(server_takes);
        let config = ClientConfig { authentication: Authentication::None, ..config };
        let mut pair = pair((config, server));
        let calls = [(ECHO, Some(octets(len))), (DISCONNECT, Some(octets(1))), (RESET, None), (ECHO, Some(octets(1)))];
        let calls = calls.map(|(method, parameters)| Invocation { method, parameters });
        pair.client.invoke_list(pair.now, calls.to_vec()).unwrap();
        pair.run();
        let denied = Err(RequestError::MethodRefused(ActionResult::READ_WRITE_DENIED));
        assert_eq!(invoked(&pair.events), [Ok(Some(octets(len))), denied, Ok(None), Ok(Some(octets(1)))]);
        assert_eq!(pair.objects.invoked.len(), 3);
    }
}

#[test]
fn what_was_not_agreed_on_is_not_sent() {
    let without = |bits: Conformance| {
        let (config, server) = client(64);
        let all = ServerConfig::CONFORMANCE_WITH_COMMANDS.octets();
        let less: Vec<u8> = all.iter().zip(bits.octets()).map(|(all, less)| all & !less).collect();
        let conformance = Conformance::from_octets(less.try_into().unwrap());
        pair((config, ServerConfig { conformance, ..server }))
    };
    let mut pair = without(Conformance::SET | Conformance::ACTION);
    pair.client.set(pair.now, CLOCK, octets(1)).unwrap();
    pair.client.invoke(pair.now, RESET, None).unwrap();
    pair.run();
    assert_eq!(written(&pair.events), [Err(RequestError::NotNegotiated(Conformance::SET))]);
    assert_eq!(invoked(&pair.events), [Err(RequestError::NotNegotiated(Conformance::ACTION))]);

    let mut pair = without(Conformance::BLOCK_TRANSFER_WITH_SET | Conformance::BLOCK_TRANSFER_WITH_ACTION);
    pair.client.set_list(pair.now, assignments(&[(CLOCK, &octets(60)), (CLOCK, &octets(2))])).unwrap();
    pair.client.invoke(pair.now, ECHO, Some(octets(60))).unwrap();
    pair.run();
    let too_long = |size| RequestError::RequestTooLong { size, limit: 64 };
    assert_eq!(written(&pair.events), [Err(too_long(75)), Ok(())]);
    assert_eq!(invoked(&pair.events), [Err(too_long(75))]);

    let mut pair = without(Conformance::MULTIPLE_REFERENCES | Conformance::SELECTIVE_ACCESS);
    let selected = Selected { attribute: PROFILE, selection: Some(vec![2, 0x11, 0x07]) };
    let mut wanted = assignments(&[(CLOCK, &octets(60)), (CLOCK, &octets(2))]);
    wanted.push(Assignment { target: selected, value: octets(1) });
    pair.client.set_list(pair.now, wanted).unwrap();
    pair.run();
    let selection = Err(RequestError::NotNegotiated(Conformance::SELECTIVE_ACCESS));
    assert_eq!(written(&pair.events), [Ok(()), Ok(()), selection]);
}

// Control: let `Invoke::is_repeatable` always answer true; then the method is invoked three times.
#[test]
fn a_command_is_sent_once_however_often_reads_are() {
    for is_set in [true, false] {
        let (config, server) = client(1_024);
        let mut pair = pair((ClientConfig { attempts: 3, ..config }, server));
        pair.fault = Box::new(|message| !matches!(message.get(1), Some(&(tag::SET_RESPONSE | tag::ACTION_RESPONSE))));
        if is_set {
            pair.client.set(pair.now, CLOCK, octets(1)).unwrap();
        } else {
            pair.client.invoke(pair.now, RESET, None).unwrap();
        }
        pair.run();
        assert!(matches!(pair.result, Err(ClientError::Silent { stage: Stage::Reading, .. })), "{:?}", pair.result);
        assert_eq!(pair.objects.written.len() + pair.objects.invoked.len(), 1);
    }
}

#[test]
fn lost_blocks_are_sent_again_and_taken_once() {
    let (config, server) = client(64);
    let mut pair = pair((ClientConfig { attempts: 5, ..config }, server));
    let mut count = 0;
    // Every fourth message gets lost, but no first and no last one of a command, and no answer to one.
    pair.fault = Box::new(move |message| {
        count += 1;
        let is_middle = matches!(message[..], [_, tag::SET_REQUEST, 3, _, 0, ..] | [_, tag::SET_RESPONSE, 2, ..]);
        count % 4 != 0 || !is_middle
    });
    pair.client.set(pair.now, CLOCK, octets(1_000)).unwrap();
    pair.run();
    assert_eq!(pair.result, Ok(()));
    assert_eq!(written(&pair.events), [Ok(())]);
    assert_eq!(pair.objects.written, [(CLOCK, None, octets(1_000))]);
}

#[test]
fn commands_are_ciphered_as_everything_else() {
    let title = |octet| SystemTitle([b'M', b'M', b'M', 0, 0, 0, 0, octet]);
    for (wrapping, set, action) in [(Wrapping::Service, 0xc9, 0xcb), (Wrapping::General, 0xdb, 0xdb)] {
        let config = |octet| {
            let keys = Keys::new(Key::from([0x11; 16]), Key::from([0x22; 16]));
            CipheredConfig { wrapping, ..CipheredConfig::new(keys, title(octet)) }
        };
        let counter = || Counter::reserved(10, 10_000);
        let ours = Ciphered::client(config(1), counter(), ReceivedCounters::default()).unwrap();
        let theirs = Ciphered::server(config(2), counter(), ReceivedCounters::default()).unwrap();
        let (client, server) = client(128);
        let mut pair = Pair::new(
            ClientSession::with_protection(DummyLink::default(), client, ours),
            ServerConnection::new(DummyLink::default(), ServerSession::with_protection(server, theirs)),
        );
        let wire = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = wire.clone();
        pair.fault = Box::new(move |message| {
            assert!(message.len() <= 129, "{}", message.len());
            seen.borrow_mut().push(message[1]);
            true
        });
        pair.client.set(pair.now, CLOCK, octets(500)).unwrap();
        pair.client.invoke(pair.now, ECHO, Some(octets(500))).unwrap();
        pair.run();
        assert_eq!(pair.result, Ok(()));
        assert_eq!(pair.objects.written, [(CLOCK, None, octets(500))]);
        assert_eq!(invoked(&pair.events), [Ok(Some(octets(500)))]);
        let plain =
            |tag: &u8| [tag::SET_REQUEST, tag::SET_RESPONSE, tag::ACTION_REQUEST, tag::ACTION_RESPONSE].contains(tag);
        assert!(wire.borrow().contains(&set) && wire.borrow().contains(&action));
        assert!(!wire.borrow().iter().any(plain), "{:02x?}", wire.borrow());
        assert!(pair.client.protection().is_authenticated());
    }
}

// Meters that are scripted octet by octet.

const AARE: &str = "6129a109060760857405080101a203020100a305a103020100be10040e0800065f1f0400001e1f00400007";

/// Runs `ask` against a meter that takes 64 octets and answers by `script`.
fn scripted(
    ask: impl FnOnce(&mut ClientSession<DummyLink>),
    mut script: impl FnMut(&[u8]) -> Vec<Vec<u8>>,
) -> (Vec<ClientEvent>, Result<(), ClientError>) {
    let limits = Limits { value_bytes_max: 10_000, ..Limits::default() };
    let config = ClientConfig { proposed: ClientConfig::PROPOSED_WITH_COMMANDS, limits, ..ClientConfig::default() };
    let mut session = ClientSession::new(DummyLink::default(), config);
    let (mut events, mut incoming, mut now) = (Vec::new(), std::collections::VecDeque::new(), Duration::ZERO);
    session.associate(now).unwrap();
    ask(&mut session);
    for _ in 0..100_000 {
        let deadline = match session.poll() {
            ClientOutput::Send(message) => {
                match &message[..] {
                    [APDU, 0x60, ..] => incoming.push_back(hex(AARE)),
                    [APDU, apdu @ ..] => incoming.extend(script(apdu)),
                    _ => {}
                }
                continue;
            }
            ClientOutput::Event(event) => {
                events.push(event);
                continue;
            }
            ClientOutput::WaitUntil(deadline) => deadline,
        };
        let result = match (incoming.pop_front(), deadline) {
            (Some(apdu), _) => session.handle(now, LinkInput::Received(&[&[APDU], &apdu[..]].concat())),
            (None, Some(deadline)) => {
                now = now.max(deadline);
                session.handle(now, LinkInput::Tick)
            }
            (None, None) => return (events, Ok(())),
        };
        if let Err(error) = result {
            return (events, Err(error));
        }
    }
    panic!("no end");
}

fn set_long(session: &mut ClientSession<DummyLink>) {
    session.set(Duration::ZERO, CLOCK, octets(200)).unwrap();
}

fn invoke_short(session: &mut ClientSession<DummyLink>) {
    session.invoke(Duration::ZERO, ECHO, Some(octets(3))).unwrap();
}

fn invoke_id(apdu: &[u8]) -> InvokeId {
    InvokeId(apdu[2])
}

#[test]
fn acknowledgements_out_of_order_end_the_session() {
    for (number, found) in [(2, 2), (7, 7)] {
        let (_, result) =
            scripted(set_long, |apdu| vec![SetResponse::Block { invoke: invoke_id(apdu), number }.encode()]);
        assert_eq!(result, Err(ClientError::BlockOrder { target: CLOCK.into(), expected: 1, found }));
    }
    // The same one twice is a repetition, and the second has nothing to say.
    let (events, result) = scripted(set_long, |apdu| match SetRequest::decode(apdu) {
        Ok(SetRequest::FirstBlock { invoke, .. }) => vec![SetResponse::Block { invoke, number: 1 }.encode(); 2],
        Ok(SetRequest::Block { invoke, block: DataBlock { last: false, number, .. } }) => {
            vec![SetResponse::Block { invoke, number }.encode()]
        }
        Ok(SetRequest::Block { invoke, block: DataBlock { number, .. } }) => {
            let result = DataAccessResult::Success;
            vec![SetResponse::LastBlock { invoke, result, number }.encode()]
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(result, Ok(()));
    assert!(events.contains(&ClientEvent::Ignored(Ignored::DuplicateBlock(1))));
    assert_eq!(written(&events), [Ok(())]);
}

#[test]
fn half_a_value_cannot_have_been_written() {
    for choice in [1, 3, 5] {
        let (_, result) = scripted(set_long, |apdu| {
            let (invoke, result) = (invoke_id(apdu), DataAccessResult::Success);
            vec![match choice {
                1 => SetResponse::Normal { invoke, result }.encode(),
                3 => SetResponse::LastBlock { invoke, result, number: 1 }.encode(),
                _ => SetResponse::WithList { invoke, results: vec![result] }.encode(),
            }]
        });
        assert!(matches!(result, Err(ClientError::Malformed(_))), "{choice}: {result:?}");
    }
    // But it can be refused.
    let (events, result) = scripted(set_long, |apdu| {
        let result = DataAccessResult::LongSetAborted;
        vec![SetResponse::LastBlock { invoke: invoke_id(apdu), result, number: 1 }.encode()]
    });
    assert_eq!(result, Ok(()));
    assert_eq!(written(&events), [Err(RequestError::Refused(DataAccessResult::LongSetAborted))]);
}

#[test]
fn a_block_for_more_than_there_is_is_not_asked_for() {
    let short = |session: &mut ClientSession<DummyLink>| drop(session.set(Duration::ZERO, CLOCK, octets(3)));
    let (_, result) = scripted(short, |apdu| vec![SetResponse::Block { invoke: invoke_id(apdu), number: 1 }.encode()]);
    assert!(matches!(result, Err(ClientError::Malformed(_))), "{result:?}");
}

#[test]
fn answers_of_another_invocation_or_service_are_passed_over() {
    let (events, result) = scripted(invoke_short, |apdu| {
        let outcome = ActionOutcome { result: ActionResult::SUCCESS, returned: None };
        let right = ActionResponse::Normal { invoke: invoke_id(apdu), outcome }.encode();
        let mut late = right.clone();
        late[2] ^= 0x05;
        vec![late, hex("c5014100"), hex("c401410000"), right]
    });
    assert_eq!(result, Ok(()));
    assert_eq!(invoked(&events), [Ok(None)]);
    let ignored: Vec<_> = events.iter().filter(|event| matches!(event, ClientEvent::Ignored(_))).collect();
    assert_eq!(ignored.len(), 3);
}

#[test]
fn endless_or_mixed_blocks_of_a_method_end_the_session() {
    let endless = |data: &'static [u8]| {
        let mut number = 0;
        move |apdu: &[u8]| {
            number += 1;
            let block = DataBlock { last: false, number, data };
            vec![ActionResponse::Block { invoke: invoke_id(apdu), block }.encode()]
        }
    };
    let (_, result) = scripted(invoke_short, endless(&[0x5a; 3_000]));
    assert_eq!(result, Err(ClientError::ValueTooLong { target: ECHO.into(), limit: 10_000 }));
    let (_, result) = scripted(invoke_short, |apdu| {
        let block = DataBlock { last: false, number: 2, data: &[0] };
        vec![ActionResponse::Block { invoke: invoke_id(apdu), block }.encode()]
    });
    assert_eq!(result, Err(ClientError::BlockOrder { target: ECHO.into(), expected: 1, found: 2 }));
    let (_, result) = scripted(invoke_short, |apdu| {
        let (invoke, block) = (invoke_id(apdu), DataBlock { last: false, number: 1, data: &[0] });
        let outcome = ActionOutcome { result: ActionResult::SUCCESS, returned: None };
        vec![match apdu[1] {
            1 => ActionResponse::Block { invoke, block }.encode(),
            _ => ActionResponse::Normal { invoke, outcome }.encode(),
        }]
    });
    assert!(matches!(result, Err(ClientError::Malformed(_))), "{result:?}");
}

#[test]
fn a_method_may_return_its_whole_outcome_in_blocks() {
    for (sent, returned) in
        [("000100 1107", Ok(Some(vec![0x11, 0x07]))), ("0000", Ok(None)), ("1107", Ok(Some(vec![0x11, 0x07])))]
    {
        let (events, result) = scripted(invoke_short, |apdu| {
            let data = &hex(sent)[..];
            let block = DataBlock { last: true, number: 1, data };
            vec![ActionResponse::Block { invoke: invoke_id(apdu), block }.encode()]
        });
        assert_eq!(result, Ok(()));
        assert_eq!(invoked(&events), [returned]);
    }
}

#[test]
fn a_list_of_another_length_is_no_answer() {
    let ask = |session: &mut ClientSession<DummyLink>| {
        drop(session.set_list(Duration::ZERO, assignments(&[(CLOCK, &[0x11, 1]), (ENERGY, &[0x11, 1])])));
        let call = Invocation { method: RESET, parameters: None };
        drop(session.invoke_list(Duration::ZERO, vec![call.clone(), call]));
    };
    let outcome = ActionOutcome { result: ActionResult::SUCCESS, returned: None };
    let outcomes = write_outcomes(&[outcome; 3]);
    let (events, result) = scripted(ask, |apdu| {
        let invoke = invoke_id(apdu);
        vec![match ActionRequest::decode(apdu) {
            Ok(_) => ActionResponse::WithList { invoke, outcomes: &outcomes }.encode(),
            Err(_) => SetResponse::WithList { invoke, results: vec![DataAccessResult::Success] }.encode(),
        }]
    });
    assert_eq!(result, Ok(()));
    assert!(written(&events).iter().all(|result| matches!(result, Err(RequestError::Unreadable(_)))));
    assert!(invoked(&events).iter().all(|result| matches!(result, Err(RequestError::Unreadable(_)))));
}

// The server against clients that do not keep to the rules.

fn associated() -> (ServerSession, super::pair::Objects) {
    let (_, config) = client(500);
    let (mut session, mut objects) = (ServerSession::new(config), super::pair::Objects::default());
    let aarq = "6036a1090607608574050801018a0207808b0760857405080201ac0a80083132333435363738be10040e01000000065f1f0400007e1f04b0";
    session.answer(&hex(aarq), &mut objects).unwrap();
    (session, objects)
}

#[test]
fn the_server_takes_blocks_of_one_request_in_order_and_executes_it_once() {
    let (mut session, mut objects) = associated();
    let mut ask = |apdu: &str| session.answer(&hex(apdu), &mut objects).unwrap();
    assert_eq!(ask("c103c1 00 00000001 01 09"), hex("c503c1 12 00000001"), "nothing was begun");
    let first = "c102c1 0008 0000010000ff 02 00 00 00000001 02 0903";
    assert_eq!(ask(first), hex("c502c1 00000001"));
    assert_eq!(ask("c103c1 00 00000001 02 0903"), hex("c502c1 00000001"), "a repetition");
    assert_eq!(ask("c103c1 00 00000003 01 aa"), hex("c503c1 13 00000003"));
    assert_eq!(ask("c103c1 01 00000002 03 aabbcc"), hex("c503c1 12 00000002"), "it was aborted");
    ask(first);
    assert_eq!(ask("c103c2 01 00000002 03 aabbcc"), hex("c503c2 12 00000002"), "another invocation");
    ask(first);
    assert_eq!(ask("c306c1 01 00000002 03 aabbcc"), hex("c701c1 10 00"), "another service");
    ask(first);
    assert_eq!(ask("c103c1 01 00000002 01 aa"), hex("c503c1 0c 00000002"), "no whole value");
    ask(first);
    assert_eq!(ask("c103c1 01 00000002 03 aabbcc"), hex("c503c1 00 00000002"));
    let second = "c304c1 0009 00000a0000ff 01 00 00000001 02 0903";
    assert_eq!(ask(second), hex("c704c1 00000001"));
    assert_eq!(ask("c306c1 00 00000007 01 aa"), hex("c701c1 0f 00"));
    ask(second);
    assert_eq!(ask("c306c1 01 00000002 03 aabbcc"), hex("c701c1 00 01 00 0903aabbcc"));
    assert_eq!(ask("c302c1 00000001"), hex("c701c1 10 00"));
    assert_eq!(ask("c101c1 0008"), hex("d80103"));
    assert_eq!(ask("c301c1 0008"), hex("d80103"));
    assert_eq!(objects.written, [(CLOCK, None, hex("0903aabbcc"))]);
    assert_eq!(objects.invoked, [(ECHO, Some(hex("0903aabbcc")))]);
}

#[test]
fn a_meter_that_does_not_say_it_is_only_read() {
    struct ReadOnly;
    impl ObjectServer for ReadOnly {
        fn read(&mut self, _: CosemAttribute, _: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
            Ok(vec![0])
        }
    }
    let (mut session, _) = associated();
    let mut ask = |apdu: &str| session.answer(&hex(apdu), &mut ReadOnly).unwrap();
    assert_eq!(ask("c101c1 0008 0000010000ff 02 00 1100"), hex("c501c1 03"));
    assert_eq!(ask("c301c1 0008 0000010000ff 01 00"), hex("c701c1 03 00"));
}

proptest! {
    #[test]
    fn whatever_is_written_arrives(
        lens in prop::collection::vec(0usize..400, 1..6), server_takes in prop::sample::select(vec![0u16, 40, 63, 128, 300]), lists: bool,
    ) {
        let (config, server) = client(server_takes);
        let list_length_max = if lists { 16 } else { 1 };
        let mut pair = pair((ClientConfig { list_length_max, ..config }, server));
        let values: Vec<_> = lens.iter().map(|len| octets(*len)).collect();
        let items: Vec<_> = values.iter().map(|value| (CLOCK, &value[..])).collect();
        pair.client.set_list(pair.now, assignments(&items)).unwrap();
        let calls = values.iter().map(|value| Invocation { method: ECHO, parameters: Some(value.clone()) }).collect();
        pair.client.invoke_list(pair.now, calls).unwrap();
        pair.run();
        prop_assert_eq!(&pair.result, &Ok(()));
        prop_assert!(written(&pair.events).iter().all(Result::is_ok));
        let arrived: Vec<_> = pair.objects.written.iter().map(|(_, _, value)| value.clone()).collect();
        prop_assert_eq!(&arrived, &values);
        let returned: Vec<_> = invoked(&pair.events).into_iter().map(|result| result.unwrap().unwrap()).collect();
        prop_assert_eq!(&returned, &values);
    }
}
