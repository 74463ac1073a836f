//! The client's end of a link: it polls, and repeats what was lost.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use super::config::HdlcConfig;
use super::control::{Control, Sequence};
use super::echo::EchoFilter;
use super::frame::Frame;
use super::incoming::Incoming;
use super::parameters::LinkParameters;
use super::transfer::{Arrival, LLC_COMMAND, NeverSent, Outgoing, Reassembly};
use super::unnumbered::UiReassembler;
use crate::link::{Link, LinkError, LinkInput, LinkOutput, is_unsolicited};

/// Polls of a server that is not ready begin so far apart,
const BUSY_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// and end so far apart.
const BUSY_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How far apart the segments of a push may be.
pub(super) const PUSH_GAP_MAX: Duration = Duration::from_secs(5);

/// Reads one server. See [`Link`] for how it is driven.
///
/// A link that failed stays silent; the owner makes a new one. After [`LinkOutput::Disconnected`] it may connect again.
/// [`Link::disconnect`] before [`Link::connect`] sends a DISC all the same: meters that still hold a link of an earlier
/// client let go of it so.
#[derive(Debug)]
pub struct HdlcClient {
    config: HdlcConfig,
    state: State,
    incoming: Incoming,
    echo: EchoFilter,
    outgoing: Outgoing,
    reassembly: Reassembly,
    push: UiReassembler,
    patience: Patience,
    /// An answer is due to the APDU that was sent.
    awaits_apdu: bool,
    /// The last poll was an RR: the server's RR says what it has, not that it heard a window again.
    asked_by_supervisory: bool,
    deadline: Option<Duration>,
    outputs: VecDeque<LinkOutput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    /// SNRM sent, UA awaited.
    Connecting,
    /// Connected; it is our turn and there is nothing to say. The deadline is the keep-alive.
    Idle,
    /// Connected and polled; it is the server's turn until its final bit.
    Polling,
    /// Connected; it is our turn, but the server is not ready. The deadline is the next poll.
    Busy,
    /// DISC sent.
    Disconnecting,
    /// An error was returned.
    Failed,
}

/// How long we have gone on without getting anywhere.
#[derive(Debug, Default)]
struct Patience {
    /// Polls since anything new came.
    attempts: u8,
    busy_since: Option<Duration>,
    busy_polls: u8,
    backoff: Duration,
}

impl HdlcClient {
    pub fn new(config: HdlcConfig) -> Self {
        let parameters = config.parameters();
        Self {
            state: State::Down,
            incoming: Incoming::default(),
            echo: EchoFilter::default(),
            outgoing: Outgoing::new(parameters),
            reassembly: Reassembly::new(parameters, config.apdu_octets_max),
            push: UiReassembler::new(config.apdu_octets_max, PUSH_GAP_MAX),
            patience: Patience::default(),
            awaits_apdu: false,
            asked_by_supervisory: false,
            deadline: None,
            outputs: VecDeque::new(),
            config,
        }
    }

    fn is_connected(&self) -> bool {
        matches!(self.state, State::Idle | State::Polling | State::Busy)
    }

    fn load(&mut self, now: Duration, apdu: &[u8], awaits_apdu: bool) -> Result<(), LinkError> {
        if !self.is_ready() {
            return Err(LinkError::NotReady);
        }
        self.outgoing.load(LLC_COMMAND, apdu);
        self.awaits_apdu = awaits_apdu;
        self.patience = Patience::default();
        // During a keep-alive it is the server's turn; the APDU goes out when that ends.
        if self.state == State::Polling { Ok(()) } else { self.pass_turn(now, false) }
    }

    fn take_frames(&mut self, now: Duration) -> Result<(), LinkError> {
        let mut incoming = mem::take(&mut self.incoming);
        let mut result = Ok(());
        while let Some(frame) = incoming.next() {
            result = self.on_frame(now, &frame);
            if result.is_err() {
                break;
            }
        }
        incoming.compact();
        self.incoming = incoming;
        result
    }

