//! The other implementation, `dlms-cosem-rs`, and ours at one line: the contents of a meter, one function for both servers, and how
//! bytes go to and fro.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail the test")]

use std::collections::VecDeque;
use std::time::Duration;

use dlms_cosem_rs::axdr::Data as TheirData;
use dlms_cosem_rs::client as theirs;
use dlms_cosem_rs::codec::{Encode, Writer};
use dlms_cosem_rs::cosem::{AttributeAccess, MethodAccess, ShortName, ShortNameTarget};
use dlms_cosem_rs::obis::Obis;
use dlms_cosem_rs::security::{CryptoProvider, RandomSource, RustCryptoProvider};
use dlms_cosem_rs::server::{ObjectStore, Server, StoreResult};
use dlms_cosem_rs::transport::wrapper::{StreamReassembler, Wpdu};
use dlms_cosem_rs::xdlms::{
    ActionResult as TheirActionResult, AttributeDescriptor, DataAccessResult as TheirResult, SelectiveAccess,
};
use protocols::dlms::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult};
use protocols::dlms::client::{ClientError, ClientEvent, ClientOutput, ClientSession, ReadError};
use protocols::dlms::data::Data;
use protocols::dlms::security::{Challenge, Protection};
use protocols::dlms::server::{
    ClientRole, ObjectServer, ServerConfig, ServerConnection, ServerEvent, ServerOutput, ServerSession, ShortNames,
};
use protocols::dlms::short_names::NamedObject;
use protocols::link::LinkInput;
use protocols::metering::ObisCode;
use protocols::wrapper::{WrapperClient, WrapperConfig, WrapperServer};

pub(crate) const CLIENT_WPORT: u16 = 0x20;
pub(crate) const SERVER_WPORT: u16 = 1;
pub(crate) const PASSWORD: &str = "meter-reader";

pub(crate) const ENERGY: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);
pub(crate) const SCALER: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 3);
pub(crate) const CLOCK: CosemAttribute = CosemAttribute::new(8, ObisCode::new(0, 0, 1, 0, 0, 255), 2);
pub(crate) const PROFILE: CosemAttribute = CosemAttribute::new(7, ObisCode::new(1, 0, 99, 1, 0, 255), 2);
pub(crate) const ECHO: CosemMethod = CosemMethod::new(9, ObisCode::new(0, 0, 10, 0, 0, 255), 1);
pub(crate) const MISSING: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 99, 99, 99, 255), 2);

/// An object, how many attributes it has and, by its class, where its methods are and how many there are.
type Named = (NamedObject, u8, Option<(u16, u8)>);
/// Base names of both meters.
pub(crate) const NAMES: [Named; 5] = [
    (named(0x0028, 3, ENERGY.obis), 3, Some((0x28, 1))),
    (named(0x0100, 8, CLOCK.obis), 9, Some((0x60, 6))),
    (named(0x0200, 7, PROFILE.obis), 8, Some((0x58, 2))),
    (named(0x0300, 9, ECHO.obis), 2, Some((0x20, 1))),
    (ShortNames::ASSOCIATION, 3, Some((0x20, 8))),
];
const LIST: CosemAttribute = CosemAttribute::new(12, ShortNames::ASSOCIATION.logical_name, 2);

const fn named(base_name: u16, class_id: u16, logical_name: ObisCode) -> NamedObject {
    NamedObject { base_name, class_id, version: 0, logical_name }
}

/// The object list of class 12, octet by octet.
fn object_list() -> Vec<u8> {
    let mut list = vec![0x01, NAMES.len() as u8];
    for (NamedObject { base_name, class_id, version, logical_name }, ..) in NAMES {
        list.extend([0x02, 0x04, 0x10]);
        list.extend(base_name.to_be_bytes());
        list.push(0x12);
        list.extend(class_id.to_be_bytes());
        list.extend([0x11, version, 0x09, 6]);
        list.extend(logical_name.0);
    }
    list
}

// The contents of the meter, one function for both servers.

/// Quarter hours of 7 November 2026, UTC.
pub(crate) fn quarter(row: u16) -> [u8; 12] {
    let minute = row * 15;
    [0x07, 0xea, 11, 7, 6, (minute / 60) as u8, (minute % 60) as u8, 0, 0, 0, 0, 0]
}

pub(crate) const ROWS: u16 = 96;

