//! Pushes: APDUs in UI frames, outside any link.
//!
//! A long push is cut over several frames, the LLC octets in the first one only (Iskra AM550). The frames carry no number:
//! a lost one can be noticed only by the silence after it or by the next push beginning. Whoever decodes the APDU must not
//! take it for whole before its last octet made sense.

use std::time::Duration;

use super::address::HdlcAddress;
use super::control::Control;
use super::frame::Frame;
use super::incoming::Incoming;
use super::parameters::{INFORMATION_MAX, INFORMATION_MIN};
use super::transfer::{LLC_RESPONSE, has_llc, without_llc};

/// Puts pushes together. UI frames, and I frames too: the Kaifa MA304H3E pushes in those without ever connecting.
#[derive(Debug)]
pub struct UiReassembler {
    octets_max: usize,
    segment_gap_max: Duration,
    partial: Option<Partial>,
    llc_seen: bool,
    dropped: Option<PushDropped>,
}

/// Why a frame, or what was put together before it, makes no push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushDropped {
    #[error("a push did not end within {limit} octets")]
    TooLong { limit: usize },
    /// Another one began before its end, or somebody else spoke, or nothing came for long.
    #[error("a push broke off after {octets} octets")]
    Cut { octets: usize },
    /// Its beginning was missed.
    #[error("a frame without the beginning of its push")]
    Rest,
}

#[derive(Debug)]
struct Partial {
    source: HdlcAddress,
    octets: Vec<u8>,
    heard_at: Duration,
}

/// APDUs that a meter sends unasked, for meters that leave out the LLC octets: data-notification, information-report,
/// event-notification, these under the global or the dedicated key, the general protections, and general block transfer.
const PUSH_TAGS: [u8; 13] = [0x0f, 0x18, 0x38, 0x58, 0xc2, 0xca, 0xd2, 0xdb, 0xdc, 0xdd, 0xdf, 0xe0, 0x10];

impl UiReassembler {
    /// APDUs of up to `apdu_octets_max`, whose segments follow each other within `segment_gap_max`.
    pub fn new(apdu_octets_max: usize, segment_gap_max: Duration) -> Self {
        Self { octets_max: apdu_octets_max, segment_gap_max, partial: None, llc_seen: false, dropped: None }
    }

    /// Takes one frame; an APDU when it was the last of one. A frame that carries no information, or the rest of a push
    /// whose beginning was missed, is dropped.
    pub fn accept(&mut self, now: Duration, frame: &Frame<'_>) -> Option<Vec<u8>> {
        if !matches!(frame.control(), Some(Control::Ui | Control::Information { .. })) {
            return None;
        }
        let begins = has_llc(frame.information);
        self.llc_seen |= begins;
        let before = self.partial.take();
        let goes_on = before.as_ref().is_some_and(|partial| {
            let is_in_time = now.saturating_sub(partial.heard_at) <= self.segment_gap_max;
            !begins && partial.source == frame.source && is_in_time
        });
        let mut octets = match before {
            Some(partial) if goes_on => partial.octets,
            before => {
                self.dropped = before.map(|partial| PushDropped::Cut { octets: partial.octets.len() });
                if !begins && !self.begins_without_llc(frame.information) {
                    self.dropped = self.dropped.or((!frame.information.is_empty()).then_some(PushDropped::Rest));
                    return None;
                }
                Vec::new()
            }
        };
        if octets.len() + frame.information.len() > self.octets_max.saturating_add(LLC_RESPONSE.len()) {
            self.dropped = Some(PushDropped::TooLong { limit: self.octets_max });
            return None;
        }
        octets.extend(frame.information);
        if frame.segmented {
            self.partial = Some(Partial { source: frame.source, octets, heard_at: now });
            return None;
        }
        Some(without_llc(octets))
    }

    /// Why something was dropped since this was asked last; the last of it, where it was more.
    pub fn take_dropped(&mut self) -> Option<PushDropped> {
        self.dropped.take()
    }

    /// A meter that sent LLC octets once sends them always: what comes without is then the middle of something.
    fn begins_without_llc(&self, information: &[u8]) -> bool {
        !self.llc_seen && information.first().is_some_and(|tag| PUSH_TAGS.contains(tag))
    }
}

/// Listens to a meter that pushes: bytes in, APDUs out, nothing to send.
#[derive(Debug)]
pub struct PushListener {
    incoming: Incoming,
    reassembler: UiReassembler,
    inter_octet_timeout: Duration,
}

impl PushListener {
    /// A frame that stops for `inter_octet_timeout` is discarded.
    pub fn new(reassembler: UiReassembler, inter_octet_timeout: Duration) -> Self {
        Self { incoming: Incoming::default(), reassembler, inter_octet_timeout }
    }

    /// Takes what was read (nothing, when [`Self::deadline`] passed) and gives the APDUs that it completes.
    pub fn receive(&mut self, now: Duration, octets: &[u8]) -> Vec<Vec<u8>> {
        let mut apdus = Vec::new();
        self.incoming.extend(now, octets);
        loop {
            while let Some(frame) = self.incoming.next() {
                apdus.extend(self.reassembler.accept(now, &frame));
            }
            self.incoming.compact();
            if self.deadline().is_none_or(|at| now < at) {
                return apdus;
            }
            self.incoming.give_up_one();
        }
    }

    /// When an unfinished frame is to be given up.
    pub fn deadline(&self) -> Option<Duration> {
        self.incoming.deadline(self.inter_octet_timeout)
    }
}

/// The UI frames that carry `apdu` from a server, `information_max` octets (32 to 2030) in each.
pub fn push_frames(destination: HdlcAddress, source: HdlcAddress, apdu: &[u8], information_max: u16) -> Vec<u8> {
    let octets = [&LLC_RESPONSE, apdu].concat();
    let mut segments = octets.chunks(information_max.clamp(INFORMATION_MIN, INFORMATION_MAX).into()).peekable();
    let mut out = Vec::new();
    while let Some(information) = segments.next() {
        let segmented = segments.peek().is_some();
        let control = Control::Ui.encode(!segmented);
        Frame { segmented, destination, source, control, information }.encode(&mut out);
    }
    out
}

#[cfg(test)]
mod tests;
