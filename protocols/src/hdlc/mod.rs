//! HDLC for DLMS/COSEM: IEC 62056-46, frame format type 3, client and server side.
//!
//! [`frame`] finds and writes frames, [`control`] and [`address`] are their fields, [`fcs`] checks them. [`HdlcClient`] and
//! [`HdlcServer`] run the link of the two-way alternate normal response mode: the client polls, the server speaks only when
//! polled, and the answer ends with the final bit. [`PushListener`] takes pushes, which need no link.

pub mod address;
mod client;
mod config;
pub mod control;
mod echo;
pub mod fcs;
pub mod frame;
mod incoming;
mod parameters;
mod server;
mod transfer;
mod unnumbered;

#[cfg(test)]
pub(crate) mod pair;
#[cfg(test)]
mod tests;

pub use address::{AddressError, AddressForm, ClientAddress, HdlcAddress};
pub use client::HdlcClient;
pub use config::HdlcConfig;
pub use parameters::{LinkParameters, ParametersError};
pub use server::HdlcServer;
pub use unnumbered::{PushDropped, PushListener, UiReassembler, push_frames};
