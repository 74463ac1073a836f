//! Our SET, ACTION and general block transfer against those of `dlms-cosem-rs`, whole and in blocks, in both directions.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail the test")]

#[expect(dead_code, reason = "the tests that read use the rest of it")]
mod peer;

use std::time::Duration;

use dlms_cosem_rs::acse::AuthMechanism;
use dlms_cosem_rs::axdr::Data as TheirData;
use dlms_cosem_rs::client as theirs;
use dlms_cosem_rs::codec::Decode;
use dlms_cosem_rs::obis::Obis;
use dlms_cosem_rs::security::{KeyRing, RustCryptoProvider};
use dlms_cosem_rs::server::{Server, ServerConfig as TheirServerConfig};
use dlms_cosem_rs::xdlms::{
    ActionResult as TheirActionResult, AttributeDescriptor, AttributeDescriptorWithSelection,
    DataAccessResult as TheirResult, GbtAction, GbtReceiver, GbtSender, GeneralBlockTransfer, MethodDescriptor,
};
use protocols::dlms::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult};
use protocols::dlms::block_transfer::BlockAssembler;
use protocols::dlms::client::{
    Assignment, ClientConfig, ClientEvent, ClientSession, Invocation, RequestError, Selected, Value,
};
use protocols::dlms::security::Plain;
use protocols::dlms::server::ServerConfig;
use protocols::dlms::value::DataValue;
use protocols::wrapper::{WrapperClient, WrapperConfig};

use peer::{CLIENT_WPORT, CLOCK, ECHO, ENERGY, OurServer, SERVER_WPORT, TheirObjects, TheirServer, encoded, run};

const RESET: CosemMethod = CosemMethod { method: 2, ..ECHO };

fn octets(len: usize) -> Vec<u8> {
    DataValue::OctetString((0..len).map(|index| index as u8).collect()).to_vec()
}

fn their_server(max_pdu_size: u16) -> TheirServer {
    let config = TheirServerConfig { mechanism: AuthMechanism::None, max_pdu_size, ..TheirServerConfig::default() };
    Server::new(config, TheirObjects::default(), RustCryptoProvider::new(KeyRing::default()))
}

#[test]
fn our_client_writes_and_invokes_at_their_server() {
    for (max_pdu_size, len) in [(1_024, 20), (1_024, 3_000), (100, 3_000)] {
        let config = ClientConfig {
            proposed: ClientConfig::PROPOSED_WITH_COMMANDS,
            max_receive_pdu_size: 300,
            ..ClientConfig::default()
        };
        let link = WrapperClient::new(WrapperConfig::new(CLIENT_WPORT, SERVER_WPORT));
        let mut client = ClientSession::new(link, config);
        let mut server = their_server(max_pdu_size);
        let now = Duration::ZERO;
        client.associate(now).unwrap();
        client.set(now, CLOCK, octets(len)).unwrap();
        let assignment = |attribute, len| Assignment { target: Selected::whole(attribute), value: octets(len) };
        let list = vec![assignment(CLOCK, len), assignment(ENERGY, 3), assignment(CLOCK, 5)];
        client.set_list(now, list).unwrap();
        client.invoke(now, ECHO, Some(octets(len))).unwrap();
        let calls = [(ECHO, Some(octets(20))), (RESET, None), (ECHO, None)];
        let calls = calls.map(|(method, parameters)| Invocation { method, parameters });
        client.invoke_list(now, calls.to_vec()).unwrap();
        client.release(now).unwrap();
        let events = run(&mut client, &mut server).unwrap();
        let written = |event: &ClientEvent| match event {
            ClientEvent::Written { results, .. } => results.clone(),
            other => panic!("{other:?}"),
        };
        let invoked = |event: &ClientEvent| match event {
            ClientEvent::Invoked { results, .. } => results.clone(),
            other => panic!("{other:?}"),
        };
        let denied = Err(RequestError::Refused(DataAccessResult::ReadWriteDenied));
        assert_eq!(written(&events[1]), [Ok(())]);
        assert_eq!(written(&events[2]), [Ok(()), denied, Ok(())]);
        assert_eq!(server.store().written, [octets(len), octets(len), octets(5)]);
        let value = |len| Ok(Some(Value { data: octets(len), surplus: 0 }));
        assert_eq!(invoked(&events[3]), [value(len)]);
        let undefined = Err(RequestError::MethodRefused(ActionResult::OBJECT_UNDEFINED));
        assert_eq!(invoked(&events[4]), [value(20), undefined, Ok(None)]);
    }
}

type TheirClient = theirs::ClientSession<RustCryptoProvider, 4_096>;

fn their_client(server: &mut OurServer<Plain>) -> TheirClient {
    let config = theirs::ClientConfig {
        client_sap: CLIENT_WPORT as u8,
        mechanism: AuthMechanism::None,
        max_pdu_size: 300,
        ..theirs::ClientConfig::default()
    };
    let mut client = TheirClient::new(config, RustCryptoProvider::new(KeyRing::default()));
    let mut out = [0; 1_024];
    let length = client.associate_request(&mut out).unwrap();
    let step = client.handle_associate_response(&server.exchange(&out[..length])).unwrap();
    assert_eq!(step, theirs::AssociationStep::Established);
    client
}

fn our_server() -> OurServer<Plain> {
    let conformance = ServerConfig::CONFORMANCE_WITH_COMMANDS;
    OurServer::new(ServerConfig { conformance, max_receive_pdu_size: 200, ..ServerConfig::default() }, Plain)
}

