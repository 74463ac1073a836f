//! What is on its way to the cloud: which batch to upload, publish, repeat or set aside, and when. No IO, no clock.
//!
//! At most [`WindowSettings::batches_max`] batches are unreceipted at a time, some of them reserved for live data. Only the ref is
//! repeated, after a time-out that doubles, unless the receipt says `resend`. A batch answered `later` leaves the window; one of
//! these is tried again at a time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::outbox::{SealedBatch, Settled, Which};

#[derive(Debug, Clone, Copy)]
pub struct WindowSettings {
    pub batches_max: usize,
    pub reserved_for_live: usize,
    /// Until the ref is repeated: the first time, and at most.
    pub receipt_timeout: Duration,
    pub receipt_timeout_max: Duration,
    /// Between tries of a batch that the cloud cannot judge yet.
    pub later_pause: Duration,
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self {
            batches_max: 8,
            reserved_for_live: 2,
            receipt_timeout: Duration::from_secs(30),
            receipt_timeout_max: Duration::from_secs(15 * 60),
            later_pause: Duration::from_secs(15 * 60),
        }
    }
}

/// (incarnation, seq).
pub type BatchKey = (u64, u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Upload(SealedBatch),
    Publish(SealedBatch),
}

#[derive(Debug)]
enum State {
    /// To be uploaded at this time.
    Waiting(Duration),
    Uploading,
    /// Uploaded; the ref goes out at this time (again).
    Publishing(Duration),
}

#[derive(Debug)]
struct InFlight {
    sealed: SealedBatch,
    live: bool,
    state: State,
    backoff: Backoff,
    resends: u32,
}

#[derive(Debug)]
pub struct Window {
    settings: WindowSettings,
    in_flight: BTreeMap<BatchKey, InFlight>,
    /// The cloud cannot judge them yet.
    later: VecDeque<SealedBatch>,
    later_at: Duration,
    connected: bool,
    seed: u64,
}

fn key(sealed: &SealedBatch) -> BatchKey {
    (sealed.id.incarnation, sealed.id.seq)
}

impl Window {
    /// `unsettled`: what an earlier process had sealed. It may have been uploaded; doing so again is harmless.
    pub fn new(settings: WindowSettings, unsettled: Vec<SealedBatch>, seed: u64) -> Self {
        let mut window = Self {
            settings,
            in_flight: BTreeMap::new(),
            later: VecDeque::new(),
            later_at: Duration::ZERO,
            connected: false,
            seed,
        };
        for sealed in unsettled {
            window.add(sealed, false, Duration::ZERO);
        }
        window
    }

    /// A batch that was just sealed.
    pub fn add(&mut self, sealed: SealedBatch, live: bool, now: Duration) {
        let backoff =
            Backoff::new(self.settings.receipt_timeout, self.settings.receipt_timeout_max, self.seed ^ sealed.id.seq);
        self.in_flight.insert(key(&sealed), InFlight { sealed, live, state: State::Waiting(now), backoff, resends: 0 });
    }

    /// Which rows may be sealed now, if any may.
    pub fn room(&self, backlog: bool) -> Option<Which> {
        // A cloud that cannot judge anything must not make us seal everything.
        if !self.connected || self.later.len() >= self.settings.batches_max {
            return None;
        }
        let taken = self.in_flight.len();
        let taken_by_backlog = self.in_flight.values().filter(|batch| !batch.live).count();
        let for_backlog = self.settings.batches_max - self.settings.reserved_for_live;
        if backlog && taken < self.settings.batches_max && self.live_in_flight() == 0 {
            // Live goes first.
            Some(Which::Live)
        } else if taken < self.settings.batches_max && taken_by_backlog < for_backlog {
            Some(Which::Backlog)
        } else if backlog && taken < self.settings.batches_max {
            Some(Which::Live)
        } else {
            None
        }
    }

    fn live_in_flight(&self) -> usize {
        self.in_flight.values().filter(|batch| batch.live).count()
    }

    /// The broker is there: what was published on an earlier connection may be lost, so it goes out again.
    pub fn on_connected(&mut self, now: Duration) {
        self.connected = true;
        for batch in self.in_flight.values_mut() {
            if let State::Publishing(at) = &mut batch.state {
                batch.backoff.reset();
                *at = now;
            }
        }
    }

