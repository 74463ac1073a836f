//! What a meter reports that is no number.

use super::{MeterId, UtcMillis};

/// An entry of an event log, a status or alarm word that changed, or a text.
///
/// Identity: (meter, log, `at`, `nth`, `code`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event {
    pub meter: MeterId,
    /// Which log it stands in: an OBIS code (`0-0:99.98.0`), or a source's name for it.
    pub log: String,
    /// UTC; the meter's own stamp where it gives one.
    pub at: UtcMillis,
    /// Order among entries with the same stamp in the meter's own buffer.
    pub nth: u8,
    /// The meter's event code; 0 where it has none.
    pub code: i64,
    /// The value as delivered, undecoded.
    pub raw: Vec<u8>,
    /// For people; empty where there is nothing to say beyond the code.
    pub text: String,
}
