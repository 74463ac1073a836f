//! The meter's end, for the simulator: a slave of a line that others may share.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::address::{ANYBODY, BROADCAST, SELECTED, SecondaryAddress, Selection};
use super::config::Baud;
use super::frame::{ACK, Frame, control};
use super::incoming::Incoming;
use super::master::{CI_APPLICATION_RESET, CI_SELECT};
use super::quirks::Quirks;
use super::session::{Input, Output};
use crate::iec62056_21::EchoFilter;

/// What a meter has to say.
pub trait SlaveData {
    /// The telegrams of an answer, from CI on: what [`Builder`](super::Builder) gives. Asked for at the first of them.
    fn telegrams(&mut self) -> Vec<Vec<u8>>;
    /// The telegram that tells an alarm, while there is one.
    fn alarm(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// Settings of [`Slave`]. Make one with [`Self::new`], then change what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlaveConfig {
    pub primary: u8,
    pub address: SecondaryAddress,
    pub baud: Baud,
    pub echo: bool,
    /// Between a question and the answer, beyond the 11 bit times that it takes at least. Default 0.
    pub delay_ms: u32,
}

impl SlaveConfig {
    pub fn new(primary: u8, address: SecondaryAddress, baud: Baud) -> Self {
        Self { primary, address, baud, echo: false, delay_ms: 0 }
    }
}

/// One meter. It never fails: what makes no sense is met with silence.
pub struct Slave {
    config: SlaveConfig,
    is_selected: bool,
    /// The frame count bit of the last request.
    request_bit: Option<bool>,
    /// What was answered to the last request.
    last: Vec<u8>,
    telegrams: VecDeque<Vec<u8>>,
    incoming: Incoming,
    echo: EchoFilter,
    /// What is to be sent, and when.
    answer: Option<(Duration, Vec<u8>)>,
    sent: Option<Vec<u8>>,
    /// The end of our own transmission.
    free_at: Duration,
}

impl Slave {
    pub fn new(config: SlaveConfig) -> Self {
        Self {
            config,
            is_selected: false,
            request_bit: None,
            last: Vec::new(),
            telegrams: VecDeque::new(),
            incoming: Incoming::new(Quirks::NONE),
            echo: EchoFilter::default(),
            answer: None,
            sent: None,
            free_at: Duration::ZERO,
        }
    }

    pub fn is_selected(&self) -> bool {
        self.is_selected
    }

    /// Feeds one input. Drain [`Self::poll`] until `WaitUntil` before the next call.
    pub fn handle(&mut self, now: Duration, input: Input<'_>, data: &mut dyn SlaveData) {
        if let Input::Received(octets) = input {
            self.receive(now, octets, data);
        }
        if let Some((_, octets)) = self.answer.take_if(|(at, _)| *at <= now) {
            self.send(now, octets);
        }
    }

    pub fn poll(&mut self) -> Output<()> {
        match self.sent.take() {
            Some(octets) => Output::Send(octets),
            None => Output::WaitUntil(self.answer.as_ref().map(|(at, _)| *at)),
        }
    }

    fn receive(&mut self, now: Duration, octets: &[u8], data: &mut dyn SlaveData) {
        let heard = if self.config.echo { self.echo.filter(now, octets) } else { octets };
        if now < self.free_at || heard.is_empty() {
            return;
        }
        // A frame that stops for 33 bit times will not go on (EN 13757-2); ports deliver in pieces of some octets.
        let gap = self.config.baud.transmit_time(3 + heard.len());
        if self.incoming.deadline(gap).is_some_and(|at| at < now) {
            self.incoming.clear();
        }
        self.incoming.extend(now, heard);
        let mut incoming = std::mem::take(&mut self.incoming);
        while let Some((frame, _)) = incoming.next() {
            self.on_frame(now, frame, data);
        }
        self.incoming = incoming;
    }

    fn send(&mut self, now: Duration, octets: Vec<u8>) {
        self.free_at = now + self.config.baud.transmit_time(octets.len());
        if self.config.echo {
            self.echo.sent(&octets, self.free_at);
        }
        self.incoming.clear();
        self.sent = Some(octets);
    }

    fn on_frame(&mut self, now: Duration, frame: Frame<'_>, data: &mut dyn SlaveData) {
        match frame {
            Frame::Short { control: control::SND_NKE, address } => self.on_reset(now, address),
            Frame::Short { control: sent, address } if self.is_called(address) => match sent & !control::FCB {
                control::REQ_UD2 => self.on_request(now, sent & control::FCB != 0, data),
                control::REQ_UD1 => {
                    let alarm = data.alarm().map_or_else(|| vec![ACK], |telegram| self.response(&telegram));
                    self.reply(now, address, alarm);
                }
                _ => {}
            },
            Frame::Long { control: sent, address, ci, data: user_data } if sent & !control::FCB == control::SND_UD => {
                self.on_user_data(now, address, ci, user_data);
            }
            _ => {}
        }
    }

    fn is_called(&self, address: u8) -> bool {
        address == self.config.primary || address == ANYBODY || (address == SELECTED && self.is_selected)
    }

    fn on_reset(&mut self, now: Duration, address: u8) {
        if !self.is_called(address) && address != BROADCAST {
            return;
        }
        self.restart();
        if address == SELECTED {
            self.is_selected = false;
        }
        self.reply(now, address, vec![ACK]);
    }

    fn restart(&mut self) {
        self.request_bit = None;
        self.telegrams.clear();
        self.last.clear();
    }

    fn on_user_data(&mut self, now: Duration, address: u8, ci: u8, user_data: &[u8]) {
        if address == SELECTED && ci & 0xfb == CI_SELECT {
            let Ok(selection) = <[u8; 8]>::try_from(user_data.get(..8).unwrap_or_default()) else { return };
            self.is_selected = Selection::from_octets(selection).matches(self.config.address);
            if self.is_selected {
                self.restart();
                self.reply(now, address, vec![ACK]);
            }
            return;
        }
        if !self.is_called(address) && address != BROADCAST {
            return;
        }
        if ci == CI_APPLICATION_RESET {
            self.restart();
        }
        self.reply(now, address, vec![ACK]);
    }

    /// The same bit again asks for the same telegram again.
    fn on_request(&mut self, now: Duration, count_bit: bool, data: &mut dyn SlaveData) {
        if self.request_bit != Some(count_bit) || self.last.is_empty() {
            if self.telegrams.is_empty() {
                self.telegrams = data.telegrams().into();
            }
            self.request_bit = Some(count_bit);
            self.last = match self.telegrams.pop_front() {
                Some(telegram) => self.response(&telegram),
                None => vec![ACK],
            };
        }
        let last = self.last.clone();
        self.reply(now, SELECTED, last);
    }

    fn response(&self, telegram: &[u8]) -> Vec<u8> {
        let (&ci, data) = telegram.split_first().unwrap_or((&0x72, &[]));
        let mut octets = Vec::new();
        let frame = Frame::Long { control: control::RSP_UD, address: self.config.primary, ci, data };
        // What is too long for a frame is sent by no meter.
        if frame.encode(&mut octets).is_none() {
            octets.push(ACK);
        }
        octets
    }

    fn reply(&mut self, now: Duration, address: u8, octets: Vec<u8>) {
        if address != BROADCAST {
            let delay = Duration::from_millis(self.config.delay_ms.into());
            self.answer = Some((now + self.config.baud.turn_time() + delay, octets));
        }
    }
}

/// Shows no data.
impl fmt::Debug for Slave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slave({}, {})", self.config.primary, self.config.address)
    }
}
