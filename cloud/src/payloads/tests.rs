use protocols::uplink::limits::CAPTURED_AHEAD_MS_MAX;
use protocols::uplink::{BatchRef, Payload};

use super::gc::{Fate, Keep, may_go};
use super::open::Opening;
use super::*;
use crate::testing::{INCARNATION, T0, batch, gateway, sealed};

fn area() -> (tempfile::TempDir, Payloads) {
    let folder = tempfile::tempdir().unwrap();
    let payloads = Payloads::local(folder.path()).unwrap();
    (folder, payloads)
}

fn key(reference: &BatchRef) -> PayloadKey {
    PayloadKey { batch: reference.id.clone(), sha256: reference.sha256 }
}

async fn land(payloads: &Payloads, reference: &BatchRef, payload: &Payload) {
    payloads.put(&key(reference), payload.bytes.clone().into()).await.unwrap();
}

fn quarantined(folder: &FilePath) -> Vec<String> {
    let folder = folder.join(format!("quarantine/gw-1/{INCARNATION:016x}"));
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_payload_put_twice_lies_there_once_and_opens_to_its_batch() {
    let (_folder, payloads) = area();
    let (reference, payload) = sealed(&batch(1, 3, 10), 1);
    assert_eq!(payloads.put(&key(&reference), payload.bytes.clone().into()).await.unwrap(), Stored::New);
    assert_eq!(payloads.put(&key(&reference), payload.bytes.clone().into()).await.unwrap(), Stored::Again);
    assert_eq!(payloads.open(&reference, T0).await.unwrap(), Opening::Batch(Arc::new(batch(1, 3, 10))));
    let landed = payloads.find(&gateway(1), INCARNATION, &[3].into_iter().collect()).await.unwrap();
    assert_eq!(landed.iter().map(|landed| &landed.key).collect::<Vec<_>>(), [&key(&reference)]);
    assert_eq!(payloads.open_landed(&landed[0], T0).await.unwrap(), Opening::Batch(Arc::new(batch(1, 3, 10))));
}

#[tokio::test]
async fn only_the_payloads_asked_for_are_found() {
    let (_folder, payloads) = area();
    for (gateway, seq) in [(1, 1), (1, 2), (1, 3), (10, 2), (2, 2)] {
        let (reference, payload) = sealed(&batch(gateway, seq, 1), 1);
        land(&payloads, &reference, &payload).await;
    }
    let found = payloads.find(&gateway(1), INCARNATION, &[2, 3, 9].into_iter().collect()).await.unwrap();
    assert_eq!(found.iter().map(|landed| landed.key.batch.seq).collect::<Vec<_>>(), [2, 3]);
    assert!(found.iter().all(|landed| landed.key.batch.gateway == gateway(1)));
    assert!(payloads.find(&gateway(1), 7, &[2].into_iter().collect()).await.unwrap().is_empty());
}

#[tokio::test]
async fn bytes_that_are_not_those_announced_are_not_stored() {
    let (_folder, payloads) = area();
    let (reference, payload) = sealed(&batch(1, 1, 1), 1);
    let mut altered = payload.bytes.clone();
    altered[0] ^= 1;
    let refused = payloads.put(&key(&reference), altered.into()).await;
    assert!(matches!(refused, Err(PayloadsError::Hash { .. })));
    assert_eq!(payloads.open(&reference, T0).await.unwrap(), Opening::Resend);
    let long = Bytes::from(vec![0; PAYLOAD_BYTES_MAX as usize + 1]);
    let refused = payloads.put(&key(&reference), long).await;
    assert!(matches!(refused, Err(PayloadsError::TooLong { .. })));
    // Control: the right bytes are.
    land(&payloads, &reference, &payload).await;
    assert!(matches!(payloads.open(&reference, T0).await.unwrap(), Opening::Batch(_)));
}

#[tokio::test]
async fn an_object_gone_bad_asks_for_another_upload_which_mends_it() {
    let (folder, payloads) = area();
    let (reference, payload) = sealed(&batch(1, 1, 5), 1);
    land(&payloads, &reference, &payload).await;
    let file = folder.path().join(key(&reference).path(LANDING).as_ref());
    for bad in [Vec::new(), vec![0x28; 40], vec![0; PAYLOAD_BYTES_MAX as usize + 100]] {
        std::fs::write(&file, bad).unwrap();
        assert_eq!(payloads.open(&reference, T0).await.unwrap(), Opening::Resend);
    }
    assert!(quarantined(folder.path()).is_empty(), "nothing the gateway sealed was refused");
    land(&payloads, &reference, &payload).await;
    assert!(matches!(payloads.open(&reference, T0).await.unwrap(), Opening::Batch(_)));
}

/// Control: the same batch under its own id, counts and sizes opens (the tests above).
#[tokio::test]
async fn what_can_never_be_applied_is_refused_and_in_quarantine_before_the_answer() {
    let (folder, payloads) = area();
    let refused = async |reference: BatchRef, payload: Payload, part: &str| {
        land(&payloads, &reference, &payload).await;
        let before = quarantined(folder.path()).len();
        match payloads.open(&reference, T0).await.unwrap() {
            Opening::Refused(reason) => assert!(reason.contains(part), "{reason}"),
            other => panic!("{part}: {other:?}"),
        }
        assert_eq!(quarantined(folder.path()).len(), before + 2, "the payload and the reason: {part}");
    };
    let (mut reference, payload) = sealed(&batch(1, 2, 3), 1);
    reference.id.seq = 1;
    refused(reference, payload, "not gw-1/").await;
    let (mut reference, payload) = sealed(&batch(2, 2, 3), 1);
    reference.id.gateway = gateway(1);
    refused(reference, payload, "it says that it is gw-2").await;
    let (mut reference, payload) = sealed(&batch(1, 3, 3), 1);
    reference.readings = 4;
    refused(reference, payload, "instead of the (4, 0) referenced").await;
    let (mut reference, payload) = sealed(&batch(1, 4, 3), 1);
    reference.bytes += 1;
    refused(reference, payload, "instead of").await;
    let (mut reference, payload) = sealed(&batch(1, 5, 3), 1);
    reference.uncompressed_bytes -= 1;
    refused(reference, payload, "zstd").await;
    let (mut reference, payload) = sealed(&batch(1, 6, 3), 1);
    reference.uncompressed_bytes = 65 << 20;
    refused(reference, payload, "limits").await;
    let mut altered = batch(1, 7, 3);
    altered.blocks[0].rows[1].mantissa += 1;
    let (reference, payload) = sealed(&altered, 1);
    refused(reference, payload, "books").await;
    let junk = zstd_of(b"\x89\x01 no batch");
    let (mut reference, _) = sealed(&batch(1, 8, 3), 1);
    (reference.sha256, reference.bytes, reference.uncompressed_bytes) =
        (junk.sha256, junk.bytes.len() as u64, junk.uncompressed_bytes);
    refused(reference, junk, "no batch").await;
}

/// A frame of zstd with one raw block (RFC 8878, 3.1.1), made by hand.
fn zstd_of(content: &[u8]) -> Payload {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, content.len() as u8];
    let header = (content.len() as u32) << 3 | 1;
    bytes.extend_from_slice(&header.to_le_bytes()[..3]);
    bytes.extend_from_slice(content);
    Payload { sha256: Sha256::of(&bytes), bytes, uncompressed_bytes: content.len() as u64 }
}

