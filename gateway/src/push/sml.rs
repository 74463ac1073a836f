//! SML: what electricity meters in Germany push through their optical head.

use protocols::metering::{MeterId, StampedBy, UtcMillis};
use protocols::sml::{FileError, FrameError, Policy, Problem, Quirks, Readout, ReadoutError, Scanner, Settings};

use super::telegram::{Found, Hearing, Part, Telegram};
use super::{Refusal, Trouble};
use crate::config::metering::PortSettings;

pub(super) struct SmlHearing {
    settings: Settings,
    scanner: Scanner,
}

impl SmlHearing {
    pub(super) fn new(port: &PortSettings, quirks: Quirks) -> Self {
        let policy = Policy { accept_invalid_crc: port.accept_invalid_crc };
        let settings = Settings { quirks, policy, assumed_meter: port.serial.clone() };
        Self { settings, scanner: Scanner::default() }
    }
}

impl Hearing for SmlHearing {
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found> {
        self.scanner.feed(octets);
        let mut found = Vec::new();
        while let Some(next) = self.scanner.next_file() {
            found.push(match next {
                Ok(file) => match Readout::decode(&file, &self.settings, received_at) {
                    Ok(readout) => Found::Telegram(telegram(readout, self.settings.assumed_meter.as_ref())),
                    Err(error) => Found::Refused(refusal(&error)),
                },
                Err(FrameError::Noise { .. }) => Found::Noise,
                Err(error) => Found::Refused(Refusal { trouble: Trouble::Frame, text: error.to_string() }),
            });
        }
        found
    }

    fn clear(&mut self) {
        self.scanner.clear();
    }

    #[cfg(test)]
    fn pending(&self) -> usize {
        self.scanner.pending()
    }
}

fn refusal(error: &ReadoutError) -> Refusal {
    let trouble = match error {
        ReadoutError::NoIdentity => Trouble::NoIdentity,
        ReadoutError::File(FileError::Crc(_)) => Trouble::Crc,
        _ => Trouble::Empty,
    };
    let text = match error {
        ReadoutError::NoList { first: Some(cause), .. } => format!("{error}: {cause}"),
        _ => error.to_string(),
    };
    Refusal { trouble, text }
}

/// Of several meters, which a concentrator passes on, the one that is expected is that of the port, or else the first.
fn telegram(readout: Readout, expected: Option<&MeterId>) -> Telegram {
    let Readout { meters, events, problems, .. } = readout;
    let main = meters.iter().position(|meter| Some(&meter.meter) == expected).unwrap_or(0);
    let parts = meters.into_iter().enumerate().map(|(place, meter)| Part {
        meter: meter.meter,
        is_main: place == main,
        captured_at: meter.captured_at,
        own_stamps: false,
        clock: (meter.stamped_by == StampedBy::Meter).then_some(meter.captured_at),
        readings: meter.readings,
        radio: None,
    });
    let problems = problems.iter().map(Problem::to_string).collect();
    Telegram { parts: parts.collect(), states: events, log: Vec::new(), problems }
}

#[cfg(test)]
mod tests;
