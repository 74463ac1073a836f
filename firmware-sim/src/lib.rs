//! Virtual meters that speak real bytes.
//!
//! Layers, lowest first; each may use those above it in this list:
//!
//! 1. [`rng`], [`nearest`]: seeded randomness and the nearest known name.
//! 2. The meter core, deterministic and without IO: [`clock`], [`registers`], [`profile`], [`event_log`], [`image`], [`calendar`], [`quirks`],
//!    [`faults`], [`consumption`] with [`replay`], and [`meter`], which steps them all by time.
//! 3. [`pace`]: world time from the wall clock. [`truth`]: every reading that others must find. [`station`]: a meter with
//!    both.
//! 4. [`speak`]: one personality per protocol, and the line or broker that carries it.
//! 5. [`config`], [`fleet`]: settings, and the meters made from them. [`steward`] steps them when something is due, [`run`]
//!    starts and stops it all, [`cli`] is what can be asked on the command line.

pub mod calendar;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consumption;
pub mod event_log;
pub mod faults;
pub mod fleet;
pub mod image;
pub mod meter;
pub mod nearest;
pub mod pace;
pub mod profile;
pub mod quirks;
pub mod registers;
pub mod replay;
pub mod rng;
pub mod run;
pub mod speak;
pub mod station;
pub mod steward;
pub mod truth;
