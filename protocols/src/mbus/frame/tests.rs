use super::*;
use crate::mbus::Scanner;
use proptest::prelude::*;

/// A frame of our own, so that it can be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Acknowledge,
    Short(u8, u8),
    Long(u8, u8, u8, Vec<u8>),
}

impl Owned {
    fn of(frame: Frame<'_>) -> Self {
        match frame {
            Frame::Acknowledge => Self::Acknowledge,
            Frame::Short { control, address } => Self::Short(control, address),
            Frame::Long { control, address, ci, data } => Self::Long(control, address, ci, data.to_vec()),
        }
    }

    fn octets(&self) -> Vec<u8> {
        let mut octets = vec![0xa5];
        let frame = match self {
            Self::Acknowledge => Frame::Acknowledge,
            Self::Short(control, address) => Frame::Short { control: *control, address: *address },
            Self::Long(control, address, ci, data) => {
                Frame::Long { control: *control, address: *address, ci: *ci, data }
            }
        };
        frame.encode(&mut octets).expect("short enough");
        octets.remove(0);
        octets
    }
}

fn any_frame() -> impl Strategy<Value = Owned> {
    let data = proptest::collection::vec(any::<u8>(), 0..=DATA_LEN_MAX);
    prop_oneof![
        Just(Owned::Acknowledge),
        any::<[u8; 2]>().prop_map(|[control, address]| Owned::Short(control, address)),
        (any::<[u8; 3]>(), data).prop_map(|([control, address, ci], data)| Owned::Long(control, address, ci, data)),
    ]
}

/// The frames of a stream that comes in pieces, and the octets that are none of a frame.
fn frames(octets: &[u8], piece_len: usize, quirks: Quirks) -> (Vec<Owned>, usize) {
    let (mut scanner, mut frames, mut framed) = (Scanner::new(quirks), Vec::new(), 0);
    for piece in octets.chunks(piece_len) {
        scanner.feed(piece);
        loop {
            let before = scanner.pending();
            match scanner.next_frame() {
                None => break,
                Some(Ok(frame)) => {
                    frames.push(Owned::of(frame));
                    framed += before - scanner.pending();
                }
                Some(Err(_)) => {}
            }
        }
        assert!(scanner.pending() <= FRAME_LEN_MAX);
    }
    (frames, octets.len() - framed)
}

#[test]
fn frames_are_written_as_the_standard_has_them() {
    assert_eq!(Owned::Acknowledge.octets(), [0xe5]);
    assert_eq!(Owned::Short(control::SND_NKE, 1).octets(), [0x10, 0x40, 0x01, 0x41, 0x16]);
    let control = Owned::Long(control::SND_UD, 0xfe, 0x50, Vec::new());
    assert_eq!(control.octets(), [0x68, 3, 3, 0x68, 0x53, 0xfe, 0x50, 0xa1, 0x16]);
}

#[test]
fn each_refusal_has_its_cause() {
    let error = |octets: &[u8]| match scan(octets, Quirks::NONE) {
        Scan::Garbage { error, .. } => error,
        other => panic!("{octets:02x?}: {other:?}"),
    };
    assert_eq!(error(&[0x00]), FrameError::Start { found: 0 });
    assert_eq!(error(&[0x68, 3, 4]), FrameError::Lengths { first: 3, second: 4 });
    assert_eq!(error(&[0x68, 3, 3, 0x67]), FrameError::SecondStart { found: 0x67 });
    assert_eq!(error(&[0x68, 2, 2, 0x68]), FrameError::TooShort { length: 2 });
    assert_eq!(error(&[0x10, 0x40, 1, 0x42, 0x16]), FrameError::Checksum { stated: 0x42, computed: 0x41 });
    assert_eq!(error(&[0x10, 0x40, 1, 0x41, 0x17]), FrameError::Stop { found: 0x17 });
    assert_eq!(scan(&[0x68, 3, 3, 0x68, 1], Quirks::NONE), Scan::NeedMore);
    assert_eq!(scan(&[0x10, 0x40], Quirks::NONE), Scan::NeedMore);
}

#[test]
fn data_that_is_too_long_is_not_written() {
    let mut octets = vec![0xa5];
    let frame = Frame::Long { control: 8, address: 1, ci: 0x72, data: &[0; DATA_LEN_MAX + 1] };
    assert_eq!((frame.encode(&mut octets), &octets[..]), (None, &[0xa5][..]));
}

proptest! {
    #[test]
    fn frames_round_trip_in_pieces(list in proptest::collection::vec(any_frame(), 1..6), piece_len in 1..300usize) {
        let octets: Vec<u8> = list.iter().flat_map(Owned::octets).collect();
        for quirks in [Quirks::NONE, Quirks::default()] {
            prop_assert_eq!(frames(&octets, piece_len, quirks), (list.clone(), 0));
        }
    }

    // Control, seen to fail: drop all octets that came as soon as one begins no frame.
    #[test]
    fn noise_costs_no_frame_behind_it(noise in proptest::collection::vec(any::<u8>(), 0..40), frame in any_frame()) {
        // What could be the beginning of a frame waits for its end, and hides what comes.
        let noise: Vec<u8> = noise.into_iter().filter(|octet| !matches!(octet, 0xe5 | 0x10 | 0x68)).collect();
        let octets = [&noise[..], &frame.octets()].concat();
        prop_assert_eq!(frames(&octets, 7, Quirks::NONE), (vec![frame], noise.len()));
    }

    #[test]
    fn what_hides_a_frame_hides_no_more_than_its_length(start in any::<u8>(), frame in any_frame()) {
        let start = start.max(3);
        let filler = vec![0; FRAME_LEN_MAX];
        let octets = [&[0x68, start, start, 0x68][..], &filler, &frame.octets()].concat();
        let (found, _) = frames(&octets, 7, Quirks::NONE);
        prop_assert_eq!(found.last(), Some(&frame));
    }

    #[test]
    fn one_bit_wrong_is_never_the_frame(frame in any_frame(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut octets = frame.octets();
        let at = at.index(octets.len());
        octets[at] ^= 1 << bit;
        let (found, _) = frames(&octets, octets.len(), Quirks::NONE);
        prop_assert!(!found.contains(&frame));
    }
}
