//! The head-end: takes in what gateways send, and delivers each reading once to log, store and archive.

pub mod actors;
pub mod api;
pub mod archive;
pub mod audit;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod completeness;
pub mod config;
pub mod dashboard;
pub mod embedded;
pub mod engines;
pub mod health;
pub mod http;
pub mod intake;
pub mod ledger;
pub mod log;
#[cfg(test)]
mod memory;
pub mod mqtt;
pub mod objects;
pub mod offload;
pub mod payloads;
pub mod rebuild;
pub mod rebuild_store;
pub mod receipt_queue;
pub mod roles;
pub mod run;
pub mod seen;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod worker;
