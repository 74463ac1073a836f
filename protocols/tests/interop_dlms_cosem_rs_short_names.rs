//! Our Read and Write by short names against those of `dlms-cosem-rs`, in both directions.

#[expect(dead_code, reason = "the tests of logical names use the rest of it")]
mod peer;

use std::time::Duration;

use dlms_cosem_rs::acse::{AuthMechanism, Referencing as TheirReferencing};
use dlms_cosem_rs::axdr::Data as TheirData;
use dlms_cosem_rs::client as theirs;
use dlms_cosem_rs::security::{KeyRing, RustCryptoProvider};
use dlms_cosem_rs::server::{Server, ServerConfig as TheirServerConfig};
use dlms_cosem_rs::xdlms::{
    Conformance as TheirConformance, DataAccessResult as TheirResult, ReadResult, VariableAccess, WriteResult,
};
use protocols::dlms::apdu::DataAccessResult;
use protocols::dlms::client::{
    Assignment, ClientConfig, ClientEvent, ClientSession, Invocation, ReadError, Referencing, RequestError, Selected,
};
use protocols::dlms::security::Plain;
use protocols::dlms::server::ServerConfig;
use protocols::wrapper::{WrapperClient, WrapperConfig};

use peer::{
    CLIENT_WPORT, CLOCK, ECHO, ENERGY, MISSING, OurServer, PROFILE, SCALER, SERVER_WPORT, TheirObjects, TheirServer,
    contents, encoded, run, single,
};

fn their_server() -> TheirServer {
    let config = TheirServerConfig {
        mechanism: AuthMechanism::None,
        referencing: TheirReferencing::ShortName,
        conformance: TheirConformance::all(),
        ..TheirServerConfig::default()
    };
    Server::new(config, TheirObjects::default(), RustCryptoProvider::new(KeyRing::default()))
}

#[test]
fn our_client_reads_writes_and_invokes_at_their_server() {
    for pdu_size in [4_096, 600, 64] {
        let config = ClientConfig {
            proposed: ClientConfig::PROPOSED_WITH_COMMANDS,
            referencing: Referencing::ShortNames,
            max_receive_pdu_size: pdu_size,
            ..ClientConfig::default()
        };
        let link = WrapperClient::new(WrapperConfig::new(CLIENT_WPORT, SERVER_WPORT));
        let (mut client, mut server, now) = (ClientSession::new(link, config), their_server(), Duration::ZERO);
        client.associate(now).unwrap();
        for attribute in [ENERGY, SCALER, CLOCK, PROFILE, MISSING] {
            client.get(now, attribute, None).unwrap();
        }
        client.get_list(now, [ENERGY, MISSING, CLOCK, PROFILE].map(Selected::whole).to_vec()).unwrap();
        let value = contents(CLOCK, None).unwrap();
        let assignment = |attribute| Assignment { target: Selected::whole(attribute), value: value.clone() };
        client.set_list(now, vec![assignment(CLOCK), assignment(ENERGY)]).unwrap();
        let calls = [Some(value.clone()), None].map(|parameters| Invocation { method: ECHO, parameters });
        client.invoke_list(now, calls.to_vec()).unwrap();
        client.release(now).unwrap();
        let events = run(&mut client, &mut server).unwrap();
        assert!(matches!(&events[1], ClientEvent::ShortNames(Ok(names)) if names.objects().len() == 5), "{events:?}");
        for (event, attribute) in events[2..].iter().zip([ENERGY, SCALER, CLOCK, PROFILE]) {
            assert_eq!(single(event).ok(), contents(attribute, None), "{attribute}");
        }
        let undefined = ReadError::Refused(DataAccessResult::ObjectUndefined);
        assert_eq!(single(&events[6]), Err(undefined.clone()));
        let ClientEvent::Values { results, .. } = &events[7] else { panic!("{events:?}") };
        for (result, attribute) in results.iter().zip([ENERGY, MISSING, CLOCK, PROFILE]) {
            assert_eq!(result.as_ref().ok().map(|value| value.data.clone()), contents(attribute, None), "{pdu_size}");
        }
        let ClientEvent::Written { results, .. } = &events[8] else { panic!("{events:?}") };
        assert_eq!(results[..], [Ok(()), Err(RequestError::Refused(DataAccessResult::ReadWriteDenied))]);
        assert_eq!(server.store().written, std::slice::from_ref(&value));
        let ClientEvent::Invoked { results, .. } = &events[9] else { panic!("{events:?}") };
        assert_eq!(results[0].as_ref().unwrap().as_ref().map(|returned| &returned.data), Some(&value));
        assert_eq!(results[1], Ok(None));
    }
}

