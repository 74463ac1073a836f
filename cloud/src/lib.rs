//! The head-end: takes in what gateways send, commits it once, archives it, shows it.

pub mod backoff;
pub mod clock;
pub mod ledger;
pub mod log;
pub mod payloads;
pub mod store;
#[cfg(test)]
mod testing;
