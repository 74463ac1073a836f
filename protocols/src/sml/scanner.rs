//! A byte stream in pieces of any size, as a port gives it.

use super::transport::{Found, FrameError, Progress, SmlFile, find};

/// Finds the files of a stream.
///
/// ```text
/// feed(octets); while let Some(found) = next_file() { .. }
/// ```
///
/// Drained like this it holds one unfinished file at most, [`FILE_LEN_MAX`](super::FILE_LEN_MAX) octets and what was fed last,
/// and looks at each octet once.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    buffer: Vec<u8>,
    /// Octets of the buffer that are done with.
    done: usize,
    progress: Progress,
}

impl Scanner {
    /// Takes what came.
    pub fn feed(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.done);
        self.done = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next file, or why some octets are none; `None`: feed more.
    pub fn next_file(&mut self) -> Option<Result<SmlFile<'_>, FrameError>> {
        let rest = self.buffer.get(self.done..).unwrap_or_default();
        match find(rest, self.progress) {
            Found::NeedMore(progress) => {
                self.progress = progress;
                None
            }
            Found::File { shape, used } => {
                self.done += used;
                self.progress = Progress::default();
                Some(Ok(SmlFile::of(rest, shape)))
            }
            Found::Garbage { skip, error } => {
                self.done += skip;
                self.progress = Progress::default();
                Some(Err(error))
            }
        }
    }

    /// The port was opened anew: what came before ends nowhere.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Octets that wait for more.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.done
    }
}
