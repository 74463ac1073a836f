use std::time::Duration;

use protocols::hdlc::control::Control;
use protocols::hdlc::frame::Frame;
use protocols::hdlc::{ClientAddress, HdlcAddress, HdlcConfig, HdlcServer};
use protocols::link::{Link, LinkInput, LinkOutput};

use super::steps::steps;

const APDU_OCTETS_MAX: usize = 150;
const ANSWER: [u8; 200] = [0xc4; 200];

/// A step brings a frame of one of two clients or to everybody, bare octets, or time, and every APDU is answered. Whatever is said
/// to a server, what it gives is bounded, and the next client can connect.
pub(crate) fn target(data: &[u8]) {
    let own = HdlcAddress::two(1, 17).expect("an address that there is");
    let everybody = HdlcAddress::two(0x7f, 0x7f).expect("an address that there is");
    let stranger = ClientAddress::new(1).expect("an address that there is");
    let config = HdlcConfig { apdu_octets_max: APDU_OCTETS_MAX, ..HdlcConfig::new(ClientAddress::PUBLIC, own) };
    let mut server = HdlcServer::new(config);
    let mut now = Duration::ZERO;
    for (what, content) in steps(data) {
        let (to, from) = match what % 8 {
            0..3 => (own, ClientAddress::PUBLIC),
            3 => (own, stranger),
            4 => (everybody, ClientAddress::PUBLIC),
            5 | 6 => {
                hear(&mut server, now, content);
                continue;
            }
            _ => {
                now += Duration::from_millis(100 * content.len() as u64);
                hear(&mut server, now, &[]);
                continue;
            }
        };
        hear(&mut server, now, &frame(to, from, what & 8 != 0, content));
    }
    now += Duration::from_secs(1_000);
    hear(&mut server, now, &[]);
    let snrm = frame(own, stranger, false, &[Control::Snrm.encode(true)]);
    server.handle(now, LinkInput::Received(&snrm)).expect("a server never fails");
    assert_eq!(server.poll(), LinkOutput::Connected);
    assert_eq!(server.client(), Some(stranger));
}

/// A frame with right check sequences, its control field first.
fn frame(destination: HdlcAddress, client: ClientAddress, segmented: bool, content: &[u8]) -> Vec<u8> {
    let (&control, information) = content.split_first().unwrap_or((&0x93, &[]));
    let mut octets = Vec::new();
    Frame { segmented, destination, source: client.into(), control, information }.encode(&mut octets);
    octets
}

fn hear(server: &mut HdlcServer, now: Duration, octets: &[u8]) {
    server.handle(now, LinkInput::Received(octets)).expect("a server never fails");
    for _ in 0..200 {
        match server.poll() {
            LinkOutput::WaitUntil(at) => {
                assert!(at.is_none_or(|at| at > now), "what is past is asked for");
                return;
            }
            LinkOutput::Apdu(apdu) => {
                assert!(apdu.len() <= APDU_OCTETS_MAX + 3, "{} octets", apdu.len());
                // An owner that answers everything, broadcasts too; without a link it is told that there is none.
                if server.send(now, &ANSWER).is_ok() {
                    assert!(server.client().is_some());
                }
            }
            LinkOutput::Send(_) | LinkOutput::Connected | LinkOutput::Disconnected => {}
        }
    }
    panic!("a flood of outputs");
}
