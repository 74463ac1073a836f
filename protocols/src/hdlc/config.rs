//! The settings of an HDLC link, with their reasons.

use std::time::Duration;

use super::address::{ClientAddress, HdlcAddress};
use super::parameters::LinkParameters;

/// Settings of [`HdlcClient`](super::HdlcClient) and [`HdlcServer`](super::HdlcServer). Make one with [`Self::new`], then
/// change what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HdlcConfig {
    /// Who reads. A server ignores it and takes any client.
    pub client: ClientAddress,
    /// The device that is read, or that this server is.
    pub server: HdlcAddress,
    /// The most octets of information sent in a frame, 32 to 2030. The peer may ask for less.
    pub information_transmit_max: u16,
    /// The most octets of information taken in a frame, 32 to 2030.
    pub information_receive_max: u16,
    /// Frames sent before the peer must acknowledge, 1 to 7.
    pub window_transmit: u8,
    /// Frames taken before we acknowledge, 1 to 7.
    pub window_receive: u8,
    /// Client: how long the line may stay silent before a poll is repeated. Counts from the end of the poll and from each
    /// frame of the answer. Default 3000: slow meters think for two seconds.
    pub response_timeout_ms: u32,
    /// A frame that stops for so long will not go on: it is discarded. Default 400: serial adapters and TCP in
    /// between make gaps far longer than those that the standard has on a bare line.
    pub inter_octet_timeout_ms: u32,
    /// Client: how often a poll is repeated before the link is given up. Default 3.
    pub retries_max: u8,
    /// Client: how long a server may answer that it is not ready, with RNR or with RR and no data. Polls begin 100 ms
    /// apart and double to 2 s. Default 60,000.
    pub busy_timeout_ms: u32,
    /// Client: an RR is sent when an open link was idle for so long, so that the meter keeps it. `None`: never. Default
    /// 60,000, half of the inactivity time-out that meters commonly have.
    pub keep_alive_ms: Option<u32>,
    /// Server: a link without a frame for so long is dropped. Default 120,000.
    pub inactivity_timeout_ms: u32,
    /// How long the line takes for one octet, so that the response time-out begins after the last one: 1042 at 9600 baud
    /// 8N1, 33,333 at 300 baud 7E1. Default 0: bytes are sent at once, as with TCP.
    pub octet_time_us: u32,
    /// The longest APDU that is put together. Default 65,535, the most that the wrapper could carry.
    pub apdu_octets_max: usize,
}

impl HdlcConfig {
    /// The parameters that hold without negotiation, which every meter takes: 128 octets, windows of one frame.
    pub fn new(client: ClientAddress, server: HdlcAddress) -> Self {
        let LinkParameters { information_transmit_max, information_receive_max, window_transmit, window_receive } =
            LinkParameters::default();
        Self {
            client,
            server,
            information_transmit_max,
            information_receive_max,
            window_transmit,
            window_receive,
            response_timeout_ms: 3_000,
            inter_octet_timeout_ms: 400,
            retries_max: 3,
            busy_timeout_ms: 60_000,
            keep_alive_ms: Some(60_000),
            inactivity_timeout_ms: 120_000,
            octet_time_us: 0,
            apdu_octets_max: 65_535,
        }
    }

    /// What is proposed to the peer, within the limits.
    pub(super) fn parameters(&self) -> LinkParameters {
        LinkParameters {
            information_transmit_max: self.information_transmit_max,
            information_receive_max: self.information_receive_max,
            window_transmit: self.window_transmit,
            window_receive: self.window_receive,
        }
        .clamped()
    }

    pub(super) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms.into())
    }

    pub(super) fn inter_octet_timeout(&self) -> Duration {
        Duration::from_millis(self.inter_octet_timeout_ms.into())
    }

    pub(super) fn busy_timeout(&self) -> Duration {
        Duration::from_millis(self.busy_timeout_ms.into())
    }

    pub(super) fn keep_alive(&self) -> Option<Duration> {
        self.keep_alive_ms.map(|ms| Duration::from_millis(ms.into()))
    }

    pub(super) fn inactivity_timeout(&self) -> Duration {
        Duration::from_millis(self.inactivity_timeout_ms.into())
    }

    /// How long the line is busy with `octets`.
    pub(super) fn transmit_time(&self, octets: usize) -> Duration {
        Duration::from_micros(u64::from(self.octet_time_us) * octets as u64)
    }
}
