//! MQTT topics and HTTP paths, made and taken apart in one place.

use super::GatewayId;

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

#[cfg(test)]
mod tests {
    use super::*;

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
