use protocols::uplink::{Payload, PayloadError, Sha256};

/// Octets that are to be a payload are refused or opened; where a ref claims what comes out, nothing else is taken.
pub(crate) fn target(data: &[u8]) {
    let hash = Sha256::of(data);
    let opened = Payload::open_unclaimed(data, hash);
    if let Err(error) = &opened {
        assert!(!error.to_string().is_empty());
    }
    let claimed = opened.as_ref().map_or(1_000, |batch| Payload::seal(batch).uncompressed_bytes);
    let as_claimed = Payload::open(data, hash, claimed);
    match &as_claimed {
        Ok(batch) => assert_eq!(opened.as_ref(), Ok(batch)),
        // Another writer may have written the same in more octets.
        Err(error) => assert!(opened.is_err() || matches!(error, PayloadError::Compression { .. }), "{error}"),
    }
    assert!(as_claimed.is_err() || Payload::open(data, hash, claimed + 1).is_err(), "any claim is right");
    let other = Sha256::of(b"another payload");
    assert_eq!(Payload::open_unclaimed(data, other), Err(PayloadError::Hash { expected: other, found: hash }));
}
