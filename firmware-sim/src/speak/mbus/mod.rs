//! M-Bus: the meters of one line answer whoever asks them by their primary or secondary address.
//!
//! What a meter says takes as long as its rate says. As for DLMS, a reader that connects while another is there takes over; whoever was
//! selected stays it. What a meter has, [`model`] says. Of wireless M-Bus, [`radio`] is a receiver that hears one meter.

mod model;
mod radio;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocols::mbus::{Input, Output, Slave, SlaveConfig};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub use self::model::{FROZEN_MAX, Medium, Model};
pub use self::radio::{RadioFeed, receiver_of};
use super::attend::{Attended, Ended, attend};
use super::line::{Duplex, Line, LineSpeed, Listener};
use crate::faults::{FaultRates, LineFaults};
use crate::rng::mix;
use crate::station::Station;

/// How a long frame begins.
const LONG: u8 = 0x68;

/// One meter on a line.
pub struct BusMeter {
    pub station: Arc<Station>,
    pub config: SlaveConfig,
    pub model: Model,
    slave: Slave,
    deadline: Option<Duration>,
}

impl BusMeter {
    pub fn new(station: Arc<Station>, config: SlaveConfig, model: Model) -> Self {
        let slave = Slave::new(config.clone());
        Self { station, config, model, slave, deadline: None }
    }

    /// Hears octets, or that time has passed.
    fn hear(&mut self, now: Duration, octets: Option<&[u8]>) {
        if !self.station.answers() {
            // When power returns, nobody is selected.
            self.slave = Slave::new(self.config.clone());
            self.deadline = None;
            return;
        }
        self.slave.handle(now, octets.map_or(Input::Tick, Input::Received), &mut self.model);
    }

    /// What it says now.
    fn say(&mut self) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        loop {
            match self.slave.poll() {
                Output::Send(octets) => said.push(octets),
                Output::Event(()) => {}
                Output::WaitUntil(at) => {
                    self.deadline = at;
                    return said;
                }
            }
        }
    }
}

/// A line with its meters.
pub struct BusLine {
    pub listener: Listener,
    pub meters: Vec<BusMeter>,
    pub speed: Option<LineSpeed>,
    pub faults: FaultRates,
    pub seed: u64,
    pub origin: Instant,
}

impl BusLine {
    /// Answers readers until told to stop.
    pub async fn run(self, stopping: watch::Receiver<bool>) {
        attend(self, stopping).await;
    }
}

impl Attended for BusLine {
    fn listener(&mut self) -> &mut Listener {
        &mut self.listener
    }

    async fn converse(&mut self, nth: u64, stream: Box<dyn Duplex>) -> io::Result<Ended> {
        let faults = LineFaults::new(mix(self.seed, &[0x3b5, nth]), self.faults);
        let mut line = Line::new(stream, self.speed, faults);
        loop {
            let said = self.meters.iter_mut().flat_map(BusMeter::say).reduce(|one, other| collided(one, &other));
            if let Some(octets) = said {
                say(&mut line, octets).await?;
            }
            let deadline = self.meters.iter().filter_map(|meter| meter.deadline).min();
            let octets = tokio::select! {
                biased;
                received = line.receive() => match received? {
                    Some(octets) => Some(octets),
                    None => return Ok(Ended::Left),
                },
                () = sleep_until(self.origin + deadline.unwrap_or_default()), if deadline.is_some() => None,
                accepted = self.listener.accept() => return Ok(Ended::TakenOver(accepted?)),
            };
            let now = self.origin.elapsed();
            for meter in &mut self.meters {
                meter.hear(now, octets.as_deref());
            }
        }
    }
}

/// What is heard when two speak at once: a space of either is one (EN 13757-2, slaves send by drawing more current).
fn collided(one: Vec<u8>, other: &[u8]) -> Vec<u8> {
    let (mut long, short) = if one.len() >= other.len() { (one, other.to_vec()) } else { (other.to_vec(), one) };
    long.iter_mut().zip(short).for_each(|(octet, other)| *octet &= other);
    long
}

/// With a wrong checksum, when that strikes.
async fn say(line: &mut Line, mut octets: Vec<u8>) -> io::Result<()> {
    if octets.first() == Some(&LONG) && line.spoils_check() {
        let at = octets.len() - 2;
        octets[at] ^= 0x55;
    }
    line.send(&octets).await
}
