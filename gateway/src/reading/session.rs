//! One session with one meter: who it is, what its clock says, what is due, what is missing.
//!
//! Live values go first, then profiles and event logs from where they were left, then what is missing of them, newest first,
//! until somebody else wants the line. Everything goes into the outbox as soon as it is read, and a profile's cursor with it;
//! when the line breaks in the middle, what was read before is kept.

use std::fmt::Display;
use std::time::Duration;

use protocols::metering::UtcMillis;
use protocols::uplink::MeterState;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::columns::Stamp;
use super::counters::Counters;
pub use super::error::SessionError;
use super::introduction::{Introduction, introduce};
use super::memory::{MeterMemory, OnDisk};
use super::moment::Moment;
use super::registers::read_at;
use super::talk::Talk;
use crate::agenda::cursor::{ProfileCursor, Rhythm, Span, has_leapt, rewound_by, was_set};
use crate::clock::SharedClock;
use crate::config::metering::{MeterSettings, ReadSettings, Source};
use crate::held::HeldAsker;
use crate::inventory::{InventoryKeeper, clock_state};
use crate::outbox::{OutboxError, OutboxHandle, StoreRequest};
use crate::recurring::SAID_EVERY;
use crate::telemetry::{Metric, Metrics};
use crate::trust::{ClockTrust, whole_seconds};

/// What every session needs.
#[derive(Clone)]
pub struct SessionParts {
    pub outbox: OutboxHandle,
    pub clock: SharedClock,
    pub trust: ClockTrust,
    pub inventory: InventoryKeeper,
    pub metrics: Metrics,
    /// `None`: nobody is asked what the cloud holds.
    pub held: Option<HeldAsker>,
}

impl SessionParts {
    pub fn counters(&self) -> Counters<'_> {
        Counters { outbox: &self.outbox, trust: &self.trust }
    }
}

/// One commit takes milliseconds; a card that hangs for longer than this has failed.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);
/// What waits for the end of the live part before it is stored.
const PENDING_ROWS_MAX: usize = 4_000;
/// Causes in a meter's state are for people.
const REFUSALS_NAMED: usize = 3;
const REFUSED_HINT: &str = "are codes and profile of its section right, and may its client read them?";
/// Said of a meter that answers in place of another.
pub(crate) const HELD_STOPPED: &str =
    "not read any more: what is held fills its tenth of the outbox (`outbox accept` releases it)";
/// What a grown clock offset has to differ by to be written down.
const OFFSET_STEP_MS: i64 = 1_000;

/// What is to be done in a session.
pub struct Order<'a> {
    /// Places of the read sections that are due.
    pub due: &'a [usize],
    /// Backfill ends when the monotonic clock shows this: others are due then.
    pub yield_at: Duration,
    /// The end of the meter's time on the line.
    pub deadline: Instant,
}

/// What came of a session in which the meter answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Visited {
    pub chunks: usize,
    pub state: MeterState,
}

/// `T` is the conversation with the meter, which its protocol has.
pub(super) struct Session<'s, T> {
    pub(super) parts: &'s SessionParts,
    pub(super) meter: &'s MeterSettings,
    pub(super) memory: &'s mut MeterMemory,
    pub(super) talk: &'s mut T,
    pub(super) who: Introduction,
    pub(super) stamp: Stamp,
    /// The cursors as they are after what is pending; the memory has them as they are on the disk.
    pub(super) cursors: Vec<Option<ProfileCursor>>,
    /// The clock's offset, when it has to be noted.
    offset_ms: Option<i64>,
    pub(super) pending: StoreRequest,
    /// Of the system clock that the gateway's stamps in it go by; see [`Moment`].
    pub(super) origin: Option<UtcMillis>,
    /// The first of them, for people.
    refused: Vec<String>,
    objects_refused: u64,
    pub(super) chunks: usize,
    /// What is held fills its part of the outbox: nothing is read that would have to wait there, too.
    pub(super) held_stopped: bool,
}

/// What a protocol does in a session.
pub(super) trait Reads {
    /// Values that carry no time of their own, those of all sections that are due in one go.
    async fn read_live_values(&mut self, due: &[usize]) -> Result<(), SessionError>;
    /// The next span of one profile or event log; what it brings is pending then, and the cursor moved in memory only. False when
    /// there was none, or none could be read.
    async fn read_profile(&mut self, place: usize, which: Which) -> Result<bool, SessionError>;
}

