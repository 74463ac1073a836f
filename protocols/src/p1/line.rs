//! Data lines: a code and its groups in parentheses, `1-0:1.6.0(200509134558S)(02.589*kW)`.
//!
//! A line that begins with a parenthesis continues the one before (the gas value of versions 2.2 and 3).

use std::fmt;

use super::frame::hex_value;
use crate::metering::{ObisCode, Quantity, Unit, prefixed_unit};

/// Whatever digits they are.
const DIGITS_THAT_FIT: usize = 18;

/// A data line as it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which data line of the telegram, from 1; blank lines are not counted.
    pub number: usize,
    pub code: ObisCode,
    /// Content of the first group.
    first: &'a [u8],
    /// What follows the first group, parentheses included.
    more: &'a [u8],
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    #[error("the line does not begin with an obis code")]
    Code,
    #[error("the line has unbalanced parentheses")]
    Groups,
    #[error("{text:?} is no decimal number")]
    Decimal { text: String },
    #[error("{text:?} is no unit")]
    Unit { text: String },
    #[error("{text:?} is no time stamp")]
    Stamp { text: String },
    #[error("the line has {count} groups, which do not fit its code")]
    Count { count: usize },
    /// A sub-meter's value, and nothing in the telegram says whose it is.
    #[error("the sub-meter on channel {channel} has no identifier")]
    NoIdentity { channel: u8 },
    /// More digits than 18; the value is kept as an event.
    #[error("a value of more than 18 digits does not fit")]
    Overflow,
}

/// A line that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineProblem {
    /// Which data line of the telegram, from 1.
    pub line: usize,
    /// `None` when the line does not begin with one.
    pub code: Option<ObisCode>,
    pub error: LineError,
}

impl fmt::Display for LineProblem {
    /// `line 7, 0-1:24.2.1: "632525252525W" is no time stamp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(code) = self.code {
            write!(f, ", {code}")?;
        }
        write!(f, ": {}", self.error)
    }
}

/// Iterates over the data lines of a telegram.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body, number: 0 }
    }

    /// Goes on behind the end of the current line.
    fn skip_line(&mut self) {
        let end = self.rest.iter().position(|&byte| byte == b'\n').map_or(self.rest.len(), |at| at + 1);
        self.rest = self.rest.get(end..).unwrap_or_default();
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, LineProblem>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        self.number += 1;
        let number = self.number;
        let Some((code, inner)) = take_code(self.rest) else {
            self.skip_line();
            return Some(Err(LineProblem { line: number, code: None, error: LineError::Code }));
        };
        let line = take_content(inner).and_then(|(first, more)| {
            let mut rest = more;
            while let Some(group) = next_group(rest) {
                rest = group.ok()?.1;
            }
            matches!(rest, [] | [b'\r' | b'\n', ..]).then_some(())?;
            let more = more.get(..more.len() - rest.len())?;
            self.rest = rest;
            Some(Line { number, code, first, more })
        });
        Some(line.ok_or_else(|| {
            self.skip_line();
            LineProblem { line: number, code: Some(code), error: LineError::Groups }
        }))
    }
}

/// `A-B:C.D.E(` or `A-B:C.D.E*F(`, and what follows.
fn take_code(bytes: &[u8]) -> Option<(ObisCode, &[u8])> {
    let (a, rest) = take_number(bytes, b'-')?;
    let (b, rest) = take_number(rest, b':')?;
    let (c, rest) = take_number(rest, b'.')?;
    let (d, rest) = take_number(rest, b'.')?;
    if let Some((e, rest)) = take_number(rest, b'(') {
        return Some((ObisCode::new(a, b, c, d, e, 255), rest));
    }
    let (e, rest) = take_number(rest, b'*')?;
    let (f, rest) = take_number(rest, b'(')?;
    Some((ObisCode::new(a, b, c, d, e, f), rest))
}

