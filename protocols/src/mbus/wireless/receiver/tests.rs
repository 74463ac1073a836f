use super::*;
use crate::mbus::{SecondaryAddress, WirelessForm, maker_code};
use proptest::prelude::*;

const ALL: [Receiver; 5] = [Receiver::RtlWmbus, Receiver::Hex, Receiver::Cul, Receiver::Im871a, Receiver::Amb8465];
const AT: UtcMillis = UtcMillis(1_795_401_315_000);
/// From the documentation of wmbusmeters: an allocator of Qundis, as rtl_wmbus prints it.
const ALLOCATOR: &str = "C1;1;1;2019-02-09 07:14:18.000;117;102;94740459;0x49449344590474943508780dff5f3500827f0000f10007b06effff\
    530100005f2c620100007f2118010000008000800080008000000000000000000e003f005500d4ff2f046d10086922\n";
/// A water meter of the tests of ioBroker.wmbus, without CRCs.
const WATER: &str = "2C446532821851582C067AE1000000046D1906D9180C1334120000426CBF1C4C1300000000326CFFFF01FD7300";
/// What an AMB8465 answers whose frames have no signal strength, or have it.
const WITHOUT_RSSI: [u8; 7] = [0xff, 0x8a, 0x03, 0x45, 0x01, 0x00, 0x32];
const WITH_RSSI: [u8; 7] = [0xff, 0x8a, 0x03, 0x45, 0x01, 0x01, 0x33];

