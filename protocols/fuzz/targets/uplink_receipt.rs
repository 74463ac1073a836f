use protocols::uplink::Receipt;

/// What can be read is written so that it reads the same.
pub(crate) fn target(data: &[u8]) {
    match Receipt::decode(data) {
        Ok(message) => assert_eq!(Receipt::decode(&message.encode()), Ok(message)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
