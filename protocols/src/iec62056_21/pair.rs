//! A reader and some meters on a simulated line: rates, parity, echo, noise, losses. One seed, one course of events.

use std::collections::VecDeque;
use std::time::Duration;

use super::client::Client;
use super::port::{Framing, LineSettings, MaskedParity};
use super::server::{MeterData, Server, ServerEvent};
use super::session::{ClientEvent, Input, Output, SessionError};
use crate::hdlc::pair::Random;

/// What the line does, in chances per mille of each transmission unless said otherwise. At most one of them strikes each.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) lost: u64,
    /// One bit of one octet turned.
    pub(super) flipped: u64,
    /// Cut short.
    pub(super) cut: u64,
    /// One octet left out.
    pub(super) dropped: u64,
    /// One octet put in.
    pub(super) inserted: u64,
    /// Noise before it.
    pub(super) noise: u64,
    /// What a meter sends comes so much later, longer than it is waited for.
    pub(super) late: u64,
    /// All stations hear what they send. Yes or no.
    pub(super) is_echoing: bool,
    /// Delivered in pieces of a random size. Yes or no.
    pub(super) is_fragmented: bool,
}

const LATE: Duration = Duration::from_millis(4_000);

struct Delivery {
    at: Duration,
    /// As they are on the wire: parity in bit 7.
    octets: Vec<u8>,
    sent_with: LineSettings,
}

struct Port {
    line: LineSettings,
    deliveries: VecDeque<Delivery>,
    wake: Option<Duration>,
}

/// A meter and what it says.
pub(super) type Meter = (Server, Box<dyn MeterData>);

/// What the owner of the reader does at each event; `true` when it is done.
pub(super) type Script<'s> = &'s mut dyn FnMut(&mut Client, Duration, &ClientEvent) -> Result<bool, SessionError>;

/// Alters what is on the wire before it comes to the reader; `false` loses it.
pub(super) type Tamper = Box<dyn FnMut(&mut Vec<u8>) -> bool>;

pub(super) struct Pair {
    pub(super) client: Client,
    pub(super) meters: Vec<Meter>,
    pub(super) faults: Faults,
    pub(super) tamper: Tamper,
    /// The meters' ports stay at the rate that they have.
    pub(super) is_meter_stuck: bool,
    pub(super) now: Duration,
    pub(super) events: Vec<ClientEvent>,
    pub(super) server_events: Vec<(usize, ServerEvent)>,
    /// What the reader sent, and how its port was set then.
    pub(super) sent: Vec<(LineSettings, Vec<u8>)>,
    random: Random,
    /// The reader's first, then one for each meter.
    ports: Vec<Port>,
}

/// No call in these tests takes so long, whatever goes wrong.
const TIME_MAX: Duration = Duration::from_secs(6 * 3600);
const STEPS_MAX: usize = 500_000;

impl Pair {
    pub(super) fn new(client: Client, meters: Vec<Meter>, line: LineSettings, faults: Faults, seed: u64) -> Self {
        let port = |line| Port { line, deliveries: VecDeque::new(), wake: None };
        let lines = meters.iter().map(|(server, _)| server.line());
        Self {
            client,
            ports: std::iter::once(line).chain(lines).map(port).collect(),
            meters,
            faults,
            tamper: Box::new(|_| true),
            is_meter_stuck: false,
            now: Duration::from_secs(1_000),
            events: Vec::new(),
            server_events: Vec::new(),
            sent: Vec::new(),
            random: Random::seeded(seed),
        }
    }

    /// Runs until the script is done or the session failed; panics when neither ends it.
    pub(super) fn run(&mut self, script: Script<'_>) -> Result<(), SessionError> {
        for _ in 0..STEPS_MAX {
            if self.drain(script)? {
                return Ok(());
            }
            self.step()?;
            assert!(self.now < TIME_MAX, "it hangs: {:?} {:?}", self.client, self.events.last());
        }
        panic!("it did not end in {STEPS_MAX} steps: {:?}", self.client);
    }

    fn step(&mut self) -> Result<(), SessionError> {
        let times = self.ports.iter().flat_map(|port| [port.wake, port.deliveries.front().map(|delivery| delivery.at)]);
        let next = times.flatten().min().expect("a reader that waits has a deadline");
        self.now = self.now.max(next);
        for station in 0..self.ports.len() {
            let port = &mut self.ports[station];
            let received = port.deliveries.pop_front_if(|delivery| delivery.at <= self.now);
            let octets = received.map(|delivery| hear(&delivery, port.line, &mut self.random));
            let input = octets.as_ref().map_or(Input::Tick, |octets| Input::Received(octets));
            match station.checked_sub(1) {
                None => self.client.handle(self.now, input)?,
                Some(meter) => {
                    let (server, data) = &mut self.meters[meter];
                    server.handle(self.now, input, &mut **data);
                }
            }
        }
        Ok(())
    }

