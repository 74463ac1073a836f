use protocols::dlms::acse::AARQ;
use protocols::dlms::apdu::{CosemAttribute, DataAccessResult};
use protocols::dlms::security::{
    Challenge, Ciphered, CipheredConfig, Counter, HighLevel, Key, Keys, Level, Protection as _, Purpose,
    ReceivedCounters, SystemTitle,
};
use protocols::dlms::server::{ClientRole, HighLevelClient, ObjectServer, ServerConfig, ServerEvent, ServerSession};
use protocols::dlms::value::DataValue;

use super::dlms_server::is_unanswered;
use super::steps::steps;

pub(super) const CLIENT: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");
pub(super) const SERVER: SystemTitle = SystemTitle(*b"MMM\x00\x00\xbcaN");
/// What the length field of the wrapper can say.
const ANSWER_OCTETS_MAX: usize = 65_535;

pub(super) fn ciphering(title: SystemTitle) -> CipheredConfig {
    CipheredConfig::new(Keys::new(Key::from([0x11; 16]), Key::from([0x22; 16])), title)
}

/// A register, which is read by nobody who has not proved itself.
#[derive(Default)]
struct Objects {
    reads: usize,
}

impl ObjectServer for Objects {
    fn read(&mut self, _attribute: CosemAttribute, _selection: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        self.reads += 1;
        Ok(DataValue::DoubleLongUnsigned(12_345_678).to_vec())
    }
}

/// Each step is an APDU of a client: as it is, or, where the step says so, ciphered by somebody who has the keys. Every one is answered
/// that wants to be. Nothing is read in an association in which nobody has proved who it is.
///
/// Negative control: serve a client that has still to prove itself.
pub(crate) fn target(data: &[u8]) {
    let gmac = HighLevelClient {
        role: ClientRole::Reader,
        how: HighLevel::Gmac,
        title: None,
        minimum: Level::AUTHENTICATED_ENCRYPTED,
    };
    let config = ServerConfig { public_client: false, high_level: vec![gmac], ..ServerConfig::default() };
    let counters = ReceivedCounters::default;
    let theirs = Ciphered::server(ciphering(SERVER), Counter::reserved(0, 10_000), counters()).expect("keys of suite 0");
    let mut client = Ciphered::client(ciphering(CLIENT), Counter::reserved(100, 10_000), counters()).expect("the same");
    client.begin(true, Level::NONE).expect("it ciphers");
    let mut session = ServerSession::with_protection(config, theirs);
    let mut objects = Objects::default();
    let mut is_proven = false;
    for (what, content) in steps(data) {
        session.set_challenge(Challenge::new([0x5e; 16]).expect("16 octets"));
        let apdu = match what % 4 {
            3 => client.protect(Purpose::Service, content.to_vec()).unwrap_or_default(),
            _ => content.to_vec(),
        };
        let reads = objects.reads;
        let answer = session.answer(&apdu, &mut objects);
        assert!(answer.is_some() || is_unanswered(content), "silence after {apdu:02x?}");
        assert!(answer.is_none_or(|answer| !answer.is_empty() && answer.len() <= ANSWER_OCTETS_MAX));
        assert!(objects.reads == reads || is_proven, "read without a proof");
        is_proven = match session.take_event() {
            Some(ServerEvent::Associated(_)) => true,
            Some(ServerEvent::Released | ServerEvent::Rejected(_)) => false,
            _ => is_proven && apdu.first() != Some(&AARQ),
        };
        assert_eq!(session.client().is_some(), is_proven);
    }
}
