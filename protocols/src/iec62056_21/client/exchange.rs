//! What each message means in each state, and what silence means.

use std::time::Duration;

use super::{Client, Exchange, Message, Patience, State, WAKE_UP_PAUSE};
use crate::iec62056_21::address::Address;
use crate::iec62056_21::identification::{Identification, Mode};
use crate::iec62056_21::message::{ACK, Bcc, Block, Command, NAK, OptionSelect, encode_command};
use crate::iec62056_21::port::{Baud, Framing, LineSettings};
use crate::iec62056_21::session::{ClientEvent, DataBlock, Goal, SessionError};
use crate::metering::Quality;

/// Meters lock after a few wrong passwords; some say NAK to one that is wrong, which means repeat.
const PASSWORD_ATTEMPTS_MAX: u8 = 2;

/// The change of the rate comes so long before the meter's reaction time ends.
const CHANGE_OVER_MARGIN_SHORT: Duration = Duration::from_millis(10);
const CHANGE_OVER_MARGIN: Duration = Duration::from_millis(50);

/// Between a break at one rate and the next.
const BREAK_PAUSE: Duration = Duration::from_millis(50);
/// After the breaks, until the meter hears a call.
const AFTER_BREAKS: Duration = Duration::from_millis(500);

/// Characters of a refusal that are shown.
const REASON_LEN_MAX: usize = 40;

impl Client {
    /// Sends the request, at the initial rate.
    pub(super) fn call(&mut self, now: Duration) -> Result<(), SessionError> {
        self.count_attempt(self.attempts_max())?;
        let initial = self.config.line(self.config.initial_baud);
        self.identification = None;
        self.exchange = Exchange::default();
        self.timeline.set_line(now.max(self.patience.quiet_until), initial);
        let mut at = now;
        if let Some(wake_up_ms) = self.config.wake_up_ms {
            let count = wake_up_ms.saturating_mul(1000) / initial.octet_time_us();
            at = self.timeline.send(now, vec![0; count as usize]) + WAKE_UP_PAUSE;
        }
        let address = self.config.address.as_str().as_bytes();
        let request = [&[b'/', self.config.request_character], address, b"!\r\n"].concat();
        self.timeline.send(at, request);
        self.await_answer(now, State::AwaitIdentification);
        Ok(())
    }

    /// Sends a command of programming mode.
    pub(super) fn ask(
        &mut self,
        now: Duration,
        state: State,
        kind: u8,
        variant: u8,
        data: &[u8],
    ) -> Result<(), SessionError> {
        if self.state != State::Open || !self.timeline.is_empty() {
            return Err(SessionError::NotReady);
        }
        self.exchange = Exchange::default();
        encode_command(&mut self.exchange.command, kind, variant, Some(data));
        self.patience.attempts = 1;
        self.send_command(now, state);
        self.run_steps(now);
        Ok(())
    }

    fn send_command(&mut self, now: Duration, state: State) {
        self.exchange.content.clear();
        self.exchange.quality = Quality::GOOD;
        self.timeline.send(self.turn_at(now), self.exchange.command.clone());
        self.await_answer(now, state);
    }

    fn repeat_command(&mut self, now: Duration) -> Result<(), SessionError> {
        let attempts_max = self.attempts_max();
        let is_password = self.state == State::AwaitPassword;
        self.count_attempt(if is_password { attempts_max.min(PASSWORD_ATTEMPTS_MAX) } else { attempts_max })?;
        self.send_command(now, self.state);
        Ok(())
    }

    /// Asks for the last message again.
    fn repeat_message(&mut self, now: Duration) -> Result<(), SessionError> {
        self.patience.was_damaged = true;
        self.count_attempt(self.attempts_max())?;
        self.timeline.send(self.turn_at(now), vec![NAK]);
        self.await_answer(now, self.state);
        Ok(())
    }

    /// The answer did not come in time, or stopped.
    pub(super) fn on_silence(&mut self, now: Duration) -> Result<(), SessionError> {
        match self.state {
            // To a meter that did not hear the question NAK means its answer to the one before.
            State::AwaitAnswer if self.incoming.is_inside_block() => self.repeat_message(now),
            State::AwaitReadout | State::AwaitProgramming if self.patience.was_damaged => self.repeat_message(now),
            State::AwaitPassword | State::AwaitAnswer => {
                self.let_pass(now);
                self.patience.restarts = self.patience.restarts.saturating_add(1);
                self.repeat_command(now)
            }
            State::AwaitReadout => {
                self.let_pass(now);
                self.call_again(now)
            }
            _ => self.call_again(now),
        }
    }

