use std::time::Duration;

use protocols::link::{Link, LinkError, LinkInput, LinkOutput};
use protocols::wrapper::{Scan, WrapperClient, WrapperConfig, WrapperServer, scan};

const APDU_OCTETS_MAX: usize = 400;
const HEADER_OCTETS: usize = 8;

/// A stream is walked as far as it can be, every WPDU is written as it was read, no more than one is ever waited for, and both
/// ends hear the same in whatever pieces it comes.
pub(crate) fn target(data: &[u8]) {
    walk(data);
    let config = || WrapperConfig { apdu_octets_max: APDU_OCTETS_MAX, ..WrapperConfig::new(16, 1) };
    assert_eq!(hear(WrapperServer::new(config()), data.chunks(5)), hear(WrapperServer::new(config()), [data]));
    assert_eq!(hear(WrapperClient::new(config()), data.chunks(5)), hear(WrapperClient::new(config()), [data]));
}

fn walk(mut rest: &[u8]) {
    loop {
        match scan(rest, APDU_OCTETS_MAX) {
            Scan::NeedMore => return assert!(rest.len() < HEADER_OCTETS + APDU_OCTETS_MAX),
            Scan::Broken(error) => return assert!(!error.to_string().is_empty()),
            Scan::Wpdu { wpdu, used } => {
                let mut octets = Vec::new();
                wpdu.encode(&mut octets).expect("its length came from such a field");
                let (taken, after) = rest.split_at_checked(used).expect("no more is used than was there");
                assert_eq!(taken, octets);
                assert!(wpdu.apdu.len() <= APDU_OCTETS_MAX);
                rest = after;
            }
        }
    }
}

/// What comes out, and the error that ended it.
fn hear<'a>(
    mut link: impl Link,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<LinkOutput>, Result<(), LinkError>) {
    let now = Duration::ZERO;
    link.connect(now);
    let result = pieces.into_iter().try_for_each(|piece| link.handle(now, LinkInput::Received(piece)));
    if result.is_err() {
        assert_eq!(link.send(now, &[0xc0]), Err(LinkError::NotReady));
    }
    let outputs = std::iter::from_fn(|| Some(link.poll()).filter(|output| !matches!(output, LinkOutput::WaitUntil(_))));
    (outputs.collect(), result)
}
