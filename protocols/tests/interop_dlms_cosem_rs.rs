//! Our sessions against those of `dlms-cosem-rs`, an independent implementation: whole conversations in both directions
//! over the wrapper, with the same meter contents behind both servers.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail the test")]

mod peer;

use std::time::Duration;

use dlms_cosem_rs::acse::{AuthMechanism, Diagnostic as TheirDiagnostic, UserDiagnostic};
use dlms_cosem_rs::axdr::DateTime as TheirDateTime;
use dlms_cosem_rs::client as theirs;
use dlms_cosem_rs::codec::Encode;
use dlms_cosem_rs::cosem::profile::RangeDescriptor;
use dlms_cosem_rs::obis::Obis;
use dlms_cosem_rs::security::{KeyRing, RustCryptoProvider, Secret};
use dlms_cosem_rs::server::{Server, ServerConfig as TheirServerConfig};
use dlms_cosem_rs::xdlms::{
    AttributeDescriptor, AttributeDescriptorWithSelection, DataAccessResult as TheirResult, GetDataResult,
};
use protocols::dlms::acse::{Diagnostic, Password};
use protocols::dlms::apdu::DataAccessResult;
use protocols::dlms::client::{
    Authentication, ClientConfig, ClientError, ClientEvent, ClientSession, ReadError, Selected,
};
use protocols::dlms::data::Data;
use protocols::dlms::security::Plain;
use protocols::dlms::server::{ClientRole, ServerConfig, ServerEvent};
use protocols::wrapper::{WrapperClient, WrapperConfig};

use peer::{
    CLIENT_WPORT, CLOCK, ENERGY, MISSING, OurServer, PASSWORD, PROFILE, SCALER, SERVER_WPORT, TheirObjects,
    TheirServer, contents, quarter, rows, run, single, their_read,
};

/// Selector 1 of the profile by its clock, as we write it.
fn range_selection(from: u16, to: u16) -> Vec<u8> {
    let mut selection =
        vec![0x01, 0x02, 0x04, 0x02, 0x04, 0x12, 0, 8, 0x09, 6, 0, 0, 1, 0, 0, 255, 0x0f, 2, 0x12, 0, 0];
    for edge in [from, to] {
        selection.extend([0x09, 0x0c]);
        selection.extend(quarter(edge));
    }
    selection.extend([0x01, 0x00]);
    selection
}

// Our client, their server.

fn their_server(mechanism: AuthMechanism) -> TheirServer {
    let password = (mechanism == AuthMechanism::Low).then(|| Secret::new(PASSWORD.as_bytes()).unwrap());
    let config = TheirServerConfig { mechanism, password, max_pdu_size: 600, ..TheirServerConfig::default() };
    Server::new(config, TheirObjects::default(), RustCryptoProvider::new(KeyRing::default()))
}

fn our_client(authentication: Authentication, max_receive_pdu_size: u16) -> ClientSession<WrapperClient> {
    let config = ClientConfig { authentication, max_receive_pdu_size, ..ClientConfig::default() };
    ClientSession::new(WrapperClient::new(WrapperConfig::new(CLIENT_WPORT, SERVER_WPORT)), config)
}

#[test]
fn our_client_reads_their_server() {
    for (mechanism, pdu_size) in [(AuthMechanism::None, 4_096), (AuthMechanism::Low, 600), (AuthMechanism::Low, 64)] {
        let authentication = match mechanism {
            AuthMechanism::Low => Authentication::Low(Password::new(PASSWORD)),
            _ => Authentication::None,
        };
        let mut client = our_client(authentication, pdu_size);
        let now = Duration::ZERO;
        client.associate(now).unwrap();
        for attribute in [ENERGY, SCALER, CLOCK, PROFILE, MISSING] {
            client.get(now, attribute, None).unwrap();
        }
        client.get(now, PROFILE, Some(range_selection(10, 19))).unwrap();
        let list = [ENERGY, MISSING, CLOCK].map(Selected::whole).to_vec();
        client.get_list(now, list).unwrap();
        client.release(now).unwrap();
        let events = run(&mut client, &mut their_server(mechanism)).unwrap();

        assert!(matches!(&events[0], ClientEvent::Associated(agreed) if agreed.server_max_receive_pdu_size == 600));
        for (event, attribute) in events[1..].iter().zip([ENERGY, SCALER, CLOCK, PROFILE]) {
            assert_eq!(single(event).ok(), contents(attribute, None), "{attribute}");
        }
        assert_eq!(single(&events[5]), Err(ReadError::Refused(DataAccessResult::ObjectUndefined)));
        let part = single(&events[6]).unwrap();
        assert_eq!(part, rows(&quarter(10), &quarter(19)));
        assert!(matches!(Data::from_bytes(&part), Ok(Data::Array(rows)) if rows.len() == 10));
        let ClientEvent::Values { results, .. } = &events[7] else { panic!("{events:?}") };
        assert_eq!(results[0].as_ref().ok().map(|value| value.data.clone()), contents(ENERGY, None));
        assert_eq!(results[1], Err(ReadError::Refused(DataAccessResult::ObjectUndefined)));
        assert_eq!(results[2].as_ref().ok().map(|value| value.data.clone()), contents(CLOCK, None));
        assert_eq!(events.len(), 8);
    }
}