#[test]
fn their_client_reads_and_writes_at_our_server() {
    let config = theirs::ClientConfig {
        client_sap: CLIENT_WPORT as u8,
        mechanism: AuthMechanism::None,
        referencing: TheirReferencing::ShortName,
        conformance: TheirConformance::all(),
        max_pdu_size: 256,
        ..theirs::ClientConfig::default()
    };
    let mut client: theirs::ClientSession<RustCryptoProvider> =
        theirs::ClientSession::new(config, RustCryptoProvider::new(KeyRing::default()));
    let conformance = ServerConfig::CONFORMANCE_WITH_COMMANDS;
    let ours = ServerConfig { conformance, referencing: Referencing::ShortNames, ..ServerConfig::default() };
    let mut server = OurServer::new(ours, Plain);
    let (mut out, mut scratch, mut space) = ([0; 1_024], vec![0; 8_192], vec![0; 65_536]);
    let length = client.associate_request(&mut out).unwrap();
    let step = client.handle_associate_response(&server.exchange(&out[..length])).unwrap();
    assert_eq!(step, theirs::AssociationStep::Established);

    let wanted = [0x0030, 0x0999, 0x0108].map(VariableAccess::VariableName);
    let length = client.read_request(&wanted, &mut out).unwrap();
    let answer = server.exchange(&out[..length]);
    let theirs::Response::ReadResults(list) = client.handle_response(&answer, &mut scratch).unwrap() else { panic!() };
    let results: Vec<_> = list
        .iter()
        .map(|result| match result.unwrap() {
            ReadResult::Data(value) => Ok(encoded(&value)),
            ReadResult::Error(refused) => Err(refused),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected =
        [ENERGY, MISSING, CLOCK].map(|attribute| contents(attribute, None).ok_or(TheirResult::ObjectUndefined));
    assert_eq!(results, expected);

    // The profile is too long for one answer.
    let mut collector = theirs::BlockCollector::new(&mut space);
    let mut length = client.read_request(&[VariableAccess::VariableName(0x0208)], &mut out).unwrap();
    loop {
        let answer = server.exchange(&out[..length]);
        let response = client.handle_response(&answer, &mut scratch).unwrap();
        let theirs::Response::ReadResults(list) = response else { panic!("{response:?}") };
        let Some(Ok(ReadResult::Block { last_block, block_number, raw_data })) = list.iter().next() else { panic!() };
        collector.push(block_number.into(), raw_data).unwrap();
        if last_block {
            break;
        }
        length = client.read_next_block_request(block_number, &mut out).unwrap();
    }
    assert_eq!(Some(encoded(&collector.value().unwrap())), contents(PROFILE, None));

    let variables = [0x0108, 0x0030].map(VariableAccess::VariableName);
    let values = [TheirData::Unsigned(7), TheirData::Unsigned(8)];
    let length = client.write_request(&variables, &values, &mut out).unwrap();
    let answer = server.exchange(&out[..length]);
    let response = client.handle_response(&answer, &mut scratch).unwrap();
    let theirs::Response::WriteResults(list) = response else { panic!("{response:?}") };
    let results: Vec<_> = list.iter().map(Result::unwrap).collect();
    assert_eq!(results, [WriteResult::Success, WriteResult::Error(TheirResult::ReadWriteDenied)]);
    assert_eq!(server.objects.written, [vec![0x11, 7]]);
}
