//! Two encodings of one list of fields: Avro in Confluent's wire format, and CBOR.

use std::borrow::Cow;

use ciborium::Value;
use protocols::bytes::{Reader, unzigzag, write_varint, zigzag};

/// What has fields.
pub(super) trait Encode {
    fn write(&self, out: &mut impl Fields);
}

/// What can be made of fields.
pub(super) trait Decode: Sized {
    /// What one record has in common with the next.
    type Known;

    fn read(columns: &mut impl Columns, known: &mut Self::Known) -> Option<Self>;
}

/// The value that was last made of a text: rows of a block have theirs in common, and come one after the other.
pub(super) struct Last<T>(Option<(String, T)>);

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Last<T> {
    pub(super) fn of(&mut self, text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        match &self.0 {
            Some((last, value)) if last == text => Some(value.clone()),
            _ => {
                let value = parse(text)?;
                self.0 = Some((text.to_owned(), value.clone()));
                Some(value)
            }
        }
    }
}

/// Writes `fields` over what `out` held: as Avro of the schema with this id, else as CBOR.
pub(super) fn encode(out: &mut Vec<u8>, schema: Option<u32>, fields: &impl Encode) {
    out.clear();
    if let Some(id) = schema {
        out.push(0);
        out.extend_from_slice(&id.to_be_bytes());
        fields.write(&mut AvroOut(out));
    } else {
        out.push(0xbf);
        fields.write(&mut CborOut(out));
        out.push(0xff);
    }
}

/// Whichever of both it is: no map of CBOR begins with a zero.
pub(super) fn decode<T: Decode>(bytes: &[u8], known: &mut T::Known) -> Option<T> {
    match bytes {
        [0, _, _, _, _, body @ ..] => T::read(&mut AvroIn(Reader::new(body)), known),
        _ => T::read(&mut CborIn::open(bytes)?, known),
    }
}

