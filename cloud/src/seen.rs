//! Which gateways see a meter at present. More than one is an alarm: two lines lead to one meter, a serial number exists
//! twice, or a gateway that was replaced still runs.
//!
//! Inventories tell. One that is too old tells of the past: a meter that was moved is seen by its old gateway until that says
//! otherwise, or has said nothing for [`INVENTORY_AGE_MS_MAX`].

use protocols::metering::UtcMillis;
use protocols::uplink::{GatewayId, MeterEntry, MeterState};

/// A gateway sends its inventory daily; one that did not for so long is not heard.
pub const INVENTORY_AGE_MS_MAX: i64 = 36 * 3_600_000;

/// The state of a meter that several gateways see, for people and as a filter.
pub const TWO_GATEWAYS: &str = "two gateways";

/// Whether an inventory sealed at `sealed_at` says that a meter answers at this place. A meter that answers where another is
/// expected is seen, too.
pub fn is_seen(entry: &MeterEntry, sealed_at: UtcMillis, now: UtcMillis) -> bool {
    let answers = match entry.state {
        MeterState::Ok | MeterState::WrongIdentity | MeterState::Refusing | MeterState::ClockOff => true,
        MeterState::Unknown | MeterState::Silent | MeterState::Parked => false,
    };
    answers && entry.meter.is_some() && now.since(sealed_at) <= INVENTORY_AGE_MS_MAX
}

/// What to say of a meter that these gateways see; `None` when there is nothing to say.
pub fn alarm(seen_by: &[GatewayId]) -> Option<String> {
    let [all @ .., last] = seen_by else { return None };
    if all.is_empty() {
        return None;
    }
    let all: Vec<&str> = all.iter().map(GatewayId::as_str).collect();
    Some(format!("seen by gateways {} and {last}", all.join(", ")))
}

/// A cause after what is known already.
pub fn joined(first: Option<String>, second: &str) -> String {
    match (first, second) {
        (Some(first), "") => first,
        (Some(first), second) => format!("{first}; {second}"),
        (None, second) => second.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_several_gateways_are_an_alarm() {
        let gateways: Vec<GatewayId> = ["gw-1", "gw-2", "gw-3"].map(|id| GatewayId::new(id).unwrap()).to_vec();
        assert_eq!((alarm(&[]), alarm(&gateways[..1])), (None, None));
        assert_eq!(alarm(&gateways[..2]).as_deref(), Some("seen by gateways gw-1 and gw-2"));
        assert_eq!(alarm(&gateways).as_deref(), Some("seen by gateways gw-1, gw-2 and gw-3"));
    }
}
