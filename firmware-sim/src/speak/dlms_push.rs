//! Data-notifications of DLMS that a meter sends unasked: each value with its code, scaler and unit.

use protocols::cosem::register::ScalerUnit;
use protocols::dlms::datetime::{ClockStatus, DateTime};
use protocols::dlms::notification::encode_data_notification;
use protocols::dlms::value::DataValue;
use protocols::hdlc::{HdlcAddress, push_frames};
use protocols::mbus::{self, DlmsApdu, encode_segments};
use protocols::metering::{Kind, MeterId, ObisCode, TelegramReading, UtcMillis};

use super::port::{Feed, Sending};
use super::seal::Seal;
use crate::faults::{Fault, FaultRates, LineFaults};
use crate::meter::VirtualMeter;
use crate::registers::Measurand;
use crate::rng::mix;
use crate::speak::Protocol;
use crate::truth::TruthLine;

/// In one frame, so that a lost one costs one push.
const INFORMATION_MAX: u16 = 1_024;
const DEVICE_ID: ObisCode = ObisCode::new(0, 0, 96, 1, 0, 255);
/// To whom pushes go.
const PUBLIC_CLIENT: u16 = 16;
/// Of pushes in Austria.
const SOURCE_SAP: u8 = 1;
const DESTINATION_SAP: u8 = 0x67;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Hdlc,
    Mbus,
}

/// Makes the pushes of one meter, each at a later second than the one before.
#[derive(Debug, Clone)]
pub struct DlmsFeed {
    meter: MeterId,
    framing: Framing,
    seal: Option<Seal>,
    last_at: Option<UtcMillis>,
    pushes: u32,
    faults: LineFaults,
}

impl DlmsFeed {
    pub fn new(meter: &VirtualMeter, seed: u64, framing: Framing, seal: Option<Seal>, rates: FaultRates) -> Self {
        let faults = LineFaults::new(mix(seed, &[0xd15]), rates);
        Self { meter: meter.id().clone(), framing, seal, last_at: None, pushes: 0, faults }
    }

    fn push(&mut self, meter: &VirtualMeter, at: UtcMillis) -> Sending {
        let name = DataValue::OctetString(self.meter.as_str().as_bytes().to_vec());
        let mut elements = vec![DataValue::Structure(vec![code(DEVICE_ID), name])];
        let mut truth = Vec::new();
        for measurand in Measurand::ALL {
            let quantity = meter.value(measurand);
            let kind = if measurand.is_momentary() { Kind::Instant } else { Kind::Register };
            let reading = TelegramReading::new(measurand.obis(), kind, at, quantity);
            truth.push(TruthLine::pushed(&self.meter, Protocol::DlmsPush.name(), &reading));
            let scaler_unit = ScalerUnit::new(quantity.scaler, quantity.unit).encode();
            let value = DataValue::Long64(quantity.mantissa);
            elements.push(DataValue::Structure(vec![code(measurand.obis()), value, scaler_unit]));
        }
        let zone = meter.clock().zone();
        let stamp = DateTime::from_utc(at, zone.offset_min(at), ClockStatus::GOOD);
        self.pushes = self.pushes.wrapping_add(1) & 0x00ff_ffff;
        let mut apdu = Vec::new();
        encode_data_notification(self.pushes, Some(stamp), &DataValue::Structure(elements), &mut apdu);
        let apdu = self.seal.as_ref().map_or(apdu.clone(), |seal| seal.close(&apdu, at));
        Sending { delay_ms: 0, octets: self.framing.frames(&apdu), truth }
    }
}

fn code(ObisCode(octets): ObisCode) -> DataValue {
    DataValue::OctetString(octets.to_vec())
}

impl Feed for DlmsFeed {
    /// None without power, when silence strikes, and before the clock shows a new second.
    fn next(&mut self, meter: &VirtualMeter) -> Option<Sending> {
        let at = UtcMillis(meter.shown().seconds() * 1000);
        let is_new = self.last_at.is_none_or(|last_at| at > last_at);
        if !meter.is_powered() || !is_new || self.faults.strikes(Fault::Silence) {
            return None;
        }
        self.last_at = Some(at);
        let mut sending = self.push(meter, at);
        sending.delay_ms = self.faults.delay_ms();
        if self.faults.strikes(Fault::WrongCrc) {
            // The check of a frame stands before its last octet.
            let at = sending.octets.len() - 2;
            sending.octets[at] ^= 1;
            sending.truth.clear();
        }
        Some(sending)
    }
}

impl Framing {
    fn frames(self, apdu: &[u8]) -> Vec<u8> {
        match self {
            Self::Hdlc => {
                let client = HdlcAddress::one(PUBLIC_CLIENT).expect("16 is an address");
                push_frames(client, HdlcAddress::one(1).expect("1 is an address"), apdu, INFORMATION_MAX)
            }
            Self::Mbus => {
                let (source, destination) = (SOURCE_SAP, DESTINATION_SAP);
                let apdu = DlmsApdu { address: mbus::BROADCAST, source, destination, apdu: apdu.to_vec() };
                encode_segments(&apdu, mbus::control::SND_UD).expect("a push has a few hundred octets")
            }
        }
    }
}
