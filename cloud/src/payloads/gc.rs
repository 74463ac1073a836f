//! Which payloads of the landing area may go, and their deletion.
//!
//! The decision is the caller's knowledge ([`Fate`]) and the object's age; nothing goes by age alone that a gateway may still
//! refer to, and a payload that went too early is uploaded again (`resend`).

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use protocols::metering::UtcMillis;
use protocols::uplink::BatchId;

use super::{LANDING, Landed, Payloads, PayloadsError};

/// What is known of a batch whose payload lies in the landing area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Committed, or not known well enough.
    Held,
    /// Neither applied nor in work: no ref came, or it was refused and lies in quarantine.
    Unreferenced,
}

/// How long payloads stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// After which an archived payload goes.
    pub replay_ms: i64,
    /// After which an unreferenced one goes.
    pub grace_ms: i64,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    pub deleted: u64,
    pub kept: u64,
    /// Objects in the landing area that are no payloads of ours: left alone.
    pub foreign: u64,
}

pub fn may_go(landed: &Landed, fate: Fate, keep: Keep, now: UtcMillis) -> bool {
    let age_ms = now.since(landed.modified_at);
    match fate {
        Fate::Held => false,
        Fate::Unreferenced => age_ms > keep.grace_ms,
    }
}

impl Payloads {
    /// Deletes what may go. An error leaves the rest for the next sweep.
    pub async fn sweep(
        &self,
        fate: impl Fn(&BatchId) -> Fate,
        keep: Keep,
        now: UtcMillis,
    ) -> Result<Swept, PayloadsError> {
        let mut swept = Swept::default();
        let landing = Path::from(LANDING);
        let mut objects = self.objects.list(Some(&landing));
        while let Some(meta) = objects.try_next().await.map_err(PayloadsError::Unavailable)? {
            let Some(landed) = Landed::from_meta(&meta) else {
                swept.foreign += 1;
                continue;
            };
            if !may_go(&landed, fate(&landed.key.batch), keep, now) {
                swept.kept += 1;
                continue;
            }
            self.remove(&landed.key).await?;
            swept.deleted += 1;
        }
        Ok(swept)
    }
}
