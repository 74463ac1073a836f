//! One conversation with one meter by IEC 62056-21: drives a client over a byte link, with a deadline on everything.

use std::time::Duration;

use protocols::iec62056_21::{
    Client, ClientConfig, ClientEvent, DataBlock, Goal, Input, Output, Password, ReadRequest, SessionError,
};
use tokio::time::Instant;
use tracing::{debug, trace};

use super::talk::TalkError;
use crate::link::ByteLink;

/// The octets of one read from the medium.
const RECEIVE_OCTETS: usize = 2048;
/// For a farewell that nobody waits for: a few octets at 300 baud.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// After a read-out a meter waits for 1,500 ms, at the rate of that, whether it is acknowledged, and hears no call.
const AFTER_READ_OUT: Duration = Duration::from_secs(2);

pub struct Call<'l> {
    link: &'l mut dyn ByteLink,
    client: Client,
    origin: Instant,
    deadline: Instant,
    failure: Option<SessionError>,
    is_programming: bool,
    /// When the meter hears a call again.
    callable_at: Instant,
    buffer: Box<[u8; RECEIVE_OCTETS]>,
}

impl<'l> Call<'l> {
    /// A conversation that ends by `deadline` at the latest. What has arrived before is thrown away.
    pub fn new(link: &'l mut dyn ByteLink, config: &ClientConfig, deadline: Instant) -> Result<Self, TalkError> {
        link.clear_input().map_err(TalkError::Link)?;
        let client = Client::new(config.clone());
        let buffer = Box::new([0; RECEIVE_OCTETS]);
        let (origin, failure, is_programming) = (Instant::now(), None, false);
        Ok(Self { link, client, origin, deadline, failure, is_programming, callable_at: origin, buffer })
    }

    /// All that the meter reads out. Afterwards it may be called again.
    pub async fn read_out(&mut self) -> Result<DataBlock, TalkError> {
        let called = self.client.sign_on(self.now(), Goal::Readout);
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
        tokio::time::sleep_until(self.callable_at.min(self.deadline)).await;
        let called = self.client.sign_on(self.now(), Goal::Programming);
        self.note(called);
        while !matches!(self.next_event().await?, ClientEvent::Programming { .. }) {}
        self.is_programming = true;
        let Some(password) = password else { return Ok(()) };
        let sent = self.client.log_in(self.now(), password);
        self.note(sent);
        while !matches!(self.next_event().await?, ClientEvent::LoggedIn) {}
        Ok(())
    }

    /// In programming mode. The inner error is the meter's word on this object; the conversation goes on.
    pub async fn read(&mut self, request: &ReadRequest) -> Result<Result<DataBlock, String>, TalkError> {
        let asked = self.client.read(self.now(), request);
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
            let left = self.client.sign_off(self.now());
            self.note(left);
            while self.next_event().await? != ClientEvent::SignedOff {}
        }
        self.link.set_line(None).map_err(TalkError::Link)
    }

    /// Ends at once: says farewell, so that the meter leaves programming mode, and waits for nothing.
    pub async fn hang_up(mut self) {
        self.client.abort(self.now());
        let mut spoken = Duration::ZERO;
        let farewell = async {
            loop {
                match self.client.poll() {
                    Output::Send(octets) => {
                        spoken += self.client.line().transmit_time(octets.len());
                        if self.link.send(&octets).await.is_err() {
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
        drop(self.link.set_line(None));
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The outputs of a session are drained also after an error, so the error waits.
    fn note(&mut self, result: Result<(), SessionError>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    async fn next_event(&mut self) -> Result<ClientEvent, TalkError> {
        loop {
            // Checked in each round: a peer that never stops talking must not win over the deadline.
            if Instant::now() >= self.deadline {
                return Err(TalkError::OutOfTime);
            }
            match self.client.poll() {
                Output::Send(octets) => {
                    trace!(octets = octets.len(), "sent");
                    let sending = tokio::time::timeout_at(self.deadline, self.link.send(&octets)).await;
                    sending.map_err(|_| TalkError::OutOfTime)?.map_err(TalkError::Link)?;
                }
                Output::SetLine(line) => {
                    debug!(?line, "the line is set");
                    self.link.set_line(Some(line)).map_err(TalkError::Link)?;
                }
                Output::Event(event) => return Ok(event),
                Output::WaitUntil(at) => {
                    if let Some(failure) = self.failure.take() {
                        return Err(failure.into());
                    }
                    self.wait_until(at).await?;
                }
            }
        }
    }

    async fn wait_until(&mut self, at: Option<Duration>) -> Result<(), TalkError> {
        let wake = at.map_or(self.deadline, |at| (self.origin + at).min(self.deadline));
        let received = tokio::time::timeout_at(wake, self.link.receive(&mut self.buffer[..])).await;
        let input = match &received {
            Ok(Ok(count)) => Input::Received(&self.buffer[..*count]),
            Ok(Err(_)) | Err(_) => Input::Tick,
        };
        let handled = self.client.handle(self.origin.elapsed(), input);
        self.note(handled);
        match received {
            Ok(Err(lost)) => Err(TalkError::Link(lost)),
            _ => Ok(()),
        }
    }
}
