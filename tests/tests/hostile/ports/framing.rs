//! What pushes at ports are wrapped in: how telegrams are cut out of a stream, and made again of what is inside.

use std::time::Duration;

use protocols::hdlc::{HdlcAddress, UiReassembler, frame, push_frames};
use protocols::iec62056_21::{PushScan, scan_push};
use protocols::mbus::{self, DlmsApdu, Frame, Quirks, Reassembler, encode_segments};
use protocols::p1::{CipheredScan, scan_ciphered};
use protocols::sml;

/// What a port speaks, and in which frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Sml,
    D0,
    /// DLMS, sealed.
    Hdlc,
    /// The same in long frames of M-Bus.
    Mbus,
    /// Sealed.
    P1,
}

/// CI of the last segment.
const FIN: u8 = 0x10;
const APDU_OCTETS_MAX: usize = 64 * 1024;
/// As the simulator has it.
const INFORMATION_MAX: u16 = 1_024;

impl Framing {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sml => "sml",
            Self::D0 => "d0",
            Self::Hdlc => "dlms-hdlc",
            Self::Mbus => "dlms-mbus",
            Self::P1 => "p1-sealed",
        }
    }

    pub(super) const fn is_sealed(self) -> bool {
        matches!(self, Self::Hdlc | Self::Mbus | Self::P1)
    }

    /// Of a port's section.
    pub(super) fn settings(self) -> &'static str {
        match self {
            Self::Sml => "protocol = \"sml\"\n",
            Self::D0 => "protocol = \"d0\"\n",
            Self::Hdlc => "protocol = \"dlms\"\nframing = \"hdlc\"\n",
            Self::Mbus => "protocol = \"dlms\"\nframing = \"mbus\"\n",
            Self::P1 => "protocol = \"p1\"\n",
        }
    }

    /// The simulator's group of one such meter.
    pub(super) fn group(self) -> String {
        let kind = match self {
            Self::Sml => "protocol = \"sml\"\n",
            // A reader stamps by arrival: two of one second would be one.
            Self::D0 => "protocol = \"d0\"\ninterval_ms = 2000\n",
            Self::Hdlc => "protocol = \"dlms-push\"\nframing = \"hdlc\"\nencrypted = true\n",
            Self::Mbus => "protocol = \"dlms-push\"\nframing = \"mbus\"\nencrypted = true\n",
            Self::P1 => "protocol = \"p1\"\nencrypted = true\n",
        };
        // Numbers go on from group to group, from here on.
        let first = if matches!(self, Self::Sml | Self::Hdlc) { "first_number = 101\n" } else { "" };
        format!("[[meters]]\ncount = 1\n{first}listen = \"127.0.0.1:0\"\n{kind}")
    }

    /// State of the port while nothing good comes, and what its cause says.
    pub(super) fn verdict(self) -> (&'static str, &'static str) {
        match self {
            Self::Sml | Self::D0 => ("silent", "no telegram with a right CRC for 5 s"),
            Self::Hdlc | Self::Mbus | Self::P1 => ("refusing", "the telegrams cannot be verified"),
        }
    }

    /// Octets of the first whole telegram, where there is one, with what stands before it.
    pub(super) fn telegram_in(self, octets: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let rest = &octets[at..];
            let (used, is_last) = match self {
                Self::Sml => match sml::scan(rest) {
                    sml::Scan::NeedMore => return None,
                    sml::Scan::Garbage { skip, .. } => (skip, false),
                    sml::Scan::File { used, .. } => (used, true),
                },
                Self::D0 => match scan_push(rest) {
                    PushScan::NeedMore => return None,
                    PushScan::Garbage { skip, .. } => (skip, false),
                    PushScan::Push { used, .. } => (used, true),
                },
                Self::Hdlc => match frame::scan(rest) {
                    frame::Scan::NeedMore => return None,
                    frame::Scan::Garbage { skip, .. } => (skip, false),
                    // The closing flag with it.
                    frame::Scan::Frame { frame, used } => (used + 1, !frame.segmented),
                },
                Self::Mbus => match mbus::scan(rest, Quirks::default()) {
                    mbus::Scan::NeedMore => return None,
                    mbus::Scan::Garbage { skip, .. } => (skip, false),
                    mbus::Scan::Frame { frame, used } => {
                        (used, matches!(frame, Frame::Long { ci, .. } if ci & FIN != 0))
                    }
                },
                Self::P1 => match scan_ciphered(rest) {
                    CipheredScan::NeedMore => return None,
                    CipheredScan::Garbage { skip, .. } => (skip, false),
                    CipheredScan::Block { apdu } => (apdu.len(), true),
                },
            };
            at += used;
            if is_last {
                return Some(at);
            }
        }
    }

    /// What a sealed telegram carries.
    pub(super) fn apdu(self, telegram: &[u8]) -> Vec<u8> {
        let mut rest = telegram;
        match self {
            Self::Hdlc => {
                let mut reassembler = UiReassembler::new(APDU_OCTETS_MAX, Duration::ZERO);
                loop {
                    let frame::Scan::Frame { frame, used } = frame::scan(rest) else { panic!("no push: {rest:02x?}") };
                    if let Some(apdu) = reassembler.accept(Duration::ZERO, &frame) {
                        return apdu;
                    }
                    rest = &rest[used..];
                }
            }
            Self::Mbus => {
                let mut reassembler = Reassembler::default();
                loop {
                    let scan = mbus::scan(rest, Quirks::default());
                    let mbus::Scan::Frame { frame, used } = scan else { panic!("no push: {rest:02x?}") };
                    if let Some(whole) = reassembler.take(frame).unwrap() {
                        return whole.apdu;
                    }
                    rest = &rest[used..];
                }
            }
            Self::Sml | Self::D0 | Self::P1 => telegram.to_vec(),
        }
    }

    /// An APDU as the meter would send it.
    pub(super) fn framed(self, apdu: &[u8]) -> Vec<u8> {
        match self {
            Self::Hdlc => push_frames(address(16), address(1), apdu, INFORMATION_MAX),
            Self::Mbus => {
                let whole = DlmsApdu { address: mbus::BROADCAST, source: 1, destination: 0x67, apdu: apdu.to_vec() };
                encode_segments(&whole, mbus::control::SND_UD).unwrap()
            }
            Self::Sml | Self::D0 | Self::P1 => apdu.to_vec(),
        }
    }

    /// A telegram whose check is wrong: that of its last frame, where it is of frames.
    pub(super) fn spoiled(self, telegram: &[u8]) -> Vec<u8> {
        let mut spoiled = telegram.to_vec();
        let behind = if matches!(self, Self::Hdlc | Self::Mbus) { 2 } else { 1 };
        let at = spoiled.len() - behind;
        spoiled[at] ^= 1;
        spoiled
    }
}

pub(super) fn address(of: u16) -> HdlcAddress {
    HdlcAddress::one(of).unwrap()
}
