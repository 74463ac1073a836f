//! The octets that arrived and are not yet a frame.

use std::time::Duration;

use super::frame::{self, FLAG, Frame, HEADER_MAX, Scan};

/// Holds at most one unfinished frame between two calls.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    octets: Vec<u8>,
    /// Octets at the front that are dealt with.
    done: usize,
    heard_at: Duration,
}

impl Incoming {
    pub(super) fn extend(&mut self, now: Duration, octets: &[u8]) {
        self.octets.extend(octets);
        if !octets.is_empty() {
            self.heard_at = now;
        }
    }

    /// Forgets what is dealt with; to be called when [`Self::next`] found no more.
    pub(super) fn compact(&mut self) {
        self.octets.drain(..self.done);
        self.done = 0;
    }

    /// The next whole frame; noise before it is dropped.
    pub(super) fn next(&mut self) -> Option<Frame<'_>> {
        loop {
            let rest = self.octets.get(self.done..)?;
            match frame::scan(rest) {
                Scan::Frame { frame, used } => {
                    self.done += used;
                    return Some(frame);
                }
                Scan::Garbage { skip, .. } => self.done += skip,
                Scan::NeedMore => {
                    // One flag is enough to open a frame; a line that idles with flags must not fill the memory.
                    let flags = rest.iter().take_while(|&&octet| octet == FLAG).count();
                    self.done += flags.saturating_sub(1);
                    return None;
                }
            }
        }
    }

    /// When the unfinished frame is given up, if there is one. A flag alone is none.
    pub(super) fn deadline(&self, inter_octet_timeout: Duration) -> Option<Duration> {
        (self.rest().len() > 1).then_some(self.heard_at + inter_octet_timeout)
    }

    /// Whether a header with a good check sequence has been followed by a part of its information field: by then noise is
    /// out of the question.
    pub(super) fn is_inside_information(&self) -> bool {
        self.rest().len() > 1 + HEADER_MAX
    }

    /// Gives up the unfinished frame: drops it up to the next flag within it, where another one may begin.
    pub(super) fn give_up_one(&mut self) {
        let rest = self.rest();
        let skip = rest.iter().skip(1).position(|&octet| octet == FLAG).map_or(rest.len(), |at| at + 1);
        self.done += skip;
    }

    fn rest(&self) -> &[u8] {
        self.octets.get(self.done..).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::{ClientAddress, HdlcAddress};
    use super::*;

    fn frame(information: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let destination = ClientAddress::PUBLIC.into();
        Frame { segmented: false, destination, source: HdlcAddress::MANAGEMENT, control: 0x13, information }
            .encode(&mut out);
        out
    }

    #[test]
    fn frames_arrive_octet_by_octet() {
        let mut incoming = Incoming::default();
        let mut found = 0;
        for octet in [frame(&[FLAG; 40]), frame(&[]), vec![FLAG; 1000], frame(&[1])].concat() {
            incoming.extend(Duration::ZERO, &[octet]);
            while incoming.next().is_some() {
                found += 1;
            }
            incoming.compact();
            assert!(incoming.len() < 60);
        }
        assert_eq!(found, 3);
    }

    // Negative control: let `give_up_one` drop everything.
    #[test]
    fn a_frame_behind_a_broken_one_survives_giving_up() {
        let mut incoming = Incoming::default();
        // A length that promises far more than there is.
        let long = frame(&[3; 200]);
        incoming.extend(Duration::ZERO, &[&long[..100], &frame(&[2; 20])].concat());
        assert!(incoming.next().is_none());
        assert!(incoming.is_inside_information());
        assert!(incoming.deadline(Duration::from_millis(400)).is_some());
        incoming.give_up_one();
        assert_eq!(incoming.next().map(|frame| frame.information.to_vec()), Some(vec![2; 20]));
        assert_eq!(incoming.deadline(Duration::from_millis(400)), None);
    }
}
