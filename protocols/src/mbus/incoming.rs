//! Received octets that wait to become a frame.

use std::time::Duration;

use super::frame::Frame;
use super::quirks::Quirks;
use super::scanner::Scanner;

#[derive(Default)]
pub(super) struct Incoming {
    scanner: Scanner,
    received_at: Duration,
    /// Something came that was no frame.
    has_garbage: bool,
}

impl Incoming {
    pub(super) fn new(quirks: Quirks) -> Self {
        Self { scanner: Scanner::new(quirks), ..Self::default() }
    }

    pub(super) fn extend(&mut self, now: Duration, octets: &[u8]) {
        if !octets.is_empty() {
            self.scanner.feed(octets);
            self.received_at = now;
        }
    }

    /// The next frame, and whether something came before it that was none.
    pub(super) fn next(&mut self) -> Option<(Frame<'_>, bool)> {
        while self.scanner.skip_garbage() {
            self.has_garbage = true;
        }
        let has_garbage = self.has_garbage;
        self.scanner.next_frame()?.ok().map(|frame| (frame, has_garbage))
    }

    pub(super) fn clear(&mut self) {
        self.scanner.clear();
        self.has_garbage = false;
    }

    /// When the frame that has begun is given up; `None` when none has.
    pub(super) fn deadline(&self, inter_octet_timeout: Duration) -> Option<Duration> {
        (self.scanner.pending() > 0).then(|| self.received_at + inter_octet_timeout)
    }

    /// Whether anything came that was no frame, finished or not.
    pub(super) fn is_damaged(&self) -> bool {
        self.has_garbage || self.scanner.pending() > 0
    }
}
