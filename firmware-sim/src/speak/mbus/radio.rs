//! A receiver of wireless M-Bus that hears one meter, and hands its telegrams out to whoever is connected.
//!
//! A reader stamps by arrival; the truth has the meter's time. What a meter sends twice, or a receiver hears twice, is in the truth once.

use protocols::mbus::{Receiver, SND_NR, WirelessFrame};

use super::model::Model;
use crate::faults::{Fault, FaultRates, LineFaults};
use crate::meter::VirtualMeter;
use crate::nearest::{UnknownName, unknown};
use crate::rng::mix;
use crate::speak::port::{Feed, Sending};

const RECEIVERS: [(Receiver, &str); 2] = [(Receiver::RtlWmbus, "rtl-wmbus"), (Receiver::Im871a, "im871a")];

/// A receiver that the simulator can be.
pub fn receiver_of(text: &str) -> Result<Receiver, UnknownName> {
    let found = RECEIVERS.into_iter().find(|(_, name)| *name == text);
    found.map(|(receiver, _)| receiver).ok_or_else(|| unknown("receiver", text, RECEIVERS.map(|(_, name)| name)))
}

pub struct RadioFeed {
    model: Model,
    receiver: Receiver,
    faults: LineFaults,
}

impl RadioFeed {
    pub fn new(model: Model, receiver: Receiver, seed: u64, rates: FaultRates) -> Self {
        Self { model, receiver, faults: LineFaults::new(mix(seed, &[0x3b8]), rates) }
    }

    /// Its name in the settings of a fleet and of a gateway.
    pub fn receiver_name(&self) -> &'static str {
        RECEIVERS.iter().find(|(receiver, _)| *receiver == self.receiver).map_or("", |(_, name)| name)
    }

    /// What no reader takes: a line that says so, or a frame with another check.
    fn spoil(&self, octets: &mut Vec<u8>) {
        if self.receiver == Receiver::Im871a {
            octets.last_mut().into_iter().for_each(|last| *last ^= 1);
        } else {
            let line = String::from_utf8_lossy(octets).replacen("T1;1;1;", "T1;0;1;", 1);
            *octets = line.into_bytes();
        }
    }
}

impl Feed for RadioFeed {
    /// None without power, and when silence strikes.
    fn next(&mut self, meter: &VirtualMeter) -> Option<Sending> {
        if !meter.is_powered() || self.faults.strikes(Fault::Silence) {
            return None;
        }
        let (payload, mut truth) = self.model.sent_by_radio(meter);
        let frame = WirelessFrame { control: SND_NR, address: self.model.address(), payload };
        let mut octets = self.receiver.hand_out(&frame, meter.shown())?;
        if self.faults.strikes(Fault::Duplicate) {
            octets = octets.repeat(2);
        } else if self.faults.strikes(Fault::WrongCrc) {
            self.spoil(&mut octets);
            truth.clear();
        }
        Some(Sending { delay_ms: self.faults.delay_ms(), octets, truth })
    }

    fn sent(&mut self, sending: &Sending) {
        self.model.is_told(&sending.truth);
    }
}
