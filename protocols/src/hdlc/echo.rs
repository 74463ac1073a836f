//! Telling our own frames from the peer's when the line gives both back.
//!
//! RS-485 adapters and optical heads echo what is sent. As a rule an echo is addressed to the peer and so is none of our
//! business. But when the client and the logical device have the same number and both addresses are one octet long, a
//! frame reads the same from either side.

use std::collections::VecDeque;

use super::control::Control;
use super::frame::Frame;

/// Frames sent whose echo could pass for an answer: a window and a poll.
const EXPECTED_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct EchoFilter {
    /// An echo has been seen, so more are to come.
    line_echoes: bool,
    expected: VecDeque<Vec<u8>>,
}

impl EchoFilter {
    /// Notes a frame that goes out.
    pub(super) fn sent(&mut self, frame: &Frame<'_>) {
        if frame.destination == frame.source {
            self.expected.push_back(octets(frame));
            if self.expected.len() > EXPECTED_MAX {
                self.expected.pop_front();
            }
        }
    }

    pub(super) fn is_echo(&mut self, frame: &Frame<'_>) -> bool {
        if frame.destination != frame.source {
            return false;
        }
        let octets = octets(frame);
        let Some(index) = self.expected.iter().position(|sent| *sent == octets) else { return false };
        // The peer may say the very same RR. It never sends the same information (the LLC octets differ) nor a command of
        // ours, so these tell whether the line echoes.
        let is_supervisory = matches!(
            frame.control(),
            Some(Control::ReceiveReady { .. } | Control::ReceiveNotReady { .. } | Control::Reject { .. })
        );
        if is_supervisory && !self.line_echoes {
            return false;
        }
        self.line_echoes = true;
        self.expected.drain(..=index);
        true
    }
}

fn octets(frame: &Frame<'_>) -> Vec<u8> {
    let mut octets = Vec::new();
    frame.encode(&mut octets);
    octets
}
