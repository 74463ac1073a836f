//! Inputs that come in steps, as in a conversation.

/// Each step is an octet that says what happens, an octet that says how much of what follows belongs to it, and that much. The
/// last one may be cut.
pub(super) fn steps(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[what, length], rest) = data.split_first_chunk::<2>()?;
        let (content, after) = rest.split_at(usize::from(length).min(rest.len()));
        data = after;
        Some((what, content))
    })
}
