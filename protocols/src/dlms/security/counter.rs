//! Invocation counters: our own, of which none may be used twice, and those that peers have used.

use super::{ProtectionError, SystemTitle};

/// The invocation counters that the owner has reserved for this side.
///
/// Two APDUs with the same counter under the same key give the authentication away. So the owner writes down the end of a
/// range before it hands the range over, and after a start begins at the end that is written down, whatever was used of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Counter {
    next: u32,
    end: u32,
}

impl Counter {
    /// Fewer than these left: time to reserve more. A long profile in small blocks takes hundreds.
    pub const LOW: u32 = 256;

    /// `first..end`. 4,294,967,295 is never used: with it a key is spent.
    pub const fn reserved(first: u32, end: u32) -> Self {
        Self { next: first, end }
    }

    /// The next one to be used; `None` when the range is used up.
    #[expect(clippy::should_implement_trait, reason = "a counter is no iterator that could be cloned or collected")]
    pub fn next(&mut self) -> Option<u32> {
        let next = self.peek()?;
        self.next += 1;
        Some(next)
    }

    /// What [`Self::next`] answers next.
    pub const fn peek(&self) -> Option<u32> {
        if self.next < self.end { Some(self.next) } else { None }
    }

    /// How many may still be used.
    pub const fn left(&self) -> u32 {
        self.end.saturating_sub(self.next)
    }

    /// Whether the owner ought to reserve more, and [`Self::extend`].
    pub const fn is_low(&self) -> bool {
        self.left() < Self::LOW
    }

    /// The owner has written down that counters below `end` are used. A lower end than before changes nothing.
    pub fn extend(&mut self, end: u32) {
        self.end = self.end.max(end);
    }

    /// Jumps ahead, as a peer asks that has seen greater ones (invocation-counter-error). What lies before is never used; whether
    /// `next` is reserved is for [`Self::extend`] to say.
    pub fn skip_to(&mut self, next: u32) {
        self.next = self.next.max(next);
    }
}

/// Which key a counter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeySet {
    GlobalUnicast,
    GlobalBroadcast,
    Dedicated,
    /// Those that came under the key-encrypting key, all of them: a counter goes on from one to the next.
    Wrapped,
    /// Those that were agreed on, all of them.
    Agreed,
}

impl KeySet {
    /// Whether general-ciphering brings the key.
    pub(super) const fn is_transported(self) -> bool {
        matches!(self, Self::Wrapped | Self::Agreed)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::GlobalUnicast => "global unicast",
            Self::GlobalBroadcast => "global broadcast",
            Self::Dedicated => "dedicated",
            Self::Wrapped => "wrapped",
            Self::Agreed => "agreed",
        }
    }
}

/// The greatest invocation counter that each peer has used with each key. Smaller ones, and the same, are replays.
///
/// To be kept across sessions, or what was recorded of one can be replayed into the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceivedCounters {
    greatest: Vec<(KeySet, SystemTitle, u32)>,
    /// How many of them the owner knew before.
    known: usize,
    /// For how many there is room beyond [`Self::PEERS_MAX`].
    room: usize,
}

impl ReceivedCounters {
    /// A meter has a handful of clients. Only who has the key is remembered; whom the owner knew does not count.
    pub const PEERS_MAX: usize = 64;

    /// What was kept from before, one for each key set and title.
    pub fn known(counters: impl IntoIterator<Item = (KeySet, SystemTitle, u32)>) -> Self {
        let greatest: Vec<_> = counters.into_iter().collect();
        let known = greatest.len();
        Self { greatest, known, room: 0 }
    }

    /// For a side to which more peers come than a meter has clients: `peers` besides those that were known.
    #[must_use]
    pub fn with_room(self, peers: usize) -> Self {
        Self { room: peers.saturating_sub(Self::PEERS_MAX), ..self }
    }

    pub fn greatest(&self, keys: KeySet, peer: SystemTitle) -> Option<u32> {
        self.iter().find(|(set, title, _)| (*set, *title) == (keys, peer)).map(|(.., counter)| counter)
    }

