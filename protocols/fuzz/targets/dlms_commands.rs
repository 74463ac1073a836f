use std::time::Duration;

use protocols::dlms::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult};
use protocols::dlms::client::{Assignment, ClientConfig, ClientError, ClientEvent, ClientOutput, ClientSession, Invocation, Limits, Selected};
use protocols::dlms::conformance::Conformance;
use protocols::dlms::server::{ClientRole, ObjectServer, Referencing, ServerConfig, ServerSession, ShortNames};
use protocols::link::LinkInput;
use protocols::metering::ObisCode;
use protocols::wrapper::{WrapperClient, WrapperConfig, Wpdu};

use super::dlms_server::is_unanswered;
use super::steps::steps;

const VALUE_OCTETS_MAX: usize = 1_000;
/// What the length field of the wrapper can say.
const ANSWER_OCTETS_MAX: usize = 65_535;
/// Blocks that a server sends unasked at most.
const MORE_MAX: usize = 62;
const CLOCK: CosemAttribute = CosemAttribute::new(8, ObisCode::new(0, 0, 1, 0, 0, 255), 2);
const PROFILE: CosemAttribute = CosemAttribute::new(7, ObisCode::new(1, 0, 99, 1, 0, 255), 2);
const SCRIPT: CosemMethod = CosemMethod::new(9, ObisCode::new(0, 0, 10, 0, 0, 255), 1);

/// Takes everything; methods return what they are given.
struct Objects;

impl ObjectServer for Objects {
    fn read(&mut self, _: CosemAttribute, _: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        Ok([&[9, 0x82, 0x07, 0xd0][..], &[0x55; 2_000]].concat())
    }

    fn write(&mut self, _: ClientRole, _: CosemAttribute, _: Option<&[u8]>, value: &[u8]) -> Result<(), DataAccessResult> {
        assert!(!value.is_empty());
        Ok(())
    }

    fn invoke(&mut self, _: ClientRole, _: CosemMethod, parameters: Option<&[u8]>) -> Result<Option<Vec<u8>>, ActionResult> {
        Ok(parameters.map(<[u8]>::to_vec))
    }

    fn short_names(&self) -> ShortNames {
        let all = [(CLOCK.class_id, CLOCK.obis, 9), (SCRIPT.class_id, SCRIPT.obis, 2), (PROFILE.class_id, PROFILE.obis, 8)];
        ShortNames::assign(all.map(|(class_id, obis, attributes)| (class_id, 0, obis, attributes)))
    }
}

/// The first octet says who is fuzzed: a server that can be changed, or a client that changes one. Both have every kind of blocks.
pub(crate) fn target(data: &[u8]) {
    converse(Referencing::LogicalNames, data);
}

pub(super) fn converse(referencing: Referencing, data: &[u8]) {
    match data.split_first() {
        Some((side, data)) if side % 2 == 0 => server(referencing, data),
        Some((_, data)) => client(referencing, data),
        None => {}
    }
}

/// Each step is an APDU of one client; the answer and what follows it are within bounds.
fn server(referencing: Referencing, data: &[u8]) {
    let conformance = ServerConfig::CONFORMANCE_WITH_COMMANDS | Conformance::GENERAL_BLOCK_TRANSFER;
    let mut session = ServerSession::new(ServerConfig { conformance, referencing, block_window: 63, ..ServerConfig::default() });
    for (_, apdu) in steps(data) {
        let answer = session.answer(apdu, &mut Objects);
        let is_block = apdu.first() == Some(&0xe0);
        assert!(answer.is_some() || is_block || is_unanswered(apdu), "silence after {apdu:02x?}");
        let more = std::iter::from_fn(|| session.take_more()).collect::<Vec<_>>();
        assert!(more.len() <= MORE_MAX && (more.is_empty() || is_block));
        assert!(answer.iter().chain(&more).all(|apdu| !apdu.is_empty() && apdu.len() <= ANSWER_OCTETS_MAX));
        session.take_event();
    }
}

type Session = ClientSession<WrapperClient>;

/// A step brings an APDU of the meter, or time. Whatever it answers, what is returned is bounded, and when nothing more is said an end
/// is near.
fn client(referencing: Referencing, data: &[u8]) {
    let config = ClientConfig {
        proposed: ClientConfig::PROPOSED_WITH_COMMANDS | Conformance::GENERAL_BLOCK_TRANSFER,
        referencing,
        max_receive_pdu_size: 128,
        limits: Limits { value_bytes_max: VALUE_OCTETS_MAX, ..Limits::default() },
        ..ClientConfig::default()
    };
    let mut session = ClientSession::new(WrapperClient::new(WrapperConfig::new(16, 1)), config);
    let mut now = Duration::ZERO;
    session.associate(now).expect("a session that is new");
    let value = [&[9, 100][..], &[0x55; 100]].concat();
    let assignment = Assignment { target: Selected::whole(CLOCK), value: value.clone() };
    let call = Invocation { method: SCRIPT, parameters: Some(value.clone()) };
    session.set(now, CLOCK, value.clone()).expect("a session that is new");
    session.invoke(now, SCRIPT, Some(value)).expect("a session that is new");
    session.set_list(now, vec![assignment.clone(); 2]).expect("a session that is new");
    session.invoke_list(now, vec![call; 2]).expect("a session that is new");
    session.get(now, PROFILE, None).expect("a session that is new");
    session.get_list(now, vec![Selected::whole(CLOCK), Selected::whole(PROFILE)]).expect("a session that is new");
    session.set_unconfirmed(now, assignment).expect("a session that is new");
    drain(&mut session);
    for (what, content) in steps(data) {
        let mut octets = Vec::new();
        let input = if what % 4 == 3 {
            now += Duration::from_millis(100 * content.len() as u64);
            LinkInput::Tick
        } else {
            Wpdu { source: 1, destination: 16, apdu: content }.encode(&mut octets).expect("an APDU of 255 octets");
            LinkInput::Received(&octets)
        };
        if session.handle(now, input).is_err() {
            drain(&mut session);
            assert_eq!(session.handle(now, LinkInput::Tick), Err(ClientError::Ended));
            return;
        }
        drain(&mut session);
    }
    for _ in 0..100 {
        let Some(at) = drain(&mut session) else { return };
        now = now.max(at);
        if session.handle(now, LinkInput::Tick).is_err() {
            return;
        }
    }
    panic!("no end");
}

/// When it wants to be called again.
fn drain(session: &mut Session) -> Option<Duration> {
    for _ in 0..300 {
        match session.poll() {
            ClientOutput::WaitUntil(at) => return at,
            ClientOutput::Event(ClientEvent::Invoked { results, .. }) => {
                let octets: usize = results.iter().flatten().flatten().map(|value| value.data.len()).sum();
                assert!(octets <= VALUE_OCTETS_MAX, "{octets} octets returned");
            }
            ClientOutput::Event(ClientEvent::Value { value, .. }) => assert!(value.data.len() <= VALUE_OCTETS_MAX),
            ClientOutput::Send(_) | ClientOutput::Event(_) => {}
        }
    }
    panic!("a flood of outputs");
}
