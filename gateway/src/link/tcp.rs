//! TCP: meters with a network interface, and serial device servers.

use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;

use super::{ByteLink, Medium, OpenError, StreamLink};

pub struct TcpMedium {
    address: String,
    connect_timeout: Duration,
}

impl TcpMedium {
    pub fn new(address: String, connect_timeout: Duration) -> Self {
        Self { address, connect_timeout }
    }
}

#[async_trait]
impl Medium for TcpMedium {
    fn describe(&self) -> String {
        self.address.clone()
    }

    async fn open(&self) -> Result<Box<dyn ByteLink>, OpenError> {
        let what = self.describe();
        match tokio::time::timeout(self.connect_timeout, TcpStream::connect(&self.address)).await {
            Ok(Ok(stream)) => {
                // Requests are small and each waits for its answer. A stream that cannot do without delay is slower, no more.
                drop(stream.set_nodelay(true));
                Ok(Box::new(StreamLink(stream)))
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Err(OpenError::ConnectionRefused { what })
            }
            Ok(Err(error)) => Err(OpenError::Other { what, cause: error.to_string() }),
            Err(_) => Err(OpenError::TimedOut { what, timeout_ms: self.connect_timeout.as_millis() as u64 }),
        }
    }

    fn stays_open(&self) -> bool {
        false
    }
}
