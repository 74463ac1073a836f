//! Values as they are typed: a type, a colon, and the value.

use protocols::dlms::datetime::{ClockStatus, DateTime};
use protocols::dlms::value::DataValue;
use protocols::metering::UtcMillis;

const TYPES: &str = "null, boolean, bit-string, integer, long, double-long, long64, unsigned, long-unsigned, double-long-unsigned, \
                     long64-unsigned, enum, float32, float64, octet-string (hexadecimal), visible-string, utf8-string, date-time (as \
                     2026-01-01T00:00:00Z, in 12 octets)";

/// `TYPE:VALUE`, of which the value has to be one of the type.
pub(super) fn parse(typed: &str) -> anyhow::Result<DataValue> {
    let (name, text) = typed.split_once(':').unwrap_or((typed, ""));
    let value = match name {
        "null" => text.is_empty().then_some(DataValue::Null),
        "boolean" => text.parse().ok().map(DataValue::Boolean),
        "bit-string" => bits(text),
        "integer" => text.parse().ok().map(DataValue::Integer),
        "long" => text.parse().ok().map(DataValue::Long),
        "double-long" => text.parse().ok().map(DataValue::DoubleLong),
        "long64" => text.parse().ok().map(DataValue::Long64),
        "unsigned" => text.parse().ok().map(DataValue::Unsigned),
        "long-unsigned" => text.parse().ok().map(DataValue::LongUnsigned),
        "double-long-unsigned" => text.parse().ok().map(DataValue::DoubleLongUnsigned),
        "long64-unsigned" => text.parse().ok().map(DataValue::Long64Unsigned),
        "enum" => text.parse().ok().map(DataValue::Enum),
        "float32" => text.parse().ok().map(DataValue::Float32),
        "float64" => text.parse().ok().map(DataValue::Float64),
        "octet-string" => hex(text).map(DataValue::OctetString),
        "visible-string" => text.is_ascii().then(|| DataValue::VisibleString(text.as_bytes().to_vec())),
        "utf8-string" => Some(DataValue::Utf8String(text.as_bytes().to_vec())),
        "date-time" => {
            let at = text.parse::<UtcMillis>().ok();
            at.map(|at| DataValue::octets_of(DateTime::from_utc(at, 0, ClockStatus::GOOD)))
        }
        _ => anyhow::bail!("{name:?} is no type of a value\nhint: write TYPE:VALUE, of these types: {TYPES}"),
    };
    value.ok_or_else(|| anyhow::anyhow!("{text:?} is no {name}"))
}

fn bits(text: &str) -> Option<DataValue> {
    if !text.bytes().all(|digit| matches!(digit, b'0' | b'1')) {
        return None;
    }
    let mut octets = vec![0; text.len().div_ceil(8)];
    for (place, _) in text.bytes().enumerate().filter(|(_, digit)| *digit == b'1') {
        octets[place / 8] |= 0x80 >> (place % 8);
    }
    Some(DataValue::BitString { bits: text.len(), octets })
}

pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let octet = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    if rest.is_empty() { pairs.iter().map(octet).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_its_type_says_or_refused() {
        for (typed, octets) in [
            ("null", &[0][..]),
            ("boolean:true", &[3, 1]),
            ("bit-string:101000001", &[4, 9, 0xa0, 0x80]),
            ("integer:-1", &[15, 0xff]),
            ("unsigned:255", &[17, 255]),
            ("long-unsigned:900", &[18, 3, 0x84]),
            ("double-long:-2", &[5, 0xff, 0xff, 0xff, 0xfe]),
            ("enum:4", &[22, 4]),
            ("octet-string:07eA", &[9, 2, 0x07, 0xea]),
            ("octet-string:", &[9, 0]),
            ("visible-string:a:b", &[10, 3, b'a', b':', b'b']),
            ("utf8-string:ä", &[12, 2, 0xc3, 0xa4]),
            ("float32:0.5", &[23, 0x3f, 0, 0, 0]),
            ("date-time:2026-11-23T01:35:15Z", &[9, 12, 0x07, 0xea, 11, 23, 1, 1, 35, 15, 0, 0, 0, 0]),
        ] {
            assert_eq!(parse(typed).unwrap().to_vec(), octets, "{typed}");
        }
        for typed in [
            "boolean:1",
            "bit-string:2",
            "unsigned:256",
            "integer:128",
            "enum:-1",
            "octet-string:0",
            "octet-string:0x01",
            "visible-string:ä",
            "date-time:tomorrow",
            "null:0",
            "5",
            "register:5",
            "",
        ] {
            assert!(parse(typed).is_err(), "{typed}");
        }
    }
}
