//! The numbered transfer of APDUs in segments: one half sends, one half receives. Both ends have both.

use super::control::Sequence;
use super::parameters::LinkParameters;

/// LLC octets before an APDU: destination and source E6, quality 00.
pub(super) const LLC_COMMAND: [u8; 3] = [0xe6, 0xe6, 0x00];
/// LLC octets before what a server sends.
pub(super) const LLC_RESPONSE: [u8; 3] = [0xe6, 0xe7, 0x00];

/// Takes the LLC octets off. Some meters leave them out of pushes, and no APDU begins with E6.
pub(super) fn without_llc(mut octets: Vec<u8>) -> Vec<u8> {
    if has_llc(&octets) {
        octets.drain(..LLC_COMMAND.len());
    }
    octets
}

pub(super) fn has_llc(octets: &[u8]) -> bool {
    matches!(octets, [0xe6, 0xe6 | 0xe7, _, ..])
}

/// The sending half: one APDU, cut as negotiated, kept until the peer acknowledged all of it.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// LLC and APDU; empty when all of it is acknowledged.
    octets: Vec<u8>,
    acknowledged_octets: usize,
    /// The number of the oldest segment that is not acknowledged, or of the next one to be.
    oldest: Sequence,
    /// Segments from `oldest` on that were sent.
    in_flight: u8,
    information_max: usize,
    window: u8,
}

/// One I frame to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub send: Sequence,
    /// The APDU goes on after this one.
    pub segmented: bool,
    /// The last of its window: it carries P/F.
    pub is_last: bool,
    pub information: &'a [u8],
}

/// N(R) names a frame that was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NeverSent;

impl Outgoing {
    pub(super) fn new(parameters: LinkParameters) -> Self {
        Self {
            octets: Vec::new(),
            acknowledged_octets: 0,
            oldest: Sequence::default(),
            in_flight: 0,
            information_max: usize::from(parameters.information_transmit_max),
            window: parameters.window_transmit,
        }
    }

    /// Takes the next APDU; the one before is acknowledged.
    pub(super) fn load(&mut self, llc: [u8; 3], apdu: &[u8]) {
        self.octets = [&llc, apdu].concat();
        self.acknowledged_octets = 0;
    }

    pub(super) fn is_finished(&self) -> bool {
        self.octets.is_empty()
    }

    pub(super) fn in_flight(&self) -> u8 {
        self.in_flight
    }

    /// V(S) as the peer should see it: the number after the last frame in flight.
    pub(super) fn next(&self) -> Sequence {
        self.oldest.plus(self.in_flight)
    }

    /// The segments of the next window: all that is unacknowledged again, then what follows.
    pub(super) fn window(&mut self) -> impl Iterator<Item = Segment<'_>> {
        let (_, rest) = self.octets.split_at(self.acknowledged_octets);
        let total = rest.len().div_ceil(self.information_max);
        let count = total.min(usize::from(self.window));
        self.in_flight = count as u8;
        let oldest = self.oldest;
        rest.chunks(self.information_max).take(count).enumerate().map(move |(index, information)| Segment {
            send: oldest.plus(index as u8),
            segmented: index + 1 < total,
            is_last: index + 1 == count,
            information,
        })
    }

    /// Takes N(R): whether it acknowledges anything new.
    pub(super) fn acknowledge(&mut self, receive: Sequence) -> Result<bool, NeverSent> {
        let count = receive.since(self.oldest);
        if count > self.in_flight {
            return Err(NeverSent);
        }
        self.oldest = receive;
        self.in_flight -= count;
        self.acknowledged_octets += usize::from(count) * self.information_max;
        if self.acknowledged_octets >= self.octets.len() {
            self.octets.clear();
            self.acknowledged_octets = 0;
        }
        Ok(count > 0)
    }
}

/// The receiving half: puts segments together.
#[derive(Debug)]
pub(super) struct Reassembly {
    octets: Vec<u8>,
    /// V(R)
    expected: Sequence,
    window: u8,
    octets_max: usize,
}

/// What became of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was the next one; more are to come.
    Segment,
    /// It was the last one.
    Apdu(Vec<u8>),
    /// It had come before.
    Duplicate,
    /// One before it is missing.
    Gap,
    /// The APDU would become longer than allowed; what there was of it is dropped.
    TooLong,
}

impl Reassembly {
    pub(super) fn new(parameters: LinkParameters, apdu_octets_max: usize) -> Self {
        Self {
            octets: Vec::new(),
            expected: Sequence::default(),
            window: parameters.window_receive,
            octets_max: apdu_octets_max.saturating_add(LLC_COMMAND.len()),
        }
    }

    pub(super) fn expected(&self) -> Sequence {
        self.expected
    }