    /// Blocks have no numbers: what comes late must have come before it is asked for anew.
    fn let_pass(&mut self, now: Duration) {
        self.patience.quiet_until = now + self.config.response_timeout();
    }

    fn call_again(&mut self, now: Duration) -> Result<(), SessionError> {
        if self.state == State::AwaitIdentification && self.patience.restarts == 0 {
            self.break_off(now);
        }
        self.patience.restarts = self.patience.restarts.saturating_add(1);
        self.call(now)
    }

    /// Whoever was here before may have gone in the middle of programming mode, at a rate that we do not know: such a meter answers
    /// no call until its inactivity time-out of one to two minutes has passed. A break at each rate makes it leave.
    fn break_off(&mut self, now: Duration) {
        let (mut at, mut command) = (now, Vec::new());
        encode_command(&mut command, b'B', b'0', None);
        // An adapter may still be sending when the line says that all is sent.
        let pause = BREAK_PAUSE.max(Duration::from_millis(self.config.change_over_ms.unwrap_or(0).into()));
        for baud in Baud::ALL.into_iter().filter(|baud| *baud <= self.config.baud_max).rev() {
            self.timeline.set_line(at, self.config.line(baud));
            at = self.timeline.send(at, command.clone()) + pause;
        }
        self.patience.quiet_until = self.patience.quiet_until.max(at + AFTER_BREAKS);
    }

    pub(super) fn on_message(&mut self, now: Duration, message: Message<'_>) -> Result<(), SessionError> {
        match (message, self.state) {
            (Message::Identification(identification), State::AwaitIdentification) => {
                self.on_identification(now, identification)
            }
            (Message::Data(block), State::AwaitReadout) => self.on_readout(now, block),
            (Message::Data(block), State::AwaitAnswer) => self.on_answer(now, block),
            (Message::Data(_), State::AwaitConfirmation | State::AwaitProgramming) => {
                Err(SessionError::NotOffered { goal: self.goal })
            }
            // An error message: there is no other answer of this form.
            (Message::Data(block), State::AwaitPassword) if block.bcc == Bcc::Valid => {
                Err(SessionError::PasswordRefused)
            }
            (Message::OptionSelect(select), State::AwaitConfirmation) if select.protocol == b'2' => {
                self.hand_over(now);
                Ok(())
            }
            (Message::Acknowledge, State::AwaitPassword) => {
                self.settle();
                self.event(ClientEvent::LoggedIn);
                Ok(())
            }
            (Message::Repeat, _) => self.on_repeat(now),
            (Message::Command(command), _) => self.on_command(now, command),
            // An echo, or left over from before.
            _ => Ok(()),
        }
    }

    fn on_identification(&mut self, now: Duration, identification: Identification) -> Result<(), SessionError> {
        let mode = identification.mode();
        let reaction_time = identification.reaction_time();
        let offers_hdlc = identification.offers_hdlc() || self.config.quirks.hdlc_unannounced;
        self.identification = Some(identification.clone());
        self.event(ClientEvent::Identified(identification));
        match (self.goal, mode) {
            (Goal::Readout, Mode::A) => {}
            (Goal::Readout, Mode::B(baud)) => {
                self.timeline.set_line(now + self.change_over(reaction_time), self.config.line(baud));
            }
            (Goal::Readout, Mode::C(offered)) => {
                self.select(now, b'0', offered, self.config.readout_character);
            }
            (Goal::Programming, Mode::C(offered)) => self.select(now, b'0', offered, b'1'),
            (Goal::Hdlc, Mode::C(offered)) if offers_hdlc => {
                self.select_hdlc(now, offered);
                return Ok(());
            }
            (goal, _) => return Err(SessionError::NotOffered { goal }),
        }
        let is_readout = self.goal == Goal::Readout;
        self.await_answer(now, if is_readout { State::AwaitReadout } else { State::AwaitProgramming });
        Ok(())
    }

