//! What receivers of the radio hand out, made into frames, and what makes them listen.
//!
//! | receiver | hands out | has to be told the mode |
//! | --- | --- | --- |
//! | [`Receiver::RtlWmbus`] | lines of `rtl_wmbus`, a frame in hexadecimal digits behind semicolons | no: it is chosen where it is started |
//! | [`Receiver::Hex`] | lines of hexadecimal digits, with CRCs or without | no |
//! | [`Receiver::Cul`] | lines of culfw: `b` and a frame of format A, `bY` and one of format B, LQI and RSSI behind it | yes |
//! | [`Receiver::Im871a`] | binary frames of the HCI of IMST, iM871A | yes |
//! | [`Receiver::Amb8465`] | binary command frames of Amber (Würth), AMB8465 | yes |
//!
//! None of these is standardised. The formats are as two programs have them that do not depend on each other: wmbusmeters
//! (`wmbus_rtlwmbus.cc`, `wmbus_cul.cc`, `wmbus_im871a.cc`, `wmbus_amb8465.cc`), and rtl-wmbus itself (its README and
//! `t1_c1_packet_decoder.h`) or ioBroker.wmbus (`lib/receiver`). AMB8465 without command frames (its UART_CMD_Out switched off)
//! has no check and is not read.

mod amb8465;
mod im871a;
mod lines;
#[cfg(test)]
mod tests;

use self::amb8465::Amb8465;
use self::lines::Lines;
use super::frame::{WirelessError, WirelessFrame};
use crate::metering::UtcMillis;

pub use self::lines::LINE_LEN_MAX;

/// Octets that wait for more, once everything was drained: an unfinished line is the longest.
pub const PENDING_MAX: usize = LINE_LEN_MAX;

/// Who hands frames out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Receiver {
    RtlWmbus,
    Hex,
    Cul,
    Im871a,
    Amb8465,
}

/// What is listened for (EN 13757-4, modes S, T and C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RadioMode {
    /// T and C at once: they share a frequency.
    #[default]
    CT,
    T,
    C,
    S,
}

/// What some octets were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reception {
    Frame {
        frame: WirelessFrame,
        /// Signal strength, where the receiver tells it in a way that is known.
        rssi_dbm: Option<i16>,
    },
    /// To be sent to the receiver.
    Send(Vec<u8>),
    Garbage(ReceiverError),
}

/// Why octets are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiverError {
    /// Something else than this receiver hands out.
    #[error("{octets} octets are nothing that the receiver hands out")]
    Noise { octets: usize },
    /// By its own word.
    #[error("the receiver heard a frame whose check is wrong")]
    Damaged,
    #[error("a line has no end within {} octets", LINE_LEN_MAX)]
    LineLength,
    /// Of the receiver's own frame, not of the one of the radio.
    #[error("a check of {stated:04x} is stated, the octets give {computed:04x}")]
    Checksum { stated: u16, computed: u16 },
    #[error(transparent)]
    Frame(#[from] WirelessError),
    /// AMB8465: it hands frames out bare, without a check.
    #[error("UART_CMD_Out of the receiver is switched off: it hands out frames that nothing checks")]
    CommandOutputOff,
}

/// A scan of the start of a buffer.
enum Step {
    NeedMore,
    Skip { skip: usize, reception: Option<Reception> },
}

/// Finds frames in what a receiver hands out, in pieces of any size.
///
/// ```text
/// send(start()); feed(octets); while let Some(reception) = next_reception() { .. }
/// after a while without octets: while let Some(garbage) = give_up() { while let Some(reception) = next_reception() { .. } }
/// ```
///
/// Drained like this it holds [`PENDING_MAX`] octets and what was fed last.
#[derive(Debug, Clone)]
pub struct Listener {
    receiver: Receiver,
    mode: RadioMode,
    buffer: Vec<u8>,
    lines: Lines,
    amb8465: Amb8465,
}

impl Listener {
    pub fn new(receiver: Receiver, mode: RadioMode) -> Self {
        Self { receiver, mode, buffer: Vec::new(), lines: Lines::default(), amb8465: Amb8465::default() }
    }

    /// The receiver was opened: what came before ends nowhere. What it has to be told to listen; nothing for some.
    pub fn start(&mut self) -> Vec<u8> {
        self.clear();
        match self.receiver {
            Receiver::RtlWmbus | Receiver::Hex => Vec::new(),
            Receiver::Cul => lines::cul_start(self.mode),
            Receiver::Im871a => im871a::start(self.mode),
            Receiver::Amb8465 => amb8465::start(self.mode),
        }
    }

    /// What came before ends nowhere.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.lines = Lines::default();
        self.amb8465 = Amb8465::default();
    }

    /// Takes what came.
    pub fn feed(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The next frame, or what else some octets were; `None`: feed more.
    pub fn next_reception(&mut self) -> Option<Reception> {
        loop {
            if let Some(reception) = self.lines.take_decoded() {
                return Some(reception);
            }
            let step = match self.receiver {
                Receiver::RtlWmbus | Receiver::Hex | Receiver::Cul => self.lines.scan(self.receiver, &self.buffer),
                Receiver::Im871a => im871a::scan(&self.buffer),
                Receiver::Amb8465 => self.amb8465.scan(&self.buffer),
            };
            let Step::Skip { skip, reception } = step else { return None };
            self.buffer.drain(..skip.min(self.buffer.len()));
            if reception.is_some() {
                return reception;
            }
        }
    }

    /// Nothing has come for so long that what waits for more is cut off. In what is left of it another frame may begin: ask for the next
    /// reception again. `None`: nothing waits.
    pub fn give_up(&mut self) -> Option<Reception> {
        let octets = match self.receiver {
            Receiver::RtlWmbus | Receiver::Hex | Receiver::Cul => self.buffer.len(),
            Receiver::Im871a | Receiver::Amb8465 => self.buffer.len().min(1),
        };
        self.buffer.drain(..octets);
        (octets > 0).then_some(Reception::Garbage(ReceiverError::Noise { octets }))
    }

    /// Octets that wait for more.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }
}

impl Receiver {
    /// A frame as this receiver hands it out that heard it at this instant. `None` when it is too long for L.
    pub fn hand_out(self, frame: &WirelessFrame, heard_at: UtcMillis) -> Option<Vec<u8>> {
        match self {
            Self::RtlWmbus => lines::rtl_wmbus_line(frame, heard_at),
            Self::Hex => lines::hex_line(frame),
            Self::Cul => lines::cul_line(frame),
            Self::Im871a => im871a::indication(frame),
            Self::Amb8465 => amb8465::indication(frame),
        }
    }
}

/// As CC1101 and the chips like it tell signal strength (its data sheet, 17.3).
fn rssi_dbm(raw: u8) -> i16 {
    i16::from(raw as i8) / 2 - 74
}
