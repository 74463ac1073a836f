//! A meter that goes to a listener when it has something to say, as those with a modem of their own do: each entry of its load profile is
//! a data-notification, in clear or in general-glo. What is to be confirmed is kept, and said again, until it is.
//!
//! This says what is pushed and what a confirmation is worth; [`caller`] connects.

pub mod caller;

use std::net::SocketAddr;

use protocols::cosem::register::ScalerUnit;
use protocols::dlms::datetime::{ClockStatus, DateTime};
use protocols::dlms::notification::{decode_data_notification_confirm, encode_data_notification};
use protocols::dlms::security::PushReceiver;
use protocols::dlms::value::DataValue;
use protocols::metering::{Kind, MeterId, ObisCode, TelegramReading, UtcMillis};
use tracing::warn;

use super::Protocol;
use super::seal::Seal;
use crate::meter::VirtualMeter;
use crate::profile::{Entry, ProfileRing, ProfileSpec};
use crate::truth::TruthLine;

const DEVICE_ID: ObisCode = ObisCode::new(0, 0, 96, 1, 0, 255);
const CLOCK: ObisCode = ObisCode::new(0, 0, 1, 0, 0, 255);
/// Service class of the long-invoke-id-and-priority: the listener has to confirm.
const CONFIRMED: u32 = 0x4000_0000;
const INVOKE_ID_MAX: u32 = 0x00ff_ffff;

/// To whom meters go, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallSettings {
    pub to: SocketAddr,
    pub transport: Transport,
    pub confirmed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// One push: an entry of the load profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    plain: Vec<u8>,
    /// The APDU, sealed where the meter seals.
    pub apdu: Vec<u8>,
    truth: Vec<TruthLine>,
}

/// What of one meter's load profile has been said, and what is to be said next.
#[derive(Debug)]
pub struct Notifier {
    meter: MeterId,
    is_confirmed: bool,
    seal: Option<(Seal, PushReceiver)>,
    /// The last invocation counter that was used.
    counter: u32,
    /// The first entry that is not done with, counted since the meter was installed.
    next: u64,
    long_invoke_id: u32,
    under_way: Option<Push>,
}

impl Notifier {
    /// Says what is captured from now on.
    pub fn new(meter: &VirtualMeter, is_confirmed: bool, seal: Option<Seal>) -> Self {
        let next = load_profile(meter).map_or(0, |(_, ring)| ring.captured_total());
        let seal = seal.map(|seal| (seal.clone(), seal.listener()));
        let long_invoke_id = if is_confirmed { CONFIRMED } else { 0 };
        Self { meter: meter.id().clone(), is_confirmed, seal, counter: 0, next, long_invoke_id, under_way: None }
    }

    pub const fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// What is to be said now, until it is done with; nothing without power, or before the next entry.
    pub fn next(&mut self, meter: &VirtualMeter) -> Option<&Push> {
        if !meter.is_powered() {
            return None;
        }
        if self.under_way.is_none() {
            self.under_way = Some(self.make(meter)?);
        }
        self.under_way.as_ref()
    }

    /// What a reader finds in what is under way; nothing when that was told before.
    pub fn take_truth(&mut self) -> Vec<TruthLine> {
        self.under_way.as_mut().map(|push| std::mem::take(&mut push.truth)).unwrap_or_default()
    }

    fn make(&mut self, meter: &VirtualMeter) -> Option<Push> {
        let (spec, ring) = load_profile(meter)?;
        let oldest = ring.captured_total().saturating_sub(ring.len() as u64);
        if self.next < oldest {
            warn!(meter = %self.meter, entries = oldest - self.next, "entries left the profile before they were pushed");
            self.next = oldest;
        }
        let entry = ring.entry(usize::try_from(self.next - oldest).ok()?)?;
        let (mut plain, id) = (Vec::new(), self.long_invoke_id.wrapping_add(1) & INVOKE_ID_MAX);
        self.long_invoke_id = id | if self.is_confirmed { CONFIRMED } else { 0 };
        let stamp = |at| DateTime::from_utc(at, meter.clock().zone().offset_min(at), ClockStatus::GOOD);
        let shown = UtcMillis(meter.shown().seconds() * 1000);
        let (body, truth) = self.body(spec, &entry, stamp(entry.label));
        encode_data_notification(self.long_invoke_id, Some(stamp(shown)), &body, &mut plain);
        let apdu = self.sealed(&plain, shown);
        Some(Push { plain, apdu, truth })
    }

