//! `[meter.clock_set]`: whether the clock of a DLMS meter is set, and by whom.

use std::path::PathBuf;
use std::sync::Arc;

use protocols::uplink::GatewayId;
use serde::{Deserialize, Serialize};

use super::{AssociationName, MeterProtocol, MeterSection, MeterSettings, Switch, check_address, value};
use crate::config::ConfigError;
use crate::config::security::{AuthenticationName, PolicyName, check_security, signs};

/// Clocks are read, and set, to about a second.
const ABOVE_S_MIN: u32 = 2;

/// A section that is there switches it on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockSetSection {
    /// The clock is set when it is off by more than this; 2 at the least. Has to be set.
    pub set_above_s: Option<u32>,
    /// A clock that is off by more than this is left as it is, and the meter's state says so: a person has to look at it. Has to be set.
    pub set_below_s: Option<u32>,
    /// Who sets it, where the client that reads may not: mostly 1, the management client. What is not named here is as in `[[meter]]`.
    pub client: Option<u16>,
    /// How this client proves who it is. With this or `password_file`, neither is as in `[[meter]]`.
    pub authentication: Option<AuthenticationName>,
    /// A file that holds its password or secret.
    pub password_file: Option<PathBuf>,
    /// A file that holds its global unicast encryption key (GUEK).
    pub encryption_key_file: Option<PathBuf>,
    /// A file that holds its global authentication key (GAK).
    pub authentication_key_file: Option<PathBuf>,
}

/// When a clock is set, and as whom.
#[derive(Debug, Clone, PartialEq)]
pub struct ClockSetSettings {
    pub above_ms: i64,
    pub below_ms: i64,
    /// The meter as the client that may set it talks to it.
    pub writer: Arc<MeterSettings>,
}

/// `section` is as it was written, `meter` what it means.
pub(super) fn check_clock_set(
    at: &str,
    section: MeterSection,
    meter: &MeterSettings,
    gateway: &GatewayId,
) -> Result<ClockSetSettings, ConfigError> {
    let at = &format!("{at}, clock_set");
    if !matches!(section.protocol, MeterProtocol::DlmsWrapper | MeterProtocol::DlmsHdlc) {
        return Err(value(at, "only the clocks of DLMS meters are set", "remove it"));
    }
    if section.clock_check == Switch::Off {
        let hint = "remove this section, or clock_check = \"off\"";
        return Err(value(at, "a clock that is not looked at is not set", hint));
    }
    let set = section.clock_set.clone().unwrap_or_default();
    let (Some(above_s), Some(below_s)) = (set.set_above_s, set.set_below_s) else {
        return Err(value(at, "set_above_s and set_below_s are needed", "as in set_above_s = 5 and set_below_s = 600"));
    };
    if above_s < ABOVE_S_MIN || below_s <= above_s {
        let message = format!("no clock is set above {above_s} s and below {below_s} s");
        return Err(value(
            at,
            message,
            &format!("set_above_s is {ABOVE_S_MIN} or more, and set_below_s more than that"),
        ));
    }
    let mut writer = MeterSection { client: set.client.unwrap_or(section.client), clock_set: None, ..section };
    if set.authentication.is_some() || set.password_file.is_some() {
        // In one that is pre-established nobody proves anything.
        writer.association = AssociationName::Negotiated;
        (writer.authentication, writer.password_file, writer.challenge_octets) =
            (set.authentication, set.password_file, None);
        if writer.authentication != Some(AuthenticationName::Ecdsa) && !signs(&writer) {
            (writer.signing_key_file, writer.meter_public_key_file) = (None, None);
        }
    }
    if set.encryption_key_file.is_some() && writer.security_policy == Some(PolicyName::None) {
        // Who reads has no keys.
        writer.security_policy = None;
    }
    writer.encryption_key_file = set.encryption_key_file.or(writer.encryption_key_file);
    writer.authentication_key_file = set.authentication_key_file.or(writer.authentication_key_file);
    let addressing = check_address(at, &writer)?;
    let security = check_security(at, &mut writer, gateway)?;
    let association = writer.association;
    let writer = MeterSettings { addressing, association, security, sends_commands: true, ..meter.clone() };
    let ms = |seconds: u32| i64::from(seconds) * 1000;
    Ok(ClockSetSettings { above_ms: ms(above_s), below_ms: ms(below_s), writer: Arc::new(writer) })
}