    /// `ACK V Z Y` and, once its last octet has left, the new rate.
    fn select(&mut self, now: Duration, protocol: u8, offered: Baud, mode: u8) {
        let chosen = self.chosen(offered);
        let left = self.send_select(now, protocol, chosen, mode);
        if chosen != self.config.initial_baud && !self.config.quirks.ignores_rate {
            self.timeline.set_line(left + self.own_change_over(), self.config.line(chosen));
        }
    }

    fn send_select(&mut self, now: Duration, protocol: u8, chosen: Baud, mode: u8) -> Duration {
        let mut select = Vec::new();
        OptionSelect { protocol, baud: chosen.digit(), mode }.encode(&mut select);
        self.timeline.send(self.turn_at(now), select)
    }

    fn select_hdlc(&mut self, now: Duration, offered: Baud) {
        let chosen = self.chosen(offered);
        let left = self.send_select(now, b'2', chosen, b'2');
        if self.config.quirks.hdlc_unconfirmed {
            return self.leave_to_hdlc(left + self.own_change_over(), chosen);
        }
        if self.config.quirks.hdlc_confirmed_at_new_rate && chosen != self.config.initial_baud {
            self.timeline.set_line(left + self.own_change_over(), self.config.line(chosen));
        }
        self.await_answer(now, State::AwaitConfirmation);
    }

    /// The confirmed rate is that of the identification, for we offered no other.
    fn hand_over(&mut self, now: Duration) {
        let offered = match self.identification.as_ref().map(Identification::mode) {
            Some(Mode::C(offered)) => offered,
            _ => self.config.initial_baud,
        };
        self.leave_to_hdlc(now, self.chosen(offered));
    }

    fn leave_to_hdlc(&mut self, at: Duration, baud: Baud) {
        let line = hdlc_line(baud);
        self.timeline.set_line(at, line);
        // The meter changes over within its reaction time.
        let reaction_time = self.identification.as_ref().map_or(Duration::ZERO, Identification::reaction_time);
        self.timeline.event(at + reaction_time, ClientEvent::HdlcReady(line));
        self.state = State::HandedOver;
    }

    /// The offered rate, or else that at which the meter was called: the standard has no third.
    fn chosen(&self, offered: Baud) -> Baud {
        if offered <= self.config.baud_max { offered } else { self.config.initial_baud }
    }

    fn own_change_over(&self) -> Duration {
        self.change_over(self.identification.as_ref().map_or(Duration::ZERO, Identification::reaction_time))
    }

    fn change_over(&self, reaction_time: Duration) -> Duration {
        let margin = if reaction_time > CHANGE_OVER_MARGIN { CHANGE_OVER_MARGIN } else { CHANGE_OVER_MARGIN_SHORT };
        let just_before = reaction_time.saturating_sub(margin);
        self.config.change_over_ms.map_or(just_before, |ms| Duration::from_millis(ms.into()))
    }

    fn on_readout(&mut self, now: Duration, block: Block<'_>) -> Result<(), SessionError> {
        if !self.collect(block)? {
            return self.repeat_message(now);
        }
        if !block.is_last {
            self.timeline.send(self.turn_at(now), vec![ACK]);
            self.await_answer(now, State::AwaitReadout);
            return Ok(());
        }
        let data = self.data_block();
        self.event(ClientEvent::ReadOut(data));
        if self.config.quirks.acknowledge_readout {
            self.timeline.send(self.turn_at(now), vec![ACK]);
        }
        self.timeline.set_line(now, self.config.line(self.config.initial_baud));
        self.patience = Patience::default();
        self.state = State::Down;
        Ok(())
    }

    fn on_answer(&mut self, now: Duration, block: Block<'_>) -> Result<(), SessionError> {
        let is_sound = block.bcc == Bcc::Valid;
        if is_sound && self.exchange.content.is_empty() && is_error(block.content) {
            self.settle();
            self.event(ClientEvent::Refused { reason: printable(block.content) });
            return Ok(());
        }
        if is_sound && self.exchange.content.is_empty() && !self.is_asked_for(block.content) {
            // The answer to an earlier question; that to the last one is still to come.
            return Ok(());
        }
        if !self.collect(block)? {
            return self.repeat_message(now);
        }
        if !block.is_last {
            self.timeline.send(self.turn_at(now), vec![ACK]);
            self.await_answer(now, State::AwaitAnswer);
            return Ok(());
        }
        let data = self.data_block();
        self.settle();
        self.event(ClientEvent::Answered(data));
        Ok(())
    }

