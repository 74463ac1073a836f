//! D0: a read-out of IEC 62056-21 that is sent unasked.

use protocols::iec62056_21::{Bcc, Identification, MeterClock, PushScan, encode_checked_push, encode_push, scan_push};
use protocols::metering::{MeterId, Quality, UtcMillis};

use super::port::{CheckedDamage, Feed, Sending};
use super::readout::{lines, maker_and_number};
use crate::faults::{Fault, FaultRates, LineFaults};
use crate::meter::VirtualMeter;
use crate::rng::{Rng, mix};
use crate::speak::Protocol;
use crate::truth::TruthLine;

/// 9,600 baud.
const BAUD: u8 = b'5';
const MODEL: &str = "METERPOST-D0";
/// How the next push begins.
const NEXT_START: &[u8] = b"/";
const STX: u8 = 0x02;

/// Makes the pushes of one meter, each at a later second than the one before. In the truth they have the time of the meter's
/// clock; a reader stamps by arrival.
#[derive(Debug, Clone)]
pub struct D0Feed {
    meter: MeterId,
    identification: Identification,
    /// STX, ETX and a block check round the data, as some meters have.
    block_check: bool,
    last_at: Option<UtcMillis>,
    damage: CheckedDamage,
}

impl D0Feed {
    pub fn new(meter: &VirtualMeter, seed: u64, block_check: bool, rates: FaultRates) -> Self {
        let (maker, _) = maker_and_number(meter.id());
        let damage = CheckedDamage {
            faults: LineFaults::new(mix(seed, &[0xd0]), rates),
            rng: Rng::seeded(mix(seed, &[0xd0da])),
        };
        let (manufacturer, model) = (maker.to_owned(), MODEL.to_owned());
        let identification = Identification { manufacturer, baud: BAUD, enhanced: Vec::new(), model };
        Self { meter: meter.id().clone(), identification, block_check, last_at: None, damage }
    }

    fn push(&self, meter: &VirtualMeter) -> Sending {
        let quality = if self.block_check { Quality::GOOD } else { Quality::UNAUTHENTICATED };
        let (lines, readings) = lines(meter, MeterClock::CET, quality);
        let encode = if self.block_check { encode_checked_push } else { encode_push };
        let mut octets = Vec::with_capacity(lines.len() + 64);
        encode(&mut octets, &self.identification, &lines);
        let truth = readings.iter().map(|reading| TruthLine::pushed(&self.meter, Protocol::D0.name(), reading));
        Sending { delay_ms: 0, octets, truth: truth.collect() }
    }
}

impl Feed for D0Feed {
    /// None without power, when silence strikes, and before the clock shows a new second.
    fn next(&mut self, meter: &VirtualMeter) -> Option<Sending> {
        let at = UtcMillis(meter.shown().seconds() * 1000);
        let is_new = self.last_at.is_none_or(|last_at| at > last_at);
        if !meter.is_powered() || !is_new || self.damage.faults.strikes(Fault::Silence) {
            return None;
        }
        self.last_at = Some(at);
        let mut sending = self.push(meter);
        sending.delay_ms = self.damage.faults.delay_ms();
        // Without a check damage would alter values unseen: the settings have none then.
        if let Some(stx) = sending.octets.iter().position(|&octet| octet == STX) {
            self.damage.befall(&mut sending, stx + 1, is_taken);
        }
        Some(sending)
    }
}

/// Whether a reader takes a push from these octets.
fn is_taken(octets: &[u8]) -> bool {
    let octets = [octets, NEXT_START].concat();
    let mut rest = &octets[..];
    loop {
        match scan_push(rest) {
            PushScan::NeedMore => return false,
            PushScan::Garbage { skip, .. } => rest = &rest[skip..],
            PushScan::Push { push, used } => {
                if !matches!(push.bcc, Some(Bcc::Invalid { .. })) {
                    return true;
                }
                rest = &rest[used..];
            }
        }
    }
}

#[cfg(test)]
mod tests;
