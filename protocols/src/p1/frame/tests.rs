use proptest::prelude::*;

use super::*;
use crate::p1::{Builder, LocalTime};

fn telegram() -> Vec<u8> {
    Builder::new(r"SIM5\2METERPOST", LocalTime::CET).text("1-3:0.2.8", "50").text("0-0:96.14.0", "0001").finish()
}

/// All that a stream holds: telegrams with their verdict, garbage with its error.
fn walk(mut bytes: &[u8]) -> (Vec<Result<CrcVerdict, FrameError>>, usize) {
    let mut found = Vec::new();
    loop {
        let used = match scan(bytes) {
            Scan::NeedMore => return (found, bytes.len()),
            Scan::Telegram { telegram, used } => {
                found.push(Ok(telegram.crc()));
                used
            }
            Scan::Garbage { skip, error } => {
                found.push(Err(error));
                skip
            }
        };
        assert!(used > 0 && used <= bytes.len());
        bytes = &bytes[used..];
    }
}

#[test]
fn a_telegram_is_found_with_its_verdict() {
    let bytes = [telegram(), b"/rest".to_vec()].concat();
    let Scan::Telegram { telegram: found, used } = scan(&bytes) else { panic!("{:?}", scan(&bytes)) };
    assert_eq!(used, telegram().len());
    assert_eq!(found.crc(), CrcVerdict::Valid);
    assert_eq!(found.identification(), br"SIM5\2METERPOST");
    assert_eq!(found.lines().count(), 2);
    assert_eq!(found.octets(), &bytes[..used - 6]);
}

#[test]
fn every_prefix_needs_more() {
    let bytes = telegram();
    for len in 0..bytes.len() {
        assert_eq!(scan(&bytes[..len]), Scan::NeedMore, "{len}");
    }
}

#[test]
fn noise_before_a_telegram_is_skipped() {
    let bytes = [b"\xff\x00!F21E\r\n".to_vec(), telegram()].concat();
    assert_eq!(walk(&bytes), (vec![Err(FrameError::Noise { len: 9 }), Ok(CrcVerdict::Valid)], 0));
}

#[test]
fn a_cut_telegram_gives_way_to_the_next() {
    let whole = telegram();
    let bytes = [&whole[..30], &whole[..]].concat();
    assert_eq!(walk(&bytes), (vec![Err(FrameError::Cut { len: 30 }), Ok(CrcVerdict::Valid)], 0));
}

#[test]
fn a_flipped_bit_shows_in_the_verdict_and_not_in_the_content() {
    let mut bytes = telegram();
    let at = bytes.iter().rposition(|&byte| byte == b'1').unwrap();
    bytes[at] = b'2';
    let Scan::Telegram { telegram, .. } = scan(&bytes) else { panic!() };
    assert!(matches!(telegram.crc(), CrcVerdict::Invalid { .. }));
    assert_eq!(telegram.lines().count(), 2);
}

#[test]
fn a_crc_may_be_unpadded_lower_case_or_absent() {
    let of = |text: &str| match scan(text.as_bytes()) {
        Scan::Telegram { telegram, used } => (telegram.crc(), used == text.len()),
        other => panic!("{other:?}"),
    };
    let short = (0..9999).map(|n| format!("/X\r\n0-0:96.1.1({n})\r\n!")).find(|text| {
        let crc = crc::update(0, text.as_bytes());
        (0xa0..0x1000).contains(&crc)
    });
    let short = short.unwrap();
    let crc = crc::update(0, short.as_bytes());
    assert_eq!(of(&format!("{short}{crc:x}\r\n")), (CrcVerdict::Valid, true));
    assert_eq!(of(&format!("{short}{crc:04X}\n")), (CrcVerdict::Valid, true));
    assert_eq!(of(&format!("{short}\r\n")), (CrcVerdict::Absent, true));
    assert_eq!(of("/X\r\n!0000\rx"), (CrcVerdict::Invalid { stated: 0, computed: crc::update(0, b"/X\r\n!") }, false));
}

#[test]
fn line_ends_without_cr_are_counted_as_the_meter_sent_them() {
    let text = String::from_utf8(telegram()).unwrap().replace("\r\n", "\n");
    assert_eq!(walk(text.as_bytes()), (vec![Ok(CrcVerdict::Valid)], 0));
}

#[test]
fn a_garbled_end_is_garbage() {
    let bytes = [b"/X\r\n!12345\r\n".to_vec(), b"/X\r\n!zz\r\n".to_vec(), telegram()].concat();
    let (found, left) = walk(&bytes);
    assert_eq!(left, 0);
    assert_eq!(
        found,
        [
            Err(FrameError::End { len: 5 }),
            Err(FrameError::Noise { len: 7 }),
            Err(FrameError::End { len: 5 }),
            Err(FrameError::Noise { len: 4 }),
            Ok(CrcVerdict::Valid)
        ]
    );
}

