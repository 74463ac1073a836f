//! Reading a DLMS meter: one session, from the association to what goes into the outbox.
//!
//! [`talk`] drives the protocol over a link, [`session`] decides what is asked in which order, `backfill` what is read of what is
//! missing, [`introduction`] who answers, [`columns`] makes readings and
//! events of what a profile delivers, [`memory`] is what is known of a meter between its sessions.

mod backfill;
pub mod columns;
pub mod introduction;
pub mod memory;
pub mod profile;
pub mod registers;
pub mod session;
pub mod talk;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod tests;
