//! A client and a server in one process, with a line between them that can lose and damage what it carries.

use std::collections::VecDeque;
use std::time::Duration;

use super::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult};
use super::client::{ClientError, ClientEvent, ClientOutput, ClientSession};
use super::security::{Plain, Protection};
use super::server::{ClientRole, ObjectServer, ServerConnection, ServerEvent, ServerOutput};
use super::short_names::ShortNames;
use crate::link::{Link, LinkError, LinkInput, LinkOutput};
use crate::metering::ObisCode;

pub(super) const SERIAL: CosemAttribute = CosemAttribute::new(1, ObisCode::new(0, 0, 96, 1, 0, 255), 2);
pub(super) const ENERGY: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);
pub(super) const CLOCK: CosemAttribute = CosemAttribute::new(8, ObisCode::new(0, 0, 1, 0, 0, 255), 2);
pub(super) const PROFILE: CosemAttribute = CosemAttribute::new(7, ObisCode::new(1, 0, 99, 1, 0, 255), 2);
/// Nobody but the reader may see it.
pub(super) const PRIVATE: CosemAttribute = CosemAttribute::new(1, ObisCode::new(0, 0, 42, 0, 0, 255), 2);
pub(super) const MISSING: CosemAttribute = CosemAttribute::new(3, ObisCode::new(1, 0, 99, 99, 99, 255), 2);

/// Returns what it is given.
pub(super) const ECHO: CosemMethod = CosemMethod::new(9, ObisCode::new(0, 0, 10, 0, 0, 255), 1);
/// Returns nothing.
pub(super) const RESET: CosemMethod = CosemMethod::new(3, ENERGY.obis, 1);
/// Nobody but the reader may.
pub(super) const DISCONNECT: CosemMethod = CosemMethod::new(70, ObisCode::new(0, 0, 96, 3, 10, 255), 1);

/// The rows of the load profile: 100 kB.
pub(super) const ROWS: u16 = 5_000;

/// A meter with a handful of objects. A selection of the profile is answered with its own octets in an octet string.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) reads: usize,
    /// With the selections.
    pub(super) written: Vec<(CosemAttribute, Option<Vec<u8>>, Vec<u8>)>,
    pub(super) invoked: Vec<(CosemMethod, Option<Vec<u8>>)>,
}

impl ObjectServer for Objects {
    fn read(&mut self, attribute: CosemAttribute, selection: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        self.reads += 1;
        match (attribute, selection) {
            (SERIAL, None) => Ok([&[0x09, 0x08][..], b"ABC12345"].concat()),
            (ENERGY, None) => Ok(vec![0x06, 0x00, 0xbc, 0x61, 0x4e]),
            (CLOCK, None) => Ok(vec![0x09, 12, 0x07, 0xea, 11, 7, 6, 12, 0, 0, 0, 0x80, 0, 0]),
            (PRIVATE, None) => Ok(vec![0x11, 0x2a]),
            (PROFILE, None) => Ok(profile()),
            (PROFILE, Some(selection)) => Ok([&[0x09, selection.len() as u8][..], selection].concat()),
            (_, Some(_)) => Err(DataAccessResult::ScopeOfAccessViolated),
            _ => Err(DataAccessResult::ObjectUndefined),
        }
    }

    fn permits(&self, client: ClientRole, attribute: CosemAttribute) -> bool {
        attribute != PRIVATE || client == ClientRole::Reader
    }

    fn write(
        &mut self,
        client: ClientRole,
        attribute: CosemAttribute,
        selection: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), DataAccessResult> {
        match attribute {
            MISSING => Err(DataAccessResult::ObjectUndefined),
            PRIVATE if client != ClientRole::Reader => Err(DataAccessResult::ReadWriteDenied),
            _ => {
                self.written.push((attribute, selection.map(<[u8]>::to_vec), value.to_vec()));
                Ok(())
            }
        }
    }

    fn invoke(
        &mut self,
        client: ClientRole,
        method: CosemMethod,
        parameters: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, ActionResult> {
        if method == DISCONNECT && client != ClientRole::Reader {
            return Err(ActionResult::READ_WRITE_DENIED);
        }
        self.invoked.push((method, parameters.map(<[u8]>::to_vec)));
        Ok(if method == ECHO { parameters.map(<[u8]>::to_vec) } else { None })
    }

    fn short_names(&self) -> ShortNames {
        let attributes = [SERIAL, ENERGY, CLOCK, PROFILE, PRIVATE].map(|object| (object.class_id, object.obis));
        let others = [ECHO, DISCONNECT].map(|object| (object.class_id, object.obis));
        let all = attributes.into_iter().chain(others);
        ShortNames::assign(all.map(|(class_id, obis)| (class_id, 0, obis, 10)))
    }
}

/// An array of rows: a clock and one register.
pub(super) fn profile() -> Vec<u8> {
    let mut data = vec![0x01, 0x82];
    data.extend(ROWS.to_be_bytes());
    for row in 0..ROWS {
        data.extend([0x02, 0x02, 0x09, 12, 0x07, 0xea, 11, 7, 6, 12, 0, 0, 0, 0x80, 0, 0]);
        data.extend([0x12]);
        data.extend(row.to_be_bytes());
    }
    data
}

/// The least link that there can be: one APDU in one piece, behind an octet that tells it from a farewell.
#[derive(Default)]
pub(super) struct DummyLink {
    is_up: bool,
    outputs: VecDeque<LinkOutput>,
}

pub(super) const FAREWELL: u8 = 0;
pub(super) const APDU: u8 = 1;

impl Link for DummyLink {
    fn connect(&mut self, _now: Duration) {
        self.is_up = true;
        self.outputs.push_back(LinkOutput::Connected);
    }

