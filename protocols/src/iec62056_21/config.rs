//! Settings of a reader, with their reasons.

use std::time::Duration;

use super::identification::is_name;
use super::port::{Baud, Framing, LineSettings};

/// Longest device address (IEC 62056-21, 6.3.14, item 22).
pub const ADDRESS_LEN_MAX: usize = 32;

/// Settings of [`Client`](super::Client). Make one with [`Self::new`], then change what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Who is called. Empty: whoever is at the optical head.
    pub address: DeviceAddress,
    /// The character behind `/` of the request: `?`, or what a maker has for other tables (`/2!` of EMH and MetCom).
    pub request_character: u8,
    /// The mode control character that asks for a read-out: `0`, or `6` to `9` for a maker's own tables.
    pub readout_character: u8,
    /// The rate at which the meter is called: 300 but for radio modems and terminals with a fixed rate.
    pub initial_baud: Baud,
    /// The fastest rate that the line carries; a meter that offers more is read at the initial rate.
    pub baud_max: Baud,
    /// The port is opened 8N1 and bit 7 is even parity, which is checked and counted here. Serial servers often do no other.
    pub masked_parity: bool,
    /// The line gives back what is sent.
    pub echo: bool,
    /// Wake a battery-powered meter with NUL for so long before the request. The standard has 2,100 to 2,300. Default: not.
    pub wake_up_ms: Option<u32>,
    /// Between the end of the option select and the change of the rate. `None`: just before the meter may begin to answer, 150
    /// after a capital third letter, 10 after a small one. Adapters that still send when they say that they have sent need
    /// more (volkszaehler/vzlogger#109).
    pub change_over_ms: Option<u32>,
    /// How long the line may stay silent before a message is repeated. Default 2,500: a meter has 1,500 and adapters delay.
    pub response_timeout_ms: u32,
    /// A message that stops for so long will not go on. Default 1,500, the most that the standard has between two octets.
    pub inter_octet_timeout_ms: u32,
    /// How often a message, or the whole call, is repeated before it is given up. Default 3.
    pub retries_max: u8,
    /// The longest answer, all of its blocks together. Default 256 KiB: half a year of a profile of eight channels in one read.
    pub answer_octets_max: usize,
    pub quirks: ClientQuirks,
}

/// What some meters do that the standard does not have. All off at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientQuirks {
    /// Stays at the initial rate whatever the option select says (pwitab/iec62056-21#33).
    pub ignores_rate: bool,
    /// Speaks HDLC on mode E though its identification does not announce it.
    pub hdlc_unannounced: bool,
    /// Confirms mode E after the change of the rate instead of before.
    pub hdlc_confirmed_at_new_rate: bool,
    /// Does not confirm mode E.
    pub hdlc_unconfirmed: bool,
    /// Computes the block check wrongly: data counts, marked [`Quality::CRC_INVALID`](crate::metering::Quality::CRC_INVALID).
    /// Never for a bad line.
    pub accept_invalid_bcc: bool,
    /// Answers a read under another address than was asked for.
    pub any_answer_address: bool,
    /// Wants read-outs and the end of a read to be acknowledged.
    pub acknowledge_readout: bool,
}

/// A device address: up to 32 digits, letters and blanks (IEC 62056-21, 6.3.14, item 22).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct DeviceAddress(String);

/// Why a text is no device address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no device address; expected up to {ADDRESS_LEN_MAX} printable characters without / and !")]
pub struct AddressError {
    pub text: String,
}

impl DeviceAddress {
    pub fn new(text: &str) -> Result<Self, AddressError> {
        if text.len() > ADDRESS_LEN_MAX || !text.bytes().all(is_name) {
            return Err(AddressError { text: text.chars().take(ADDRESS_LEN_MAX).collect() });
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request to `called` is one to this device: leading zeros say nothing, and no address means everybody.
    pub fn is_called_by(&self, called: &[u8]) -> bool {
        let significant = |text: &[u8]| text.iter().copied().skip_while(|&octet| octet == b'0').collect::<Vec<_>>();
        called.is_empty() || significant(called) == significant(self.0.as_bytes())
    }
}

impl ClientConfig {
    pub fn new(address: DeviceAddress) -> Self {
        Self {
            address,
            request_character: b'?',
            readout_character: b'0',
            initial_baud: Baud::B300,
            baud_max: Baud::B19200,
            masked_parity: false,
            echo: false,
            wake_up_ms: None,
            change_over_ms: None,
            response_timeout_ms: 2_500,
            inter_octet_timeout_ms: 1_500,
            retries_max: 3,
            answer_octets_max: 256 * 1024,
            quirks: ClientQuirks::default(),
        }
    }

    /// How the port is set at a rate while this standard is spoken.
    pub(super) fn line(&self, baud: Baud) -> LineSettings {
        let framing = if self.masked_parity { Framing::EightNone } else { Framing::SevenEven };
        LineSettings { baud, framing }
    }

    pub(super) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms.into())
    }

    pub(super) fn inter_octet_timeout(&self) -> Duration {
        Duration::from_millis(self.inter_octet_timeout_ms.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_called_with_and_without_leading_zeros() {
        let address = DeviceAddress::new("00123").unwrap();
        for (called, is_called) in [("", true), ("123", true), ("000123", true), ("1230", false), ("12", false)] {
            assert_eq!(address.is_called_by(called.as_bytes()), is_called, "{called}");
        }
        for text in ["1!", "1/2", "\r", &"1".repeat(33), "ä"] {
            assert!(DeviceAddress::new(text).is_err(), "{text:?} was taken");
        }
    }
}