    /// Who it is, the label of the entry, and its values with code, scaler and unit.
    fn body(&self, spec: &ProfileSpec, entry: &Entry<'_>, label: DateTime) -> (DataValue, Vec<TruthLine>) {
        let octets = |octets: &[u8]| DataValue::OctetString(octets.to_vec());
        let named = |code: ObisCode, value| DataValue::Structure(vec![octets(&code.0), value]);
        let mut elements =
            vec![named(DEVICE_ID, octets(self.meter.as_str().as_bytes())), named(CLOCK, octets(&label.0))];
        let mut truth = Vec::new();
        for (column, mantissa) in spec.columns.iter().zip(entry.values) {
            let quantity = column.quantity(*mantissa);
            // A push says no period: what is no register is of the moment to whoever reads it.
            let kind = if column.kind(false) == Kind::Register { Kind::Register } else { Kind::Instant };
            let reading = TelegramReading::new(column.obis(), kind, entry.label, quantity);
            truth.push(TruthLine::pushed(&self.meter, Protocol::DlmsNotify.name(), &reading));
            let scaler_unit = ScalerUnit::new(quantity.scaler, quantity.unit).encode();
            let code = octets(&column.obis().0);
            elements.push(DataValue::Structure(vec![code, DataValue::Long64(quantity.mantissa), scaler_unit]));
        }
        (DataValue::Structure(elements), truth)
    }

    fn sealed(&mut self, plain: &[u8], shown: UtcMillis) -> Vec<u8> {
        let Some((seal, _)) = &self.seal else { return plain.to_vec() };
        // Behind what was used, and over a restart behind what was used before, unless the world begins earlier.
        self.counter = self.counter.saturating_add(1).max(u32::try_from(shown.seconds()).unwrap_or_default());
        seal.close_with(plain, self.counter)
    }

    /// Another connection: what is under way is sealed anew, since nobody knows what became of it on the last.
    pub fn reconnected(&mut self, shown: UtcMillis) {
        if let Some(mut push) = self.under_way.take() {
            push.apdu = self.sealed(&push.plain, shown);
            self.under_way = Some(push);
        }
    }

    /// It was written, and that is all that can be known of a push that is not confirmed.
    pub fn sent(&mut self) {
        if !self.is_confirmed {
            self.done();
        }
    }

    /// An APDU of the listener's: whether it confirms what is under way. Of what is sealed only a sealed one does, by somebody else.
    pub fn heard(&mut self, apdu: &[u8]) -> bool {
        if self.under_way.is_none() || !self.is_confirmed {
            return false;
        }
        let plain = match &mut self.seal {
            None => apdu.to_vec(),
            Some((seal, listener)) => match listener.receive(apdu) {
                Ok(pushed) if pushed.authenticated && !seal.is_own(&pushed) => pushed.apdu,
                _ => {
                    warn!(meter = %self.meter, "what was answered is no confirmation");
                    return false;
                }
            },
        };
        let is_told = decode_data_notification_confirm(&plain).is_ok_and(|(id, _)| id == self.long_invoke_id);
        if is_told {
            self.done();
        }
        is_told
    }

    fn done(&mut self) {
        self.under_way = None;
        self.next += 1;
    }
}

fn load_profile(meter: &VirtualMeter) -> Option<(&ProfileSpec, &ProfileRing)> {
    meter.profiles().find(|(spec, _)| spec.obis == ProfileSpec::LOAD_1)
}

#[cfg(test)]
mod tests;
