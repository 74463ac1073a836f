//! The landing area: payloads as received, named by what they are; and quarantine.
//!
//! `landing/{gateway}/{incarnation}/{seq}-{sha256}.cbor.zst`: the gateway is the one that was authenticated, never one that a
//! message names. An object is written whole or not at all, and is as durable when `put` returns as the store makes it: synced in a
//! local folder; some S3 servers sync later, and the hash tells when it is read. Writing the same payload again
//! writes the same object again: that mends one whose bytes went bad.

pub mod gc;
pub mod look;
pub mod open;

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use protocols::metering::UtcMillis;
use protocols::uplink::limits::PAYLOAD_BYTES_MAX;
use protocols::uplink::{BatchId, GatewayId, SeqSet, Sha256};

use crate::objects::folder;
pub use crate::objects::folder::LocalFolderError;
use crate::objects::is_absent;

const LANDING: &str = "landing";
const QUARANTINE: &str = "quarantine";
const SUFFIX: &str = ".cbor.zst";
/// Of the reason beside a payload in quarantine.
const NOTE_SUFFIX: &str = ".txt";

/// The payload of one batch, and which of possibly several uploads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PayloadKey {
    pub batch: BatchId,
    pub sha256: Sha256,
}

/// A payload that lies in the landing area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    pub key: PayloadKey,
    pub bytes: u64,
    pub modified_at: UtcMillis,
}

/// Whether an upload brought something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    New,
    /// It was there; it was written again.
    Again,
}

/// Why the landing area did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadsError {
    /// The bytes are not those that were announced.
    #[error("the payload has hash {found} instead of {expected}")]
    Hash { expected: Sha256, found: Sha256 },
    #[error("the payload has {bytes} bytes, more than the {PAYLOAD_BYTES_MAX} allowed")]
    TooLong { bytes: u64 },
    /// The same call may succeed later.
    #[error("the landing area is unavailable")]
    Unavailable(#[source] object_store::Error),
}

/// Landing area and quarantine on one object store.
#[derive(Debug, Clone)]
pub struct Payloads {
    objects: Arc<dyn ObjectStore>,
}

