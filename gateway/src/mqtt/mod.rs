//! MQTT as the gateway uses it: connections that are thrown away, and a memory that is the outbox alone.
//!
//! A [`MqttLink`] is a pair of channels. [`connection`] feeds it from a broker; a simulation feeds it from memory.

pub mod connection;

use bytes::Bytes;
use tokio::sync::mpsc;

/// What an MQTT link reports. `epoch` counts connections: an acknowledgement is good on the connection that delivered only.
#[derive(Debug, Clone)]
pub enum MqttEvent {
    /// Connected, and every subscription granted.
    Connected {
        epoch: u64,
    },
    Disconnected {
        reason: String,
    },
    Message {
        epoch: u64,
        topic: String,
        payload: Bytes,
        retained: bool,
        packet: u16,
    },
}

/// What an MQTT link is asked to do.
#[derive(Debug, Clone)]
pub enum MqttCommand {
    /// QoS 1. Lost when the connection is down: whoever publishes repeats until a receipt comes.
    Publish { topic: String, payload: Bytes, retain: bool },
    /// Acknowledges a message received by subscription at QoS 1.
    Acknowledge { epoch: u64, packet: u16 },
}

/// The owner's end of a link.
pub struct MqttLink {
    pub commands: mpsc::Sender<MqttCommand>,
    pub events: mpsc::Receiver<MqttEvent>,
}

/// Brokers keep 20 to 100 messages of QoS 1 in flight to one client: the event channel holds them all, so that polling never
/// waits for the owner.
pub(crate) const EVENTS_MAX: usize = 1024;
pub(crate) const COMMANDS_MAX: usize = 64;
