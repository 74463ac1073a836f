//! DSMR P1: [`telegram`] says what is sent, [`port`](super::port) when and where.

mod gas;
pub mod telegram;

pub use super::port::{Schedule, Sending};
pub use gas::gas_meter_id;
pub use telegram::{Dsmr, P1Settings, TelegramFeed};

/// One meter's P1 port.
pub type P1Port = super::port::PushPort<TelegramFeed>;
