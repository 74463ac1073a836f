//! The head-end: takes in what gateways send, commits it once, archives it, shows it.

pub mod backoff;
pub mod clock;
pub mod health;
pub mod ledger;
pub mod log;
pub mod payloads;
pub mod receipt_queue;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod worker;
