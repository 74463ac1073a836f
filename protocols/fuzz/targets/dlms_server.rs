use protocols::dlms::acse::{Password, RLRQ};
use protocols::dlms::apdu::{CosemAttribute, DataAccessResult, InvokeId, tag};
use protocols::dlms::server::{ObjectServer, ServerConfig, ServerSession};
use protocols::dlms::value::DataValue;

use super::steps::steps;

const VALUE_OCTETS_MAX: usize = 3_000;
/// What the length field of the wrapper can say.
const ANSWER_OCTETS_MAX: usize = 65_535;

/// A register, and a profile that needs many blocks.
struct Objects;

impl ObjectServer for Objects {
    fn read(&mut self, attribute: CosemAttribute, selection: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        match (attribute.class_id, attribute.attribute, selection) {
            (3, 2, None) => Ok(DataValue::DoubleLongUnsigned(12_345_678).to_vec()),
            (7, 2, None) => Ok(DataValue::OctetString(vec![0x55; VALUE_OCTETS_MAX]).to_vec()),
            (7, 2, Some(selection)) => Ok(DataValue::OctetString(selection.to_vec()).to_vec()),
            _ => Err(DataAccessResult::ObjectUndefined),
        }
    }
}

/// Whether silence is an answer: the RLRQ of a client that has no association, and what wants none.
pub(super) fn is_unanswered(apdu: &[u8]) -> bool {
    match apdu {
        // The last two under the global or the dedicated key.
        [] | [RLRQ | tag::UNCONFIRMED_WRITE_REQUEST | 0x36 | 0x56, ..] => true,
        [tag::SET_REQUEST | tag::ACTION_REQUEST, _, invoke, ..] => !InvokeId(*invoke).is_confirmed(),
        _ => false,
    }
}

/// Each step is an APDU of one client. Every one is answered that wants to be, and within bounds.
pub(crate) fn target(data: &[u8]) {
    let config = ServerConfig { reader_password: Some(Password::new("12345678")), ..ServerConfig::default() };
    let mut session = ServerSession::new(config);
    for (_, apdu) in steps(data) {
        let answer = session.answer(apdu, &mut Objects);
        assert!(answer.is_some() || is_unanswered(apdu), "silence after {apdu:02x?}");
        assert!(answer.is_none_or(|answer| !answer.is_empty() && answer.len() <= ANSWER_OCTETS_MAX));
        session.take_event();
    }
}
