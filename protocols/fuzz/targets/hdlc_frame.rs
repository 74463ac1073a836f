use std::time::Duration;

use protocols::hdlc::frame::{FLAG, LENGTH_MAX, Scan, scan};
use protocols::hdlc::{LinkParameters, PushListener, UiReassembler};

const APDU_OCTETS_MAX: usize = 150;

/// A stream is walked to its end in steps forward, every frame is written as it was read, and pushes are heard the same in
/// whatever pieces they come.
pub(crate) fn target(data: &[u8]) {
    walk(data);
    negotiate(data);
    let whole = listen([data]);
    for apdu in &whole {
        assert!(apdu.len() <= APDU_OCTETS_MAX + 3, "{} octets", apdu.len());
    }
    assert_eq!(listen(data.chunks(7)), whole);
}

fn walk(mut rest: &[u8]) {
    loop {
        let used = match scan(rest) {
            Scan::NeedMore => {
                let unread = rest.iter().skip_while(|&&octet| octet == FLAG).count();
                assert!(unread <= LENGTH_MAX, "{unread} octets are no frame, and more are asked for");
                return;
            }
            Scan::Frame { frame, used } => {
                let mut octets = Vec::new();
                frame.encode(&mut octets);
                assert_eq!(scan(&octets), Scan::Frame { frame, used: octets.len() - 1 });
                let taken = rest.get(..used).expect("no more is used than was there");
                assert!(taken.ends_with(octets.get(..octets.len() - 1).expect("a frame is not empty")));
                assert!(frame.information.len() < used);
                assert!(!format!("{frame:?}").is_empty());
                negotiate(frame.information);
                used
            }
            Scan::Garbage { skip, error } => {
                assert!(!error.to_string().is_empty());
                skip
            }
        };
        assert!(used > 0);
        rest = rest.get(used..).expect("no more is used than was there");
    }
}

/// What a station proposes reads the same when we propose it.
fn negotiate(information: &[u8]) {
    let Ok(parameters) = LinkParameters::decode(information) else { return };
    assert_eq!(parameters, parameters.clamped());
    assert_eq!(LinkParameters::decode(&parameters.encode()), Ok(parameters));
}

fn listen<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let reassembler = UiReassembler::new(APDU_OCTETS_MAX, Duration::from_secs(5));
    let mut listener = PushListener::new(reassembler, Duration::from_millis(400));
    pieces.into_iter().flat_map(|piece| listener.receive(Duration::ZERO, piece)).collect()
}