/// One to three digits up to 255 and the octet that must follow.
#[inline]
fn take_number(bytes: &[u8], end: u8) -> Option<(u8, &[u8])> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    match *bytes {
        [ones, after, ref rest @ ..] if after == end => Some((digit(ones)? as u8, rest)),
        [tens, ones, after, ref rest @ ..] if after == end => Some(((digit(tens)? * 10 + digit(ones)?) as u8, rest)),
        [hundreds, tens, ones, after, ref rest @ ..] if after == end => {
            let number = digit(hundreds)? * 100 + digit(tens)? * 10 + digit(ones)?;
            Some((u8::try_from(number).ok()?, rest))
        }
        _ => None,
    }
}

/// The content of a group, and what follows the group.
type Content<'a> = (&'a [u8], &'a [u8]);

/// The content of the group whose parenthesis was just opened, and what follows it. A group stays on its line.
#[inline]
fn take_content(inner: &[u8]) -> Option<Content<'_>> {
    let close = inner.iter().position(|byte| matches!(byte, b')' | b'(' | b'\n'))?;
    match inner.split_at_checked(close)? {
        (content, [b')', rest @ ..]) => Some((content, rest)),
        _ => None,
    }
}

/// The next group, on this line or on one that continues it; an error for a group without an end.
#[inline]
fn next_group(rest: &[u8]) -> Option<Result<Content<'_>, LineError>> {
    match rest {
        [b'(', inner @ ..] | [b'\r', b'\n', b'(', inner @ ..] | [b'\r' | b'\n', b'(', inner @ ..] => {
            Some(take_content(inner).ok_or(LineError::Groups))
        }
        _ => None,
    }
}

impl<'a> Line<'a> {
    /// Content of the first group.
    pub fn first(&self) -> &'a [u8] {
        self.first
    }

    /// Whether there is one group only, as on most lines.
    pub fn is_single(&self) -> bool {
        self.more.is_empty()
    }

    /// Contents of all groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let mut more = self.more;
        std::iter::once(self.first).chain(std::iter::from_fn(move || {
            let (content, rest) = next_group(more)?.ok()?;
            more = rest;
            Some(content)
        }))
    }
}

impl fmt::Debug for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}){}", self.code, self.first.escape_ascii(), self.more.escape_ascii())
    }
}

/// Reads a code that stands as a value, such as `0-1:24.2.1` in `0-1:24.3.0`.
pub(super) fn code(content: &[u8]) -> Option<ObisCode> {
    std::str::from_utf8(content).ok()?.parse().ok()
}

/// Reads `000004.426*kWh`; `None` for the unit when there is none.
#[inline]
pub(super) fn quantity(content: &[u8]) -> Result<(Quantity, bool), LineError> {
    let (mantissa, decimals, rest) = decimal(content)?;
    let (exponent, unit, has_unit) = match rest {
        [] => (0, Unit::COUNT, false),
        [b'*', symbol @ ..] => {
            let (exponent, unit) = unit(symbol)?;
            (exponent, unit, true)
        }
        _ => return Err(LineError::Decimal { text: printable(content) }),
    };
    let scaler = exponent - decimals;
    Ok((Quantity::new(mantissa, scaler, unit), has_unit))
}

/// The value of a group whose unit stands elsewhere.
pub(super) fn quantity_in(content: &[u8], symbol: &[u8]) -> Result<Quantity, LineError> {
    let (mantissa, decimals, rest) = decimal(content)?;
    if !rest.is_empty() {
        return Err(LineError::Decimal { text: printable(content) });
    }
    let (exponent, unit) = unit(symbol)?;
    Ok(Quantity::new(mantissa, exponent - decimals, unit))
}

