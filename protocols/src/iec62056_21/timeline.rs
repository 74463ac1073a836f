//! What is to be done at which instant: pauses before sending, and the change of the rate once the last octet has left.

use std::collections::VecDeque;
use std::time::Duration;

use super::echo::EchoFilter;
use super::incoming::Incoming;
use super::port::{LineSettings, MaskedParity};
use super::session::Output;

pub(super) enum Step<E> {
    Send(Vec<u8>),
    SetLine(LineSettings),
    Event(E),
}

impl<E> Step<E> {
    /// What the owner is to do. What came before we send or change the line is no answer any more.
    pub(super) fn perform(
        self,
        now: Duration,
        line: &mut LineSettings,
        incoming: &mut Incoming,
        echo: &mut EchoFilter,
        masked_parity: bool,
    ) -> Output<E> {
        match self {
            Self::Send(mut octets) => {
                incoming.clear();
                echo.sent(&octets, now + line.transmit_time(octets.len()));
                if masked_parity {
                    MaskedParity::mask(&mut octets);
                }
                Output::Send(octets)
            }
            Self::SetLine(settings) => {
                incoming.clear();
                *line = settings;
                Output::SetLine(settings)
            }
            Self::Event(event) => Output::Event(event),
        }
    }
}

/// Steps in their order. Instants are planned from the line's rate, so that nobody has to ask a port when it is empty.
pub(super) struct Timeline<E> {
    steps: VecDeque<(Duration, Step<E>)>,
    /// The end of what is planned so far.
    free_at: Duration,
    line: LineSettings,
}

impl<E> Timeline<E> {
    pub(super) fn new(line: LineSettings) -> Self {
        Self { steps: VecDeque::new(), free_at: Duration::ZERO, line }
    }

    /// Answers when the last octet will have left.
    pub(super) fn send(&mut self, not_before: Duration, octets: Vec<u8>) -> Duration {
        let duration = self.line.transmit_time(octets.len());
        let at = self.push(not_before, Step::Send(octets));
        self.free_at = at + duration;
        self.free_at
    }

    pub(super) fn set_line(&mut self, not_before: Duration, line: LineSettings) {
        self.push(not_before, Step::SetLine(line));
        self.line = line;
    }

    pub(super) fn event(&mut self, not_before: Duration, event: E) {
        self.push(not_before, Step::Event(event));
    }

    fn push(&mut self, not_before: Duration, step: Step<E>) -> Duration {
        let at = not_before.max(self.free_at);
        self.free_at = at;
        self.steps.push_back((at, step));
        at
    }

    /// The next step if its instant has come.
    pub(super) fn due(&mut self, now: Duration) -> Option<Step<E>> {
        let is_due = self.next_at().is_some_and(|at| at <= now);
        if is_due { self.steps.pop_front().map(|(_, step)| step) } else { None }
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        self.steps.front().map(|(at, _)| *at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.steps.clear();
    }

    pub(super) fn free_at(&self) -> Duration {
        self.free_at
    }

    /// As it is once all steps are done.
    pub(super) fn line(&self) -> LineSettings {
        self.line
    }
}
