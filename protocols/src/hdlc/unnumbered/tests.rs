use proptest::prelude::*;

use super::super::address::ClientAddress;
use super::super::frame::{Scan, scan};
use super::super::transfer::LLC_COMMAND;
use super::*;
use crate::captures::logged;

fn reassembler() -> UiReassembler {
    UiReassembler::new(4096, Duration::from_secs(2))
}

fn meter() -> HdlcAddress {
    HdlcAddress::two(1, 17).unwrap()
}

fn frame(information: &[u8], segmented: bool) -> Frame<'_> {
    let control = Control::Ui.encode(!segmented);
    Frame { segmented, destination: ClientAddress::PUBLIC.into(), source: meter(), control, information }
}

/// Frames, and the APDUs in them, of a capture in which every octet belongs to a frame.
fn deframe(bytes: &[u8]) -> (usize, Vec<Vec<u8>>) {
    let mut rest = bytes;
    let (mut frames, mut apdus, mut reassembler) = (0, Vec::new(), reassembler());
    loop {
        match scan(rest) {
            Scan::Frame { frame, used } => {
                frames += 1;
                apdus.extend(reassembler.accept(Duration::ZERO, &frame));
                rest = &rest[used..];
            }
            Scan::NeedMore => {
                assert_eq!(rest, [0x7e], "after the last frame only its closing flag is left");
                return (frames, apdus);
            }
            Scan::Garbage { skip, error } => panic!("{error} in {:02x?}", &rest[..skip]),
        }
    }
}

// Negative control: leave `segmented` out of `accept`; or read the control field 10 of the Kaifa as no push.
#[test]
fn captures_of_real_meters_reassemble_to_apdus() {
    let expected: [(&str, usize, u8, usize); 4] = [
        ("hdlc_iskra550.log", 3, 0x0f, 340),
        ("hdlc_kaifa_ma304h3e.log", 1, 0x0f, 108),
        ("hdlc_kamstrup_omnipower.log", 1, 0xdb, 477),
        ("hdlc_norway_han_1phase.log", 1, 0x0f, 197),
    ];
    for (name, frames, tag, octets) in expected {
        let Some(bytes) = logged(&format!("dlms_push/{name}")) else { continue };
        let (found, apdus) = deframe(&bytes);
        let shape: Vec<(u8, usize)> = apdus.iter().map(|apdu| (apdu[0], apdu.len())).collect();
        assert_eq!((found, shape), (frames, vec![(tag, octets)]), "{name}");

        // The same octets, one at a time, with noise before them.
        let mut listener = PushListener::new(reassembler(), Duration::from_millis(400));
        let noisy = [&[0x00, 0x7e, 0x55][..], &bytes].concat();
        let heard: Vec<_> = noisy.iter().flat_map(|&octet| listener.receive(Duration::ZERO, &[octet])).collect();
        assert_eq!(heard, apdus, "{name}");
    }
}

#[test]
fn a_push_without_llc_is_taken() {
    assert_eq!(reassembler().accept(Duration::ZERO, &frame(&[0x0f, 1, 2], false)), Some(vec![0x0f, 1, 2]));
    assert_eq!(reassembler().accept(Duration::ZERO, &frame(&[0x02, 1, 2], false)), None);
}

// Negative control: leave out the `begins` in the filter of `accept`.
#[test]
fn a_push_that_lost_its_end_does_not_spoil_the_next() {
    let first = [&LLC_RESPONSE[..], &[0x0f, 1]].concat();
    let mut reassembler = reassembler();
    assert_eq!(reassembler.accept(Duration::ZERO, &frame(&first, true)), None);
    let second = [&LLC_RESPONSE[..], &[0x0f, 2]].concat();
    assert_eq!(reassembler.accept(Duration::ZERO, &frame(&second, true)), None);
    assert_eq!(reassembler.take_dropped(), Some(PushDropped::Cut { octets: 5 }));
    assert_eq!(reassembler.accept(Duration::ZERO, &frame(&[3], false)), Some(vec![0x0f, 2, 3]));
    assert_eq!(reassembler.take_dropped(), None);
}

