use protocols::uplink::BatchRef;

/// What can be read is written so that it reads the same.
pub(crate) fn target(data: &[u8]) {
    match BatchRef::decode(data) {
        Ok(message) => assert_eq!(BatchRef::decode(&message.encode()), Ok(message)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
