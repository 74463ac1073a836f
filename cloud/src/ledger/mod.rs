//! The ledger: which batches of a gateway are settled. A plain struct; the log keeps its encoding, one record a gateway.
//!
//! Per incarnation there is a *watermark* (every seq up to it is settled) and what is settled beyond it. A seq is settled when
//! it is
//! - *applied*: in store and log;
//! - *refused*: in quarantine. The watermark passes it only after the gateway's floor did, that is, after the refusal is on the
//!   gateway's disk; until then every receipt repeats it;
//! - *abandoned*: the gateway sealed its rows anew under another seq;
//! - *lost*: the gateway's floor says that it was settled, and the cloud has forgotten it (restored from an older copy, created
//!   anew) and has no payload of it. It stays listed, receipts except it, and a ref for one is applied.
//!
//! The caller owns the order: [`GatewayLedger::forgotten`] *before* a floor is noted, so that what still lies in the landing
//! area is applied and only the rest becomes lost with [`GatewayLedger::note_floor`].
//!
//! What it holds of a gateway is bounded (`room.rs`).

mod room;
mod speakers;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use protocols::metering::UtcMillis;
use protocols::uplink::{BatchRef, GatewayId, IncarnationStatus, Receipt, RefusedSeq, SeqSet, Status};

pub use room::LEDGER_BYTES_MAX;
pub use speakers::{Mark, Twins};
pub use wire::LedgerError;

use speakers::Speakers;

/// An incarnation is forgotten this long after its last ref, or the last status that named it, by a status that does not: a
/// gateway names those of the last 400 days, and one that it still names must not look as if the cloud had lost all of it.
const FORGOTTEN_AFTER_MS: i64 = 400 * 86_400_000;
/// A gateway that restarts ten times a day for 400 days has half of this; beyond it the one heard of longest ago goes.
const INCARNATIONS_MAX: usize = 8_192;
/// What a receipt lists of each kind, so that it stays below `RECEIPT_BYTES_MAX`; a range is at most 19 bytes.
const RECEIPT_RANGES_MAX: usize = 700;
const RECEIPT_REFUSED_MAX: usize = 64;
/// Of a refusal's reason. Quarantine has it in full.
const REASON_BYTES_MAX: usize = 200;
const SOFTWARE_BYTES_MAX: usize = 64;
/// The reason given again for a seq that the gateway had settled as refused and asks about once more.
const REFUSED_BEFORE: &str = "refused before; quarantine has the reason";

/// What the ledger says to a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not settled, or lost: fetch the payload and judge it.
    New,
    /// In store and log: a receipt, nothing else.
    Applied,
    Refused(String),
    /// The gateway itself says that it is settled: dropped and counted.
    Stale,
}

/// What is settled of one incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Incarnation {
    watermark: u64,
    /// Beyond the watermark.
    applied: SeqSet,
    /// Not yet settled on the gateway's disk, as far as is known.
    refused: BTreeMap<u64, String>,
    /// Refused, and the gateway knows.
    refused_past: SeqSet,
    lost: SeqSet,
    abandoned: SeqSet,
    last_sealed: u64,
    /// The greatest heard of.
    floor: u64,
    last_heard_at: UtcMillis,
}

/// The newest status of a gateway, for showing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusDigest {
    /// When it was appended to the log.
    pub received_at: UtcMillis,
    pub written_at: UtcMillis,
    pub software: String,
    pub backlog_rows: u64,
    pub backlog_since: Option<UtcMillis>,
    pub dropped: u64,
    pub repeated: u64,
}

/// All that is settled of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayLedger {
    incarnations: BTreeMap<u64, Incarnation>,
    status: Option<StatusDigest>,
    speakers: Speakers,
}

/// What the refs of one incarnation in one commit asked, and what is no matter of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answers {
    /// Every seq that was asked about: these are listed before others when a receipt must be cut short.
    pub asked: SeqSet,
    /// The landing area does not have it, or has other bytes.
    pub resend: SeqSet,
    /// Cannot be judged yet.
    pub later: SeqSet,
}

impl GatewayLedger {
    pub fn incarnations(&self) -> impl Iterator<Item = (u64, &Incarnation)> {
        self.incarnations.iter().map(|(&incarnation, ledger)| (incarnation, ledger))
    }

