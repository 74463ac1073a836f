use proptest::prelude::*;

use super::*;
use crate::iec62056_21::port::SUBSTITUTE;

const PLAIN: Expectation = Expectation { option_select: false, block_octets_max: 200 };
const SELECTING: Expectation = Expectation { option_select: true, ..PLAIN };

fn walk(mut bytes: &[u8], expectation: Expectation) -> (Vec<String>, usize) {
    let mut found = Vec::new();
    loop {
        let used = match scan(bytes, expectation) {
            Scan::NeedMore => return (found, bytes.len()),
            Scan::Message { message, used } => {
                found.push(format!("{message:?}"));
                used
            }
            Scan::Garbage { skip, error } => {
                found.push(error.to_string());
                skip
            }
        };
        assert!(used > 0 && used <= bytes.len());
        bytes = &bytes[used..];
    }
}

fn one(bytes: &[u8], expectation: Expectation) -> Message<'_> {
    match scan(bytes, expectation) {
        Scan::Message { message, used } if used == bytes.len() => message,
        other => panic!("{other:?}"),
    }
}

/// Octets of public tests: pwitab/iec62056-21 `tests/test_data.py`.
#[test]
fn messages_of_another_implementation_are_read() {
    let data = |content: &'static [u8]| Message::Data(Block { content, is_last: true, bcc: Bcc::Valid });
    assert_eq!(one(b"\x023:171.0(0)\x03\x12", PLAIN), data(b"3:171.0(0)"));
    assert_eq!(
        one(b"\x023:14(314*kWh)4:15(415*kWh)\r\n!\r\n\x03\"", PLAIN),
        data(b"3:14(314*kWh)4:15(415*kWh)\r\n!\r\n")
    );
    let command = |kind, variant, data| Message::Command(Command { kind, variant, data, bcc: Bcc::Valid });
    assert_eq!(one(b"\x01P0\x02(1234567)\x03P", PLAIN), command(b'P', b'0', Some(&b"(1234567)"[..])));
    assert_eq!(one(b"\x01R1\x021.8.0(1)\x03k", PLAIN), command(b'R', b'1', Some(&b"1.8.0(1)"[..])));
    assert_eq!(one(b"\x01B0\x03q", PLAIN), command(b'B', b'0', None));
    assert_eq!(one(b"/?45678903!\r\n", PLAIN), Message::Request { address: b"45678903" });
    let select = OptionSelect { protocol: b'0', baud: b'5', mode: b'1' };
    assert_eq!(one(b"\x06051\r\n", SELECTING), Message::OptionSelect(select));
    let Message::Data(Block { bcc, .. }) = one(b"\x023:171.0(0)\x03\x11", PLAIN) else { panic!() };
    assert_eq!(bcc, Bcc::Invalid { stated: 0x11, computed: 0x12 });
}

#[test]
fn the_writers_write_what_another_implementation_does() {
    let mut out = vec![0xa5];
    encode_command(&mut out, b'P', b'0', Some(b"(1234567)"));
    encode_command(&mut out, b'B', b'0', None);
    encode_block(&mut out, b"3:171.0(0)", true);
    OptionSelect { protocol: b'2', baud: b'5', mode: b'2' }.encode(&mut out);
    assert_eq!(out, b"\xa5\x01P0\x02(1234567)\x03P\x01B0\x03q\x023:171.0(0)\x03\x12\x06252\r\n");
}

#[test]
fn every_prefix_needs_more() {
    let messages: [&[u8]; 5] =
        [b"/?1!\r\n", b"/LGZ5\\2ZMD\r\n", b"\x06051\r\n", b"\x01P1\x02(0)\x03\x61", b"\x021.8.0(1)\r\n\x04\x55"];
    for message in messages {
        for len in 0..message.len() {
            assert_eq!(scan(&message[..len], SELECTING), Scan::NeedMore, "{}", message[..len].escape_ascii());
        }
    }
}

#[test]
fn a_block_says_whether_more_follow() {
    let mut out = Vec::new();
    encode_block(&mut out, b"(1)\r\n", false);
    let Message::Data(block) = one(&out, PLAIN) else { panic!() };
    assert!(!block.is_last && block.bcc == Bcc::Valid);
}

#[test]
fn noise_is_skipped_and_a_cut_message_gives_way_to_the_next() {
    let bytes = b"\xff\0\x7f/LGZ5/LGZ5ZMD\r\n\x02(1)\x02(2)\x03\x08";
    let (found, left) = walk(bytes, PLAIN);
    assert_eq!(left, 0);
    assert_eq!(found[0], "3 octets outside a message");
    assert_eq!(found[1], "a message was cut after 5 octets");
    assert!(found[2].contains("ZMD"), "{found:?}");
    assert_eq!(found[3], "a message was cut after 4 octets");
    assert!(found[4].contains("is_last: true"), "{found:?}");
}