// Negative control: leave out the second filter in `accept`.
#[test]
fn segments_too_far_apart_do_not_belong_together() {
    let first = [&LLC_RESPONSE[..], &[0x0f, 1]].concat();
    let mut reassembler = reassembler();
    assert_eq!(reassembler.accept(Duration::ZERO, &frame(&first, true)), None);
    assert_eq!(reassembler.accept(Duration::from_secs(10), &frame(&[2], true)), None);
    assert_eq!(reassembler.take_dropped(), Some(PushDropped::Cut { octets: 5 }));
    assert_eq!(reassembler.accept(Duration::from_secs(10), &frame(&[3], false)), None);
    assert_eq!(reassembler.take_dropped(), Some(PushDropped::Rest));
}

#[test]
fn segments_of_another_meter_do_not_belong_together() {
    let first = [&LLC_RESPONSE[..], &[0x0f, 1]].concat();
    let mut reassembler = reassembler();
    assert_eq!(reassembler.accept(Duration::ZERO, &frame(&first, true)), None);
    let other = Frame { source: HdlcAddress::two(1, 18).unwrap(), ..frame(&[2], false) };
    assert_eq!(reassembler.accept(Duration::ZERO, &other), None);
}

#[test]
fn the_rest_of_a_push_whose_beginning_was_missed_is_dropped() {
    let mut reassembler = reassembler();
    let whole = [&LLC_COMMAND[..], &[0x0f, 1]].concat();
    assert_eq!(reassembler.accept(Duration::ZERO, &frame(&whole, false)), Some(vec![0x0f, 1]));
    // It could begin an APDU, but this meter has shown that its pushes begin otherwise.
    assert_eq!(reassembler.accept(Duration::ZERO, &frame(&[0x0f, 9], false)), None);
}

// Negative control: leave out the length check in `accept`.
#[test]
fn a_push_is_bounded() {
    let mut reassembler = UiReassembler::new(100, Duration::from_secs(2));
    let first = [&LLC_RESPONSE[..], &[0x0f; 60]].concat();
    assert_eq!(reassembler.accept(Duration::ZERO, &frame(&first, true)), None);
    assert_eq!(reassembler.accept(Duration::ZERO, &frame(&[0; 60], false)), None);
    assert!(reassembler.partial.is_none());
    assert_eq!(reassembler.take_dropped(), Some(PushDropped::TooLong { limit: 100 }));
}

#[test]
fn a_listener_gives_up_a_frame_that_stopped() {
    let mut listener = PushListener::new(reassembler(), Duration::from_millis(400));
    let octets = push_frames(ClientAddress::PUBLIC.into(), meter(), &[0x0f; 50], 128);
    assert!(listener.receive(Duration::ZERO, &octets[..40]).is_empty());
    assert_eq!(listener.deadline(), Some(Duration::from_millis(400)));
    assert!(listener.receive(Duration::from_millis(400), &[]).is_empty());
    assert_eq!(listener.deadline(), None);
    assert_eq!(listener.receive(Duration::from_millis(900), &octets), [vec![0x0f; 50]]);
}

proptest! {
    #[test]
    fn pushes_round_trip(mut apdu in prop::collection::vec(any::<u8>(), 1..4000), information_max in 32u16..2031) {
        apdu[0] = 0x0f;
        // The limit of this reassembler; and a segment that begins as a push does would be taken for one.
        prop_assume!(!apdu.windows(2).any(|pair| pair[0] == 0xe6 && pair[1] >> 1 == 0x73));
        let octets = push_frames(ClientAddress::PUBLIC.into(), meter(), &apdu, information_max);
        prop_assert_eq!(deframe(&octets).1, [apdu]);
    }
}
