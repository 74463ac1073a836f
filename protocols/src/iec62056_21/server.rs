//! The meter's end, for the simulator: answers its address, reads out, takes commands, and leaves the line to HDLC.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::config::DeviceAddress;
use super::echo::EchoFilter;
use super::identification::{Identification, Mode};
use super::incoming::Incoming;
use super::message::{ACK, Bcc, Command, Expectation, Message, NAK, OptionSelect, encode_block, encode_command};
use super::port::{Baud, Framing, LineSettings, MaskedParity};
use super::request::{Password, ReadLevel, ReadRequest};
use super::session::{Goal, Input, Output};
use super::timeline::Timeline;

/// Longest command that is taken, in octets.
const COMMAND_LEN_MAX: usize = 256;

/// A message that stops for so long will not go on (IEC 62056-21, 6.3.14, item 12).
const INTER_OCTET_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Answers to a command that is not there, and to one that is not allowed.
const ERROR_UNKNOWN: &[u8] = b"(ER01)";
const ERROR_LOCKED: &[u8] = b"(ER02)";

/// What a meter has to say.
pub trait MeterData {
    /// The data lines of a read-out, with their ends. `mode` is the mode control character: `0`, or `6` to `9`.
    fn read_out(&mut self, mode: u8) -> Vec<u8>;
    /// The answer to a read, or `None` when there is no such object.
    fn read(&mut self, request: &ReadRequest) -> Option<Vec<u8>>;
    /// The challenge of P0, without parentheses.
    fn challenge(&mut self) -> Vec<u8> {
        Vec::new()
    }
    /// Whether the password, or the answer to the challenge, opens the meter.
    fn admits(&mut self, password: &Password) -> bool;
}

/// Settings of [`Server`]. Make one with [`Self::new`], then change what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    pub address: DeviceAddress,
    /// Says by its rate and its letters which modes the meter has.
    pub identification: Identification,
    pub initial_baud: Baud,
    /// As for the client: the port is 8N1 and parity is ours.
    pub masked_parity: bool,
    pub echo: bool,
    /// Reads wait for a password.
    pub password_needed: bool,
    /// Mode E is confirmed by the option select said again.
    pub confirms_hdlc: bool,
    /// A reader that does not select gets the read-out at the initial rate, as the standard has it.
    pub reads_out_unasked: bool,
    /// Read-outs go in partial blocks as well.
    pub partial_readout: bool,
    /// The content of a partial block, in octets; whole lines.
    pub block_octets: usize,
    /// How long an option select or an acknowledgement is awaited. Default 1,500.
    pub select_timeout_ms: u32,
    /// How long programming mode lasts without a command. Default 60,000; the standard has 60 to 120 s.
    pub inactivity_timeout_ms: u32,
}

impl ServerConfig {
    pub fn new(address: DeviceAddress, identification: Identification) -> Self {
        Self {
            address,
            identification,
            initial_baud: Baud::B300,
            masked_parity: false,
            echo: false,
            password_needed: false,
            confirms_hdlc: true,
            reads_out_unasked: true,
            partial_readout: false,
            block_octets: 256,
            select_timeout_ms: 1_500,
            inactivity_timeout_ms: 60_000,
        }
    }

