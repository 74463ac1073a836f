//! The identification message `/XXXZ[\W]Identification` and what it promises.

use std::time::Duration;

use super::port::Baud;

/// Longest model name taken, in octets. The standard has 16, `\W` pairs included; meters in the field have more.
pub const MODEL_LEN_MAX: usize = 48;

/// Most `\W` pairs.
const ENHANCED_MAX: usize = 8;

/// Between receiving and sending, at the least (IEC 62056-21, 6.3.14, item 12): with a capital third letter,
const REACTION: Duration = Duration::from_millis(200);
/// and with a small one.
const REACTION_SHORT: Duration = Duration::from_millis(20);

/// What a meter says of itself when it is called (IEC 62056-21, 6.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// The maker's three letters of the FLAG list, the last one as sent: `LGZ`, `ISk`.
    pub manufacturer: String,
    /// The baud rate identification, Z.
    pub baud: u8,
    /// The characters W that stand behind backslashes before the model.
    pub enhanced: Vec<u8>,
    /// The maker's name for the model.
    pub model: String,
}

/// How a meter that was called goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reads out at the rate at which it was called.
    A,
    /// Changes its rate by itself and reads out.
    B(Baud),
    /// Waits for an option select. Mode E is this with [`Identification::offers_hdlc`].
    C(Baud),
}

impl Identification {
    /// `line` is what stands between `/` and the end of the line. `None` when it is no identification.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (manufacturer, rest) = line.split_at_checked(3)?;
        let (&baud, mut rest) = rest.split_first()?;
        let is_sound = manufacturer.iter().all(u8::is_ascii_alphabetic) && is_name(baud);
        is_sound.then_some(())?;
        let mut enhanced = Vec::new();
        while let [b'\\', w, after @ ..] = rest
            && enhanced.len() < ENHANCED_MAX
        {
            is_name(*w).then_some(())?;
            enhanced.push(*w);
            rest = after;
        }
        (rest.len() <= MODEL_LEN_MAX && rest.iter().all(|&octet| is_name(octet))).then_some(())?;
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        Some(Self { manufacturer: text(manufacturer), baud, enhanced, model: text(rest) })
    }

    /// The message as it is sent.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'/');
        out.extend(self.manufacturer.bytes());
        out.push(self.baud);
        for &w in &self.enhanced {
            out.extend([b'\\', w]);
        }
        out.extend(self.model.bytes());
        out.extend(b"\r\n");
    }

    pub fn mode(&self) -> Mode {
        match (Baud::from_digit(self.baud), Baud::from_letter(self.baud)) {
            (Some(baud), _) => Mode::C(baud),
            (_, Some(baud)) => Mode::B(baud),
            (None, None) => Mode::A,
        }
    }

    /// `\2`: mode E, HDLC.
    pub fn offers_hdlc(&self) -> bool {
        self.enhanced.contains(&b'2')
    }

    /// How long this meter waits at the least before it answers, and wants us to wait.
    pub fn reaction_time(&self) -> Duration {
        let is_small = self.manufacturer.bytes().next_back().is_some_and(|letter| letter.is_ascii_lowercase());
        if is_small { REACTION_SHORT } else { REACTION }
    }

    /// The FLAG letters as the list has them.
    pub fn flag(&self) -> String {
        self.manufacturer.to_ascii_uppercase()
    }
}

/// Printable and neither `/` nor `!`.
pub(super) fn is_name(octet: u8) -> bool {
    (0x20..0x7f).contains(&octet) && !matches!(octet, b'/' | b'!')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn identifications_of_the_field_are_read() {
        // From public tests and issues: pwitab/iec62056-21, u9n/dlms-cosem#37, Runamook/iec_62056-21, volkszaehler/vzlogger.
        type Case = (&'static str, &'static str, Mode, &'static [u8], &'static str, u64);
        let cases: [Case; 6] = [
            ("LGZ5\\2ZMD3104107.B40", "LGZ", Mode::C(Baud::B9600), b"2", "ZMD3104107.B40", 200),
            ("ISk5MT174-0001", "ISk", Mode::C(Baud::B9600), b"", "MT174-0001", 20),
            ("Els6\\2EK280", "Els", Mode::C(Baud::B19200), b"2", "EK280", 20),
            ("EMH5\\@\\201LZQJL0013F", "EMH", Mode::C(Baud::B9600), b"@2", "01LZQJL0013F", 200),
            ("LOGCLK13BE", "LOG", Mode::B(Baud::B2400), b"", "LK13BE", 200),
            ("ESY#", "ESY", Mode::A, b"", "", 200),
        ];
        for (line, manufacturer, mode, enhanced, model, reaction_ms) in cases {
            let found = Identification::parse(line.as_bytes()).unwrap();
            assert_eq!((&found.manufacturer[..], found.mode()), (manufacturer, mode), "{line}");
            assert_eq!((&found.enhanced[..], &found.model[..]), (enhanced, model), "{line}");
            assert_eq!(found.reaction_time(), Duration::from_millis(reaction_ms), "{line}");
            assert_eq!(found.offers_hdlc(), enhanced.contains(&b'2'), "{line}");
        }
    }

    #[test]
    fn what_is_no_identification_is_refused() {
        let long = format!("LGZ5{}", "x".repeat(MODEL_LEN_MAX + 1));
        for line in ["", "LGZ", "L1Z5x", "LGZ/x", "LGZ5a/b", "LGZ5a!", "LGZ5\\", "LGZ5\x01", "?12345", &long] {
            assert_eq!(
                Identification::parse(line.as_bytes()),
                if line == "LGZ5\\" {
                    // A lone backslash is a model of one character.
                    Some(Identification {
                        manufacturer: "LGZ".into(),
                        baud: b'5',
                        enhanced: vec![],
                        model: "\\".into(),
                    })
                } else {
                    None
                },
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn identifications_round_trip(
            manufacturer in "[A-Z]{2}[A-Za-z]", baud in "[0-6A-I#]", enhanced in "[2@A]{0,8}", model in "[A-Za-z0-9.@ -]{0,48}",
        ) {
            let (baud, enhanced) = (baud.as_bytes()[0], enhanced.into_bytes());
            let identification = Identification { manufacturer, baud, enhanced, model };
            let mut octets = vec![0xa5];
            identification.encode(&mut octets);
            let line = octets.strip_prefix(b"\xa5/").and_then(|line| line.strip_suffix(b"\r\n")).unwrap();
            prop_assert_eq!(Identification::parse(line), Some(identification));
        }
    }
}
