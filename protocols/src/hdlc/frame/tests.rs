use proptest::prelude::*;

use super::super::address::tests::any_address;
use super::super::address::{ClientAddress, HdlcAddress};
use super::super::control::Sequence;
use super::*;

/// SNRM from the header comment of a public HDLC sender: physical device 17 in four octets, client 120.
const SNRM: [u8; 12] = [0x7e, 0xa0, 0x0a, 0x00, 0x02, 0x00, 0x23, 0xf1, 0x93, 0x23, 0x2e, 0x7e];

/// UA of a meter, u9n/dlms-cosem#95.
const UA: [u8; 37] = [
    0x7e, 0xa0, 0x23, 0x03, 0x00, 0x02, 0x2c, 0x29, 0x73, 0x28, 0x13, 0x81, 0x80, 0x14, 0x05, 0x02, 0x00, 0xf2, 0x06,
    0x02, 0x00, 0xf2, 0x07, 0x04, 0x00, 0x00, 0x00, 0x01, 0x08, 0x04, 0x00, 0x00, 0x00, 0x01, 0x0c, 0xf7, 0x7e,
];

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = vec![0xa5; 3];
    frame.encode(&mut out);
    assert_eq!(out[..3], [0xa5; 3]);
    out.split_off(3)
}

fn from_server(control: Control, information: &[u8]) -> Frame<'_> {
    let source = HdlcAddress::two(1, 17).unwrap();
    let control = control.encode(true);
    Frame { segmented: false, destination: ClientAddress::PUBLIC.into(), source, control, information }
}

/// All frames and errors of a stream; what is left unfinished at its end is not among them.
fn scan_all(mut bytes: &[u8]) -> (Vec<Frame<'_>>, Vec<FrameError>) {
    let (mut frames, mut errors) = (Vec::new(), Vec::new());
    loop {
        let used = match scan(bytes) {
            Scan::NeedMore => return (frames, errors),
            Scan::Frame { frame, used } => {
                frames.push(frame);
                used
            }
            Scan::Garbage { skip, error } => {
                errors.push(error);
                skip
            }
        };
        assert!(used > 0, "a scan that does not move on never ends");
        bytes = &bytes[used..];
    }
}

#[test]
fn frames_of_other_makers_are_read_and_written() {
    let (frames, errors) = scan_all(&SNRM);
    let expected = Frame {
        segmented: false,
        destination: HdlcAddress::four(1, 17).unwrap(),
        source: HdlcAddress::one(120).unwrap(),
        control: 0x93,
        information: &[],
    };
    assert_eq!((&frames[..], &errors[..]), (&[expected][..], &[][..]));
    assert_eq!(encoded(&expected), SNRM);

    let (frames, errors) = scan_all(&UA);
    assert_eq!((frames.len(), errors.len()), (1, 0));
    assert_eq!((frames[0].control(), frames[0].information.len()), (Some(Control::Ua), 23));
    assert_eq!(frames[0].source, HdlcAddress::four(1, 2836).unwrap());
    assert_eq!(encoded(&frames[0]), UA);
}

#[test]
fn every_part_of_a_frame_asks_for_more() {
    for end in 0..UA.len() {
        assert_eq!(scan(&UA[..end]), Scan::NeedMore, "after {end} octets");
    }
}

// Negative control: count the closing flag into `used`.
#[test]
fn neighbours_may_share_a_flag_or_have_many_between_them() {
    let stream = [&SNRM[..], &UA[1..], &[FLAG; 5], &SNRM, &UA].concat();
    let (frames, errors) = scan_all(&stream);
    assert_eq!((frames.len(), errors), (4, vec![]));
}

// Negative control: search for the closing flag instead of counting.
#[test]
fn a_flag_inside_a_frame_does_not_end_it() {
    let stream = encoded(&from_server(Control::Ui, &[FLAG; 300]));
    assert_eq!(scan_all(&stream).0[0].information, [FLAG; 300]);
    // Information chosen so that the FCS itself holds 7E.
    let in_fcs: Vec<Vec<u8>> = (0..=u16::MAX)
        .map(|number| encoded(&from_server(Control::Ui, &number.to_be_bytes())))
        .filter(|frame| frame[frame.len() - 3..frame.len() - 1].contains(&FLAG))
        .take(20)
        .collect();
    assert_eq!(in_fcs.len(), 20);
    assert_eq!(scan_all(&in_fcs.concat()).0.len(), 20);
}