    fn line(&self, baud: Baud) -> LineSettings {
        let framing = if self.masked_parity { Framing::EightNone } else { Framing::SevenEven };
        LineSettings { baud, framing }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEvent {
    /// A reader called and chose.
    SignedOn(Goal),
    LoggedIn,
    PasswordRefused,
    /// The line speaks HDLC, at these settings, which are set. This session is over.
    HdlcReady(LineSettings),
    /// The call is over, by break, time or the end of a read-out.
    SignedOff,
}

/// One meter of a line that others may share. It never fails: what makes no sense is met with silence, NAK or an error message.
pub struct Server {
    config: ServerConfig,
    state: State,
    timeline: Timeline<ServerEvent>,
    line: LineSettings,
    incoming: Incoming,
    parity: MaskedParity,
    echo: EchoFilter,
    /// Contents that are still to be sent, each a block.
    blocks: VecDeque<Vec<u8>>,
    /// What NAK asks for.
    last_sent: Vec<u8>,
    is_logged_in: bool,
    deadline: Option<Duration>,
    outputs: VecDeque<Output<ServerEvent>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    AwaitSelect,
    ReadingOut,
    Programming,
    HandedOver,
}

impl Server {
    pub fn new(config: ServerConfig) -> Self {
        let line = config.line(config.initial_baud);
        Self {
            state: State::Idle,
            timeline: Timeline::new(line),
            line,
            incoming: Incoming::default(),
            parity: MaskedParity::default(),
            echo: EchoFilter::default(),
            blocks: VecDeque::new(),
            last_sent: Vec::new(),
            is_logged_in: false,
            deadline: None,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// How the port is to be set, at first and since.
    pub fn line(&self) -> LineSettings {
        self.line
    }

    /// Feeds one input. Drain [`Self::poll`] until `WaitUntil` before the next call.
    pub fn handle(&mut self, now: Duration, input: Input<'_>, data: &mut dyn MeterData) {
        if let Input::Received(octets) = input {
            self.receive(now, octets, data);
        }
        self.run_steps(now);
        if self.timeline.is_empty() && self.deadline.is_some_and(|at| at <= now) {
            self.on_silence(now, data);
            self.run_steps(now);
        }
    }

    pub fn poll(&mut self) -> Output<ServerEvent> {
        let at = self.timeline.next_at().or(self.deadline);
        self.outputs.pop_front().unwrap_or(Output::WaitUntil(at))
    }

    fn receive(&mut self, now: Duration, octets: &[u8], data: &mut dyn MeterData) {
        let mut octets = octets.to_vec();
        if self.config.masked_parity && self.state != State::HandedOver {
            self.parity.unmask(&mut octets);
        }
        let heard = if self.config.echo { self.echo.filter(now, &octets) } else { &octets };
        // The line is half duplex: a meter that sends hears nothing.
        if !self.timeline.is_empty() || now < self.timeline.free_at() || self.state == State::HandedOver {
            return;
        }
        if self.incoming.deadline(INTER_OCTET_TIMEOUT).is_some_and(|at| at <= now) {
            self.incoming.clear();
        }
        self.incoming.extend(now, heard);
        let mut incoming = std::mem::take(&mut self.incoming);
        let expectation =
            Expectation { option_select: self.state == State::AwaitSelect, block_octets_max: COMMAND_LEN_MAX };
        while let Some(message) = incoming.next(expectation) {
            self.on_message(now, &message, data);
            if !self.timeline.is_empty() {
                incoming.clear();
                break;
            }
        }
        incoming.compact();
        self.incoming = incoming;
    }

    fn run_steps(&mut self, now: Duration) {
        while let Some(step) = self.timeline.due(now) {
            let masked = self.config.masked_parity;
            let output = step.perform(now, &mut self.line, &mut self.incoming, &mut self.echo, masked);
            self.outputs.push_back(output);
        }
    }

    fn on_message(&mut self, now: Duration, message: &Message<'_>, data: &mut dyn MeterData) {
        match (message, self.state) {
            (Message::Request { address }, State::Idle | State::AwaitSelect | State::ReadingOut)
                if self.config.address.is_called_by(address) =>
            {
                self.on_request(now);
            }
            (Message::OptionSelect(select), State::AwaitSelect) => self.on_select(now, *select, data),
            (Message::Acknowledge, State::ReadingOut | State::Programming) if !self.blocks.is_empty() => {
                self.send_block(now);
            }
            (Message::Acknowledge, State::ReadingOut) => self.go_idle(now),
            (Message::Repeat, State::ReadingOut | State::Programming) => {
                let last_sent = self.last_sent.clone();
                self.answer(now, last_sent);
            }
            (Message::Command(command), State::Programming) => self.on_command(now, *command, data),
            _ => {}
        }
    }

    fn on_request(&mut self, now: Duration) {
        let mut octets = Vec::new();
        self.config.identification.encode(&mut octets);
        self.blocks.clear();
        self.answer(now, octets);
        self.state = State::AwaitSelect;
        match self.config.identification.mode() {
            Mode::C(_) => self.await_reader(self.config.select_timeout_ms),
            // The read-out follows by itself.
            Mode::A | Mode::B(_) => self.deadline = Some(self.timeline.free_at()),
        }
    }

    fn on_select(&mut self, now: Duration, select: OptionSelect, data: &mut dyn MeterData) {
        let Mode::C(offered) = self.config.identification.mode() else { return };
        let baud = match Baud::from_digit(select.baud) {
            Some(baud) if baud == offered || baud == self.config.initial_baud => baud,
            _ => return,
        };
        match (select.protocol, select.mode) {
            (b'2', b'2') if self.config.identification.offers_hdlc() => self.hand_over(now, select, baud),
            (b'0', b'1') => {
                self.set_baud(now, baud);
                self.timeline.event(now, ServerEvent::SignedOn(Goal::Programming));
                self.is_logged_in = false;
                self.state = State::Programming;
                let challenge = [b"(", &data.challenge()[..], b")"].concat();
                self.command(now, b'P', b'0', Some(&challenge));
            }
            // Mode E asked of a meter that has none is answered by the read-out too (u9n/dlms-cosem#37).
            (_, mode) => {
                self.set_baud(now, baud);
                self.read_out(now, if mode == b'2' { b'0' } else { mode }, data);
            }
        }
    }

    fn hand_over(&mut self, now: Duration, select: OptionSelect, baud: Baud) {
        self.timeline.event(now, ServerEvent::SignedOn(Goal::Hdlc));
        let mut left = now;
        if self.config.confirms_hdlc {
            let mut octets = Vec::new();
            select.encode(&mut octets);
            left = self.timeline.send(self.turn_at(now), octets);
        }
        let line = LineSettings { baud, framing: Framing::EightNone };
        self.timeline.set_line(left, line);
        self.timeline.event(left, ServerEvent::HdlcReady(line));
        self.deadline = None;
        self.state = State::HandedOver;
    }

    fn read_out(&mut self, now: Duration, mode: u8, data: &mut dyn MeterData) {
        self.timeline.event(now, ServerEvent::SignedOn(Goal::Readout));
        let content = [&data.read_out(mode)[..], b"!\r\n"].concat();
        self.blocks = self.split(&content, self.config.partial_readout);
        self.state = State::ReadingOut;
        self.send_block(now);
    }

    /// Nobody selected, or nobody acknowledged.
    fn on_silence(&mut self, now: Duration, data: &mut dyn MeterData) {
        self.deadline = None;
        match (self.state, self.config.identification.mode()) {
            (State::AwaitSelect, Mode::B(baud)) => {
                self.set_baud(now, baud);
                self.read_out(now, b'0', data);
            }
            (State::AwaitSelect, Mode::A) => self.read_out(now, b'0', data),
            (State::AwaitSelect, Mode::C(_)) if self.config.reads_out_unasked => self.read_out(now, b'0', data),
            _ => self.go_idle(now),
        }
    }

    fn on_command(&mut self, now: Duration, command: Command<'_>, data: &mut dyn MeterData) {
        if command.bcc != Bcc::Valid {
            let octets = vec![NAK];
            self.timeline.send(self.turn_at(now), octets);
            return self.await_reader(self.config.inactivity_timeout_ms);
        }
        self.blocks.clear();
        let set = command.data.unwrap_or_default();
        match (command.kind, command.variant) {
            (b'B', _) => self.go_idle(now),
            (b'P', variant @ (b'1' | b'2')) => {
                let password = Password::parse(variant, set);
                self.on_password(now, password.is_some_and(|password| data.admits(&password)));
            }
            (b'R', digit) => self.on_read(now, ReadLevel::from_digit(digit), set, data),
            _ => self.block(now, ERROR_UNKNOWN),
        }
    }

    fn on_password(&mut self, now: Duration, is_right: bool) {
        if is_right {
            self.is_logged_in = true;
            self.timeline.event(now, ServerEvent::LoggedIn);
            return self.answer(now, vec![ACK]);
        }
        self.timeline.event(now, ServerEvent::PasswordRefused);
        let mut octets = Vec::new();
        encode_command(&mut octets, b'B', b'0', None);
        let left = self.timeline.send(self.turn_at(now), octets);
        self.go_idle(left);
    }

    fn on_read(&mut self, now: Duration, level: Option<ReadLevel>, set: &[u8], data: &mut dyn MeterData) {
        if self.config.password_needed && !self.is_logged_in {
            return self.block(now, ERROR_LOCKED);
        }
        let request = level.and_then(|level| ReadRequest::parse(level, set));
        let answer = request.as_ref().and_then(|request| data.read(request));
        let Some(content) = answer else { return self.block(now, ERROR_UNKNOWN) };
        let is_partial = level.is_some_and(ReadLevel::is_partial);
        self.blocks = self.split(&content, is_partial);
        self.send_block(now);
    }

    /// Whole lines up to the size of a block; at least one block.
    fn split(&self, content: &[u8], is_partial: bool) -> VecDeque<Vec<u8>> {
        if !is_partial {
            return VecDeque::from([content.to_vec()]);
        }
        let mut blocks: VecDeque<Vec<u8>> = VecDeque::from([Vec::new()]);
        for line in content.split_inclusive(|&octet| octet == b'\n') {
            match blocks.back_mut() {
                Some(block) if block.is_empty() || block.len() + line.len() <= self.config.block_octets => {
                    block.extend(line);
                }
                _ => blocks.push_back(line.to_vec()),
            }
        }
        blocks
    }

    fn send_block(&mut self, now: Duration) {
        let Some(content) = self.blocks.pop_front() else { return };
        let mut octets = Vec::new();
        encode_block(&mut octets, &content, self.blocks.is_empty());
        self.answer(now, octets);
    }

    fn block(&mut self, now: Duration, content: &[u8]) {
        let mut octets = Vec::new();
        encode_block(&mut octets, content, true);
        self.answer(now, octets);
    }

    fn command(&mut self, now: Duration, kind: u8, variant: u8, data: Option<&[u8]>) {
        let mut octets = Vec::new();
        encode_command(&mut octets, kind, variant, data);
        self.answer(now, octets);
    }

    /// Sends what NAK asks for again, and awaits the reader.
    fn answer(&mut self, now: Duration, octets: Vec<u8>) {
        self.last_sent.clone_from(&octets);
        self.timeline.send(self.turn_at(now), octets);
        let is_programming = self.state == State::Programming;
        let Self { config: ServerConfig { inactivity_timeout_ms, select_timeout_ms, .. }, .. } = *self;
        self.await_reader(if is_programming { inactivity_timeout_ms } else { select_timeout_ms });
    }

    fn await_reader(&mut self, timeout_ms: u32) {
        self.deadline = Some(self.timeline.free_at() + Duration::from_millis(timeout_ms.into()));
    }

    fn turn_at(&self, now: Duration) -> Duration {
        now + self.config.identification.reaction_time()
    }

    fn set_baud(&mut self, now: Duration, baud: Baud) {
        self.timeline.set_line(now, self.config.line(baud));
    }

    fn go_idle(&mut self, at: Duration) {
        if matches!(self.state, State::ReadingOut | State::Programming) {
            self.timeline.event(at, ServerEvent::SignedOff);
        }
        self.timeline.set_line(at, self.config.line(self.config.initial_baud));
        self.blocks.clear();
        self.is_logged_in = false;
        self.deadline = None;
        self.state = State::Idle;
    }
}

/// Shows neither what is asked nor what is said.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({:?} at {:?})", self.state, self.line)
    }
}

#[cfg(test)]
mod tests;
