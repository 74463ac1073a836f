//! The meter's standard event log (0-0:99.98.0): what happened to it, in a ring.

use std::collections::VecDeque;

use protocols::metering::{ObisCode, UtcMillis};

/// Event codes of the IDIS package 2 standard event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum EventCode {
    PowerDown = 1,
    PowerUp = 2,
    /// The clock was set; the label is what it showed before.
    ClockAdjustedFrom = 4,
    /// The clock was set; the label is what it shows now.
    ClockAdjustedTo = 5,
    /// Of the breaker: these two stand in a log of their own in IDIS, and in the only one here.
    RemoteDisconnection = 62,
    RemoteReconnection = 63,
}

impl EventCode {
    pub const fn text(self) -> &'static str {
        match self {
            Self::PowerDown => "power down",
            Self::PowerUp => "power up",
            Self::ClockAdjustedFrom => "clock adjusted, old time",
            Self::ClockAdjustedTo => "clock adjusted, new time",
            Self::RemoteDisconnection => "remote disconnection",
            Self::RemoteReconnection => "remote reconnection",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    /// Shown time.
    pub label: UtcMillis,
    pub code: EventCode,
}

#[derive(Debug, Clone)]
pub struct EventLog {
    depth: usize,
    entries: VecDeque<LogEntry>,
}

impl EventLog {
    pub const OBIS: ObisCode = ObisCode::new(0, 0, 99, 98, 0, 255);

    pub fn new(depth: usize) -> Self {
        Self { depth: depth.max(1), entries: VecDeque::new() }
    }

    pub fn note(&mut self, label: UtcMillis, code: EventCode) {
        if self.entries.len() == self.depth {
            self.entries.pop_front();
        }
        self.entries.push_back(LogEntry { label, code });
    }

    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// Oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = LogEntry> + DoubleEndedIterator {
        self.entries.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_forgets_its_oldest_entry() {
        let mut log = EventLog::new(2);
        for (label, code) in [(1, EventCode::PowerDown), (2, EventCode::PowerUp), (3, EventCode::PowerDown)] {
            log.note(UtcMillis(label), code);
        }
        assert_eq!(log.entries().map(|entry| entry.label.0).collect::<Vec<_>>(), [2, 3]);
    }
}
