//! A master and some slaves on a simulated line: echo, noise, losses, doubled frames, late answers, collisions. One seed, one
//! course of events.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::Baud;
use super::master::Master;
use super::session::{Input, MasterEvent, Output};
use super::slave::{Slave, SlaveData};
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
    /// Comes twice.
    pub(super) doubled: u64,
    /// What a slave sends comes so much later that it was given up.
    pub(super) late: u64,
    /// All stations hear what they send. Yes or no.
    pub(super) is_echoing: bool,
    /// Delivered in pieces of a random size. Yes or no.
    pub(super) is_fragmented: bool,
}

pub(super) struct Telegrams(pub(super) Vec<Vec<u8>>);

impl SlaveData for Telegrams {
    fn telegrams(&mut self) -> Vec<Vec<u8>> {
        self.0.clone()
    }
}

struct Delivery {
    at: Duration,
    octets: Vec<u8>,
}

pub(super) struct Pair {
    pub(super) master: Master,
    pub(super) slaves: Vec<(Slave, Telegrams)>,
    pub(super) faults: Faults,
    pub(super) now: Duration,
    pub(super) events: Vec<MasterEvent>,
    /// How many frames the master sent.
    pub(super) sent: usize,
    baud: Baud,
    random: Random,
    /// The master's first, then one for each slave.
    deliveries: Vec<VecDeque<Delivery>>,
    wakes: Vec<Option<Duration>>,
    /// Slaves that sent at the last instant: what they say collides.
    talking: Vec<(usize, Duration, Vec<u8>)>,
}

const STEPS_MAX: usize = 2_000_000;

impl Pair {
    pub(super) fn new(master: Master, slaves: Vec<(Slave, Telegrams)>, baud: Baud, faults: Faults, seed: u64) -> Self {
        let stations = slaves.len() + 1;
        Self {
            master,
            slaves,
            faults,
            now: Duration::from_secs(1_000),
            events: Vec::new(),
            sent: 0,
            baud,
            random: Random::seeded(seed),
            deliveries: (0..stations).map(|_| VecDeque::new()).collect(),
            wakes: vec![None; stations],
            talking: Vec::new(),
        }
    }

    /// Runs until the master is idle.
    pub(super) fn run(&mut self) {
        for _ in 0..STEPS_MAX {
            self.drain();
            if self.master.is_idle() {
                return;
            }
            self.step();
        }
        panic!("it did not end in {STEPS_MAX} steps: {:?}", self.master);
    }

    fn step(&mut self) {
        let arrivals = self.deliveries.iter().filter_map(|queue| queue.front().map(|delivery| delivery.at));
        let next = self.wakes.iter().copied().flatten().chain(arrivals).min();
        self.now = self.now.max(next.expect("a master that is busy has a deadline"));
        for station in 0..self.deliveries.len() {
            let received = self.deliveries[station].pop_front_if(|delivery| delivery.at <= self.now);
            let input = received.as_ref().map_or(Input::Tick, |delivery| Input::Received(&delivery.octets));
            match station.checked_sub(1) {
                None => self.master.handle(self.now, input),
                Some(slave) => {
                    let (slave, data) = &mut self.slaves[slave];
                    slave.handle(self.now, input, data);
                }
            }
        }
    }

    fn drain(&mut self) {
        loop {
            match self.master.poll() {
                Output::Send(octets) => {
                    self.sent += 1;
                    self.transmit(0, octets);
                }
                Output::Event(event) => self.events.push(event),
                Output::WaitUntil(at) => {
                    assert!(at.is_none_or(|at| at > self.now), "the master asks for what is past");
                    self.wakes[0] = at;
                    break;
                }
            }
        }
        for slave in 0..self.slaves.len() {
            loop {
                match self.slaves[slave].0.poll() {
                    Output::Send(octets) => self.talking.push((slave + 1, self.now, octets)),
                    Output::Event(()) => {}
                    Output::WaitUntil(at) => {
                        assert!(at.is_none_or(|at| at > self.now), "a slave asks for what is past");
                        self.wakes[slave + 1] = at;
                        break;
                    }
                }
            }
        }
        let talking = std::mem::take(&mut self.talking);
        // Slaves draw current: a mark of one is covered by a space of another.
        let longest = talking.iter().map(|(_, _, octets)| octets.len()).max().unwrap_or(0);
        let mixed = (0..longest).map(|at| {
            talking.iter().filter_map(|(_, _, octets)| octets.get(at)).fold(0xff, |mixed, octet| mixed & octet)
        });
        let mixed: Vec<u8> = mixed.collect();
        if let Some((from, ..)) = talking.first() {
            self.transmit(*from, mixed);
        }
    }

    fn transmit(&mut self, from: usize, mut octets: Vec<u8>) {
        let copies = self.damage(&mut octets);
        let late =
            if from > 0 && self.random.chance(self.faults.late) { Duration::from_millis(900) } else { Duration::ZERO };
        let mut at = self.now + late;
        for _ in 0..copies {
            let mut rest = &octets[..];
            while !rest.is_empty() {
                let size = if self.faults.is_fragmented { 1 + self.random.below(16) as usize } else { 16 };
                let (piece, after) = rest.split_at(size.min(rest.len()));
                at += self.baud.transmit_time(piece.len());
                for station in 0..self.deliveries.len() {
                    if station != from || self.faults.is_echoing {
                        self.deliveries[station].push_back(Delivery { at, octets: piece.to_vec() });
                    }
                }
                rest = after;
            }
        }
    }

    /// Says how often it comes.
    fn damage(&mut self, octets: &mut Vec<u8>) -> usize {
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
            () if strikes(faults.lost) => return 0,
            () if strikes(faults.flipped) => octets[at] ^= 1 << random.below(8),
            () if strikes(faults.cut) => octets.truncate(at),
            () if strikes(faults.dropped) => drop(octets.remove(at)),
            () if strikes(faults.inserted) => octets.insert(at, random.draw() as u8),
            () if strikes(faults.noise) => {
                let count = 1 + random.below(10) as usize;
                drop(octets.splice(..0, random.octets(count)));
            }
            () if strikes(faults.doubled) => return 2,
            () => {}
        }
        1
    }
}