    pub fn on_disconnected(&mut self) {
        self.connected = false;
    }

    /// What to do now. Each action is given once and answered by one of the calls below.
    pub fn poll(&mut self, now: Duration) -> Vec<Action> {
        if !self.connected {
            return Vec::new();
        }
        if now >= self.later_at
            && self.in_flight.len() < self.settings.batches_max
            && let Some(sealed) = self.later.pop_front()
        {
            self.later_at = now + self.settings.later_pause;
            self.add(sealed, false, now);
        }
        let mut actions = Vec::new();
        for batch in self.in_flight.values_mut() {
            match batch.state {
                State::Waiting(at) if at <= now => {
                    batch.state = State::Uploading;
                    actions.push(Action::Upload(batch.sealed.clone()));
                }
                State::Publishing(at) if at <= now => {
                    batch.state = State::Publishing(now + batch.backoff.pause());
                    actions.push(Action::Publish(batch.sealed.clone()));
                }
                _ => {}
            }
        }
        actions
    }

    /// When [`Self::poll`] has something to do next.
    pub fn next_at(&self) -> Option<Duration> {
        let due = self.in_flight.values().filter_map(|batch| match batch.state {
            State::Waiting(at) | State::Publishing(at) => Some(at),
            State::Uploading => None,
        });
        // One that was put off also waits for room, which only a receipt makes: its time may be long past by then.
        let has_room = self.in_flight.len() < self.settings.batches_max;
        let later_at = (has_room && !self.later.is_empty()).then_some(self.later_at);
        due.chain(later_at).min().filter(|_| self.connected)
    }

    pub fn on_uploaded(&mut self, batch: BatchKey, now: Duration) {
        if let Some(batch) = self.in_flight.get_mut(&batch) {
            batch.backoff.reset();
            batch.state = State::Publishing(now);
        }
    }

    pub fn on_upload_failed(&mut self, batch: BatchKey, now: Duration) {
        if let Some(batch) = self.in_flight.get_mut(&batch) {
            batch.state = State::Waiting(now + batch.backoff.pause());
        }
    }

    /// The payload was damaged on our disk: its rows will be sealed anew.
    pub fn on_abandoned(&mut self, batch: BatchKey) {
        self.in_flight.remove(&batch);
    }

