//! Steps every meter when something is due: a capture, or a push.
//!
//! One task for the whole fleet. World time of the next due instant orders the work; a fleet that falls behind catches up in
//! that order, so that what is captured and pushed does not depend on the machine.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use protocols::metering::UtcMillis;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::pace::Pace;
use crate::speak::cad::CadFeed;
use crate::speak::publisher::{Publication, PublishQueue};
use crate::station::Station;

/// Meters stepped before other tasks get a turn.
const TURN: usize = 64;
/// Longest sleep: nothing is due much later than the wall clock may be corrected.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// A meter, and what it pushes.
pub struct Tended {
    pub station: Arc<Station>,
    pub feed: Option<CadFeed>,
}

impl Tended {
    fn next_due(&self) -> UtcMillis {
        let capture = self.station.at(UtcMillis::MIN, |meter| meter.next_due());
        self.feed.as_ref().map_or(capture, |feed| feed.next_at().min(capture))
    }
}

/// What the steward has done, for others to see.
#[derive(Debug, Default)]
pub struct Tally {
    pushed: AtomicU64,
    is_done: AtomicBool,
}

impl Tally {
    /// Pushes with readings, handed to the publisher or dropped by it.
    pub fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }

    /// Whether as many pushes were made as were asked for.
    pub fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }
}

pub struct Steward {
    tended: Vec<Tended>,
    due: BinaryHeap<Reverse<(UtcMillis, usize)>>,
    pace: Arc<Pace>,
    queue: Arc<PublishQueue>,
    tally: Arc<Tally>,
    pushes_max: Option<u64>,
}

impl Steward {
    pub fn new(tended: Vec<Tended>, pace: Arc<Pace>, queue: Arc<PublishQueue>, pushes_max: Option<u64>) -> Self {
        let due = tended.iter().enumerate().map(|(index, tended)| Reverse((tended.next_due(), index))).collect();
        Self { tended, due, pace, queue, tally: Arc::default(), pushes_max }
    }

    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// Works until told to stop; what slow devices still hold is then handed out.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        while !*stopping.borrow_and_update() && !self.tally.is_done() {
            let until = self.pace.now();
            if self.tend_until(until, TURN) {
                tokio::task::yield_now().await;
                continue;
            }
            let next = self.due.peek().map_or(UtcMillis::MAX, |Reverse((due, _))| *due);
            let nap = self.pace.wall_until(next).min(SLEEP_MAX).max(Duration::from_millis(1));
            tokio::select! {
                () = sleep(nap) => {}
                // An error means that whoever could stop us is gone: the same as being stopped.
                stopped = stopping.changed() => if stopped.is_err() { break },
            }
        }
        for index in 0..self.tended.len() {
            let held = self.tended[index].feed.as_mut().map(CadFeed::flush);
            self.publish(held.unwrap_or_default());
        }
    }

    /// Tends at most `turn` meters that are due until a world time. Whether there may be more.
    pub fn tend_until(&mut self, until: UtcMillis, turn: usize) -> bool {
        for _ in 0..turn {
            let Some(Reverse((due, index))) = self.due.peek().copied().filter(|Reverse((due, _))| *due <= until) else {
                return false;
            };
            self.due.pop();
            self.tend(due, index);
            self.due.push(Reverse((self.tended[index].next_due(), index)));
            if self.tally.is_done() {
                return false;
            }
        }
        true
    }

    fn tend(&mut self, due: UtcMillis, index: usize) {
        let Tended { station, feed } = &mut self.tended[index];
        let feed = feed.as_mut().filter(|feed| feed.next_at() <= due);
        let publications = station.at(due, |meter| feed.map(|feed| feed.push(meter)));
        self.publish(publications.unwrap_or_default());
    }

    fn publish(&mut self, publications: Vec<Publication>) {
        for publication in publications {
            if self.pushes_max.is_some_and(|most| self.tally.pushed() >= most) {
                break;
            }
            let has_readings = !publication.truth.is_empty();
            self.queue.offer(publication);
            self.tally.pushed.fetch_add(u64::from(has_readings), Ordering::Relaxed);
        }
        if self.pushes_max.is_some_and(|most| self.tally.pushed() >= most) {
            self.tally.is_done.store(true, Ordering::Relaxed);
        }
    }
}