    fn on_frame(&mut self, now: Duration, frame: &Frame<'_>) -> Result<(), LinkError> {
        // Any form of our server's address will do (meters answer in another one than they were asked in); an echo of our
        // own frame is addressed to the server.
        let to_us = frame.destination.client() == Some(self.config.client);
        if !to_us || !frame.source.is_same_device(self.config.server) || self.echo.is_echo(frame) {
            return Ok(());
        }
        let Some(control) = frame.control() else { return Ok(()) };
        match (control, self.state) {
            (Control::Ui, _) => {
                if let Some(apdu) = self.push.accept(now, frame) {
                    self.outputs.push_back(LinkOutput::Apdu(apdu));
                }
                Ok(())
            }
            (_, State::Down | State::Failed) => Ok(()),
            (Control::Ua | Control::Dm | Control::Frmr, State::Disconnecting) => {
                self.go_down();
                Ok(())
            }
            (Control::Dm, _) => Err(LinkError::Disconnected),
            (Control::Frmr, _) => Err(LinkError::FrameRejected),
            (Control::Ua, State::Connecting) => {
                self.on_connected(now, frame.information);
                Ok(())
            }
            // Left over from before, a repeated UA, or an echo.
            (_, State::Connecting | State::Disconnecting) | (Control::Ua | Control::Snrm | Control::Disc, _) => Ok(()),
            (Control::Information { send, receive }, _) => self.on_information(now, frame, send, receive),
            (Control::ReceiveReady { receive } | Control::Reject { receive }, _) => {
                self.on_ready(now, receive, frame.poll_final())
            }
            (Control::ReceiveNotReady { receive }, _) => self.on_not_ready(now, receive, frame.poll_final()),
        }
    }

    fn on_connected(&mut self, now: Duration, information: &[u8]) {
        // With a list that cannot be read, the least that every server takes; what comes is taken at any length.
        let peer = LinkParameters::decode(information).unwrap_or_default();
        let agreed = self.config.parameters().agreed(peer);
        self.outgoing = Outgoing::new(agreed);
        self.reassembly = Reassembly::new(agreed, self.config.apdu_octets_max);
        self.awaits_apdu = false;
        self.outputs.push_back(LinkOutput::Connected);
        self.rest(now);
    }

    fn on_information(
        &mut self,
        now: Duration,
        frame: &Frame<'_>,
        send: Sequence,
        receive: Sequence,
    ) -> Result<(), LinkError> {
        let is_gap = match self.reassembly.accept(send, frame.segmented, frame.information) {
            // The answer to a poll that we repeated too early. The answer to the last poll is still to come.
            Arrival::Duplicate => return Ok(()),
            Arrival::TooLong => return Err(LinkError::TooLong { limit: self.config.apdu_octets_max }),
            Arrival::Gap => true,
            Arrival::Segment => {
                self.patience = Patience::default();
                false
            }
            Arrival::Apdu(apdu) => {
                self.patience = Patience::default();
                self.awaits_apdu &= is_unsolicited(&apdu);
                self.outputs.push_back(LinkOutput::Apdu(apdu));
                false
            }
        };
        self.acknowledge(receive)?;
        if !frame.poll_final() {
            self.deadline = Some(now + self.config.response_timeout());
            return Ok(());
        }
        if is_gap && self.outgoing.is_finished() { self.pass_turn(now, true) } else { self.on_turn(now) }
    }

    fn on_ready(&mut self, now: Duration, receive: Sequence, is_final: bool) -> Result<(), LinkError> {
        let is_progress = self.acknowledge(receive)?;
        if !is_final || self.state != State::Polling {
            return Ok(());
        }
        // With a single frame on its way, damage to it is met with silence. An RR that does not acknowledge it was meant
        // for an earlier poll, and repeating would only breed more of these.
        if !is_progress && self.outgoing.in_flight() == 1 && !self.asked_by_supervisory {
            return Ok(());
        }
        self.on_turn(now)
    }

