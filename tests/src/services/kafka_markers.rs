//! The answer of a node that has written the markers of transactions (`WriteTxnMarkers`, versions 1 and 2), to one that has not.

/// What the node would answer to this request, with its length in front; `None` if it cannot be read.
pub(super) fn written(request: &[u8]) -> Option<Vec<u8>> {
    let mut from = Octets(request.get(4..)?);
    from.skip(2)?;
    let version = i16::from_be_bytes(from.take(2)?.try_into().ok()?);
    let mut answer = vec![0; 4];
    answer.extend(from.take(4)?);
    answer.push(NO_TAGS);
    let client_id = i16::from_be_bytes(from.take(2)?.try_into().ok()?);
    from.skip(client_id.max(0) as usize)?;
    from.no_tags()?;
    for _ in 0..from.count(&mut answer)? {
        answer.extend(from.take(8)?);
        // Epoch and outcome.
        from.skip(3)?;
        for _ in 0..from.count(&mut answer)? {
            let length = from.count(&mut answer)?;
            answer.extend(from.take(length)?);
            for _ in 0..from.count(&mut answer)? {
                answer.extend(from.take(4)?);
                answer.extend([0, 0, NO_TAGS]);
            }
            from.no_tags()?;
            answer.push(NO_TAGS);
        }
        // The coordinator's epoch, and the version of transactions.
        from.skip(if version >= 2 { 5 } else { 4 })?;
        from.no_tags()?;
        answer.push(NO_TAGS);
    }
    answer.push(NO_TAGS);
    let length = (answer.len() - 4) as u32;
    answer.splice(..4, length.to_be_bytes());
    Some(answer)
}

const NO_TAGS: u8 = 0;

struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    fn no_tags(&mut self) -> Option<()> {
        (*self.take(1)? == [NO_TAGS]).then_some(())
    }

    /// Elements of an array, or octets of a text: one more than there are, in sevens of bits. Copied into the answer.
    fn count(&mut self, answer: &mut Vec<u8>) -> Option<usize> {
        let mut count = 0;
        for shift in (0..28).step_by(7) {
            let octet = *self.take(1)?.first()?;
            answer.push(octet);
            count |= usize::from(octet & 0x7f) << shift;
            if octet < 0x80 {
                return count.checked_sub(1);
            }
        }
        None
    }
}