/// Does what is ordered, after the association. The state in the inventory is set at the end.
pub async fn visit(
    parts: &SessionParts,
    meter: &MeterSettings,
    memory: &mut MeterMemory,
    talk: &mut Talk<'_>,
    order: &Order<'_>,
) -> Result<Visited, SessionError> {
    let who = introduce(talk, meter, &parts.clock).await?;
    Session::new(parts, meter, memory, talk, who).visit(order).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Live,
    Missing,
}

impl<'s, T> Session<'s, T>
where
    Self: Reads,
{
    /// With whoever has introduced himself.
    pub(super) fn new(
        parts: &'s SessionParts,
        meter: &'s MeterSettings,
        memory: &'s mut MeterMemory,
        talk: &'s mut T,
        mut who: Introduction,
    ) -> Self {
        // A gateway without a clock battery is decades off after each start: that says nothing about the meter's clock.
        let offset_ms = who.clock_offset_ms.zip(parts.trust.correction_ms());
        who.clock_offset_ms = offset_ms.map(|(offset_ms, correction_ms)| whole_seconds(offset_ms - correction_ms));
        if memory.identity.as_ref() != Some(&who.meter) {
            memory.forget();
            memory.identity = Some(who.meter.clone());
        }
        memory.doubt_old_objects(parts.clock.monotonic());
        let stamp =
            Stamp { meter: who.meter.clone(), read_at: read_at(&parts.clock), clock_offset_ms: who.clock_offset_ms };
        Self {
            parts,
            meter,
            cursors: vec![None; memory.profiles.len()],
            offset_ms: None,
            memory,
            talk,
            who,
            stamp,
            pending: StoreRequest::default(),
            origin: None,
            refused: Vec::new(),
            objects_refused: 0,
            chunks: 0,
            held_stopped: parts.outbox.held_stopped(),
        }
    }

    /// Does what is ordered, and says in the inventory how the meter is.
    pub(super) async fn visit(mut self, order: &Order<'_>) -> Result<Visited, SessionError> {
        match self.read(order).await {
            // Nothing is wrong with the outbox: the right meters go on.
            Err(SessionError::Store(OutboxError::HeldFull { .. })) if self.who.expected.is_some() => {
                self.held_stopped = true;
            }
            outcome => outcome?,
        }
        let clock_trouble = self.plan_clock_set().await?;
        Ok(self.conclude(clock_trouble))
    }

    async fn read(&mut self, order: &Order<'_>) -> Result<(), SessionError> {
        if self.held_stopped && self.who.expected.is_some() {
            return Ok(());
        }
        self.load_cursors().await?;
        let mut due = order.due.to_vec();
        if self.heed_clock() {
            let places = self.profile_places().map(|(place, _)| place);
            due.extend(places.filter(|place| !order.due.contains(place)).collect::<Vec<_>>());
        }
        let live = self.read_live(&due).await;
        // What was read before the line broke is kept.
        self.flush().await?;
        live?;
        self.backfill(order).await
    }

    async fn read_live(&mut self, due: &[usize]) -> Result<(), SessionError> {
        self.read_live_values(due).await?;
        for &place in due {
            if matches!(
                self.meter.reads.get(place),
                Some(ReadSettings { source: Source::Profile | Source::Events, .. })
            ) {
                self.read_profile(place, Which::Live).await?;
                if self.pending.rows() > PENDING_ROWS_MAX {
                    self.flush().await?;
                }
            }
        }
        Ok(())
    }
}

