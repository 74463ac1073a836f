use super::*;
use crate::mbus::security::encipher;
use crate::mbus::{Builder, Datum, Place, WirelessForm, WirelessFrame};
use proptest::prelude::*;

const ADDRESS: [u8; 8] = [0x78, 0x56, 0x34, 0x12, 0x24, 0x40, 0x01, 0x07];

fn octets(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn key(text: &str) -> Key {
    Key::new(octets(text).try_into().expect("16 octets"))
}

fn records(telegram: Result<Telegram, TelegramError>) -> Vec<u8> {
    match telegram {
        Ok(Telegram { body: Body::Records(octets), .. }) => octets,
        other => panic!("{other:?}"),
    }
}

#[test]
fn headers_are_read() {
    let long = [&[0x72][..], &ADDRESS, &[0x55, 0x30, 0, 0, 0x01, 0x13, 5]].concat();
    let telegram = Telegram::decode(&long, None, None).expect("a telegram");
    let address = Some(SecondaryAddress::from_octets(ADDRESS));
    assert_eq!(telegram.header, Header { address, access: 0x55, status: Status(0x30), ..Header::default() });
    let link = Some(SecondaryAddress::of_number(1, 2, 3, 4));
    let short = Telegram::decode(&[0x7a, 0x55, 0x30, 0, 0, 0x01, 0x13, 5], link, None).expect("a telegram");
    assert_eq!((short.header.address, short.body.clone()), (link, telegram.body.clone()));
    let none = Telegram::decode(&[0x78, 0x01, 0x13, 5], link, None).expect("a telegram");
    assert_eq!((none.header.address, none.body), (link, telegram.body));
}

#[test]
fn what_is_no_telegram_is_refused() {
    let error = |octets: &[u8]| Telegram::decode(octets, None, None).expect_err("no telegram");
    assert!(matches!(error(&[]), TelegramError::Header(_)));
    assert!(matches!(error(&[0x72, 1, 2, 3]), TelegramError::Header(_)));
    assert_eq!(error(&[0x51]), TelegramError::ControlInformation { ci: 0x51 });
    assert_eq!(error(&[0x76]), TelegramError::ControlInformation { ci: 0x76 });
    assert_eq!(error(&[0x90, 2, 0x00, 0x40, 0x72]), TelegramError::Fragment);
    let enciphered = [&[0x72][..], &ADDRESS, &[0x55, 0, 0x10, 0x05], &[0; 16]].concat();
    assert_eq!(error(&enciphered), SecurityError::NoKey { mode: 5 }.into());
    let mode_10 = [&[0x72][..], &ADDRESS, &[0x55, 0, 0x10, 0x0a], &[0; 16]].concat();
    assert_eq!(error(&mode_10), SecurityError::Mode { mode: 10 }.into());
    let cut = [&[0x72][..], &ADDRESS, &[0x55, 0, 0x20, 0x05], &[0; 16]].concat();
    let refused = Telegram::decode(&cut, None, Some(&Key::new([0; 16])));
    assert_eq!(refused, Err(SecurityError::Length { enciphered: 32, left: 16 }.into()));
}

/// Control, seen to fail: the mode taken from the configuration field.
#[test]
fn what_has_no_enciphered_blocks_is_in_clear_whatever_its_mode() {
    let bare = [&[0x72][..], &ADDRESS, &[0x55, 0, 0x00, 0x05, 0x01, 0x13, 5]].concat();
    let telegram = Telegram::decode(&bare, None, Some(&Key::new([7; 16]))).expect("a telegram");
    assert_eq!((telegram.header.mode, telegram.body), (0, Body::Records(vec![0x01, 0x13, 5])));
}

#[test]
fn application_errors_and_alarms_are_told_apart() {
    let body = |octets: &[u8]| Telegram::decode(octets, None, None).expect("a telegram").body;
    assert_eq!(body(&[0x70, 0x09]), Body::ApplicationError(Some(9)));
    assert_eq!(body(&[0x70]), Body::ApplicationError(None));
    assert_eq!(body(&[0x6e, 1, 0, 0, 0, 0x04]), Body::ApplicationError(Some(4)));
    assert_eq!(body(&[0x71, 0x02]), Body::Alarm(vec![2]));
    assert_eq!(body(&[0x74, 1, 0, 0, 0, 0x02]), Body::Alarm(vec![2]));
}

/// A water meter, from the tests of m-bus-parser (MIT): frame, key and what is in it.
#[test]
fn a_captured_telegram_of_mode_5_is_deciphered() {
    let frame = octets(
        "6644496A310001551437 7203926314496A000750005005 98A78E0D71AA6358EEBD0B20BFDF99EDA2D22FA25314F3F1B84470898E495303
         923770BA8DDA97C964F0EA6CE24F5650C0A6CDF3DE37DE33FBFBEBACE4009BB0D8EBA2CBE80433FF131328206020B1BF",
    );
    let frame = WirelessFrame::decode(&frame, WirelessForm::Stripped).expect("a frame");
    assert_eq!(frame.address.to_string(), "ZRI:55010031:14:37");
    let clear = records(frame.telegram(Some(&key("F8B24F12F9D113F680BEE765FDE67EC0"))));
    assert_eq!(clear[..14], octets("2F2F0C1329730600026C94218204")[..]);
    assert_eq!(frame.telegram(None), Err(SecurityError::NoKey { mode: 5 }.into()));
    assert_eq!(frame.telegram(Some(&Key::new([7; 16]))), Err(SecurityError::WrongKey.into()));
}

/// A Multical 21 of Kamstrup, a published example with its key (wmbusmeters, `simulations`).
#[test]
fn a_captured_telegram_of_the_extended_link_layer_is_deciphered() {
    let frame = octets("2A442D2C998734761B16 8D2091D37CAC21 E1D68CDAFFCD3DC452BD802913FF7B1706CA9E355D6C2701CC24");
    let frame = WirelessFrame::decode(&frame, WirelessForm::Stripped).expect("a frame");
    let telegram = frame.telegram(Some(&key("28F64A24988064A079AA2C807D6102AE")));
    assert_eq!(telegram.clone().map(|telegram| telegram.header.mode), Ok(8));
    let clear = records(telegram);
    assert_eq!(clear, octets("02FF207100041308190000441308190000615B7F616713"));
    assert_eq!(frame.telegram(None), Err(SecurityError::NoKey { mode: 8 }.into()));
    assert_eq!(frame.telegram(Some(&Key::new([7; 16]))), Err(TelegramError::PayloadCrc));
}

/// A telegram of mode 7 as the specification says, for tests.
fn mode_7(master: &Key, counter: [u8; 4], content: &[u8], has_length: bool) -> Vec<u8> {
    let id: [u8; 4] = [ADDRESS[0], ADDRESS[1], ADDRESS[2], ADDRESS[3]];
    let keys = MessageKeys::derive(master, counter, id);
    let mut data = [&[0x2f, 0x2f][..], content].concat();
    data.resize(data.len().next_multiple_of(16), 0x2f);
    encipher(&keys.enciphering, [0; 16], &mut data);
    let blocks = (data.len() / 16) as u8;
    let message = [&[0x72][..], &ADDRESS, &[0x55, 0, blocks << 4, 0x07, 0x10], &data].concat();
    let length = if has_length { (message.len() as u16).to_le_bytes().to_vec() } else { Vec::new() };
    let control = if has_length { 0x65 } else { 0x25 };
    let code = cmac(&keys.authentication, &[&[control][..], &counter, &length, &message].concat());
    let present = if has_length { 0x3c } else { 0x2c };
    let fields = [&[0x00, present, control][..], &counter, &code[..8], &length].concat();
    [&[0x90, fields.len() as u8][..], &fields, &message].concat()
}

proptest! {
    #[test]
    fn mode_7_is_verified_and_deciphered(
        master: [u8; 16], counter: [u8; 4], content in proptest::collection::vec(any::<u8>(), 0..100), has_length: bool,
        at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let key = Key::new(master);
        let mut octets = mode_7(&key, counter, &content, has_length);
        let telegram = Telegram::decode(&octets, None, Some(&key));
        prop_assert_eq!(telegram.clone().map(|telegram| telegram.header.counter), Ok(Some(u32::from_le_bytes(counter))));
        let clear = records(telegram);
        prop_assert!(clear[2..].starts_with(&content));
        prop_assert_eq!(Telegram::decode(&octets, None, None), Err(SecurityError::NoKey { mode: 7 }.into()));
        // Negative control: do not verify.
        let message_at = octets.iter().position(|octet| *octet == 0x72).filter(|at| *at > 10).unwrap_or(17);
        let at = message_at + 13 + at.index(octets.len() - message_at - 13);
        octets[at] ^= 1 << bit;
        let wrong = Telegram::decode(&octets, None, Some(&key));
        prop_assert!(wrong.is_err(), "{:?}", wrong);
    }

    #[test]
    fn what_the_builder_enciphers_is_deciphered(master: [u8; 16], number: u32, access: u8) {
        let key = Key::new(master);
        let builder = || {
            let builder = Builder::new(SecondaryAddress::from_octets(ADDRESS)).access(access);
            builder.record(Place::PRESENT, &[0x13], &Datum::Integer(number.into(), 6)).unwrap()
        };
        let enciphered = builder().finish_enciphered(&key);
        let clear = records(Telegram::decode(&builder().finish()[0], None, None));
        prop_assert!(records(Telegram::decode(&enciphered[0], None, Some(&key)))[2..].starts_with(&clear));
    }

    /// The other one who writes it is [`mode_7`].
    #[test]
    fn what_the_builder_authenticates_is_verified_and_deciphered(master: [u8; 16], number: u32, counter: u32) {
        let key = Key::new(master);
        let builder = || {
            let builder = Builder::new(SecondaryAddress::from_octets(ADDRESS)).access(0x55);
            builder.record(Place::PRESENT, &[0x13], &Datum::Integer(number.into(), 6)).unwrap()
        };
        let clear = records(Telegram::decode(&builder().finish()[0], None, None));
        let authenticated = builder().finish_authenticated(&key, counter).remove(0);
        prop_assert_eq!(&authenticated, &mode_7(&key, counter.to_le_bytes(), &clear, false));
        let telegram = Telegram::decode(&authenticated, None, Some(&key)).expect("a telegram");
        prop_assert_eq!((telegram.header.mode, telegram.header.counter), (7, Some(counter)));
    }

    #[test]
    fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..80), ci in prop_oneof![Just(0x72u8), Just(0x7a), Just(0x8d), Just(0x8f), Just(0x90), any::<u8>()]) {
        let octets = [&[ci][..], &octets].concat();
        for key in [None, Some(&Key::new([1; 16]))] {
            if let Err(error) = Telegram::decode(&octets, None, key) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
