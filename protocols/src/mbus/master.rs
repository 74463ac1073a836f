//! The master's end: reads the meters of a line, one after the other, and searches for them.
//!
//! | target | what is sent |
//! | --- | --- |
//! | primary address | SND_NKE, REQ_UD2 until the last telegram |
//! | secondary address | SND_NKE to 253, SND_UD with the address, REQ_UD2 until the last telegram, SND_NKE to 253 |
//! | either, where it is wanted | SND_UD with an application reset before the first REQ_UD2 |
//!
//! The frame count bit changes with each telegram, so that a repeated question brings the same one again. A telegram that says the
//! same as one before is a repetition that came late, and dropped. Damage and silence are met by repeating; all repetitions are
//! bounded, and so is the number of telegrams. An enciphered telegram is taken for the last where its key is not known: what follows
//! is not seen.

mod exchange;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::address::{ANYBODY, PRIMARY_MAX, SELECTED, SecondaryAddress, Selection};
use super::config::MasterConfig;
use super::frame::{FRAME_LEN_MAX, Frame, control};
use super::incoming::Incoming;
use super::search::Search;
use super::session::{Answer, Input, MasterError, MasterEvent, Output, Target};
use crate::iec62056_21::EchoFilter;

/// Selects a slave (EN 13757-7).
pub(super) const CI_SELECT: u8 = 0x52;
/// Resets the application: the next telegram is the first.
pub(super) const CI_APPLICATION_RESET: u8 = 0x50;

/// Reads one meter of a line at a time. It never fails as a whole: what goes wrong with a meter is an event.
pub struct Master {
    config: MasterConfig,
    step: Step,
    job: Option<Job>,
    incoming: Incoming,
    echo: EchoFilter,
    /// Nothing is sent before.
    quiet_until: Duration,
    patience: Patience,
    outputs: VecDeque<Output<MasterEvent>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Idle,
    /// SND_NKE to 253; whoever was selected may acknowledge.
    Deselect,
    Select,
    /// SND_NKE to a primary address.
    Reset,
    ResetApplication,
    Request,
    /// SND_NKE to 253 at the end.
    Release,
}

struct Job {
    target: Target,
    purpose: Purpose,
    /// The frame count bit of the next request.
    count_bit: bool,
    answer: Answer,
}

enum Purpose {
    Read,
    Alarm,
    Search { search: Search, found: Vec<SecondaryAddress> },
}

/// How long we have gone on without getting anywhere.
#[derive(Default)]
struct Patience {
    attempts: u8,
    /// At least one attempt brought something, but nothing sound.
    was_damaged: bool,
    was_other: Option<SecondaryAddress>,
    was_same: bool,
    /// The frame is to be sent at this instant.
    send_at: Option<Duration>,
    /// When an answer must have begun, and must have ended.
    deadline: Duration,
    hard_deadline: Duration,
    /// Some frame of this job was repeated, so answers may come late.
    is_strained: bool,
}

