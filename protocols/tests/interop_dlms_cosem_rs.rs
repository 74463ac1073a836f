//! Our sessions against those of `dlms-cosem-rs`, an independent implementation: whole conversations in both directions
//! over the wrapper, with the same meter contents behind both servers.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail the test")]

use std::collections::VecDeque;
use std::time::Duration;

use dlms_cosem_rs::acse::{AuthMechanism, Diagnostic as TheirDiagnostic, UserDiagnostic};
use dlms_cosem_rs::axdr::DateTime as TheirDateTime;
use dlms_cosem_rs::client as theirs;
use dlms_cosem_rs::codec::{Encode, Writer};
use dlms_cosem_rs::cosem::AttributeAccess;
use dlms_cosem_rs::cosem::profile::RangeDescriptor;
use dlms_cosem_rs::obis::Obis;
use dlms_cosem_rs::security::{KeyRing, RustCryptoProvider, Secret};
use dlms_cosem_rs::server::{ObjectStore, Server, ServerConfig as TheirServerConfig, StoreResult};
use dlms_cosem_rs::transport::wrapper::{StreamReassembler, Wpdu};
use dlms_cosem_rs::xdlms::{
    AttributeDescriptor, AttributeDescriptorWithSelection, DataAccessResult as TheirResult, GetDataResult,
    SelectiveAccess,
};
use protocols::dlms::acse::{Diagnostic, Password};
use protocols::dlms::apdu::{CosemAttribute, DataAccessResult};
use protocols::dlms::client::{
    Authentication, ClientConfig, ClientError, ClientEvent, ClientOutput, ClientSession, ReadError, Selected,
};
use protocols::dlms::data::Data;
use protocols::dlms::server::{
    ClientRole, ObjectServer, ServerConfig, ServerConnection, ServerEvent, ServerOutput, ServerSession,
};
use protocols::link::LinkInput;
use protocols::metering::ObisCode;
use protocols::wrapper::{WrapperClient, WrapperConfig, WrapperServer};

const CLIENT_WPORT: u16 = 0x20;
const SERVER_WPORT: u16 = 1;
const PASSWORD: &str = "meter-reader";

const ENERGY: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);
const SCALER: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 3);
const CLOCK: CosemAttribute = CosemAttribute::new(8, ObisCode::new(0, 0, 1, 0, 0, 255), 2);
const PROFILE: CosemAttribute = CosemAttribute::new(7, ObisCode::new(1, 0, 99, 1, 0, 255), 2);
const MISSING: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 99, 99, 99, 255), 2);

// The contents of the meter, one function for both servers.

/// Quarter hours of 7 November 2026, UTC.
fn quarter(row: u16) -> [u8; 12] {
    let minute = row * 15;
    [0x07, 0xea, 11, 7, 6, (minute / 60) as u8, (minute % 60) as u8, 0, 0, 0, 0, 0]
}

const ROWS: u16 = 96;

/// The rows whose clock lies between two instants, both included.
fn rows(from: &[u8], to: &[u8]) -> Vec<u8> {
    let chosen: Vec<u16> = (0..ROWS).filter(|row| (from..=to).contains(&&quarter(*row)[..])).collect();
    let mut data = vec![0x01, chosen.len() as u8];
    for row in chosen {
        data.extend([0x02, 0x03, 0x09, 0x0c]);
        data.extend(quarter(row));
        data.extend([0x11, 0x00, 0x06]);
        data.extend((1_000_000 + u32::from(row) * 17).to_be_bytes());
    }
    data
}

fn contents(attribute: CosemAttribute, range: Option<(&[u8], &[u8])>) -> Option<Vec<u8>> {
    match (attribute, range) {
        (ENERGY, None) => Some(vec![0x06, 0x00, 0xbc, 0x61, 0x4e]),
        (SCALER, None) => Some(vec![0x02, 0x02, 0x0f, 0xff, 0x16, 30]),
        (CLOCK, None) => Some([&[0x09, 0x0c][..], &quarter(47)].concat()),
        (PROFILE, None) => Some(rows(&quarter(0), &quarter(ROWS - 1))),
        (PROFILE, Some((from, to))) => Some(rows(from, to)),
        _ => None,
    }
}

struct OurObjects;