    pub fn incarnation(&self, incarnation: u64) -> Option<&Incarnation> {
        self.incarnations.get(&incarnation)
    }

    pub fn status(&self) -> Option<&StatusDigest> {
        self.status.as_ref()
    }

    /// Two gateways that used this id, when it showed last.
    pub fn twins(&self) -> Option<&Twins> {
        self.speakers.twins.as_ref()
    }

    pub fn lookup(&self, reference: &BatchRef) -> Verdict {
        let seq = reference.id.seq;
        if reference.floor > seq {
            return Verdict::Stale;
        }
        self.incarnations.get(&reference.id.incarnation).map_or(Verdict::New, |ledger| ledger.lookup(seq))
    }

    /// A ref that is not stale arrived: it keeps its incarnation remembered. It names no other, and so makes none forgotten by
    /// its age: the clock that dated it may be a year ahead.
    pub fn hear_ref(&mut self, reference: &BatchRef, appended_at: UtcMillis) {
        let incarnation = reference.id.incarnation;
        let ledger = self.heard(incarnation, appended_at);
        ledger.last_sealed = ledger.last_sealed.max(reference.id.seq);
        self.forget_beyond_bound(&BTreeSet::from([incarnation]));
    }

    /// Takes over what the gateway says of itself, except the floors: those are for [`Self::forgotten`] and [`Self::note_floor`].
    /// True when it shows that two gateways use the id.
    pub fn hear_status(&mut self, status: &Status, appended_at: UtcMillis) -> bool {
        // By the clock of the status before, too: one that is dated a year ahead makes nothing forgotten.
        let now = self.status.as_ref().map_or(appended_at, |before| before.received_at.min(appended_at));
        self.status = Some(StatusDigest {
            received_at: appended_at,
            written_at: status.written_at,
            software: cut(&status.software, SOFTWARE_BYTES_MAX),
            backlog_rows: status.backlog_rows,
            backlog_since: status.backlog_since,
            dropped: status.dropped,
            repeated: status.repeated,
        });
        for said in &status.incarnations {
            let ledger = self.heard(said.incarnation, appended_at);
            ledger.last_sealed = ledger.last_sealed.max(said.last_sealed);
        }
        self.incarnations.retain(|_, ledger| now.since(ledger.last_heard_at) < FORGOTTEN_AFTER_MS);
        self.forget_beyond_bound(&status.incarnations.iter().map(|said| said.incarnation).collect());
        self.abandon(status);
        self.speakers.hear(status, appended_at)
    }

    /// The seqs below `floor` of which the cloud knows nothing, though the gateway says that they are settled.
    pub fn forgotten(&self, incarnation: u64, floor: u64) -> SeqSet {
        match self.incarnations.get(&incarnation) {
            Some(ledger) => ledger.forgotten(floor),
            None => SeqSet::new().missing_in(1, floor.saturating_sub(1)),
        }
    }

    /// As [`Self::forgotten`], for what a status says of one incarnation, its abandoned seqs considered.
    pub fn forgotten_by_status(&self, said: &IncarnationStatus) -> SeqSet {
        difference(&self.forgotten(said.incarnation, status_floor(said)), &said.abandoned)
    }

    /// The same, of all incarnations that a status names and [`Self::hear_status`] will keep. Of those beyond the bound no floor is
    /// noted: they would be looked for again with each status.
    pub fn all_forgotten_by_status(&self, status: &Status, appended_at: UtcMillis) -> Vec<(u64, SeqSet)> {
        let kept = self.kept_of(status, appended_at);
        let is_kept = |incarnation: u64| kept.as_ref().is_none_or(|kept| kept.contains(&incarnation));
        let said = status.incarnations.iter().filter(|said| is_kept(said.incarnation));
        said.map(|said| (said.incarnation, self.forgotten_by_status(said)))
            .filter(|(_, seqs)| !seqs.is_empty())
            .collect()
    }

    /// Everything below `floor` is settled on the gateway's disk. What the cloud knows nothing of is lost from now on and is
    /// returned. `None`: there is no room for that, and the floor is ignored.
    pub fn note_floor(&mut self, incarnation: u64, floor: u64) -> Option<SeqSet> {
        let mut room = self.room();
        self.change_floor(&mut room, incarnation, floor)
    }

