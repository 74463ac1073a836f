//! When what had begun at a port does not go on any more.

use std::time::Duration;

use protocols::metering::UtcMillis;

/// Since when nothing has come.
#[derive(Debug, Default)]
pub(super) struct Pause {
    heard_at: Option<UtcMillis>,
}

impl Pause {
    /// Whether nothing came for so long before `octets`, which came now: what was begun is cut off.
    pub(super) fn cuts(&mut self, longest: Duration, octets: &[u8], received_at: UtcMillis) -> bool {
        let is_over = self.heard_at.is_some_and(|at| received_at.since(at) >= longest.as_millis() as i64);
        if !octets.is_empty() {
            self.heard_at = Some(received_at);
        }
        is_over
    }
}
