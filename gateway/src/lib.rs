//! The edge of Meterpost: reads meters, keeps every reading in its outbox, forwards sealed batches to the cloud.
//!
//! Layers: `main` → [`actors`] → plain logic ([`outbox`], [`window`], [`agenda`], [`reading`], [`push`], ...) → `protocols`. Plain logic never imports actors.

pub mod actors;
pub mod agenda;
pub mod backoff;
pub mod cad;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod held;
pub mod http;
pub mod inventory;
pub mod link;
pub mod mqtt;
pub mod outbox;
pub mod probe;
pub mod push;
pub mod reading;
pub mod recurring;
pub mod run;
pub mod telemetry;
pub mod trust;
pub mod uploader;
pub mod window;
