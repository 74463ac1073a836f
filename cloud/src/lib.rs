//! The head-end: takes what gateways send, and delivers each reading once to log, store and archive.

pub mod embedded;
pub mod log;
pub mod store;
