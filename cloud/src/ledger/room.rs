//! How much a gateway's ledger may hold. It is one record of the log, written with each commit that changes it: without a bound a
//! gateway that is hostile or broken would make one that the log does not take, and nobody of its partition would ever be
//! answered again.
//!
//! The incarnations are bounded by their number, what is listed of all of them together by its bytes. What has no room is not
//! taken over, and nothing else gives way to it:
//! - a batch is neither applied nor refused, and its ref answered `later`. Seqs that come in their order need no room, so that a
//!   gateway goes on where its ledger is full;
//! - abandoned seqs are ignored: they count as lost once the floor has passed them;
//! - a floor is ignored: what it says to be settled stays open, and is looked for in the landing area again with the next ref. So is
//!   one that would call something lost while there is little room: that may lie in the landing area, and have been left there.
//!
//! An incarnation that is not known yet takes the place of the one that was heard of longest ago, as it does once its ref is heard.
//!
//! So nothing is ever called settled that is not, and nothing that was applied is forgotten.

use std::collections::BTreeSet;

use protocols::uplink::SeqSet;

use super::{GatewayLedger, INCARNATIONS_MAX, Incarnation, REASON_BYTES_MAX};

/// Of all lists of a gateway: 40,000 ranges of numbers below 2^32, or 2,200 open refusals with the longest of reasons. A gateway
/// that seals a batch a minute, of which every second one is refused, gets there after two months.
pub(super) const LISTS_BYTES_MAX: usize = 480_000;
/// Of an incarnation whose lists are empty: an array of five numbers and five lists.
const INCARNATION_BYTES_MAX: usize = 1 + 5 * 9 + 5;
/// What one seq takes at the most: a refusal with the longest of reasons, and longer heads of what it stands in.
const ONE_SEQ_BYTES_MAX: isize = REASON_BYTES_MAX as isize + 32;
/// Of status and speakers, which have bounds of their own, and of what is around it all.
const REST_BYTES_MAX: usize = 4_096;
/// No gateway can make its ledger longer. One that an older program has let grow beyond it may only shrink; one that is made anew of
/// batches (`restore`) is as long as it must be, in a log that takes records of any length.
pub const LEDGER_BYTES_MAX: usize = INCARNATIONS_MAX * INCARNATION_BYTES_MAX + LISTS_BYTES_MAX + REST_BYTES_MAX;

impl GatewayLedger {
    /// How many bytes the lists may still grow by; below zero in a ledger that has too much already.
    pub(super) fn room(&self) -> isize {
        let taken: usize = self.incarnations.values().map(Incarnation::lists_bytes).sum();
        LISTS_BYTES_MAX as isize - taken as isize
    }

    /// Changes what is known of one incarnation, if there is room for that: `None` says that nothing has changed.
    pub(super) fn change<T>(
        &mut self,
        room: &mut isize,
        incarnation: u64,
        change: impl FnOnce(&mut Incarnation) -> T,
    ) -> Option<T> {
        let before = self.incarnations.get(&incarnation);
        let is_new = before.is_none();
        let bytes_before = before.map_or(0, Incarnation::lists_bytes);
        let mut after = before.cloned().unwrap_or_default();
        let answer = change(&mut after);
        let growth = after.lists_bytes() as isize - bytes_before as isize;
        if growth > 0 && growth > *room {
            return None;
        }
        *room -= growth;
        if is_new {
            let heard = self.incarnations.values().map(|known| known.last_heard_at);
            after.last_heard_at = heard.max().unwrap_or_default();
        }
        self.incarnations.insert(incarnation, after);
        if is_new {
            self.forget_beyond_bound(&BTreeSet::from([incarnation]));
        }
        Some(answer)
    }

    /// [`Incarnation::note_floor`], where there is room for it, and for whatever it would call lost.
    pub(super) fn change_floor(&mut self, room: &mut isize, incarnation: u64, floor: u64) -> Option<SeqSet> {
        if *room < ONE_SEQ_BYTES_MAX && !self.forgotten(incarnation, floor).is_empty() {
            return None;
        }
        self.change(room, incarnation, |ledger| ledger.note_floor(floor))
    }
}

impl Incarnation {
    /// What its lists add to its encoding, where an empty one has one byte.
    pub(super) fn lists_bytes(&self) -> usize {
        let sets = [&self.applied, &self.refused_past, &self.lost, &self.abandoned];
        let refusals = self.refused.iter().map(|(seq, reason)| {
            let len = reason.len();
            1 + head_bytes(*seq) + head_bytes(len as u64) + len
        });
        let refused = head_bytes(self.refused.len() as u64) - 1 + refusals.sum::<usize>();
        refused + sets.into_iter().map(ranges_bytes).sum::<usize>()
    }
}

fn ranges_bytes(set: &SeqSet) -> usize {
    let ranges = set.ranges();
    let pairs = ranges.iter().map(|&(first, last)| 1 + head_bytes(first) + head_bytes(last));
    head_bytes(ranges.len() as u64) - 1 + pairs.sum::<usize>()
}

/// Of the head of a CBOR item (RFC 8949, 3): all of a number, and what stands before a text or an array of that length.
const fn head_bytes(argument: u64) -> usize {
    match argument {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}
