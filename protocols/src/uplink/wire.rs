//! CBOR arrays as the messages of the uplink are written: fixed types, bounded depth and counts, nothing after the end.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::VERSION;
use super::limits::CBOR_DEPTH_MAX;

/// Why bytes are no message of the uplink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Written by a newer version: keep it, this reader cannot judge it.
    #[error("version {version} is newer than {VERSION}")]
    Newer { version: u64 },
    #[error("{len} bytes are more than the {max} allowed")]
    TooLong { len: usize, max: usize },
    #[error("malformed CBOR: {0}")]
    Malformed(String),
    #[error("{0} bytes after the end")]
    Trailing(usize),
    /// Well-formed, but no message of ours can say this.
    #[error("{0}")]
    Invalid(String),
}

/// Defines a struct that is a CBOR array on the wire. Elements after the last known one are ignored: that is how a message
/// grows without a new version. What it has grown by follows a semicolon, each an `Option`: left out at the end while it is
/// `None`, and `None` where an older writer did not know it.
macro_rules! wire_array {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($field:ident: $type:ty),+ $(,)? $(; $grown:ident: $grown_type:ty)? }) => {
        $(#[$meta])*
        $vis struct $name { $($field: $type,)+ $($grown: $grown_type,)? }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeTuple as _;
                let len = [$(stringify!($field)),+].len() $(+ usize::from(self.$grown.is_some()))?;
                let mut tuple = serializer.serialize_tuple(len)?;
                $(tuple.serialize_element(&self.$field)?;)+
                $(if self.$grown.is_some() {
                    tuple.serialize_element(&self.$grown)?;
                })?
                tuple.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Elements;
                impl<'de> serde::de::Visitor<'de> for Elements {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("the array of ", stringify!($name)))
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                        let message = $name {
                            $($field: $crate::uplink::wire::element(&mut seq, stringify!($field))?,)+
                            $($grown: seq.next_element::<$grown_type>()?.flatten(),)?
                        };
                        $crate::uplink::wire::drain(&mut seq)?;
                        Ok(message)
                    }
                }
                deserializer.deserialize_seq(Elements)
            }
        }
    };
}
pub(super) use wire_array;

pub(super) fn element<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(seq: &mut A, name: &str) -> Result<T, A::Error> {
    seq.next_element()?.ok_or_else(|| A::Error::custom(format_args!("{name} is missing")))
}

pub(super) fn drain<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// An array of at most `MAX` elements; one more is an error before it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Capped<T, const MAX: usize>(pub(super) Vec<T>);

impl<T: Serialize, const MAX: usize> Serialize for Capped<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Capped<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {MAX} elements")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if elements.len() == MAX {
                        return Err(A::Error::custom(format_args!("more than {MAX} elements")));
                    }
                    elements.push(element);
                }
                Ok(elements)
            }
        }
        deserializer.deserialize_seq(Elements::<T, MAX>(PhantomData)).map(Self)
    }
}

/// A CBOR byte string (serde alone would write an array of numbers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob(pub(super) Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

impl Blob {
    pub(super) fn array<const N: usize>(&self, what: &str) -> Result<[u8; N], DecodeError> {
        let bytes = self.0.as_slice();
        bytes.try_into().map_err(|_| DecodeError::Invalid(format!("{what} has {} bytes instead of {N}", bytes.len())))
    }
}

pub(super) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(message, &mut bytes).expect("a Vec takes every byte and our types are all CBOR");
    bytes
}

/// Checks the length, then the version (the first element, whatever follows), then decodes.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T, DecodeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeError::TooLong { len: bytes.len(), max: bytes_max });
    }
    let version = version(bytes)?;
    if version > u64::from(VERSION) {
        return Err(DecodeError::Newer { version });
    }
    let mut rest = bytes;
    let message = ciborium::de::from_reader_with_recursion_limit(&mut rest, CBOR_DEPTH_MAX)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if rest.is_empty() { Ok(message) } else { Err(DecodeError::Trailing(rest.len())) }
}

/// The first element of an array, without decoding what follows: a newer version may be laid out in any way after it.
fn version(bytes: &[u8]) -> Result<u64, DecodeError> {
    let malformed = || DecodeError::Malformed("no array that begins with a version".to_owned());
    let mut rest = bytes;
    let mut decoder = ciborium_ll::Decoder::from(&mut rest);
    match decoder.pull() {
        Ok(ciborium_ll::Header::Array(Some(1..))) => {}
        _ => return Err(malformed()),
    }
    match decoder.pull() {
        Ok(ciborium_ll::Header::Positive(version)) => Ok(version),
        _ => Err(malformed()),
    }
}
