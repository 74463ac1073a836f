//! Client and server with short names: what they do is what they do with logical names, and wrong answers are refused.

use super::acse::{Diagnostic, Password};
use super::apdu::{
    ActionResult, ApduError, CosemAttribute, CosemMethod, DataAccessResult, InformationReport, ReadBlock, ReadResponse,
    ReadResult, VariableAccess, WriteResponse, WriteResult, tag,
};
use super::client::{
    Accessing, Assignment, Authentication, ClientConfig, ClientError, ClientEvent, ClientSession, Ignored, Invocation,
    ReadError, Referencing, RequestError, Selected, Stage,
};
use super::pair::{
    APDU, CLOCK, DISCONNECT, DummyLink, ECHO, ENERGY, MISSING, Objects, PRIVATE, PROFILE, Pair, RESET, SERIAL, profile,
};
use super::security::{
    Challenge, Ciphered, CipheredConfig, Counter, HighLevel, Key, Keys, Level, Protection, ReceivedCounters,
    SystemTitle, Wrapping,
};
use super::server::{
    ClientRole, HighLevelClient, ObjectServer as _, ServerConfig, ServerConnection, ServerEvent, ServerSession,
};
use super::short_names::{OBJECT_LIST, ShortNames};
use super::value::DataValue;
use crate::cosem::association_ln::selection::{NamedSelection, ObjectId};

