//! One conversation with one meter by IEC 62056-21: drives a client over a byte link, with a deadline on everything.

use std::time::Duration;

use protocols::iec62056_21::{
    Client, ClientConfig, ClientEvent, DataBlock, Goal, Input, Output, Password, ReadRequest, SessionError,
};
use tokio::time::Instant;
use tracing::debug;

use super::talk::TalkError;
use super::wire::Wire;
use crate::link::ByteLink;

/// For a farewell that nobody waits for: a few octets at 300 baud.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// After a read-out a meter waits for 1,500 ms, at the rate of that, whether it is acknowledged, and hears no call.
const AFTER_READ_OUT: Duration = Duration::from_secs(2);

pub struct Call<'l> {
    wire: Wire<'l>,
    client: Client,
    failure: Option<SessionError>,
    is_programming: bool,
    /// When the meter hears a call again.
    callable_at: Instant,
}

impl<'l> Call<'l> {
    /// A conversation that ends by `deadline` at the latest. What has arrived before is thrown away.
    pub fn new(link: &'l mut dyn ByteLink, config: &ClientConfig, deadline: Instant) -> Result<Self, TalkError> {
        let (wire, client) = (Wire::new(link, deadline)?, Client::new(config.clone()));
        Ok(Self { wire, client, failure: None, is_programming: false, callable_at: Instant::now() })
    }

    /// All that the meter reads out. Afterwards it may be called again.
    pub async fn read_out(&mut self) -> Result<DataBlock, TalkError> {
        let called = self.client.sign_on(self.wire.now(), Goal::Readout);
        self.note(called);
        loop {
            if let ClientEvent::ReadOut(block) = self.next_event().await? {
                self.callable_at = Instant::now() + AFTER_READ_OUT;
                return Ok(block);
            }
        }
    }

    /// Enters programming mode, if this is not done yet.
    pub async fn enter(&mut self, password: Option<&Password>) -> Result<(), TalkError> {
        if self.is_programming {
            return Ok(());
        }
        self.wire.sleep_until(self.callable_at).await;
        let called = self.client.sign_on(self.wire.now(), Goal::Programming);
        self.note(called);
        while !matches!(self.next_event().await?, ClientEvent::Programming { .. }) {}
        self.is_programming = true;
        let Some(password) = password else { return Ok(()) };
        let sent = self.client.log_in(self.wire.now(), password);
        self.note(sent);
        while !matches!(self.next_event().await?, ClientEvent::LoggedIn) {}
        Ok(())
    }

    /// In programming mode. The inner error is the meter's word on this object; the conversation goes on.
    pub async fn read(&mut self, request: &ReadRequest) -> Result<Result<DataBlock, String>, TalkError> {
        let asked = self.client.read(self.wire.now(), request);
        self.note(asked);
        loop {
            match self.next_event().await? {
                ClientEvent::Answered(block) => return Ok(Ok(block)),
                ClientEvent::Refused { reason } => return Ok(Err(reason)),
                _ => {}
            }
        }
    }

    /// Ends in order, and leaves the line as it was. Whatever goes wrong now changes nothing about what was read.
    pub async fn end(&mut self) -> Result<(), TalkError> {
        if self.is_programming {
            self.is_programming = false;
            let left = self.client.sign_off(self.wire.now());
            self.note(left);
            while self.next_event().await? != ClientEvent::SignedOff {}
        }
        self.wire.link.set_line(None).map_err(TalkError::Link)
    }

    /// Ends at once: says farewell, so that the meter leaves programming mode, and waits for nothing.
    pub async fn hang_up(mut self) {
        self.client.abort(self.wire.now());
        let mut spoken = Duration::ZERO;
        let farewell = async {
            loop {
                match self.client.poll() {
                    Output::Send(octets) => {
                        spoken += self.client.line().transmit_time(octets.len());
                        if self.wire.link.send(&octets).await.is_err() {
                            return;
                        }
                    }
                    Output::WaitUntil(_) => break,
                    Output::SetLine(_) | Output::Event(_) => {}
                }
            }
            // The port may be set anew only when it is empty.
            tokio::time::sleep(spoken).await;
        };
        drop(tokio::time::timeout(HANG_UP_TIMEOUT, farewell).await);
        // A link that cannot be set any more shows when it is used next.
        drop(self.wire.link.set_line(None));
    }

    /// The outputs of a session are drained also after an error, so the error waits.
    fn note(&mut self, result: Result<(), SessionError>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    async fn next_event(&mut self) -> Result<ClientEvent, TalkError> {
        loop {
            self.wire.check_time()?;
            match self.client.poll() {
                Output::Send(octets) => self.wire.send(&octets).await?,
                Output::SetLine(line) => {
                    debug!(?line, "the line is set");
                    self.wire.link.set_line(Some(line)).map_err(TalkError::Link)?;
                }
                Output::Event(event) => return Ok(event),
                Output::WaitUntil(at) => {
                    if let Some(failure) = self.failure.take() {
                        return Err(failure.into());
                    }
                    let octets = self.wire.receive_until(at).await?.to_vec();
                    let input = if octets.is_empty() { Input::Tick } else { Input::Received(&octets) };
                    let handled = self.client.handle(self.wire.now(), input);
                    self.note(handled);
                }
            }
        }
    }
}
