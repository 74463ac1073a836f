//! Settings of a master, with their reasons.

use std::time::Duration;

use super::quirks::Quirks;
use super::security::Key;

/// One start bit, eight of data, even parity, one stop bit.
const BITS_PER_OCTET: u64 = 11;

/// A slave answers within so many bit times and this more (EN 13757-2, 5.2).
const RESPONSE_BITS: u64 = 330;
const RESPONSE: Duration = Duration::from_millis(50);

/// A slave waits so long before it answers.
const TURN_BITS: u64 = 11;

/// Rates of a line; the port is 8E1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Baud {
    B300,
    B600,
    B1200,
    B2400,
    B4800,
    B9600,
    B19200,
    B38400,
}

impl Baud {
    pub const ALL: [Self; 8] =
        [Self::B300, Self::B600, Self::B1200, Self::B2400, Self::B4800, Self::B9600, Self::B19200, Self::B38400];

    pub const fn bits_per_second(self) -> u32 {
        300 << self as u32
    }

    /// How long the line is busy with `octets`.
    pub fn transmit_time(self, octets: usize) -> Duration {
        self.bits(BITS_PER_OCTET * octets as u64)
    }

    /// How long a slave may take before it answers.
    pub fn response_time(self) -> Duration {
        self.bits(RESPONSE_BITS) + RESPONSE
    }

    pub(super) fn turn_time(self) -> Duration {
        self.bits(TURN_BITS)
    }

    fn bits(self, bits: u64) -> Duration {
        Duration::from_micros((bits * 1_000_000).div_ceil(u64::from(self.bits_per_second())))
    }
}

/// Settings of [`Master`](super::Master). Make one with [`Self::new`], then change what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterConfig {
    pub baud: Baud,
    /// The line gives back what is sent.
    pub echo: bool,
    /// What adapters and networks add to the time that a slave has for its answer. Default 200.
    pub latency_ms: u32,
    /// A frame that stops for so long will not go on. Default 200: adapters deliver in pieces.
    pub inter_octet_timeout_ms: u32,
    /// How often a frame is repeated before it is given up. Default 2, as the standard has it.
    pub retries_max: u8,
    /// The same while meters are searched for, where silence is the rule. Default 1.
    pub search_retries_max: u8,
    /// The most telegrams of one answer. Default 32: a load profile of heat meters has fewer.
    pub telegrams_max: usize,
    /// Resets the application before the first telegram (EN 13757-3, CI 50): 0 without a subcode, which is everything; others choose
    /// what is told. Default: it is left as it is.
    pub application_reset: Option<u8>,
    /// Of an enciphered meter: whether another telegram follows stands inside.
    pub key: Option<Key>,
    pub quirks: Quirks,
}

impl MasterConfig {
    pub fn new(baud: Baud) -> Self {
        Self {
            baud,
            echo: false,
            latency_ms: 200,
            inter_octet_timeout_ms: 200,
            retries_max: 2,
            search_retries_max: 1,
            telegrams_max: 32,
            application_reset: None,
            key: None,
            quirks: Quirks::default(),
        }
    }

    pub(super) fn response_timeout(&self) -> Duration {
        self.baud.response_time() + Duration::from_millis(self.latency_ms.into())
    }

    pub(super) fn inter_octet_timeout(&self) -> Duration {
        Duration::from_millis(self.inter_octet_timeout_ms.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_rate() {
        let of =
            |baud: Baud| (baud.bits_per_second(), baud.response_time().as_millis(), baud.transmit_time(60).as_millis());
        assert_eq!(of(Baud::B300), (300, 1150, 2200));
        assert_eq!(of(Baud::B2400), (2400, 187, 275));
        assert_eq!(of(Baud::B38400), (38_400, 58, 17));
    }
}
