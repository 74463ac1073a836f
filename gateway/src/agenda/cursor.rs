//! How far a profile is read, so that nothing is skipped, whatever dies when.
//!
//! # What has to hold
//!
//! Every entry that the meter captures is stored at least once. Storing it twice is harmless: its identity is (series, label,
//! nth), and the sinks overwrite like with like. So every doubt is resolved by reading again, never by moving on.
//!
//! # What is kept
//!
//! Labels are instants of the **meter's** clock; nothing here looks at ours. The cursor is a `head` and a few `gaps`:
//!
//! > every entry with a label below `head` is on the disk, unless its label lies in a gap.
//!
//! A *live* read asks for everything from `head` on. After an outage that is more than one chunk; then only the newest chunk
//! is read, and what lies between becomes a gap. A *backfill* read takes the newest chunk off the newest gap. So after any
//! outage the newest day comes first, and the days before it follow, one at a time.
//!
//! # Why a crash loses nothing
//!
//! A read answers with readings **and** with the cursor as it is after it, and both go to the disk in one transaction of the
//! outbox. Before that transaction the old cursor stands and the chunk will be asked for again. After it the readings are
//! there. There is no third state: a gap is a row of its own (`from`, `to`), not something to be derived from the order in which
//! chunks were read, so reading newest first needs no luck. In memory the cursor moves only once the transaction is known to
//! have succeeded; when that is not known, the cursor is forgotten and loaded from the disk again.
//!
//! # How far `head` may move
//!
//! Not to the meter's time: an entry labelled 10:00 may become visible at 10:00:03, and a clock read at 10:00:01 would have
//! moved past it. It moves to just after the last label that was delivered, and otherwise to no later than a *settling time*
//! before the meter's time, beyond which an entry that is not there will not come any more: an hour, or two capture periods,
//! since some meters label an entry with the begin of its period. In a session in which the meter did not tell its time it moves to
//! labels alone. Every live read begins a little below `head`, by what a
//! clock may be set back without being noticed.
//!
//! # A clock that is set
//!
//! Forwards: labels jump, and the range from `head` on contains them. When it is longer than any buffer is deep, its middle
//! cannot hold entries: only its two ends become gaps.
//!
//! Backwards: new entries get labels that were passed before, and reading on from `head` would miss them. The difference
//! between the meter's clock and ours is kept on the disk beside the cursor; when it has shrunk by more than clocks drift,
//! `head` is taken back by as much, and what the old clock may have labelled beyond it becomes a gap. Entries read before are read again; those with a label that exists twice are told apart by
//! `nth`, which the meter's whole answer gives, since a chunk never cuts between equal labels. When our own clock was wrong,
//! and not the meter's, the same happens for nothing, and does no harm.
//!
//! More than once between two sessions: set back and then forward, a clock hides where it has been, and only the sum is seen.
//! So after a change of more than a minute, in whichever direction, the day below `head` becomes a gap too. What no reader of
//! labels can see: changes that add up to next to nothing.
//!
//! # What the cloud holds
//!
//! A profile that this outbox has never read may have been read by another: the outbox was lost, or the gateway is new. What
//! lies below the label `unasked_below` is missing for no other reason, so the cloud may be asked which of it it holds
//! ([`crate::held`]), and that need not be read. Until there is an answer it is a gap like any other. After a clock was set
//! nobody is asked: the cloud's answer does not tell apart two entries with one label.

use protocols::metering::UtcMillis;

pub const HOUR_MS: i64 = 3_600_000;
pub const DAY_MS: i64 = 24 * HOUR_MS;
/// No buffer of a meter is deeper: a year of quarter hours is 35,040 entries.
const BUFFER_MS_MAX: i64 = 400 * DAY_MS;
/// After a leap of the clock: how long the meter may have gone on with the old clock since the last read.
const LEAP_EDGE_MS: i64 = 40 * DAY_MS;
/// Gaps that are kept apart. When there are more, the two oldest become one, and what lies between them is read again.
pub const GAPS_MAX: usize = 8;
/// Below this a shrinking offset is drift, or the measure itself, which is good to a second.
const REWIND_NOTICED_MS: i64 = 8_000;
/// Beyond this it is no drift since the last session: somebody set the clock.
const SET_NOTICED_MS: u64 = 60_000;
/// What is read again below `head`: more than can go unnoticed.
const REWIND_TOLERANCE_MS: i64 = 10_000;

