//! From a ref to a batch that may be applied: fetched, hashed, unpacked, decoded and checked, in this order, before anything
//! is written.
//!
//! Decoding runs on a thread that may block, and a panic in it refuses that batch and no more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use protocols::metering::UtcMillis;
use protocols::uplink::limits::{CAPTURED_AHEAD_MS_MAX, PAYLOAD_BYTES_MAX};
use protocols::uplink::{Batch, BatchId, BatchRef, DecodeError, Payload, PayloadError};

use super::{Landed, PayloadKey, Payloads, PayloadsError};
use crate::offload::offload;

/// What became of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Whole and checked.
    Batch(Arc<Batch>),
    /// Not there, or other bytes than those referenced: another upload may be right.
    Resend,
    /// This program cannot judge it yet.
    Later(String),
    /// The right bytes, and they can never be applied. In quarantine already.
    Refused(String),
}

impl Payloads {
    /// Answers only once a refused payload is in quarantine.
    pub async fn open(&self, reference: &BatchRef, now: UtcMillis) -> Result<Opening, PayloadsError> {
        let key = PayloadKey { batch: reference.id.clone(), sha256: reference.sha256 };
        if reference.bytes > PAYLOAD_BYTES_MAX {
            // Nobody can ever upload that.
            let reason = format!("the ref claims {} bytes, more than the {PAYLOAD_BYTES_MAX} allowed", reference.bytes);
            self.quarantine(&key, None, &reason).await?;
            return Ok(Opening::Refused(reason));
        }
        let Some(bytes) = self.fetch(&key).await? else { return Ok(Opening::Resend) };
        let reference = reference.clone();
        self.judge(&key, bytes, move |bytes| judge_referenced(bytes, &reference, now)).await
    }

    /// The same for a payload whose ref the cloud has forgotten.
    pub async fn open_landed(&self, landed: &Landed, now: UtcMillis) -> Result<Opening, PayloadsError> {
        let key = landed.key.clone();
        let Some(bytes) = self.fetch(&key).await? else { return Ok(Opening::Resend) };
        self.judge(&landed.key, bytes, move |bytes| {
            judge(&key.batch, Payload::open_unclaimed(bytes, key.sha256), |_| None, now)
        })
        .await
    }

    async fn judge(
        &self,
        key: &PayloadKey,
        bytes: Bytes,
        judge: impl FnOnce(&[u8]) -> Opening + Send + 'static,
    ) -> Result<Opening, PayloadsError> {
        let payload = bytes.clone();
        let judged = offload(move || contained(|| judge(&payload))).await;
        let opening = judged.unwrap_or_else(|error| Opening::Refused(format!("decoding was cut off: {error}")));
        if let Opening::Refused(reason) = &opening {
            self.quarantine(key, Some(bytes), reason).await?;
        }
        Ok(opening)
    }
}

/// A panic becomes a refusal.
fn contained(judge: impl FnOnce() -> Opening) -> Opening {
    catch_unwind(AssertUnwindSafe(judge)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(panic = text, "decoding a payload panicked");
        Opening::Refused(format!("decoding it panicked: {text}"))
    })
}

fn judge_referenced(bytes: &[u8], reference: &BatchRef, now: UtcMillis) -> Opening {
    let found = bytes.len() as u64;
    let mut opened = Payload::open(bytes, reference.sha256, reference.uncompressed_bytes);
    if opened.is_ok() && found != reference.bytes {
        opened = Err(PayloadError::Length { expected: reference.bytes, found });
    }
    let counts = |batch: &Batch| {
        let found = (batch.reading_count(), batch.events.len());
        let said = (reference.readings as usize, reference.events as usize);
        (found != said).then(|| format!("{found:?} readings and events instead of the {said:?} referenced"))
    };
    judge(&reference.id, opened, counts, now)
}

fn judge(
    id: &BatchId,
    opened: Result<Batch, PayloadError>,
    objection: impl FnOnce(&Batch) -> Option<String>,
    now: UtcMillis,
) -> Opening {
    let batch = match opened {
        Ok(batch) => batch,
        Err(PayloadError::Hash { .. }) => return Opening::Resend,
        Err(PayloadError::Decode(error @ DecodeError::Newer { .. })) => return Opening::Later(error.to_string()),
        Err(PayloadError::Decode(error)) => return Opening::Refused(format!("no batch: {error}")),
        Err(error) => return Opening::Refused(error.to_string()),
    };
    if batch.id != *id {
        return Opening::Refused(format!("it says that it is {}, not {id}", batch.id));
    }
    if let Some(reason) = objection(&batch) {
        return Opening::Refused(reason);
    }
    if let Err(error) = batch.check() {
        return Opening::Refused(error.to_string());
    }
    let latest = now.plus_ms(CAPTURED_AHEAD_MS_MAX);
    match batch.span() {
        Some((_, last)) if last > latest => Opening::Later(format!("an instant at {last} is too far ahead of {now}")),
        _ => Opening::Batch(Arc::new(batch)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Control: the same call with a judgement that does not panic keeps its answer.
    #[test]
    fn a_panic_while_decoding_refuses_that_batch() {
        let refused = contained(|| panic!("row {} of 3", 4));
        assert_eq!(refused, Opening::Refused("decoding it panicked: row 4 of 3".to_owned()));
        assert_eq!(contained(|| Opening::Resend), Opening::Resend);
    }
}
