//! Single JSON values as the text they were written in.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{DecodeError, FieldError, PAYLOAD_LEN_MAX};
use crate::metering::{TimeError, UtcMillis};

/// The payload as text, if it may be looked at.
pub(super) fn payload_text(payload: &[u8]) -> Result<&str, DecodeError> {
    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(DecodeError::TooLong { len: payload.len() });
    }
    std::str::from_utf8(payload).map_err(|error| DecodeError::NotUtf8 { valid_up_to: error.valid_up_to() })
}

/// What sort of value this is, for messages.
pub(super) fn type_name(raw: &RawValue) -> &'static str {
    match raw.get().bytes().next() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

pub(super) fn wrong_type(expected: &'static str, raw: &RawValue) -> FieldError {
    FieldError::WrongType { expected, found: type_name(raw) }
}

/// The content of a string; borrowed unless it holds escapes.
pub(super) fn string(raw: &RawValue) -> Result<Cow<'_, str>, FieldError> {
    let inner = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let inner = inner.ok_or_else(|| wrong_type("a string", raw))?;
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // A lone surrogate is JSON by grammar and no text.
    serde_json::from_str(raw.get()).map(Cow::Owned).map_err(|_| wrong_type("text", raw))
}

/// A decimal, written as a number or as a string.
pub(super) fn decimal(raw: &RawValue) -> Result<Cow<'_, str>, FieldError> {
    match raw.get().bytes().next() {
        Some(b'"') => string(raw),
        Some(b'-' | b'0'..=b'9') => Ok(Cow::Borrowed(raw.get())),
        _ => Err(wrong_type("a number or a string with a decimal", raw)),
    }
}

/// An RFC 3339 instant of the years 0 to 9999 in UTC: an offset can lead out of what can be written again.
pub(super) fn instant(raw: &RawValue) -> Result<UtcMillis, FieldError> {
    let text = string(raw)?;
    let instant: UtcMillis = text.parse()?;
    if (UtcMillis::MIN..=UtcMillis::MAX).contains(&instant) {
        Ok(instant)
    } else {
        Err(TimeError::Text { text: text.chars().take(40).collect() }.into())
    }
}

/// A non-negative integer that fits.
pub(super) fn integer<T: std::str::FromStr>(raw: &RawValue, expected: &'static str) -> Result<T, FieldError> {
    let text = raw.get();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| wrong_type(expected, raw))
}

/// Puts quotes round `NaN`, `Infinity` and `-Infinity` outside strings, which some writers emit and JSON does not know. Then
/// only their own field is no number, not the whole payload. `None` when there are none.
pub(super) fn quote_bare_words(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        let (before, from) = rest.split_at_checked(at)?;
        out.push_str(before);
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| from.starts_with(word));
        let len = if let Some(word) = word {
            found = true;
            out.push('"');
            out.push_str(word);
            out.push('"');
            word.len()
        } else {
            let len = if from.starts_with('"') { string_len(from) } else { 1 };
            out.push_str(from.get(..len)?);
            len
        };
        rest = from.get(len..)?;
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Length of the string that `text` begins with, quotes included; all of it when the string does not end.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_are_quoted_outside_strings_only() {
        let text = r#"{"NaN":NaN,"a":"x\"NaN","b":[-Infinity,-1,Infinity]}"#;
        let quoted = r#"{"NaN":"NaN","a":"x\"NaN","b":["-Infinity",-1,"Infinity"]}"#;
        assert_eq!(quote_bare_words(text).as_deref(), Some(quoted));
        assert_eq!(quote_bare_words(r#"{"NaN":-1,"I":"NaN"}"#), None);
        assert_eq!(quote_bare_words("\"NaN\\"), None);
    }
}
