//! The few elements of BER that ACSE uses: definite lengths and tags of one octet.

use crate::bytes::Reader;

use super::AcseError;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;

/// Reads one element: its tag and its content.
pub(super) fn element<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<(u8, &'a [u8]), AcseError> {
    let malformed = AcseError::Malformed { field };
    let tag = reader.u8().map_err(|_| malformed.clone())?;
    let length = length(reader).ok_or(malformed.clone())?;
    let content = reader.take(length).map_err(|_| malformed)?;
    Ok((tag, content))
}

/// Reads the only element of `content`, which has to have `tag`.
pub(super) fn only<'a>(content: &'a [u8], tag: u8, field: &'static str) -> Result<&'a [u8], AcseError> {
    match element(&mut Reader::new(content), field)? {
        (found, inner) if found == tag => Ok(inner),
        _ => Err(AcseError::Malformed { field }),
    }
}

/// An INTEGER of one octet, the only ones that ACSE has.
pub(super) fn small_integer(content: &[u8], field: &'static str) -> Result<u8, AcseError> {
    match only(content, INTEGER, field)? {
        &[value] => Ok(value),
        _ => Err(AcseError::Malformed { field }),
    }
}

/// At most four octets of length; the indefinite form does not occur in ACSE.
fn length(reader: &mut Reader<'_>) -> Option<usize> {
    let first = reader.u8().ok()?;
    if first < 0x80 {
        return Some(usize::from(first));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return None;
    }
    let octets = reader.take(count).ok()?;
    let value = octets.iter().fold(0u32, |value, &octet| value << 8 | u32::from(octet));
    usize::try_from(value).ok()
}

/// Appends one element.
pub(super) fn write(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let [a, b, c, d] = u32::try_from(content.len()).expect("our own APDUs are far below 4 GiB").to_be_bytes();
    match content.len() {
        0..0x80 => out.push(d),
        0x80..0x100 => out.extend_from_slice(&[0x81, d]),
        0x100..0x1_0000 => out.extend_from_slice(&[0x82, c, d]),
        _ => out.extend_from_slice(&[0x84, a, b, c, d]),
    }
    out.extend_from_slice(content);
}

/// Appends one element that holds exactly one other.
pub(super) fn write_wrapped(out: &mut Vec<u8>, tag: u8, inner_tag: u8, content: &[u8]) {
    let mut inner = Vec::with_capacity(content.len() + 6);
    write(&mut inner, inner_tag, content);
    write(out, tag, &inner);
}
