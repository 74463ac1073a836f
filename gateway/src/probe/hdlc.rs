//! DLMS meters that answer in HDLC frames.

use std::time::Duration;

use protocols::hdlc::control::Control;
use protocols::hdlc::frame::{Frame, Scan, scan};
use protocols::hdlc::{AddressError, AddressForm, ClientAddress, HdlcAddress};

use super::{Probe, ProbeError, Rate, Section};
use crate::config::metering::Parity;
use crate::link::ByteLink;

/// Rates of optical ports and RS-485, most frequent first.
pub(super) const RATES: [Rate; 8] = [
    Rate::new(9_600, 8, Parity::None),
    Rate::new(9_600, 8, Parity::Even),
    Rate::new(19_200, 8, Parity::None),
    Rate::new(2_400, 8, Parity::None),
    Rate::new(38_400, 8, Parity::None),
    Rate::new(115_200, 8, Parity::None),
    Rate::new(4_800, 8, Parity::None),
    Rate::new(300, 8, Parity::None),
];
/// The public client, management, and the reader of many meters.
pub(super) const CLIENTS: [u8; 3] = [16, 1, 32];
/// Usual addresses of meters: logical device 1, and the physical device that whoever is called answers to (IEC 62056-46, 6.4.2.3)
/// in both forms.
pub(super) const SERVERS: [Result<HdlcAddress, AddressError>; 5] = [
    HdlcAddress::two(1, 17),
    HdlcAddress::one(1),
    HdlcAddress::two(1, 0x7e),
    HdlcAddress::two(1, 16),
    HdlcAddress::four(1, 0x3ffe),
];
/// Of SNRM and UA with all parameters.
const FRAME_OCTETS: u32 = 64;

impl Probe<'_> {
    pub(super) async fn hdlc(&mut self, rate: Option<Rate>) -> Result<Option<Section>, ProbeError> {
        let rate = rate.unwrap_or(RATES[0]);
        let mut link = self.open(rate).await?;
        let patience = self.times.frame + Duration::from_micros(11_000_000 / u64::from(rate.baud)) * FRAME_OCTETS;
        let mut refused = None;
        for client in CLIENTS {
            let client = ClientAddress::new(client).expect("the clients fit an octet");
            for server in SERVERS {
                let server = server.expect("the servers fit their forms");
                let found = self.connect(&mut *link, client, server, patience).await;
                let Some((address, is_let_in)) = found else { continue };
                let section = section(self, rate, client, address);
                if is_let_in {
                    drop(link);
                    return Ok(Some(self.introduced(section, rate).await?));
                }
                // Another client may be let in.
                refused.get_or_insert(section);
                break;
            }
        }
        drop(link);
        match refused {
            Some(section) => Ok(Some(self.introduced(section, rate).await?)),
            None => Ok(None),
        }
    }

    /// The address under which a meter answers an SNRM, and whether it lets the client in; it is told to forget it at once.
    async fn connect(
        &self,
        link: &mut dyn ByteLink,
        client: ClientAddress,
        server: HdlcAddress,
        patience: Duration,
    ) -> Option<(HdlcAddress, bool)> {
        let until = self.until(patience);
        link.clear_input().ok()?;
        link.send(&command(client, server, Control::Snrm)).await.ok()?;
        let (mut heard, mut octets) = (Vec::new(), [0; 256]);
        while let Ok(Ok(count)) = tokio::time::timeout_at(until, link.receive(&mut octets)).await {
            heard.extend_from_slice(&octets[..count]);
            if let Some((address, is_let_in)) = answers(&heard, client) {
                // A meter that does not hear it drops the link after a while.
                drop(link.send(&command(client, address, Control::Disc)).await);
                let quiet = self.until(patience);
                while tokio::time::timeout_at(quiet, link.receive(&mut octets)).await.is_ok_and(|more| more.is_ok()) {}
                return Some((address, is_let_in));
            }
        }
        None
    }
}

fn command(client: ClientAddress, server: HdlcAddress, control: Control) -> Vec<u8> {
    let mut octets = Vec::new();
    let control = control.encode(true);
    let frame = Frame { segmented: false, destination: server, source: client.into(), control, information: &[] };
    frame.encode(&mut octets);
    octets
}

/// Who answers this client, and whether by UA: an echo of the question is addressed to the server.
fn answers(mut heard: &[u8], client: ClientAddress) -> Option<(HdlcAddress, bool)> {
    loop {
        match scan(heard) {
            Scan::NeedMore => return None,
            Scan::Garbage { skip, .. } => heard = &heard[skip..],
            Scan::Frame { frame, used } => {
                let is_let_in = match frame.control() {
                    Some(Control::Ua) => Some(true),
                    Some(Control::Dm | Control::Frmr) => Some(false),
                    _ => None,
                };
                if let Some(is_let_in) = is_let_in.filter(|_| frame.destination.client() == Some(client)) {
                    return Some((frame.source, is_let_in));
                }
                heard = &heard[used..];
            }
        }
    }
}

fn section(probe: &Probe<'_>, rate: Rate, client: ClientAddress, server: HdlcAddress) -> Section {
    let section = Section::meter(probe.target, rate, "dlms-hdlc")
        .with("client", i64::from(client.value()))
        .with("server", i64::from(server.upper()));
    let octets = match server.form() {
        AddressForm::One => return section,
        AddressForm::Two => 2,
        AddressForm::Four => 4,
    };
    section.with("physical", i64::from(server.lower().unwrap_or(0))).with("address_octets", octets)
}