const fn descriptor(attribute: CosemAttribute) -> AttributeDescriptor {
    AttributeDescriptor::new(attribute.class_id, Obis(attribute.obis.0), attribute.attribute)
}

/// Sends what is left of a long value, and answers with what came of it.
fn upload(client: &mut TheirClient, server: &mut OurServer<Plain>, mut sender: theirs::BlockSender<'_>) -> Vec<u8> {
    let (mut out, mut scratch) = ([0; 1_024], vec![0; 8_192]);
    loop {
        let length = client.next_block_request(&mut sender, &mut out).unwrap();
        let answer = server.exchange(&out[..length]);
        if sender.is_done() {
            return answer;
        }
        let response = client.handle_response(&answer, &mut scratch).unwrap();
        assert!(matches!(response, theirs::Response::BlockAccepted { .. }), "{response:?}");
    }
}

#[test]
fn their_client_writes_and_invokes_at_our_server() {
    let mut server = our_server();
    let mut client = their_client(&mut server);
    let (mut out, mut scratch) = ([0; 1_024], vec![0; 8_192]);

    let value = octets(20);
    let length = client.set_request(descriptor(CLOCK), None, TheirData::from_bytes(&value).unwrap(), &mut out).unwrap();
    let answer = server.exchange(&out[..length]);
    assert_eq!(client.handle_response(&answer, &mut scratch).unwrap(), theirs::Response::Ok);

    let long = octets(3_000);
    let sender = client.set_transfer(descriptor(CLOCK), None, &long).unwrap();
    let answer = upload(&mut client, &mut server, sender);
    assert_eq!(client.handle_response(&answer, &mut scratch).unwrap(), theirs::Response::Ok);

    let items = [CLOCK, ENERGY]
        .map(|attribute| AttributeDescriptorWithSelection { descriptor: descriptor(attribute), access: None });
    let values = [TheirData::from_bytes(&long).unwrap(), TheirData::from_bytes(&value).unwrap()];
    let mut listed = vec![0; 4_096];
    let length = TheirClient::encode_value_list(&values, &mut listed).unwrap();
    let mut space = [0; 128];
    let sender = client.set_transfer_with_list(&items, &listed[..length], &mut space).unwrap();
    let answer = upload(&mut client, &mut server, sender);
    let theirs::Response::ResultList(results) = client.handle_response(&answer, &mut scratch).unwrap() else {
        panic!("{answer:02x?}")
    };
    let results: Vec<_> = results.iter().map(Result::unwrap).collect();
    assert_eq!(results, [TheirResult::Success, TheirResult::ReadWriteDenied]);
    assert_eq!(server.objects.written, [value.clone(), long.clone(), long.clone()]);

    let method = MethodDescriptor::new(ECHO.class_id, Obis(ECHO.obis.0), ECHO.method);
    let sender = client.action_transfer(method, &long).unwrap();
    let mut answer = upload(&mut client, &mut server, sender);
    let mut space = vec![0; 8_192];
    let mut collector = theirs::BlockCollector::new(&mut space);
    loop {
        match client.handle_response(&answer, &mut scratch).unwrap() {
            theirs::Response::Block { last, number, data } => {
                collector.push(number, data).unwrap();
                if last {
                    break;
                }
                let length = client.action_next_block_request(number, &mut out).unwrap();
                answer = server.exchange(&out[..length]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(encoded(&collector.value().unwrap()), long);

    let reset = MethodDescriptor::new(RESET.class_id, Obis(RESET.obis.0), RESET.method);
    let parameters = [Some(TheirData::from_bytes(&value).unwrap()), None];
    let length = client.action_request_with_list(&[method, reset], &parameters, &mut out).unwrap();
    let answer = server.exchange(&out[..length]);
    let theirs::Response::ActionResults(outcomes) = client.handle_response(&answer, &mut scratch).unwrap() else {
        panic!("{answer:02x?}")
    };
    let outcomes: Vec<_> = outcomes.iter().map(|outcome| outcome.unwrap().result).collect();
    assert_eq!(outcomes, [TheirActionResult::Success, TheirActionResult::ObjectUndefined]);
}

/// Their sessions have no general block transfer, but parts to build one of.
#[test]
fn their_blocks_make_our_apdu_and_ours_theirs() {
    let apdu = octets(3_000);
    let mut sender = GbtSender::new(&apdu, 100, 4, true).unwrap();
    let (mut assembler, mut out) = (BlockAssembler::default(), [0; 256]);
    let mut received = None;
    while received.is_none() {
        while let Some(length) = sender.next_block(&mut out).unwrap() {
            // They leave out the tag of the APDU.
            received = assembler.take(&[&[0xe0], &out[..length]].concat()).unwrap();
        }
        sender.acknowledge(sender.block()).unwrap();
    }
    assert_eq!(received.as_ref(), Some(&apdu));

    let mut space = vec![0; 4_096];
    let mut receiver = GbtReceiver::new(&mut space);
    let block = protocols::dlms::apdu::GeneralBlock {
        last: true,
        streaming: false,
        window: 1,
        number: 1,
        acknowledged: 0,
        data: &apdu[..200],
    };
    let encoded = block.encode();
    let theirs = GeneralBlockTransfer::from_bytes(&encoded[1..]).unwrap();
    assert_eq!(receiver.push(&theirs).unwrap(), GbtAction::Complete);
    assert_eq!(receiver.apdu(), &apdu[..200]);
}
