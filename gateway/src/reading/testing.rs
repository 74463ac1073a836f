//! A small virtual meter for tests: registers, a clock, a load profile and an event log behind a real server session, over
//! memory. It shares nothing with the simulator.

pub(crate) mod image;
pub(crate) mod secured;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocols::cosem::InterfaceClass;
use protocols::cosem::activity_calendar::ActivityCalendar;
use protocols::cosem::association_ln::{AccessMode, AssociationLn, AttributeAccess, ListedObject};
use protocols::cosem::profile_generic::selection::Selection;
use protocols::cosem::profile_generic::{CAPTURE_OBJECTS, CaptureObject, ProfileGeneric, SortMethod};
use protocols::cosem::register::ScalerUnit;
use protocols::dlms::acse::Password;
use protocols::dlms::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult};
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{ClockRules, ClockStatus, DateTime};
use protocols::dlms::server::{
    ClientRole, ObjectServer, PreEstablishedClient, Referencing, ServerConfig, ServerConnection, ServerOutput,
    ServerSession, ShortNames,
};
use protocols::dlms::value::DataValue;
use protocols::hdlc::{ClientAddress, HdlcAddress, HdlcConfig, HdlcServer};
use protocols::link::{Link, LinkInput};
use protocols::metering::{ObisCode, Unit, UtcMillis};
use protocols::wrapper::{WrapperConfig, WrapperServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use self::secured::BodySecurity;
use crate::clock::{Clock, SharedClock};

/// One minute past a full quarter of an hour.
pub(crate) const T0: UtcMillis = UtcMillis(1_795_392_060_000);
pub(crate) const QUARTER_MS: i64 = 900_000;
pub(crate) const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
pub(crate) const POWER: ObisCode = ObisCode::new(1, 0, 1, 7, 0, 255);
pub(crate) const PROFILE: ObisCode = ObisCode::new(1, 0, 99, 1, 0, 255);
pub(crate) const EVENT_LOG: ObisCode = ObisCode::new(0, 0, 99, 98, 0, 255);

/// What a meter takes to answer.
const LATENCY: Duration = Duration::from_millis(5);

/// Wall clock and monotonic clock that follow tokio's, so that pausing moves both.
pub(crate) struct TokioClock {
    origin: Instant,
    wall: UtcMillis,
}

impl TokioClock {
    pub(crate) fn shared(wall: UtcMillis) -> SharedClock {
        Arc::new(Self { origin: Instant::now(), wall })
    }
}

impl Clock for TokioClock {
    fn wall(&self) -> UtcMillis {
        self.wall.plus_ms(self.origin.elapsed().as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A system clock that is off, until somebody sets it.
pub(crate) struct SetClock {
    right: SharedClock,
    off_ms: AtomicI64,
}

impl SetClock {
    pub(crate) fn shared(right: &SharedClock, off_ms: i64) -> Arc<Self> {
        Arc::new(Self { right: right.clone(), off_ms: off_ms.into() })
    }

    pub(crate) fn off_ms(&self) -> i64 {
        self.off_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, off_ms: i64) {
        self.off_ms.store(off_ms, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn wall(&self) -> UtcMillis {
        self.right.wall().plus_ms(self.off_ms())
    }

    fn monotonic(&self) -> Duration {
        self.right.monotonic()
    }
}

/// What the meter is, under the hands of the test.
pub(crate) struct MeterBody {
    pub(crate) clock: SharedClock,
    pub(crate) name: String,
    /// The meter's clock minus the wall clock.
    pub(crate) offset_ms: i64,
    pub(crate) energy: u32,
    /// Of the register and the column.
    pub(crate) energy_scaler: i8,
    /// What the profile's column is.
    pub(crate) captured: ObisCode,
    /// How often it was asked what the columns are.
    pub(crate) layouts_read: usize,
    /// Labels and values, in the order of capture.
    pub(crate) entries: Vec<(UtcMillis, u32)>,
    pub(crate) events: Vec<(UtcMillis, u8)>,
    /// Attributes that are refused.
    pub(crate) refused: HashSet<(ObisCode, i8)>,
    pub(crate) refuses_ranges: bool,
    pub(crate) refuses_entries: bool,
    pub(crate) password: Option<&'static str>,
    /// Who may set the clock and switch the breaker; others are refused. With a password there is a public client beside the reader then.
    pub(crate) setter: Option<ClientRole>,
    /// Its breaker is closed.
    pub(crate) is_connected: bool,
    pub(crate) image: image::ImageBody,
    pub(crate) calendar: ActivityCalendar,
    /// Its attributes in the order in which they were written.
    pub(crate) calendar_writes: Vec<i8>,
    /// What the clock showed when it was set, and what it was set to.
    pub(crate) clock_sets: Vec<(UtcMillis, UtcMillis)>,
    /// So many more answers of the profile have a cell too many in their last row.
    pub(crate) spoiled: usize,
    /// Entries of the profile that show an undefined date in place of these labels.
    pub(crate) undated: Vec<UtcMillis>,
    /// The gateway's clock, which is set right when the profile is asked for.
    pub(crate) sets_right: Option<Arc<SetClock>>,
    /// Selections of the profile that were served: for what was asked.
    pub(crate) asked: Vec<Option<Selection>>,
    pub(crate) associations: usize,
    pub(crate) security: Option<BodySecurity>,
    pub(crate) referencing: Referencing,
    /// Whoever comes is associated.
    pub(crate) is_pre_established: bool,
}

pub(crate) type SharedBody = Arc<Mutex<MeterBody>>;

impl MeterBody {
    /// A meter with a quarter-hourly profile that reaches back `days` from the wall clock.
    pub(crate) fn shared(clock: &SharedClock, name: &str, days: i64) -> SharedBody {
        let mut body = Self {
            clock: clock.clone(),
            name: name.to_owned(),
            offset_ms: 0,
            energy: 1_000,
            energy_scaler: 0,
            captured: ENERGY,
            layouts_read: 0,
            entries: Vec::new(),
            events: Vec::new(),
            refused: HashSet::new(),
            refuses_ranges: false,
            refuses_entries: false,
            password: None,
            setter: None,
            is_connected: true,
            image: image::ImageBody::default(),
            calendar: ActivityCalendar::new(ActivityCalendar::LOGICAL_NAME),
            calendar_writes: Vec::new(),
            clock_sets: Vec::new(),
            spoiled: 0,
            undated: Vec::new(),
            sets_right: None,
            asked: Vec::new(),
            associations: 0,
            security: None,
            referencing: Referencing::LogicalNames,
            is_pre_established: false,
        };
        body.capture(body.now().plus_ms(-days * 86_400_000), body.now());
        Arc::new(Mutex::new(body))
    }

    pub(crate) fn now(&self) -> UtcMillis {
        self.clock.wall().plus_ms(self.offset_ms)
    }

    /// Captures every full quarter of an hour after `from`, up to `to`.
    pub(crate) fn capture(&mut self, from: UtcMillis, to: UtcMillis) {
        let mut label = (from.0.div_euclid(QUARTER_MS) + 1) * QUARTER_MS;
        while label <= to.0 {
            self.energy += 1;
            self.entries.push((UtcMillis(label), self.energy));
            label += QUARTER_MS;
        }
    }

    fn profile(&mut self, obis: ObisCode, selection: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        let selection = match selection {
            Some([selector, parameters @ ..]) => {
                let data = Data::from_bytes(parameters).map_err(|_| DataAccessResult::TypeUnmatched)?;
                Some(Selection::decode(*selector, &data).map_err(|_| DataAccessResult::TypeUnmatched)?)
            }
            _ => None,
        };
        let is_refused = match &selection {
            Some(Selection::Range(_)) => self.refuses_ranges,
            Some(Selection::Entry(_)) => self.refuses_entries,
            None => false,
        };
        if is_refused {
            return Err(DataAccessResult::ScopeOfAccessViolated);
        }
        let rows: Vec<(UtcMillis, DataValue)> = match obis {
            EVENT_LOG => self.events.iter().map(|(at, code)| (*at, DataValue::Unsigned(*code))).collect(),
            _ => self.entries.iter().map(|(at, value)| (*at, DataValue::DoubleLongUnsigned(*value))).collect(),
        };
        let bound = |value: &DataValue| match value {
            DataValue::OctetString(octets) => {
                let octets: [u8; 12] = octets.as_slice().try_into().unwrap();
                DateTime(octets).to_utc(ClockRules::default()).unwrap().utc
            }
            other => panic!("a bound of {other:?}"),
        };
        let rows = match &selection {
            Some(Selection::Range(range)) => {
                let (from, to) = (bound(&range.from), bound(&range.to));
                rows.into_iter().filter(|(at, _)| (from..=to).contains(at)).collect()
            }
            Some(Selection::Entry(entries)) => rows[entries.rows(rows.len())].to_vec(),
            None => rows,
        };
        if obis == PROFILE {
            self.asked.push(selection);
            self.sets_right.iter().for_each(|clock| clock.set(0));
        }
        let row = |(at, value): (UtcMillis, DataValue)| {
            let is_undated = obis == PROFILE && self.undated.contains(&at);
            let label = if is_undated { DateTime([0xff; 12]) } else { DateTime::from_utc(at, 60, ClockStatus::GOOD) };
            DataValue::Structure(vec![DataValue::octets_of(label), value])
        };
        let mut rows: Vec<DataValue> = rows.into_iter().map(row).collect();
        if obis == PROFILE
            && self.spoiled > 0
            && let Some(DataValue::Structure(cells)) = rows.last_mut()
        {
            self.spoiled -= 1;
            cells.push(DataValue::Unsigned(0));
        }
        Ok(DataValue::Array(rows).to_vec())
    }
}

/// As this client sees it; the password may be read, as some meters let it be.
fn object_list() -> Vec<ListedObject> {
    let object = |class_id, logical_name, attributes: std::ops::RangeInclusive<i8>| ListedObject {
        class_id,
        version: u8::from(matches!(class_id, 7 | 15)),
        logical_name,
        attributes: attributes
            .map(|attribute| AttributeAccess { attribute, mode: AccessMode::READ, selectors: Vec::new() })
            .collect(),
        methods: Vec::new(),
    };
    let mut power = object(4, POWER, 1..=4);
    power.attributes[3].mode = AccessMode::NONE;
    vec![
        object(1, ObisCode::new(0, 0, 42, 0, 0, 255), 1..=2),
        object(3, ENERGY, 1..=3),
        power,
        object(7, PROFILE, 1..=4),
        object(15, AssociationLn::CURRENT, 7..=7),
        object(40_000, ObisCode::new(1, 0, 199, 0, 0, 255), 2..=2),
    ]
}

impl ObjectServer for MeterBody {
    fn read(&mut self, attribute: CosemAttribute, selection: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        let CosemAttribute { class_id, obis, attribute: index } = attribute;
        if self.refused.contains(&(obis, index)) {
            return Err(DataAccessResult::ReadWriteDenied);
        }
        let is_energy = obis == ENERGY || obis == self.captured;
        let value = match (class_id, obis, index) {
            (1, ObisCode([0, 0, 42, 0, 0, 255]), 2) => DataValue::OctetString(self.name.clone().into_bytes()),
            (1, ObisCode([0, 0, 43, 1, 0, 255]), 2) if self.security.is_some() => {
                DataValue::DoubleLongUnsigned(self.security.as_ref().map_or(0, BodySecurity::counter))
            }
            (18, _, _) => self.image.read(index).ok_or(DataAccessResult::ObjectUndefined)?,
            (20, ActivityCalendar::LOGICAL_NAME, _) => {
                self.calendar.attribute(index).ok_or(DataAccessResult::ObjectUndefined)?
            }
            (70, _, 2) => DataValue::Boolean(self.is_connected),
            (70, _, 3) => DataValue::Enum(u8::from(self.is_connected)),
            (8, _, 2) => DataValue::octets_of(DateTime::from_utc(self.now(), 60, ClockStatus::GOOD)),
            (3, _, 2) if is_energy => DataValue::DoubleLongUnsigned(self.energy),
            (3, _, 3) if is_energy => ScalerUnit::new(self.energy_scaler, Unit::WATT_HOUR).encode(),
            (4, POWER, 2) => DataValue::LongUnsigned(230),
            (4, POWER, 3) => ScalerUnit::new(1, Unit::WATT).encode(),
            (7, PROFILE | EVENT_LOG, 2) => return self.profile(obis, selection),
            (15, AssociationLn::CURRENT, 2) => {
                DataValue::Array(object_list().iter().map(ListedObject::encode).collect())
            }
            (7, PROFILE | EVENT_LOG, _) => {
                self.layouts_read += usize::from((obis, index) == (PROFILE, CAPTURE_OBJECTS));
                let value = match obis {
                    PROFILE => CaptureObject::new(3, self.captured, 2),
                    _ => CaptureObject::new(1, ObisCode::new(0, 0, 96, 11, 0, 255), 2),
                };
                let object = ProfileGeneric {
                    capture_objects: vec![CaptureObject::CLOCK, value],
                    capture_period_s: if obis == PROFILE { 900 } else { 0 },
                    sort_method: SortMethod::Fifo,
                    entries_in_use: self.entries.len() as u32,
                    profile_entries: 100_000,
                    ..ProfileGeneric::new(obis)
                };
                object.attribute(index).ok_or(DataAccessResult::ObjectUndefined)?
            }
            _ => return Err(DataAccessResult::ObjectUndefined),
        };
        Ok(value.to_vec())
    }

    fn short_names(&self) -> ShortNames {
        let clock = (8, 0, ObisCode::new(0, 0, 1, 0, 0, 255), 9);
        let log = (7, 1, EVENT_LOG, 8);
        let listed = object_list().into_iter().filter(|object| object.class_id != AssociationLn::CLASS_ID);
        let listed = listed.map(|object| (object.class_id, object.version, object.logical_name, 8));
        ShortNames::assign(listed.chain([clock, log]))
    }

    fn write(
        &mut self,
        client: ClientRole,
        attribute: CosemAttribute,
        _: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), DataAccessResult> {
        let CosemAttribute { class_id, obis, attribute: index } = attribute;
        if self.refused.contains(&(obis, index)) {
            return Err(DataAccessResult::ReadWriteDenied);
        }
        if let (20, ActivityCalendar::LOGICAL_NAME, true) = (class_id, obis, self.setter == Some(client)) {
            let data = Data::from_bytes(value).map_err(|_| DataAccessResult::TypeUnmatched)?;
            self.calendar_writes.push(index);
            return self.calendar.apply(index, &data).map_err(|_| DataAccessResult::TypeUnmatched);
        }
        if self.setter != Some(client) || attribute != CosemAttribute::new(8, ObisCode::new(0, 0, 1, 0, 0, 255), 2) {
            return Err(DataAccessResult::ReadWriteDenied);
        }
        let time =
            Data::from_bytes(value).ok().and_then(|data| data.date_time()).ok_or(DataAccessResult::TypeUnmatched)?;
        let time = time.to_utc(ClockRules::default()).map_err(|_| DataAccessResult::TypeUnmatched)?.utc;
        self.clock_sets.push((self.now(), time));
        self.offset_ms = time.since(self.clock.wall());
        Ok(())
    }

    fn invoke(
        &mut self,
        client: ClientRole,
        method: CosemMethod,
        parameters: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, ActionResult> {
        match (method.class_id, method.method, parameters) {
            _ if self.setter != Some(client) => Err(ActionResult::READ_WRITE_DENIED),
            (70, 1 | 2, Some([15, 0])) => {
                self.is_connected = method.method == 2;
                Ok(None)
            }
            (20, 1, Some([15, 0])) => {
                self.calendar.active = self.calendar.passive.clone();
                Ok(None)
            }
            (18, index, Some(parameter)) => self.image.invoke(index, parameter).map(|()| None),
            (64, 2, Some(parameters)) => {
                let security = self.security.as_mut().ok_or(ActionResult::OBJECT_UNDEFINED)?;
                security.transfer(parameters).map(|()| None)
            }
            _ => Err(ActionResult::OBJECT_UNDEFINED),
        }
    }
}

/// Answers on one connection until it ends.
pub(crate) async fn serve_wrapper(stream: DuplexStream, server_wport: u16, body: SharedBody) {
    let link = WrapperServer::new(WrapperConfig::new(16, server_wport));
    serve(stream, vec![(Box::new(link), body)], Vec::new()).await;
}

/// Who is behind a wPort.
#[derive(Clone)]
pub(crate) enum Role {
    Meter(SharedBody),
    Silent,
    /// Never stops talking, and says nothing.
    Garbage,
    /// Associates, and answers each GET with one more block.
    EndlessBlocks,
}

/// One connection to a host with many wPorts: the first WPDU says which is meant.
pub(crate) async fn serve_host(mut stream: DuplexStream, roles: HashMap<u16, Role>) {
    let mut first = vec![0; 8];
    if stream.read_exact(&mut first).await.is_err() {
        return;
    }
    let wport = u16::from_be_bytes([first[4], first[5]]);
    match roles.get(&wport).cloned().unwrap_or(Role::Silent) {
        Role::Meter(body) => {
            let link = WrapperServer::new(WrapperConfig::new(16, wport));
            serve(stream, vec![(Box::new(link), body)], first).await;
        }
        Role::Silent => {
            let mut waste = [0; 64];
            while stream.read(&mut waste).await.is_ok_and(|count| count > 0) {}
        }
        Role::Garbage => while stream.write_all(&[0x7e; 512]).await.is_ok() {},
        Role::EndlessBlocks => endless_blocks(stream, wport, first).await,
    }
}

async fn endless_blocks(mut stream: DuplexStream, wport: u16, mut first: Vec<u8>) {
    let (mut block, mut buffer) = (0_u32, [0; 1024]);
    let mut session = ServerSession::new(ServerConfig::default());
    let clock = TokioClock::shared(T0);
    let body = MeterBody::shared(&clock, "x", 0);
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer).await else { return };
        let request = [std::mem::take(&mut first), buffer[..count].to_vec()].concat();
        let apdu = &request[8..];
        let answer = match apdu[0] {
            0xc0 => {
                block += 1;
                let data = [[0xc4, 2, apdu[2], 0].to_vec(), block.to_be_bytes().to_vec(), vec![0, 0x82, 15, 0]];
                [data.concat(), vec![9; 15 * 256]].concat()
            }
            _ => session.answer(apdu, &mut *body.lock().unwrap()).unwrap(),
        };
        let mut out = Vec::new();
        protocols::wrapper::Wpdu { source: wport, destination: 16, apdu: &answer }.encode(&mut out).unwrap();
        if stream.write_all(&out).await.is_err() {
            return;
        }
    }
}

/// Several meters on one HDLC line: each hears everything and answers what is for it.
pub(crate) async fn serve_hdlc(stream: DuplexStream, meters: Vec<(HdlcAddress, SharedBody)>) {
    let link = |(address, body)| {
        let config = HdlcConfig::new(ClientAddress::PUBLIC, address);
        (Box::new(HdlcServer::new(config)) as Box<dyn Link + Send>, body)
    };
    serve(stream, meters.into_iter().map(link).collect(), Vec::new()).await;
}

impl MeterBody {
    /// Whom it lets in, and how it protects what it says.
    fn admits(&self) -> (ServerConfig, Option<Box<protocols::dlms::security::Ciphered>>) {
        if let Some(security) = &self.security {
            return (security.server.clone(), Some(security.protection()));
        }
        let known = PreEstablishedClient {
            role: ClientRole::Public,
            minimum: protocols::dlms::security::Level::NONE,
            max_receive_pdu_size: 1_024,
        };
        let config = ServerConfig {
            public_client: self.password.is_none() || self.setter.is_some(),
            reader_password: self.password.map(Password::new),
            conformance: ServerConfig::CONFORMANCE_WITH_COMMANDS,
            referencing: self.referencing,
            pre_established: self.is_pre_established.then_some(known),
            ..ServerConfig::default()
        };
        (config, None)
    }
}

/// `first` has been read from the stream already.
async fn serve(mut stream: DuplexStream, meters: Vec<(Box<dyn Link + Send>, SharedBody)>, first: Vec<u8>) {
    let origin = Instant::now();
    let mut connections = Vec::new();
    for (link, body) in meters {
        let (config, protection) = body.lock().unwrap().admits();
        let mut connection = ServerConnection::new(link, ServerSession::with_protection(config, protection));
        if let Some(security) = &mut body.lock().unwrap().security {
            connection.session_mut().set_challenge(security.challenge());
        }
        connection.connect(Duration::ZERO, &mut *body.lock().unwrap()).unwrap();
        connection.handle(Duration::ZERO, LinkInput::Received(&first), &mut *body.lock().unwrap()).unwrap();
        connections.push((connection, body));
    }
    let mut buffer = [0; 4096];
    loop {
        let mut out = Vec::new();
        for (connection, body) in &mut connections {
            if let Some(security) = &mut body.lock().unwrap().security {
                connection.session().protection().iter().for_each(|used| security.keep(used));
                if connection.session().wants_challenge() {
                    connection.session_mut().set_challenge(security.challenge());
                }
            }
            loop {
                match connection.poll() {
                    ServerOutput::Send(mut octets) => {
                        let mut body = body.lock().unwrap();
                        if !body.security.as_mut().is_none_or(|security| security.tamper(&mut octets)) {
                            return;
                        }
                        out.extend(octets);
                    }
                    ServerOutput::Event(event) => {
                        if matches!(event, protocols::dlms::server::ServerEvent::Associated(_)) {
                            body.lock().unwrap().associations += 1;
                        }
                    }
                    ServerOutput::WaitUntil(_) => break,
                }
            }
        }
        if !out.is_empty() {
            tokio::time::sleep(LATENCY).await;
            if stream.write_all(&out).await.is_err() {
                return;
            }
        }
        let count = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        for (connection, body) in &mut connections {
            let input = LinkInput::Received(&buffer[..count]);
            if connection.handle(origin.elapsed(), input, &mut *body.lock().unwrap()).is_err() {
                return;
            }
        }
    }
}
