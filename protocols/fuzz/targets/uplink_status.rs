use protocols::uplink::Status;

/// What can be read is written so that it reads the same.
pub(crate) fn target(data: &[u8]) {
    match Status::decode(data) {
        Ok(message) => assert_eq!(Status::decode(&message.encode()), Ok(message)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
