//! Which meters share which line: opens the lines of a fleet, says where they are, and starts who speaks on them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::hdlc::HdlcAddress;
use protocols::mbus;
use protocols::metering::UtcMillis;
use protocols::p1::AUTHENTICATION_KEY;
use protocols::wrapper::ALL_STATION;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::d0::D0Feed;
use super::dlms::{DlmsAddress, DlmsLine, LineMeter, PUBLIC_CLIENT, READER_CLIENT};
use super::dlms_push::DlmsFeed;
use super::iec62056_21::{CalledLine, CalledMeter, device_address};
use super::line::{Listener, Medium};
use super::mbus::{BusLine, BusMeter, Model, RadioFeed};
use super::notify::caller::Caller;
use super::notify::{CallSettings, Notifier};
use super::p1::{TelegramFeed, gas_meter_id};
use super::port::{Feed, PushPort, Schedule};
use super::seal::{Seal, encryption_key};
use super::security::{Management, MeterSecurity};
use super::sml::{SmlFeed, sml_meter_id};
use super::{LinePlace, Place, Protocol};
use crate::config::{Group, LineMedium, LineSettings, MbusSettings, PushEvery};
use crate::pace::Pace;
use crate::rng::mix_below;
use crate::station::Station;
use crate::truth::Truth;

/// Nearly every meter has one logical device.
const LOGICAL_DEVICE: u16 = 1;
const FIRST_WPORT: u16 = 1;
/// The last physical address that fits an address of two octets and is not reserved.
const TWO_OCTETS_MAX: u16 = 125;
const PASSWORD_LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const PASSWORD_LENGTH: u64 = 12;

/// Why a line cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("line {line} cannot be opened")]
pub struct OpenError {
    pub line: String,
    #[source]
    pub source: io::Error,
}

/// One meter of a group.
pub struct Member {
    pub station: Arc<Station>,
    pub seed: u64,
}

/// What lines need of the fleet.
pub struct Surroundings {
    pub pace: Arc<Pace>,
    pub truth: Arc<Truth>,
    pub stopping: watch::Receiver<bool>,
}

/// Lines at work.
#[derive(Default)]
pub struct Lines {
    /// One for each member, in their order.
    pub places: Vec<Place>,
    /// Of those that have some, in their order.
    pub security: Vec<Arc<MeterSecurity>>,
    pub tasks: Vec<JoinHandle<()>>,
    pub links: Vec<PtyLink>,
}

/// A symbolic link to a pty; it goes when this is dropped.
#[derive(Debug)]
pub struct PtyLink(PathBuf);

impl Drop for PtyLink {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        drop(std::fs::remove_file(&self.0));
    }
}

impl Lines {
    /// Opens the lines of a group and starts them.
    pub async fn open(
        &mut self,
        group: &Group,
        settings: &LineSettings,
        members: Vec<Member>,
        around: &Surroundings,
    ) -> Result<(), OpenError> {
        if let Some(call) = settings.call {
            for member in members {
                let place = LinePlace { address: Some(call.to.to_string()), ..LinePlace::default() };
                self.start_calling(settings, call, member, (None, place), around);
            }
            return Ok(());
        }
        let mut members = members.into_iter().peekable();
        let mut index = 0;
        while members.peek().is_some() {
            let sharing: Vec<Member> = members.by_ref().take(settings.meters_per_line as usize).collect();
            let (listener, mut place) = self.listen(&settings.medium, index).await?;
            place.baud = settings.speed.map(|speed| speed.baud);
            self.start(group, settings, sharing, (listener, place), around);
            index += 1;
        }
        Ok(())
    }