    pub(super) fn is_partial(&self) -> bool {
        !self.octets.is_empty()
    }

    pub(super) fn accept(&mut self, send: Sequence, segmented: bool, information: &[u8]) -> Arrival {
        match send.since(self.expected) {
            0 => {}
            // With a window of seven a repeated frame may look like one that is ahead; either is dropped.
            ahead if ahead < self.window => return Arrival::Gap,
            _ => return Arrival::Duplicate,
        }
        if self.octets.len() + information.len() > self.octets_max {
            self.octets = Vec::new();
            return Arrival::TooLong;
        }
        self.expected = self.expected.plus(1);
        self.octets.extend(information);
        if segmented {
            return Arrival::Segment;
        }
        Arrival::Apdu(without_llc(std::mem::take(&mut self.octets)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(information: u16, window: u8) -> LinkParameters {
        LinkParameters {
            information_transmit_max: information,
            information_receive_max: information,
            window_transmit: window,
            window_receive: window,
        }
    }

    fn shape(outgoing: &mut Outgoing) -> Vec<(u8, bool, bool, usize)> {
        outgoing.window().map(|s| (s.send.value(), s.segmented, s.is_last, s.information.len())).collect()
    }

    #[test]
    fn an_apdu_is_cut_into_windows() {
        let mut outgoing = Outgoing::new(parameters(32, 2));
        outgoing.load(LLC_COMMAND, &[0; 80]);
        assert_eq!(shape(&mut outgoing), [(0, true, false, 32), (1, true, true, 32)]);
        assert_eq!(outgoing.acknowledge(Sequence::new(2)), Ok(true));
        assert_eq!(shape(&mut outgoing), [(2, false, true, 19)]);
        assert_eq!(outgoing.acknowledge(Sequence::new(3)), Ok(true));
        assert!(outgoing.is_finished());
    }

    // Negative control: leave out the multiplication by `count` in `acknowledge`.
    #[test]
    fn a_window_begins_again_at_the_first_lost_segment() {
        let mut outgoing = Outgoing::new(parameters(32, 3));
        outgoing.load(LLC_COMMAND, &[0; 120]);
        assert_eq!(outgoing.window().count(), 3);
        assert_eq!(outgoing.acknowledge(Sequence::new(2)), Ok(true));
        assert_eq!(shape(&mut outgoing), [(2, true, false, 32), (3, false, true, 27)]);
    }

    #[test]
    fn a_segment_that_is_exactly_full_has_no_empty_one_after_it() {
        let mut outgoing = Outgoing::new(parameters(32, 1));
        outgoing.load(LLC_COMMAND, &[0; 29]);
        assert_eq!(shape(&mut outgoing), [(0, false, true, 32)]);
    }

    // Negative control: compare with `self.window` instead of `self.in_flight` in `acknowledge`.
    #[test]
    fn acknowledging_what_was_never_sent_is_noticed() {
        let mut outgoing = Outgoing::new(parameters(32, 7));
        outgoing.load(LLC_COMMAND, &[0; 40]);
        assert_eq!(outgoing.window().count(), 2);
        assert_eq!(outgoing.acknowledge(Sequence::new(3)), Err(NeverSent));
        assert_eq!(outgoing.acknowledge(Sequence::new(7)), Err(NeverSent));
        assert_eq!(outgoing.acknowledge(Sequence::new(0)), Ok(false));
    }

    #[test]
    fn duplicates_and_gaps_are_told_apart() {
        let mut reassembly = Reassembly::new(parameters(32, 3), 100);
        assert_eq!(reassembly.accept(Sequence::new(0), true, &[0xe6, 0xe7]), Arrival::Segment);
        assert_eq!(reassembly.accept(Sequence::new(0), true, &[0xe6, 0xe7]), Arrival::Duplicate);
        assert_eq!(reassembly.accept(Sequence::new(2), true, &[9]), Arrival::Gap);
        // The LLC octets may be cut in two.
        assert_eq!(reassembly.accept(Sequence::new(1), false, &[0, 0xc4]), Arrival::Apdu(vec![0xc4]));
        assert!(!reassembly.is_partial());
    }

    // Negative control: leave out the length check in `accept`.
    #[test]
    fn reassembly_is_bounded() {
        let mut reassembly = Reassembly::new(parameters(32, 1), 61);
        assert_eq!(reassembly.accept(Sequence::new(0), true, &[0; 32]), Arrival::Segment);
        assert_eq!(reassembly.accept(Sequence::new(1), true, &[0; 32]), Arrival::Segment);
        assert_eq!(reassembly.accept(Sequence::new(2), true, &[0; 1]), Arrival::TooLong);
        assert!(!reassembly.is_partial());
    }
}