impl Payloads {
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects }
    }

    /// A local folder for looking, beside the process that writes to it: nothing is swept.
    pub fn look(folder: &FilePath) -> Result<Self, LocalFolderError> {
        Ok(Self::new(folder::look(folder)?))
    }

    /// A local folder. Nobody else writes here.
    pub fn local(folder: &FilePath) -> Result<Self, LocalFolderError> {
        Ok(Self::new(folder::open(folder)?))
    }

    /// The object store itself: the archive lies beside the landing area.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    pub async fn put(&self, key: &PayloadKey, bytes: Bytes) -> Result<Stored, PayloadsError> {
        if bytes.len() as u64 > PAYLOAD_BYTES_MAX {
            return Err(PayloadsError::TooLong { bytes: bytes.len() as u64 });
        }
        let found = Sha256::of(&bytes);
        if found != key.sha256 {
            return Err(PayloadsError::Hash { expected: key.sha256, found });
        }
        let path = key.path(LANDING);
        let stored = match self.objects.head(&path).await {
            Ok(_) => Stored::Again,
            Err(object_store::Error::NotFound { .. }) => Stored::New,
            Err(error) => return Err(PayloadsError::Unavailable(error)),
        };
        self.objects.put(&path, bytes.into()).await.map_err(PayloadsError::Unavailable)?;
        Ok(stored)
    }

    /// The object's bytes, whatever they are; `None` when it is not there. What is longer than any payload counts as not there:
    /// it is not what was put.
    pub async fn fetch(&self, key: &PayloadKey) -> Result<Option<Bytes>, PayloadsError> {
        self.fetch_at(&key.path(LANDING)).await
    }

    async fn fetch_at(&self, path: &Path) -> Result<Option<Bytes>, PayloadsError> {
        let result = match self.objects.get(path).await {
            Ok(result) => result,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(PayloadsError::Unavailable(error)),
        };
        let mut chunks = result.into_stream();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(PayloadsError::Unavailable)?;
            if (bytes.len() + chunk.len()) as u64 > PAYLOAD_BYTES_MAX {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    }

    /// The payloads of some seqs of one incarnation, ascending by seq, the newest upload of a seq first.
    pub async fn find(
        &self,
        gateway: &GatewayId,
        incarnation: u64,
        seqs: &SeqSet,
    ) -> Result<Vec<Landed>, PayloadsError> {
        self.find_all(gateway, &BTreeMap::from([(incarnation, seqs.clone())])).await
    }

    /// The same of several incarnations, these ascending, too. In one listing: there may be thousands.
    pub async fn find_all(
        &self,
        gateway: &GatewayId,
        wanted: &BTreeMap<u64, SeqSet>,
    ) -> Result<Vec<Landed>, PayloadsError> {
        let folder = match wanted.first_key_value() {
            Some((only, _)) if wanted.len() == 1 => format!("{LANDING}/{gateway}/{only:016x}"),
            _ => format!("{LANDING}/{gateway}"),
        };
        let is_wanted = |landed: &Landed| {
            let BatchId { incarnation, seq, .. } = landed.key.batch;
            wanted.get(&incarnation).is_some_and(|seqs| seqs.contains(seq))
        };
        let mut found = Vec::new();
        let mut objects = self.objects.list(Some(&Path::from(folder)));
        while let Some(meta) = objects.try_next().await.map_err(PayloadsError::Unavailable)? {
            found.extend(Landed::from_meta(&meta).filter(is_wanted));
        }
        found.sort_by_key(|landed| {
            let BatchId { incarnation, seq, .. } = landed.key.batch;
            (incarnation, seq, -landed.modified_at.0, landed.key.sha256)
        });
        Ok(found)
    }

    /// Deletes a landed payload. One that is not there is gone already.
    pub async fn remove(&self, key: &PayloadKey) -> Result<(), PayloadsError> {
        match self.objects.delete(&key.path(LANDING)).await {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(PayloadsError::Unavailable(error)),
        }
    }

    /// Keeps a refused payload (when there is one) and why it was refused. Doing it again changes nothing.
    pub async fn quarantine(&self, key: &PayloadKey, bytes: Option<Bytes>, reason: &str) -> Result<(), PayloadsError> {
        if let Some(bytes) = bytes {
            self.objects.put(&key.path(QUARANTINE), bytes.into()).await.map_err(PayloadsError::Unavailable)?;
        }
        let note = Path::from(format!("{}{NOTE_SUFFIX}", key.stem(QUARANTINE)));
        let text = format!("{reason}\n");
        self.objects.put(&note, text.into_bytes().into()).await.map_err(PayloadsError::Unavailable)?;
        Ok(())
    }

    /// How many refused uploads lie in quarantine.
    pub async fn quarantine_count(&self) -> Result<u64, PayloadsError> {
        let mut count = 0;
        let mut objects = self.objects.list(Some(&Path::from(QUARANTINE)));
        while let Some(meta) = objects.try_next().await.map_err(PayloadsError::Unavailable)? {
            count += u64::from(meta.location.as_ref().ends_with(NOTE_SUFFIX));
        }
        Ok(count)
    }

    /// Whether the store answers at all.
    pub async fn probe(&self) -> Result<(), PayloadsError> {
        match self.objects.head(&Path::from("landing/.probe")).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(PayloadsError::Unavailable(error)),
        }
    }
}

impl PayloadKey {
    fn stem(&self, area: &str) -> String {
        let BatchId { gateway, incarnation, seq } = &self.batch;
        format!("{area}/{gateway}/{incarnation:016x}/{seq}-{}", self.sha256)
    }

    fn path(&self, area: &str) -> Path {
        Path::from(format!("{}{SUFFIX}", self.stem(area)))
    }

    /// The inverse of the key of a landed payload; `None` for anything else.
    fn parse(path: &Path) -> Option<Self> {
        Self::parse_in(LANDING, path, SUFFIX)
    }

    fn parse_in(wanted: &str, path: &Path, suffix: &str) -> Option<Self> {
        let mut parts = path.as_ref().split('/');
        let (area, gateway, incarnation, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (seq, sha256) = name.strip_suffix(suffix)?.split_once('-')?;
        let batch = format!("{gateway}/{incarnation}/{seq}").parse().ok()?;
        let key = Self { batch, sha256: sha256.parse().ok()? };
        // Only what this program would write, so that a key and its object stay one to one.
        let is_ours = path.as_ref().strip_suffix(suffix) == Some(&key.stem(wanted));
        (area == wanted && parts.next().is_none() && is_ours).then_some(key)
    }
}

impl Landed {
    fn from_meta(meta: &ObjectMeta) -> Option<Self> {
        let key = PayloadKey::parse(&meta.location)?;
        Some(Self { key, bytes: meta.size, modified_at: UtcMillis(meta.last_modified.timestamp_millis()) })
    }
}

#[cfg(test)]
mod tests;
