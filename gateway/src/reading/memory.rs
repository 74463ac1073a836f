//! What is known of a meter between its sessions: kept small, since there may be a hundred thousand. All of it can be found out
//! again.

use std::collections::HashMap;
use std::time::Duration;

use protocols::cosem::profile_generic::{CaptureObject, SortMethod};
use protocols::cosem::register::ScalerUnit;
use protocols::metering::{Code, MeterId, ObisCode, Quantity, UtcMillis};
use tokio::sync::oneshot;

use super::clock_set::ClockMemory;
use super::counters::CounterMemory;
use super::unread::UnreadMemory;
use crate::agenda::cursor::{DAY_MS, ProfileCursor, Rhythm};
use crate::held::HeldAnswer;

/// How long what a meter's objects are like is believed. Asking again costs a list of scalers, and three attributes a profile.
const KNOWN_FOR: Duration = Duration::from_secs(86_400);

/// An object whose scaler is known. Scalers differ from device to device and are read, never assumed. A running meter may be parametrised
/// anew, and says so to nobody: they are asked for again when its link broke, when rows of its profiles cannot be read, and once a day.
#[derive(Debug, Clone, Copy)]
pub struct KnownObject {
    pub class_id: u16,
    pub obis: ObisCode,
    pub scaler_unit: ScalerUnit,
    /// Its class helps to ask for it again; its scaler counts no more.
    pub is_old: bool,
}

/// How the rows of a profile are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    #[default]
    Range,
    /// The meter refuses ranges: the newest entries by number, and the whole buffer for what lies further back.
    Entry,
    Whole,
}

#[derive(Debug)]
pub struct Layout {
    pub columns: Box<[CaptureObject]>,
    pub capture_period_s: u32,
    pub sort_method: SortMethod,
}

impl Layout {
    pub fn rhythm(&self, label_at_start: bool) -> Rhythm {
        let rhythm = Rhythm::of(self.capture_period_s);
        // The entry of a month shows when the month is over, far behind its label.
        let settling_ms = if label_at_start && self.capture_period_s == 0 { 62 * DAY_MS } else { rhythm.settling_ms };
        Rhythm { settling_ms, ..rhythm }
    }
}

/// What the outbox says of a profile's cursor.
#[derive(Debug, Default)]
pub enum OnDisk {
    /// Not asked yet, or a transaction of which nobody knows whether it succeeded.
    #[default]
    Unknown,
    NeverRead,
    At(ProfileCursor),
}

/// What became of the question which part of a profile the cloud holds.
#[derive(Debug)]
pub enum Asking {
    /// Until `grace_until`, on the monotonic clock, nothing is read that the answer may spare.
    Waiting { answer: oneshot::Receiver<HeldAnswer>, grace_until: Duration },
    /// Not answered: all is read meanwhile.
    Failed { again_at: Duration },
}

/// One profile or event log.
#[derive(Debug, Default)]
pub struct ProfileMemory {
    pub layout: Option<Box<Layout>>,
    /// The meter is asked for it again before rows are read by it.
    pub is_layout_old: bool,
    pub cursor: OnDisk,
    pub access: Access,
    /// One that the meter has delivered: the grid of the others.
    pub label: Option<UtcMillis>,
    /// Labels were seen that its capture period does not explain.
    pub is_irregular: bool,
    /// Rows that cannot be read.
    pub unread: UnreadMemory,
    /// IEC 62056-21: the period in which its rows follow each other; 0 while it is not known.
    pub period_s: u32,
    /// `None` unless the cloud is being asked.
    pub asking: Option<Box<Asking>>,
}

impl ProfileMemory {
    fn has_gaps(&self) -> bool {
        matches!(&self.cursor, OnDisk::At(cursor) if !cursor.gaps().is_empty())
    }
}

#[derive(Debug, Default)]
pub struct MeterMemory {
    /// Who answered last: everything else here is about that meter.
    pub identity: Option<MeterId>,
    pub objects: Vec<KnownObject>,
    /// Since when, on the monotonic clock, objects and layouts are believed.
    known_since: Option<Duration>,
    /// One per read section; unused for those that read no profile.
    pub profiles: Box<[ProfileMemory]>,
    /// The clock offset that the outbox knows.
    pub offset_ms: Option<i64>,
    /// The outbox's epoch of cursors that those here are of.
    pub cursors_epoch: u64,
    /// It was said that the meter is not read, since what is held of it fills its part of the outbox.
    pub told_held_stopped: bool,
    /// When it was said that the meter refuses objects.
    pub told_refused_at: Option<Duration>,
    /// `None` for a meter without keys.
    pub counters: Option<Box<CounterMemory>>,
    /// Of a meter whose clock is set.
    pub clock: Option<Box<ClockMemory>>,
    /// What a read-out has said; `None` for a meter that was never read out.
    pub read_out: Option<Box<ReadOutMemory>>,
}