/// Labels from `from` up to, and without, `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: UtcMillis,
    pub to: UtcMillis,
}

impl Span {
    pub const fn new(from: UtcMillis, to: UtcMillis) -> Self {
        Self { from, to }
    }

    pub const fn contains(self, label: UtcMillis) -> bool {
        self.from.0 <= label.0 && label.0 < self.to.0
    }

    const fn is_empty(self) -> bool {
        self.from.0 >= self.to.0
    }
}

/// What follows from a profile's capture period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// The longest range of one read.
    pub chunk_ms: i64,
    /// An entry that is not visible so long after its label does not exist.
    pub settling_ms: i64,
}

impl Rhythm {
    /// One day; of profiles with few entries, as many periods as a day has quarter hours. A profile that is captured on events
    /// (period 0) has few.
    pub fn of(capture_period_s: u32) -> Self {
        let period_ms = i64::from(capture_period_s) * 1000;
        let chunk_ms = if period_ms == 0 { 30 * DAY_MS } else { DAY_MS.max(96 * period_ms) };
        Self { chunk_ms, settling_ms: HOUR_MS.max(2 * period_ms) }
    }

    /// When nobody knows what the meter's clock shows: what is not there may still come.
    #[must_use]
    pub fn that_never_settles(self) -> Self {
        Self { settling_ms: i64::MAX / 4, ..self }
    }
}

/// How far one profile is read; see the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileCursor {
    head: UtcMillis,
    /// Disjoint, oldest first. One may lie above `head`: what a clock had labelled before it was set back.
    gaps: Vec<Span>,
    /// What is missing below this label was never read by this outbox, and the cloud has not been asked for it.
    unasked_below: Option<UtcMillis>,
}

impl ProfileCursor {
    /// A profile that was never read: the first live read begins so many days ago.
    pub fn start(meter_now: UtcMillis, backfill_days: u32) -> Self {
        let head = meter_now.plus_ms(1 + REWIND_TOLERANCE_MS - i64::from(backfill_days) * DAY_MS);
        Self { head, gaps: Vec::new(), unasked_below: Some(meter_now.plus_ms(1)) }
    }

    pub fn head(&self) -> UtcMillis {
        self.head
    }

    pub fn gaps(&self) -> &[Span] {
        &self.gaps
    }

    /// What the cloud may be asked for: from the first label that is missing, up to a label beyond it.
    pub fn unasked(&self) -> Option<Span> {
        let below = self.unasked_below?;
        let oldest = self.gaps.first()?;
        Some(Span::new(oldest.from, below)).filter(|span| !span.is_empty())
    }

    /// The cursor after the cloud has named spans that it holds. They go from the gaps, as far as it was asked for them.
    #[must_use]
    pub fn after_answer(&self, held: &[Span]) -> Self {
        let mut next = self.clone();
        if let Some(below) = next.unasked_below.take() {
            for span in held {
                next.remove(Span::new(span.from, span.to.min(below)));
            }
        }
        next
    }

    /// What to ask for next, by a meter whose clock shows `meter_now`.
    pub fn live(&self, meter_now: UtcMillis, rhythm: Rhythm) -> Span {
        let to = meter_now.plus_ms(1).max(self.head);
        let newest = rhythm.chunk_ms.max(2 * rhythm.settling_ms);
        Span::new(self.overlap().max(to.plus_ms(-newest)), to)
    }

    /// Whether it stands where the meter's clock has not been yet: the clock was set back.
    pub fn is_ahead_of(&self, meter_now: UtcMillis) -> bool {
        self.head.since(meter_now) > REWIND_TOLERANCE_MS
    }