    /// What the outbox made of a receipt.
    pub fn on_settled(&mut self, incarnation: u64, settled: &Settled, now: Duration) {
        for seq in settled.applied.iter().chain(settled.refused.iter().map(|(seq, _)| seq)) {
            self.in_flight.remove(&(incarnation, *seq));
            self.later.retain(|sealed| key(sealed) != (incarnation, *seq));
        }
        for seq in &settled.resend {
            if let Some(batch) = self.in_flight.get_mut(&(incarnation, *seq))
                && !matches!(batch.state, State::Uploading)
            {
                // At once the first time; a cloud that keeps losing it is asked ever more slowly.
                let pause = match batch.resends {
                    0 => Duration::ZERO,
                    n => (self.settings.receipt_timeout * 2u32.pow(n.min(10))).min(self.settings.receipt_timeout_max),
                };
                batch.resends += 1;
                batch.state = State::Waiting(now + pause);
            }
        }
        for seq in &settled.later {
            if let Some(batch) = self.in_flight.remove(&(incarnation, *seq)) {
                if self.later.is_empty() {
                    self.later_at = now + self.settings.later_pause;
                }
                self.later.push_back(batch.sealed);
            }
        }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn later(&self) -> usize {
        self.later.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocols::metering::UtcMillis;
    use protocols::uplink::{BatchId, GatewayId, Sha256};

    fn sealed(seq: u64) -> SealedBatch {
        SealedBatch {
            id: BatchId { gateway: GatewayId::new("gw").unwrap(), incarnation: 1, seq },
            sealed_at: UtcMillis(seq as i64),
            sha256: Sha256([0; 32]),
            bytes: 1,
            uncompressed_bytes: 1,
            readings: 1,
            events: 0,
            first_at: UtcMillis(0),
            last_at: UtcMillis(0),
        }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn connected() -> Window {
        let mut window = Window::new(WindowSettings::default(), Vec::new(), 1);
        window.on_connected(s(0));
        window
    }

    fn settled(applied: &[u64], resend: &[u64], later: &[u64]) -> Settled {
        Settled {
            applied: applied.to_vec(),
            refused: vec![],
            resend: resend.to_vec(),
            later: later.to_vec(),
            forgotten: vec![],
            is_foreign: false,
        }
    }

    #[test]
    fn a_batch_is_uploaded_then_published_then_repeated_until_its_receipt() {
        let mut window = connected();
        window.add(sealed(1), false, s(0));
        assert_eq!(window.poll(s(0)), [Action::Upload(sealed(1))]);
        assert_eq!(window.poll(s(0)), []);
        window.on_upload_failed((1, 1), s(0));
        assert_eq!(window.poll(s(31)), [Action::Upload(sealed(1))]);
        window.on_uploaded((1, 1), s(31));
        assert_eq!(window.poll(s(31)), [Action::Publish(sealed(1))]);
        assert_eq!(window.poll(s(45)), []);
        assert_eq!(window.poll(s(62)), [Action::Publish(sealed(1))], "only the ref is repeated");
        window.on_settled(1, &settled(&[1], &[], &[]), s(63));
        assert_eq!((window.poll(s(9999)), window.next_at()), (vec![], None));
    }

    #[test]
    fn a_new_connection_publishes_again_at_once() {
        let mut window = connected();
        window.add(sealed(1), false, s(0));
        window.poll(s(0));
        window.on_uploaded((1, 1), s(0));
        window.poll(s(0));
        window.on_disconnected();
        assert_eq!(window.poll(s(100)), []);
        window.on_connected(s(101));
        assert_eq!(window.poll(s(101)), [Action::Publish(sealed(1))]);
    }

    #[test]
    fn the_backlog_leaves_room_for_live_data() {
        let mut window = connected();
        let mut which = Vec::new();
        for seq in 1.. {
            let Some(next) = window.room(true) else { break };
            which.push(next);
            window.add(sealed(seq), next == Which::Live, s(0));
        }
        assert_eq!(which.iter().filter(|which| **which == Which::Backlog).count(), 6);
        assert_eq!((which[0], which.len()), (Which::Live, 8));
    }

    #[test]
    fn resend_uploads_again_and_later_leaves_the_window() {
        let mut window = connected();
        for seq in 1..=3 {
            window.add(sealed(seq), false, s(0));
            window.poll(s(0));
            window.on_uploaded((1, seq), s(0));
        }
        window.poll(s(0));
        window.on_settled(1, &settled(&[], &[1], &[2, 3]), s(1));
        assert_eq!(window.poll(s(1)), [Action::Upload(sealed(1))]);
        assert_eq!((window.in_flight(), window.later()), (1, 2));
        assert_eq!(window.poll(s(1 + 900)), [Action::Upload(sealed(2))], "one at a time");
        assert_eq!(window.later(), 1);
    }

    #[test]
    fn a_cloud_that_judges_nothing_does_not_make_us_seal_everything() {
        let mut window = connected();
        for seq in 1..=8 {
            window.add(sealed(seq), false, s(0));
            window.on_settled(1, &settled(&[], &[], &[seq]), s(0));
        }
        assert_eq!(window.room(false), None);
    }

    /// Negative control: name the time of the one that was put off whatever the room.
    #[test]
    fn a_full_window_does_not_wake_for_a_batch_that_was_put_off() {
        let mut window = connected();
        window.add(sealed(1), false, s(0));
        window.on_settled(1, &settled(&[], &[], &[1]), s(0));
        for seq in 2..=9 {
            window.add(sealed(seq), false, s(0));
        }
        window.poll(s(0));
        for seq in 2..=9 {
            window.on_uploaded((1, seq), s(0));
        }
        assert_eq!((window.poll(s(901)).len(), window.later()), (8, 1));
        assert!(window.next_at().is_some_and(|at| at > s(901)), "{:?}", window.next_at());
        window.on_settled(1, &settled(&[2], &[], &[]), s(902));
        assert_eq!(window.next_at(), Some(s(900)));
        assert_eq!(window.poll(s(902)), [Action::Upload(sealed(1))]);
    }
}
