//! Reading a meter on a line: one session, from the first word to what goes into the outbox.
//!
//! [`session`] decides what is asked in which order, `backfill` what is read of what is missing; [`memory`] is what is known of a meter
//! between its sessions, [`moment`] when the gateway stamped what carries no time of its own,
//! [`unread`] which rows cannot be read.
//!
//! DLMS: [`talk`] drives the protocol over a link, [`introduction`] finds out who answers, `associated` decides what is asked,
//! [`columns`] makes readings and events of what a profile delivers, [`counters`] keeps those of secured conversations, [`clock_set`]
//! sets clocks.
//!
//! IEC 62056-21: [`call`] drives the protocol, [`called`] decides what is asked; cursors, backfill and what goes to the disk are as for
//! DLMS.
//!
//! M-Bus: [`bus`] drives the protocol, [`polled`] reads out. What becomes of a read-out is the same for both (`taken`), and so is the
//! link under them (`wire`).

mod associated;
mod backfill;
pub mod bus;
pub mod call;
pub mod called;
pub mod clock_set;
pub mod columns;
pub mod counters;
pub mod error;
pub mod introduction;
pub mod memory;
pub mod moment;
pub mod polled;
pub mod profile;
pub mod registers;
pub mod session;
mod taken;
pub mod talk;
pub mod unread;
mod wire;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