    /// Starts the meters that share a line, of which `place` says what is known already.
    ///
    /// # Panics
    /// A port without a meter.
    pub fn start(
        &mut self,
        group: &Group,
        settings: &LineSettings,
        sharing: Vec<Member>,
        line: (Listener, LinePlace),
        around: &Surroundings,
    ) {
        if let Some(call) = settings.call {
            let (listener, place) = line;
            let member = sharing.into_iter().next().expect("a line that is opened has a meter");
            self.start_calling(settings, call, member, (Some(listener), place), around);
        } else if group.protocol.pushes_at_port() {
            let member = sharing.into_iter().next().expect("a line that is opened has a meter");
            self.start_pushing(group, settings, member, line, around);
        } else if group.protocol == Protocol::Iec62056_21 {
            self.start_called(group, settings, sharing, line, around);
        } else if group.protocol == Protocol::Mbus {
            self.start_polled(group, settings, sharing, line, around);
        } else {
            self.start_dlms(group, settings, sharing, line, around);
        }
    }

    async fn listen(&mut self, medium: &LineMedium, index: u32) -> Result<(Listener, LinePlace), OpenError> {
        let (medium, name, link) = match medium {
            LineMedium::Tcp(first) => {
                let port = if first.port() == 0 { 0 } else { u32::from(first.port()) + index };
                let port = u16::try_from(port).expect("the settings allow no more lines than ports");
                let address = SocketAddr::new(first.ip(), port);
                (Medium::Tcp(address), address.to_string(), None)
            }
            LineMedium::Pty { link } => {
                let link = link.as_ref().map(|link| numbered(link, index));
                (Medium::Pty, link.as_ref().map_or("(pty)".to_owned(), |link| link.display().to_string()), link)
            }
            LineMedium::Serial { path, baud } => {
                let path = path.display().to_string();
                (Medium::Serial { path: path.clone(), baud: *baud }, path, None)
            }
        };
        let failed = |source| OpenError { line: name.clone(), source };
        let listener = Listener::open(&medium).await.map_err(failed)?;
        let mut found = Some(listener.address().map_err(failed)?);
        if let (Some(link), Some(pty)) = (link, &found) {
            self.links.push(make_link(Path::new(pty), link.clone()).map_err(failed)?);
            found = Some(link.display().to_string());
        }
        let place = match medium {
            Medium::Tcp(_) => LinePlace { address: found, ..LinePlace::default() },
            Medium::Pty | Medium::Serial { .. } => LinePlace { path: found, ..LinePlace::default() },
        };
        Ok((listener, place))
    }

    /// A port with the feed of its protocol.
    fn start_pushing(
        &mut self,
        group: &Group,
        settings: &LineSettings,
        member: Member,
        (listener, mut place): (Listener, LinePlace),
        around: &Surroundings,
    ) {
        let (station, seed, faults) = (member.station.clone(), member.seed, group.faults);
        let start_at = around.pace.start_at();
        match group.protocol {
            Protocol::Sml => {
                place.identity = Some(sml_meter_id(station.id()).to_string());
                let feed = station.at(start_at, |meter| SmlFeed::new(meter, seed, settings.sml_time, faults));
                self.start_port(group, settings, member, feed, (listener, place), around);
            }
            Protocol::D0 => {
                let feed = station.at(start_at, |meter| D0Feed::new(meter, seed, settings.block_check, faults));
                self.start_port(group, settings, member, feed, (listener, place), around);
            }
            Protocol::DlmsPush => {
                let seal = settings.keys.as_ref().map(|keys| Seal::new(keys, None, station.id(), seed, &mut place));
                let feed = station.at(start_at, |meter| DlmsFeed::new(meter, seed, settings.framing, seal, faults));
                self.start_port(group, settings, member, feed, (listener, place), around);
            }
            Protocol::Wmbus => {
                let key = settings.keys.as_ref().map(|keys| encryption_key(keys, seed, &mut place));
                let key = key.map(|key| mbus::Key::try_from(&key).expect("the settings allow no other length"));
                let model = Model::new(station, around.truth.clone(), seed, settings.mbus.medium, key);
                place.identity = Some(model.meter_id().to_string());
                let feed = RadioFeed::new(model, settings.receiver, seed, faults);
                place.receiver = Some(feed.receiver_name());
                self.start_port(group, settings, member, feed, (listener, place), around);
            }
            _ => {
                place.gas_meter = settings.p1.has_gas.then(|| gas_meter_id(station.id()).to_string());
                let luxembourg = || Some(AUTHENTICATION_KEY.into());
                let keys = settings.keys.as_ref();
                let seal = keys.map(|keys| Seal::new(keys, luxembourg(), station.id(), seed, &mut place));
                let feed = station.at(start_at, |meter| TelegramFeed::new(meter, seed, settings.p1, seal, faults));
                self.start_port(group, settings, member, feed, (listener, place), around);
            }
        }
    }

