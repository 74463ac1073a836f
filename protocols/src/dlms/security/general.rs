//! What general-ciphering and general-signing have in common, a header, and what general-ciphering says of its key.
//!
//! ```text
//! header    | length, transaction-id | length, originator | length, recipient | length, date-time | length, other-information |
//! key-info  00                                        nothing, the key is known
//!           01 00 | key-id                            identified: 0 global unicast, 1 global broadcast
//!           01 01 | kek-id | length, wrapped key      wrapped: kek-id 0 is the master key
//!           01 02 | 01 01 | length, key, signature    agreed: one-pass Diffie-Hellman, C(1e, 1s)
//!           01 02 | 01 02 | 00                        agreed: static unified model, C(0e, 2s)
//! ```

use super::ProtectionError;
use super::system_title::SystemTitle;
use crate::bytes::Reader;
use crate::dlms::axdr::{read_length, write_length};

/// Octets of a transaction-id that we take: a server says it again in its answer. Eight are usual.
const TRANSACTION_ID_MAX: usize = 32;
/// Octets of a header that we write, where it answers the longest transaction-id.
pub(super) const HEADER_MAX: usize = 1 + TRANSACTION_ID_MAX + 2 * (1 + SystemTitle::LEN) + 2;
/// Octets of a date-time that is not left out.
const DATE_TIME_LEN: usize = 12;
/// An ephemeral public key of P-384 and its signature, with what stands before them.
pub(super) const KEY_INFO_MAX: usize = 6 + 96 + 96;

/// Who says what to whom, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// All of it, lengths included: what is authenticated or signed.
    pub(super) octets: &'a [u8],
    pub(super) transaction_id: &'a [u8],
    pub(super) originator: &'a [u8],
    pub(super) recipient: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, ProtectionError> {
        let (start, before) = (reader.rest(), reader.offset());
        let transaction_id = octet_string(reader, "transaction-id")?;
        if transaction_id.len() > TRANSACTION_ID_MAX {
            return Err(ProtectionError::Malformed { what: "transaction-id" });
        }
        let originator = octet_string(reader, "originator-system-title")?;
        let recipient = octet_string(reader, "recipient-system-title")?;
        if ![0, DATE_TIME_LEN].contains(&octet_string(reader, "date-time")?.len()) {
            return Err(ProtectionError::Malformed { what: "date-time" });
        }
        octet_string(reader, "other-information")?;
        let octets = start.get(..reader.offset() - before).unwrap_or_default();
        Ok(Self { octets, transaction_id, originator, recipient })
    }

    /// Refuses what is for somebody else. Who is not named is everybody, where that is allowed.
    pub(super) fn check_recipient(&self, ours: SystemTitle, may_be_absent: bool) -> Result<(), ProtectionError> {
        if self.recipient.is_empty() && may_be_absent {
            return Ok(());
        }
        match SystemTitle::from_octets(self.recipient) {
            Ok(found) if found == ours => Ok(()),
            Ok(found) => Err(ProtectionError::Title { expected: ours, found }),
            Err(_) => Err(ProtectionError::Malformed { what: "recipient-system-title" }),
        }
    }
}

/// A header without date-time and other-information.
pub(super) fn encode_header(transaction_id: &[u8], originator: SystemTitle, recipient: SystemTitle) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_MAX);
    for field in [transaction_id, &originator.0, &recipient.0, &[], &[]] {
        write_octet_string(&mut out, field);
    }
    out
}

/// Which key general-ciphering names or brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyInfo<'a> {
    /// Which one is known without being said.
    Absent,
    /// 0 is the global unicast, 1 the global broadcast encryption key.
    Identified(u8),
    /// A key under the key-encrypting key.
    Wrapped(&'a [u8]),
    /// The sender's ephemeral public key, and its signature.
    OnePass(&'a [u8]),
    /// Both sides have static keys, and the transaction-id is the nonce.
    StaticUnified,
}

impl<'a> KeyInfo<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, ProtectionError> {
        const WHAT: &str = "key-info";
        let malformed = ProtectionError::Malformed { what: WHAT };
        let mut octet = || reader.u8().map_err(|_| malformed.clone());
        match octet()? {
            0 => return Ok(Self::Absent),
            1 => {}
            _ => return Err(malformed),
        }
        match octet()? {
            0 => octet().map(Self::Identified),
            // Which key-encrypting key: 0, the master key, is the only one.
            1 if octet()? == 0 => octet_string(reader, WHAT).map(Self::Wrapped),
            2 => match (octet_string(reader, WHAT)?, octet_string(reader, WHAT)?) {
                ([1], key) => Ok(Self::OnePass(key)),
                ([2], []) => Ok(Self::StaticUnified),
                _ => Err(malformed),
            },
            _ => Err(malformed),
        }
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Absent => out.push(0),
            Self::Identified(id) => out.extend([1, 0, id]),
            Self::Wrapped(key) => {
                out.extend([1, 1, 0]);
                write_octet_string(out, key);
            }
            Self::OnePass(key) => {
                out.extend([1, 2, 1, 1]);
                write_octet_string(out, key);
            }
            Self::StaticUnified => out.extend([1, 2, 1, 2, 0]),
        }
    }
}