/// Mantissa, number of decimals, what follows. The grammar is that of [`Quantity::from_decimal`] without a power of ten.
#[inline]
fn decimal(content: &[u8]) -> Result<(i64, i8, &[u8]), LineError> {
    let error = || LineError::Decimal { text: printable(content) };
    let (is_negative, mut rest) = match content {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut mantissa: i64 = 0;
    let mut point: Option<usize> = None;
    let mut digits = 0;
    while let [byte, after @ ..] = rest {
        match byte {
            b'0'..=b'9' => {
                let digit = i64::from(byte - b'0');
                mantissa = if digits < DIGITS_THAT_FIT {
                    mantissa * 10 + digit
                } else {
                    mantissa.checked_mul(10).and_then(|m| m.checked_add(digit)).ok_or(LineError::Overflow)?
                };
                digits += 1;
            }
            b'.' if point.is_none() && digits > 0 => point = Some(digits),
            _ => break,
        }
        rest = after;
    }
    let decimals = point.map(|point| digits - point);
    let decimals = match decimals {
        None if digits > 0 => 0,
        // No meter has a hundred decimals; a scaler must have room for a prefix as well.
        Some(count @ 1..=100) => count as i8,
        _ => return Err(error()),
    };
    Ok((if is_negative { -mantissa } else { mantissa }, decimals, rest))
}

/// Unit symbols of P1: those of DLMS with a prefix, `dm3`, and the spellings that meters use for var.
fn unit(symbol: &[u8]) -> Result<(i8, Unit), LineError> {
    const LITRE: Unit = Unit(19);
    Ok(match symbol {
        b"kWh" => (3, Unit::WATT_HOUR),
        b"kW" => (3, Unit::WATT),
        b"V" => (0, Unit::VOLT),
        b"A" => (0, Unit::AMPERE),
        b"m3" => (0, Unit::CUBIC_METRE),
        b"GJ" => (9, Unit::JOULE),
        b"dm3" => (0, LITRE),
        b"kVArh" | b"kVarh" => (3, Unit::VAR_HOUR),
        b"kVAr" | b"kVar" => (3, Unit::VAR),
        b"VAr" => (0, Unit::VAR),
        _ => {
            let known = std::str::from_utf8(symbol).ok().and_then(|text| prefixed_unit(text).ok());
            known.ok_or_else(|| LineError::Unit { text: printable(symbol) })?
        }
    })
}

/// Octets written as hexadecimal digits; `None` when they are none or not printable ASCII, which an identifier or text must be.
pub(super) fn hex_text(content: &[u8]) -> Option<String> {
    let (pairs, []) = content.as_chunks::<2>() else { return None };
    if pairs.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(pairs.len());
    for &[high, low] in pairs {
        let octet = hex_value(high)? << 4 | hex_value(low)?;
        (0x20..0x7f).contains(&octet).then_some(())?;
        text.push(char::from(octet));
    }
    Some(text)
}

/// The start of some octets for a message.
pub(super) fn printable(content: &[u8]) -> String {
    content.iter().take(40).map(|&byte| shown(byte)).collect()
}

/// An octet for people.
pub(super) fn shown(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type LineText = Result<(String, Vec<String>), String>;

    fn lines(body: &str) -> Vec<LineText> {
        let texts = |line: Line<'_>| {
            let groups = line.groups().map(|group| String::from_utf8_lossy(group).into_owned()).collect();
            (line.code.to_string(), groups)
        };
        Lines::new(body.as_bytes()).map(|line| line.map(texts).map_err(|problem| problem.to_string())).collect()
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what may be an error")]
    fn ok(code: &str, groups: &[&str]) -> LineText {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        LineText::Ok((code.to_owned(), groups))
    }

    #[test]
    fn lines_have_a_code_and_groups() {
        let body = "\r\n\r\n1-0:1.8.1(1*kWh)\r\n0-0:96.13.1()\r\n1-0:1.8.0*12(a)(b)(c)\r\n0-0:1.0.0(x)";
        assert_eq!(
            lines(body),
            [
                ok("1-0:1.8.1", &["1*kWh"]),
                ok("0-0:96.13.1", &[""]),
                ok("1-0:1.8.0*12", &["a", "b", "c"]),
                ok("0-0:1.0.0", &["x"])
            ]
        );
    }

    #[test]
    fn a_parenthesis_continues_the_line_before() {
        let body = "0-1:24.3.0(1)(m3)\r\n(00001.001)\r\n0-1:24.4.0(1)\n(2)\n1-0:1.7.0(3)\r\n";
        assert_eq!(
            lines(body),
            [ok("0-1:24.3.0", &["1", "m3", "00001.001"]), ok("0-1:24.4.0", &["1", "2"]), ok("1-0:1.7.0", &["3"])]
        );
    }

    #[test]
    fn a_broken_line_costs_that_line() {
        let body = "1-0:1.8(1)\r\n1-0:1.8.1(1\r\n1-0:1.8.2(1)x\r\n1-0:1.8.3\r\n1-0:1.8.4((1)\r\n256-0:1.8.0(1)\r\n1-0:1.7.0(2)\r\n";
        let found = lines(body);
        assert_eq!(found.len(), 7);
        assert_eq!(found[0], Err("line 1: the line does not begin with an obis code".to_owned()));
        assert_eq!(found[1], Err("line 2, 1-0:1.8.1: the line has unbalanced parentheses".to_owned()));
        assert!(found[2..6].iter().all(Result::is_err));
        assert_eq!(found[6], ok("1-0:1.7.0", &["2"]));
    }

    #[test]
    fn quantities_are_exact() {
        let cases: [(&[u8], Quantity); 8] = [
            (b"000004.426*kWh", Quantity::new(4_426, 0, Unit::WATT_HOUR)),
            (b"00.244*kW", Quantity::new(244, 0, Unit::WATT)),
            (b"0999.00*kW", Quantity::new(99_900, 1, Unit::WATT)),
            (b"0230.0*V", Quantity::new(2_300, -1, Unit::VOLT)),
            (b"016*A", Quantity::new(16, 0, Unit::AMPERE)),
            (b"00872.234*m3", Quantity::new(872_234, -3, Unit::CUBIC_METRE)),
            (b"-00.010*kvar", Quantity::new(-10, 0, Unit::VAR)),
            (b"00012.345*GJ", Quantity::new(12_345, 6, Unit::JOULE)),
        ];
        for (content, expected) in cases {
            assert_eq!(quantity(content), Ok((expected, true)), "{}", content.escape_ascii());
        }
        assert_eq!(quantity(b"00015"), Ok((Quantity::new(15, 0, Unit::COUNT), false)));
        for content in [&b""[..], b"*kWh", b".5*kWh", b"5.*kWh", b"1.2.3*kWh", b"1*kwh", b"1*", b"1 kWh", b"--1*kWh"] {
            assert!(quantity(content).is_err(), "{} was taken", content.escape_ascii());
        }
        assert_eq!(quantity(b"99999999999999999999*kWh"), Err(LineError::Overflow));
    }

    #[test]
    fn hexadecimal_text_is_decoded_when_it_is_text() {
        assert_eq!(hex_text(b"4B384547303034303436333935353037").as_deref(), Some("K8EG004046395507"));
        assert_eq!(hex_text(b"3960221976967177"), None);
        assert_eq!(hex_text(b"303"), None);
        assert_eq!(hex_text(b""), None);
    }

    proptest! {
        #[test]
        fn decimals_are_read_as_the_vocabulary_does(text in "-?[0-9]{0,20}\\.?[0-9]{0,9}") {
            let ours = quantity(text.as_bytes()).map(|(quantity, _)| quantity).ok();
            // i64::MIN has no positive counterpart; no meter can show it.
            let theirs = Quantity::from_decimal(&text, 0, Unit::COUNT).ok().filter(|quantity| quantity.mantissa != i64::MIN);
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn codes_are_read_as_the_vocabulary_does(groups: [u8; 6]) {
            let text = ObisCode(groups).to_string();
            let found = take_code(format!("{text}(").as_bytes()).map(|(code, _)| code);
            prop_assert_eq!(found, Some(ObisCode(groups)));
        }
    }
}