/// The rows whose clock lies between two instants, both included.
pub(crate) fn rows(from: &[u8], to: &[u8]) -> Vec<u8> {
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

pub(crate) fn contents(attribute: CosemAttribute, range: Option<(&[u8], &[u8])>) -> Option<Vec<u8>> {
    match (attribute, range) {
        (ENERGY, None) => Some(vec![0x06, 0x00, 0xbc, 0x61, 0x4e]),
        (SCALER, None) => Some(vec![0x02, 0x02, 0x0f, 0xff, 0x16, 30]),
        (CLOCK, None) => Some([&[0x09, 0x0c][..], &quarter(47)].concat()),
        (PROFILE, None) => Some(rows(&quarter(0), &quarter(ROWS - 1))),
        (PROFILE, Some((from, to))) => Some(rows(from, to)),
        (LIST, None) => Some(object_list()),
        _ => None,
    }
}

/// Takes what is written to the clock, and returns what [`ECHO`] is given.
#[derive(Default)]
pub(crate) struct OurObjects {
    pub(crate) written: Vec<Vec<u8>>,
}

impl ObjectServer for OurObjects {
    fn write(
        &mut self,
        _: ClientRole,
        attribute: CosemAttribute,
        _: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), DataAccessResult> {
        if attribute != CLOCK {
            return Err(DataAccessResult::ReadWriteDenied);
        }
        self.written.push(value.to_vec());
        Ok(())
    }

    fn invoke(
        &mut self,
        _: ClientRole,
        method: CosemMethod,
        parameters: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, ActionResult> {
        if method == ECHO { Ok(parameters.map(<[u8]>::to_vec)) } else { Err(ActionResult::OBJECT_UNDEFINED) }
    }

    fn short_names(&self) -> ShortNames {
        ShortNames::new(NAMES.map(|(named, ..)| named))
    }

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

/// As [`OurObjects`].
#[derive(Default)]
pub(crate) struct TheirObjects {
    pub(crate) written: Vec<Vec<u8>>,
}

impl ObjectStore for TheirObjects {
    fn resolve_short_name(&self, name: u16) -> Option<ShortNameTarget> {
        NAMES.iter().find_map(|(named, attributes, methods)| {
            let object = ShortName::new(named.base_name, named.class_id, Obis(named.logical_name.0), *attributes);
            methods.map_or(object, |(offset, count)| object.with_methods(offset, count)).resolve(name)
        })
    }

    fn set_attribute(
        &mut self,
        class_id: u16,
        name: Obis,
        attribute: i8,
        _: Option<SelectiveAccess<'_>>,
        value: TheirData<'_>,
    ) -> StoreResult<()> {
        if CosemAttribute::new(class_id, ObisCode(name.into()), attribute) != CLOCK {
            return Err(TheirResult::ReadWriteDenied);
        }
        self.written.push(encoded(&value));
        Ok(())
    }

    fn invoke_method(
        &mut self,
        class_id: u16,
        name: Obis,
        method: i8,
        parameters: Option<TheirData<'_>>,
        writer: &mut dyn Writer,
    ) -> Result<bool, TheirActionResult> {
        if CosemMethod::new(class_id, ObisCode(name.into()), method) != ECHO {
            return Err(TheirActionResult::ObjectUndefined);
        }
        let Some(parameters) = parameters else { return Ok(false) };
        writer.write_bytes(&encoded(&parameters)).map_err(|_| TheirActionResult::OtherReason)?;
        Ok(true)
    }

    fn method_access(&self, _class_id: u16, _name: Obis, _method: i8) -> MethodAccess {
        MethodAccess::ACCESS
    }

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
        AttributeAccess::READ | AttributeAccess::WRITE
    }
}

/// What they write of a value.
pub(crate) fn encoded(value: &TheirData<'_>) -> Vec<u8> {
    let mut encoded = Vec::new();
    value.encode(&mut encoded).unwrap();
    encoded
}

pub(crate) type TheirServer<R = ()> = Server<TheirObjects, RustCryptoProvider<R>, 8192>;

/// Passes bytes until our client is done.
pub(crate) fn run<P: Protection, R: RandomSource>(
    client: &mut ClientSession<WrapperClient, P>,
    server: &mut TheirServer<R>,
) -> Result<Vec<ClientEvent>, ClientError> {
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

pub(crate) fn single(event: &ClientEvent) -> Result<Vec<u8>, ReadError> {
    match event {
        ClientEvent::Value { value, .. } if value.surplus == 0 => Ok(value.data.clone()),
        ClientEvent::Failed { error, .. } => Err(error.clone()),
        other => panic!("{other:?}"),
    }
}

pub(crate) struct OurServer<P: Protection> {
    pub(crate) connection: ServerConnection<WrapperServer, P>,
    pub(crate) events: Vec<ServerEvent>,
    pub(crate) objects: OurObjects,
    now: Duration,
}

impl<P: Protection> OurServer<P> {
    pub(crate) fn new(config: ServerConfig, protection: P) -> Self {
        let link = WrapperServer::new(WrapperConfig::new(CLIENT_WPORT, SERVER_WPORT));
        let mut session = ServerSession::with_protection(config, protection);
        session.set_challenge(Challenge::new([0x5e; Challenge::LEN]).unwrap());
        let mut connection = ServerConnection::new(link, session);
        let mut objects = OurObjects::default();
        connection.connect(Duration::ZERO, &mut objects).unwrap();
        Self { connection, events: Vec::new(), objects, now: Duration::ZERO }
    }

    /// Passes one APDU in their framing, octet by octet, and takes the answer out of ours.
    pub(crate) fn exchange(&mut self, apdu: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        Wpdu::new(CLIENT_WPORT, SERVER_WPORT, apdu).unwrap().encode(&mut framed).unwrap();
        let mut answer = Vec::new();
        for octet in framed {
            self.now += Duration::from_millis(1);
            self.connection.handle(self.now, LinkInput::Received(&[octet]), &mut self.objects).unwrap();
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

/// What their client makes of our answer, encoded again by them; blocks are fetched and put together by them too.
pub(crate) fn their_read<C: CryptoProvider, P: Protection>(
    client: &mut theirs::ClientSession<C>,
    server: &mut OurServer<P>,
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
            theirs::Response::Data(value) => return Ok(encoded(&value)),
            theirs::Response::DataError(refused) => return Err(refused),
            theirs::Response::Block { last, number, data } => {
                collector.push(number, data).unwrap();
                if last {
                    return Ok(encoded(&collector.value().unwrap()));
                }
                length = client.get_next_block_request(number, &mut out).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}