#[test]
fn an_endless_telegram_is_dropped_at_the_limit() {
    let fill = |len: usize| [b"/".to_vec(), vec![b'x'; len - 1]].concat();
    assert_eq!(scan(&fill(TELEGRAM_LEN_MAX)), Scan::NeedMore);
    let len = TELEGRAM_LEN_MAX + 1;
    assert_eq!(scan(&fill(len)), Scan::Garbage { skip: len, error: FrameError::TooLong });
    let longest = [fill(TELEGRAM_LEN_MAX - 1), b"!\r\n".to_vec()].concat();
    assert!(matches!(scan(&longest), Scan::Telegram { .. }));
    let longer = [fill(TELEGRAM_LEN_MAX), b"!\r\n".to_vec()].concat();
    assert_eq!(scan(&longer), Scan::Garbage { skip: TELEGRAM_LEN_MAX, error: FrameError::TooLong });
}

#[test]
fn a_buffer_with_one_telegram_needs_no_last_line_end() {
    let bytes = telegram();
    for cut in 0..=2 {
        let found = Telegram::parse(&bytes[..bytes.len() - cut]).unwrap();
        assert_eq!(found.crc(), CrcVerdict::Valid, "{cut} octets cut");
    }
    assert_eq!(Telegram::parse(b"  /X\r\n!").map(|found| found.crc()), Ok(CrcVerdict::Absent));
    assert_eq!(Telegram::parse(b"/X\r\n"), Err(FrameError::Unfinished));
    assert_eq!(Telegram::parse(b"no"), Err(FrameError::Noise { len: 2 }));
    assert_eq!(Telegram::parse(b"/X\r\n!zz"), Err(FrameError::End { len: 5 }));
}

#[test]
fn the_policy_is_strict_unless_told_otherwise() {
    let (strict, lenient) = (Policy::default(), Policy { accept_invalid_crc: true });
    let judge = |text: &str, policy| Telegram::parse(text.as_bytes()).unwrap().judge(policy);
    let good = String::from_utf8(telegram()).unwrap();
    assert_eq!(judge(&good, strict), Ok(Quality::GOOD));
    let wrong = good.replace("0001", "0002");
    assert!(matches!(judge(&wrong, strict), Err(CrcError::Invalid { .. })));
    assert_eq!(judge(&wrong, lenient), Ok(Quality::CRC_INVALID));
    // Version 5 prescribes a CRC; a telegram without version and time is of version 2.2 or 3, which have none.
    assert_eq!(judge("/X\r\n\r\n1-3:0.2.8(50)\r\n!\r\n", strict), Err(CrcError::Missing));
    assert_eq!(judge("/X\r\n\r\n0-0:1.0.0(261025023000S)\r\n!\r\n", strict), Err(CrcError::Missing));
    assert_eq!(judge("/X\r\n\r\n1-3:0.2.8(50)\r\n!\r\n", lenient), Ok(Quality::UNAUTHENTICATED));
    assert_eq!(judge("/X\r\n\r\n0-0:96.1.1(31)\r\n!\r\n", strict), Ok(Quality::UNAUTHENTICATED));
}

#[test]
fn seven_data_bits_with_parity_are_undone() {
    let plain = telegram();
    let parity = |byte: u8| if byte.count_ones() % 2 == 1 { byte | 0x80 } else { byte };
    let mut sent: Vec<u8> = plain.iter().map(|&byte| parity(byte)).collect();
    assert!(clear_even_parity(&mut sent));
    assert_eq!(sent, plain);
    assert!(!clear_even_parity(&mut sent));
    let mut latin = [plain.clone(), vec![0xe9]].concat();
    assert!(!clear_even_parity(&mut latin));
    assert_eq!(latin.last(), Some(&0xe9));
}

proptest! {
    #[test]
    fn any_octets_are_walked_to_their_end(bytes in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'!'), Just(b'\r'), Just(b'\n'), Just(b'A'), any::<u8>()], 0..300)) {
        let (_, left) = walk(&bytes);
        // What is left waits for its end; it starts a telegram.
        prop_assert!(left == 0 || bytes[bytes.len() - left] == b'/');
    }

    #[test]
    fn the_first_octet_is_found_wherever_it_is(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(find(&bytes, b'/', b'!'), bytes.iter().position(|byte| matches!(byte, b'/' | b'!')));
    }
}