impl Master {
    pub fn new(config: MasterConfig) -> Self {
        Self {
            step: Step::Idle,
            job: None,
            incoming: Incoming::new(config.quirks),
            echo: EchoFilter::default(),
            quiet_until: Duration::ZERO,
            patience: Patience::default(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Reads a meter. [`MasterEvent::Answered`] or [`MasterEvent::Failed`] follows.
    pub fn read(&mut self, now: Duration, target: Target) -> Result<(), MasterError> {
        self.begin(now, target, Purpose::Read)
    }

    /// Asks for alarms. [`MasterEvent::Answered`], [`MasterEvent::NoAlarm`] or [`MasterEvent::Failed`] follows.
    pub fn read_alarm(&mut self, now: Duration, target: Target) -> Result<(), MasterError> {
        self.begin(now, target, Purpose::Alarm)
    }

    /// Searches for the meters that a selection leaves open. [`MasterEvent::Found`] follows for each, and
    /// [`MasterEvent::Searched`] at the end.
    pub fn search(&mut self, now: Duration, selection: Selection) -> Result<(), MasterError> {
        let search = Search::new(selection);
        self.begin(now, Target::Secondary(selection), Purpose::Search { search, found: Vec::new() })
    }

    pub fn is_idle(&self) -> bool {
        self.step == Step::Idle
    }

    /// Feeds one input. Drain [`Self::poll`] until `WaitUntil` before the next call.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) {
        if let Input::Received(octets) = input {
            self.receive(now, octets);
        }
        self.on_time(now);
    }

    pub fn poll(&mut self) -> Output<MasterEvent> {
        self.outputs.pop_front().unwrap_or_else(|| Output::WaitUntil(self.wake_at()))
    }

    fn wake_at(&self) -> Option<Duration> {
        let at = self.patience.send_at.unwrap_or_else(|| self.give_up_at());
        (self.step != Step::Idle).then_some(at)
    }

    fn begin(&mut self, now: Duration, target: Target, purpose: Purpose) -> Result<(), MasterError> {
        if self.step != Step::Idle {
            return Err(MasterError::NotReady);
        }
        let first = match target {
            Target::Primary(address) if address > PRIMARY_MAX && address != ANYBODY => {
                return Err(MasterError::Address { address });
            }
            Target::Primary(_) => Step::Reset,
            Target::Secondary(_) => Step::Deselect,
        };
        let answer = Answer { target, primary: 0, telegrams: Vec::new(), has_alarm: false };
        self.job = Some(Job { target, purpose, count_bit: true, answer });
        self.patience.is_strained = false;
        self.enter(now, first);
        self.on_time(now);
        Ok(())
    }

    fn receive(&mut self, now: Duration, octets: &[u8]) {
        let heard = if self.config.echo { self.echo.filter(now, octets) } else { octets };
        // Before our turn is over nothing is meant for us.
        if self.step == Step::Idle || self.patience.send_at.is_some() {
            return;
        }
        self.incoming.extend(now, heard);
        let mut incoming = std::mem::take(&mut self.incoming);
        while let Some((frame, is_damaged)) = incoming.next() {
            self.on_frame(now, frame, is_damaged);
            // What comes before our next turn is no answer to it.
            if self.step == Step::Idle || self.patience.send_at.is_some() {
                break;
            }
        }
        self.incoming = incoming;
        if self.step == Step::Idle || self.patience.send_at.is_some() {
            self.incoming.clear();
        }
    }

    fn on_time(&mut self, now: Duration) {
        if self.patience.send_at.is_some_and(|at| at <= now) {
            self.send(now);
        } else if self.step != Step::Idle && self.patience.send_at.is_none() && now >= self.give_up_at() {
            self.patience.was_damaged |= self.incoming.is_damaged();
            self.on_silence(now);
            if self.patience.send_at.is_some_and(|at| at <= now) {
                self.send(now);
            }
        }
    }

    /// An answer that has begun may go on while its octets come.
    fn give_up_at(&self) -> Duration {
        let Patience { deadline, hard_deadline, .. } = self.patience;
        let partial = self.incoming.deadline(self.config.inter_octet_timeout());
        partial.map_or(deadline, |partial| partial.max(deadline).min(hard_deadline))
    }

    /// Begins a step with its first attempt.
    fn enter(&mut self, now: Duration, step: Step) {
        let Patience { is_strained, .. } = self.patience;
        self.patience = Patience { is_strained, ..Patience::default() };
        self.step = step;
        self.attempt(now);
    }

    fn attempt(&mut self, now: Duration) {
        self.patience.attempts = self.patience.attempts.saturating_add(1);
        self.patience.is_strained |= self.patience.attempts > 1;
        // The line is to be idle for a moment between an answer and the next question.
        self.patience.send_at = Some(self.quiet_until.max(now + self.config.baud.turn_time()));
    }

    fn send(&mut self, now: Duration) {
        self.patience.send_at = None;
        self.incoming.clear();
        let octets = self.frame();
        let sent_at = now + self.config.baud.transmit_time(octets.len());
        if self.config.echo {
            self.echo.sent(&octets, sent_at);
        }
        self.patience.deadline = sent_at + self.config.response_timeout();
        self.patience.hard_deadline = self.patience.deadline + self.config.baud.transmit_time(2 * FRAME_LEN_MAX);
        self.outputs.push_back(Output::Send(octets));
    }

    fn frame(&self) -> Vec<u8> {
        let Some(job) = &self.job else { return Vec::new() };
        let address = match job.target {
            Target::Primary(address) => address,
            Target::Secondary(_) => SELECTED,
        };
        let mut octets = Vec::new();
        let selection = match job.target {
            Target::Secondary(selection) => selection.to_octets(),
            Target::Primary(_) => [0xff; 8],
        };
        let subcode = self.config.application_reset.filter(|subcode| *subcode > 0);
        let frame = match self.step {
            Step::ResetApplication => {
                Frame::Long { control: control::SND_UD, address, ci: CI_APPLICATION_RESET, data: subcode.as_slice() }
            }
            Step::Select => Frame::Long { control: control::SND_UD, address, ci: CI_SELECT, data: &selection },
            Step::Request => {
                let request = if matches!(job.purpose, Purpose::Alarm) { control::REQ_UD1 } else { control::REQ_UD2 };
                let count_bit = if job.count_bit { control::FCB } else { 0 };
                Frame::Short { control: request | count_bit, address }
            }
            Step::Idle | Step::Deselect | Step::Reset | Step::Release => {
                Frame::Short { control: control::SND_NKE, address }
            }
        };
        let encoded = frame.encode(&mut octets);
        debug_assert!(encoded.is_some(), "eight octets fit");
        octets
    }

    fn event(&mut self, event: MasterEvent) {
        self.outputs.push_back(Output::Event(event));
    }
}

/// Shows no data.
impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Master({:?} of {:?})", self.step, self.job.as_ref().map(|job| job.target))
    }
}

#[cfg(test)]
mod tests;
