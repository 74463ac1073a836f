//! A port at which a meter pushes: a telegram at a fixed interval of the wall clock, to whoever listens.
//!
//! What is sent, a [`Feed`] says: [`p1`](super::p1), [`sml`](super::sml), [`d0`](super::d0). A telegram belongs to the truth from the moment when its last
//! octet was written. On TCP nothing is captured while nobody is connected; a pty or serial port cannot tell, so that it is
//! always written to: what does not fit into its buffer in time is broken off, as on a wire at which nobody listens.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocols::metering::UtcMillis;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::attend::next_reader;
use super::line::{Duplex, Line, LineSpeed, Listener};
use crate::faults::{Fault, FaultRates, LineFaults};
use crate::meter::VirtualMeter;
use crate::pace::Pace;
use crate::rng::Rng;
use crate::station::Station;
use crate::truth::{Truth, TruthLine};

/// How much longer than the line's speed says a telegram may take. A reader that takes longer has stopped reading.
const WRITE_SLACK: Duration = Duration::from_secs(2);

/// One telegram on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    pub delay_ms: u64,
    pub octets: Vec<u8>,
    /// What a reader finds; nothing in a damaged telegram.
    pub truth: Vec<TruthLine>,
}

/// Makes the telegrams of one meter.
pub trait Feed: Send {
    /// The telegram of this moment, if there is one.
    fn next(&mut self, meter: &VirtualMeter) -> Option<Sending>;
    /// That a telegram was written whole.
    fn sent(&mut self, _sending: &Sending) {}
}

/// What befalls telegrams of which a reader takes all or nothing, because a check spans them.
#[derive(Debug, Clone)]
pub(super) struct CheckedDamage {
    pub(super) faults: LineFaults,
    pub(super) rng: Rng,
}

impl CheckedDamage {
    /// Damages the octets from `first` on, so that a reader is sure to refuse them: `is_taken` says whether one would take the
    /// telegram yet. The last octet stays, for what the line brings next might stand in for it.
    pub(super) fn befall(&mut self, sending: &mut Sending, first: usize, is_taken: impl Fn(&[u8]) -> bool) {
        let octets = &mut sending.octets;
        let mut is_damaged = false;
        let place = |rng: &mut Rng, octets: &[u8]| first + rng.below((octets.len() - 1 - first) as u64) as usize;
        if self.faults.strikes(Fault::WrongCrc) {
            *octets.last_mut().expect("a telegram has a check at its end") ^= 1;
            is_damaged = true;
        }
        if self.faults.strikes(Fault::LineNoise) {
            if self.rng.below(2) == 0 {
                let noise: Vec<u8> = (0..=self.rng.below(8)).map(|_| self.rng.next_u64() as u8).collect();
                octets.splice(0..0, noise);
            } else {
                let at = place(&mut self.rng, octets);
                octets[at] ^= 1 + self.rng.below(255) as u8;
                is_damaged = true;
            }
        } else if self.faults.strikes(Fault::DroppedBytes) {
            octets.remove(place(&mut self.rng, octets));
            is_damaged = true;
        }
        while is_damaged && is_taken(octets) {
            let at = place(&mut self.rng, octets);
            octets[at] ^= 1 + self.rng.below(255) as u8;
        }
        if is_damaged {
            sending.truth.clear();
        }
    }
}

/// One meter's port.
pub struct PushPort<F> {
    pub station: Arc<Station>,
    pub feed: F,
    pub truth: Arc<Truth>,
    pub schedule: Schedule,
    pub listener: Listener,
    pub speed: Option<LineSpeed>,
}

/// Why a reader's connection ended.
enum Ended {
    Left,
    TakenOver(Box<dyn Duplex>),
    Stopped,
}

impl<F: Feed> PushPort<F> {
    /// Sends until told to stop; a telegram that was begun is finished.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut next = None;
        loop {
            let stream = tokio::select! {
                biased;
                stream = next_reader(next.take(), &mut self.listener) => stream,
                // An error means that whoever could stop us is gone: the same as being stopped.
                _ = stopping.wait_for(|stop| *stop) => return,
            };
            // Damage is done by the feed, which knows what it makes of the truth.
            let line = Line::new(stream, self.speed, LineFaults::new(0, FaultRates::default()));
            match self.serve(line, &mut stopping).await {
                Ok(Ended::Stopped) => return,
                Ok(Ended::TakenOver(stream)) => next = Some(stream),
                Ok(Ended::Left) => {}
                Err(error) => debug!(meter = %self.station.id(), %error, "a reader's line broke"),
            }
        }
    }

    async fn serve(&mut self, mut line: Line, stopping: &mut watch::Receiver<bool>) -> io::Result<Ended> {
        loop {
            let at = self.schedule.next();
            tokio::select! {
                biased;
                () = sleep(self.schedule.wall_until(at)) => {}
                received = line.receive() => match received? {
                    // A port has no ears.
                    Some(_) => continue,
                    None => return Ok(Ended::Left),
                },
                accepted = self.listener.accept() => return Ok(Ended::TakenOver(accepted?)),
                _ = stopping.wait_for(|stop| *stop) => return Ok(Ended::Stopped),
            }
            self.schedule.done(at);
            let feed = &mut self.feed;
            let Some(sending) = self.station.at(at, |meter| feed.next(meter)) else { continue };
            sleep(Duration::from_millis(sending.delay_ms)).await;
            let takes = self.speed.map_or(Duration::ZERO, |speed| speed.time_of(sending.octets.len()));
            match timeout(takes + WRITE_SLACK, line.send(&sending.octets)).await {
                Ok(sent) => sent?,
                Err(_) if self.listener.is_wire() => continue,
                Err(_) => return Ok(Ended::Left),
            }
            self.feed.sent(&sending);
            let pushed_at = Some(self.schedule.pace.wall().0);
            let lines: Vec<TruthLine> = sending.truth.into_iter().map(|line| TruthLine { pushed_at, ..line }).collect();
            self.truth.write(&lines);
        }
    }
}

/// When telegrams are due, in world time: evenly from the start on, as long as the world runs at its speed, and at the same
/// interval of the wall clock once it has caught up with it. What could not be sent in time is left out.
pub struct Schedule {
    pace: Arc<Pace>,
    every_wall_ms: u64,
    every_world_ms: i64,
    next_at: UtcMillis,
}

impl Schedule {
    pub fn new(pace: Arc<Pace>, every_wall_ms: u64) -> Self {
        let every_world_ms = ((every_wall_ms as f64 * pace.speed()) as i64).max(1);
        Self { next_at: pace.start_at(), pace, every_wall_ms, every_world_ms }
    }

    /// The next instant that has not passed by more than the time between two.
    pub fn next(&self) -> UtcMillis {
        let late_ms = self.pace.now().since(self.next_at);
        let step_ms = self.step_ms();
        if late_ms > step_ms { self.next_at.plus_ms(late_ms / step_ms * step_ms) } else { self.next_at }
    }

    pub fn wall_until(&self, at: UtcMillis) -> Duration {
        self.pace.wall_until(at)
    }

    /// That one was sent, or given up.
    pub fn done(&mut self, at: UtcMillis) {
        self.next_at = at.plus_ms(self.step_ms());
    }

    fn step_ms(&self) -> i64 {
        let ahead = self.pace.wall_until(self.pace.now().plus_ms(self.every_world_ms));
        let has_caught_up = ahead > Duration::from_millis(self.every_wall_ms) * 2;
        if has_caught_up { self.every_wall_ms as i64 } else { self.every_world_ms }
    }
}
