//! A byte stream in pieces of any size, as a port gives it.

use super::frame::{Frame, FrameError, Scan, scan};
use super::quirks::Quirks;

/// Finds the frames of a stream.
///
/// ```text
/// feed(octets); while let Some(found) = next_frame() { .. }
/// ```
///
/// Drained like this it holds one unfinished frame at most, [`FRAME_LEN_MAX`](super::FRAME_LEN_MAX) octets and what was fed
/// last.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    buffer: Vec<u8>,
    /// Octets of the buffer that are done with.
    done: usize,
    quirks: Quirks,
}

impl Scanner {
    pub fn new(quirks: Quirks) -> Self {
        Self { quirks, ..Self::default() }
    }

    /// Takes what came.
    pub fn feed(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.done);
        self.done = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next frame, or why some octets are none; `None`: feed more.
    pub fn next_frame(&mut self) -> Option<Result<Frame<'_>, FrameError>> {
        match scan(self.buffer.get(self.done..).unwrap_or_default(), self.quirks) {
            Scan::NeedMore => None,
            Scan::Frame { frame, used } => {
                self.done += used;
                Some(Ok(frame))
            }
            Scan::Garbage { skip, error } => {
                self.done += skip;
                Some(Err(error))
            }
        }
    }

    /// Drops what begins no frame, piece by piece; whether there was any.
    pub(super) fn skip_garbage(&mut self) -> bool {
        match scan(self.buffer.get(self.done..).unwrap_or_default(), self.quirks) {
            Scan::Garbage { skip, .. } => {
                self.done += skip;
                true
            }
            Scan::NeedMore | Scan::Frame { .. } => false,
        }
    }

    /// What came before ends nowhere.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.done = 0;
    }

    /// Octets that wait for more.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.done
    }
}