fn sides(referencing: Referencing, client_takes: u16, server_takes: u16) -> (ClientConfig, ServerConfig) {
    let client = ClientConfig {
        authentication: Authentication::Low(Password::new("12345678")),
        proposed: ClientConfig::PROPOSED_WITH_COMMANDS,
        max_receive_pdu_size: client_takes,
        referencing,
        ..ClientConfig::default()
    };
    let server = ServerConfig {
        reader_password: Some(Password::new("12345678")),
        conformance: ServerConfig::CONFORMANCE_WITH_COMMANDS,
        max_receive_pdu_size: server_takes,
        referencing,
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

fn short() -> DummyPair {
    pair(sides(Referencing::ShortNames, 1_024, 1_024))
}

fn octets(len: usize) -> Vec<u8> {
    DataValue::OctetString((0..len).map(|index| index as u8).collect()).to_vec()
}

fn wholes(attributes: &[CosemAttribute]) -> Vec<Selected> {
    attributes.iter().copied().map(Selected::whole).collect()
}

/// What came of the requests.
fn answers(pair: &DummyPair) -> Vec<ClientEvent> {
    let is_answer = |event: &&ClientEvent| {
        !matches!(event, ClientEvent::Associated(_) | ClientEvent::ShortNames(_) | ClientEvent::Released)
    };
    pair.events.iter().filter(is_answer).cloned().collect()
}

// Negative controls: give the attributes of a name another step than 8; leave out the block number of the answer.
#[test]
fn short_names_read_what_logical_names_read() {
    let read = |referencing, size| {
        let mut pair = pair(sides(referencing, size, 1_024));
        for (attribute, selection) in [
            (ENERGY, None),
            (PROFILE, None),
            (PROFILE, Some(vec![1, 0x11, 5])),
            (PRIVATE, None),
            (MISSING, None),
            (CLOCK, Some(vec![2, 0x00])),
        ] {
            pair.client.get(pair.now, attribute, selection).unwrap();
        }
        pair.client.get_list(pair.now, wholes(&[ENERGY, MISSING, SERIAL, PROFILE])).unwrap();
        pair.client.release(pair.now).unwrap();
        pair.run();
        assert_eq!((&pair.result, pair.events.last()), (&Ok(()), Some(&ClientEvent::Released)), "{size}");
        answers(&pair)
    };
    for size in [0, 40, 128, 1_024, 4_096] {
        let logical = read(Referencing::LogicalNames, size);
        assert_eq!(logical.len(), 7);
        let ClientEvent::Value { value, .. } = &logical[1] else { panic!("{logical:?}") };
        assert_eq!(value.data, profile());
        assert!(read(Referencing::ShortNames, size) == logical, "PDU size {size}");
    }
}

/// Control, seen to fail: answer every selection with the whole list.
#[test]
fn the_object_list_of_class_12_is_read_by_class_and_by_object() {
    let list = CosemAttribute { class_id: 12, obis: ShortNames::ASSOCIATION.logical_name, attribute: OBJECT_LIST };
    let mut pair = short();
    let energy = ObjectId { class_id: ENERGY.class_id, logical_name: ENERGY.obis };
    let absent = ObjectId { class_id: 4, ..energy };
    let selections = [NamedSelection::Class(3), NamedSelection::Object(energy), NamedSelection::Object(absent)];
    let encoded =
        selections.map(NamedSelection::encode).map(|(selector, value)| [vec![selector], value.to_vec()].concat());
    for selection in encoded.into_iter().chain([vec![7, 0]]) {
        pair.client.get(pair.now, list, Some(selection)).unwrap();
    }
    pair.client.release(pair.now).unwrap();
    pair.run();
    let names = ShortNames::decode(&Objects::default().short_names().object_list(|_| true).to_vec()).unwrap();
    let of_class = names.object_list(|object| object.class_id == 3).to_vec();
    let DataValue::Array(elements) = names.object_list(|object| object.logical_name == ENERGY.obis) else { panic!() };
    let answered = answers(&pair).into_iter().map(|event| match event {
        ClientEvent::Value { value, .. } => Ok(value.data),
        ClientEvent::Failed { error, .. } => Err(error),
        other => panic!("{other:?}"),
    });
    let refused = |result| Err(ReadError::Refused(result));
    assert_eq!(
        answered.collect::<Vec<_>>(),
        [
            Ok(of_class),
            Ok(elements[0].to_vec()),
            refused(DataAccessResult::ObjectUndefined),
            refused(DataAccessResult::ScopeOfAccessViolated)
        ]
    );
}

#[test]
fn one_failing_item_does_not_take_the_list_with_it() {
    let mut pair = short();
    let mut names = 0;
    pair.fault = Box::new(move |message| {
        names += usize::from(message.get(1) == Some(&tag::READ_REQUEST));
        // The object list, then all that it has in one request.
        assert!(names <= 2, "{message:02x?}");
        true
    });
    pair.client
        .get_list(pair.now, wholes(&[ENERGY, MISSING, SERIAL, CosemAttribute { attribute: 3, ..ENERGY }]))
        .unwrap();
    pair.run();
    let [ClientEvent::Values { results, .. }] = &answers(&pair)[..] else { panic!("{:?}", pair.events) };
    let refused = ReadError::Refused(DataAccessResult::ObjectUndefined);
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!([&results[1], &results[3]], [&Err(refused.clone()), &Err(refused)]);
}

#[test]
fn what_is_written_and_invoked_arrives_once_and_whole() {
    for (server_takes, len) in [(0, 3_000), (1_024, 10), (1_024, 3_000), (64, 3_000)] {
        let mut pair = pair(sides(Referencing::ShortNames, 300, server_takes));
        pair.fault = Box::new(move |message| {
            let is_request = matches!(message.get(1), Some(&(tag::READ_REQUEST | tag::WRITE_REQUEST)));
            assert!(!is_request || server_takes == 0 || message.len() <= 1 + usize::from(server_takes));
            true
        });
        let assignment = |attribute, value| Assignment { target: Selected::whole(attribute), value };
        let writes = [(CLOCK, octets(len)), (MISSING, octets(3)), (PRIVATE, octets(5))];
        let writes = writes.map(|(attribute, value)| assignment(attribute, value));
        pair.client.set_list(pair.now, writes.to_vec()).unwrap();
        let calls = [(ECHO, Some(octets(len))), (RESET, None), (DISCONNECT, Some(vec![0x0f, 0])), (ECHO, None)];
        let calls = calls.map(|(method, parameters)| Invocation { method, parameters });
        pair.client.invoke_list(pair.now, calls.to_vec()).unwrap();
        let no_method = CosemMethod { method: 2, ..ECHO };
        pair.client.invoke(pair.now, no_method, None).unwrap();
        pair.client.release(pair.now).unwrap();
        pair.run();
        assert_eq!(pair.result, Ok(()), "{server_takes}");
        let [written, invoked, refused] = &answers(&pair)[..] else { panic!("{:?}", pair.events) };
        let ClientEvent::Written { results, .. } = written else { panic!("{written:?}") };
        let undefined = Err(RequestError::Refused(DataAccessResult::ObjectUndefined));
        assert_eq!(results[..], [Ok(()), undefined, Ok(())]);
        assert_eq!(pair.objects.written, [(CLOCK, None, octets(len)), (PRIVATE, None, octets(5))]);
        let ClientEvent::Invoked { results, .. } = invoked else { panic!("{invoked:?}") };
        let returned: Vec<_> = results.iter().map(|result| result.as_ref().unwrap().as_ref()).collect();
        assert_eq!(returned[0].map(|value| &value.data), Some(&octets(len)));
        assert_eq!(returned[1..], [None; 3]);
        assert_eq!(pair.objects.invoked.len(), 4);
        assert_eq!(pair.objects.invoked[2], (DISCONNECT, Some(vec![0x0f, 0])));
        let ClientEvent::Invoked { results, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(results[..], [Err(RequestError::MethodRefused(ActionResult::OBJECT_UNDEFINED))]);
    }
}

#[test]
fn one_request_reads_writes_and_invokes_in_order() {
    let mut pair = short();
    let assignment = Assignment { target: Selected::whole(CLOCK), value: octets(5) };
    let wanted = vec![
        Accessing::Get(Selected::whole(ENERGY)),
        Accessing::Action(Invocation { method: ECHO, parameters: Some(octets(3)) }),
        Accessing::Set(assignment),
        Accessing::Get(Selected::whole(SERIAL)),
    ];
    pair.client.access(pair.now, wanted).unwrap();
    pair.run();
    let [ClientEvent::Accessed { results, .. }] = &answers(&pair)[..] else { panic!("{:?}", pair.events) };
    let lengths: Vec<_> =
        results.iter().map(|result| result.as_ref().unwrap().as_ref().map(|value| value.data.len())).collect();
    assert_eq!(lengths, [Some(5), Some(5), None, Some(10)]);
    // AARQ, object list, three exchanges.
    assert_eq!(pair.messages, 10);
}

#[test]
fn the_object_list_is_read_once_and_serves_who_asks_for_that_of_logical_names() {
    let mut pair = short();
    let list = CosemAttribute::new(15, ShortNames::ASSOCIATION.logical_name, OBJECT_LIST);
    pair.client.get(pair.now, list, None).unwrap();
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert_eq!(pair.messages, 2 + 2 + 2 + 2);
    let [ClientEvent::Value { value, .. }, ..] = &answers(&pair)[..] else { panic!("{:?}", pair.events) };
    let ClientEvent::ShortNames(Ok(names)) = &pair.events[1] else { panic!("{:?}", pair.events) };
    assert_eq!(value.data, names.as_logical_names().to_vec());
    let listed = crate::cosem::association_ln::object_list(&super::data::Data::from_bytes(&value.data).unwrap());
    let listed: Vec<_> = listed.unwrap().map(|object| object.unwrap().class_id).collect();
    assert_eq!(listed, [1, 3, 8, 7, 1, 9, 70, 12]);
}

/// What a meter answers instead to requests with this tag, from the `nth` on.
fn answering(nth: usize, answer: Vec<u8>) -> DummyPair {
    let mut pair = short();
    let mut answered = 0;
    pair.fault = Box::new(move |message| {
        let tag = message.get(1).copied();
        if matches!(tag, Some(tag::READ_RESPONSE | tag::WRITE_RESPONSE)) {
            answered += 1;
            if answered >= nth {
                *message = [&[APDU], &answer[..]].concat();
            }
        }
        true
    });
    pair
}

// Negative control: take an answer with another number of results for that to a list.
#[test]
fn answers_with_another_number_of_results_end_the_session() {
    let one = ReadResult::Data(&[0x11, 1]);
    for results in [vec![], vec![one, one], vec![one; 3]] {
        let mut pair = answering(2, ReadResponse::encode(&results));
        pair.client.get(pair.now, ENERGY, None).unwrap();
        pair.run();
        let count = ApduError::Count { expected: 1, found: results.len() };
        assert_eq!(pair.result, Err(ClientError::Malformed(count)));
    }
    let written = WriteResponse { results: vec![WriteResult::Success; 2] };
    let mut pair = answering(2, written.encode());
    pair.client.set(pair.now, CLOCK, octets(3)).unwrap();
    pair.run();
    assert_eq!(pair.result, Err(ClientError::Malformed(ApduError::Count { expected: 1, found: 2 })));
}

#[test]
fn answers_that_cannot_be_read_are_no_values() {
    for octets in [&[0x0c, 1, 4, 0][..], &[0x0c, 1, 0], &[0x0c, 1, 0, 0x06, 0, 0], &[0x0c, 1, 1]] {
        let mut pair = answering(2, octets.to_vec());
        pair.client.get(pair.now, ENERGY, None).unwrap();
        pair.client.get_list(pair.now, wholes(&[SERIAL])).unwrap();
        pair.run();
        let [ClientEvent::Failed { error: ReadError::Unreadable(_), .. }, ClientEvent::Values { results, .. }] =
            &answers(&pair)[..]
        else {
            panic!("{octets:02x?}: {:?}", pair.events)
        };
        assert!(matches!(results[..], [Err(ReadError::Unreadable(_))]), "{octets:02x?}");
    }
    // An object list that is none names nothing.
    let mut pair = answering(1, ReadResponse::encode(&[ReadResult::Data(&[0x00])]));
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    let [ClientEvent::Failed { error, .. }] = &answers(&pair)[..] else { panic!("{:?}", pair.events) };
    assert_eq!(*error, ReadError::Unreadable(ApduError::Malformed { what: "object_list", offset: 0 }));
    let mut pair = answering(1, ReadResponse::encode(&[ReadResult::Error(DataAccessResult::ReadWriteDenied)]));
    pair.client.set(pair.now, CLOCK, octets(3)).unwrap();
    pair.run();
    let [ClientEvent::Written { results, .. }] = &answers(&pair)[..] else { panic!("{:?}", pair.events) };
    assert_eq!(results[..], [Err(RequestError::Refused(DataAccessResult::ReadWriteDenied))]);
}

#[test]
fn blocks_out_of_place_end_the_session() {
    let block = |number, last| ReadResponse::encode(&[ReadResult::Block(ReadBlock { last, number, data: &[0x11] })]);
    let mut pair = answering(2, block(2, false));
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    let order = ClientError::BlockOrder { target: ENERGY.into(), expected: 1, found: 2 };
    assert_eq!(pair.result, Err(order));
    // The same block again and again is a repetition, and then silence.
    let mut pair = answering(2, block(1, false));
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert!(pair.events.contains(&ClientEvent::Ignored(Ignored::DuplicateBlock(1))));
    // Nobody asked for the second block of a request that was whole, nor for a write.
    for answer in [
        ReadResponse::encode(&[ReadResult::BlockNumber(1)]),
        ReadResponse::encode(&[ReadResult::BlockNumber(1), ReadResult::BlockNumber(1)]),
    ] {
        let mut pair = answering(2, answer);
        pair.client.get_list(pair.now, wholes(&[ENERGY, SERIAL])).unwrap();
        pair.run();
        assert!(matches!(pair.result, Err(ClientError::Malformed(_))), "{:?}", pair.result);
    }
    let mut pair = answering(2, WriteResponse { results: vec![WriteResult::Success] }.encode());
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert!(pair.events.contains(&ClientEvent::Ignored(Ignored::Tag(tag::WRITE_RESPONSE))));
}

/// Negative control: repeat it as a GET is repeated.
#[test]
fn no_request_is_ever_repeated() {
    let (client, server) = sides(Referencing::ShortNames, 1_024, 1_024);
    let mut pair = pair((ClientConfig { attempts: 3, ..client }, server));
    let mut requests = 0;
    pair.fault = Box::new(move |message| {
        requests += usize::from(message.get(1) == Some(&tag::READ_REQUEST));
        assert!(requests <= 2, "repeated");
        requests < 2
    });
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert!(
        matches!(pair.result, Err(ClientError::Silent { stage: Stage::Reading, attempts: 1, .. })),
        "{:?}",
        pair.result
    );
}

#[test]
fn each_side_keeps_to_its_referencing() {
    for referencing in [Referencing::LogicalNames, Referencing::ShortNames] {
        let (client, _) = sides(referencing, 500, 500);
        let other = match referencing {
            Referencing::LogicalNames => Referencing::ShortNames,
            Referencing::ShortNames => Referencing::LogicalNames,
        };
        let mut pair = pair((client, sides(other, 500, 500).1));
        pair.run();
        let Err(ClientError::Rejected { diagnostic, .. }) = pair.result else { panic!("{:?}", pair.result) };
        assert_eq!(diagnostic, Diagnostic::APPLICATION_CONTEXT_NOT_SUPPORTED);
    }
}

#[test]
fn an_information_report_is_told_and_its_names_are_known() {
    let mut pair = short();
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    let ClientEvent::ShortNames(Ok(names)) = pair.events[1].clone() else { panic!("{:?}", pair.events) };
    let name = names.attribute(CLOCK).unwrap();
    let value = [0x11, 0x2a];
    let (variables, values) = (vec![VariableAccess::Name(name)], vec![&value[..]]);
    let report = InformationReport { current_time: None, variables, values }.encode();
    pair.server.notify(pair.now, report.clone(), &mut pair.objects).unwrap();
    pair.run();
    assert_eq!(pair.events.last(), Some(&ClientEvent::Notification(report)));
    assert_eq!(names.resolve(name), Some(CLOCK.into()));
}

#[test]
fn who_has_no_password_reads_no_secret_and_has_no_commands() {
    let (client, server) = sides(Referencing::ShortNames, 500, 500);
    let server = ServerConfig { conformance: ServerConfig::CONFORMANCE, ..server };
    let mut pair = pair((ClientConfig { authentication: Authentication::None, ..client }, server));
    pair.client.get(pair.now, PRIVATE, None).unwrap();
    pair.client.set(pair.now, CLOCK, octets(3)).unwrap();
    pair.client.invoke(pair.now, RESET, None).unwrap();
    pair.run();
    let [
        ClientEvent::Failed { error, .. },
        ClientEvent::Written { results, .. },
        ClientEvent::Invoked { results: invoked, .. },
    ] = &answers(&pair)[..]
    else {
        panic!("{:?}", pair.events)
    };
    assert_eq!(*error, ReadError::Refused(DataAccessResult::ReadWriteDenied));
    assert!(matches!(results[..], [Err(RequestError::NotNegotiated(_))]), "{results:?}");
    assert_eq!(invoked[..], [Err(RequestError::MethodRefused(ActionResult::READ_WRITE_DENIED))]);
    assert!(pair.objects.written.is_empty() && pair.objects.invoked.is_empty());
}

const CLIENT: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");
const SERVER: SystemTitle = SystemTitle(*b"MMM\x00\x00\xbcaN");

fn ciphering(title: SystemTitle, level: Level, wrapping: Wrapping) -> CipheredConfig {
    let keys = Keys::new(Key::from([0x11; 16]), Key::from([0x22; 16]));
    CipheredConfig { level, minimum: level, wrapping, ..CipheredConfig::new(keys, title) }
}

fn counter() -> Counter {
    Counter::reserved(10, 10_000)
}

// Negative control: leave the tags of Read and Write out of those that answer under the key of their request.
#[test]
fn every_protection_and_proof_goes_with_short_names() {
    let secret = || Password::new("known to both");
    for how in [HighLevel::Gmac, HighLevel::Md5(secret()), HighLevel::Sha256(secret())] {
        for level in [Level::NONE, Level::AUTHENTICATED, Level::AUTHENTICATED_ENCRYPTED] {
            for (wrapping, own_key) in
                [(Wrapping::Service, false), (Wrapping::Service, true), (Wrapping::General, false)]
            {
                let context = format!("{how:?}, {level}, {wrapping:?}, {own_key}");
                let (client, server) = sides(Referencing::ShortNames, 500, 1_024);
                let challenge = |octet| Challenge::new([octet; Challenge::LEN]).unwrap();
                let authentication = Authentication::High { how: how.clone(), challenge: challenge(0xc1) };
                let reader =
                    HighLevelClient { role: ClientRole::Reader, how: how.clone(), title: None, minimum: level };
                let server = ServerConfig { high_level: vec![reader], ..server };
                let dedicated = (own_key && level.encrypted).then(|| Key::from([0x33; 16]));
                let ours = CipheredConfig { dedicated, ..ciphering(CLIENT, level, wrapping) };
                let ours = Ciphered::client(ours, counter(), ReceivedCounters::default()).unwrap();
                let theirs = ciphering(SERVER, level, wrapping);
                let theirs = Ciphered::server(theirs, counter(), ReceivedCounters::default()).unwrap();
                let mut session = ServerSession::with_protection(server, theirs);
                session.set_challenge(challenge(0x5e));
                let client = ClientConfig { authentication, ..client };
                let mut pair: Pair<DummyLink, DummyLink, Ciphered> = Pair::new(
                    ClientSession::with_protection(DummyLink::default(), client, ours),
                    ServerConnection::new(DummyLink::default(), session),
                );
                pair.fault = Box::new(move |message| {
                    let is_ciphered = |tag| matches!(tag, 0x21..=0x38 | 0x41..=0x58 | 0xdb | 0xdc);
                    let is_plain = matches!(message[..], [_] | [_, 0x60..=0x63, ..]);
                    assert!(is_plain || is_ciphered(message[1]) == (level != Level::NONE), "{message:02x?}");
                    true
                });
                for attribute in [ENERGY, PRIVATE, PROFILE] {
                    pair.client.get(pair.now, attribute, None).unwrap();
                }
                pair.client.set(pair.now, CLOCK, octets(3)).unwrap();
                pair.client.invoke(pair.now, ECHO, Some(octets(3))).unwrap();
                pair.client.release(pair.now).unwrap();
                pair.run();
                assert_eq!(pair.result, Ok(()), "{context}: {:?}", pair.events);
                assert!(pair.server_events.contains(&ServerEvent::Associated(ClientRole::Reader)), "{context}");
                let values = pair.events.iter().filter(|event| matches!(event, ClientEvent::Value { .. }));
                assert_eq!(values.count(), 3, "{context}");
                assert_eq!((pair.objects.written.len(), pair.objects.invoked.len()), (1, 1), "{context}");
                assert_eq!(pair.client.protection().is_authenticated(), level.authenticated, "{context}");
            }
        }
    }
}

#[test]
fn a_wrong_secret_proves_nothing_by_short_names() {
    let (client, server) = sides(Referencing::ShortNames, 500, 500);
    let (how, theirs) = (HighLevel::Md5(Password::new("mine")), HighLevel::Md5(Password::new("another")));
    let reader = HighLevelClient { role: ClientRole::Reader, how: theirs, title: None, minimum: Level::NONE };
    let challenge = |octet| Challenge::new([octet; Challenge::LEN]).unwrap();
    let authentication = Authentication::High { how, challenge: challenge(0xc1) };
    let mut session = ServerSession::new(ServerConfig { high_level: vec![reader], ..server });
    session.set_challenge(challenge(0x5e));
    let client = ClientSession::new(DummyLink::default(), ClientConfig { authentication, ..client });
    let mut pair = Pair::new(client, ServerConnection::new(DummyLink::default(), session));
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert_eq!(pair.result, Err(ClientError::ProofRefused(ActionResult::READ_WRITE_DENIED)));
    assert_eq!(pair.objects.reads, 0);
}