    /// Where a live read begins.
    fn overlap(&self) -> UtcMillis {
        self.head.plus_ms(-REWIND_TOLERANCE_MS)
    }

    /// Whether an entry with this label may be missing.
    pub fn lacks(&self, label: UtcMillis, meter_now: UtcMillis) -> bool {
        (self.overlap()..=meter_now).contains(&label) || self.gaps.iter().any(|gap| gap.contains(label))
    }

    /// The newest chunk of what is missing.
    pub fn backfill(&self, rhythm: Rhythm) -> Option<Span> {
        let gap = self.gaps.last()?;
        Some(Span::new(gap.from.max(gap.to.plus_ms(-rhythm.chunk_ms)), gap.to))
    }

    /// The cursor after a live read of `span` that brought entries up to `last_label`. To be stored with what was read.
    #[must_use]
    pub fn after_live(&self, span: Span, last_label: Option<UtcMillis>, meter_now: UtcMillis, rhythm: Rhythm) -> Self {
        let mut next = self.clone();
        next.add_gap(Span::new(self.overlap(), span.from));
        let settled = meter_now.plus_ms(-rhythm.settling_ms).min(span.to);
        let delivered = last_label.map_or(span.from, |label| label.plus_ms(1)).min(span.to);
        next.head = next.head.max(span.from).max(settled).max(delivered);
        next.remove(Span::new(span.from, next.head));
        next
    }

    /// The cursor after everything in a missing `span` was read.
    #[must_use]
    pub fn after_backfill(&self, span: Span) -> Self {
        let mut next = self.clone();
        next.remove(span);
        next
    }

    /// The cursor after everything was read that the meter has; `last_label` is the greatest that its clock has passed.
    #[must_use]
    pub fn after_all(&self, last_label: Option<UtcMillis>, meter_now: UtcMillis, rhythm: Rhythm) -> Self {
        let everything = Span::new(UtcMillis(i64::MIN), meter_now.plus_ms(1).max(self.head));
        let mut next = self.after_live(everything, last_label, meter_now, rhythm);
        next.gaps.clear();
        next.unasked_below = None;
        next
    }

    /// The cursor when the meter's clock went back since the last session, by how much if that is known, and shows `meter_now`.
    #[must_use]
    pub fn rewound(&self, by_ms: Option<i64>, meter_now: UtcMillis) -> Self {
        let mut next = self.clone();
        next.head = self.head.plus_ms(-by_ms.unwrap_or(0)).min(meter_now);
        // Until it was set back, the old clock went on: labels that the new one will not reach for a while.
        let old_now =
            by_ms.map_or(self.head.plus_ms(LEAP_EDGE_MS), |by_ms| meter_now.plus_ms(by_ms + REWIND_TOLERANCE_MS));
        next.add_gap(Span::new(self.overlap(), old_now));
        next.unasked_below = None;
        next
    }

    /// The cursor when the meter's clock was set since the last session: it may have been set more than once, and have labelled
    /// entries anywhere near meanwhile.
    #[must_use]
    pub fn doubted(&self) -> Self {
        let mut next = self.clone();
        next.add_gap(Span::new(self.overlap().plus_ms(-DAY_MS), self.overlap()));
        next.unasked_below = None;
        next
    }

    fn add_gap(&mut self, gap: Span) {
        if gap.is_empty() {
            return;
        }
        if gap.to.since(gap.from) > BUFFER_MS_MAX + LEAP_EDGE_MS {
            // A gap that is known to lie in the middle stays one.
            self.add_gap(Span::new(gap.from, gap.from.plus_ms(LEAP_EDGE_MS)));
            self.add_gap(Span::new(gap.to.plus_ms(-BUFFER_MS_MAX), gap.to));
            return;
        }
        self.remove(gap);
        self.gaps.push(gap);
        self.tidy();
    }

