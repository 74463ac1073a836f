//! The head-end: takes what gateways send, and delivers each reading once to log, store and archive.

pub mod archive;
pub mod embedded;
pub mod log;
#[cfg(test)]
mod memory;
pub mod store;
