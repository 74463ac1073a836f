//! The vocabulary of metering, one concept per file.
//!
//! A *series* is (meter, code, kind, period); a *reading* is one value of one series at one instant. The identity of a
//! reading, everywhere and for ever, is (series, `captured_at`, `nth`).

mod event;
mod meter_id;
mod obis;
mod quality;
mod quantity;
mod reading;
mod series;
mod telegram;
mod time;

pub use event::Event;
pub use meter_id::{MeterId, MeterIdError};
pub use obis::{ObisCode, ObisError};
pub use quality::{Quality, StatusBits};
pub use quantity::{Quantity, QuantityError, Unit};
pub use reading::{Reading, StampedBy};
pub use series::{Code, CodeError, Kind, Series};
pub use telegram::TelegramReading;
pub(crate) use telegram::prefixed_unit;
pub use time::{Day, TimeError, UtcMillis};
