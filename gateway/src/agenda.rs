//! What is due when, of one meter. Plain decisions: no actor, no clock, no IO.
//!
//! Each `[[meter.read]]` section is a job with a period. A period is cut into slots that are aligned to UTC and shifted by a
//! little that follows from the meter's name, so that meters on the quarter of an hour do not all go at once. A job is due
//! when the slot is another than the one in which it was done last. So slots that were missed are skipped, never made up for,
//! and a wall clock that is set, forwards or back, costs one read at most. What was captured meanwhile is the business of
//! [`cursor`], not of slots.
//!
//! A session that failed is tried again after 1 min, doubling to 60 min, whatever is due.

pub mod cursor;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use protocols::metering::UtcMillis;

/// Between tries of a meter that does not answer.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// The longest shift of a slot, and the part of the period that it takes at most.
const SHIFT_MS_MAX: i64 = 300_000;
const SHIFT_PART: i64 = 4;

#[derive(Debug, Clone)]
struct Job {
    every_ms: i64,
    shift_ms: i64,
    done: Option<i64>,
}

impl Job {
    fn slot(&self, wall: UtcMillis) -> i64 {
        wall.0.saturating_sub(self.shift_ms).div_euclid(self.every_ms)
    }
}

#[derive(Debug, Clone)]
pub struct Agenda {
    jobs: Box<[Job]>,
    failures: u8,
    /// Not before this instant of the monotonic clock.
    retry_at: Duration,
    hash: u64,
}

impl Agenda {
    pub fn new(meter: &str, every_s: impl Iterator<Item = u32>) -> Self {
        let mut hasher = DefaultHasher::new();
        meter.hash(&mut hasher);
        let hash = hasher.finish();
        let jobs = every_s.map(|every_s| {
            let every_ms = i64::from(every_s.max(1)) * 1000;
            let shift_max = (every_ms / SHIFT_PART).min(SHIFT_MS_MAX);
            Job { every_ms, shift_ms: (hash % shift_max as u64) as i64, done: None }
        });
        Self { jobs: jobs.collect(), failures: 0, retry_at: Duration::ZERO, hash }
    }

    /// Which jobs are due, by their place in the settings.
    pub fn due(&self, wall: UtcMillis) -> impl Iterator<Item = usize> + '_ {
        let is_due = move |job: &Job| job.done != Some(job.slot(wall));
        self.jobs.iter().enumerate().filter(move |(_, job)| is_due(job)).map(|(place, _)| place)
    }

    /// The job was done, or refused, in the slot in which it was begun.
    pub fn done(&mut self, job: usize, begun_at: UtcMillis) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.done = Some(job.slot(begun_at));
        }
    }

    /// When the next job is due, on the monotonic clock that shows `now`.
    pub fn next_live(&self, wall: UtcMillis, now: Duration) -> Duration {
        let waits = self.jobs.iter().map(|job| {
            let slot = job.slot(wall);
            if job.done != Some(slot) {
                return 0;
            }
            (slot + 1).saturating_mul(job.every_ms).saturating_add(job.shift_ms).saturating_sub(wall.0).max(0)
        });
        let wait = waits.min().unwrap_or(RETRY_MAX.as_millis() as i64);
        (now + Duration::from_millis(wait as u64)).max(self.retry_at)
    }

    /// When backfill may go on.
    pub fn next_backfill(&self, now: Duration) -> Duration {
        now.max(self.retry_at)
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.retry_at = Duration::ZERO;
    }

    /// The session failed. With `at_length`, the next try is as late as any: a wrong password tried often locks a meter.
    pub fn failed(&mut self, now: Duration, at_length: bool) {
        let doublings = if at_length { 6 } else { u32::from(self.failures.min(6)) };
        let pause = (RETRY_FIRST * 2u32.pow(doublings)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        // Up to an eighth less, different for each meter and try.
        let jitter = (self.hash >> (self.failures % 32)) % 128;
        self.retry_at = now + pause.mul_f64(1.0 - jitter as f64 / 1024.0);
    }

    /// Nothing is wrong with the meter, but nothing can be stored: not before `at`.
    pub fn hold_until(&mut self, at: Duration) {
        self.retry_at = at;
    }
}

#[cfg(test)]
mod tests;