impl ObjectServer for OurObjects {
    fn read(&mut self, attribute: CosemAttribute, selection: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        let Some(selection) = selection else {
            return contents(attribute, None).ok_or(DataAccessResult::ObjectUndefined);
        };
        let parsed = Data::from_bytes(&selection[1..]).map_err(|_| DataAccessResult::TypeUnmatched)?;
        let (1, Data::Structure(range)) = (selection[0], parsed) else { return Err(DataAccessResult::TypeUnmatched) };
        let (Some(Data::OctetString(from)), Some(Data::OctetString(to))) = (range.at(1), range.at(2)) else {
            return Err(DataAccessResult::TypeUnmatched);
        };
        contents(attribute, Some((from, to))).ok_or(DataAccessResult::ScopeOfAccessViolated)
    }
}

struct TheirObjects;

impl ObjectStore for TheirObjects {
    fn get_attribute(
        &self,
        class_id: u16,
        name: Obis,
        attribute: i8,
        selection: Option<SelectiveAccess<'_>>,
        writer: &mut dyn Writer,
    ) -> StoreResult<()> {
        let obis = ObisCode(name.into());
        let attribute = CosemAttribute::new(class_id, obis, attribute);
        let value = match selection {
            None => contents(attribute, None).ok_or(TheirResult::ObjectUndefined)?,
            Some(selection) => {
                let range = selection.parameters.as_structure().ok_or(TheirResult::TypeUnmatched)?;
                let edge =
                    |index| range.get(index).ok().and_then(|edge| edge.as_bytes()).ok_or(TheirResult::TypeUnmatched);
                contents(attribute, Some((edge(1)?, edge(2)?))).ok_or(TheirResult::ScopeOfAccessViolated)?
            }
        };
        writer.write_bytes(&value).map_err(|_| TheirResult::OtherReason)
    }

    fn attribute_access(&self, _class_id: u16, _name: Obis, _attribute: i8) -> AttributeAccess {
        AttributeAccess::READ
    }
}

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

type TheirServer = Server<TheirObjects, RustCryptoProvider, 8192>;

fn their_server(mechanism: AuthMechanism) -> TheirServer {
    let password = (mechanism == AuthMechanism::Low).then(|| Secret::new(PASSWORD.as_bytes()).unwrap());
    let config = TheirServerConfig { mechanism, password, max_pdu_size: 600, ..TheirServerConfig::default() };
    Server::new(config, TheirObjects, RustCryptoProvider::new(KeyRing::default()))
}

fn our_client(authentication: Authentication, max_receive_pdu_size: u16) -> ClientSession<WrapperClient> {
    let config = ClientConfig { authentication, max_receive_pdu_size, ..ClientConfig::default() };
    ClientSession::new(WrapperClient::new(WrapperConfig::new(CLIENT_WPORT, SERVER_WPORT)), config)
}

/// Passes bytes until our client is done.
fn run(client: &mut ClientSession<WrapperClient>, server: &mut TheirServer) -> Result<Vec<ClientEvent>, ClientError> {
    let reassembler = StreamReassembler::new(2_048);
    let (mut buffered, mut answer) = (Vec::new(), [0; 8_192]);
    let mut events = Vec::new();
    let mut incoming = VecDeque::new();
    let mut now = Duration::ZERO;
    loop {
        match client.poll() {
            ClientOutput::Send(bytes) => {
                buffered.extend(bytes);
                while let Some((wpdu, used)) = reassembler.next_pdu(&buffered).unwrap() {
                    assert_eq!((wpdu.header.source, wpdu.header.destination), (CLIENT_WPORT, SERVER_WPORT));
                    let length = server.handle(wpdu.apdu, &mut answer).unwrap();
                    let mut framed = Vec::new();
                    Wpdu::new(SERVER_WPORT, CLIENT_WPORT, &answer[..length]).unwrap().encode(&mut framed).unwrap();
                    incoming.push_back(framed);
                    buffered.drain(..used);
                }
            }
            ClientOutput::Event(ClientEvent::Released) => return Ok(events),
            ClientOutput::Event(event) => events.push(event),
            ClientOutput::WaitUntil(_) => {
                let bytes = incoming.pop_front().expect("the server owes an answer");
                now += Duration::from_millis(5);
                client.handle(now, LinkInput::Received(&bytes))?;
            }
        }
    }
}