    /// As [`Self::note_floor`], for every incarnation that a status names.
    pub fn note_status_floors(&mut self, status: &Status) -> Vec<(u64, SeqSet)> {
        let mut room = self.room();
        let (mut noted, mut ignored) = (Vec::new(), 0);
        for said in &status.incarnations {
            // One that is beyond the bound is not begun here.
            if !self.incarnations.contains_key(&said.incarnation) {
                continue;
            }
            match self.change_floor(&mut room, said.incarnation, status_floor(said)) {
                Some(lost) if lost.is_empty() => {}
                Some(lost) => noted.push((said.incarnation, lost)),
                None => ignored += 1,
            }
        }
        if ignored > 0 {
            tracing::warn!(gateway = %status.gateway, incarnations = ignored, "the ledger is full: floors are ignored");
        }
        noted
    }

    /// Without asking for room: for what the log holds already.
    pub fn apply(&mut self, incarnation: u64, seq: u64) {
        self.incarnations.entry(incarnation).or_default().apply(seq);
    }

    /// False when there is no room for it: nothing has changed, and the batch must wait.
    pub fn try_apply(&mut self, incarnation: u64, seq: u64) -> bool {
        let mut room = self.room();
        self.change(&mut room, incarnation, |ledger| ledger.apply(seq)).is_some()
    }

    /// As [`Self::try_apply`].
    pub fn refuse(&mut self, incarnation: u64, seq: u64, reason: &str) -> bool {
        let mut room = self.room();
        self.change(&mut room, incarnation, |ledger| ledger.refuse(seq, reason)).is_some()
    }

    /// A batch that the log shows to be applied, for a ledger that is lost. Whatever room it takes: what is left out here would be
    /// applied again.
    pub fn restore(&mut self, incarnation: u64, seq: u64, committed_at: UtcMillis) {
        let ledger = self.heard(incarnation, committed_at);
        ledger.last_sealed = ledger.last_sealed.max(seq);
        ledger.apply(seq);
    }

    /// The cumulative word on one incarnation, never longer than `RECEIPT_BYTES_MAX`.
    pub fn receipt(&self, gateway: &GatewayId, incarnation: u64, answers: &Answers, now: UtcMillis) -> Receipt {
        let unknown = Incarnation::default();
        self.incarnations.get(&incarnation).unwrap_or(&unknown).receipt(gateway, incarnation, answers, now)
    }

    fn heard(&mut self, incarnation: u64, at: UtcMillis) -> &mut Incarnation {
        let ledger = self.incarnations.entry(incarnation).or_default();
        ledger.last_heard_at = ledger.last_heard_at.max(at);
        ledger
    }

    /// `None`: all that the status names, before which all others are forgotten.
    fn kept_of(&self, status: &Status, appended_at: UtcMillis) -> Option<BTreeSet<u64>> {
        if status.incarnations.len() <= INCARNATIONS_MAX {
            return None;
        }
        let heard_at = |incarnation: u64| {
            let known = self.incarnations.get(&incarnation);
            known.map_or(appended_at, |ledger| ledger.last_heard_at.max(appended_at))
        };
        let named = status.incarnations.iter().map(|said| said.incarnation);
        let oldest_first: BTreeSet<(UtcMillis, u64)> = named.map(|named| (heard_at(named), named)).collect();
        Some(oldest_first.into_iter().rev().take(INCARNATIONS_MAX).map(|(_, incarnation)| incarnation).collect())
    }

    fn forget_beyond_bound(&mut self, named: &BTreeSet<u64>) {
        let beyond = self.incarnations.len().saturating_sub(INCARNATIONS_MAX);
        if beyond == 0 {
            return;
        }
        let heard = self.incarnations.iter();
        let mut oldest: Vec<(bool, UtcMillis, u64)> = heard
            .map(|(&incarnation, ledger)| (named.contains(&incarnation), ledger.last_heard_at, incarnation))
            .collect();
        oldest.sort_unstable();
        for (_, _, incarnation) in oldest.into_iter().take(beyond) {
            self.incarnations.remove(&incarnation);
        }
    }

