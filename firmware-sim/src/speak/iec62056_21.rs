//! IEC 62056-21: the meters of one line answer whoever calls them, read out, and take read commands with a password.
//!
//! A line is half duplex, and what a meter says takes as long as its rate says, on TCP too: there nobody can change the rate, so a
//! reader has to stay at the one at which it calls. A serial port changes its rate with the meter. As for DLMS, a reader that
//! connects while another is there takes over.

mod data;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocols::iec62056_21::{Baud, DeviceAddress, Identification, Input, LineSettings, Output, Server, ServerConfig};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use self::data::Objects;
use super::attend::{Attended, Ended, attend};
use super::line::{Duplex, Line, Listener};
use super::readout::maker_and_number;
use crate::faults::{FaultRates, LineFaults};
use crate::rng::mix;
use crate::station::Station;

const MODEL: &str = "METERPOST";
/// Digits of a device address.
const ADDRESS_DIGITS: usize = 8;
/// Octets that begin a message with a block check.
const CHECKED: [u8; 2] = [0x01, 0x02];

/// One meter on a line.
#[derive(Clone)]
pub struct CalledMeter {
    pub station: Arc<Station>,
    pub server: ServerConfig,
    password: String,
}

/// The device address of a fleet's meter: its number.
pub fn device_address(station: &Station) -> DeviceAddress {
    let (_, number) = maker_and_number(station.id());
    DeviceAddress::new(&format!("{number:0>ADDRESS_DIGITS$}"))
        .expect("the numbers of a fleet have ten digits at the most")
}

impl CalledMeter {
    /// Called at `initial`, it offers `offered`.
    pub fn new(station: Arc<Station>, initial: Baud, offered: Baud, password: &str) -> Self {
        let (maker, _) = maker_and_number(station.id());
        let (manufacturer, model) = (maker.to_owned(), MODEL.to_owned());
        let identification = Identification { manufacturer, baud: offered.digit(), enhanced: Vec::new(), model };
        let mut server = ServerConfig::new(device_address(&station), identification);
        server.initial_baud = initial;
        server.password_needed = true;
        Self { station, server, password: password.to_owned() }
    }
}

/// A meter while a reader is connected.
struct Device {
    meter: CalledMeter,
    objects: Objects,
    server: Server,
    deadline: Option<Duration>,
}

impl Device {
    fn new(meter: CalledMeter) -> Self {
        let objects = Objects { station: meter.station.clone(), password: meter.password.clone() };
        let server = Server::new(meter.server.clone());
        Self { meter, objects, server, deadline: None }
    }

    /// Hears octets, or that time has passed.
    fn hear(&mut self, now: Duration, octets: Option<&[u8]>) {
        if !self.meter.station.answers() {
            // When power returns, nobody has called.
            *self = Self::new(self.meter.clone());
            return;
        }
        self.server.handle(now, octets.map_or(Input::Tick, Input::Received), &mut self.objects);
    }

    /// What it says and does now.
    fn act(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        loop {
            match self.server.poll() {
                Output::Send(octets) => acts.push(Act::Send(octets, self.server.line())),
                Output::SetLine(line) => acts.push(Act::SetLine(line)),
                Output::Event(event) => debug!(meter = %self.meter.station.id(), ?event, "iec 62056-21 server"),
                Output::WaitUntil(at) => {
                    self.deadline = at;
                    return acts;
                }
            }
        }
    }
}

enum Act {
    Send(Vec<u8>, LineSettings),
    SetLine(LineSettings),
}

/// A line with its meters.
pub struct CalledLine {
    pub listener: Listener,
    pub meters: Vec<CalledMeter>,
    pub faults: FaultRates,
    pub seed: u64,
}

impl CalledLine {
    /// Answers readers until told to stop.
    pub async fn run(self, stopping: watch::Receiver<bool>) {
        attend(self, stopping).await;
    }
}

impl Attended for CalledLine {
    fn listener(&mut self) -> &mut Listener {
        &mut self.listener
    }

    async fn converse(&mut self, nth: u64, stream: Box<dyn Duplex>) -> io::Result<Ended> {
        let faults = LineFaults::new(mix(self.seed, &[0x1ec, nth]), self.faults);
        let mut line = Line::new(stream, None, faults);
        let origin = Instant::now();
        let mut devices: Vec<Device> = self.meters.iter().map(|meter| Device::new(meter.clone())).collect();
        let initial = devices.first().map(|device| device.server.line());
        if let Some(initial) = initial {
            line.set_line(initial, self.listener.is_serial())?;
        }
        loop {
            for device in &mut devices {
                for act in device.act() {
                    match act {
                        Act::SetLine(settings) => line.set_line(settings, self.listener.is_serial())?,
                        Act::Send(octets, settings) => {
                            line.set_line(settings, false)?;
                            say(&mut line, octets).await?;
                        }
                    }
                }
            }
            let deadline = devices.iter().filter_map(|device| device.deadline).min();
            let octets = tokio::select! {
                biased;
                received = line.receive() => match received? {
                    Some(octets) => Some(octets),
                    None => return Ok(Ended::Left),
                },
                () = sleep_until(origin + deadline.unwrap_or_default()), if deadline.is_some() => None,
                accepted = self.listener.accept() => return Ok(Ended::TakenOver(accepted?)),
            };
            let now = origin.elapsed();
            for device in &mut devices {
                device.hear(now, octets.as_deref());
            }
        }
    }
}

/// With a wrong block check, when that strikes.
async fn say(line: &mut Line, mut octets: Vec<u8>) -> io::Result<()> {
    let is_checked = octets.first().is_some_and(|first| CHECKED.contains(first));
    if is_checked && line.spoils_check() {
        *octets.last_mut().expect("a block has a check at its end") ^= 0x55;
    }
    line.send(&octets).await
}
