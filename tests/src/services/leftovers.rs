//! What a killed Cassandra may leave behind that keeps it from starting.
//!
//! A compaction writes down which files it replaces, commits, and deletes them. Killed between two of these deletions, the node
//! refuses its next start, because the files that are left are younger or older than was written down (seen with 5.0.9). The
//! compaction is committed, so that its deletions may be finished by hand; `deploy/GUIDE.md` says how.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// How the node says so.
pub(super) const REFUSES: &str = "Cannot remove temporary or obsoleted files";

/// Finishes the deletions of committed compactions below `data`, and answers how many there were. What is not committed is left
/// to Cassandra.
pub(super) fn finish_deletions(data: &Path) -> Result<usize> {
    let mut finished = 0;
    for table in folders(data)?.iter().map(|keyspace| folders(keyspace)).collect::<Result<Vec<_>>>()?.concat() {
        for log in files(&table, |name| name.contains("_txn_compaction_") && name.strip_suffix(".log").is_some())? {
            let text = std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
            if !text.lines().any(|line| line.starts_with("COMMIT:")) {
                continue;
            }
            for replaced in text.lines().filter_map(replaced) {
                for file in files(&table, |name| name.starts_with(replaced))? {
                    std::fs::remove_file(file)?;
                }
            }
            std::fs::remove_file(log)?;
            finished += 1;
        }
    }
    Ok(finished)
}

/// `REMOVE:[/…/nb-19-big-,1795957828057,8][342370648]` names what files of a replaced table begin with.
fn replaced(line: &str) -> Option<&str> {
    let (path, _) = line.strip_prefix("REMOVE:[")?.split_once(',')?;
    let (_, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then_some(name)
}

fn folders(within: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(within)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn files(within: &Path, is_meant: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let is_meant = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(&is_meant);
    Ok(entries(within)?.into_iter().filter(|path| path.is_file()).filter(is_meant).collect())
}

fn entries(within: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(within).with_context(|| format!("cannot list {}", within.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Control: leave out that a compaction must be committed.
    #[test]
    fn what_a_committed_compaction_replaced_goes_and_nothing_else() {
        let data = tempfile::tempdir().unwrap();
        let table = |name: &str| data.path().join("keyspace").join(name);
        for (name, commit) in [("committed", "COMMIT:[,0,0][2613697770]\n"), ("open", "")] {
            let table = table(name);
            std::fs::create_dir_all(&table).unwrap();
            for file in ["nb-9-big-Data.db", "nb-91-big-Data.db", "nb-10-big-Data.db", "nb-11-big-Data.db"] {
                std::fs::write(table.join(file), "x").unwrap();
            }
            let at = table.display();
            let lines =
                format!("ADD:[{at}/nb-10-big-,0,8][1]\nREMOVE:[{at}/nb-9-big-,1795957828057,8][342370648]\n{commit}");
            std::fs::write(table.join("nb_txn_compaction_7e60.log"), lines).unwrap();
        }
        assert_eq!(finish_deletions(data.path()).unwrap(), 1);
        let left = |name| {
            let mut left: Vec<_> = entries(&table(name)).unwrap();
            left.sort();
            left.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(left("committed"), ["nb-10-big-Data.db", "nb-11-big-Data.db", "nb-91-big-Data.db"]);
        assert_eq!(left("open").len(), 5);
        assert_eq!(finish_deletions(data.path()).unwrap(), 0);
    }
}
