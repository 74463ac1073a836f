use std::time::Duration;

use protocols::hdlc::frame::Frame;
use protocols::hdlc::{ClientAddress, HdlcAddress, HdlcClient, HdlcConfig};
use protocols::link::{Link, LinkError, LinkInput, LinkOutput};

use super::steps::steps;

const APDU_OCTETS_MAX: usize = 150;

/// A step brings a frame, bare octets, time, or something to send. Whatever is said to a client, what it gives is bounded, it
/// never asks for what is past, and when nothing more is said an end is near.
pub(crate) fn target(data: &[u8]) {
    let server = HdlcAddress::two(1, 17).expect("an address that there is");
    let config = HdlcConfig {
        response_timeout_ms: 1_000,
        apdu_octets_max: APDU_OCTETS_MAX,
        ..HdlcConfig::new(ClientAddress::PUBLIC, server)
    };
    let mut client = HdlcClient::new(config);
    let mut now = Duration::ZERO;
    client.connect(now);
    for (what, content) in steps(data) {
        let result = match what % 8 {
            0..4 => {
                let frame = frame(server, what, content);
                client.handle(now, LinkInput::Received(&frame))
            }
            4 | 5 => client.handle(now, LinkInput::Received(content)),
            6 => {
                now += Duration::from_millis(20 * content.len() as u64);
                client.handle(now, LinkInput::Tick)
            }
            // A client that is busy says so.
            _ => client.send(now, content).or(Ok(())),
        };
        drain(&mut client, now);
        if let Err(error) = result {
            return failed(&mut client, now, &error);
        }
    }
    for _ in 0..100 {
        let Some(at) = drain(&mut client, now) else { return };
        now = at;
        if let Err(error) = client.handle(now, LinkInput::Tick) {
            return failed(&mut client, now, &error);
        }
    }
    panic!("no end: {client:?}");
}

/// A frame with right check sequences, its control field first.
fn frame(source: HdlcAddress, what: u8, content: &[u8]) -> Vec<u8> {
    let (&control, information) = content.split_first().unwrap_or((&0x73, &[]));
    let mut octets = Vec::new();
    let destination = ClientAddress::PUBLIC.into();
    Frame { segmented: what & 1 == 1, destination, source, control, information }.encode(&mut octets);
    octets
}

/// When it wants to be called again.
fn drain(client: &mut HdlcClient, now: Duration) -> Option<Duration> {
    for _ in 0..64 {
        match client.poll() {
            LinkOutput::WaitUntil(at) => {
                assert!(at.is_none_or(|at| at > now), "what is past is asked for");
                return at;
            }
            LinkOutput::Apdu(apdu) => assert!(apdu.len() <= APDU_OCTETS_MAX + 3, "{} octets", apdu.len()),
            LinkOutput::Send(_) | LinkOutput::Connected | LinkOutput::Disconnected => {}
        }
    }
    panic!("a flood of outputs");
}

/// A link that failed stays silent.
fn failed(client: &mut HdlcClient, now: Duration, error: &LinkError) {
    assert!(!error.to_string().is_empty());
    while client.poll() != LinkOutput::WaitUntil(None) {
        client.handle(now + Duration::from_secs(1), LinkInput::Tick).expect("it has failed already");
    }
    assert_eq!(client.send(now, &[0xc0]), Err(LinkError::NotReady));
}
