//! The reader's end: calls a meter, changes the rate, and asks.
//!
//! | meter | goal | what is sent after the identification |
//! | --- | --- | --- |
//! | mode A | read-out | nothing; the data comes at the initial rate |
//! | mode B | read-out | nothing; the data comes at the rate of the identification |
//! | mode C | read-out | `ACK 0 Z 0`, change of the rate |
//! | mode C | programming | `ACK 0 Z 1`, change of the rate; P0 comes |
//! | mode E | HDLC | `ACK 2 Z 2`, which the meter says again; change of the rate and to 8N1 |
//!
//! A message that came damaged is asked for again with NAK; silence is met by repeating what was asked, or the whole call, before which
//! once a break goes out at each rate, for a meter that another reader left in programming mode. All repetitions together are bounded. Before a question is repeated into silence the line is left alone for another response
//! time-out, and what comes then is dropped: blocks have no numbers, so a late one could pass for that of the repetition.

mod exchange;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::config::ClientConfig;
use super::echo::EchoFilter;
use super::identification::Identification;
use super::incoming::Incoming;
use super::message::{Expectation, Message, encode_command};
use super::port::{LineSettings, MaskedParity};
use super::request::{Password, ReadRequest};
use super::session::{ClientEvent, Goal, Input, Output, SessionError};
use super::timeline::Timeline;
use crate::metering::Quality;

/// Between the last NUL of a wake-up and the request (IEC 62056-21, 6.3.1: 1,500 to 1,700 ms).
const WAKE_UP_PAUSE: Duration = Duration::from_millis(1_600);

/// Reads one meter of a line. A session that failed stays silent; the owner makes a new one. After a read-out or
/// [`ClientEvent::SignedOff`] it may call again.
pub struct Client {
    config: ClientConfig,
    state: State,
    goal: Goal,
    identification: Option<Identification>,
    timeline: Timeline<ClientEvent>,
    /// The port as it is now; the timeline has it as it will be.
    line: LineSettings,
    incoming: Incoming,
    /// When the last octet came.
    heard_at: Duration,
    parity: MaskedParity,
    echo: EchoFilter,
    patience: Patience,
    exchange: Exchange,
    outputs: VecDeque<Output<ClientEvent>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    AwaitIdentification,
    AwaitReadout,
    /// Option select of mode E sent.
    AwaitConfirmation,
    /// Option select of programming mode sent.
    AwaitProgramming,
    /// Programming mode; it is our turn.
    Open,
    AwaitPassword,
    AwaitAnswer,
    /// HDLC has the line, or will have it once the steps are done.
    HandedOver,
    Failed,
}

/// How long we have gone on without getting anywhere.
#[derive(Default)]
struct Patience {
    attempts: u8,
    /// How often the call or the question was begun anew.
    restarts: u8,
    /// The last attempt brought something, but nothing sound.
    was_damaged: bool,
    /// Nothing is sent before.
    quiet_until: Duration,
    /// When an answer must have begun.
    deadline: Duration,
    /// When it must have ended.
    hard_deadline: Duration,
}

/// The question that is being asked.
#[derive(Default)]
struct Exchange {
    command: Vec<u8>,
    request: Option<ReadRequest>,
    /// The blocks so far.
    content: Vec<u8>,
    quality: Quality,
}

