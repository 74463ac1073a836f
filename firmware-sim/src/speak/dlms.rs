//! DLMS/COSEM: the meters of one line answer whoever reads them, over the TCP wrapper or over HDLC.
//!
//! A line carries one reader at a time; a reader that connects while another is there takes over, since the other may have
//! died without a word. Every meter of the line hears every octet and answers what is meant for it. Who manages a meter sets its clock,
//! switches its breaker and changes its keys.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocols::cosem::security_setup::SecuritySetup;
use protocols::dlms::acse::Password;
use protocols::dlms::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult};
use protocols::dlms::conformance::Conformance;
use protocols::dlms::security::{Challenge, Ciphered};
use protocols::dlms::server::{
    ClientRole, ObjectServer, Referencing, ServerConfig, ServerConnection, ServerEvent, ServerOutput, ServerSession,
    ShortNames,
};
use protocols::hdlc::{ClientAddress, HdlcAddress, HdlcConfig, HdlcServer};
use protocols::link::{Link, LinkError, LinkInput};
use protocols::wrapper::{WrapperConfig, WrapperServer};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::attend::{Attended, Ended, attend};
use super::line::{Duplex, Line, LineSpeed, Listener};
use super::objects;
use super::security::{Management, MeterSecurity, is_counter_error};
use crate::faults::{FaultRates, LineFaults};
use crate::quirks::Quirks;
use crate::rng::mix;
use crate::station::Station;

/// The client that reads with a password, and the one that reads without.
pub const READER_CLIENT: u8 = 1;
pub const PUBLIC_CLIENT: u8 = ClientAddress::PUBLIC.value();

/// How a meter is addressed on its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DlmsAddress {
    Wport(u16),
    Hdlc { address: HdlcAddress, information_octets_max: u16 },
}

/// One meter on a line.
#[derive(Clone)]
pub struct LineMeter {
    pub station: Arc<Station>,
    pub address: DlmsAddress,
    pub server: ServerConfig,
    pub security: Option<Arc<MeterSecurity>>,
    /// Of a meter without security.
    management: Option<Arc<Management>>,
    silent_counter_error: bool,
}

impl LineMeter {
    pub fn new(station: Arc<Station>, address: DlmsAddress, password: &str, quirks: Quirks) -> Self {
        let conformance = ServerConfig::CONFORMANCE_WITH_COMMANDS;
        let [a, b, c] = conformance.octets();
        let [d, e, f] = Conformance::SELECTIVE_ACCESS.octets();
        let without_selection = Conformance::from_octets([a & !d, b & !e, c & !f]);
        let server = ServerConfig {
            reader_password: Some(Password::new(password)),
            conformance: if quirks.no_selective_access { without_selection } else { conformance },
            quirks: quirks.server,
            ..ServerConfig::default()
        };
        let silent_counter_error = quirks.silent_counter_error;
        Self { station, address, server, security: None, management: None, silent_counter_error }
    }

    /// The same meter, with a client that manages it.
    #[must_use]
    pub fn managed(mut self, management: Management) -> Self {
        management.admit(&mut self.server);
        self.management = Some(Arc::new(management));
        self
    }

    /// The same meter, whose objects clients name so.
    #[must_use]
    pub fn referenced_by(mut self, referencing: Referencing) -> Self {
        self.server.referencing = referencing;
        self
    }

    /// The same meter, whose clients have to prove themselves and to cipher.
    #[must_use]
    pub fn secured(mut self, security: MeterSecurity) -> Self {
        security.admit(&mut self.server);
        self.security = Some(Arc::new(security));
        self
    }

    /// For the next client of high level security.
    fn challenge(&self) -> Option<Challenge> {
        match (&self.security, &self.management) {
            (Some(security), _) => Some(security.challenge()),
            (None, Some(management)) => Some(management.challenge()),
            (None, None) => None,
        }
    }

    fn link(&self, now: Duration) -> Box<dyn Link + Send> {
        match self.address {
            DlmsAddress::Wport(wport) => {
                let mut link = WrapperServer::new(WrapperConfig::new(READER_CLIENT.into(), wport));
                link.connect(now);
                Box::new(link)
            }
            DlmsAddress::Hdlc { address, information_octets_max } => {
                let mut config = HdlcConfig::new(ClientAddress::PUBLIC, address);
                config.information_transmit_max = information_octets_max;
                config.information_receive_max = information_octets_max;
                Box::new(HdlcServer::new(config))
            }
        }
    }
}

/// A meter's objects as one connection sees them.
struct MeterObjects {
    station: Arc<Station>,
    security: Option<Arc<MeterSecurity>>,
    /// Who asks: a server asks whether a read is permitted right before it reads.
    role: Cell<ClientRole>,
}

impl ObjectServer for MeterObjects {
    fn permits(&self, client: ClientRole, attribute: CosemAttribute) -> bool {
        self.role.set(client);
        objects::permits(client, attribute.obis)
    }

    fn read(&mut self, attribute: CosemAttribute, selection: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        let role = self.role.get();
        if let (Some(security), SecuritySetup::LOGICAL_NAME) = (&self.security, attribute.obis) {
            return security.read(role, attribute, selection);
        }
        let counter = self.security.as_ref().map(|security| security.counter());
        self.station.now(|meter| objects::read(meter, role, attribute, selection, counter))
    }

    fn short_names(&self) -> ShortNames {
        let counter = self.security.as_ref().map(|security| security.counter());
        self.station.now(|meter| objects::short_names(meter, counter))
    }

    fn write(
        &mut self,
        client: ClientRole,
        attribute: CosemAttribute,
        selection: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), DataAccessResult> {
        let counter = self.security.as_ref().map(|security| security.counter());
        self.station.now(|meter| objects::write(meter, client, attribute, selection, value, counter))
    }