fn octets(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn water() -> WirelessFrame {
    WirelessFrame::decode(&octets(WATER), WirelessForm::Stripped).expect("a frame")
}

/// A receiver that was started, and has answered what it was asked.
fn listener(receiver: Receiver) -> Listener {
    let mut listener = Listener::new(receiver, RadioMode::CT);
    drop(listener.start());
    if receiver == Receiver::Amb8465 {
        listener.feed(&WITHOUT_RSSI);
        assert_eq!(listener.next_reception(), None);
    }
    listener
}

fn all_of(listener: &mut Listener, octets: &[u8]) -> Vec<Reception> {
    listener.feed(octets);
    std::iter::from_fn(|| listener.next_reception()).collect()
}

fn frames(receptions: Vec<Reception>) -> Vec<(WirelessFrame, Option<i16>)> {
    let frame = |reception| match reception {
        Reception::Frame { frame, rssi_dbm } => Some((frame, rssi_dbm)),
        _ => None,
    };
    receptions.into_iter().filter_map(frame).collect()
}

fn errors(receptions: &[Reception]) -> Vec<ReceiverError> {
    let error = |reception: &Reception| match reception {
        Reception::Garbage(error) => Some(*error),
        _ => None,
    };
    receptions.iter().filter_map(error).collect()
}

#[test]
fn lines_of_rtl_wmbus_are_read_and_those_with_wrong_checks_counted() {
    let mut listener = listener(Receiver::RtlWmbus);
    let found = frames(all_of(&mut listener, ALLOCATOR.as_bytes()));
    assert_eq!(found[0].0.address.to_string(), "QDS:94740459:35:08");
    let prefixed = format!("rla;{ALLOCATOR}");
    assert_eq!(frames(all_of(&mut listener, prefixed.as_bytes())), found, "the name of an algorithm");
    let (_, digits) = ALLOCATOR.trim_end().rsplit_once(';').expect("fields");
    let twice = format!("{};{digits}\r\n{digits}\n", ALLOCATOR.trim_end());
    assert_eq!(frames(all_of(&mut listener, twice.as_bytes())).len(), 3, "two in one line, and one alone");
    for wrong in [ALLOCATOR.replace("C1;1;1", "C1;0;1"), ALLOCATOR.replace("C1;1;1", "T1;1;0")] {
        assert_eq!(all_of(&mut listener, wrong.as_bytes()), [Reception::Garbage(ReceiverError::Damaged)]);
    }
    let noise = all_of(&mut listener, b"rtlsdr: found 1 device\n\r\n");
    assert_eq!(noise, [Reception::Garbage(ReceiverError::Noise { octets: 22 })]);
    let cut = ALLOCATOR.replace("6922\n", "69\n");
    let error = errors(&all_of(&mut listener, cut.as_bytes()));
    assert!(matches!(error[..], [ReceiverError::Frame(WirelessError::Length { length: 0x49, .. })]), "{error:?}");
}

#[test]
fn bare_digits_may_have_crcs() {
    let mut listener = listener(Receiver::Hex);
    for form in [WirelessForm::A, WirelessForm::B, WirelessForm::Stripped] {
        let digits = crate::sml::hexadecimal(&water().encode(form).expect("not too long"));
        for line in [format!("{digits}\n"), format!("0x{}\r\n", digits.to_lowercase())] {
            assert_eq!(frames(all_of(&mut listener, line.as_bytes())), [(water(), None)]);
        }
    }
    let longer = all_of(&mut listener, format!("{WATER}00\n").as_bytes());
    assert!(matches!(errors(&longer)[..], [ReceiverError::Frame(WirelessError::Length { .. })]), "{longer:?}");
}

#[test]
fn lines_of_culfw_have_format_a_or_b_and_perhaps_signal_strength() {
    let mut listener = listener(Receiver::Cul);
    let digits = |form| crate::sml::hexadecimal(&water().encode(form).expect("not too long"));
    let (a, b) = (digits(WirelessForm::A), digits(WirelessForm::B));
    for (line, rssi) in [
        (format!("b{a}\r\n"), None),
        (format!("b{a}2D\r\n"), None),
        (format!("b{a}2DF6\r\n"), Some(-79)),
        (format!("bY{b}\n"), None),
        (format!("bY{b}2D20\n"), Some(-58)),
    ] {
        assert_eq!(frames(all_of(&mut listener, line.as_bytes())), [(water(), rssi)], "{line}");
    }
    assert_eq!(all_of(&mut listener, b"CMODE\r\n"), [], "the answer to the choice of the mode");
    let wrong = all_of(&mut listener, format!("V 1.67 nanoCUL868\r\nb{}\r\n", a.replace("6532", "6533")).as_bytes());
    let crc = |error: &ReceiverError| matches!(error, ReceiverError::Frame(WirelessError::Crc { block: 1, .. }));
    assert!(matches!(&errors(&wrong)[..], [ReceiverError::Noise { .. }, error] if crc(error)), "{wrong:?}");
    assert_eq!(listener.start(), b"X21\r\nbrc\r\n");
    assert_eq!(Listener::new(Receiver::Cul, RadioMode::S).start(), b"X21\r\nbrs\r\n");
}

/// Request and answer are those of ioBroker.wmbus.
#[test]
fn frames_of_an_im871a_are_checked_and_may_have_time_and_signal_strength() {
    let mut listener = listener(Receiver::Im871a);
    let exchange = octets("a5810306000300030800b8d6 a58104009cf7");
    assert_eq!(all_of(&mut listener, &exchange), [], "right, and no frames of the radio");
    let l = octets(WATER);
    for (flags, behind) in [(0x00, &[][..]), (0x20, &[1, 2, 3, 4]), (0x40, &[0x55]), (0x60, &[1, 2, 3, 4, 0x55])] {
        let bare = [&[0xa5, flags | 0x02, 0x03], &l[..], behind].concat();
        assert_eq!(frames(all_of(&mut listener, &bare)), [(water(), None)], "{flags:02x}");
        let mut checked = bare.clone();
        checked[1] |= 0x80;
        let check = !crate::hdlc::fcs::update(crate::hdlc::fcs::PRESET, &checked[1..]);
        checked.extend(check.to_le_bytes());
        assert_eq!(frames(all_of(&mut listener, &checked)), [(water(), None)], "{flags:02x}");
        // Control: the check not looked at.
        checked[20] ^= 1;
        let wrong = all_of(&mut listener, &[checked, bare].concat());
        assert!(matches!(errors(&wrong)[0], ReceiverError::Checksum { .. }), "{wrong:?}");
        assert_eq!(frames(wrong), [(water(), None)], "the next one is found");
    }
    let start = listener.start();
    assert_eq!(start[..12], octets("a5 81 03 08 00 03 00 0a 38 00 01 00"));
    assert_eq!((all_of(&mut listener, &start), listener.pending()), (Vec::new(), 0), "its check is right");
}

/// What is asked, and the answers, are those of ioBroker.wmbus.
#[test]
fn frames_of_an_amb8465_have_signal_strength_where_it_says_so() {
    let mut listener = Listener::new(Receiver::Amb8465, RadioMode::CT);
    assert_eq!(listener.start(), octets("ff040109f3 ff0a020501f3 ff0a024501b3"));
    let bare = Receiver::Amb8465.hand_out(&water(), AT).expect("not too long");
    let asked_again = vec![Reception::Send(octets("ff0a024501b3"))];
    assert_eq!(all_of(&mut listener, &bare), asked_again, "nobody knows what its last octet is");
    let answers = octets("ff8401007a ff8a0305010173");
    assert_eq!(all_of(&mut listener, &[&answers[..], &WITHOUT_RSSI].concat()), []);
    assert_eq!(frames(all_of(&mut listener, &bare)), [(water(), None)]);
    let mut with_rssi = [&bare[..bare.len() - 1], &[0x77]].concat();
    with_rssi[2] += 1;
    with_rssi.push(with_rssi.iter().fold(0, |check, octet| check ^ octet));
    assert_eq!(frames(all_of(&mut listener, &[&WITH_RSSI[..], &with_rssi].concat())), [(water(), Some(-15))]);
    let off = all_of(&mut listener, &octets("ff8a0305010072"));
    assert_eq!(off, [Reception::Garbage(ReceiverError::CommandOutputOff)]);
    with_rssi[9] ^= 0x10;
    assert!(matches!(errors(&all_of(&mut listener, &with_rssi))[0], ReceiverError::Checksum { .. }));
    drop(listener.start());
    assert_eq!(all_of(&mut listener, &bare), asked_again, "another one may be there");
}

/// Control, seen to fail: the rest of a line that is too long taken for the next line.
#[test]
fn a_line_without_end_is_told_once_and_kept_in_part() {
    let mut listener = listener(Receiver::RtlWmbus);
    let mut said = Vec::new();
    for _ in 0..100 {
        said.extend(all_of(&mut listener, &[b'0'; 500]));
        assert!(listener.pending() <= PENDING_MAX);
    }
    assert_eq!(said, [Reception::Garbage(ReceiverError::LineLength)]);
    let after = all_of(&mut listener, format!(";{ALLOCATOR}{ALLOCATOR}").as_bytes());
    assert_eq!((frames(after.clone()).len(), after.len()), (1, 1), "the rest of the line is none");
}

/// Control, seen to fail: give up all that waits.
#[test]
fn what_is_cut_off_does_not_hide_what_begins_in_it() {
    for receiver in ALL {
        let mut listener = listener(receiver);
        let whole = receiver.hand_out(&water(), AT).expect("not too long");
        let mut given_up = |octets: &[u8]| {
            let mut said = all_of(&mut listener, octets);
            while let Some(garbage) = listener.give_up() {
                said.push(garbage);
                said.extend(std::iter::from_fn(|| listener.next_reception()));
            }
            assert_eq!(listener.pending(), 0);
            frames(said).into_iter().map(|(frame, _)| frame).collect::<Vec<_>>()
        };
        assert_eq!(given_up(&whole[..whole.len() / 2]), [], "{receiver:?}");
        // Behind the beginning of a longer one.
        let beginning: &[u8] = match receiver {
            Receiver::Im871a => &[0xa5, 0x82, 0x03, 0xf0],
            Receiver::Amb8465 => &[0xff, 0x03, 0xf0],
            _ => b"",
        };
        assert_eq!(given_up(&[beginning, &whole].concat()), [water()], "{receiver:?}");
    }
}

fn any_frame() -> impl Strategy<Value = WirelessFrame> {
    let payload = proptest::collection::vec(any::<u8>(), 1..200);
    (any::<u8>(), any::<[u8; 8]>(), payload).prop_map(|(control, address, payload)| {
        let address = SecondaryAddress::from_octets(address);
        WirelessFrame { control, address, payload }
    })
}

/// Something that no frame of this receiver begins in.
fn between(receiver: Receiver, noise: &[u8]) -> Vec<u8> {
    match receiver {
        Receiver::Im871a => noise.iter().map(|octet| octet & 0x5a).collect(),
        Receiver::Amb8465 => noise.iter().map(|octet| octet & 0x7f).collect(),
        _ => [&noise.iter().map(|octet| octet & 0x3f | 0x40).collect::<Vec<_>>()[..], b"\n"].concat(),
    }
}

proptest! {
    // Controls: skip one octet less behind a frame; judge a header of three octets.
    #[test]
    fn any_cut_of_the_octets_gives_the_same_frames(
        heard in proptest::collection::vec(any_frame(), 1..4), which in 0..ALL.len(),
        noise in proptest::collection::vec(any::<u8>(), 0..40), size in 1..300usize,
    ) {
        let receiver = ALL[which];
        let mut stream = Vec::new();
        for frame in &heard {
            stream.extend(between(receiver, &noise));
            stream.extend(receiver.hand_out(frame, AT).expect("not too long"));
        }
        let found = |receptions| frames(receptions).into_iter().map(|(frame, _)| frame).collect::<Vec<_>>();
        prop_assert_eq!(found(all_of(&mut listener(receiver), &stream)), heard.clone());
        let mut pieces = listener(receiver);
        let receptions = stream.chunks(size).flat_map(|piece| all_of(&mut pieces, piece)).collect();
        prop_assert_eq!(found(receptions), heard);
        prop_assert_eq!(pieces.pending(), 0);
    }

    #[test]
    fn no_octets_panic_or_are_kept_for_ever(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..8)) {
        for receiver in ALL {
            let mut listener = listener(receiver);
            for piece in &pieces {
                for error in errors(&all_of(&mut listener, piece)) {
                    prop_assert!(!error.to_string().is_empty());
                }
                prop_assert!(listener.pending() <= PENDING_MAX);
            }
        }
    }
}

#[test]
fn what_is_handed_out_names_the_meter_as_rtl_wmbus_does() {
    let maker = maker_code("SIM").expect("three letters");
    let address = SecondaryAddress::of_number(12_345_678, maker, 1, 7);
    let frame = WirelessFrame { control: 0x44, address, payload: vec![0x78, 0x2f] };
    let line = String::from_utf8(Receiver::RtlWmbus.hand_out(&frame, AT).expect("short")).expect("text");
    assert_eq!(line, "T1;1;1;2026-11-23 02:35:15.000;117;102;12345678;0x0b442d4d785634120107782f\n");
}
