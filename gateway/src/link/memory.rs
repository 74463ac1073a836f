//! A medium without a device: each opening hands the other end to whoever plays the meter.

use async_trait::async_trait;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::{ByteLink, Medium, OpenError, StreamLink};

/// Octets on their way in one direction.
const PIPE_OCTETS: usize = 16 * 1024;

pub struct MemoryMedium {
    name: String,
    openings: mpsc::UnboundedSender<DuplexStream>,
    stays_open: bool,
}

impl MemoryMedium {
    /// The medium, and where its other ends come out. While nobody holds the latter, there is nothing to open.
    pub fn new(name: &str, stays_open: bool) -> (Self, mpsc::UnboundedReceiver<DuplexStream>) {
        let (openings, opened) = mpsc::unbounded_channel();
        (Self { name: name.to_owned(), openings, stays_open }, opened)
    }
}

#[async_trait]
impl Medium for MemoryMedium {
    fn describe(&self) -> String {
        self.name.clone()
    }

    async fn open(&self) -> Result<Box<dyn ByteLink>, OpenError> {
        let (ours, theirs) = tokio::io::duplex(PIPE_OCTETS);
        match self.openings.send(theirs) {
            Ok(()) => Ok(Box::new(StreamLink(ours))),
            Err(_) => Err(OpenError::Absent { what: self.name.clone(), advice: "nobody plays it".to_owned() }),
        }
    }

    fn stays_open(&self) -> bool {
        self.stays_open
    }
}
