//! Who listens on the line of a meter without its keys: the invocation counters that its clients say in clear.
//!
//! Whoever uses a counter twice under one key gives both APDUs away, whether the meter has accepted them or not. So what is heard counts
//! here, and not what the meter took: a meter without power hears nothing, and an eavesdropper does.

use std::collections::HashMap;

/// Version, wPorts and length before an APDU in the wrapper.
pub(super) const HEADER_OCTETS: usize = 8;
const AARQ: u8 = 0x60;
const RLRQ: u8 = 0x62;
/// Of both, with the initiate request.
const USER_INFORMATION: u8 = 0xbe;
const OCTET_STRING: u8 = 0x04;
const GLO_INITIATE_REQUEST: u8 = 0x21;

/// What was heard of a meter's clients.
#[derive(Debug, Default)]
pub(super) struct Wiretap {
    /// By the client's wPort: the greatest counter.
    greatest: HashMap<u16, u32>,
    /// Counters that did not rise.
    pub(super) repeated: u64,
}

impl Wiretap {
    /// Hears whole WPDUs of clients.
    pub(super) fn hear(&mut self, mut wpdus: &[u8]) {
        while let Some(([_, _, source @ .., _, _, high, low], rest)) = wpdus.split_first_chunk::<HEADER_OCTETS>() {
            let length = u16::from_be_bytes([*high, *low]);
            let Some((apdu, next)) = rest.split_at_checked(length.into()) else { return };
            if let Some(counter) = counter_of(apdu) {
                self.note(u16::from_be_bytes(*source), counter);
            }
            wpdus = next;
        }
    }

    fn note(&mut self, client: u16, counter: u32) {
        let greatest = self.greatest.get(&client).copied();
        self.repeated += u64::from(greatest.is_some_and(|greatest| counter <= greatest));
        self.greatest.insert(client, greatest.map_or(counter, |greatest| greatest.max(counter)));
    }
}

/// The invocation counter of a ciphered request, or of the initiate request in one that opens or ends an association.
fn counter_of(apdu: &[u8]) -> Option<u32> {
    let (tag, rest) = apdu.split_first()?;
    let content = match *tag {
        AARQ | RLRQ => {
            let (mut fields, _) = counted(rest)?;
            loop {
                let (field, rest) = fields.split_first()?;
                let (value, next) = counted(rest)?;
                if *field == USER_INFORMATION {
                    let value = value.strip_prefix(&[OCTET_STRING])?;
                    return counter_of(counted(value)?.0);
                }
                fields = next;
            }
        }
        // glo- and ded- requests: get, set, action.
        GLO_INITIATE_REQUEST | 0xc8 | 0xc9 | 0xcb | 0xd0 | 0xd1 | 0xd3 => counted(rest)?.0,
        // general-glo and general-ded, with the sender's title before.
        0xdb | 0xdc => counted(counted(rest)?.1)?.0,
        // general-ciphering.
        0xdd => counted(behind_key(behind_header(rest)?)?)?.0,
        // general-signing, around what is ciphered.
        0xdf => return counter_of(counted(behind_header(rest)?)?.0),
        _ => return None,
    };
    // Behind the security control octet.
    let [_, counter @ ..] = content.first_chunk::<5>()?;
    Some(u32::from_be_bytes(*counter))
}

/// Transaction, both titles, date-time and other information.
fn behind_header(octets: &[u8]) -> Option<&[u8]> {
    (0..5).try_fold(octets, |rest, _| Some(counted(rest)?.1))
}

/// A key that is named, wrapped or agreed on, or none.
fn behind_key(octets: &[u8]) -> Option<&[u8]> {
    match octets {
        [0, rest @ ..] | [1, 0, _, rest @ ..] => Some(rest),
        [1, 1, 0, rest @ ..] => Some(counted(rest)?.1),
        [1, 2, rest @ ..] => Some(counted(counted(rest)?.1)?.1),
        _ => None,
    }
}

/// What a length before it counts, and what follows.
fn counted(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = octets.split_first()?;
    match *first {
        0..=0x7f => rest.split_at_checked(usize::from(*first)),
        0x81 => rest.split_first().and_then(|(length, rest)| rest.split_at_checked(usize::from(*length))),
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            rest.split_at_checked(u16::from_be_bytes(*length).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wpdu(client: u16, apdu: &[u8]) -> Vec<u8> {
        let numbers = [1, client, 1, apdu.len() as u16];
        numbers.into_iter().flat_map(u16::to_be_bytes).chain(apdu.iter().copied()).collect()
    }

    /// Control, seen to fail: take the initiate request of an AARQ for something else.
    #[test]
    fn counters_are_heard_in_every_wrapper_and_each_that_does_not_rise_counts() {
        let general = [&[0xdb, 8][..], b"XMP00001", &[7, 0x30, 0, 0, 0, 6, 1, 2]].concat();
        let aarq = [0x60, 0x10, 0xa1, 1, 0, 0xbe, 11, 4, 9, 0x21, 7, 0x30, 0, 0, 0, 5, 1, 2];
        let service = |counter: u8| vec![0xc8, 0x81, 7, 0x30, 0, 0, 0, counter, 1, 2];
        let mut wiretap = Wiretap::default();
        wiretap.hear(&[wpdu(1, &aarq), wpdu(1, &general), wpdu(1, &service(7)), wpdu(16, &service(1))].concat());
        assert_eq!((wiretap.repeated, wiretap.greatest[&1], wiretap.greatest[&16]), (0, 7, 1));
        for again in [wpdu(1, &service(7)), wpdu(1, &aarq), wpdu(1, &general)] {
            let before = wiretap.repeated;
            wiretap.hear(&again);
            assert_eq!(wiretap.repeated, before + 1);
        }
        wiretap.hear(&wpdu(1, &service(8)));
        assert_eq!(wiretap.repeated, 3);
    }

    /// Negative control: leave either tag out.
    #[test]
    fn counters_are_heard_behind_every_key_and_inside_of_signatures() {
        let header = [&[1, 7, 8][..], b"XMP00001", &[8], b"SIM00001", &[0, 0]].concat();
        let keys: [&[u8]; 5] =
            [&[0], &[1, 0, 0], &[1, 1, 0, 2, 0xaa, 0xbb], &[1, 2, 1, 1, 2, 0xaa, 0xbb], &[1, 2, 1, 2, 0]];
        let mut wiretap = Wiretap::default();
        for (counter, key) in (1..).zip(keys) {
            let ciphered = [&[0xdd][..], &header, key, &[7, 0x30, 0, 0, 0, counter, 1, 2]].concat();
            wiretap.hear(&wpdu(1, &ciphered));
            assert_eq!((wiretap.repeated, wiretap.greatest[&1]), (u64::from(counter) - 1, u32::from(counter)));
            let signed = [&[0xdf][..], &header, &[ciphered.len() as u8], &ciphered, &[2, 9, 9]].concat();
            wiretap.hear(&wpdu(1, &signed));
            assert_eq!(wiretap.repeated, u64::from(counter));
        }
    }

    #[test]
    fn what_is_said_in_clear_or_cut_off_has_no_counter() {
        let mut wiretap = Wiretap::default();
        for apdu in [&[0xc0, 1, 0xc1, 0][..], &[0xc8, 7, 0x30, 0, 0], &[0x60, 2, 0xa1], &[0x62, 0], &[]] {
            wiretap.hear(&wpdu(1, apdu));
        }
        wiretap.hear(&wpdu(1, &[0xc8; 20])[..19]);
        assert!(wiretap.greatest.is_empty() && wiretap.repeated == 0);
    }
}