fn single(event: &ClientEvent) -> Result<Vec<u8>, ReadError> {
    match event {
        ClientEvent::Value { value, .. } if value.surplus == 0 => Ok(value.data.clone()),
        ClientEvent::Failed { error, .. } => Err(error.clone()),
        other => panic!("{other:?}"),
    }
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

struct OurServer {
    connection: ServerConnection<WrapperServer>,
    events: Vec<ServerEvent>,
    now: Duration,
}

impl OurServer {
    fn new() -> Self {
        let config = ServerConfig { reader_password: Some(Password::new(PASSWORD)), ..ServerConfig::default() };
        let link = WrapperServer::new(WrapperConfig::new(CLIENT_WPORT, SERVER_WPORT));
        let mut connection = ServerConnection::new(link, ServerSession::new(config));
        connection.connect(Duration::ZERO, &mut OurObjects).unwrap();
        Self { connection, events: Vec::new(), now: Duration::ZERO }
    }

    /// Passes one APDU in their framing, octet by octet, and takes the answer out of ours.
    fn exchange(&mut self, apdu: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        Wpdu::new(CLIENT_WPORT, SERVER_WPORT, apdu).unwrap().encode(&mut framed).unwrap();
        let mut answer = Vec::new();
        for octet in framed {
            self.now += Duration::from_millis(1);
            self.connection.handle(self.now, LinkInput::Received(&[octet]), &mut OurObjects).unwrap();
            loop {
                match self.connection.poll() {
                    ServerOutput::Send(bytes) => answer.extend(bytes),
                    ServerOutput::Event(event) => self.events.push(event),
                    ServerOutput::WaitUntil(_) => break,
                }
            }
        }
        let (wpdu, used) = StreamReassembler::new(0).next_pdu(&answer).unwrap().expect("an answer");
        assert_eq!((wpdu.header.source, wpdu.header.destination), (SERVER_WPORT, CLIENT_WPORT));
        assert_eq!(used, answer.len(), "one answer to one request");
        wpdu.apdu.to_vec()
    }
}

type TheirClient = theirs::ClientSession<RustCryptoProvider>;

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

fn associate(client: &mut TheirClient, server: &mut OurServer) -> theirs::AssociationStep {
    let mut out = [0; 1_024];
    let length = client.associate_request(&mut out).unwrap();
    client.handle_associate_response(&server.exchange(&out[..length])).unwrap()
}

/// What their client makes of our answer, encoded again by them; blocks are fetched and put together by them too.
fn their_read(
    client: &mut TheirClient,
    server: &mut OurServer,
    attribute: CosemAttribute,
    selection: Option<SelectiveAccess<'_>>,
) -> Result<Vec<u8>, TheirResult> {
    let (mut out, mut scratch, mut space) = ([0; 1_024], vec![0; 8_192], vec![0; 65_536]);
    let descriptor = AttributeDescriptor::new(attribute.class_id, Obis(attribute.obis.0), attribute.attribute);
    let mut length = client.get_request(descriptor, selection, &mut out).unwrap();
    let mut collector = theirs::BlockCollector::new(&mut space);
    loop {
        let answer = server.exchange(&out[..length]);
        match client.handle_response(&answer, &mut scratch).unwrap() {
            theirs::Response::Data(value) => {
                let mut encoded = Vec::new();
                value.encode(&mut encoded).unwrap();
                return Ok(encoded);
            }
            theirs::Response::DataError(refused) => return Err(refused),
            theirs::Response::Block { last, number, data } => {
                collector.push(number, data).unwrap();
                if last {
                    let mut encoded = Vec::new();
                    collector.value().unwrap().encode(&mut encoded).unwrap();
                    return Ok(encoded);
                }
                length = client.get_next_block_request(number, &mut out).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn their_client_reads_our_server() {
    for (password, pdu_size, role) in [
        (None, 1_024, ClientRole::Public),
        (Some(PASSWORD), 300, ClientRole::Reader),
        (Some(PASSWORD), 32, ClientRole::Reader),
    ] {
        let (mut client, mut server) = (their_client(password, pdu_size), OurServer::new());
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
    let (mut client, mut server) = (their_client(None, 1_024), OurServer::new());
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
    let (mut client, mut server) = (their_client(Some("guess"), 1_024), OurServer::new());
    match associate(&mut client, &mut server) {
        theirs::AssociationStep::Rejected { diagnostic, .. } => {
            assert_eq!(diagnostic, TheirDiagnostic::User(UserDiagnostic::AuthenticationFailure));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.events[1..], [ServerEvent::Rejected(Diagnostic::AUTHENTICATION_FAILURE)]);
}