    fn abandon(&mut self, status: &Status) {
        let mut room = self.room();
        for said in status.incarnations.iter().filter(|said| !said.abandoned.is_empty()) {
            if self.change(&mut room, said.incarnation, |ledger| ledger.abandon(&said.abandoned)).is_none() {
                let (incarnation, ranges) = (format!("{:016x}", said.incarnation), said.abandoned.ranges().len());
                tracing::warn!(gateway = %status.gateway, incarnation, ranges, "the ledger is full: abandoned batches are ignored");
            }
        }
    }
}

impl Incarnation {
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    pub fn last_sealed(&self) -> u64 {
        self.last_sealed
    }

    pub fn floor(&self) -> u64 {
        self.floor
    }

    pub fn last_heard_at(&self) -> UtcMillis {
        self.last_heard_at
    }

    pub fn lost(&self) -> &SeqSet {
        &self.lost
    }

    pub fn abandoned(&self) -> &SeqSet {
        &self.abandoned
    }

    /// Every seq that was ever refused.
    pub fn refused(&self) -> SeqSet {
        let mut all = self.refused_past.clone();
        for &seq in self.refused.keys() {
            all.insert(seq);
        }
        all
    }

    /// How many are in store and log.
    pub fn applied_count(&self) -> u64 {
        let below = |set: &SeqSet| set.len() - beyond(set, self.watermark).len();
        let refused_below = self.refused.range(..=self.watermark).count() as u64;
        let others = below(&self.refused_past) + refused_below + below(&self.lost) + below(&self.abandoned);
        self.watermark - others + self.applied.len()
    }

    pub fn is_applied(&self, seq: u64) -> bool {
        self.lookup(seq) == Verdict::Applied
    }

    fn lookup(&self, seq: u64) -> Verdict {
        if let Some(reason) = self.refused.get(&seq) {
            Verdict::Refused(reason.clone())
        } else if self.refused_past.contains(seq) {
            Verdict::Refused(REFUSED_BEFORE.to_owned())
        } else if self.lost.contains(seq) || self.abandoned.contains(seq) {
            // An abandoned batch that comes after all is taken: at worst its readings are there twice with the same values.
            Verdict::New
        } else if seq <= self.watermark || self.applied.contains(seq) {
            Verdict::Applied
        } else {
            Verdict::New
        }
    }

    fn apply(&mut self, seq: u64) {
        self.lost.remove(seq);
        self.abandoned.remove(seq);
        if seq > self.watermark {
            self.applied.insert(seq);
            self.advance();
        }
    }

    fn refuse(&mut self, seq: u64, reason: &str) {
        self.lost.remove(seq);
        self.abandoned.remove(seq);
        self.refused.insert(seq, cut(reason, REASON_BYTES_MAX));
    }

    fn abandon(&mut self, said: &SeqSet) {
        // What is applied or refused stays so. What was lost was not really: its rows come under other seqs.
        let unknown = self.unknown_through(self.last_sealed);
        self.abandoned = union(&[&self.abandoned, &common(said, &unknown), &common(said, &self.lost)]);
        self.lost = difference(&self.lost, said);
        self.advance();
    }

    fn forgotten(&self, floor: u64) -> SeqSet {
        self.unknown_through(floor.saturating_sub(1))
    }

    /// The seqs beyond the watermark, up to and including `last`, of which nothing is known.
    fn unknown_through(&self, last: u64) -> SeqSet {
        if last <= self.watermark {
            return SeqSet::new();
        }
        let refused: SeqSet = self.refused.keys().copied().collect();
        let known = union(&[&self.applied, &self.abandoned, &self.refused_past, &refused]);
        known.missing_in(self.watermark + 1, last)
    }

    fn note_floor(&mut self, floor: u64) -> SeqSet {
        self.floor = self.floor.max(floor);
        // The floor that arrives, not the greatest heard of: a gateway restored from a copy asks again from further back, and
        // a refusal that it was given since is not on its disk yet.
        let open = self.refused.split_off(&floor);
        for seq in std::mem::replace(&mut self.refused, open).into_keys() {
            self.refused_past.insert(seq);
        }
        let lost = self.forgotten(floor);
        self.lost = union(&[&self.lost, &lost]);
        self.advance();
        lost
    }