    /// Oldest first, those that touch as one, and no more of them than there is room for.
    fn tidy(&mut self) {
        self.gaps.sort_by_key(|gap| gap.from);
        self.gaps.dedup_by(|next, gap| {
            let touches = next.from <= gap.to;
            if touches {
                gap.to = gap.to.max(next.to);
            }
            touches
        });
        while self.gaps.len() > GAPS_MAX {
            let oldest = self.gaps.remove(0);
            self.gaps[0].from = oldest.from;
        }
    }

    fn remove(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let cut = |gap: Span| {
            let before = Span::new(gap.from, gap.to.min(span.from));
            let behind = Span::new(gap.from.max(span.to), gap.to);
            [before, behind].into_iter().filter(|part| !part.is_empty())
        };
        self.gaps = self.gaps.drain(..).flat_map(cut).collect();
        self.tidy();
    }

    /// The rows of the cursor table: `{key} head`, `{key} gap3 from`, `{key} gap3 to`, `{key} unasked below`. An empty gap is 0
    /// and 0; 0 too is what nobody is to be asked for.
    fn rows(&self) -> impl Iterator<Item = i64> {
        let gaps = (0..GAPS_MAX).flat_map(|slot| match self.gaps.get(slot) {
            Some(gap) => [gap.from.0, gap.to.0],
            None => [0, 0],
        });
        let unasked = self.unasked_below.map_or(0, |below| below.0);
        std::iter::once(self.head.0).chain(gaps).chain([unasked])
    }

    /// The names of the rows, in the order of [`Self::from_rows`].
    pub fn keys(key: &str) -> Vec<String> {
        let gaps = (0..GAPS_MAX).flat_map(|slot| [format!("{key} gap{slot} from"), format!("{key} gap{slot} to")]);
        std::iter::once(format!("{key} head")).chain(gaps).chain([format!("{key} unasked below")]).collect()
    }

    /// What to write so that the disk says this, when it says `before`.
    pub fn writes(&self, before: Option<&Self>, key: &str) -> Vec<(String, i64)> {
        let all = Self::keys(key).into_iter().zip(self.rows());
        match before {
            Some(before) => all.zip(before.rows()).filter(|((_, new), old)| new != old).map(|(row, _)| row).collect(),
            None => all.collect(),
        }
    }

    /// What the disk says; `None` when the profile was never read.
    pub fn from_rows(rows: &[Option<i64>]) -> Option<Self> {
        let (head, gaps) = rows.split_first()?;
        let span = |pair: &[Option<i64>; 2]| match pair {
            [Some(from), Some(to)] => Some(Span::new(UtcMillis(*from), UtcMillis(*to))),
            _ => None,
        };
        let (pairs, unasked) = gaps.as_chunks::<2>();
        let gaps = pairs.iter().filter_map(span).filter(|gap| !gap.is_empty()).collect();
        // An older version has not written it.
        let unasked_below = unasked.first().copied().flatten().filter(|below| *below != 0).map(UtcMillis);
        Some(Self { head: UtcMillis((*head)?), gaps, unasked_below })
    }
}

/// Whether the meter's clock was set forward since its offset to ours was `before`: then profiles are read live at once, due or
/// not, so that there is never more than one leap between two live reads.
pub fn has_leapt(before: Option<i64>, now: i64) -> bool {
    before.is_some_and(|before| now.saturating_sub(before) > HOUR_MS)
}

/// Whether the meter's clock was set, either way, since its offset to ours was `before`.
pub fn was_set(before: Option<i64>, now: i64) -> bool {
    before.is_some_and(|before| now.abs_diff(before) > SET_NOTICED_MS)
}

/// By how much the meter's clock was set back since its offset to ours was `before`.
pub fn rewound_by(before: Option<i64>, now: i64) -> Option<i64> {
    let by_ms = before?.saturating_sub(now);
    (by_ms > REWIND_NOTICED_MS).then_some(by_ms)
}

#[cfg(test)]
mod tests;
