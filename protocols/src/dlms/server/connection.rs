//! A server session over a link.

use std::collections::VecDeque;
use std::time::Duration;

use crate::dlms::security::{Plain, Protection};
use crate::link::{Link, LinkError, LinkInput, LinkOutput};

use super::{ObjectServer, ServerEvent, ServerSession};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerOutput {
    /// Put these bytes on the wire.
    Send(Vec<u8>),
    Event(ServerEvent),
    /// Nothing to do before this instant (`None`: before more bytes arrive).
    WaitUntil(Option<Duration>),
}

/// Passes APDUs between a link and a session; the association ends when the link does.
pub struct ServerConnection<L, P = Plain> {
    link: L,
    session: ServerSession<P>,
    outputs: VecDeque<ServerOutput>,
    link_deadline: Option<Duration>,
}

impl<L: Link, P: Protection> ServerConnection<L, P> {
    pub fn new(link: L, session: ServerSession<P>) -> Self {
        Self { link, session, outputs: VecDeque::new(), link_deadline: None }
    }

    /// The owner accepted a connection: a wrapper has no handshake of its own. HDLC needs no such call.
    pub fn connect(&mut self, now: Duration, objects: &mut dyn ObjectServer) -> Result<(), LinkError> {
        self.link.connect(now);
        self.pump(now, objects)
    }

    /// Feeds one input; drain [`Self::poll`] until `WaitUntil` before the next call. An error ends the connection.
    pub fn handle(
        &mut self,
        now: Duration,
        input: LinkInput<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<(), LinkError> {
        self.link.handle(now, input)?;
        self.pump(now, objects)
    }

    fn pump(&mut self, now: Duration, objects: &mut dyn ObjectServer) -> Result<(), LinkError> {
        loop {
            match self.link.poll() {
                LinkOutput::Send(bytes) => self.outputs.push_back(ServerOutput::Send(bytes)),
                LinkOutput::Connected => {
                    self.session.reset();
                    self.event(ServerEvent::Connected);
                }
                LinkOutput::Disconnected => {
                    self.session.reset();
                    self.event(ServerEvent::Disconnected);
                }
                LinkOutput::Apdu(apdu) => {
                    let mut answer = self.session.answer(&apdu, objects);
                    if let Some(event) = self.session.take_event() {
                        self.event(event);
                    }
                    if self.session.was_unconfirmed() {
                        self.link.acknowledge(now);
                    }
                    while let Some(leaving) = answer {
                        match self.link.send(now, &leaving) {
                            Ok(()) => answer = self.session.take_more(),
                            // The APDU came without a link (HDLC UI), and nobody expects an answer.
                            Err(LinkError::NotReady) => break,
                            Err(error) => return Err(error),
                        }
                    }
                }
                LinkOutput::WaitUntil(deadline) => {
                    self.link_deadline = deadline;
                    return Ok(());
                }
            }
        }
    }

    /// Sends an APDU that nobody asked for to the client of the association, if there is one and the link can carry it now.
    pub fn notify(&mut self, now: Duration, apdu: Vec<u8>, objects: &mut dyn ObjectServer) -> Result<(), LinkError> {
        let Some(apdu) = self.session.notify(apdu) else { return Err(LinkError::NotReady) };
        self.link.send(now, &apdu)?;
        self.pump(now, objects)
    }

    pub fn poll(&mut self) -> ServerOutput {
        self.outputs.pop_front().unwrap_or(ServerOutput::WaitUntil(self.link_deadline))
    }

    /// The link, for example to ask which client is connected.
    pub fn link(&self) -> &L {
        &self.link
    }

    pub fn session(&self) -> &ServerSession<P> {
        &self.session
    }

    /// The session, for example to give it a challenge.
    pub fn session_mut(&mut self) -> &mut ServerSession<P> {
        &mut self.session
    }

    fn event(&mut self, event: ServerEvent) {
        self.outputs.push_back(ServerOutput::Event(event));
    }
}
