use std::time::Duration;

use protocols::dlms::apdu::CosemAttribute;
use protocols::dlms::client::{ClientConfig, ClientError, ClientEvent, ClientOutput, ClientSession, Limits, Selected};
use protocols::link::LinkInput;
use protocols::metering::ObisCode;
use protocols::wrapper::{WrapperClient, WrapperConfig, Wpdu};

use super::steps::steps;

const VALUE_OCTETS_MAX: usize = 1_000;
const ENERGY: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);
const PROFILE: CosemAttribute = CosemAttribute::new(7, ObisCode::new(1, 0, 99, 1, 0, 255), 2);

type Session = ClientSession<WrapperClient>;

/// A step brings an APDU of the meter, or time. The client asks for a register, a list and a profile as soon as it may. Whatever it
/// is answered, values are bounded, and when nothing more is said an end is near.
pub(crate) fn target(data: &[u8]) {
    let limits = Limits { value_bytes_max: VALUE_OCTETS_MAX, ..Limits::default() };
    let config = ClientConfig { max_receive_pdu_size: 128, limits, ..ClientConfig::default() };
    let mut session = ClientSession::new(WrapperClient::new(WrapperConfig::new(16, 1)), config);
    let mut now = Duration::ZERO;
    session.associate(now).expect("a session that is new");
    drain(&mut session, now);
    for (what, content) in steps(data) {
        let result = if what % 4 == 3 {
            now += Duration::from_millis(100 * content.len() as u64);
            session.handle(now, LinkInput::Tick)
        } else {
            let mut octets = Vec::new();
            Wpdu { source: 1, destination: 16, apdu: content }.encode(&mut octets).expect("an APDU of 255 octets");
            session.handle(now, LinkInput::Received(&octets))
        };
        if let Err(error) = result {
            return failed(&mut session, now, &error);
        }
        drain(&mut session, now);
    }
    for _ in 0..100 {
        let Some(at) = drain(&mut session, now) else { return };
        now = now.max(at);
        if let Err(error) = session.handle(now, LinkInput::Tick) {
            return failed(&mut session, now, &error);
        }
    }
    panic!("no end");
}

/// When it wants to be called again. What it is told of its requests may have begun others.
fn drain(session: &mut Session, now: Duration) -> Option<Duration> {
    for _ in 0..200 {
        match session.poll() {
            ClientOutput::WaitUntil(at) => return at,
            ClientOutput::Event(ClientEvent::Associated(_)) => ask(session, now),
            ClientOutput::Event(ClientEvent::Value { value, .. }) => bounded(value.data.len()),
            ClientOutput::Event(ClientEvent::Values { results, .. }) => {
                assert_eq!(results.len(), 2);
                results.iter().flatten().for_each(|value| bounded(value.data.len()));
            }
            ClientOutput::Send(_) | ClientOutput::Event(_) => {}
        }
    }
    panic!("a flood of outputs");
}

fn bounded(octets: usize) {
    assert!((1..=VALUE_OCTETS_MAX).contains(&octets), "a value of {octets} octets");
}

/// A session that ended while it was told that it began takes no more requests.
fn ask(session: &mut Session, now: Duration) {
    let results = [
        session.get(now, ENERGY, None),
        session.get_list(now, vec![Selected::whole(ENERGY), Selected::whole(PROFILE)]),
        session.get(now, PROFILE, None),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        assert!(!error.to_string().is_empty());
    }
}

/// A session that failed is over.
fn failed(session: &mut Session, now: Duration, error: &ClientError) {
    assert!(!error.to_string().is_empty());
    let is_over = (0..200).any(|_| matches!(session.poll(), ClientOutput::WaitUntil(_)));
    assert!(is_over, "a flood of outputs");
    assert_eq!(session.handle(now, LinkInput::Tick), Err(ClientError::Ended));
}
