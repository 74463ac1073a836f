//! Whether the system clock is to be believed, and what stands in for it while it is not.
//!
//! A gateway without a clock battery starts in the past. Values that it must stamp itself are kept as uptime of this boot until
//! the cloud has told the time, and are given their instant then ([`crate::outbox::Outbox::resolve_clock`]).
//!
//! Between two words of the cloud its time goes on by the monotonic clock, which nobody can set: a system clock that is set meanwhile
//! loses its trust at once, and not only when the uplink is there again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocols::metering::UtcMillis;

use crate::clock::SharedClock;

/// The system clock is trusted within this of the cloud's.
const TRUSTED_WITHIN_MS: i64 = 5 * 60_000;
/// What other clocks are set by has to agree with the cloud's clock so well. A receipt on its way counts against it.
const SYNCHRONISED_WITHIN_MS: i64 = 2_000;
/// Two clocks that nobody corrects any more drift apart by a quarter of a second in this time, at the most.
const SYNCHRONISED_FOR: Duration = Duration::from_secs(3_600);
/// A receipt that tells the time by so much less than is known was kept back on its way: a broker may do so for hours. More than clocks
/// drift apart within a day.
const LATE_MS: i64 = 5_000;

/// A boot whose clock is not trusted (yet): which, and what the system clock says of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untrusted {
    pub boot: u64,
    /// The system clock at uptime 0: subtracted from a stamp, it leaves the uptime.
    pub origin: UtcMillis,
}

/// Shared by whoever stamps and whoever hears from the cloud.
#[derive(Clone)]
pub struct ClockTrust {
    clock: SharedClock,
    boot: u64,
    /// `None` before the first.
    cloud: Arc<Mutex<Option<CloudWord>>>,
}

/// The cloud's last word.
#[derive(Debug, Clone, Copy)]
struct CloudWord {
    /// What its clock showed at our uptime 0.
    origin: UtcMillis,
    /// On the monotonic clock.
    heard_at: Duration,
}

impl ClockTrust {
    /// `boot` is drawn at random by each process.
    pub fn new(clock: SharedClock, boot: u64) -> Self {
        Self { clock, boot, cloud: Arc::default() }
    }

    /// The cloud's clock, just heard. Answers the true start of this boot, for resolving what was stamped by uptime.
    pub fn on_cloud_time(&self, cloud: UtcMillis) -> UtcMillis {
        let offset_ms = cloud.since(self.clock.wall());
        let word = CloudWord { origin: cloud.plus_ms(-self.uptime_ms()), heard_at: self.clock.monotonic() };
        *self.cloud.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
        if offset_ms.abs() <= TRUSTED_WITHIN_MS { self.origin() } else { self.origin().plus_ms(offset_ms) }
    }

    /// Whether the time that a receipt tells has passed already, or nothing is known yet to tell that by. That the cloud's clock was set back
    /// shows when it is asked, which it is with each connection.
    pub fn is_late(&self, cloud: UtcMillis) -> bool {
        self.now_by_cloud().is_none_or(|now| now.since(cloud) > LATE_MS)
    }

    /// The time to seal by; `None` before the first word from the cloud.
    pub fn now(&self) -> Option<UtcMillis> {
        Some(self.clock.wall().plus_ms(self.correction_ms()?))
    }

    /// [`Self::now`]; before the first word from the cloud, what the system clock says.
    pub fn best_known(&self) -> UtcMillis {
        self.now().unwrap_or_else(|| self.clock.wall())
    }

    /// What has to be added to the system clock for the time to seal by; `None` before the first word from the cloud.
    pub fn correction_ms(&self) -> Option<i64> {
        self.offset_ms().map(|offset_ms| if offset_ms.abs() <= TRUSTED_WITHIN_MS { 0 } else { offset_ms })
    }

    /// Cloud clock minus ours; `None` before the first word from the cloud.
    pub fn offset_ms(&self) -> Option<i64> {
        Some(self.now_by_cloud()?.since(self.clock.wall()))
    }

    /// Whether other clocks may be set by the system clock: it and the cloud's, which are not set by each other, agree, and the cloud
    /// has said so not long ago.
    pub fn is_synchronised(&self) -> bool {
        let now = self.clock.monotonic();
        let is_fresh = self.word().is_some_and(|word| now.saturating_sub(word.heard_at) <= SYNCHRONISED_FOR);
        is_fresh && self.offset_ms().is_some_and(|offset_ms| offset_ms.abs() <= SYNCHRONISED_WITHIN_MS)
    }

    fn now_by_cloud(&self) -> Option<UtcMillis> {
        Some(self.word()?.origin.plus_ms(self.uptime_ms()))
    }

    /// `None` when stamps of the system clock are good.
    pub fn untrusted(&self) -> Option<Untrusted> {
        let trusted = self.offset_ms().is_some_and(|offset| offset.abs() <= TRUSTED_WITHIN_MS);
        (!trusted).then(|| Untrusted { boot: self.boot, origin: self.origin() })
    }