#[test]
fn an_acknowledgement_stands_alone_or_begins_an_option_select() {
    assert_eq!(one(&[ACK], PLAIN), Message::Acknowledge);
    assert_eq!(one(&[NAK], SELECTING), Message::Repeat);
    assert_eq!(scan(&[ACK], SELECTING), Scan::NeedMore);
    assert!(matches!(scan(&[ACK, STX], SELECTING), Scan::Garbage { skip: 1, .. }));
    assert!(matches!(scan(b"\x06051\r\r", SELECTING), Scan::Garbage { skip: 1, .. }));
}

// Negative control: leave `is_text` out of `verdict`.
#[test]
fn an_octet_of_wrong_parity_is_a_wrong_check_whatever_the_sum() {
    for wrong in [SUBSTITUTE, 0, 0x7f] {
        let mut out = Vec::new();
        encode_block(&mut out, &[b'(', wrong, wrong, b')'], true);
        let Message::Data(block) = one(&out, PLAIN) else { panic!() };
        assert!(matches!(block.bcc, Bcc::Invalid { .. }));
    }
}

#[test]
fn what_does_not_end_is_dropped_at_its_limit() {
    let line = [b"/LGZ5".to_vec(), vec![b'x'; LINE_LEN_MAX]].concat();
    assert!(matches!(scan(&line[..LINE_LEN_MAX], PLAIN), Scan::NeedMore));
    assert!(matches!(scan(&line, PLAIN), Scan::Garbage { error: MessageError::TooLong { .. }, .. }));
    let block = [vec![STX], vec![b'x'; 250]].concat();
    assert_eq!(scan(&block[..200], PLAIN), Scan::NeedMore);
    let limit = 200;
    assert_eq!(scan(&block[..201], PLAIN), Scan::Garbage { skip: 201, error: MessageError::TooLong { limit } });
}

#[test]
fn a_debug_print_shows_no_data_of_a_command() {
    let mut out = Vec::new();
    encode_command(&mut out, b'P', b'1', Some(b"(s3cr3t)"));
    let message = one(&out, PLAIN);
    assert_eq!(format!("{message:?}"), "Command(Command('P' '1', 8 octets, Valid))");
}

proptest! {
    #[test]
    fn any_octets_are_walked_to_their_end(
        bytes in prop::collection::vec(prop_oneof![prop::sample::select(&b"/?!\r\n\x01\x02\x03\x04\x06\x15(1)P0B"[..]), any::<u8>()], 0..300),
        option_select: bool,
    ) {
        let expectation = Expectation { option_select, ..PLAIN };
        let (_, left) = walk(&bytes, expectation);
        prop_assert!(left <= PLAIN.block_octets_max + 1);
    }

    #[test]
    fn blocks_round_trip(content in "[ -.0-~\r\n]{0,100}", is_last: bool, before in "[ -.0-~]{0,5}") {
        let mut out = before.clone().into_bytes();
        encode_block(&mut out, content.as_bytes(), is_last);
        let Scan::Message { message, used } = scan(&out[before.len()..], PLAIN) else { panic!() };
        prop_assert_eq!(used, out.len() - before.len());
        prop_assert_eq!(message, Message::Data(Block { content: content.as_bytes(), is_last, bcc: Bcc::Valid }));
    }

    #[test]
    fn one_changed_octet_never_goes_unseen(content in "[ -~]{1,40}", at in any::<prop::sample::Index>(), bit in 0..7u8) {
        let mut out = Vec::new();
        encode_block(&mut out, content.as_bytes(), true);
        let at = 1 + at.index(content.len());
        out[at] ^= 1 << bit;
        if let Scan::Message { message: Message::Data(block), used } = scan(&out, PLAIN) {
            prop_assert!(used < out.len() || block.bcc != Bcc::Valid);
        }
    }

    #[test]
    fn looking_behind_what_was_seen_finds_the_same(content in "[ -~]{0,60}") {
        let mut out = Vec::new();
        encode_block(&mut out, content.as_bytes(), true);
        for len in 1..=out.len() {
            let bytes = &out[..len];
            prop_assert_eq!(scan_from(bytes, len.saturating_sub(2), PLAIN), scan(bytes, PLAIN), "{}", len);
        }
    }
}