    fn on_not_ready(&mut self, now: Duration, receive: Sequence, is_final: bool) -> Result<(), LinkError> {
        self.acknowledge(receive)?;
        if is_final && self.state == State::Polling { self.wait_while_busy(now) } else { Ok(()) }
    }

    fn acknowledge(&mut self, receive: Sequence) -> Result<bool, LinkError> {
        match self.outgoing.acknowledge(receive) {
            Ok(true) => {
                self.patience = Patience::default();
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(NeverSent) => Err(LinkError::Violation("a frame was acknowledged that was never sent")),
        }
    }

    /// The server ended its turn.
    fn on_turn(&mut self, now: Duration) -> Result<(), LinkError> {
        if !self.outgoing.is_finished() || self.reassembly.is_partial() {
            return self.pass_turn(now, false);
        }
        if self.awaits_apdu {
            return self.wait_while_busy(now);
        }
        self.patience = Patience::default();
        self.rest(now);
        Ok(())
    }

    fn rest(&mut self, now: Duration) {
        self.state = State::Idle;
        self.deadline = self.config.keep_alive().map(|interval| now + interval);
    }

    fn wait_while_busy(&mut self, now: Duration) -> Result<(), LinkError> {
        let since = *self.patience.busy_since.get_or_insert(now);
        if now.saturating_sub(since) >= self.config.busy_timeout() {
            let timeout_ms = self.config.busy_timeout_ms.into();
            return Err(LinkError::Silent { attempts: self.patience.busy_polls, timeout_ms });
        }
        // It answers: silence begins anew.
        self.patience.attempts = 0;
        self.patience.backoff = (self.patience.backoff * 2).clamp(BUSY_BACKOFF_MIN, BUSY_BACKOFF_MAX);
        self.patience.busy_polls = self.patience.busy_polls.saturating_add(1);
        self.state = State::Busy;
        self.deadline = Some(now + self.patience.backoff);
        Ok(())
    }

    /// Gives the turn to the server: with the frames that it has not acknowledged, else (or if `by_supervisory`) with RR.
    fn pass_turn(&mut self, now: Duration, by_supervisory: bool) -> Result<(), LinkError> {
        self.count_attempt()?;
        self.state = State::Polling;
        self.asked_by_supervisory = by_supervisory || self.outgoing.is_finished();
        let receive = self.reassembly.expected();
        let mut out = Vec::new();
        let mut write = |segmented, control, information: &[u8]| {
            let (destination, source) = (self.config.server, self.config.client.into());
            let frame = Frame { segmented, destination, source, control, information };
            frame.encode(&mut out);
            self.echo.sent(&frame);
        };
        if self.asked_by_supervisory {
            write(false, Control::ReceiveReady { receive }.encode(true), &[]);
        } else {
            for segment in self.outgoing.window() {
                let control = Control::Information { send: segment.send, receive }.encode(segment.is_last);
                write(segment.segmented, control, segment.information);
            }
        }
        self.transmit(now, out);
        Ok(())
    }

    fn command(&mut self, now: Duration, command: Control, information: &[u8]) {
        let (destination, source) = (self.config.server, self.config.client.into());
        let control = command.encode(true);
        let frame = Frame { segmented: false, destination, source, control, information };
        let mut out = Vec::new();
        frame.encode(&mut out);
        self.echo.sent(&frame);
        self.transmit(now, out);
    }

    fn transmit(&mut self, now: Duration, octets: Vec<u8>) {
        let sent_at = now + self.config.transmit_time(octets.len());
        self.deadline = Some(sent_at + self.config.response_timeout());
        self.outputs.push_back(LinkOutput::Send(octets));
    }

    fn count_attempt(&mut self) -> Result<(), LinkError> {
        if self.patience.attempts > self.config.retries_max {
            let timeout_ms = self.config.response_timeout_ms.into();
            return Err(LinkError::Silent { attempts: self.patience.attempts, timeout_ms });
        }
        self.patience.attempts = self.patience.attempts.saturating_add(1);
        Ok(())
    }

    fn ask_to_connect(&mut self, now: Duration) -> Result<(), LinkError> {
        self.count_attempt()?;
        // The defaults are not spelled out: some meters refuse an information field here.
        let parameters = self.config.parameters();
        let information = if parameters == LinkParameters::default() { Vec::new() } else { parameters.encode() };
        self.command(now, Control::Snrm, &information);
        Ok(())
    }

    fn ask_to_disconnect(&mut self, now: Duration) {
        match self.count_attempt() {
            Ok(()) => self.command(now, Control::Disc, &[]),
            // Nobody is there to hold the link.
            Err(_) => self.go_down(),
        }
    }

    fn go_down(&mut self) {
        self.state = State::Down;
        self.deadline = None;
        self.outputs.push_back(LinkOutput::Disconnected);
    }

    fn on_time(&mut self, now: Duration) -> Result<(), LinkError> {
        let inter_octet_timeout = self.config.inter_octet_timeout();
        while self.incoming.deadline(inter_octet_timeout).is_some_and(|at| at <= now) {
            self.incoming.give_up_one();
            self.take_frames(now)?;
        }
        if self.deadline.is_none_or(|at| now < at) {
            return Ok(());
        }
        // A long answer over a slow line is no silence. Each frame is finite, so this ends.
        if let Some(at) = self.incoming.deadline(inter_octet_timeout).filter(|_| self.incoming.is_inside_information())
        {
            self.deadline = Some(at);
            return Ok(());
        }
        match self.state {
            State::Down | State::Failed => self.deadline = None,
            State::Connecting => self.ask_to_connect(now)?,
            State::Disconnecting => self.ask_to_disconnect(now),
            State::Polling => self.pass_turn(now, false)?,
            // The server says first what it has of a window before it gets that again.
            State::Idle | State::Busy => self.pass_turn(now, true)?,
        }
        Ok(())
    }

    fn settle(&mut self, result: Result<(), LinkError>) -> Result<(), LinkError> {
        if result.is_err() {
            self.state = State::Failed;
            self.deadline = None;
            self.outgoing = Outgoing::new(LinkParameters::default());
        }
        result
    }
}

impl Link for HdlcClient {
    fn connect(&mut self, now: Duration) {
        if self.state == State::Down {
            self.state = State::Connecting;
            self.patience = Patience::default();
            let asked = self.ask_to_connect(now);
            debug_assert!(asked.is_ok(), "the first attempt is always allowed");
        }
    }