pub(super) fn octet_string<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], ProtectionError> {
    let malformed = ProtectionError::Malformed { what };
    let length = read_length(reader).map_err(|_| malformed.clone())?;
    reader.take(length).map_err(|_| malformed)
}

pub(super) fn write_octet_string(out: &mut Vec<u8>, octets: &[u8]) {
    write_length(out, octets.len());
    out.extend(octets);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;
    use proptest::prelude::*;

    const CLIENT: SystemTitle = SystemTitle(*b"MMM\x00\x00\xbcaN");
    const SERVER: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");
    /// The header of the examples of DLMS UA 1000-2 ed. 8, table 41.
    const HEADER: &str = "08 0102030405060708 08 4D4D4D0000BC614E 08 4D4D4D0000000001 00 00";

    #[test]
    fn the_header_of_the_green_book_is_met_both_ways() {
        let octets = hex(HEADER);
        assert_eq!(encode_header(&[1, 2, 3, 4, 5, 6, 7, 8], CLIENT, SERVER), octets);
        let more = [&octets[..], &[0xa5]].concat();
        let mut reader = Reader::new(&more);
        let header = Header::decode(&mut reader).unwrap();
        assert_eq!((header.octets, header.transaction_id), (&octets[..], &[1, 2, 3, 4, 5, 6, 7, 8][..]));
        assert_eq!((header.originator, header.recipient), (&CLIENT.0[..], &SERVER.0[..]));
        assert_eq!(reader.rest(), [0xa5]);
        for len in 0..octets.len() {
            assert!(Header::decode(&mut Reader::new(&octets[..len])).is_err());
        }
    }

    #[test]
    fn a_date_time_has_its_length_and_a_transaction_an_end() {
        let with = |transaction: usize, date_time: usize| {
            let mut octets = Vec::new();
            for field in [&vec![7; transaction], &vec![], &vec![], &vec![1; date_time], &vec![2; 300]] {
                write_octet_string(&mut octets, field);
            }
            Header::decode(&mut Reader::new(&octets)).map(|header| header.octets.len())
        };
        assert_eq!(with(0, 0), Ok(4 + 303));
        assert_eq!(with(TRANSACTION_ID_MAX, DATE_TIME_LEN), Ok(4 + 303 + 44));
        assert_eq!(with(TRANSACTION_ID_MAX + 1, 0), Err(ProtectionError::Malformed { what: "transaction-id" }));
        assert_eq!(with(0, 11), Err(ProtectionError::Malformed { what: "date-time" }));
    }

    #[test]
    fn what_is_for_somebody_else_is_refused() {
        let check = |recipient, may_be_absent| {
            let header = Header { octets: &[], transaction_id: &[], originator: &[], recipient };
            header.check_recipient(SERVER, may_be_absent)
        };
        assert_eq!(check(&SERVER.0, false), Ok(()));
        assert_eq!(check(&[], true), Ok(()));
        let malformed = Err(ProtectionError::Malformed { what: "recipient-system-title" });
        assert_eq!((check(&[], false), check(&[1; 7], true)), (malformed.clone(), malformed));
        assert_eq!(check(&CLIENT.0, true), Err(ProtectionError::Title { expected: SERVER, found: CLIENT }));
    }

    #[test]
    fn each_key_info_is_met_both_ways_and_others_are_malformed() {
        for (octets, info) in [
            ("00", KeyInfo::Absent),
            ("01 00 01", KeyInfo::Identified(1)),
            ("01 01 00 03 aabbcc", KeyInfo::Wrapped(&[0xaa, 0xbb, 0xcc])),
            ("01 02 01 01 02 aabb", KeyInfo::OnePass(&[0xaa, 0xbb])),
            ("01 02 01 02 00", KeyInfo::StaticUnified),
        ] {
            let octets = hex(octets);
            let mut reader = Reader::new(&octets);
            assert_eq!(KeyInfo::decode(&mut reader), Ok(info));
            assert!(reader.is_empty());
            let mut out = vec![0xa5];
            info.encode(&mut out);
            assert_eq!(out[1..], octets);
        }
        for wrong in
            ["", "02", "01", "0103", "010101 00", "0102 01 02 01 aa", "0102 01 03 00", "0102 02 0101 00", "0102 00 00"]
        {
            let octets = hex(wrong);
            let refused = KeyInfo::decode(&mut Reader::new(&octets));
            assert_eq!(refused, Err(ProtectionError::Malformed { what: "key-info" }), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            drop(Header::decode(&mut Reader::new(&octets)));
            drop(KeyInfo::decode(&mut Reader::new(&octets)));
        }
    }
}