    fn send(&mut self, _now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        if !self.is_up {
            return Err(LinkError::NotReady);
        }
        self.outputs.push_back(LinkOutput::Send([&[APDU], apdu].concat()));
        Ok(())
    }

    fn disconnect(&mut self, _now: Duration) {
        if std::mem::take(&mut self.is_up) {
            self.outputs.push_back(LinkOutput::Send(vec![FAREWELL]));
        }
        self.outputs.push_back(LinkOutput::Disconnected);
    }

    fn handle(&mut self, _now: Duration, input: LinkInput<'_>) -> Result<(), LinkError> {
        match input {
            LinkInput::Received([APDU, apdu @ ..]) if self.is_up => {
                self.outputs.push_back(LinkOutput::Apdu(apdu.to_vec()));
            }
            LinkInput::Received([FAREWELL]) if self.is_up => {
                self.is_up = false;
                self.outputs.push_back(LinkOutput::Disconnected);
            }
            LinkInput::Received(_) | LinkInput::Tick => {}
        }
        Ok(())
    }

    fn poll(&mut self) -> LinkOutput {
        self.outputs.pop_front().unwrap_or(LinkOutput::WaitUntil(None))
    }
}

/// Repeatable randomness (xorshift64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What the line does with a message: alters it, or loses it by answering `false`.
pub(super) type Fault = Box<dyn FnMut(&mut Vec<u8>) -> bool>;

pub(super) struct Pair<C: Link, S: Link, P: Protection = Plain> {
    pub(super) client: ClientSession<C, P>,
    pub(super) server: ServerConnection<S, P>,
    pub(super) objects: Objects,
    pub(super) now: Duration,
    pub(super) fault: Fault,
    line: VecDeque<(Duration, bool, Vec<u8>)>,
    pub(super) events: Vec<ClientEvent>,
    pub(super) server_events: Vec<ServerEvent>,
    pub(super) messages: usize,
    pub(super) result: Result<(), ClientError>,
}

const LATENCY: Duration = Duration::from_millis(20);
/// Far more than any exchange of these tests takes; a test that comes here hangs.
const STEPS_MAX: usize = 200_000;

impl<C: Link, S: Link, P: Protection> Pair<C, S, P> {
    pub(super) fn new(client: ClientSession<C, P>, server: ServerConnection<S, P>) -> Self {
        let mut pair = Self {
            client,
            server,
            objects: Objects::default(),
            now: Duration::from_secs(1_000),
            fault: Box::new(|_| true),
            line: VecDeque::new(),
            events: Vec::new(),
            server_events: Vec::new(),
            messages: 0,
            result: Ok(()),
        };
        pair.server.connect(pair.now, &mut pair.objects).unwrap();
        pair.client.associate(pair.now).unwrap();
        pair
    }

    /// Runs until both sides only wait for each other, or the client is done.
    pub(super) fn run(&mut self) {
        for _ in 0..STEPS_MAX {
            let deadline = [self.drain_client(), self.drain_server(), self.line.front().map(|(at, ..)| *at)];
            if self.result.is_err() || self.events.last() == Some(&ClientEvent::Released) {
                return;
            }
            // A server that waits for its client to come back would go on for ever.
            let Some(next) = deadline[0].into_iter().chain(deadline[2]).chain(deadline[1]).min() else { return };
            if deadline[0].is_none() && deadline[2].is_none() {
                return;
            }
            self.now = self.now.max(next);
            match self.line.front() {
                Some((at, ..)) if *at <= self.now => {
                    let (_, to_server, bytes) = self.line.pop_front().unwrap();
                    self.deliver(to_server, LinkInput::Received(&bytes));
                }
                _ => {
                    self.deliver(true, LinkInput::Tick);
                    self.deliver(false, LinkInput::Tick);
                }
            }
        }
        panic!("no end after {STEPS_MAX} steps: {:?}", self.events.last());
    }

    fn deliver(&mut self, to_server: bool, input: LinkInput<'_>) {
        if to_server {
            // A server link that fails is gone; the client notices by silence.
            drop(self.server.handle(self.now, input, &mut self.objects));
        } else if self.result.is_ok() {
            self.result = self.client.handle(self.now, input);
        }
    }

    fn drain_client(&mut self) -> Option<Duration> {
        loop {
            match self.client.poll() {
                ClientOutput::Send(bytes) => self.carry(true, bytes),
                ClientOutput::Event(event) => self.events.push(event),
                ClientOutput::WaitUntil(deadline) => return deadline,
            }
        }
    }

    fn drain_server(&mut self) -> Option<Duration> {
        loop {
            match self.server.poll() {
                ServerOutput::Send(bytes) => self.carry(false, bytes),
                ServerOutput::Event(event) => self.server_events.push(event),
                ServerOutput::WaitUntil(deadline) => return deadline,
            }
        }
    }

    fn carry(&mut self, to_server: bool, mut bytes: Vec<u8>) {
        self.messages += 1;
        if (self.fault)(&mut bytes) {
            self.line.push_back((self.now + LATENCY, to_server, bytes));
        }
    }
}