    fn send(&mut self, now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        self.load(now, apdu, true)
    }

    fn send_unconfirmed(&mut self, now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        self.load(now, apdu, false)
    }

    fn is_ready(&self) -> bool {
        // While the server only thinks about an APDU that it has, another may follow: not every APDU is answered.
        let is_free = self.outgoing.is_finished() && (!self.awaits_apdu || self.state == State::Busy);
        self.is_connected() && is_free
    }

    fn disconnect(&mut self, now: Duration) {
        if !matches!(self.state, State::Disconnecting | State::Failed) {
            self.state = State::Disconnecting;
            self.patience = Patience::default();
            self.ask_to_disconnect(now);
        }
    }

    fn handle(&mut self, now: Duration, input: LinkInput<'_>) -> Result<(), LinkError> {
        let result = match input {
            LinkInput::Received(octets) => {
                self.incoming.extend(now, octets);
                self.take_frames(now)
            }
            LinkInput::Tick => Ok(()),
        };
        let result = result.and_then(|()| self.on_time(now));
        self.settle(result)
    }

    fn poll(&mut self) -> LinkOutput {
        self.outputs.pop_front().unwrap_or_else(|| {
            let partial = self.incoming.deadline(self.config.inter_octet_timeout());
            LinkOutput::WaitUntil(self.deadline.into_iter().chain(partial).min())
        })
    }
}

#[cfg(test)]
mod tests;
