//! A page under construction. What comes from outside goes through [`esc`]; everything else is ours.

use std::fmt::{self, Display, Write as _};

use jiff::tz::TimeZone;
use protocols::metering::{Quantity, UtcMillis};

use crate::api::json::decimal;
use crate::api::params::local;

#[derive(Default)]
pub(super) struct Html(pub(super) String);

impl Html {
    pub(super) fn put(&mut self, args: fmt::Arguments<'_>) {
        self.0.write_fmt(args).expect("a String takes everything");
    }

    pub(super) fn raw(&mut self, text: &str) {
        self.0.push_str(text);
    }
}

/// Text as it may stand in an element or in a quoted attribute.
pub(super) struct Esc<T>(T);

pub(super) fn esc<T: Display>(value: T) -> Esc<T> {
    Esc(value)
}

struct Escaper<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.write_str("&amp;")?,
                '<' => self.0.write_str("&lt;")?,
                '>' => self.0.write_str("&gt;")?,
                '"' => self.0.write_str("&quot;")?,
                '\'' => self.0.write_str("&#39;")?,
                _ => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

impl<T: Display> Display for Esc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaper(f), "{}", self.0)
    }
}

/// Text as a value of a query.
pub(super) fn query(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes everything");
        }
    }
    encoded
}

/// `14:35` today, `2026-03-29 14:35` otherwise, with the whole instant as its title.
pub(super) fn time(at: Option<UtcMillis>, now: UtcMillis, zone: &TimeZone) -> String {
    let Some(at) = at else { return "<span class=\"faint\">never</span>".to_owned() };
    let (text, today) = (local(at, zone), local(now, zone));
    let (date, clock) = (text.get(..10).unwrap_or_default(), text.get(11..16).unwrap_or_default());
    let shown = if today.starts_with(date) { clock.to_owned() } else { format!("{date} {clock}") };
    let ago = ago(now.since(at));
    format!("<time datetime=\"{}\" title=\"{}\">{shown} <span class=\"faint\">{ago}</span></time>", esc(at), esc(&text))
}

/// The instants of a sentence in local time, to the minute.
pub(super) fn localized(text: &str, zone: &TimeZone) -> String {
    let word = |word: &str| {
        let bare = word.trim_end_matches([':', ',']);
        match bare.parse::<UtcMillis>() {
            Ok(at) => {
                let shown = local(at, zone).get(..16).unwrap_or_default().replace('T', " ");
                format!("{shown}{}", word.get(bare.len()..).unwrap_or_default())
            }
            Err(_) => word.to_owned(),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn ago(ms: i64) -> String {
    u64::try_from(ms / 1000).map_or_else(|_| "ahead of us".to_owned(), |seconds| format!("{} ago", lasting(seconds)))
}

/// How long, in one unit.
fn lasting(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How far a meter's clock is from its gateway's.
pub(super) fn clock_offset(ms: i64) -> String {
    if ms.unsigned_abs() < 120_000 {
        return format!("{:+.1} s", ms as f64 / 1000.0);
    }
    format!("{} {}", lasting(ms.unsigned_abs() / 1000), if ms < 0 { "behind" } else { "ahead" })
}

/// Digits in groups of three by thin spaces.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

pub(super) fn value(quantity: Quantity) -> String {
    format!("<span class=\"num\">{}</span> <span class=\"unit\">{}</span>", esc(decimal(quantity)), esc(quantity.unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_markup_is_escaped() {
        let hostile = "<script>alert('x')</script>&\"";
        assert_eq!(esc(hostile).to_string(), "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;");
        assert_eq!(query("a&b=c d/é"), "a%26b%3Dc%20d%2F%C3%A9");
    }

    #[test]
    fn instants_in_a_sentence_become_local() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let text = "silent since 2026-11-22T20:37:19.082Z: no answer, 6 attempts";
        assert_eq!(localized(text, &berlin), "silent since 2026-11-22 21:37: no answer, 6 attempts");
    }

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(999), "999");
        let now = UtcMillis(1_795_401_600_000);
        assert!(
            time(Some(now.plus_ms(-90_000)), now, &TimeZone::UTC).contains(">02:38 <span class=\"faint\">1 min ago<")
        );
        assert!(time(Some(now.plus_ms(-86_400_000)), now, &TimeZone::UTC).contains(">2026-11-22 02:40 "));
        assert!(time(None, now, &TimeZone::UTC).contains("never"));
        let offsets = [-1_000, 119_000, -2_146_803_000, 7_200_000].map(clock_offset);
        assert_eq!(offsets, ["-1.0 s", "+119.0 s", "24 days behind", "2 h ahead"]);
    }
}
