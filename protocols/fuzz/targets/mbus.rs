use protocols::mbus::{
    Body, FRAME_LEN_MAX, FormatCache, Frame, Key, Quirks, Readout, Reassembler, Scan, Scanner, Settings, Telegram, WirelessForm,
    WirelessFrame, scan,
};
use protocols::metering::UtcMillis;

/// A stream is walked to its end in steps forward, whatever it holds, and in pieces as in one; what its frames carry is read, and
/// so are the octets themselves, as what a frame carries and as a frame of the radio.
pub(crate) fn target(data: &[u8]) {
    let walked = walk(data);
    assert_eq!(walk_in_pieces(data), walked);
    telegram(data);
    for form in [WirelessForm::A, WirelessForm::B, WirelessForm::Stripped] {
        if let Ok(frame) = WirelessFrame::decode(data, form) {
            assert_eq!(frame.encode(form).as_deref(), Some(data));
            telegram(&frame.payload);
        }
    }
    if let Ok((_, used)) = WirelessFrame::find(data) {
        assert!((1..=data.len()).contains(&used));
    }
}

/// How many frames there are, and how many octets that are none of a frame or wait for more.
fn walk(mut rest: &[u8]) -> (usize, usize) {
    let (mut frames, mut lost, mut reassembler) = (0, 0, Reassembler::default());
    loop {
        let used = match scan(rest, Quirks::default()) {
            Scan::NeedMore => {
                assert!(rest.len() < FRAME_LEN_MAX);
                return (frames, lost + rest.len());
            }
            Scan::Frame { frame, used } => {
                read(frame, &mut reassembler);
                frames += 1;
                used
            }
            Scan::Garbage { skip, error } => {
                assert!(!error.to_string().is_empty());
                lost += skip;
                skip
            }
        };
        assert!(used > 0);
        rest = rest.get(used..).expect("no more is used than was there");
    }
}

fn walk_in_pieces(data: &[u8]) -> (usize, usize) {
    let (mut scanner, mut frames, mut lost) = (Scanner::new(Quirks::default()), 0, 0);
    for piece in data.chunks(7) {
        scanner.feed(piece);
        loop {
            let before = scanner.pending();
            match scanner.next_frame() {
                None => break,
                Some(Ok(_)) => frames += 1,
                Some(Err(_)) => lost += before - scanner.pending(),
            }
        }
        assert!(scanner.pending() < FRAME_LEN_MAX);
    }
    (frames, lost + scanner.pending())
}

fn read(frame: Frame<'_>, reassembler: &mut Reassembler) {
    let Frame::Long { ci, data, .. } = frame else { return };
    if let Ok(Some(whole)) = reassembler.take(frame) {
        assert!(whole.apdu.len() <= 16 * FRAME_LEN_MAX);
    }
    telegram(&[&[ci], data].concat());
}

fn telegram(octets: &[u8]) {
    let key = Key::new([0x11; 16]);
    for key in [None, Some(&key)] {
        let telegram = match Telegram::decode(octets, None, key) {
            Ok(telegram) => telegram,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        let mut cache = FormatCache::default();
        if let (Body::Records(_), Ok(again)) = (&telegram.body, cache.expand(telegram.clone())) {
            assert_eq!(again, telegram);
        }
        readings(&telegram);
    }
}

fn readings(telegram: &Telegram) {
    let settings = Settings { alias: "SIM:1".parse().ok(), ..Settings::default() };
    let readout = Readout::decode(std::slice::from_ref(telegram), &settings, UtcMillis(1_795_401_315_000));
    let readout = match readout {
        Ok(readout) => readout,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for (index, reading) in readout.readings.iter().enumerate() {
        assert_eq!((reading.period_s, reading.kind.has_period()), (0, false));
        assert_eq!(reading.quantity.to_string().parse(), Ok(reading.quantity));
        assert_eq!(reading.code.to_string().parse(), Ok(reading.code.clone()));
        assert!(!readout.readings[..index].iter().any(|other| other.same_identity(reading)));
    }
    for problem in &readout.problems {
        assert!(!problem.to_string().is_empty());
    }
}
