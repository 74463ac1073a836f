//! The only contract between gateway and cloud.
//!
//! The gateway seals readings into a [`Batch`], uploads its bytes as a [`Payload`], and publishes a [`BatchRef`] (the claim
//! check). The cloud answers with a [`Receipt`] once the batch is in store and log. [`Status`] tells the cloud what the
//! gateway ever sealed, so that what the cloud forgot, or the gateway lost, is seen.
//!
//! Beside it the gateway asks, by HTTP and in JSON, for the cloud's time and for the ranges of a series that the cloud holds
//! ([`topics::held_path`]): so a gateway that has lost its outbox reads from its meters only what is nowhere else.
//!
//! Every message is a CBOR array, specified in `uplink.cddl` beside this file; its first element is the version. A reader
//! ignores elements it does not know at the end of an array; a message of a greater version than [`VERSION`] is
//! [`DecodeError::Newer`], which the cloud answers with `later`. Encoding is deterministic: the same value, the same bytes.

mod batch;
mod books;
#[cfg(test)]
mod cddl_tests;
mod column;
mod ids;
mod inventory;
#[cfg(test)]
mod limit_tests;
pub mod limits;
#[cfg(test)]
mod message_tests;
mod payload;
mod receipt;
mod reference;
mod seqs;
mod status;
pub mod topics;
mod wire;

pub use batch::{Batch, BatchEvent, BlockRow, SeriesBlock};
pub use books::{Books, DayBooks, SeriesKey, SetHash};
pub use ids::{BatchId, GatewayId, GatewayIdError, Sha256};
pub use inventory::{ExpectedSeries, Inventory, MeterEntry, MeterState};
pub use payload::{Payload, PayloadError};
pub use receipt::{Receipt, RefusedSeq};
pub use reference::BatchRef;
pub use seqs::SeqSet;
pub use status::{IncarnationStatus, Status};
pub use wire::DecodeError;

/// The version written into every message. It grows when a reader of the previous one would misunderstand the new one.
pub const VERSION: u32 = 1;
