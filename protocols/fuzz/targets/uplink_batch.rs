use protocols::uplink::{Payload, Sha256};

/// A zstd block holds at most this.
const BLOCK_LEN_MAX: usize = 128 * 1024;

/// The input is the CBOR of a batch. What can be read is sealed and opened as it was, if it says what a gateway may say.
pub(crate) fn target(data: &[u8]) {
    let frame = stored(data);
    let batch = match Payload::open(&frame, Sha256::of(&frame), data.len() as u64) {
        Ok(batch) => batch,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(Payload::open_unclaimed(&frame, Sha256::of(&frame)).as_ref(), Ok(&batch));
    if let Err(error) = batch.check_content() {
        return assert!(!error.to_string().is_empty());
    }
    let mut batch = batch;
    batch.books = batch.compute_books();
    assert_eq!(batch.check(), Ok(()));
    let payload = Payload::seal(&batch);
    assert_eq!(Payload::open(&payload.bytes, payload.sha256, payload.uncompressed_bytes).as_ref(), Ok(&batch));
}

/// One zstd frame of stored blocks (RFC 8878, 3.1.1): the octets themselves are what is tried, not their compression.
fn stored(content: &[u8]) -> Vec<u8> {
    // Magic number; no checksum, no content size; a window of 2 MB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    let mut blocks = content.chunks(BLOCK_LEN_MAX).peekable();
    while let Some(block) = blocks.next() {
        let is_last = u32::from(blocks.peek().is_none());
        let header = (block.len() as u32) << 3 | is_last;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}
