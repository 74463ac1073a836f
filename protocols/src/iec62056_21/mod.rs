//! IEC 62056-21 (once IEC 1107): the optical head and its relatives, read-outs, programming mode, profiles, and D0 pushes.
//!
//! [`Client`] calls a meter, changes the rate, reads out or asks for single registers and profiles, or leaves the line to HDLC
//! (mode E). [`scan_push`] finds what meters send unasked. Both give a [`DataBlock`], data lines as they stand, and what those
//! mean is told by [`Readout`] (one meter's registers, maxima, billing values, events), [`Profile`] (`P.01`) and [`LogBook`]
//! (`P.98`). [`Server`], [`LinesBuilder`] and [`encode_push`] are the simulator's end.
//!
//! The port is the owner's: a session says how to set it ([`LineSettings`]) and when. Where a port cannot do 7E1, it stays 8N1 and
//! parity is checked here ([`MaskedParity`]).

mod address;
mod build;
mod client;
mod config;
mod context;
mod echo;
mod identification;
mod incoming;
mod line;
mod log;
mod message;
#[cfg(test)]
mod pair;
mod port;
mod profile;
mod push;
mod quirks;
mod readout;
mod request;
mod server;
mod session;
mod stamp;
#[cfg(test)]
mod tests;
mod timeline;
mod value;
mod walk;

pub use crate::p1::{BuildError, Layout, LocalTime, Resolved};
pub use address::{Address, ObisAddress};
pub use build::{LinesBuilder, ProfileHeader};
pub use client::Client;
pub use config::{ADDRESS_LEN_MAX, AddressError, ClientConfig, ClientQuirks, DeviceAddress};
pub(crate) use echo::EchoFilter;
pub use identification::{Identification, MODEL_LEN_MAX, Mode};
pub use line::{DataSet, DataSets, LineError, LineProblem};
pub use log::LogBook;
pub use message::{
    Bcc, Block, Command, Expectation, LINE_LEN_MAX, Message, MessageError, OptionSelect, Scan, bcc, encode_block,
    encode_command, scan,
};
pub use port::{Baud, Framing, LineSettings, MaskedParity, SUBSTITUTE};
pub use profile::{CHANNELS_MAX, Profile};
pub use push::{PUSH_LEN_MAX, Push, PushError, PushScan, encode_checked_push, encode_push, scan_push};
pub use quirks::{IdentityLine, ProfileLabel, ReadQuirks, Settings};
pub use readout::{Readout, ReadoutError};
pub use request::{ARGUMENT_LEN_MAX, Password, PasswordError, ReadLevel, ReadRequest, RequestError};
pub use server::{MeterData, Server, ServerConfig, ServerEvent};
pub use session::{ClientEvent, DataBlock, Goal, Input, Output, SessionError};
pub use stamp::{MeterClock, Stamp, StampForm};
