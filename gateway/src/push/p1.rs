//! P1: DSMR and e-MUCS telegrams.

use protocols::metering::{StampedBy, UtcMillis};
use protocols::p1::{FrameError, LocalTime, Policy, Readout, ReadoutError, Scan, Settings, clear_even_parity, scan};

use super::telegram::{Found, Hearing, Part, Telegram};
use super::{Refusal, Trouble};
use crate::config::metering::PortSettings;

pub(super) struct P1Hearing {
    settings: Settings,
    buffer: Vec<u8>,
}

impl P1Hearing {
    pub(super) fn new(port: &PortSettings) -> Self {
        let policy = Policy { accept_invalid_crc: port.accept_invalid_crc };
        let settings = Settings { local_time: LocalTime::CET, policy, assumed_meter: port.serial.clone() };
        Self { settings, buffer: Vec::new() }
    }
}

impl Hearing for P1Hearing {
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found> {
        clear_even_parity(octets);
        self.buffer.extend_from_slice(octets);
        let (mut found, mut done) = (Vec::new(), 0);
        loop {
            match scan(&self.buffer[done..]) {
                Scan::NeedMore => break,
                Scan::Garbage { skip, error: FrameError::Noise { .. } } => {
                    done += skip;
                    found.push(Found::Noise);
                }
                Scan::Garbage { skip, error } => {
                    done += skip;
                    found.push(Found::Refused(Refusal { trouble: Trouble::Frame, text: error.to_string() }));
                }
                Scan::Telegram { telegram, used } => {
                    found.push(match Readout::decode(&telegram, &self.settings, received_at) {
                        Ok(readout) => Found::Telegram(readout.into()),
                        Err(error) => Found::Refused(refusal(&error)),
                    });
                    done += used;
                }
            }
        }
        self.buffer.drain(..done);
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

fn refusal(error: &ReadoutError) -> Refusal {
    let trouble = match error {
        ReadoutError::NoIdentity => Trouble::NoIdentity,
        ReadoutError::Crc(_) => Trouble::Crc,
        // It is a telegram that says nothing we know.
        _ => Trouble::Frame,
    };
    Refusal { trouble, text: error.to_string() }
}

impl From<Readout> for Telegram {
    fn from(readout: Readout) -> Self {
        let Readout { captured_at, stamped_by, meters, events, problems, .. } = readout;
        let clock = (stamped_by == StampedBy::Meter).then_some(captured_at);
        let part = |meter: protocols::p1::MeterReadout| Part {
            meter: meter.meter,
            is_main: meter.channel == 0,
            captured_at,
            own_stamps: true,
            clock,
            readings: meter.readings,
        };
        let (states, log) = events.into_iter().partition(|event| event.at == captured_at);
        let problems = problems.iter().map(ToString::to_string).collect();
        Self { parts: meters.into_iter().map(part).collect(), states, log, problems }
    }
}
