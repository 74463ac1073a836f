//! How meters speak: one file per personality. The meter core knows nothing of protocols; a personality looks at it through
//! its [`Station`](crate::station::Station).
//!
//! A personality that pushes over a broker gives a feed that the fleet's steward asks when due ([`cad`]); one that speaks on a
//! [`line`] is a task of its own ([`dlms`] with its [`objects`], [`iec62056_21`], [`mbus`]; [`p1`], [`sml`], [`d0`], [`dlms_push`] and wireless
//! [`mbus`], which push at a [`port`], sealed or not; [`notify`], which goes to a listener).
//! To add one: a file here, a [`Protocol`] with its name and what it can suffer, and its start in `run.rs` or, if it has a line,
//! in [`lines`].

mod attend;
pub mod cad;
pub mod d0;
pub mod dlms;
pub mod dlms_push;
pub mod iec62056_21;
pub mod line;
pub mod lines;
pub mod mbus;
pub mod notify;
pub mod objects;
pub mod p1;
pub mod port;
pub mod publisher;
mod readout;
pub mod seal;
pub mod security;
pub mod sml;
mod wiretap;

use std::str::FromStr;

use protocols::metering::MeterId;
use serde::Serialize;

use crate::faults::Fault;
use crate::nearest::{UnknownName, unknown};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Nobody can read the meter: only the truth tells what it captured.
    None,
    /// JSON over MQTT, as consumer access devices push it.
    Cad,
    /// DLMS over the TCP wrapper.
    DlmsTcp,
    /// DLMS over HDLC, several meters on one line.
    DlmsHdlc,
    /// DSMR telegrams.
    P1,
    /// SML files.
    Sml,
    /// Read-outs of IEC 62056-21, unasked.
    D0,
    /// IEC 62056-21, several meters on one line.
    Iec62056_21,
    /// M-Bus, several meters on one line.
    Mbus,
    /// Data-notifications of DLMS, unasked.
    DlmsPush,
    /// Entries of the load profile in data-notifications, for a listener to which the meter goes.
    DlmsNotify,
    /// Wireless M-Bus, as a receiver hands it out.
    Wmbus,
}

impl Protocol {
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::None, "none"),
        (Self::Cad, "cad"),
        (Self::DlmsTcp, "dlms-tcp"),
        (Self::DlmsHdlc, "dlms-hdlc"),
        (Self::P1, "p1"),
        (Self::Sml, "sml"),
        (Self::D0, "d0"),
        (Self::Iec62056_21, "iec62056-21"),
        (Self::Mbus, "mbus"),
        (Self::DlmsPush, "dlms-push"),
        (Self::DlmsNotify, "dlms-notify"),
        (Self::Wmbus, "wmbus"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(protocol, _)| *protocol == self).map_or("", |(_, name)| name)
    }

    /// Whether profile entries can be had by this protocol, and so belong to the truth.
    pub const fn carries_profiles(self) -> bool {
        matches!(self, Self::None | Self::DlmsTcp | Self::DlmsHdlc | Self::Iec62056_21)
    }

    /// Whether its bytes pass over a line of their own.
    pub const fn has_line(self) -> bool {
        matches!(self, Self::DlmsTcp | Self::DlmsHdlc | Self::Iec62056_21 | Self::Mbus | Self::DlmsNotify)
            || self.pushes_at_port()
    }

    /// Whether it has a port of its own and sends by itself.
    pub const fn pushes_at_port(self) -> bool {
        matches!(self, Self::P1 | Self::Sml | Self::D0 | Self::DlmsPush | Self::Wmbus)
    }

    /// Whether a fault can show in this protocol. Damage that a reader could not tell from a true value is left out: MQTT
    /// and TCP deliver what was sent or nothing, and the reader of a port could not tell two telegrams with the same stamp apart,
    /// which a clock that jumps back would make. Two octets that are lost from a block may leave its check as it was.
    pub const fn suffers(self, fault: Fault) -> bool {
        match (self, fault) {
            (Self::P1 | Self::Sml | Self::D0 | Self::DlmsPush | Self::DlmsNotify | Self::Wmbus, Fault::ClockJump) => {
                false
            }
            (_, fault) if fault.is_of_meter() => true,
            (Self::None | Self::DlmsNotify, _) => false,
            (Self::Cad, fault) => {
                matches!(fault, Fault::Silence | Fault::SlowAnswers | Fault::Duplicate | Fault::DroppedBytes)
            }
            (Self::DlmsTcp, fault) => fault.is_of_security() || matches!(fault, Fault::Silence | Fault::SlowAnswers),
            (Self::DlmsHdlc, Fault::CounterJump) => true,
            (_, fault) if fault.is_of_security() => false,
            (Self::DlmsHdlc, fault) => !matches!(fault, Fault::Duplicate),
            (Self::Iec62056_21, fault) => !matches!(fault, Fault::Duplicate | Fault::DroppedBytes),
            // The check of M-Bus has eight bits, which damage may leave as they were.
            (Self::Mbus, fault) => {
                matches!(fault, Fault::Silence | Fault::SlowAnswers | Fault::WrongCrc | Fault::Echo)
            }
            // A frame that lost octets, or the start of another in noise, would take the next push along.
            (Self::DlmsPush, fault) => matches!(fault, Fault::Silence | Fault::SlowAnswers | Fault::WrongCrc),
            // A receiver checks what it heard, and says so.
            (Self::Wmbus, fault) => {
                matches!(fault, Fault::Silence | Fault::SlowAnswers | Fault::WrongCrc | Fault::Duplicate)
            }
            (Self::P1 | Self::Sml | Self::D0, fault) => !matches!(fault, Fault::Duplicate | Fault::Echo),
        }
    }
}