#[test]
fn their_server_refuses_our_wrong_password_in_a_way_that_we_understand() {
    let mut client = our_client(Authentication::Low(Password::new("guess")), 600);
    client.associate(Duration::ZERO).unwrap();
    let error = run(&mut client, &mut their_server(AuthMechanism::Low)).unwrap_err();
    assert!(matches!(error, ClientError::Rejected { diagnostic: Diagnostic::AUTHENTICATION_FAILURE, .. }), "{error:?}");
}

// Their client, our server.

type TheirClient = theirs::ClientSession<RustCryptoProvider>;

fn our_server() -> OurServer<Plain> {
    let config = ServerConfig { reader_password: Some(Password::new(PASSWORD)), ..ServerConfig::default() };
    OurServer::new(config, Plain)
}

fn their_client(password: Option<&str>, max_pdu_size: u16) -> TheirClient {
    let config = theirs::ClientConfig {
        client_sap: CLIENT_WPORT as u8,
        mechanism: if password.is_some() { AuthMechanism::Low } else { AuthMechanism::None },
        password: password.map(|password| Secret::new(password.as_bytes()).unwrap()),
        max_pdu_size,
        ..theirs::ClientConfig::default()
    };
    theirs::ClientSession::new(config, RustCryptoProvider::new(KeyRing::default()))
}

fn associate(client: &mut TheirClient, server: &mut OurServer<Plain>) -> theirs::AssociationStep {
    let mut out = [0; 1_024];
    let length = client.associate_request(&mut out).unwrap();
    client.handle_associate_response(&server.exchange(&out[..length])).unwrap()
}

#[test]
fn their_client_reads_our_server() {
    for (password, pdu_size, role) in [
        (None, 1_024, ClientRole::Public),
        (Some(PASSWORD), 300, ClientRole::Reader),
        (Some(PASSWORD), 32, ClientRole::Reader),
    ] {
        let (mut client, mut server) = (their_client(password, pdu_size), our_server());
        assert_eq!(associate(&mut client, &mut server), theirs::AssociationStep::Established);
        for attribute in [ENERGY, SCALER, CLOCK, PROFILE] {
            let read = their_read(&mut client, &mut server, attribute, None);
            assert_eq!(read.ok(), contents(attribute, None), "{attribute}");
        }
        assert_eq!(their_read(&mut client, &mut server, MISSING, None), Err(TheirResult::ObjectUndefined));

        let mut space = [0; 128];
        let range =
            RangeDescriptor::by_clock(TheirDateTime::from_bytes(quarter(4)), TheirDateTime::from_bytes(quarter(7)));
        let selection = range.to_selective_access(&mut space).unwrap();
        let read = their_read(&mut client, &mut server, PROFILE, Some(selection));
        assert_eq!(read, Ok(rows(&quarter(4), &quarter(7))));

        let mut out = [0; 1_024];
        let length = client.release_request(&mut out).unwrap();
        let answer = server.exchange(&out[..length]);
        assert_eq!(client.handle_response(&answer, &mut [0; 64]).unwrap(), theirs::Response::Released);
        assert_eq!(server.events, [ServerEvent::Connected, ServerEvent::Associated(role), ServerEvent::Released]);
    }
}

#[test]
fn their_client_reads_a_list_from_our_server() {
    let (mut client, mut server) = (their_client(None, 1_024), our_server());
    associate(&mut client, &mut server);
    let items = [ENERGY, MISSING, CLOCK].map(|attribute| AttributeDescriptorWithSelection {
        descriptor: AttributeDescriptor::new(attribute.class_id, Obis(attribute.obis.0), attribute.attribute),
        access: None,
    });
    let (mut out, mut scratch) = ([0; 1_024], [0; 1_024]);
    let length = client.get_request_with_list(&items, &mut out).unwrap();
    let answer = server.exchange(&out[..length]);
    let theirs::Response::DataList(list) = client.handle_response(&answer, &mut scratch).unwrap() else { panic!() };
    let results: Vec<_> = list
        .iter()
        .map(|result| match result.unwrap() {
            GetDataResult::Data(value) => {
                let mut encoded = Vec::new();
                value.encode(&mut encoded).unwrap();
                Ok(encoded)
            }
            GetDataResult::Error(refused) => Err(refused),
        })
        .collect();
    let expected =
        [ENERGY, MISSING, CLOCK].map(|attribute| contents(attribute, None).ok_or(TheirResult::ObjectUndefined));
    assert_eq!(results, expected);
}

#[test]
fn our_server_refuses_their_wrong_password_in_a_way_that_they_understand() {
    let (mut client, mut server) = (their_client(Some("guess"), 1_024), our_server());
    match associate(&mut client, &mut server) {
        theirs::AssociationStep::Rejected { diagnostic, .. } => {
            assert_eq!(diagnostic, TheirDiagnostic::User(UserDiagnostic::AuthenticationFailure));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.events[1..], [ServerEvent::Rejected(Diagnostic::AUTHENTICATION_FAILURE)]);
}
