//! The configuration files that `deploy/compose` mounts, with a few values replaced.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Reads a file of `deploy/compose`.
pub fn mounted(path: &str) -> Result<String> {
    let path = super::root()?.join("deploy/compose").join(path);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// `text` with the values of some keys replaced, `separator` between key and value. A key that does not stand there exactly once
/// is an error: the service would run with something else than the file.
pub fn derive(text: &str, separator: &str, values: &[(&str, String)]) -> Result<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (key, value) in values {
        let start = format!("{key}{separator}");
        let mut found = lines.iter_mut().filter(|line| line.trim_start().starts_with(&start));
        let line = found.next().with_context(|| format!("the file has no {key}"))?;
        ensure!(found.next().is_none(), "the file has {key} more than once");
        let indent = line.len() - line.trim_start().len();
        *line = format!("{}{start}{value}", &line[..indent]);
    }
    Ok(lines.join("\n") + "\n")
}

pub fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced_where_they_stand_and_nothing_else_is() {
        let text = "# port=1\nport=1\nlist:\n  - port=old\n";
        let derived = derive(text, "=", &[("port", "7".into()), ("- port", "8".into())]).unwrap();
        assert_eq!(derived, "# port=1\nport=7\nlist:\n  - port=8\n");
        assert!(derive(text, "=", &[("ports", "7".into())]).is_err(), "no such key");
        assert!(derive("a=1\na=2\n", "=", &[("a", "7".into())]).is_err(), "which one?");
    }
}
