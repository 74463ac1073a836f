//! Received octets that wait to become a message.

use std::time::Duration;

use super::message::{Expectation, Message, STX, Scan, scan_from};

#[derive(Default)]
pub(super) struct Incoming {
    buffer: Vec<u8>,
    /// Start of what is not used yet.
    start: usize,
    /// Octets from `start` on in which no end was found.
    seen: usize,
    received_at: Duration,
    /// Octets dropped as garbage since the last [`Self::clear`].
    garbage: usize,
}

impl Incoming {
    pub(super) fn extend(&mut self, now: Duration, octets: &[u8]) {
        if !octets.is_empty() {
            self.buffer.extend(octets);
            self.received_at = now;
        }
    }

    /// The next message. What it borrows is used up; call [`Self::compact`] when there are no more.
    pub(super) fn next(&mut self, expectation: Expectation) -> Option<Message<'_>> {
        let (mut start, mut seen, mut garbage) = (self.start, self.seen, 0);
        let found = loop {
            let rest = self.buffer.get(start..).unwrap_or_default();
            match scan_from(rest, seen, expectation) {
                Scan::NeedMore => {
                    seen = rest.len().saturating_sub(1);
                    break None;
                }
                Scan::Garbage { skip, .. } => {
                    start += skip;
                    garbage += skip;
                    seen = 0;
                }
                Scan::Message { message, used } => {
                    start += used;
                    seen = 0;
                    break Some(message);
                }
            }
        };
        (self.start, self.seen, self.garbage) = (start, seen, self.garbage.saturating_add(garbage));
        found
    }

    pub(super) fn compact(&mut self) {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.start = 0;
    }

    pub(super) fn clear(&mut self) {
        *self = Self { received_at: self.received_at, ..Self::default() };
    }

    /// When the message that has begun is given up; `None` when none has.
    pub(super) fn deadline(&self, inter_octet_timeout: Duration) -> Option<Duration> {
        (self.buffer.len() > self.start).then(|| self.received_at + inter_octet_timeout)
    }

    /// Whether anything came that was no message, finished or not.
    pub(super) fn is_damaged(&self) -> bool {
        self.garbage > 0 || self.buffer.len() > self.start
    }

    /// Whether a block has begun that did not end.
    pub(super) fn is_inside_block(&self) -> bool {
        self.buffer.get(self.start) == Some(&STX)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }
}
