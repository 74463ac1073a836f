//! How fast the meters live: world time as a function of the wall clock.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocols::metering::UtcMillis;
use tokio::time::Instant;

/// The wall clock: the only place that asks for it.
#[expect(clippy::disallowed_methods, reason = "the one place where the simulator asks the wall clock")]
pub fn wall_now() -> UtcMillis {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UtcMillis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

/// How long to sleep until what a frozen world never reaches; somebody may stop the fleet meanwhile.
const FROZEN_NAP: Duration = Duration::from_hours(1);

/// World time = `start_at` + (wall - start) * speed, and never later than the wall clock.
///
/// An accelerated fleet that has caught up with the wall clock goes on at speed 1: no meter pushes what has not happened
/// yet. A fleet that starts in the future by its own wish keeps its lead and never widens it.
#[derive(Debug, Clone)]
pub struct Pace {
    /// World time at which the world stopped: set once.
    frozen_at: OnceLock<UtcMillis>,
    start_at: UtcMillis,
    speed: f64,
    /// World time that may be reached at the start; it moves with the wall clock.
    ceiling_at_start: UtcMillis,
    wall_at_start: UtcMillis,
    started: Instant,
}

impl Pace {
    pub fn starting(start_at: UtcMillis, wall: UtcMillis, speed: f64) -> Self {
        let (frozen_at, started) = (OnceLock::new(), Instant::now());
        Self { frozen_at, start_at, speed, ceiling_at_start: start_at.max(wall), wall_at_start: wall, started }
    }

    pub const fn start_at(&self) -> UtcMillis {
        self.start_at
    }

    pub const fn speed(&self) -> f64 {
        self.speed
    }

    /// The wall clock as it was at the start and went on since; whoever sets the system's clock does not move it.
    pub fn wall(&self) -> UtcMillis {
        self.wall_at_start.plus_ms(self.started.elapsed().as_millis() as i64)
    }

    pub fn now(&self) -> UtcMillis {
        self.frozen_at.get().copied().unwrap_or_else(|| self.world_after(self.started.elapsed()))
    }

    /// Stops the world: no clock goes on, nothing is captured or pushed any more, and what was captured can still be read.
    pub fn freeze(&self) {
        self.frozen_at.get_or_init(|| self.world_after(self.started.elapsed()));
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen_at.get().is_some()
    }

    fn world_after(&self, elapsed: Duration) -> UtcMillis {
        let elapsed_ms = elapsed.as_secs_f64() * 1000.0;
        let lived = self.start_at.plus_ms((elapsed_ms * self.speed) as i64);
        lived.min(self.ceiling_at_start.plus_ms(elapsed_ms as i64))
    }

    /// How long to wait until the world has reached an instant; zero when it has.
    pub fn wall_until(&self, world: UtcMillis) -> Duration {
        if self.frozen_at.get().is_some_and(|frozen_at| world > *frozen_at) {
            return FROZEN_NAP;
        }
        self.elapsed_at(world).saturating_sub(self.started.elapsed())
    }

    /// The inverse of [`Self::world_after`].
    fn elapsed_at(&self, world: UtcMillis) -> Duration {
        let by_speed_ms = world.since(self.start_at).max(0) as f64 / self.speed;
        let by_ceiling_ms = world.since(self.ceiling_at_start).max(0) as f64;
        Duration::try_from_secs_f64(by_speed_ms.max(by_ceiling_ms) / 1000.0).unwrap_or(Duration::MAX)
    }
}

/// How far back an accelerated fleet starts when nobody says: it may run for an hour before it catches up with the wall clock.
pub fn days_back_by_default(speed: f64) -> f64 {
    if speed > 1.0 { ((speed - 1.0) / 24.0).ceil() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UtcMillis = UtcMillis(1_790_000_000_000);

    #[test]
    fn an_accelerated_fleet_stops_at_the_wall_clock() {
        let pace = Pace::starting(START, START.plus_ms(99_000), 100.0);
        assert_eq!(pace.world_after(Duration::from_millis(500)), START.plus_ms(50_000));
        assert_eq!(pace.world_after(Duration::from_secs(2)), START.plus_ms(101_000));
        assert_eq!(pace.elapsed_at(START.plus_ms(102_000)), Duration::from_secs(3));
        assert_eq!(pace.elapsed_at(START.plus_ms(50_000)), Duration::from_millis(500));
        assert_eq!(pace.wall_until(START), Duration::ZERO);
        assert!(pace.now() >= START);
    }

    #[test]
    fn waiting_as_long_as_told_reaches_the_instant() {
        for speed in [0.5, 1.0, 7.0, 3600.0] {
            let pace = Pace::starting(START, START.plus_ms(3_600_000), speed);
            for ahead in [1, 999, 12_345, 3_600_000, 9_999_999] {
                let world = START.plus_ms(ahead);
                let elapsed = pace.elapsed_at(world) + Duration::from_millis(1);
                assert!(pace.world_after(elapsed) >= world, "{ahead} at speed {speed}");
            }
        }
    }

    #[test]
    fn a_frozen_world_stays_where_it_is() {
        let pace = Pace::starting(START, START.plus_ms(3_600_000), 1_000_000.0);
        pace.freeze();
        let frozen_at = pace.now();
        pace.freeze();
        assert_eq!(pace.now(), frozen_at);
        assert_eq!(pace.wall_until(frozen_at.plus_ms(1)), FROZEN_NAP);
    }

    #[test]
    fn the_default_start_allows_an_hour_of_acceleration() {
        let days = [0.5, 1.0, 2.0, 25.0, 49.0, 60.0].map(|speed| days_back_by_default(speed) as u32);
        assert_eq!(days, [0, 0, 1, 1, 2, 3]);
    }
}