    fn start_port(
        &mut self,
        group: &Group,
        settings: &LineSettings,
        Member { station, .. }: Member,
        feed: impl Feed + 'static,
        (listener, place): (Listener, LinePlace),
        around: &Surroundings,
    ) {
        self.places.push(Place::Line(place));
        let every_wall_ms = match group.push_every {
            PushEvery::WallMs(ms) => ms,
            PushEvery::MeterS(seconds) => seconds.saturating_mul(1000),
        };
        let port = PushPort {
            feed,
            station,
            truth: around.truth.clone(),
            schedule: Schedule::new(around.pace.clone(), every_wall_ms),
            listener,
            speed: settings.speed,
        };
        self.tasks.push(tokio::spawn(port.run(around.stopping.clone())));
    }

    /// A meter that has no line of ours: it goes to its listener, or to one in this process.
    fn start_calling(
        &mut self,
        settings: &LineSettings,
        call: CallSettings,
        Member { station, seed }: Member,
        (memory, mut place): (Option<Listener>, LinePlace),
        around: &Surroundings,
    ) {
        let seal = settings.keys.as_ref().map(|keys| Seal::new(keys, None, station.id(), seed, &mut place));
        let notifier = station.at(around.pace.start_at(), |meter| Notifier::new(meter, call.confirmed, seal));
        self.places.push(Place::Line(place));
        let caller = Caller::new(station, notifier, (around.truth.clone(), around.pace.clone()), call, memory);
        self.tasks.push(tokio::spawn(caller.run(around.stopping.clone())));
    }

    fn start_called(
        &mut self,
        group: &Group,
        settings: &LineSettings,
        sharing: Vec<Member>,
        (listener, place): (Listener, LinePlace),
        around: &Surroundings,
    ) {
        let seed = sharing.first().map_or(0, |member| member.seed);
        let (initial, offered) = settings.rates;
        let mut meters = Vec::with_capacity(sharing.len());
        for Member { station, seed } in sharing {
            let device_address = Some(device_address(&station).as_str().to_owned());
            let mut place = LinePlace { device_address, baud: Some(initial.bits_per_second()), ..place.clone() };
            let password = password(settings, seed, &mut place);
            meters.push(CalledMeter::new(station, initial, offered, &password));
            self.places.push(Place::Line(place));
        }
        let line = CalledLine { listener, meters, faults: group.faults, seed };
        self.tasks.push(tokio::spawn(line.run(around.stopping.clone())));
    }

    fn start_polled(
        &mut self,
        group: &Group,
        settings: &LineSettings,
        sharing: Vec<Member>,
        (listener, place): (Listener, LinePlace),
        around: &Surroundings,
    ) {
        let seed = sharing.first().map_or(0, |member| member.seed);
        let MbusSettings { medium, baud, primary_first } = settings.mbus;
        let mut meters = Vec::with_capacity(sharing.len());
        for (index, Member { station, seed }) in (0..).zip(sharing) {
            let primary = if primary_first > 0 { primary_first + index } else { 0 };
            let mut place = LinePlace { baud: Some(baud.bits_per_second()), ..place.clone() };
            let key = settings.keys.as_ref().map(|keys| encryption_key(keys, seed, &mut place));
            let key = key.map(|key| mbus::Key::try_from(&key).expect("the settings allow no other length"));
            let model = Model::new(station.clone(), around.truth.clone(), seed, medium, key);
            let address = model.address();
            place.primary_address = Some(primary);
            place.secondary_address = Some(mbus::Selection::from(address).to_string());
            place.identity = Some(model.meter_id().to_string());
            self.places.push(Place::Line(place));
            meters.push(BusMeter::new(station, mbus::SlaveConfig::new(primary, address, baud), model));
        }
        let (speed, faults, origin) = (settings.speed, group.faults, tokio::time::Instant::now());
        let line = BusLine { listener, meters, speed, faults, seed, origin };
        self.tasks.push(tokio::spawn(line.run(around.stopping.clone())));
    }

