//! Values for people and for programs, exactly as they are.

use protocols::dlms::data::Data;
use protocols::dlms::datetime::DateTime;
use protocols::dlms::value::DataValue;

/// Texts of a table end here.
const TEXT_MAX: usize = 160;

/// One line.
pub(in crate::commands) fn text(data: &Data<'_>) -> String {
    let mut text = match json(data) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Integers are numbers; what a number of JSON would not hold exactly, and all other scalars, are texts.
pub(super) fn json(data: &Data<'_>) -> serde_json::Value {
    use serde_json::Value;
    match data {
        Data::Null | Data::DontCare => Value::Null,
        Data::Boolean(is_set) => Value::Bool(*is_set),
        Data::Float32(float) => Value::String(float.to_string()),
        Data::Float64(float) => Value::String(float.to_string()),
        Data::Enum(number) => Value::from(*number),
        Data::Long64Unsigned(number) => Value::from(*number),
        Data::Utf8String(text) => Value::String(String::from_utf8_lossy(text).into_owned()),
        Data::Array(elements) | Data::Structure(elements) | Data::CompactArray(elements) => {
            Value::Array(elements.iter().map(|element| json(&element)).collect())
        }
        Data::BitString(bits) => {
            let digit = |bit| if bits.bit(bit) == Some(true) { '1' } else { '0' };
            Value::String((0..bits.bits).map(digit).collect())
        }
        Data::DateTime(at) => Value::String(at.to_string()),
        Data::Date(date) => Value::String(date.to_string()),
        Data::Time(time) => Value::String(time.to_string()),
        _ => match (data.integer(), data.octets()) {
            (Some(integer), _) => Value::from(integer),
            (None, Some(octets)) => Value::String(octets_text(octets)),
            (None, None) => Value::String(format!("{:?}", DataValue::from(*data))),
        },
    }
}

/// A text where it is one, a date and time, an OBIS code, else hexadecimal digits.
fn octets_text(octets: &[u8]) -> String {
    let is_text = |octet: &u8| octet.is_ascii_graphic() || *octet == b' ';
    match octets {
        octets if octets.iter().all(is_text) => String::from_utf8_lossy(octets).into_owned(),
        // A year that a meter of today can mean, or none.
        &[high, low, month, day, .., _]
            if octets.len() == 12 && is_date(u16::from_be_bytes([high, low]), month, day) =>
        {
            octets.try_into().map(|octets| DateTime(octets).to_string()).unwrap_or_default()
        }
        &[0 | 1, b, c, d, e, 255] => format!("{}-{b}:{c}.{d}.{e}", octets[0]),
        octets => {
            let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 0x0f]);
            digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
        }
    }
}

fn is_date(year: u16, month: u8, day: u8) -> bool {
    matches!(year, 1970..=2200 | 0xffff) && matches!(month, 1..=12 | 0xfd..) && matches!(day, 1..=31 | 0xfd..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_exactly() {
        for (value, expected) in [
            (DataValue::Long64Unsigned(u64::MAX), "18446744073709551615"),
            (DataValue::Long64(i64::MIN), "-9223372036854775808"),
            (DataValue::Float32(0.1), "0.1"),
            (DataValue::OctetString(b"KFM17".to_vec()), "KFM17"),
            (DataValue::Utf8String("Zähler".into()), "Zähler"),
            (DataValue::OctetString(vec![1, 0, 99, 1, 0, 255]), "1-0:99.1.0"),
            (DataValue::OctetString(vec![0, 0xff]), "00ff"),
            (
                DataValue::OctetString(vec![0x07, 0xea, 11, 23, 1, 2, 35, 15, 0, 0xff, 0xc4, 0]),
                "2026-11-23 02:35:15.00 deviation -60 status 00",
            ),
            (DataValue::Structure(vec![DataValue::Unsigned(7), DataValue::Null]), "[7,null]"),
        ] {
            let octets = value.to_vec();
            assert_eq!(text(&Data::from_bytes(&octets).unwrap()), expected);
        }
        let long = DataValue::VisibleString(vec![b'x'; 500]).to_vec();
        assert_eq!(text(&Data::from_bytes(&long).unwrap()).chars().count(), TEXT_MAX + 1);
    }
}