    fn invoke(
        &mut self,
        client: ClientRole,
        method: CosemMethod,
        parameters: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, ActionResult> {
        if let (Some(security), SecuritySetup::LOGICAL_NAME) = (&self.security, method.obis) {
            return security.invoke(client, method, parameters);
        }
        let counter = self.security.as_ref().map(|security| security.counter());
        self.station.now(|meter| objects::invoke(meter, client, method, parameters, counter))
    }
}

/// A meter while a reader is connected.
struct Device {
    meter: LineMeter,
    objects: MeterObjects,
    connection: ServerConnection<Box<dyn Link + Send>, Option<Box<Ciphered>>>,
    deadline: Option<Duration>,
    /// Of the wrapper: HDLC has links of its own within a connection.
    hung_up: bool,
}

impl Device {
    fn new(meter: LineMeter, now: Duration) -> Self {
        let (station, security) = (meter.station.clone(), meter.security.clone());
        let objects = MeterObjects { station, security, role: Cell::new(ClientRole::Public) };
        let protection = meter.security.as_ref().map(|security| security.protection());
        let session = ServerSession::with_protection(meter.server.clone(), protection);
        let connection = ServerConnection::new(meter.link(now), session);
        Self { meter, objects, connection, deadline: None, hung_up: false }
    }

    /// Hears octets, or that time has passed; what it says goes to `out`.
    fn hear(&mut self, now: Duration, octets: Option<&[u8]>, out: &mut Vec<Vec<u8>>) -> Result<(), LinkError> {
        if let (Some(security), DlmsAddress::Wport(_), Some(octets)) =
            (&self.meter.security, self.meter.address, octets)
        {
            security.overhear(octets);
        }
        if !self.meter.station.answers() {
            // When power returns, nobody is connected.
            *self = Self::new(self.meter.clone(), now);
            return Ok(());
        }
        let input = octets.map_or(LinkInput::Tick, LinkInput::Received);
        let session = self.connection.session_mut();
        if session.wants_challenge()
            && let Some(challenge) = self.meter.challenge()
        {
            session.set_challenge(challenge);
        }
        let heard = self.connection.handle(now, input, &mut self.objects);
        if let (Some(security), Some(used)) = (&self.meter.security, self.connection.session().protection()) {
            security.keep(used);
        }
        if let (Some(security), Some(protection)) =
            (&self.meter.security, self.connection.session_mut().protection_mut())
            && let Some(keys) = security.take_renewed()
        {
            protection.renew(keys).expect("keys of another length are not taken");
        }
        loop {
            match self.connection.poll() {
                ServerOutput::Send(octets) => self.say(octets, out),
                ServerOutput::Event(event) => {
                    debug!(meter = %self.meter.station.id(), ?event, "dlms server");
                    match event {
                        ServerEvent::Connected => self.hung_up = false,
                        ServerEvent::Disconnected => self.hung_up = matches!(self.meter.address, DlmsAddress::Wport(_)),
                        _ => {}
                    }
                }
                ServerOutput::WaitUntil(deadline) => {
                    self.deadline = deadline;
                    return heard;
                }
            }
        }
    }
}

impl Device {
    fn say(&mut self, mut octets: Vec<u8>, out: &mut Vec<Vec<u8>>) {
        if let (Some(security), DlmsAddress::Wport(_)) = (&self.meter.security, self.meter.address) {
            if self.meter.silent_counter_error && is_counter_error(&octets) {
                self.hung_up = true;
                return;
            }
            security.tamper(&mut octets);
        }
        out.push(octets);
    }
}

/// A line with its meters.
pub struct DlmsLine {
    pub listener: Listener,
    pub meters: Vec<LineMeter>,
    pub speed: Option<LineSpeed>,
    pub faults: FaultRates,
    pub seed: u64,
}

impl DlmsLine {
    /// Answers readers until told to stop.
    pub async fn run(self, stopping: watch::Receiver<bool>) {
        attend(self, stopping).await;
    }

    fn is_hdlc(&self) -> bool {
        self.meters.iter().any(|meter| matches!(meter.address, DlmsAddress::Hdlc { .. }))
    }
}

impl Attended for DlmsLine {
    fn listener(&mut self) -> &mut Listener {
        &mut self.listener
    }

    async fn converse(&mut self, nth: u64, stream: Box<dyn Duplex>) -> io::Result<Ended> {
        let faults = LineFaults::new(mix(self.seed, &[0xd1f5, nth]), self.faults);
        let mut line = Line::new(stream, self.speed, faults);
        let origin = Instant::now();
        let mut devices: Vec<Device> =
            self.meters.iter().map(|meter| Device::new(meter.clone(), Duration::ZERO)).collect();
        let mut out = Vec::new();
        // Silence counts from now on.
        for device in &mut devices {
            let heard = device.hear(Duration::ZERO, None, &mut out);
            heard.expect("nothing was said that could break a link");
        }
        loop {
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
            let mut broken = None;
            for device in &mut devices {
                // A broken wrapper is broken for all that share it.
                if let Err(error) = device.hear(now, octets.as_deref(), &mut out) {
                    broken = Some(error);
                }
            }
            for octets in &mut out {
                if self.is_hdlc() && line.spoils_check() {
                    spoil_check(octets);
                }
                line.send(octets).await?;
            }
            out.clear();
            if broken.is_some() || devices.iter().all(|device| device.hung_up) {
                return Ok(Ended::Left);
            }
        }
    }
}

/// Makes the check sequence of the last frame wrong: the octet before the closing flag.
fn spoil_check(frames: &mut [u8]) {
    if let [.., check, _] = frames {
        *check ^= 0x55;
    }
}
