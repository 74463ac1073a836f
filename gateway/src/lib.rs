//! The edge of Meterpost: reads meters, keeps every reading in its outbox, forwards sealed batches to the cloud.
//!
//! Layers: `main` → `actors` → plain logic ([`outbox`], ...) → `protocols`. Plain logic never imports actors.

pub mod clock;
pub mod outbox;