    pub fn boot(&self) -> u64 {
        self.boot
    }

    fn word(&self) -> Option<CloudWord> {
        *self.cloud.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn origin(&self) -> UtcMillis {
        self.clock.wall().plus_ms(-self.uptime_ms())
    }

    fn uptime_ms(&self) -> i64 {
        i64::try_from(self.clock.monotonic().as_millis()).unwrap_or(i64::MAX)
    }
}

/// An offset of two clocks: finer than that none is read.
pub(crate) fn whole_seconds(ms: i64) -> i64 {
    (ms as f64 / 1000.0).round() as i64 * 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    use std::time::Duration;

    /// Wall clock and uptime, in ms.
    struct Hands(AtomicI64, AtomicU64);

    impl Hands {
        fn at(wall: i64, uptime: u64) -> Arc<Self> {
            Arc::new(Self(wall.into(), uptime.into()))
        }

        fn show(&self, wall: i64, uptime: u64) {
            self.0.store(wall, Ordering::Relaxed);
            self.1.store(uptime, Ordering::Relaxed);
        }
    }

    impl Clock for Hands {
        fn wall(&self) -> UtcMillis {
            UtcMillis(self.0.load(Ordering::Relaxed))
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.1.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_clock_is_trusted_only_near_the_clouds() {
        let trust = ClockTrust::new(Hands::at(1_000, 100), 7);
        assert_eq!(trust.untrusted(), Some(Untrusted { boot: 7, origin: UtcMillis(900) }));
        assert_eq!(trust.now(), None);
        let far = 1_795_400_000_000;
        assert_eq!(trust.on_cloud_time(UtcMillis(far)), UtcMillis(far - 100));
        assert!(trust.untrusted().is_some());
        assert_eq!(trust.now(), Some(UtcMillis(far)));
        assert_eq!(trust.on_cloud_time(UtcMillis(2_000)), UtcMillis(900));
        assert_eq!((trust.untrusted(), trust.now()), (None, Some(UtcMillis(1_000))));
    }

    #[test]
    fn a_receipt_that_was_kept_back_is_late() {
        let clock = Hands::at(1_000_000, 100);
        let trust = ClockTrust::new(clock.clone(), 7);
        assert!(trust.is_late(UtcMillis(1_000_000)), "nothing is known yet");
        trust.on_cloud_time(UtcMillis(1_000_000));
        clock.show(1_060_000, 60_100);
        let late = [1_054_999, 1_055_000, 1_060_000, 1_090_000].map(|cloud| trust.is_late(UtcMillis(cloud)));
        assert_eq!(late, [true, false, false, false]);
    }

    /// Negative control: keep the offset as it was at the cloud's last word.
    #[test]
    fn a_clock_that_is_set_between_two_words_of_the_cloud_is_not_trusted() {
        let true_time = 1_795_400_000_000;
        let clock = Hands::at(true_time, 0);
        let trust = ClockTrust::new(clock.clone(), 7);
        trust.on_cloud_time(UtcMillis(true_time));
        clock.show(true_time + 60_000, 60_000);
        assert_eq!((trust.untrusted(), trust.now()), (None, Some(UtcMillis(true_time + 60_000))));
        for step in [-3_600_000, 3_600_000] {
            clock.show(true_time + 60_000 + step, 60_000);
            assert!(trust.untrusted().is_some(), "{step}");
            assert_eq!(trust.now(), Some(UtcMillis(true_time + 60_000)));
        }
        // Set right again, or the cloud agrees.
        clock.show(true_time + 70_000, 70_000);
        assert_eq!(trust.untrusted(), None);
    }

    /// Negative controls: leave out `is_fresh`; take what is trusted for synchronised.
    #[test]
    fn other_clocks_are_set_by_ours_only_while_it_agrees_with_the_clouds() {
        let true_time = 1_795_400_000_000;
        let clock = Hands::at(true_time, 0);
        let trust = ClockTrust::new(clock.clone(), 7);
        assert!(!trust.is_synchronised(), "the cloud has said nothing");
        trust.on_cloud_time(UtcMillis(true_time + 3_000));
        assert!(trust.untrusted().is_none() && !trust.is_synchronised(), "trusted, but not to a second or two");
        trust.on_cloud_time(UtcMillis(true_time - 1_500));
        assert!(trust.is_synchronised());
        clock.show(true_time + 3_600_001, 3_600_001);
        assert!(!trust.is_synchronised(), "said too long ago");
        trust.on_cloud_time(UtcMillis(true_time + 3_600_001));
        assert!(trust.is_synchronised());
        clock.show(true_time + 3_660_000, 3_600_001);
        assert!(!trust.is_synchronised(), "somebody has set it");
    }
}