impl Client {
    pub fn new(config: ClientConfig) -> Self {
        Self {
            state: State::Down,
            goal: Goal::Readout,
            identification: None,
            timeline: Timeline::new(config.line(config.initial_baud)),
            line: config.line(config.initial_baud),
            incoming: Incoming::default(),
            heard_at: Duration::ZERO,
            parity: MaskedParity::default(),
            echo: EchoFilter::default(),
            patience: Patience::default(),
            exchange: Exchange::default(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Calls the meter. [`ClientEvent::Identified`] follows, then what the goal brings.
    pub fn sign_on(&mut self, now: Duration, goal: Goal) -> Result<(), SessionError> {
        if self.state != State::Down {
            return Err(SessionError::NotReady);
        }
        self.goal = goal;
        self.patience = Patience { quiet_until: self.patience.quiet_until, ..Patience::default() };
        let called = self.call(now);
        debug_assert!(called.is_ok(), "the first attempt is always allowed");
        self.run_steps(now);
        Ok(())
    }

    /// Sends the password; in programming mode. [`ClientEvent::LoggedIn`] follows, or [`SessionError::PasswordRefused`].
    pub fn log_in(&mut self, now: Duration, password: &Password) -> Result<(), SessionError> {
        self.ask(now, State::AwaitPassword, b'P', password.variant(), &password.data_set())
    }

    /// Reads a register or a profile; in programming mode. [`ClientEvent::Answered`] or [`ClientEvent::Refused`] follows.
    pub fn read(&mut self, now: Duration, request: &ReadRequest) -> Result<(), SessionError> {
        self.ask(now, State::AwaitAnswer, b'R', request.level().digit(), &request.data_set())?;
        self.exchange.request = Some(request.clone());
        Ok(())
    }

    /// Leaves programming mode; [`ClientEvent::SignedOff`] follows.
    pub fn sign_off(&mut self, now: Duration) -> Result<(), SessionError> {
        if self.state != State::Open {
            return Err(SessionError::NotReady);
        }
        let mut command = Vec::new();
        encode_command(&mut command, b'B', b'0', None);
        let left = self.timeline.send(self.turn_at(now), command);
        self.timeline.set_line(left, self.config.line(self.config.initial_baud));
        self.timeline.event(left, ClientEvent::SignedOff);
        self.state = State::Down;
        self.run_steps(now);
        Ok(())
    }

    /// Ends the session at once: a meter in programming mode is told by a break, which is left to [`Self::poll`].
    pub fn abort(&mut self, now: Duration) {
        self.fail(now);
    }

    /// How the port is set now.
    pub fn line(&self) -> LineSettings {
        self.line
    }

    /// Octets that came with wrong parity; only where the parity is left to us.
    pub fn parity_errors(&self) -> u64 {
        self.parity.errors()
    }

    /// Feeds one input. Drain [`Self::poll`] until `WaitUntil` before the next call. After an error the session is over.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) -> Result<(), SessionError> {
        let result = match input {
            Input::Received(octets) => self.receive(now, octets),
            Input::Tick => Ok(()),
        };
        let result = result.and_then(|()| self.on_time(now));
        if result.is_err() {
            self.fail(now);
        }
        result
    }

    pub fn poll(&mut self) -> Output<ClientEvent> {
        self.outputs.pop_front().unwrap_or_else(|| Output::WaitUntil(self.wake_at()))
    }

    fn wake_at(&self) -> Option<Duration> {
        match self.state {
            _ if !self.timeline.is_empty() => self.timeline.next_at(),
            state if state.is_awaiting() => Some(self.give_up_at()),
            _ => None,
        }
    }

    fn receive(&mut self, now: Duration, octets: &[u8]) -> Result<(), SessionError> {
        let mut octets = octets.to_vec();
        if self.config.masked_parity && self.state != State::HandedOver {
            self.parity.unmask(&mut octets);
        }
        let heard = if self.config.echo { self.echo.filter(now, &octets) } else { &octets };
        // Before our turn is over nothing is meant for us.
        if !self.timeline.is_empty() || !self.state.is_listening() {
            return Ok(());
        }
        if !heard.is_empty() {
            self.heard_at = now;
        }
        self.incoming.extend(now, heard);
        let mut incoming = std::mem::take(&mut self.incoming);
        let mut result = Ok(());
        while let Some(message) = incoming.next(self.expectation()) {
            result = self.on_message(now, message);
            // What comes before our next turn is no answer to it.
            if result.is_err() || !self.timeline.is_empty() || !self.state.is_listening() {
                incoming.clear();
                break;
            }
        }
        incoming.compact();
        self.incoming = incoming;
        result
    }

    fn expectation(&self) -> Expectation {
        Expectation {
            option_select: self.state == State::AwaitConfirmation,
            block_octets_max: self.config.answer_octets_max,
        }
    }

    fn on_time(&mut self, now: Duration) -> Result<(), SessionError> {
        self.run_steps(now);
        if !self.timeline.is_empty() || !self.state.is_awaiting() || now < self.give_up_at() {
            return Ok(());
        }
        self.patience.was_damaged = self.incoming.is_damaged();
        self.on_silence(now)?;
        self.run_steps(now);
        Ok(())
    }

    /// An answer that has begun may go on while its octets come.
    fn give_up_at(&self) -> Duration {
        let Patience { deadline, hard_deadline, .. } = self.patience;
        let partial = self.incoming.deadline(self.config.inter_octet_timeout());
        partial.map_or(deadline, |partial| partial.max(deadline).min(hard_deadline))
    }

    fn run_steps(&mut self, now: Duration) {
        while let Some(step) = self.timeline.due(now) {
            let masked = self.config.masked_parity;
            let output = step.perform(now, &mut self.line, &mut self.incoming, &mut self.echo, masked);
            self.outputs.push_back(output);
        }
    }

    /// When we may send: after the meter's reaction time, and not while an answer may still come.
    fn turn_at(&self, now: Duration) -> Duration {
        let reaction = self.identification.as_ref().map_or(Duration::ZERO, Identification::reaction_time);
        (self.heard_at + reaction).max(now).max(self.patience.quiet_until)
    }

    /// Awaits an answer from the end of what is planned.
    fn await_answer(&mut self, now: Duration, state: State) {
        self.state = state;
        self.patience.deadline = self.timeline.free_at().max(now) + self.config.response_timeout();
        let longest = self.timeline.line().transmit_time(self.config.answer_octets_max);
        self.patience.hard_deadline = self.patience.deadline + longest;
    }

    fn count_attempt(&mut self, attempts_max: u8) -> Result<(), SessionError> {
        let Patience { attempts, was_damaged, .. } = self.patience;
        if attempts >= attempts_max {
            let timeout_ms = self.config.response_timeout_ms;
            let silent = SessionError::Silent { attempts, timeout_ms };
            return Err(if was_damaged { SessionError::Damaged { attempts } } else { silent });
        }
        self.patience.attempts = attempts + 1;
        Ok(())
    }

    fn attempts_max(&self) -> u8 {
        self.config.retries_max.saturating_add(1)
    }

    fn fail(&mut self, now: Duration) {
        self.timeline.clear();
        self.incoming.clear();
        if matches!(self.state, State::AwaitProgramming | State::Open | State::AwaitPassword | State::AwaitAnswer) {
            // A meter that is left in programming mode answers no call for a minute or two.
            let mut command = Vec::new();
            encode_command(&mut command, b'B', b'0', None);
            self.timeline.send(now, command);
            // Whatever was planned before, this is the last.
            while let Some(at) = self.timeline.next_at() {
                self.run_steps(at);
            }
        }
        self.exchange = Exchange::default();
        self.state = State::Failed;
    }

    fn event(&mut self, event: ClientEvent) {
        self.outputs.push_back(Output::Event(event));
    }
}

impl State {
    fn is_awaiting(self) -> bool {
        matches!(
            self,
            Self::AwaitIdentification
                | Self::AwaitReadout
                | Self::AwaitConfirmation
                | Self::AwaitProgramming
                | Self::AwaitPassword
                | Self::AwaitAnswer
        )
    }

    /// A break is heard in our turn too.
    fn is_listening(self) -> bool {
        self.is_awaiting() || self == Self::Open
    }
}

/// Shows neither what is asked nor what came.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?} for {:?} at {:?})", self.state, self.goal, self.line)
    }
}

#[cfg(test)]
mod tests;