#[tokio::test]
async fn a_ref_that_claims_more_than_can_be_uploaded_is_refused_with_a_note_alone() {
    let (folder, payloads) = area();
    let (mut reference, _) = sealed(&batch(1, 1, 3), 1);
    reference.bytes = PAYLOAD_BYTES_MAX + 1;
    assert!(matches!(payloads.open(&reference, T0).await.unwrap(), Opening::Refused(_)));
    assert_eq!(quarantined(folder.path()), [format!("1-{}.txt", reference.sha256)]);
}

#[tokio::test]
async fn what_cannot_be_judged_yet_waits_and_is_never_refused() {
    let (folder, payloads) = area();
    let newer = zstd_of(b"\x82\x02\x00");
    let (mut reference, _) = sealed(&batch(1, 1, 3), 1);
    (reference.sha256, reference.bytes, reference.uncompressed_bytes) =
        (newer.sha256, newer.bytes.len() as u64, newer.uncompressed_bytes);
    land(&payloads, &reference, &newer).await;
    assert!(matches!(payloads.open(&reference, T0).await.unwrap(), Opening::Later(_)));
    // The last reading of this batch is half an hour before T0.
    let (reference, payload) = sealed(&batch(1, 2, 3), 1);
    land(&payloads, &reference, &payload).await;
    let edge = T0.plus_ms(-1_800_000 - CAPTURED_AHEAD_MS_MAX);
    assert!(matches!(payloads.open(&reference, edge.plus_ms(-1)).await.unwrap(), Opening::Later(_)));
    // Control: a millisecond later it is taken.
    assert!(matches!(payloads.open(&reference, edge).await.unwrap(), Opening::Batch(_)));
    assert!(quarantined(folder.path()).is_empty());
}