    pub fn iter(&self) -> impl Iterator<Item = (KeySet, SystemTitle, u32)> + '_ {
        self.greatest.iter().copied()
    }

    /// From now on only greater ones are accepted.
    pub fn remember(&mut self, keys: KeySet, peer: SystemTitle, counter: u32) -> Result<(), ProtectionError> {
        let of_peer = self.greatest.iter_mut().find(|(set, title, _)| (*set, *title) == (keys, peer));
        if let Some((.., greatest)) = of_peer {
            *greatest = counter.max(*greatest);
            return Ok(());
        }
        let limit = Self::PEERS_MAX + self.room;
        if self.greatest.len() >= self.known + limit {
            return Err(ProtectionError::TooManyPeers { limit });
        }
        self.greatest.push((keys, peer, counter));
        Ok(())
    }

    /// A key of this kind is new: with it counters begin anew.
    pub(super) fn forget(&mut self, keys: KeySet) {
        self.greatest.retain(|(set, ..)| *set != keys);
        self.known = self.known.min(self.greatest.len());
    }

    pub(super) fn check(&self, keys: KeySet, peer: SystemTitle, counter: u32) -> Result<(), ProtectionError> {
        match self.greatest(keys, peer) {
            Some(greatest) if counter <= greatest => {
                Err(ProtectionError::Replayed { counter, expected: greatest.saturating_add(1) })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_used_once_and_only_when_reserved() {
        let mut counter = Counter::reserved(7, 9);
        assert!(counter.is_low());
        assert_eq!([counter.next(), counter.next(), counter.next()], [Some(7), Some(8), None]);
        counter.extend(8);
        assert_eq!(counter.next(), None);
        counter.extend(1_009);
        assert_eq!((counter.left(), counter.is_low(), counter.next()), (1_000, false, Some(9)));
        counter.skip_to(5);
        assert_eq!(counter.next(), Some(10));
        counter.skip_to(2_000);
        assert_eq!((counter.left(), counter.next()), (0, None));
    }

    #[test]
    fn the_last_counter_of_all_is_never_used() {
        let mut counter = Counter::reserved(u32::MAX - 1, u32::MAX);
        assert_eq!([counter.next(), counter.next()], [Some(u32::MAX - 1), None]);
        counter.skip_to(u32::MAX);
        assert_eq!(counter.next(), None);
    }

    #[test]
    fn counters_of_peers_rise_for_each_of_them_and_each_key() {
        let (a, b) = (SystemTitle(*b"AAA00001"), SystemTitle(*b"BBB00001"));
        let mut received = ReceivedCounters::default();
        received.remember(KeySet::GlobalUnicast, a, 10).unwrap();
        let replayed = |counter| Err(ProtectionError::Replayed { counter, expected: 11 });
        assert_eq!(received.check(KeySet::GlobalUnicast, a, 10), replayed(10));
        assert_eq!(received.check(KeySet::GlobalUnicast, a, 0), replayed(0));
        for (keys, peer, counter) in
            [(KeySet::GlobalUnicast, a, 11), (KeySet::GlobalUnicast, b, 0), (KeySet::GlobalBroadcast, a, 0)]
        {
            assert_eq!(received.check(keys, peer, counter), Ok(()));
        }
        received.remember(KeySet::GlobalUnicast, a, 3).unwrap();
        assert_eq!(received.greatest(KeySet::GlobalUnicast, a), Some(10));
    }

    #[test]
    fn no_more_peers_are_remembered_than_there_is_room_for() {
        let mut received = ReceivedCounters::default();
        let peer = |number: u32| {
            let [a, b, c, d] = number.to_be_bytes();
            SystemTitle([0, 0, 0, 0, a, b, c, d])
        };
        for number in 0..64 {
            received.remember(KeySet::GlobalUnicast, peer(number), 1).unwrap();
        }
        let refused = Err(ProtectionError::TooManyPeers { limit: 64 });
        assert_eq!(received.remember(KeySet::GlobalUnicast, peer(64), 1), refused);
        assert_eq!(received.remember(KeySet::GlobalUnicast, peer(63), 2), Ok(()));
        let mut roomy = received.with_room(66);
        assert_eq!([64, 65].map(|number| roomy.remember(KeySet::GlobalUnicast, peer(number), 1)), [Ok(()), Ok(())]);
        let refused = Err(ProtectionError::TooManyPeers { limit: 66 });
        assert_eq!(roomy.remember(KeySet::GlobalUnicast, peer(66), 1), refused);
    }
}
