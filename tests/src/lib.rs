//! Tests of the whole system; see `tests/` beside this folder. What they share lives here.

pub mod checkers;
pub mod cluster;
pub mod hostile;
pub mod household;
pub mod listeners;
pub mod measure;
pub mod outbox_file;
pub mod power_loss;
pub mod random;
pub mod services;
pub mod small_disk;
pub mod system;
pub mod world;