    fn drain(&mut self, script: Script<'_>) -> Result<bool, SessionError> {
        loop {
            match self.client.poll() {
                Output::SetLine(line) => self.ports[0].line = line,
                Output::Send(octets) => {
                    self.sent.push((self.ports[0].line, octets.clone()));
                    self.transmit(0, &octets);
                }
                Output::Event(event) => {
                    self.events.push(event.clone());
                    if script(&mut self.client, self.now, &event)? {
                        return Ok(true);
                    }
                }
                Output::WaitUntil(at) => {
                    assert!(at.is_none_or(|at| at > self.now), "the reader asks for what is past");
                    self.ports[0].wake = at;
                    break;
                }
            }
        }
        for meter in 0..self.meters.len() {
            loop {
                match self.meters[meter].0.poll() {
                    Output::SetLine(_) if self.is_meter_stuck => {}
                    Output::SetLine(line) => self.ports[meter + 1].line = line,
                    Output::Send(octets) => self.transmit(meter + 1, &octets),
                    Output::Event(event) => self.server_events.push((meter, event)),
                    Output::WaitUntil(at) => {
                        assert!(at.is_none_or(|at| at > self.now), "a meter asks for what is past");
                        self.ports[meter + 1].wake = at;
                        break;
                    }
                }
            }
        }
        Ok(false)
    }

    fn transmit(&mut self, from: usize, octets: &[u8]) {
        let sent_with = self.ports[from].line;
        let mut octets = octets.to_vec();
        if sent_with.framing == Framing::SevenEven {
            MaskedParity::mask(&mut octets);
        }
        let is_late = from > 0 && self.random.chance(self.faults.late);
        let late = if is_late { LATE } else { Duration::ZERO };
        let is_lost = !self.damage(&mut octets) || (from > 0 && !(self.tamper)(&mut octets));
        for station in 0..self.ports.len() {
            if is_lost || (station == from && !self.faults.is_echoing) {
                continue;
            }
            let mut at = self.now + late;
            let mut rest = &octets[..];
            while !rest.is_empty() {
                let size = if self.faults.is_fragmented { 1 + self.random.below(16) as usize } else { 16 };
                let (piece, after) = rest.split_at(size.min(rest.len()));
                at += sent_with.transmit_time(piece.len());
                self.ports[station].deliveries.push_back(Delivery { at, octets: piece.to_vec(), sent_with });
                rest = after;
            }
        }
    }

    /// Says whether anything is left.
    fn damage(&mut self, octets: &mut Vec<u8>) -> bool {
        let (faults, random) = (self.faults, &mut self.random);
        let at = random.below(octets.len() as u64) as usize;
        let die = random.below(1000);
        let mut below = 0;
        let mut strikes = |chance| {
            let from = below;
            below += chance;
            (from..below).contains(&die)
        };
        match () {
            () if strikes(faults.lost) => return false,
            () if strikes(faults.flipped) => octets[at] ^= 1 << random.below(8),
            () if strikes(faults.cut) => octets.truncate(at),
            () if strikes(faults.dropped) => drop(octets.remove(at)),
            () if strikes(faults.inserted) => octets.insert(at, harmless(random.draw() as u8)),
            () if strikes(faults.noise) => {
                let count = 1 + random.below(10) as usize;
                drop(octets.splice(..0, random.octets(count).into_iter().map(harmless)));
            }
            () => {}
        }
        !octets.is_empty()
    }
}

/// ACK and NAK have no check: noise that reads like one beside a real one makes a meter skip or repeat a block, and nothing in the
/// protocol shows it. Such noise is left out.
fn harmless(octet: u8) -> u8 {
    if matches!(octet & 0x7f, 0x06 | 0x15) { 0xff } else { octet }
}

/// What a port set to `line` makes of it.
fn hear(delivery: &Delivery, line: LineSettings, random: &mut Random) -> Vec<u8> {
    if delivery.sent_with.baud != line.baud {
        // Too fast or too slow: some octets, none of them right.
        let count = 1 + delivery.octets.len() / 2;
        return random.octets(count);
    }
    let check = |&octet: &u8| match line.framing {
        Framing::EightNone => octet,
        Framing::SevenEven if octet.count_ones().is_multiple_of(2) => octet & 0x7f,
        // As ports do that check parity.
        Framing::SevenEven => 0,
    };
    delivery.octets.iter().map(check).collect()
}