impl FromStr for Protocol {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(protocol, _)| protocol).ok_or_else(|| unknown("protocol", text, Self::ALL.map(|(_, name)| name)))
    }
}

/// Where a meter can be reached, as printed at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub meter: MeterText,
    pub protocol: &'static str,
    #[serde(flatten)]
    pub place: Place,
}

/// A meter id as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct MeterText(pub String);

impl From<&MeterId> for MeterText {
    fn from(id: &MeterId) -> Self {
        Self(id.to_string())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "one for each meter, made at the start")]
pub enum Place {
    Nowhere {},
    /// Published on a broker.
    Topic {
        broker: String,
        topic: String,
    },
    Line(LinePlace),
}

/// How to reach a meter on a line. A password is printed where the meter was given one by the seed: it is no secret then.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LinePlace {
    /// Host and port, or...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// ... a pty or serial port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baud: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wport: Option<u16>,
    /// Physical device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hdlc_address: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical_device: Option<u16>,
    /// By which a meter of IEC 62056-21 is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_client: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// Of the client that manages a DLMS meter without security settings, by high level security 4 (SHA-1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_password: Option<String>,
    /// On M-Bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_address: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary_address: Option<String>,
    /// Of wireless M-Bus: how frames are handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receiver: Option<&'static str>,
    /// Printed where the meter was given one by the seed, as a password is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<security::SecurityPlace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gas_meter: Option<String>,
    /// Who a reader finds the meter to be, where that is another than the fleet has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nowhere {} => f.write_str("-"),
            Self::Topic { broker, topic } => write!(f, "mqtt://{broker}/{topic}"),
            Self::Line(place) => place.fmt(f),
        }
    }
}

impl std::fmt::Display for LinePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.address.as_deref().or(self.path.as_deref()).unwrap_or("-"))?;
        let numbers = [
            ("wport", self.wport),
            ("hdlc", self.hdlc_address),
            ("client", self.client.map(u16::from)),
            ("primary", self.primary_address.map(u16::from)),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, " {name} {number}")?;
            }
        }
        let texts = [
            ("device", &self.device_address),
            ("password", &self.password),
            ("password in", &self.password_file),
            ("security", &self.security.as_ref().map(|security| security.authentication.to_owned())),
            ("secondary", &self.secondary_address),
            ("key", &self.encryption_key),
            ("authentication key", &self.authentication_key),
            ("title", &self.system_title),
            ("gas", &self.gas_meter),
            ("identity", &self.identity),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                write!(f, " {name} {text}")?;
            }
        }
        Ok(())
    }
}
