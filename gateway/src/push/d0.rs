//! D0: read-outs that a meter sends unasked (IEC 62056-21, mode D).

use protocols::iec62056_21::{
    MaskedParity, PushError, PushScan, ReadQuirks, Readout, ReadoutError, Settings, scan_push,
};
use protocols::metering::UtcMillis;
use protocols::p1::clear_even_parity;

use super::telegram::{Found, Hearing, Part, Telegram};
use super::{Refusal, Trouble};
use crate::config::metering::PortSettings;

pub(super) struct D0Hearing {
    settings: Settings,
    accept_invalid_crc: bool,
    /// Where bit 7 is parity, and is looked at.
    parity: Option<MaskedParity>,
    buffer: Vec<u8>,
}

impl D0Hearing {
    pub(super) fn new(port: &PortSettings, quirks: ReadQuirks, masked_parity: bool) -> Self {
        Self {
            settings: Settings { quirks, assumed_meter: port.serial.clone(), ..Settings::default() },
            accept_invalid_crc: port.accept_invalid_crc,
            parity: masked_parity.then(MaskedParity::default),
            buffer: Vec::new(),
        }
    }

    fn decode(&self, push: protocols::iec62056_21::Push<'_>, received_at: UtcMillis) -> Found {
        let block = match push.into_block(self.accept_invalid_crc) {
            Ok(block) => block,
            Err(error) => return refused(Trouble::Crc, &error),
        };
        match Readout::decode(&block, &self.settings, received_at) {
            Ok(readout) if readout.readings.is_empty() && readout.events.is_empty() => {
                let problem = readout.problems.first();
                let text = problem.map_or_else(String::new, |problem| format!(": {problem}"));
                refused(Trouble::Empty, &format!("a push without values{text}"))
            }
            Ok(readout) => Found::Telegram(readout.into()),
            Err(error @ ReadoutError::NoIdentity) => refused(Trouble::NoIdentity, &error),
            Err(error) => refused(Trouble::Empty, &error),
        }
    }
}

impl Hearing for D0Hearing {
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found> {
        match &mut self.parity {
            Some(parity) => parity.unmask(octets),
            None => {
                clear_even_parity(octets);
            }
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(octets);
        let (mut found, mut done) = (Vec::new(), 0);
        loop {
            match scan_push(&buffer[done..]) {
                PushScan::NeedMore => break,
                PushScan::Garbage { skip, error } => {
                    done += skip;
                    found.push(match error {
                        PushError::Noise { .. } => Found::Noise,
                        error => refused(Trouble::Frame, &error),
                    });
                }
                PushScan::Push { push, used } => {
                    found.push(self.decode(push, received_at));
                    done += used;
                }
            }
        }
        buffer.drain(..done);
        self.buffer = buffer;
        found
    }

    fn clear(&mut self) {
        self.buffer.clear();
    }

    #[cfg(test)]
    fn pending(&self) -> usize {
        self.buffer.len()
    }
}

fn refused(trouble: Trouble, error: &dyn std::fmt::Display) -> Found {
    Found::Refused(Refusal { trouble, text: error.to_string() })
}

impl From<Readout> for Telegram {
    fn from(readout: Readout) -> Self {
        let Readout { meter, clock, captured_at, readings, events, problems, .. } = readout;
        let (states, log) = events.into_iter().partition(|event| event.at == captured_at);
        let part = Part { meter, is_main: true, captured_at, own_stamps: true, clock, readings, radio: None };
        Self { parts: vec![part], states, log, problems: problems.iter().map(ToString::to_string).collect() }
    }
}

#[cfg(test)]
mod tests;
