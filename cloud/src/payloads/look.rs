//! Looking into landing area and quarantine, beside the process that works with them: nothing is judged, moved or deleted.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use protocols::uplink::BatchId;

use super::{LANDING, Landed, NOTE_SUFFIX, PayloadKey, Payloads, PayloadsError, QUARANTINE};

/// A refused batch: why, and its payload, when it had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    pub key: PayloadKey,
    pub reason: String,
}

impl PayloadKey {
    pub fn landing_path(&self) -> Path {
        self.path(LANDING)
    }

    pub fn quarantine_path(&self) -> Path {
        self.path(QUARANTINE)
    }
}

impl Payloads {
    /// What lies in the landing area of the batches wanted, in the order of the keys.
    pub async fn landed(&self, is_wanted: impl Fn(&BatchId) -> bool) -> Result<Vec<Landed>, PayloadsError> {
        let landing = Path::from(LANDING);
        let mut found = Vec::new();
        let mut objects = self.objects.list(Some(&landing));
        while let Some(meta) = objects.try_next().await.map_err(PayloadsError::Unavailable)? {
            found.extend(Landed::from_meta(&meta).filter(|landed| is_wanted(&landed.key.batch)));
        }
        found.sort_by(|a, b| (&a.key.batch, &a.key.sha256).cmp(&(&b.key.batch, &b.key.sha256)));
        Ok(found)
    }

    /// Every refused batch of those wanted, in the order of the keys.
    pub async fn quarantined(&self, is_wanted: impl Fn(&BatchId) -> bool) -> Result<Vec<Quarantined>, PayloadsError> {
        let folder = Path::from(QUARANTINE);
        let mut found = Vec::new();
        let mut objects = self.objects.list(Some(&folder));
        while let Some(meta) = objects.try_next().await.map_err(PayloadsError::Unavailable)? {
            // The payload is written first and the reason last: without a reason nothing was refused yet.
            let Some(key) = PayloadKey::parse_in(QUARANTINE, &meta.location, NOTE_SUFFIX) else { continue };
            if !is_wanted(&key.batch) {
                continue;
            }
            let note = self.fetch_at(&meta.location).await?.unwrap_or_default();
            let reason = String::from_utf8_lossy(&note).trim_end().to_owned();
            found.push(Quarantined { key, reason });
        }
        found.sort_by(|a, b| (&a.key.batch, &a.key.sha256).cmp(&(&b.key.batch, &b.key.sha256)));
        Ok(found)
    }

    /// The payload of a refused batch; `None` when there was none.
    pub async fn fetch_quarantined(&self, key: &PayloadKey) -> Result<Option<Bytes>, PayloadsError> {
        self.fetch_at(&key.quarantine_path()).await
    }
}
