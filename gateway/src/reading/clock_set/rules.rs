//! When a clock may be set. Plain decisions.
//!
//! A clock that is set back over the end of an interval makes two entries with one label; set forward over it, one entry too few. One
//! that is set near the end makes a very short or long interval. So all of it happens within one interval of every profile: a minute
//! before the earlier of the two times, the one shown and the right one, to a minute after the later. Who cannot wait for that, because no
//! interval is so long, does not set the clock.
//!
//! Intervals are counted in the meter's local time. Besides those of the profiles that are read there are the full hours: there daylight
//! saving changes, and a local time round it is not one instant to every meter.

use std::time::Duration;

use crate::config::metering::ClockSetSettings;

/// From the ends of an interval.
const MARGIN_MS: i64 = 60_000;
/// Always counted.
pub(super) const HOUR_S: u32 = 3_600;
/// Of profiles whose capture period is not known.
pub(super) const QUARTER_S: u32 = 900;
/// Of profiles without a period: days, months and events.
pub(super) const DAY_S: u32 = 86_400;
/// Between two tries to set one clock. Counted from the last, so that midnight is not a way round it.
pub(super) const BETWEEN_MS: i64 = 86_400_000;

/// How far a clock is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// The meter's clock minus ours.
    pub ms: i64,
    /// It may be so much more, or less.
    pub error_ms: i64,
}

/// What to do about a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// It is right, as far as the settings want it to be.
    Leave,
    Set,
    /// Not now: the end of an interval is near, or lies between the two times. It is to be asked again then.
    Wait(Duration),
    /// More than is set without a person.
    Beyond,
    /// Intervals of this length hold no two times that far apart.
    NoRoom {
        period_s: u32,
    },
}

/// `now_local_ms` is the right time, in the local time of the meter.
pub fn advise(settings: &ClockSetSettings, periods_s: &[u32], now_local_ms: i64, offset: Offset) -> Advice {
    let size_ms = offset.ms.saturating_abs();
    // What may be the fault of the line is none of the clock.
    if size_ms.saturating_sub(offset.error_ms) <= settings.above_ms {
        return Advice::Leave;
    }
    if size_ms > settings.below_ms {
        return Advice::Beyond;
    }
    let shown_ms = now_local_ms.saturating_add(offset.ms);
    let first_ms = now_local_ms.min(shown_ms) - MARGIN_MS;
    let last_ms = now_local_ms.max(shown_ms) + MARGIN_MS;
    let mut wait_ms = 0;
    for &period_s in periods_s {
        let period_ms = i64::from(period_s) * 1000;
        if last_ms - first_ms >= period_ms {
            return Advice::NoRoom { period_s };
        }
        let end_ms = (first_ms.div_euclid(period_ms) + 1) * period_ms;
        if last_ms >= end_ms {
            wait_ms = wait_ms.max(end_ms - first_ms);
        }
    }
    if wait_ms > 0 { Advice::Wait(Duration::from_millis(wait_ms.unsigned_abs())) } else { Advice::Set }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    const MINUTE_MS: i64 = 60_000;

    fn settings() -> ClockSetSettings {
        let text = "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"localhost:4059\"\n[[meter]]\nname = \"m\"\nline = \"l\"\n\
                    clock_set = { set_above_s = 5, set_below_s = 7200 }\n";
        let checked = Config::parse(text, Path::new("gateway.toml")).and_then(Config::check).unwrap();
        let set = checked.lines[0].meters[0].clock_set.as_deref();
        set.unwrap().clone()
    }

    fn exactly(ms: i64) -> Offset {
        Offset { ms, error_ms: 0 }
    }

    #[test]
    fn a_clock_is_set_only_when_it_is_surely_off_and_not_too_far() {
        let (settings, now_ms) = (settings(), 450_000);
        let advice = |ms, error_ms| advise(&settings, &[900, HOUR_S], now_ms, Offset { ms, error_ms });
        for sign in [1, -1] {
            assert_eq!(advice(5_000 * sign, 0), Advice::Leave);
            assert_eq!(advice(5_001 * sign, 0), Advice::Set);
            assert_eq!(advice(5_001 * sign, 1), Advice::Leave, "the line may be to blame");
            assert_eq!(advice(7_200_001 * sign, 0), Advice::Beyond);
            assert_eq!(advice(780_000 * sign, 0), Advice::NoRoom { period_s: 900 });
        }
        assert_eq!(advise(&settings, &[60], now_ms, exactly(6_000)), Advice::NoRoom { period_s: 60 });
        assert_eq!(advice(i64::MIN, 0), Advice::Beyond);
    }

    /// Whatever is advised: never a minute or less from the end of an interval, and never over it; and what waits is set then.
    ///
    /// Negative controls: leave `MARGIN_MS` out of `last_ms`; look at the right time alone.
    #[test]
    fn nothing_is_set_near_the_end_of_an_interval_or_over_it() {
        let (settings, periods) = (settings(), [900, HOUR_S, DAY_S]);
        let (mut set, mut waited) = (0, 0);
        for now_s in (0..7_200).step_by(7) {
            for ms in [-600_000, -125_300, -6_000, 6_000, 61_000, 779_999] {
                let now_ms = now_s * 1000;
                let set_at_ms = match advise(&settings, &periods, now_ms, exactly(ms)) {
                    Advice::Set => now_ms,
                    Advice::Wait(wait) => {
                        waited += 1;
                        let later_ms = now_ms + wait.as_millis() as i64;
                        assert!(wait <= Duration::from_secs(960), "{wait:?}");
                        assert_eq!(advise(&settings, &periods, later_ms, exactly(ms)), Advice::Set, "{now_s} {ms}");
                        later_ms
                    }
                    other => panic!("{other:?} at {now_s} of {ms}"),
                };
                set += 1;
                let quarter = |at: i64| at.div_euclid(15 * MINUTE_MS);
                let times = [set_at_ms, set_at_ms + ms];
                let near = times.iter().flat_map(|at| [at - MINUTE_MS, at + MINUTE_MS]);
                assert!(near.clone().all(|at| quarter(at) == quarter(set_at_ms)), "{now_s} {ms}: {set_at_ms}");
            }
        }
        assert!(set > 6_000 && waited > 1_000, "{set} {waited}");
    }

    #[test]
    fn the_hour_counts_where_the_profiles_have_none() {
        let settings = settings();
        assert_eq!(advise(&settings, &[DAY_S], 3_590_000, exactly(20_000)), Advice::Set);
        let wait = advise(&settings, &[DAY_S, HOUR_S], 3_590_000, exactly(20_000));
        assert_eq!(wait, Advice::Wait(Duration::from_secs(70)));
    }
}
