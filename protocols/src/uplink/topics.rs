//! MQTT topics and HTTP paths, made and taken apart in one place.

use super::GatewayId;
use crate::metering::{Series, UtcMillis};

/// What a gateway and the cloud say to each other over MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Gateway to cloud: [`super::BatchRef`].
    Refs,
    /// Cloud to gateway: [`super::Receipt`].
    Receipts,
    /// Cloud to gateway: commands (a later version).
    Commands,
    /// Gateway to cloud: results of commands (a later version).
    Results,
    /// Gateway to cloud, retained: [`super::Status`].
    Status,
    /// Gateway to cloud, retained, last will: `1` or `0`.
    Online,
}

impl Topic {
    const ALL: [Self; 6] = [Self::Refs, Self::Receipts, Self::Commands, Self::Results, Self::Status, Self::Online];

    const fn name(self) -> &'static str {
        match self {
            Self::Refs => "refs",
            Self::Receipts => "receipts",
            Self::Commands => "commands",
            Self::Results => "results",
            Self::Status => "status",
            Self::Online => "online",
        }
    }

    /// `meterpost/v1/{gateway}/refs`.
    pub fn of(self, gateway: &GatewayId) -> String {
        format!("meterpost/v1/{gateway}/{}", self.name())
    }

    /// The subscription for this topic of every gateway: `meterpost/v1/+/refs`.
    pub fn of_all(self) -> String {
        format!("meterpost/v1/+/{}", self.name())
    }

    /// `None` for a topic that is not ours or names no valid gateway.
    pub fn parse(topic: &str) -> Option<(GatewayId, Self)> {
        let (gateway, name) = topic.strip_prefix("meterpost/v1/")?.split_once('/')?;
        let topic = Self::ALL.into_iter().find(|topic| topic.name() == name)?;
        Some((GatewayId::new(gateway).ok()?, topic))
    }
}

/// The header of a payload upload that holds the payload's SHA-256, 64 lowercase hexadecimal digits.
pub const SHA256_HEADER: &str = "x-meterpost-sha256";

/// `/v1/payloads/{gateway}/{incarnation}/{seq}`; the incarnation in 16 hexadecimal digits.
pub fn payload_path(batch: &super::BatchId) -> String {
    format!("/v1/payloads/{}/{:016x}/{}", batch.gateway, batch.incarnation, batch.seq)
}

/// Points in time at which readings of a series are looked for: `from`, `from` + `step_s`, ... up to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldGrid {
    pub from: UtcMillis,
    /// Inclusive.
    pub to: UtcMillis,
    pub step_s: u32,
}

impl HeldGrid {
    /// `None` when it has no points.
    pub fn points(&self) -> Option<u64> {
        let step_ms = i64::from(self.step_s) * 1000;
        let span_ms = u64::try_from(self.to.0.checked_sub(self.from.0)?).ok()?;
        (step_ms > 0).then(|| span_ms / step_ms.unsigned_abs() + 1)
    }
}

/// `/v1/held/{gateway}?...`: which ranges of a grid the cloud holds of a series.
pub fn held_path(gateway: &GatewayId, series: &Series, grid: &HeldGrid) -> String {
    let period = if series.kind.has_period() { format!("&period_s={}", series.period_s) } else { String::new() };
    let HeldGrid { from, to, step_s } = grid;
    format!(
        "/v1/held/{gateway}?meter={}&code={}&kind={}{period}&from={}&to={}&step_s={step_s}",
        encoded(series.meter.as_str()),
        encoded(&series.code.to_string()),
        series.kind,
        encoded(&from.to_string()),
        encoded(&to.to_string()),
    )
}

/// Percent-encoding (RFC 3986) of all but the unreserved characters.
fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let each = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_survives_a_query() {
        let gateway = GatewayId::new("gw-1").unwrap();
        let series: Series = "KFM:1 1-0:1.29.0 interval 900s".parse().unwrap();
        let (from, to) = (UtcMillis(1_795_392_000_000), UtcMillis(1_795_392_900_000));
        let grid = HeldGrid { from, to, step_s: 900 };
        assert_eq!(
            held_path(&gateway, &series, &grid),
            "/v1/held/gw-1?meter=KFM%3A1&code=1-0%3A1.29.0&kind=interval&period_s=900\
             &from=2026-11-23T00%3A00%3A00Z&to=2026-11-23T00%3A15%3A00Z&step_s=900"
        );
        let register: Series = "KFM:1 1-0:1.8.0/5 register".parse().unwrap();
        assert!(held_path(&gateway, &register, &grid).contains("&code=1-0%3A1.8.0%2F5&kind=register&from="));
        assert_eq!(grid.points(), Some(2));
        assert_eq!(HeldGrid { step_s: 0, ..grid }.points(), None);
        assert_eq!(HeldGrid { to: from.plus_ms(-1), ..grid }.points(), None);
        assert_eq!(HeldGrid { from: UtcMillis(i64::MIN), to: UtcMillis(i64::MAX), ..grid }.points(), None);
    }

    #[test]
    fn topics_round_trip() {
        let gateway = GatewayId::new("gw-1").unwrap();
        for topic in Topic::ALL {
            assert_eq!(Topic::parse(&topic.of(&gateway)), Some((gateway.clone(), topic)));
        }
        for other in ["", "meterpost/v1/gw-1", "meterpost/v1/gw/1/refs", "meterpost/v2/gw-1/refs", "meterpost/v1//refs"]
        {
            assert_eq!(Topic::parse(other), None, "{other:?}");
        }
    }
}
