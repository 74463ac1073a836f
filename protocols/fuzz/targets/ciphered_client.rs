use std::time::Duration;

use protocols::dlms::apdu::CosemAttribute;
use protocols::dlms::client::{Authentication, ClientConfig, ClientError, ClientEvent, ClientOutput, ClientSession};
use protocols::dlms::security::{
    Challenge, Ciphered, Counter, HighLevel, Level, Protection as _, Purpose, ReceivedCounters,
};
use protocols::link::LinkInput;
use protocols::metering::ObisCode;
use protocols::wrapper::{WrapperClient, WrapperConfig, Wpdu};

use super::ciphered_server::{CLIENT, SERVER, ciphering};
use super::steps::steps;

const ENERGY: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);

type Session = ClientSession<WrapperClient, Ciphered>;

/// A step brings an APDU to a client that ciphers and wants proof: as it is, or, where the step says so, ciphered by somebody who has the
/// keys; or time. Unless the meter has proved itself, it is asked for nothing, and whatever it says, an end is near.
pub(crate) fn target(data: &[u8]) {
    let challenge = Challenge::new([0xc1; 16]).expect("16 octets");
    let config = ClientConfig {
        authentication: Authentication::High { how: HighLevel::Gmac, challenge },
        ..ClientConfig::default()
    };
    let counters = ReceivedCounters::default;
    let ours = Ciphered::client(ciphering(CLIENT), Counter::reserved(0, 10_000), counters()).expect("keys of suite 0");
    let mut meter = Ciphered::server(ciphering(SERVER), Counter::reserved(100, 10_000), counters()).expect("the same");
    meter.begin(true, Level::NONE).expect("it ciphers");
    let link = WrapperClient::new(WrapperConfig::new(16, 1));
    let mut session = ClientSession::with_protection(link, config, ours);
    let mut now = Duration::ZERO;
    session.associate(now).expect("a session that is new");
    session.get(now, ENERGY, None).expect("a session that is new");
    drain(&mut session);
    for (what, content) in steps(data) {
        let apdu = match what % 4 {
            3 => {
                now += Duration::from_millis(100 * content.len() as u64);
                Vec::new()
            }
            2 => meter.protect(Purpose::Service, content.to_vec()).unwrap_or_default(),
            _ => content.to_vec(),
        };
        let mut octets = Vec::new();
        if !apdu.is_empty() {
            Wpdu { source: 1, destination: 16, apdu: &apdu }.encode(&mut octets).expect("a short APDU");
        }
        let input = if octets.is_empty() { LinkInput::Tick } else { LinkInput::Received(&octets) };
        if let Err(error) = session.handle(now, input) {
            assert!(!error.to_string().is_empty());
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

/// When it wants to be called again. Nobody here knows how to make the proof for this challenge and this nonce but by chance.
fn drain(session: &mut Session) -> Option<Duration> {
    for _ in 0..200 {
        match session.poll() {
            ClientOutput::WaitUntil(at) => return at,
            ClientOutput::Event(ClientEvent::Associated(_) | ClientEvent::Value { .. }) => panic!("no proof was made"),
            ClientOutput::Send(_) | ClientOutput::Event(_) => {}
        }
    }
    panic!("a flood of outputs");
}