/// Takes fields in their order.
pub(super) trait Fields {
    fn text(&mut self, name: &'static str, value: &str);
    fn int(&mut self, name: &'static str, value: i64);
    fn double(&mut self, name: &'static str, value: f64);
    fn optional(&mut self, name: &'static str, value: Option<i64>);
    fn bytes(&mut self, name: &'static str, value: &[u8]);
}

/// What is not there, or of another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Absent;

/// Gives fields in their order; `None`, or [`Absent`], for what is not there or of another type.
pub(super) trait Columns {
    fn text(&mut self, name: &'static str) -> Option<Cow<'_, str>>;
    fn int(&mut self, name: &'static str) -> Option<i64>;
    fn double(&mut self, name: &'static str) -> Option<f64>;
    fn optional(&mut self, name: &'static str) -> Result<Option<i64>, Absent>;
    fn bytes(&mut self, name: &'static str) -> Option<Vec<u8>>;
}

/// Apache Avro 1.12, binary encoding: values alone, in the order of the schema.
struct AvroOut<'a>(&'a mut Vec<u8>);

impl Fields for AvroOut<'_> {
    fn text(&mut self, name: &'static str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    fn int(&mut self, _: &'static str, value: i64) {
        write_varint(self.0, zigzag(value));
    }

    fn double(&mut self, _: &'static str, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A union of null and long.
    fn optional(&mut self, name: &'static str, value: Option<i64>) {
        self.int(name, i64::from(value.is_some()));
        if let Some(value) = value {
            self.int(name, value);
        }
    }

    fn bytes(&mut self, name: &'static str, value: &[u8]) {
        self.int(name, value.len() as i64);
        self.0.extend_from_slice(value);
    }
}

struct AvroIn<'a>(Reader<'a>);

impl<'a> AvroIn<'a> {
    fn slice(&mut self, name: &'static str) -> Option<&'a [u8]> {
        let len = usize::try_from(self.int(name)?).ok()?;
        self.0.take(len).ok()
    }
}

impl Columns for AvroIn<'_> {
    fn text(&mut self, name: &'static str) -> Option<Cow<'_, str>> {
        std::str::from_utf8(self.slice(name)?).ok().map(Cow::Borrowed)
    }

    fn int(&mut self, _: &'static str) -> Option<i64> {
        self.0.varint().map(unzigzag)
    }

    fn double(&mut self, _: &'static str) -> Option<f64> {
        self.0.array().ok().map(f64::from_le_bytes)
    }

    fn optional(&mut self, name: &'static str) -> Result<Option<i64>, Absent> {
        match self.int(name) {
            Some(0) => Ok(None),
            Some(1) => self.int(name).map(Some).ok_or(Absent),
            _ => Err(Absent),
        }
    }

    fn bytes(&mut self, name: &'static str) -> Option<Vec<u8>> {
        self.slice(name).map(<[u8]>::to_vec)
    }
}

/// RFC 8949: a map of names without a length in front.
struct CborOut<'a>(&'a mut Vec<u8>);

impl CborOut<'_> {
    fn head(&mut self, major: u8, argument: u64) {
        let bytes = argument.to_be_bytes();
        let (info, from) = match argument {
            0..=23 => return self.0.push(major << 5 | argument as u8),
            24..=0xff => (24, 7),
            0x100..=0xffff => (25, 6),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 0),
        };
        self.0.push(major << 5 | info);
        self.0.extend_from_slice(&bytes[from..]);
    }

    fn string(&mut self, text: &str) {
        self.head(3, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, value: i64) {
        if value < 0 { self.head(1, !value as u64) } else { self.head(0, value as u64) }
    }
}

impl Fields for CborOut<'_> {
    fn text(&mut self, name: &'static str, value: &str) {
        self.string(name);
        self.string(value);
    }

    fn int(&mut self, name: &'static str, value: i64) {
        self.string(name);
        self.number(value);
    }

    fn double(&mut self, name: &'static str, value: f64) {
        self.string(name);
        self.0.push(0xfb);
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn optional(&mut self, name: &'static str, value: Option<i64>) {
        self.string(name);
        match value {
            Some(value) => self.number(value),
            None => self.0.push(0xf6),
        }
    }

    fn bytes(&mut self, name: &'static str, value: &[u8]) {
        self.string(name);
        self.head(2, value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

struct CborIn(Vec<(Value, Value)>);

impl CborIn {
    fn open(bytes: &[u8]) -> Option<Self> {
        let value: Value = ciborium::from_reader(bytes).ok()?;
        value.into_map().ok().map(Self)
    }

    fn find(&mut self, name: &'static str) -> Option<Value> {
        let found = self.0.iter_mut().find(|(key, _)| key.as_text() == Some(name))?;
        Some(std::mem::replace(&mut found.1, Value::Null))
    }
}

impl Columns for CborIn {
    fn text(&mut self, name: &'static str) -> Option<Cow<'_, str>> {
        self.find(name)?.into_text().ok().map(Cow::Owned)
    }

    fn int(&mut self, name: &'static str) -> Option<i64> {
        i64::try_from(i128::from(self.find(name)?.into_integer().ok()?)).ok()
    }

    fn double(&mut self, name: &'static str) -> Option<f64> {
        self.find(name)?.into_float().ok()
    }

    fn optional(&mut self, name: &'static str) -> Result<Option<i64>, Absent> {
        match self.find(name).ok_or(Absent)? {
            Value::Null => Ok(None),
            value => {
                let integer = value.into_integer().map_err(|_| Absent)?;
                i64::try_from(i128::from(integer)).map(Some).map_err(|_| Absent)
            }
        }
    }

    fn bytes(&mut self, name: &'static str) -> Option<Vec<u8>> {
        self.find(name)?.into_bytes().ok()
    }
}

/// Only notes what it is given.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Names(pub(super) Vec<(String, &'static str)>);

#[cfg(test)]
impl Fields for Names {
    fn text(&mut self, name: &'static str, _: &str) {
        self.0.push((name.to_owned(), "text"));
    }

    fn int(&mut self, name: &'static str, _: i64) {
        self.0.push((name.to_owned(), "int"));
    }

    fn double(&mut self, name: &'static str, _: f64) {
        self.0.push((name.to_owned(), "double"));
    }

    fn optional(&mut self, name: &'static str, _: Option<i64>) {
        self.0.push((name.to_owned(), "optional"));
    }

    fn bytes(&mut self, name: &'static str, _: &[u8]) {
        self.0.push((name.to_owned(), "bytes"));
    }
}