impl<T> Session<'_, T> {
    fn cursor_key(&self, read: &ReadSettings) -> String {
        format!("{} {}", self.who.meter, read.profile)
    }

    fn offset_key(&self) -> String {
        format!("{} offset_ms", self.who.meter)
    }

    fn profile_places(&self) -> impl Iterator<Item = (usize, &ReadSettings)> {
        let is_profile = |read: &ReadSettings| matches!(read.source, Source::Profile | Source::Events);
        self.meter.reads.iter().enumerate().filter(move |(_, read)| is_profile(read))
    }

    /// Asks the outbox how far each profile is read, where that is not known.
    async fn load_cursors(&mut self) -> Result<(), SessionError> {
        let epoch = self.parts.outbox.cursors_epoch();
        if std::mem::replace(&mut self.memory.cursors_epoch, epoch) != epoch {
            self.memory.profiles.iter_mut().for_each(|profile| profile.cursor = OnDisk::Unknown);
            // What was told once may be among what is gone.
            self.memory.forget_told();
        }
        let is_unknown = |place: usize| matches!(self.memory.profiles[place].cursor, OnDisk::Unknown);
        let unknown: Vec<(usize, String)> = self
            .profile_places()
            .filter(|(place, _)| is_unknown(*place))
            .map(|(place, read)| (place, self.cursor_key(read)))
            .collect();
        if !unknown.is_empty() {
            let keys: Vec<Vec<String>> = unknown.iter().map(|(_, key)| ProfileCursor::keys(key)).collect();
            let offset_key = self.offset_key();
            let asked = self.parts.outbox.run(0, move |outbox| {
                let rows = keys.iter().map(|keys| keys.iter().map(|key| outbox.cursor(key)).collect());
                Ok((rows.collect::<Result<Vec<Vec<_>>, OutboxError>>()?, outbox.cursor(&offset_key)?))
            });
            let (rows, offset_ms) = within_store_timeout(asked).await?;
            self.memory.offset_ms = offset_ms;
            for ((place, _), rows) in unknown.into_iter().zip(rows) {
                self.memory.profiles[place].cursor =
                    ProfileCursor::from_rows(&rows).map_or(OnDisk::NeverRead, OnDisk::At);
            }
        }
        let cursors = self.profile_places().map(|(place, read)| match &self.memory.profiles[place].cursor {
            OnDisk::At(cursor) => (place, cursor.clone()),
            OnDisk::NeverRead | OnDisk::Unknown => {
                (place, ProfileCursor::start(self.who.meter_now, read.backfill_days))
            }
        });
        for (place, cursor) in cursors.collect::<Vec<_>>() {
            self.cursors[place] = Some(cursor);
        }
        Ok(())
    }

    /// Takes the cursors back when the meter's clock was set back; has the offset noted when it grew. Both go to the disk
    /// together with whatever is stored next. True when the clock was set forward.
    fn heed_clock(&mut self) -> bool {
        let Some(offset_ms) = self.who.clock_offset_ms else { return false };
        let meter_now = self.who.meter_now;
        let set_back = rewound_by(self.memory.offset_ms, offset_ms);
        // A clock that is not looked at, as that of an accelerated meter, runs away all the time.
        let was_set = self.meter.clock_off_above_s.is_some() && was_set(self.memory.offset_ms, offset_ms);
        for cursor in self.cursors.iter_mut().flatten() {
            // Set back by nobody knows how much: the offset from before is not known.
            let is_behind = set_back.is_none() && cursor.is_ahead_of(meter_now);
            if set_back.is_some() || is_behind {
                *cursor = cursor.rewound(set_back, meter_now);
            }
            if was_set || is_behind {
                *cursor = cursor.doubted();
            }
        }
        if let Some(by_ms) = set_back {
            info!(meter = %self.meter.name, by_ms, "the clock was set back: what it has labelled since is read again");
        }
        let has_grown = self.memory.offset_ms.is_none_or(|known| offset_ms >= known + OFFSET_STEP_MS);
        if set_back.is_some() || has_grown {
            self.offset_ms = Some(offset_ms);
        }
        has_leapt(self.memory.offset_ms, offset_ms)
    }

    /// Everything that is pending, the cursors as they are after it, and the clock's offset, in one transaction.
    pub(super) async fn flush(&mut self) -> Result<(), SessionError> {
        let untrusted = self.parts.trust.untrusted();
        self.stamp_by(untrusted.map_or_else(|| Moment::now(&self.parts.clock).origin, |untrusted| untrusted.origin));
        self.origin = None;
        let mut request = std::mem::take(&mut self.pending);
        request.hold_identity = self.who.expected.is_some();
        request.untrusted = untrusted;
        request.cursors_as_of = self.memory.cursors_epoch;
        let mut moved = Vec::new();
        for (place, read) in self.profile_places() {
            let Some(cursor) = &self.cursors[place] else { continue };
            let before = match &self.memory.profiles[place].cursor {
                OnDisk::At(before) => Some(before),
                OnDisk::NeverRead | OnDisk::Unknown => None,
            };
            if before != Some(cursor) {
                request.cursors.extend(cursor.writes(before, &self.cursor_key(read)));
                moved.push((place, cursor.clone()));
            }
        }
        request.cursors.extend(self.offset_ms.map(|offset_ms| (self.offset_key(), offset_ms)));
        if request.rows() == 0 && request.cursors.is_empty() {
            return Ok(());
        }
        // Until the answer is there, nobody knows what the disk says.
        for (place, _) in &moved {
            self.memory.profiles[*place].cursor = OnDisk::Unknown;
        }
        match within_store_timeout(self.parts.outbox.store(request)).await {
            Ok(outcome) => {
                self.parts.metrics.add(Metric::ReadingsStored, outcome.stored as u64);
                self.parts.metrics.add(Metric::ReadingsRepeated, outcome.repeated as u64);
            }
            Err(error) => {
                self.parts.metrics.add(Metric::StoreErrors, 1);
                self.memory.forget_told();
                return Err(error);
            }
        }
        for (place, cursor) in moved {
            self.memory.profiles[place].cursor = OnDisk::At(cursor);
        }
        self.memory.offset_ms = self.offset_ms.take().or(self.memory.offset_ms);
        Ok(())
    }

    /// Rows that cannot be read are kept with all of their answer, as the meter sent it: it delivers them no better next time.
    pub(super) fn keep_unread<P: Display>(
        &mut self,
        read: &ReadSettings,
        at: UtcMillis,
        problems: &[P],
        answer: &[u8],
    ) {
        if problems.is_empty() {
            return;
        }
        for problem in problems {
            self.parts.metrics.add(Metric::FieldProblems, 1);
            warn!(meter = %self.meter.name, obis = %read.profile, error = %problem, "a row cannot be read; it is kept as an event");
        }
        let read_at = self.stamp.read_at;
        let events = self.stamp.events_of_unread(&read.profile, problems, answer, at);
        self.pending.events.extend(events.map(|event| (event, read_at)));
    }

    pub(super) fn refused(&mut self, what: &str, error: &dyn Display) {
        self.parts.metrics.add(Metric::ObjectsRefused, 1);
        self.objects_refused += 1;
        debug!(meter = %self.meter.name, obis = %what, %error, "refused");
        if self.refused.len() < REFUSALS_NAMED {
            self.refused.push(format!("{what}: {error}"));
        }
    }

    /// Says in the inventory how the meter is.
    fn conclude(self, clock_trouble: Option<String>) -> Visited {
        let Introduction { meter: found, expected, clock_offset_ms, .. } = &self.who;
        let (state, cause) = match expected {
            Some(expected) if self.held_stopped => {
                (MeterState::WrongIdentity, format!("expected {expected}, found {found}; {HELD_STOPPED}"))
            }
            Some(expected) => (MeterState::WrongIdentity, format!("expected {expected}, found {found}")),
            None if !self.refused.is_empty() => (MeterState::Refusing, self.refused.join("; ")),
            None => clock_trouble.map_or_else(
                || clock_state(*clock_offset_ms, self.meter.clock_off_above_s),
                |trouble| (MeterState::ClockOff, trouble),
            ),
        };
        let read_at = self.stamp.read_at;
        let name = &self.meter.name;
        let now = self.parts.clock.monotonic();
        let is_due = self.memory.told_refused_at.is_none_or(|at| now.saturating_sub(at) >= SAID_EVERY);
        if !self.refused.is_empty() && is_due {
            let error = self.refused.join("; ");
            warn!(meter = %name, %error, hint = REFUSED_HINT, objects = self.objects_refused, "the meter refuses what is to be read");
            self.memory.told_refused_at = Some(now);
        }
        let is_stopped = self.held_stopped && expected.is_some();
        if is_stopped && !self.memory.told_held_stopped {
            error!(meter = %name, %found, "{HELD_STOPPED}");
        }
        self.memory.told_held_stopped = is_stopped;
        if is_stopped {
            self.parts.metrics.add(Metric::HeldReadsStopped, 1);
        }
        self.parts.inventory.session_ended(name, Some(found), read_at, *clock_offset_ms, (state, &cause));
        Visited { chunks: self.chunks, state }
    }
}

/// The cursor after this much was `read`, `None` being all that there is, and brought entries up to `last_label`.
pub(super) fn moved(
    cursor: &ProfileCursor,
    read: Option<(Span, Which)>,
    last_label: Option<UtcMillis>,
    who: &Introduction,
    rhythm: Rhythm,
) -> ProfileCursor {
    let rhythm = if who.shows_time { rhythm } else { rhythm.that_never_settles() };
    match read {
        None => cursor.after_all(last_label, who.meter_now, rhythm),
        Some((span, Which::Live)) => cursor.after_live(span, last_label, who.meter_now, rhythm),
        Some((span, Which::Missing)) => cursor.after_backfill(span),
    }
}

pub(super) async fn within_store_timeout<T>(
    asked: impl Future<Output = Result<T, OutboxError>>,
) -> Result<T, SessionError> {
    match tokio::time::timeout(STORE_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(SessionError::Store),
        Err(_) => Err(SessionError::StoreTimeout { timeout_s: STORE_TIMEOUT.as_secs() }),
    }
}
