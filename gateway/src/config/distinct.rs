//! Whether two sections mean the same thing: one medium under two names, one meter under two addresses.
//!
//! Two sections for one port would take it from each other; two for one meter would move its cursors against each other. What
//! cannot be seen here: two host names of one machine, and who answers at an address, which the identity check sees.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use protocols::hdlc::HdlcAddress;
use protocols::iec62056_21::DeviceAddress;
use protocols::mbus::{ANYBODY, Target};

use super::metering::{Addressing, MediumSettings, Transport};

/// A medium, whatever it is called.
#[derive(Debug, PartialEq, Eq, Hash)]
enum MediumKey {
    Serial(PathBuf),
    Device(Transport, String, u16),
    Own(Transport, SocketAddr),
}

impl MediumKey {
    fn of(medium: &MediumSettings) -> Self {
        match medium {
            MediumSettings::Serial { path, .. } => Self::Serial(real_path(path)),
            MediumSettings::Tcp { address, .. } => Self::device(Transport::Tcp, address),
            MediumSettings::Udp { address } => Self::device(Transport::Udp, address),
            MediumSettings::Listen { address, transport } => Self::Own(*transport, *address),
        }
    }

    fn device(transport: Transport, address: &str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        Self::Device(transport, real_host(host), port.parse().unwrap_or(0))
    }
}

/// Stable names are symbolic links; one that is not plugged in leads nowhere.
fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Names are not looked up: settings hold or do not hold without a network.
fn real_host(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let host = if host == "localhost" { "127.0.0.1".to_owned() } else { host };
    host.parse::<IpAddr>().map_or(host, |address| address.to_canonical().to_string())
}

/// The media of lines and ports.
#[derive(Debug, Default)]
pub(super) struct Media {
    known: HashMap<MediumKey, (String, String)>,
}

impl Media {
    /// Notes that a section (`line "a"`) has this medium; what is wrong with that, when another has it.
    pub(super) fn claim(&mut self, section: &str, medium: &MediumSettings) -> Result<(), String> {
        let what = medium.to_string();
        let noun = if matches!(medium, MediumSettings::Serial { .. }) { "port" } else { "endpoint" };
        match self.known.insert(MediumKey::of(medium), (section.to_owned(), what.clone())) {
            None => Ok(()),
            Some((other, its)) if its == what => Err(format!("{what} is the {noun} of {other} already")),
            Some((other, its)) => {
                Err(format!("{what} is {its} by another name, which is the {noun} of {other} already"))
            }
        }
    }
}

/// The addresses of the meters on one line.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    wrapper: HashMap<u16, (String, Addressing)>,
    /// A line has hundreds of meters at the most: each is compared with each.
    hdlc: Vec<(String, Addressing, HdlcAddress)>,
    called: Vec<(String, DeviceAddress)>,
    polled: Vec<(String, Target)>,
}

/// A meter that another section reaches, too: its name, what is wrong, what to do.
pub(super) struct Taken {
    pub(super) message: String,
    pub(super) hint: &'static str,
}

impl Addresses {
    /// Notes that a meter has this address.
    pub(super) fn claim(&mut self, name: &str, addressing: &Addressing) -> Result<(), Taken> {
        match addressing {
            Addressing::Wrapper { server, .. } => {
                let before = self.wrapper.insert(*server, (name.to_owned(), addressing.clone()));
                before.map_or(Ok(()), |(other, its)| Err(same_device(&other, its == *addressing)))
            }
            Addressing::Hdlc { server, .. } => {
                let taken = self.hdlc.iter().find_map(|(other, its, address)| {
                    let is_same = its == addressing;
                    clash(*server, *address).map(|clash| clash.told(other, *address, *server, is_same))
                });
                self.hdlc.push((name.to_owned(), addressing.clone(), *server));
                taken.map_or(Ok(()), Err)
            }
            Addressing::Iec62056_21(call) => {
                let own = &call.client.address;
                let calls = |one: &DeviceAddress, other: &DeviceAddress| one.is_called_by(other.as_str().as_bytes());
                let taken = self.called.iter().find(|(_, its)| calls(its, own) || calls(own, its));
                let taken = taken.map(|(other, its)| called_together(other, its, own));
                self.called.push((name.to_owned(), own.clone()));
                taken.map_or(Ok(()), Err)
            }
            Addressing::Mbus(bus) => {
                let taken = self.polled.iter().find_map(|(other, its)| polled_together(other, *its, bus.target));
                self.polled.push((name.to_owned(), bus.target));
                taken.map_or(Ok(()), Err)
            }
        }
    }
}

/// Whether a primary and a secondary address are those of one meter, only the meter knows.
fn polled_together(other: &str, its: Target, own: Target) -> Option<Taken> {
    let message = match (its, own) {
        (Target::Primary(ANYBODY), _) | (_, Target::Primary(ANYBODY)) => {
            format!("meter {other:?} answers too where one has the address 254")
        }
        (Target::Primary(its), Target::Primary(own)) if its == own => format!("meter {other:?} has the same address"),
        (Target::Secondary(its), Target::Secondary(own)) if its.overlaps(own) => {
            format!("meter {other:?} may be selected by both {its} and {own}")
        }
        _ => return None,
    };
    Some(Taken { message, hint: "give each its own address" })
}

fn same_device(other: &str, is_same_client: bool) -> Taken {
    if is_same_client {
        let hint = "give each its own server (and physical) address";
        return Taken { message: format!("meter {other:?} has the same address"), hint };
    }
    let message = format!("meter {other:?} is the same device, read as another client");
    Taken { message, hint: "a meter has one section: read all of it as the client that may read all" }
}

/// Leading zeros say nothing, and without an address everybody is called.
fn called_together(other: &str, its: &DeviceAddress, own: &DeviceAddress) -> Taken {
    let (its, own) = (its.as_str(), own.as_str());
    let message = if its.is_empty() || own.is_empty() {
        format!("meter {other:?} answers too when one is called without an address")
    } else {
        format!("meter {other:?} has the same address, {its}, which is {own}")
    };
    Taken { message, hint: "give each its own address" }
}

/// How two HDLC addresses reach one device.
enum Clash {
    Same,
    /// One leaves the physical device out.
    Shorter,
    Broadcast,
}

fn clash(one: HdlcAddress, other: HdlcAddress) -> Option<Clash> {
    if one.is_broadcast_to(other) || other.is_broadcast_to(one) {
        return Some(Clash::Broadcast);
    }
    if !one.is_same_device(other) {
        return None;
    }
    Some(if one.lower().is_some() == other.lower().is_some() { Clash::Same } else { Clash::Shorter })
}

impl Clash {
    fn told(&self, other: &str, its: HdlcAddress, own: HdlcAddress, is_same: bool) -> Taken {
        match self {
            // In another form it is the same device all the same.
            Self::Same if its != own => {
                let message = format!("meter {other:?} has the same address, {its}, which is {own} in another form");
                Taken { message, hint: "give each its own server (and physical) address" }
            }
            Self::Same => same_device(other, is_same),
            Self::Shorter => Taken {
                message: format!("the addresses {own} and {its} of meter {other:?} reach the same device"),
                hint: "set physical for both: an address without it is that of every meter on the line",
            },
            Self::Broadcast => Taken {
                message: format!("of the addresses {own} and {its} of meter {other:?} one is that of all meters"),
                hint: "127 (16383 in 4 octets) is no address of one meter among others: give each its own",
            },
        }
    }
}