    fn advance(&mut self) {
        while let Some(next) = self.watermark.checked_add(1).filter(|next| !self.refused.contains_key(next)) {
            let settled = [&self.applied, &self.refused_past, &self.lost, &self.abandoned];
            let Some(end) = settled.into_iter().find_map(|set| end_of_run(set, next)) else { break };
            // A refusal that is not settled ends the run, even one that lies within it.
            let open = self.refused.range(next..=end).next().map(|(&seq, _)| seq - 1);
            self.watermark = open.unwrap_or(end);
        }
        self.applied.remove_through(self.watermark);
    }

    fn receipt(&self, gateway: &GatewayId, incarnation: u64, answers: &Answers, now: UtcMillis) -> Receipt {
        let (lost, applied_through) = match self.lost.ranges().get(RECEIPT_RANGES_MAX) {
            // What cannot be listed must not be covered either.
            Some(&(first, _)) => (first_ranges(&self.lost), self.watermark.min(first - 1)),
            None => (self.lost.clone(), self.watermark),
        };
        let mut applied = first_ranges(&self.applied);
        let asked = || answers.asked.iter().take(RECEIPT_RANGES_MAX);
        for seq in asked().filter(|&seq| seq > applied_through && self.is_applied(seq)) {
            applied.insert(seq);
        }
        let refusal = |seq: u64| match self.lookup(seq) {
            Verdict::Refused(reason) => Some((seq, reason)),
            _ => None,
        };
        let mut refused: BTreeMap<u64, String> = asked().filter_map(refusal).take(RECEIPT_REFUSED_MAX).collect();
        for (&seq, reason) in &self.refused {
            if refused.len() >= RECEIPT_REFUSED_MAX {
                break;
            }
            refused.entry(seq).or_insert_with(|| reason.clone());
        }
        let unsettled = |set: &SeqSet| {
            set.iter().filter(|&seq| self.lookup(seq) == Verdict::New).take(RECEIPT_RANGES_MAX / 2).collect()
        };
        Receipt {
            gateway: gateway.clone(),
            incarnation,
            applied_through,
            applied,
            refused: refused.into_iter().map(|(seq, reason)| RefusedSeq { seq, reason }).collect(),
            resend: unsettled(&answers.resend),
            later: unsettled(&answers.later),
            lost,
            cloud_time: now,
        }
    }
}

/// A status that claims a floor beyond what it sealed settles no more than what it sealed.
fn status_floor(said: &IncarnationStatus) -> u64 {
    said.floor.min(said.last_sealed.saturating_add(1))
}

/// The end of the range that holds `seq`.
fn end_of_run(set: &SeqSet, seq: u64) -> Option<u64> {
    let after = set.ranges().partition_point(|&(first, _)| first <= seq);
    let &(_, last) = set.ranges().get(after.checked_sub(1)?)?;
    (seq <= last).then_some(last)
}

/// What both sets hold.
fn common(a: &SeqSet, b: &SeqSet) -> SeqSet {
    let mut common = SeqSet::new();
    let (mut left, mut right) = (a.ranges().iter().peekable(), b.ranges().iter().peekable());
    while let (Some(&&(a_first, a_last)), Some(&&(b_first, b_last))) = (left.peek(), right.peek()) {
        common.insert_range(a_first.max(b_first), a_last.min(b_last));
        if a_last < b_last {
            left.next()
        } else {
            right.next()
        };
    }
    common
}

/// What any of them holds. In one walk: thousands of ranges put into each other one by one would take seconds.
fn union(sets: &[&SeqSet]) -> SeqSet {
    let mut ranges: Vec<(u64, u64)> = sets.iter().flat_map(|set| set.ranges()).copied().collect();
    ranges.sort_unstable();
    let mut union = SeqSet::new();
    for (first, last) in ranges {
        union.insert_range(first, last);
    }
    union
}

/// What `a` holds and `b` does not.
fn difference(a: &SeqSet, b: &SeqSet) -> SeqSet {
    match (a.first(), a.last()) {
        (Some(first), Some(last)) => common(a, &b.missing_in(first, last)),
        _ => SeqSet::new(),
    }
}

fn beyond(set: &SeqSet, seq: u64) -> SeqSet {
    let mut rest = set.clone();
    rest.remove_through(seq);
    rest
}

fn first_ranges(set: &SeqSet) -> SeqSet {
    let mut first = SeqSet::new();
    for &(start, end) in set.ranges().iter().take(RECEIPT_RANGES_MAX) {
        first.insert_range(start, end);
    }
    first
}

fn cut(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
