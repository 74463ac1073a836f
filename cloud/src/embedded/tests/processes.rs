//! What only a process of its own can show: being killed, and a disk that fails in the middle of a write.
//!
//! A test starts its own binary again, with the variable below, to run the child's half of itself.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::log::{LogError, Topic, Uplinked};

const CHILD: &str = "METERPOST_TEST_DIR";

/// The directory, in the child.
fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// The same test again. A write beyond the file size limit is to fail, not to kill: that signal is ignored.
fn spawn(test: &str, dir: &Path) -> Child {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture"]).arg(exe).arg(test);
    command.env(CHILD, dir).stdout(Stdio::piped()).spawn().unwrap()
}

/// Numbers that the child printed as acknowledged, until it is killed after `lines` of them or ends.
fn acknowledged(child: &mut Child, lines: usize) -> Vec<u64> {
    let output = BufReader::new(child.stdout.take().unwrap());
    let acks = output.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("ack ")?.parse().ok());
    let mut acks = acks.fuse();
    let mut found: Vec<u64> = acks.by_ref().take(lines).collect();
    child.kill().unwrap();
    // What was on its way in the pipe was acknowledged too.
    found.extend(acks);
    child.wait().unwrap();
    found
}

/// Fails when an answer comes before the fsync that carries it: not here (a kill loses no page cache), but when it comes
/// before the commit.
#[tokio::test]
async fn a_killed_process_has_kept_what_it_acknowledged() {
    if let Some(dir) = child_dir() {
        let pair = opened(&dir);
        let first = logged(&pair).await.len() as u64 / 96;
        for seq in first + 1.. {
            store_and_commit(&pair, [seq]).await;
            pair.log.append_ref(&home(), Uplinked::Ref(seq.to_be_bytes().to_vec()), T0).await.unwrap();
            println!("ack {seq}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut last, mut told) = (0, std::collections::BTreeSet::new());
    for round in 0..12 {
        let test = "embedded::tests::processes::a_killed_process_has_kept_what_it_acknowledged";
        let acks = acknowledged(&mut spawn(test, dir.path()), 1 + round * 3 % 17);
        last = acks.last().copied().unwrap_or(last).max(last);
        let pair = opened(dir.path());
        assert_eq!(pair.outcomes, [], "a kill is no damage, and sets nothing back");
        let committed = logged(&pair).await.len() as u64 / 96;
        // One more may have been committed, and not acknowledged.
        assert!((last..=last + 1).contains(&committed), "{committed} committed, {last} acknowledged");
        assert!(stored(&pair, 1..=committed).await.len() as u64 == committed * 96);
        let partition = partition_of(&home(), pair.log.partitions());
        let refs = pair.log.read_refs(partition, 0, u64::MAX, usize::MAX).await.unwrap();
        let refs: std::collections::BTreeSet<Uplinked> = refs.into_iter().map(|row| row.3).collect();
        // What was committed and not acknowledged before a kill has no ref.
        told.extend(acks);
        for seq in &told {
            assert!(refs.contains(&Uplinked::Ref(seq.to_be_bytes().to_vec())), "ref {seq}");
        }
        last = committed;
    }
}

/// A file may not grow beyond this; the limit of the process, as the kernel enforces it.
#[cfg(target_os = "linux")]
fn limit_files(bytes: Option<u64>) {
    let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let pid = std::process::id().to_string();
    let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:unlimited")]).status();
    assert!(set.unwrap().success());
}

/// Fails when a failed write of a commit is taken for "not written" with certainty, or the connection that saw it stays.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_commit_whose_write_fails_is_doubtful_and_work_goes_on_after_it() {
    let test = "embedded::tests::processes::a_commit_whose_write_fails_is_doubtful_and_work_goes_on_after_it";
    let Some(dir) = child_dir() else {
        let dir = tempfile::tempdir().unwrap();
        let mut child = spawn(test, dir.path());
        let status = child.wait().unwrap();
        assert!(status.success(), "the child's half failed: {status}");
        let pair = opened(dir.path());
        assert_eq!((pair.outcomes.as_slice(), logged(&pair).await.len()), ([].as_slice(), 5 * 96));
        return;
    };
    let pair = opened(&dir);
    store_and_commit(&pair, 1..=3).await;
    let before = (logged(&pair).await.len(), pair.log.ends(Topic::Refs).await.unwrap());
    let wal = std::fs::metadata(dir.join("log.db-wal")).unwrap().len();
    let big = || Uplinked::Status(vec![7; 200_000]);
    limit_files(Some(wal + 6_000));
    for _ in 0..3 {
        let answer = pair.log.append_ref(&home(), big(), T0).await;
        assert!(matches!(answer, Err(LogError::Doubtful(_))), "{answer:?}");
    }
    assert_eq!((logged(&pair).await.len(), pair.log.ends(Topic::Refs).await.unwrap()), before);
    limit_files(None);
    pair.log.append_ref(&home(), big(), T0).await.unwrap();
    store_and_commit(&pair, [4]).await;
    let store_wal = std::fs::metadata(dir.join("store.db-wal")).unwrap().len();
    limit_files(Some(store_wal + 2_000));
    let batch = sample(5);
    let write = StoreBatch { sealed_effective: batch.sealed_at, batch };
    let answer = pair.store.upsert(&[write]).await;
    assert!(matches!(answer, Err(crate::store::StoreError::Unavailable(_))), "{answer:?}");
    limit_files(None);
    store_and_commit(&pair, [5]).await;
    assert_eq!(stored(&pair, 1..=5).await.len(), 5 * 96);
}
