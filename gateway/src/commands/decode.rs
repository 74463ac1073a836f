//! `decode`: what recorded octets say, one JSON object a line. No settings, no outbox, no meter.
//!
//! | the line | means |
//! | --- | --- |
//! | `{meter, code, captured_at, value, unit, quality}` | a reading; the value is its exact decimal |
//! | `{error, offset}` | something that could not be used, and where it begins |

mod input;
mod lines;
mod mbus;
mod push;

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;
use protocols::dlms::security::Key;
use protocols::metering::{MeterId, Quality, Quantity, TelegramReading, UtcMillis};

pub use input::read_input;

use crate::config::metering::PushKeys;
use crate::config::ports::dlms_key;
use crate::push::Refusal;
use crate::push::seal::{Opened, Seal};

/// What the octets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DecodeProtocol {
    /// DSMR and e-MUCS telegrams; with --key, in ciphered blocks.
    P1,
    /// SML files with their transport.
    Sml,
    /// Read-outs and D0 pushes, or bare data lines.
    #[value(name = "iec62056-21")]
    Iec62056_21,
    /// One DataNotification, plain or ciphered.
    Dlms,
    /// DataNotifications in HDLC frames.
    Hdlc,
    /// Wired M-Bus: telegrams of meters, and DataNotifications in long frames.
    Mbus,
    /// Frames of wireless M-Bus, of format A, B, or without CRCs.
    Wmbus,
}

/// How they are read.
#[derive(Debug, Clone)]
pub struct DecodeSettings {
    /// Whose they are when they do not say it.
    pub meter: Option<MeterId>,
    /// When they arrived: the stamp of what has none.
    pub received_at: UtcMillis,
    pub accept_invalid_crc: bool,
    /// Of what is encrypted. Without the key of authentication nobody knows whether it was altered, and it is marked so.
    pub key: Option<Key>,
    pub authentication_key: Option<Key>,
}

impl DecodeSettings {
    /// Whether the keys go together, and with the protocol.
    fn check(&self, protocol: DecodeProtocol) -> anyhow::Result<()> {
        let Some(key) = &self.key else { return Ok(()) };
        if matches!(protocol, DecodeProtocol::Sml | DecodeProtocol::Iec62056_21) {
            anyhow::bail!("--key is for what is encrypted, and this protocol is not\nhint: leave it out");
        }
        if protocol == DecodeProtocol::Wmbus && key.bits() != 128 {
            anyhow::bail!("the key of M-Bus has {} bits\nhint: 32 hexadecimal digits", key.bits());
        }
        if self.authentication_key.as_ref().is_some_and(|other| other.bits() != key.bits()) {
            anyhow::bail!("--key and --auth-key are of different lengths\nhint: 32 hexadecimal digits each, or 64");
        }
        Ok(())
    }

    /// Takes the protection off one push. Each has a seal of its own: what was recorded may be there twice, and in any order.
    fn open(&self, apdu: &[u8], authentication: Option<&Key>) -> Result<Opened, Refusal> {
        let keys = self.key.clone().map(|encryption| PushKeys {
            encryption,
            accept_unauthenticated: authentication.is_none(),
            authentication: authentication.cloned(),
            sender: None,
            senders: Vec::new(),
            ours: None,
        });
        Seal::new(keys.as_ref()).open(apdu)
    }

    /// Of a meter on M-Bus.
    fn mbus_key(&self) -> Option<protocols::mbus::Key> {
        self.key.as_ref().and_then(|key| protocols::mbus::Key::try_from(key).ok())
    }
}

/// A key in a file that nobody else may read: 32 or 64 hexadecimal digits.
pub fn read_key(option: &str, path: &Path) -> anyhow::Result<Key> {
    Ok(dlms_key("decode", option, path)?)
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Reading {
        meter: Option<MeterId>,
        code: String,
        captured_at: UtcMillis,
        quantity: Quantity,
        quality: Quality,
    },
    Error {
        error: String,
        offset: usize,
        /// It would be readings if the meter were named.
        is_nameless: bool,
    },
}

impl Said {
    fn reading(meter: &MeterId, reading: &TelegramReading) -> Self {
        Self::of(Some(meter), reading)
    }

    fn of(meter: Option<&MeterId>, reading: &TelegramReading) -> Self {
        let TelegramReading { code, captured_at, quantity, quality, .. } = reading;
        let (code, meter) = (code.to_string(), meter.cloned());
        Self::Reading { meter, code, captured_at: *captured_at, quantity: *quantity, quality: *quality }
    }

    fn error(error: &dyn std::fmt::Display, offset: usize) -> Self {
        Self::Error { error: error.to_string(), offset, is_nameless: false }
    }

    fn nameless(error: &dyn std::fmt::Display, offset: usize) -> Self {
        Self::Error { error: error.to_string(), offset, is_nameless: true }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Reading { meter, code, captured_at, quantity, quality } => serde_json::json!({
                "meter": meter.as_ref().map(MeterId::as_str), "code": code, "captured_at": captured_at.to_string(),
                "value": quantity.decimal(), "unit": quantity.unit.to_string(), "quality": quality.to_string(),
            }),
            Self::Error { error, offset, .. } => serde_json::json!({ "error": error, "offset": offset }),
        }
    }
}

/// Prints what the octets say; an error when that is nothing.
pub fn decode(
    protocol: DecodeProtocol,
    octets: Vec<u8>,
    settings: &DecodeSettings,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    settings.check(protocol)?;
    let said = match protocol {
        DecodeProtocol::P1 if settings.key.is_some() => lines::ciphered_p1(&octets, settings),
        DecodeProtocol::P1 => lines::p1(octets, settings),
        DecodeProtocol::Sml => lines::sml(&octets, settings),
        DecodeProtocol::Iec62056_21 => lines::iec62056_21(octets, settings),
        DecodeProtocol::Dlms => push::notification(&octets, 0, settings),
        DecodeProtocol::Hdlc => push::frames(&octets, settings),
        DecodeProtocol::Mbus => mbus::frames(&octets, settings),
        DecodeProtocol::Wmbus => mbus::wireless(&octets, settings),
    };
    for one in &said {
        writeln!(out, "{}", one.json())?;
    }
    if said.iter().any(|one| matches!(one, Said::Reading { .. })) {
        return Ok(());
    }
    let hint = if said.iter().any(|one| matches!(one, Said::Error { is_nameless: true, .. })) {
        "name the meter with --meter"
    } else {
        "is it this protocol, and are the octets whole? What is encrypted needs --key and --auth-key"
    };
    anyhow::bail!("nothing could be decoded\nhint: {hint}")
}

#[cfg(test)]
mod tests;
