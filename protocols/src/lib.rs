//! Everything that Meterpost says on a wire, without doing any IO.
//!
//! Layers, lowest first; each may use those above it in this list:
//!
//! 1. [`bytes`]: a bounded reader and writer over slices.
//! 2. [`metering`]: the vocabulary that all of Meterpost shares: OBIS codes, quantities, series, readings, events, time.
//! 3. [`link`]: what a link layer promises the application layer above it.
//! 4. One folder per protocol: formats and, where a protocol has a conversation, client and server sessions.
//! 5. [`uplink`]: the only contract between gateway and cloud.
//!
//! Nothing here opens a socket or a file, asks a clock, draws a random number, or knows a runtime. A *session* owns all
//! protocol state and is driven by its owner: bytes and ticks go in through `handle(now, input)`, and `poll()` is drained
//! until it answers with the deadline at which it wants to be called again. Bytes from outside never panic; lengths that
//! a peer supplies are checked before anything is allocated for them.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod bytes;
pub mod cad;
#[cfg(test)]
mod captures;
pub mod cosem;
pub mod dlms;
pub mod hdlc;
pub mod iec62056_21;
pub mod link;
pub mod mbus;
pub mod metering;
pub mod p1;
pub mod sml;
pub mod uplink;
pub mod wrapper;