#[test]
fn noise_before_a_frame_is_skipped() {
    let stream = [&[0x00, 0xff, 0x55][..], &SNRM, &[0xa0, 0x0a], &[FLAG, 0x12, FLAG], &UA].concat();
    let (frames, errors) = scan_all(&stream);
    assert_eq!(frames.len(), 2);
    let type_error = |found| FrameError::FormatType { found };
    // The octets between two frames look like a third one behind the shared flag, until their source ends in a flag.
    assert_eq!(errors[0], FrameError::NoFlag);
    assert!(errors.contains(&type_error(0x12)), "{errors:?}");
}

// Negative control: on an error skip the length that the frame claims.
#[test]
fn a_frame_inside_a_wrong_length_is_found() {
    // An echo that lost octets, as in u9n/dlms-cosem#62, and right behind it the answer.
    let mut echo = encoded(&from_server(Control::Ui, &[0x11; 30]));
    echo.drain(15..20);
    let stream = [&echo[..], &UA, &UA].concat();
    let (frames, errors) = scan_all(&stream);
    assert_eq!(frames.len(), 2);
    assert_eq!(errors, [FrameError::NotClosed { length: echo.len() + 5 - 2 }]);
}

// Negative control: let `read` skip the HCS, or the look at the closing flag.
#[test]
fn each_wrong_check_sequence_has_its_name() {
    let mut octets = UA;
    octets[4] ^= 0x80;
    assert_eq!(scan_all(&octets).1, [FrameError::HeaderCheck]);
    let mut octets = UA;
    octets[20] ^= 0x01;
    assert_eq!(scan_all(&octets).1, [FrameError::FrameCheck]);
    let mut octets = SNRM;
    octets[8] ^= 0x10;
    assert_eq!(scan_all(&octets).1, [FrameError::FrameCheck]);
    let mut octets = UA;
    octets[36] = 0;
    assert_eq!(scan_all(&octets).1, [FrameError::NotClosed { length: 0x23 }]);
}

#[test]
fn a_wrong_header_does_not_wait_for_its_length() {
    // A length of 2047 and no HCS to match: judged as soon as the HCS is there, not two seconds of line time later.
    let octets = [FLAG, 0xa7, 0xff, 0x21, 0x03, 0x13, 0x00, 0x00];
    assert_eq!(scan(&octets), Scan::Garbage { skip: octets.len(), error: FrameError::HeaderCheck });
    assert_eq!(scan(&[FLAG, 0xa0, 0x06]), Scan::Garbage { skip: 3, error: FrameError::Length { length: 6 } });
    // Ten octets with these addresses leave one for HCS and information, which is none.
    let octets = [FLAG, 0xa0, 0x08, 0x21, 0x03, 0x13];
    assert_eq!(scan(&octets), Scan::Garbage { skip: 6, error: FrameError::Length { length: 8 } });
}

#[test]
fn the_longest_frame_round_trips() {
    let four = HdlcAddress::four(0x3ffe, 0x3fff).unwrap();
    let information = [0x5a; 2030];
    let control = Control::Information { send: Sequence::new(7), receive: Sequence::new(7) }.encode(false);
    let frame = Frame { segmented: true, destination: four, source: four, control, information: &information };
    let octets = encoded(&frame);
    assert_eq!(octets.len() - 2, 2045);
    assert_eq!(scan_all(&octets).0, [frame]);
}

// CRC-16/X-25 finds every error of one, two or three bits in a frame of this size, so none may pass.
// Negative control: let `read` skip the FCS. (Without the HCS the FCS still finds them, only later.)
#[test]
fn no_single_bit_error_passes_unseen() {
    let stream = [&UA[..], &encoded(&from_server(Control::Ui, &[0x33; 60]))].concat();
    let good = scan_all(&stream).0;
    for bit in 0..stream.len() * 8 {
        let mut damaged = stream.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        for frame in scan_all(&damaged).0 {
            assert!(good.contains(&frame), "bit {bit} made {frame:?}");
        }
    }
}

proptest! {
    #[test]
    fn frames_round_trip(
        segmented: bool, destination in any_address(), source in any_address(), control: u8,
        information in prop::collection::vec(any::<u8>(), 0..2030),
    ) {
        let frame = Frame { segmented, destination, source, control, information: &information };
        let octets = encoded(&frame);
        prop_assert_eq!(scan(&octets), Scan::Frame { frame, used: octets.len() - 1 });
    }

    #[test]
    fn no_octets_panic(octets in prop::collection::vec(prop_oneof![any::<u8>(), Just(FLAG), Just(0xa0)], 0..400)) {
        scan_all(&octets);
    }
}
