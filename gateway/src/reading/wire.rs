//! A link under a conversation: octets out and in, with a deadline on everything.

use std::time::Duration;

use tokio::time::Instant;
use tracing::trace;

use super::talk::TalkError;
use crate::link::ByteLink;

/// The octets of one read from the medium.
const RECEIVE_OCTETS: usize = 2048;

pub(super) struct Wire<'l> {
    pub(super) link: &'l mut dyn ByteLink,
    origin: Instant,
    deadline: Instant,
    buffer: Box<[u8; RECEIVE_OCTETS]>,
}

impl<'l> Wire<'l> {
    /// For a conversation that ends by `deadline` at the latest. What has arrived before is thrown away.
    pub(super) fn new(link: &'l mut dyn ByteLink, deadline: Instant) -> Result<Self, TalkError> {
        link.clear_input().map_err(TalkError::Link)?;
        Ok(Self { link, origin: Instant::now(), deadline, buffer: Box::new([0; RECEIVE_OCTETS]) })
    }

    /// Since the conversation began.
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// To be asked in each round: a peer that never stops talking must not win over the deadline.
    pub(super) fn check_time(&self) -> Result<(), TalkError> {
        if Instant::now() >= self.deadline { Err(TalkError::OutOfTime) } else { Ok(()) }
    }

    /// Until then, or until the deadline.
    pub(super) async fn sleep_until(&self, at: Instant) {
        tokio::time::sleep_until(at.min(self.deadline)).await;
    }

    pub(super) async fn send(&mut self, octets: &[u8]) -> Result<(), TalkError> {
        trace!(octets = octets.len(), "sent");
        let sending = tokio::time::timeout_at(self.deadline, self.link.send(octets)).await;
        sending.map_err(|_| TalkError::OutOfTime)?.map_err(TalkError::Link)
    }

    /// What comes until then, by the conversation's time; nothing when nothing does.
    pub(super) async fn receive_until(&mut self, at: Option<Duration>) -> Result<&[u8], TalkError> {
        let wake = at.map_or(self.deadline, |at| (self.origin + at).min(self.deadline));
        match tokio::time::timeout_at(wake, self.link.receive(&mut self.buffer[..])).await {
            Ok(Ok(count)) => Ok(&self.buffer[..count]),
            Ok(Err(lost)) => Err(TalkError::Link(lost)),
            Err(_) => Ok(&[]),
        }
    }
}
