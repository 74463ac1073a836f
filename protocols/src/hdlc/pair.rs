//! A client and a server link on a simulated line that delays, loses and damages octets. One seed, one course of events.

use std::collections::VecDeque;
use std::time::Duration;

use crate::link::{Link, LinkError, LinkInput, LinkOutput};

/// xorshift64: the same sequence on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        // Spread, so that neighbouring seeds do not begin alike; never zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.draw() >> 11) % bound
    }

    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn octets(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.draw() as u8).collect()
    }
}

/// What the line does, in chances per mille of each transmission unless said otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) latency_ms: u64,
    /// How long the line takes for one octet.
    pub(crate) octet_time_us: u64,
    /// Added to some transmissions, so that answers come after they were given up.
    pub(crate) late_ms: u64,
    pub(crate) late: u64,
    pub(crate) lost: u64,
    /// One bit turned.
    pub(crate) flipped: u64,
    /// Cut short.
    pub(crate) cut: u64,
    /// One octet left out.
    pub(crate) dropped: u64,
    /// One octet put in.
    pub(crate) inserted: u64,
    /// Delivered twice.
    pub(crate) repeated: u64,
    /// Delivered in pieces of a random size, a few milliseconds apart. Yes or no.
    pub(crate) is_fragmented: bool,
    /// Both stations hear both. Yes or no.
    pub(crate) is_echoing: bool,
}

struct Delivery {
    at: Duration,
    octets: Vec<u8>,
}

/// One direction: first in, first out.
#[derive(Default)]
struct Wire {
    deliveries: VecDeque<Delivery>,
    /// What is handed over in this step.
    arrived: Option<Vec<u8>>,
    free_at: Duration,
}

impl Wire {
    fn input(&self) -> LinkInput<'_> {
        self.arrived.as_ref().map_or(LinkInput::Tick, |octets| LinkInput::Received(octets))
    }

    fn carry(&mut self, now: Duration, octets: &[u8], faults: &Faults, random: &mut Random) {
        let mut octets = octets.to_vec();
        if random.chance(faults.lost) {
            return;
        }
        let at = |random: &mut Random, octets: &[u8]| random.below(octets.len() as u64) as usize;
        if random.chance(faults.flipped) {
            let index = at(random, &octets);
            octets[index] ^= 1 << random.below(8);
        }
        if random.chance(faults.cut) {
            octets.truncate(at(random, &octets).max(1));
        }
        if random.chance(faults.dropped) && octets.len() > 1 {
            let index = at(random, &octets);
            octets.remove(index);
        }
        if random.chance(faults.inserted) {
            let index = at(random, &octets);
            octets.insert(index, random.draw() as u8);
        }
        let late_ms = if random.chance(faults.late) { faults.late_ms } else { 0 };
        let mut at = (now + Duration::from_millis(faults.latency_ms + late_ms)).max(self.free_at);
        for _ in 0..if random.chance(faults.repeated) { 2 } else { 1 } {
            let mut rest = &octets[..];
            while !rest.is_empty() {
                let size = if faults.is_fragmented { 1 + random.below(40) as usize } else { rest.len() };
                let (piece, after) = rest.split_at(size.min(rest.len()));
                at += Duration::from_micros(faults.octet_time_us * piece.len() as u64);
                self.deliveries.push_back(Delivery { at, octets: piece.to_vec() });
                let has_gaps = faults.is_fragmented && faults.octet_time_us == 0;
                at += Duration::from_millis(if has_gaps { random.below(20) } else { 0 });
                rest = after;
            }
        }
        self.free_at = at;
    }
}

/// What the two owners do: the client sends request after request, the server answers each.
pub(crate) struct Exchange {
    /// Pairs of request and answer.
    pub(crate) apdus: Vec<(Vec<u8>, Vec<u8>)>,
    /// How long the server's owner takes for an answer.
    pub(crate) think_ms: u64,
}

impl Exchange {
    /// `count` exchanges of up to `octets_max` octets each way, every one unlike all others.
    pub(crate) fn random(count: usize, octets_max: u64, random: &mut Random) -> Self {
        let apdu = |tag: u8, random: &mut Random| {
            let octets = 1 + random.below(octets_max) as usize;
            let mut apdu = random.octets(octets);
            apdu[0] = tag;
            apdu
        };
        Self { apdus: (0..count).map(|_| (apdu(0xc0, random), apdu(0xc4, random))).collect(), think_ms: 0 }
    }
}

/// How an exchange ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Answers that the client's owner has.
    pub(crate) answered: usize,
    pub(crate) error: Option<LinkError>,
    pub(crate) took: Duration,
    /// Octets sent by both sides.
    pub(crate) sent_octets: usize,
}

pub(crate) struct Pair<C, S> {
    pub(crate) client: C,
    pub(crate) server: S,
    pub(crate) faults: Faults,
    pub(crate) random: Random,
    now: Duration,
    to_client: Wire,
    to_server: Wire,
    sent_octets: usize,
    wake_client: Option<Duration>,
    wake_server: Option<Duration>,
    answer_at: Option<Duration>,
    /// Requests that the server's owner has, answers that the client's owner has.
    requested: usize,
    answered: usize,
    client_down: bool,
}

