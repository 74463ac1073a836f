use protocols::dlms::security::{Key, SecurityControl, protect_push};

use super::*;

pub(crate) const TITLE: SystemTitle = SystemTitle(*b"SIM\x00\x00\x00\x00\x2a");
pub(crate) const OURS: SystemTitle = SystemTitle(*b"XMP\x00\x00\x00\x00\x01");

pub(crate) fn keys(authentication: Option<[u8; 16]>, accept_unauthenticated: bool) -> PushKeys {
    PushKeys {
        encryption: Key::from([1; 16]),
        authentication: authentication.map(Key::from),
        sender: None,
        senders: Vec::new(),
        ours: Some(OURS),
        accept_unauthenticated,
    }
}

/// As a meter sends it.
pub(crate) fn sealed(apdu: &[u8], level: Level, counter: u32) -> Vec<u8> {
    let keys = Keys::new(Key::from([1; 16]), Key::from([2; 16]));
    // Kaifa in Austria announces suite 1.
    let control = SecurityControl { suite: SecuritySuite::Suite1, level, broadcast: false };
    protect_push(&keys, TITLE, control, counter, apdu).unwrap()
}

const PUSH: &[u8] = &[0x0f, 0, 0, 0, 1, 0, 0];

fn trouble(seal: &mut Seal, apdu: &[u8]) -> Trouble {
    seal.open(apdu).map(|opened| opened.quality).unwrap_err().trouble
}

/// Controls, seen to fail: leave `minimum` as it is by default; keep the counter of whatever is opened.
#[test]
fn what_is_less_protected_than_set_is_refused_or_marked() {
    let whole = sealed(PUSH, Level::AUTHENTICATED_ENCRYPTED, 1);
    let bare = sealed(PUSH, Level::ENCRYPTED, 2);
    let quality = |keys: Option<&PushKeys>, apdu: &[u8]| Seal::new(keys).open(apdu).map(|opened| opened.quality);
    let strict = keys(Some([2; 16]), false);
    assert_eq!(quality(Some(&strict), &whole), Ok(Quality::GOOD));
    for (apdu, expected) in
        [(&bare[..], Trouble::Protection), (PUSH, Trouble::Protection), (&whole[..30], Trouble::Frame)]
    {
        assert_eq!(trouble(&mut Seal::new(Some(&strict)), apdu), expected);
    }
    let other = keys(Some([3; 16]), true);
    assert_eq!(trouble(&mut Seal::new(Some(&other)), &whole), Trouble::Protection, "a tag that is there counts");
    let lenient = keys(Some([2; 16]), true);
    assert_eq!(quality(Some(&lenient), &whole), Ok(Quality::GOOD));
    assert_eq!(quality(Some(&lenient), &bare), Ok(Quality::UNAUTHENTICATED));
    let mut seal = Seal::new(Some(&lenient));
    assert!(seal.open(&bare).is_ok() && seal.taken().is_empty(), "over restarts it keeps no meter out");
    let withheld = keys(None, true);
    assert_eq!(quality(Some(&withheld), &whole), Ok(Quality::UNAUTHENTICATED));
    assert_eq!(
        trouble(&mut Seal::new(Some(&withheld)), PUSH),
        Trouble::Protection,
        "nobody sends in clear all at once"
    );
    assert_eq!(quality(None, PUSH), Ok(Quality::GOOD));
    assert_eq!(trouble(&mut Seal::new(None), &whole), Trouble::NoKey);
}

/// Control, seen to fail: let `resume` do nothing.
#[test]
fn a_push_is_taken_once_also_after_a_restart_and_only_of_its_sender() {
    let push = |counter| sealed(PUSH, Level::AUTHENTICATED_ENCRYPTED, counter);
    let strict = keys(Some([2; 16]), false);
    let mut seal = Seal::new(Some(&strict));
    assert_eq!(seal.taken(), []);
    for (counter, expected) in [(7, None), (7, Some(Trouble::Replayed)), (6, Some(Trouble::Replayed)), (9, None)] {
        assert_eq!(seal.open(&push(counter)).err().map(|refusal| refusal.trouble), expected, "{counter}");
    }
    assert_eq!(seal.taken(), [(TITLE, 9)]);
    let mut again = Seal::new(Some(&strict));
    again.resume(&[(SystemTitle([7; 8]), 70), (TITLE, 9)]);
    assert_eq!(trouble(&mut again, &push(9)), Trouble::Replayed);
    assert!(again.open(&push(10)).is_ok());
    let listed = |senders: &[SystemTitle]| PushKeys { senders: senders.to_vec(), ..strict.clone() };
    assert!(Seal::new(Some(&listed(&[SystemTitle([9; 8]), TITLE]))).open(&push(1)).is_ok());
    let mut elsewhere = Seal::new(Some(&listed(&[SystemTitle([9; 8])])));
    assert_eq!(trouble(&mut elsewhere, &push(1)), Trouble::Protection);
    assert_eq!(
        (elsewhere.taken(), elsewhere.repeated(&push(1)).is_some()),
        (Vec::new(), false),
        "nor when it comes again"
    );
    let elsewhere = PushKeys { sender: Some(SystemTitle([9; 8])), ..strict };
    assert_eq!(trouble(&mut Seal::new(Some(&elsewhere)), &push(1)), Trouble::Protection);
}

#[test]
fn keys_of_256_bits_are_those_of_suite_2() {
    let keys = PushKeys {
        encryption: Key::from([1; 32]),
        authentication: Some(Key::from([2; 32])),
        sender: None,
        senders: Vec::new(),
        ours: None,
        accept_unauthenticated: false,
    };
    let all = Keys { unicast: Some(Key::from([1; 32])), broadcast: None, authentication: Some(Key::from([2; 32])) };
    let level = Level::AUTHENTICATED_ENCRYPTED;
    let control = SecurityControl { suite: SecuritySuite::Suite2, level, broadcast: false };
    let apdu = protect_push(&all, TITLE, control, 1, PUSH).unwrap();
    assert_eq!(Seal::new(Some(&keys)).open(&apdu).map(|opened| opened.apdu), Ok(PUSH.to_vec()));
}