/// What was stored of read-outs, which tell the same again and again.
#[derive(Debug, Default)]
pub struct ReadOutMemory {
    /// How things were, by log.
    pub states: HashMap<String, Vec<u8>>,
    /// The last entry of each log.
    pub logged: HashMap<String, (UtcMillis, u8)>,
    /// Values of the past by code, instant and number.
    pub values: HashMap<(Code, UtcMillis, u8), Quantity>,
    /// When it was said that values cannot be read.
    pub told_problems_at: Option<Duration>,
}

impl MeterMemory {
    pub fn new(reads: usize) -> Self {
        Self { profiles: (0..reads).map(|_| ProfileMemory::default()).collect(), ..Self::default() }
    }

    /// Somebody else answers: nothing of this holds for him.
    pub fn forget(&mut self) {
        // They are about a key, not about who has it.
        let counters = self.counters.take();
        *self = Self { counters, ..Self::new(self.profiles.len()) };
    }

    /// What was told counts as stored no longer.
    pub fn forget_told(&mut self) {
        self.read_out = None;
        self.profiles.iter_mut().for_each(|profile| profile.unread.forget_kept());
    }

    pub fn object(&self, class_id: u16, obis: ObisCode) -> Option<ScalerUnit> {
        let is_meant = |object: &&KnownObject| (object.class_id, object.obis) == (class_id, obis) && !object.is_old;
        self.objects.iter().find(is_meant).map(|object| object.scaler_unit)
    }

    pub fn know(&mut self, class_id: u16, obis: ObisCode, scaler_unit: ScalerUnit) {
        self.objects.retain(|object| (object.class_id, object.obis) != (class_id, obis));
        self.objects.push(KnownObject { class_id, obis, scaler_unit, is_old: false });
    }

    /// The meter may have been parametrised anew: what its objects and profiles are like is asked for before anything more is read by it.
    /// How far profiles are read is about labels, and stays.
    pub fn doubt_objects(&mut self) {
        // What nobody has asked for since the last time is not among what is read.
        self.objects.retain_mut(|object| !std::mem::replace(&mut object.is_old, true));
        self.profiles.iter_mut().for_each(|profile| profile.is_layout_old = true);
        self.known_since = None;
    }

    /// The same when they were believed for a day, on the monotonic clock that shows `now`.
    pub fn doubt_old_objects(&mut self, now: Duration) {
        if self.known_since.is_some_and(|since| now.saturating_sub(since) >= KNOWN_FOR) {
            self.doubt_objects();
        }
        self.known_since.get_or_insert(now);
    }

    /// When, on the monotonic clock, a conversation about its clock is due.
    pub fn clock_turn_at(&self) -> Option<Duration> {
        self.clock.as_ref()?.turn_at
    }

    /// When, on the monotonic clock, backfill may go on, as far as answers are waited for. `None` when nothing is missing.
    pub fn backlog_at(&self) -> Option<Duration> {
        let at = |profile: &ProfileMemory| match profile.asking.as_deref() {
            Some(Asking::Waiting { grace_until, .. }) => *grace_until,
            _ => Duration::ZERO,
        };
        self.profiles.iter().filter(|profile| profile.has_gaps()).map(at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The month of October, which its meter shows on 1 November under the label 1 October.
    ///
    /// Negative control: let every layout settle after an hour.
    #[test]
    fn a_month_that_is_labelled_at_its_start_is_not_passed_over() {
        let layout = Layout { columns: Box::default(), capture_period_s: 0, sort_method: SortMethod::Fifo };
        let rhythm = layout.rhythm(true);
        let at = |text: &str| text.parse::<UtcMillis>().expect("an instant");
        let (september, october) = (at("2026-09-01T00:00:00Z"), at("2026-10-01T00:00:00Z"));
        let mut cursor = ProfileCursor::start(at("2026-10-01T00:10:00Z"), 60);
        for day in 0..31 {
            let now = at("2026-10-01T00:10:00Z").plus_ms(day * DAY_MS);
            cursor = cursor.after_live(cursor.live(now, rhythm), Some(september), now, rhythm);
        }
        let span = cursor.live(at("2026-11-01T00:10:00Z"), rhythm);
        assert!((span.from..span.to).contains(&october), "{span:?}");
        // Whoever labels the end has shown it by then.
        assert_eq!(layout.rhythm(false), Rhythm::of(0));
    }
}