/// No exchange in these tests takes so long, whatever goes wrong.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);
const STEPS_MAX: usize = 2_000_000;

impl<C: Link, S: Link> Pair<C, S> {
    pub(crate) fn new(client: C, server: S, faults: Faults, seed: u64) -> Self {
        Self {
            client,
            server,
            faults,
            random: Random::seeded(seed),
            now: Duration::ZERO,
            to_client: Wire::default(),
            to_server: Wire::default(),
            sent_octets: 0,
            wake_client: None,
            wake_server: None,
            answer_at: None,
            requested: 0,
            answered: 0,
            client_down: false,
        }
    }

    /// Connects, runs the exchange and disconnects. Panics when an APDU arrives that was not sent, arrives twice or out of
    /// order, when a link asks to be woken in the past, and when nothing ends it.
    pub(crate) fn run(&mut self, exchange: &Exchange) -> Outcome {
        self.server.connect(self.now);
        self.client.connect(self.now);
        let mut error = None;
        for _ in 0..STEPS_MAX {
            let drained = self.drain(exchange);
            if let Err(found) = drained {
                error = Some(found);
            }
            if error.is_some() || self.client_down {
                let (answered, took, sent_octets) = (self.answered, self.now, self.sent_octets);
                assert!(error.is_some() || answered == exchange.apdus.len(), "ended early without an error");
                return Outcome { answered, error, took, sent_octets };
            }
            error = self.step().err();
        }
        panic!("it did not end in {STEPS_MAX} steps");
    }

    /// Moves time to whatever comes next.
    fn step(&mut self) -> Result<(), LinkError> {
        let (client, server) = (self.to_client.deliveries.front(), self.to_server.deliveries.front());
        let times = [client.map(|d| d.at), server.map(|d| d.at), self.wake_client, self.wake_server, self.answer_at];
        let next = times.into_iter().flatten().min().expect("a client that waits has a deadline");
        self.now = self.now.max(next);
        assert!(self.now < TIME_MAX, "it hangs");
        for wire in [&mut self.to_server, &mut self.to_client] {
            wire.arrived = wire.deliveries.pop_front_if(|delivery| delivery.at <= self.now).map(|d| d.octets);
        }
        self.server.handle(self.now, self.to_server.input())?;
        self.client.handle(self.now, self.to_client.input())
    }

    fn drain(&mut self, exchange: &Exchange) -> Result<(), LinkError> {
        loop {
            match self.client.poll() {
                LinkOutput::Send(octets) => self.transmit(&octets, true),
                LinkOutput::Connected => self.next_request(exchange)?,
                LinkOutput::Apdu(apdu) => {
                    assert!(self.answered < self.requested, "an answer to nothing: {apdu:02x?}");
                    assert!(apdu == exchange.apdus[self.answered].1, "answer {} is another one", self.answered);
                    self.answered += 1;
                    self.next_request(exchange)?;
                }
                LinkOutput::Disconnected => self.client_down = true,
                LinkOutput::WaitUntil(at) => {
                    assert!(at.is_none_or(|at| at > self.now), "the client asks for what is past");
                    self.wake_client = at;
                    break;
                }
            }
        }
        if self.answer_at.is_some_and(|at| at <= self.now) {
            self.answer_at = None;
            self.server.send(self.now, &exchange.apdus[self.requested - 1].1)?;
        }
        loop {
            match self.server.poll() {
                LinkOutput::Send(octets) => self.transmit(&octets, false),
                LinkOutput::Apdu(apdu) => {
                    assert!(apdu == exchange.apdus[self.requested].0, "request {} is another one", self.requested);
                    self.requested += 1;
                    if exchange.think_ms == 0 {
                        self.server.send(self.now, &exchange.apdus[self.requested - 1].1)?;
                    } else {
                        self.answer_at = Some(self.now + Duration::from_millis(exchange.think_ms));
                    }
                }
                LinkOutput::Connected | LinkOutput::Disconnected => {}
                LinkOutput::WaitUntil(at) => {
                    assert!(at.is_none_or(|at| at > self.now), "the server asks for what is past");
                    self.wake_server = at;
                    return Ok(());
                }
            }
        }
    }

    fn next_request(&mut self, exchange: &Exchange) -> Result<(), LinkError> {
        if let Some((request, _)) = exchange.apdus.get(self.answered) {
            return self.client.send(self.now, request);
        }
        self.client.disconnect(self.now);
        Ok(())
    }

    fn transmit(&mut self, octets: &[u8], is_from_client: bool) {
        self.sent_octets += octets.len();
        let (faults, random) = (&self.faults, &mut self.random);
        if is_from_client || faults.is_echoing {
            self.to_server.carry(self.now, octets, faults, random);
        }
        if !is_from_client || faults.is_echoing {
            self.to_client.carry(self.now, octets, faults, random);
        }
    }
}
