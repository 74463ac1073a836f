//! Two rates by the meter's own local time: low at night and at weekends, normal on working days from 07:00 to 23:00.

use protocols::metering::UtcMillis;

use crate::clock::{DAY_MS, Zone, days_since_sunday};

const HOUR_MS: i64 = 3_600_000;
const SWITCHES_H: [i64; 2] = [7, 23];

/// Index of the active rate: 0 low (1.8.1), 1 normal (1.8.2).
pub(super) fn rate_at(shown: UtcMillis, zone: Zone) -> usize {
    let local = zone.local(shown);
    let is_working_day = (1..=5).contains(&days_since_sunday(local.day()));
    let in_day_ms = local.0.rem_euclid(DAY_MS);
    usize::from(is_working_day && (SWITCHES_H[0] * HOUR_MS..SWITCHES_H[1] * HOUR_MS).contains(&in_day_ms))
}

/// The next shown time at which the rate may change.
pub(super) fn next_switch(shown: UtcMillis, zone: Zone) -> UtcMillis {
    let today = zone.local(shown).day();
    let of_day = |day: protocols::metering::Day| {
        SWITCHES_H.into_iter().map(move |hour| zone.instant_of(day.start().plus_ms(hour * HOUR_MS)))
    };
    let later = of_day(today).chain(of_day(today.next())).find(|switch| *switch > shown);
    later.expect("tomorrow's switches are later than now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_switch_by_local_time() {
        let zone = Zone::CENTRAL_EUROPE;
        let at = |text: &str| text.parse::<UtcMillis>().unwrap();
        // 2026-07-06 is a Monday; local time is two hours ahead.
        assert_eq!(rate_at(at("2026-07-06T04:59:59Z"), zone), 0);
        assert_eq!(rate_at(at("2026-07-06T05:00:00Z"), zone), 1);
        assert_eq!(rate_at(at("2026-07-05T12:00:00Z"), zone), 0);
        assert_eq!(next_switch(at("2026-07-06T05:00:00Z"), zone), at("2026-07-06T21:00:00Z"));
        assert_eq!(next_switch(at("2026-10-24T21:00:00Z"), zone), at("2026-10-25T06:00:00Z"));
    }
}
