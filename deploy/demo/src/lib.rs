//! The whole system on one machine, as processes that can be killed: for the demo and for the kill tests.
//!
//! [`stage`] starts broker, cloud, gateway and simulator with their real binaries; [`proxy`] stands between gateway and
//! cloud and can be torn or stalled; [`verdict`] compares what the simulator captured with what arrived.

pub mod broker;
pub mod meters;
pub mod process;
pub mod proxy;
pub mod show;
pub mod sinks;
pub mod stage;
pub mod verdict;
