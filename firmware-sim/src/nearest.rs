//! What somebody probably meant: the nearest known name to a misspelt one.

/// A name that is none of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}; known: {known}")]
pub struct UnknownName {
    pub what: &'static str,
    pub text: String,
    pub known: String,
    pub hint: Option<String>,
}

/// Makes the error, with a hint when a known name is near.
pub fn unknown<'a>(what: &'static str, text: &str, names: impl IntoIterator<Item = &'a str>) -> UnknownName {
    let names: Vec<&str> = names.into_iter().collect();
    let hint = nearest(text, names.iter().copied()).map(|name| format!("did you mean {name:?}?"));
    UnknownName { what, text: text.chars().take(40).collect(), known: names.join(", "), hint }
}

/// The nearest name, unless more than a third of it would have to change.
pub fn nearest<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text: Vec<char> = text.chars().take(64).collect();
    let scored = names.into_iter().map(|name| (distance(&text, &name.chars().collect::<Vec<_>>()), name));
    scored.min().filter(|(edits, name)| *edits <= (name.len() / 3).max(1)).map(|(_, name)| name)
}

/// Levenshtein distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let names = ["interval_ms", "drift_ppm", "protocol"];
        assert_eq!(nearest("intervall_ms", names), Some("interval_ms"));
        assert_eq!(nearest("drift", names), None);
        assert_eq!(nearest("elephant", names), None);
    }
}
