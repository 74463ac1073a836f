//! A meter at its place: who steps it, and where its captures are written down.

use std::sync::{Arc, Mutex, PoisonError};

use protocols::metering::{MeterId, UtcMillis};

use crate::meter::VirtualMeter;
use crate::pace::Pace;
use crate::speak::Protocol;
use crate::truth::{Truth, TruthLine};

/// One meter as its personalities share it. Whoever looks at the meter steps it first and writes down what was captured on
/// the way, under one lock: the truth never lags behind what a reader can see.
#[derive(Debug)]
pub struct Station {
    id: MeterId,
    protocol: Protocol,
    pace: Arc<Pace>,
    truth: Arc<Truth>,
    meter: Mutex<VirtualMeter>,
}

impl Station {
    pub fn new(meter: VirtualMeter, protocol: Protocol, pace: Arc<Pace>, truth: Arc<Truth>) -> Self {
        Self { id: meter.id().clone(), protocol, pace, truth, meter: Mutex::new(meter) }
    }

    pub const fn id(&self) -> &MeterId {
        &self.id
    }

    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether whoever asks is answered: not without power, unless the world is frozen, where power never comes back.
    pub fn answers(&self) -> bool {
        self.now(|meter| meter.is_powered()) || self.pace.is_frozen()
    }

    /// Looks at the meter as it is now.
    pub fn now<R>(&self, look: impl FnOnce(&mut VirtualMeter) -> R) -> R {
        self.at(self.pace.now(), look)
    }

    /// Looks at the meter as it is at a world time, or later if it was stepped further already.
    pub fn at<R>(&self, world: UtcMillis, look: impl FnOnce(&mut VirtualMeter) -> R) -> R {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        live_until(&mut meter, world, self.protocol, &self.truth);
        let answer = look(&mut meter);
        // Setting the clock may capture.
        write_captured(&mut meter, self.protocol, &self.truth);
        answer
    }
}

/// Steps a meter and writes down what it captured on the way.
pub(crate) fn live_until(meter: &mut VirtualMeter, world: UtcMillis, protocol: Protocol, truth: &Truth) {
    meter.step_to(world);
    write_captured(meter, protocol, truth);
}

fn write_captured(meter: &mut VirtualMeter, protocol: Protocol, truth: &Truth) {
    let captured = meter.take_captured();
    if protocol.carries_profiles() {
        let lines = captured.iter().map(|reading| TruthLine::captured(meter.id(), protocol.name(), reading));
        truth.write(&lines.collect::<Vec<_>>());
    }
}
