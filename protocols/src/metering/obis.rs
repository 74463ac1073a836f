//! OBIS codes: what a value is, in six value groups.

use std::fmt;
use std::str::FromStr;

/// Value groups A-B:C.D.E*F of IEC 62056-61 (now IEC 62056-6-1, clause 4).
///
/// F = 255 means "not used" and is left out of the text form: `1-0:1.8.0`, but `1-0:1.8.0*1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObisCode(pub [u8; 6]);

impl ObisCode {
    pub const fn new(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) -> Self {
        Self([a, b, c, d, e, f])
    }
}

/// Why a text is no OBIS code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no OBIS code; expected A-B:C.D.E or A-B:C.D.E*F with groups from 0 to 255")]
pub struct ObisError {
    pub text: String,
}

impl fmt::Display for ObisCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, last] = self.0;
        // Written at once: its eleven pieces stood out in the profile of reading a telegram.
        let mut text = Text { octets: [0; 23], len: 0 };
        for (number, behind) in [(a, b'-'), (b, b':'), (c, b'.'), (d, b'.')] {
            text.number(number);
            text.push(behind);
        }
        text.number(e);
        if last != 255 {
            text.push(b'*');
            text.number(last);
        }
        f.write_str(text.as_str())
    }
}

/// A code as it is written: 255-255:255.255.255*255 at the longest.
struct Text {
    octets: [u8; 23],
    len: usize,
}

impl Text {
    fn push(&mut self, octet: u8) {
        if let Some(place) = self.octets.get_mut(self.len) {
            *place = octet;
            self.len += 1;
        }
    }

    fn number(&mut self, number: u8) {
        if number >= 100 {
            self.push(b'0' + number / 100);
        }
        if number >= 10 {
            self.push(b'0' + number / 10 % 10);
        }
        self.push(b'0' + number % 10);
    }

    fn as_str(&self) -> &str {
        self.octets.get(..self.len).and_then(|octets| str::from_utf8(octets).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for ObisCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObisCode {
    type Err = ObisError;

    /// Accepts `A-B:C.D.E`, `A-B:C.D.E*F` and the six-dot form `A.B.C.D.E.F` that many tools print.
    fn from_str(text: &str) -> Result<Self, ObisError> {
        parse(text).ok_or_else(|| ObisError { text: text.chars().take(40).collect() })
    }
}

fn parse(text: &str) -> Option<ObisCode> {
    if let Some((a, rest)) = text.split_once('-') {
        let (b, rest) = rest.split_once(':')?;
        let (rest, f) = match rest.split_once('*') {
            Some((rest, f)) => (rest, group(f)?),
            None => (rest, 255),
        };
        let mut groups = rest.split('.');
        let (c, d, e) = (groups.next()?, groups.next()?, groups.next()?);
        if groups.next().is_some() {
            return None;
        }
        return Some(ObisCode([group(a)?, group(b)?, group(c)?, group(d)?, group(e)?, f]));
    }
    let mut code = [0; 6];
    let mut groups = text.split('.');
    for slot in &mut code {
        *slot = group(groups.next()?)?;
    }
    groups.next().is_none().then_some(ObisCode(code))
}

/// One value group: one to three digits, no sign, no blank (`u8::from_str` alone would take `+1`).
fn group(text: &str) -> Option<u8> {
    (1..=3).contains(&text.len()).then_some(())?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_forms_are_read() {
        assert_eq!("1-0:1.8.0".parse(), Ok(ObisCode::new(1, 0, 1, 8, 0, 255)));
        assert_eq!("1-0:1.8.0*7".parse(), Ok(ObisCode::new(1, 0, 1, 8, 0, 7)));
        assert_eq!("0.0.96.1.0.255".parse(), Ok(ObisCode::new(0, 0, 96, 1, 0, 255)));
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for text in
            ["", "1", "1-0:1.8", "1-0:1.8.0.0", "1-0:1.8.256", "1-0:+1.8.0", "1-0:1.8.0*", "1.2.3.4.5", "1-0:1.8.0 "]
        {
            assert!(text.parse::<ObisCode>().is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn display_and_parse_round_trip(groups: [u8; 6]) {
            let code = ObisCode(groups);
            prop_assert_eq!(code.to_string().parse::<ObisCode>(), Ok(code));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            drop(text.parse::<ObisCode>());
        }
    }
}
