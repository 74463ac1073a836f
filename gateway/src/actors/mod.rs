//! The actors: thin shells around plain logic, one a file. Wiring is `supervisor.rs`, bottom-up.

pub mod feed;
pub mod forwarder;
pub mod line;
pub mod meter;
pub mod port;
pub mod supervisor;
