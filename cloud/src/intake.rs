//! Judging what arrives by MQTT before it goes into the log.
//!
//! The topic is what the broker vouches for; the message must name the same gateway. A message of a newer version is let
//! through: the worker answers the ref with `later`, and the gateway repeats it until the cloud is updated.

use std::borrow::Cow;

use protocols::uplink::limits::{REF_BYTES_MAX, STATUS_BYTES_MAX};
use protocols::uplink::topics::Topic;
use protocols::uplink::{BatchRef, DecodeError, GatewayId, Status};

use crate::log::Uplinked;
use crate::telemetry::Metric;

/// Why a message is dropped. The gateway repeats what matters; dropping it again costs nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    #[error("no topic of ours")]
    Topic,
    #[error("it names {named}, the topic {gateway}")]
    Foreign { gateway: GatewayId, named: GatewayId },
    #[error("{len} bytes are more than the {max} allowed")]
    Oversize { len: usize, max: usize },
    #[error("unreadable: {0}")]
    Malformed(Cow<'static, str>),
}

impl Dropped {
    pub fn metric(&self) -> Metric {
        match self {
            Self::Topic | Self::Malformed(_) => Metric::IntakeMalformed,
            Self::Foreign { .. } => Metric::IntakeForeign,
            Self::Oversize { .. } => Metric::IntakeOversize,
        }
    }
}

/// What the intake subscribes to. With a share group, several instances divide the refs among them; statuses are retained,
/// which shared subscriptions are not given, so every instance takes those.
pub fn filters(share_group: Option<&str>) -> Vec<String> {
    let refs = Topic::Refs.of_all();
    let refs = share_group.map_or(refs.clone(), |group| format!("$share/{group}/{refs}"));
    vec![refs, Topic::Status.of_all()]
}

pub fn judge(topic: &str, payload: &[u8]) -> Result<(GatewayId, Uplinked), Dropped> {
    let (gateway, topic) = Topic::parse(topic).ok_or(Dropped::Topic)?;
    let max = match topic {
        Topic::Refs => REF_BYTES_MAX,
        Topic::Status => STATUS_BYTES_MAX,
        _ => return Err(Dropped::Topic),
    };
    if payload.len() > max {
        return Err(Dropped::Oversize { len: payload.len(), max });
    }
    let (named, uplinked) = if topic == Topic::Refs {
        let named = match BatchRef::decode(payload) {
            Err(DecodeError::Newer { .. }) => BatchRef::decode_id(payload).map(|id| id.gateway),
            decoded => decoded.map(|reference| reference.id.gateway),
        };
        (named, Uplinked::Ref(payload.to_vec()))
    } else {
        (Status::decode(payload).map(|status| status.gateway), Uplinked::Status(payload.to_vec()))
    };
    match named {
        Ok(named) if named != gateway => Err(Dropped::Foreign { gateway, named }),
        Ok(_) | Err(DecodeError::Newer { .. }) => Ok((gateway, uplinked)),
        Err(error) => Err(Dropped::Malformed(error.to_string().into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{batch, gateway, sealed};

    #[test]
    fn only_a_gateways_own_readable_refs_pass() {
        let bytes = sealed(&batch(1, 1, 2), 1).0.encode();
        let own = Topic::Refs.of(&gateway(1));
        assert_eq!(judge(&own, &bytes), Ok((gateway(1), Uplinked::Ref(bytes.clone()))));
        let other = Topic::Refs.of(&gateway(2));
        assert!(matches!(judge(&other, &bytes), Err(Dropped::Foreign { .. })));
        assert!(matches!(judge(&own, &[0xff]), Err(Dropped::Malformed(_))));
        assert!(matches!(judge(&own, &vec![0; REF_BYTES_MAX + 1]), Err(Dropped::Oversize { .. })));
        assert_eq!(judge("meterpost/v1/gw-1/receipts", &bytes), Err(Dropped::Topic));
        assert_eq!(judge("some/where", &bytes), Err(Dropped::Topic));
        assert!(matches!(judge(&Topic::Status.of(&gateway(1)), &bytes), Err(Dropped::Malformed(_))));
    }

    #[test]
    fn a_newer_version_passes_when_it_names_its_gateway_and_batch() {
        let newer = b"\x85\x02\x64gw-1\x01\x01\xf7".to_vec();
        let (own, other) = (Topic::Refs.of(&gateway(1)), Topic::Refs.of(&gateway(2)));
        assert_eq!(judge(&own, &newer), Ok((gateway(1), Uplinked::Ref(newer.clone()))));
        assert!(matches!(judge(&other, &newer), Err(Dropped::Foreign { .. })));
        assert!(matches!(judge(&own, b"\x82\x02\x00"), Err(Dropped::Malformed(_))));
        let status = b"\x82\x02\x00";
        let passed = judge(&Topic::Status.of(&gateway(1)), status);
        assert_eq!(passed, Ok((gateway(1), Uplinked::Status(status.to_vec()))));
    }

    #[test]
    fn instances_share_refs_but_not_statuses() {
        assert_eq!(filters(None), ["meterpost/v1/+/refs", "meterpost/v1/+/status"]);
        assert_eq!(filters(Some("cloud")), ["$share/cloud/meterpost/v1/+/refs", "meterpost/v1/+/status"]);
    }
}
