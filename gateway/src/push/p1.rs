//! P1: DSMR and e-MUCS telegrams, in clear or ciphered.

use std::time::Duration;

use protocols::metering::{StampedBy, UtcMillis};
use protocols::p1::{
    CIPHERED_START, CipheredScan, FrameError, Identification, LocalTime, Policy, Readout, ReadoutError, Scan, Settings,
    clear_even_parity, scan, scan_ciphered,
};

use super::pause::Pause;
use super::seal::{Opened, PeerCounter, Seal};
use super::telegram::{Found, Hearing, Part, Telegram};
use super::{Refusal, Trouble};
use crate::config::metering::PortSettings;

/// Meters send a block in one go.
const GAP_MAX: Duration = Duration::from_secs(1);

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
        let (mut found, mut done) = (Vec::new(), 0);
        // No text has these two, whatever its parity.
        if octets.windows(CIPHERED_START.len()).any(|octets| octets == CIPHERED_START) {
            let text = "the telegram is encrypted".to_owned();
            found.push(Found::Refused(Refusal { trouble: Trouble::NoKey, text }));
        }
        clear_even_parity(octets);
        self.buffer.extend_from_slice(octets);
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

/// Telegrams in ciphered blocks.
pub(super) struct CipheredHearing {
    settings: Settings,
    seal: Seal,
    buffer: Vec<u8>,
    identification: Identification,
    pause: Pause,
}

impl CipheredHearing {
    pub(super) fn new(port: &PortSettings) -> Self {
        let P1Hearing { settings, buffer } = P1Hearing::new(port);
        let (seal, identification) = (Seal::new(port.keys.as_ref()), Identification::default());
        Self { settings, seal, buffer, identification, pause: Pause::default() }
    }

    fn telegram(&self, opened: Opened, received_at: UtcMillis) -> Found {
        let content = self.identification.join(opened.apdu);
        let telegram = match protocols::p1::Telegram::parse(&content) {
            Ok(telegram) => telegram,
            Err(error) => return Found::Refused(Refusal { trouble: Trouble::Frame, text: error.to_string() }),
        };
        let mut readout = match Readout::decode(&telegram, &self.settings, received_at) {
            Ok(readout) => readout,
            Err(error) => return Found::Refused(refusal(&error)),
        };
        for reading in readout.meters.iter_mut().flat_map(|meter| &mut meter.readings) {
            reading.quality = reading.quality.with(opened.quality);
        }
        Found::Telegram(readout.into())
    }
}

impl Hearing for CipheredHearing {
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found> {
        // A block that stops for so long will not go on; in what is left of it none begins.
        if self.pause.cuts(GAP_MAX, octets, received_at) {
            self.clear();
        }
        self.buffer.extend_from_slice(octets);
        let (mut found, mut done) = (Vec::new(), 0);
        loop {
            match scan_ciphered(&self.buffer[done..]) {
                CipheredScan::NeedMore => break,
                CipheredScan::Garbage { skip, .. } => {
                    self.identification.take(&self.buffer[done..done + skip]);
                    done += skip;
                    found.push(Found::Noise);
                }
                CipheredScan::Block { apdu } => match self.seal.open(apdu) {
                    Ok(opened) => {
                        done += apdu.len();
                        found.push(self.telegram(opened, received_at));
                        self.identification.clear();
                    }
                    Err(refusal) => {
                        // Perhaps no block begins here.
                        done += 1;
                        found.push(Found::Refused(refusal));
                    }
                },
            }
        }
        self.buffer.drain(..done);
        found
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.identification.clear();
    }

    fn taken(&mut self) -> Vec<PeerCounter> {
        self.seal.taken()
    }

    fn resume(&mut self, kept: &[PeerCounter]) {
        self.seal.resume(kept);
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
            radio: None,
        };
        let (states, log) = events.into_iter().partition(|event| event.at == captured_at);
        let problems = problems.iter().map(ToString::to_string).collect();
        Self { parts: meters.into_iter().map(part).collect(), states, log, problems }
    }
}