#[tokio::test]
async fn what_a_killed_process_left_half_written_is_swept_at_the_start() {
    let (folder, payloads) = area();
    let (reference, payload) = sealed(&batch(1, 1, 3), 1);
    land(&payloads, &reference, &payload).await;
    let file = folder.path().join(key(&reference).path(LANDING).as_ref());
    let staged = file.with_file_name(format!("{}#1", file.file_name().unwrap().to_str().unwrap()));
    let kept = folder.path().join("archive#old");
    std::fs::write(&staged, b"half").unwrap();
    std::fs::write(&kept, b"not ours").unwrap();
    Payloads::local(folder.path()).unwrap();
    assert!(!staged.exists() && kept.exists() && file.exists());
}

#[test]
fn keys_that_are_not_ours_are_no_payloads() {
    let (reference, _) = sealed(&batch(1, 1, 3), 1);
    let path = key(&reference).path(LANDING);
    assert_eq!(PayloadKey::parse(&path), Some(key(&reference)));
    let text = path.to_string();
    for other in [
        text.replace("landing/", "quarantine/"),
        text.replace("/1-", "/01-"),
        text.replace("/1-", "/x-"),
        text.replace(".cbor.zst", ".cbor"),
        format!("{text}/x"),
        text.replace("c0ffee", "C0FFEE"),
    ] {
        assert_eq!(PayloadKey::parse(&Path::from(other.clone())), None, "{other}");
    }
}

#[test]
fn a_payload_goes_only_when_nothing_can_need_it() {
    let (reference, _) = sealed(&batch(1, 1, 3), 1);
    let landed = Landed { key: key(&reference), bytes: 1, modified_at: T0 };
    let keep = Keep { replay_ms: 100, grace_ms: 1_000 };
    for (fate, age_ms, goes) in [
        (Fate::Held, i64::MAX, false),
        (Fate::Unreferenced, 1_000, false),
        (Fate::Unreferenced, 1_001, true),
        // A clock set back makes nothing old.
        (Fate::Unreferenced, -5, false),
    ] {
        assert_eq!(may_go(&landed, fate, keep, T0.plus_ms(age_ms)), goes, "{fate:?} after {age_ms} ms");
    }
}

#[tokio::test]
async fn a_sweep_deletes_what_may_go_and_leaves_the_rest() {
    let (folder, payloads) = area();
    for seq in 1..=3 {
        let (reference, payload) = sealed(&batch(1, seq, 3), 1);
        land(&payloads, &reference, &payload).await;
    }
    std::fs::write(folder.path().join("landing/README"), b"of a person").unwrap();
    let fate = |id: &BatchId| match id.seq {
        2 => Fate::Held,
        _ => Fate::Unreferenced,
    };
    let keep = Keep { replay_ms: 1, grace_ms: 1 };
    let swept = payloads.sweep(fate, keep, UtcMillis(i64::MAX)).await.unwrap();
    assert_eq!((swept.deleted, swept.kept, swept.foreign), (2, 1, 1));
    let left = payloads.find(&gateway(1), INCARNATION, &(1..=3).collect()).await.unwrap();
    assert_eq!(left.iter().map(|landed| landed.key.batch.seq).collect::<Vec<_>>(), [2]);
}
