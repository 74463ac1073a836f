//! Dropping our own octets where the line gives them back: optical heads, two-wire current loops, RS-485 adapters.
//!
//! The line is half duplex: while we send, and until the other side's reaction time has passed, nothing but an echo can come. So
//! what comes then is dropped, damaged or not; later only what matches the rest of the echo is, for adapters deliver late.

use std::collections::VecDeque;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct EchoFilter {
    expected: VecDeque<u8>,
    /// The end of our transmission, before which all is echo.
    sent_at: Duration,
}

impl EchoFilter {
    /// Notes what goes out; the last of it at `sent_at`.
    pub(crate) fn sent(&mut self, octets: &[u8], sent_at: Duration) {
        self.expected.clear();
        self.expected.extend(octets);
        self.sent_at = sent_at;
    }

    /// What is left of `received` without the echo.
    pub(crate) fn filter<'a>(&mut self, now: Duration, mut received: &'a [u8]) -> &'a [u8] {
        if now >= self.sent_at + LATE_MAX {
            self.expected.clear();
        }
        while let [octet, rest @ ..] = received
            && !self.expected.is_empty()
        {
            if self.expected.front() == Some(octet) {
                self.expected.pop_front();
            } else if now < self.sent_at {
                self.skip_to(*octet);
            } else {
                // The rest of the echo was lost.
                self.expected.clear();
                break;
            }
            received = rest;
        }
        received
    }

    /// A damaged octet stands for the one expected, unless what was expected after it follows at once.
    fn skip_to(&mut self, octet: u8) {
        let lost = self.expected.iter().take(LOST_MAX).position(|&expected| expected == octet).unwrap_or(0);
        self.expected.drain(..=lost.min(self.expected.len().saturating_sub(1)));
    }
}

/// How late adapters deliver. What comes later is no echo.
const LATE_MAX: Duration = Duration::from_millis(100);

/// Octets of an echo that may be missing in a row.
const LOST_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const SENT_AT: Duration = Duration::from_millis(100);

    fn left(echo: &[u8], at_ms: u64) -> Vec<u8> {
        let mut filter = EchoFilter::default();
        filter.sent(b"/?12!\r\n", SENT_AT);
        let mut left = Vec::new();
        for octet in echo {
            left.extend(filter.filter(Duration::from_millis(at_ms), &[*octet]));
        }
        left
    }

    // Negative control: return `received` as it is.
    #[test]
    fn the_echo_goes_and_the_answer_stays() {
        for at_ms in [50, 150] {
            assert_eq!(left(b"/?12!\r\n/LGZ5", at_ms), b"/LGZ5");
        }
    }

    #[test]
    fn a_damaged_echo_is_dropped_while_we_send() {
        assert_eq!(left(b"/\x7f12!\r\n", 50), b"");
        assert_eq!(left(b"/2!\r\n", 50), b"");
    }

    #[test]
    fn what_is_no_echo_is_the_answer_after_we_sent() {
        assert_eq!(left(b"/?1/LGZ5", 150), b"/LGZ5");
        assert_eq!(left(b"\x15", 150), b"\x15");
    }

    #[test]
    fn an_echo_that_never_came_takes_nothing_from_the_answer() {
        assert_eq!(left(b"/LGZ5", 200), b"/LGZ5");
    }

    #[test]
    fn without_anything_sent_all_is_heard() {
        assert_eq!(EchoFilter::default().filter(Duration::ZERO, b"abc"), b"abc");
    }
}
