use protocols::uplink::BatchRef;

/// What can be read is written so that it reads the same, and names its batch to a reader of any version.
pub(crate) fn target(data: &[u8]) {
    let id = BatchRef::decode_id(data);
    match BatchRef::decode(data) {
        Ok(message) => {
            assert_eq!(id.as_ref(), Ok(&message.id));
            assert_eq!(BatchRef::decode(&message.encode()), Ok(message));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