    fn start_dlms(
        &mut self,
        group: &Group,
        settings: &LineSettings,
        sharing: Vec<Member>,
        (listener, place): (Listener, LinePlace),
        around: &Surroundings,
    ) {
        let seed = sharing.first().map_or(0, |member| member.seed);
        let mut meters = Vec::with_capacity(sharing.len());
        for (index, member) in (0..).zip(sharing) {
            let place = place.clone();
            let (meter, place) = dlms_meter((group, settings), member, index, place, around.pace.wall());
            self.security.extend(meter.security.clone());
            meters.push(meter);
            self.places.push(Place::Line(place));
        }
        let line = DlmsLine { listener, meters, speed: settings.speed, faults: group.faults, seed };
        self.tasks.push(tokio::spawn(line.run(around.stopping.clone())));
    }
}

/// The `index`-th meter of a line: wPorts count from 1, physical addresses from the first that was set.
fn dlms_meter(
    (group, settings): (&Group, &LineSettings),
    Member { station, seed }: Member,
    index: u16,
    place: LinePlace,
    wall: UtcMillis,
) -> (LineMeter, LinePlace) {
    let mut place = LinePlace { client: Some(READER_CLIENT), public_client: Some(PUBLIC_CLIENT), ..place };
    let address = if group.protocol == Protocol::DlmsHdlc {
        let physical = settings.hdlc_address_first + index;
        (place.hdlc_address, place.logical_device) = (Some(physical), Some(LOGICAL_DEVICE));
        let two_octets = physical <= TWO_OCTETS_MAX;
        let address = if two_octets { HdlcAddress::two } else { HdlcAddress::four }(LOGICAL_DEVICE, physical);
        let address = address.expect("the settings allow no other physical addresses");
        DlmsAddress::Hdlc { address, information_octets_max: settings.hdlc_information_octets_max }
    } else {
        let wport = FIRST_WPORT + index;
        let wport = if wport < ALL_STATION { wport } else { wport + 1 };
        place.wport = Some(wport);
        DlmsAddress::Wport(wport)
    };
    let password = password(settings, seed, &mut place);
    let meter = LineMeter::new(station, address, &password, group.quirks).referenced_by(settings.referencing);
    let Some(security) = settings.security else {
        let (management, told) = Management::new(seed);
        place.management_password = Some(told);
        return (meter.managed(management), place);
    };
    let (security, told) = MeterSecurity::new(security, meter.station.id(), seed, &password, group.faults, wall);
    place.security = Some(told);
    (meter.secured(security), place)
}

/// The password of a meter; its place says which, or where it stands.
fn password(settings: &LineSettings, seed: u64, place: &mut LinePlace) -> String {
    if let Some((path, secret)) = &settings.password {
        place.password_file = Some(path.display().to_string());
        return secret.0.clone();
    }
    let password = password_of(seed);
    place.password = Some(password.clone());
    password
}

/// The password that a meter has when nobody set one.
fn password_of(seed: u64) -> String {
    let letter = |place| PASSWORD_LETTERS[mix_below(seed, &[0x9a55, place], PASSWORD_LETTERS.len() as u64) as usize];
    (0..PASSWORD_LENGTH).map(|place| char::from(letter(place))).collect()
}

/// The path for the `index`-th line of a group.
fn numbered(link: &Path, index: u32) -> PathBuf {
    if index == 0 {
        return link.to_owned();
    }
    let mut name = link.as_os_str().to_owned();
    name.push(format!("-{}", index + 1));
    name.into()
}

/// Links to a pty; a link that an earlier run left is replaced, anything else is not.
fn make_link(pty: &Path, link: PathBuf) -> io::Result<PtyLink> {
    if std::fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink()) {
        std::fs::remove_file(&link)?;
    }
    std::os::unix::fs::symlink(pty, &link)?;
    Ok(PtyLink(link))
}