    /// Whether the block was sound and is taken.
    fn collect(&mut self, block: Block<'_>) -> Result<bool, SessionError> {
        if block.bcc != Bcc::Valid {
            if !self.config.quirks.accept_invalid_bcc {
                return Ok(false);
            }
            self.exchange.quality = self.exchange.quality.with(Quality::CRC_INVALID);
        }
        let limit = self.config.answer_octets_max;
        // An empty block counts too, or they would never end.
        if self.exchange.content.len() + block.content.len().max(1) > limit {
            return Err(SessionError::TooLong { limit });
        }
        self.exchange.content.extend(block.content);
        if block.content.is_empty() {
            self.exchange.content.push(b'\n');
        }
        // A sound block is progress, but what was begun anew stays counted.
        self.patience.attempts = self.patience.restarts.saturating_add(1);
        Ok(true)
    }

    /// What was collected. An answer without an address is one to the address that was asked for.
    fn data_block(&mut self) -> DataBlock {
        let Exchange { request, content, quality, .. } = std::mem::take(&mut self.exchange);
        let address = match request {
            Some(request) if content.starts_with(b"(") => request.address().to_owned(),
            _ => String::new(),
        };
        let content = [address.as_bytes(), &content].concat();
        DataBlock { identification: self.identification.clone(), content, quality }
    }

    fn is_asked_for(&self, content: &[u8]) -> bool {
        let Some(request) = &self.exchange.request else { return true };
        let end = content.iter().position(|&octet| octet == b'(').unwrap_or(content.len());
        let answered = content.get(..end).unwrap_or_default().trim_ascii();
        answered.is_empty()
            || self.config.quirks.any_answer_address
            || Address::parse(answered).is_same_object(&Address::parse(request.address().as_bytes()))
    }

    fn on_repeat(&mut self, now: Duration) -> Result<(), SessionError> {
        match self.state {
            State::AwaitPassword => {
                let repeated = self.repeat_command(now);
                repeated.map_err(|_| SessionError::PasswordRefused)
            }
            State::AwaitAnswer => {
                if self.repeat_command(now).is_err() {
                    self.settle();
                    self.event(ClientEvent::Refused { reason: "NAK".to_owned() });
                }
                Ok(())
            }
            State::AwaitReadout | State::AwaitProgramming | State::AwaitConfirmation => self.call_again(now),
            _ => Ok(()),
        }
    }

    fn on_command(&mut self, now: Duration, command: Command<'_>) -> Result<(), SessionError> {
        let is_sound = command.bcc == Bcc::Valid || self.config.quirks.accept_invalid_bcc;
        match (command.kind, self.state) {
            (_, State::AwaitProgramming) if !is_sound => self.repeat_message(now),
            (b'P', State::AwaitProgramming) if command.variant == b'0' => {
                let data = command.data.unwrap_or_default();
                let challenge = data.strip_prefix(b"(").and_then(|data| data.strip_suffix(b")")).unwrap_or(data);
                self.open(challenge.to_vec());
                Ok(())
            }
            (b'B', State::AwaitPassword) if is_sound => Err(SessionError::PasswordRefused),
            (b'B', State::AwaitProgramming | State::AwaitAnswer | State::Open) if is_sound => Err(SessionError::Ended),
            _ => Ok(()),
        }
    }

    fn open(&mut self, challenge: Vec<u8>) {
        self.patience = Patience::default();
        self.state = State::Open;
        self.event(ClientEvent::Programming { challenge });
    }

    /// The question was answered; it is our turn.
    fn settle(&mut self) {
        self.patience = Patience::default();
        self.exchange = Exchange::default();
        self.state = State::Open;
    }
}

fn hdlc_line(baud: Baud) -> LineSettings {
    LineSettings { baud, framing: Framing::EightNone }
}

/// An error message: `(ER01)` and the like (IEC 62056-21, 6.3.9, item 3).
fn is_error(content: &[u8]) -> bool {
    content.trim_ascii().strip_prefix(b"(").is_some_and(|text| text.starts_with(b"ER") || text.starts_with(b"Er"))
}

fn printable(content: &[u8]) -> String {
    let shown = content.iter().filter(|octet| octet.is_ascii_graphic() || **octet == b' ');
    shown.take(REASON_LEN_MAX).map(|&octet| char::from(octet)).collect()
}
