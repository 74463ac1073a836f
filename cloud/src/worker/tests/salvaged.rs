//! A log in a file that damage has changed, and what is done with it once it is mended.

use std::path::Path;

use super::*;
use crate::embedded::{OpenError, OpenOutcome, Opened, Options, open};
use crate::log::Cut;
use crate::log::embedded::PruneBefore;

/// What had the files before may take a moment to let go of them.
async fn opened(dir: &Path) -> Opened {
    for _ in 0..500 {
        match open(dir, &Options::default()) {
            Err(OpenError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays in use", dir.display());
}

impl World {
    fn on(opened: Opened, folder: tempfile::TempDir) -> Self {
        Self::of(FaultyLog::new(opened.log), FaultyStore::new(opened.store), folder)
    }

    /// Lets go of log and store; the landing area stays.
    fn end(self) -> tempfile::TempDir {
        self.folder
    }

    /// Counts everything as archived, and lets the rows of the first `count` batches of each partition leave the log.
    async fn retire(&self, count: usize) -> u64 {
        let readings = self.log.ends(Topic::Readings).await.unwrap();
        let events = self.log.ends(Topic::Events).await.unwrap();
        for assignment in self.log.own_archive().await.unwrap() {
            let (ownership, partition) = (assignment.ownership, assignment.ownership.partition);
            let end = |ends: &[u64]| (0, ends[partition as usize]);
            let cut = Cut { partition, readings: end(&readings), events: end(&events) };
            self.log.record_cut(ownership, cut).await.unwrap();
            self.log.end_cut(ownership, cut).await.unwrap();
        }
        let before = PruneBefore { rows: T0.plus_ms(1), books: UtcMillis(i64::MIN) };
        self.log.inner.prune(before, count).await.unwrap().batches
    }
}

/// One row of the ledger is changed; every batch is whole, and every payload still in the landing area.
///
/// Negative controls: leave `make_ledger` out of `salvage`: all are applied again; leave `retired` out of it: two are.
#[tokio::test]
async fn a_ledger_record_that_damage_took_makes_nothing_applied_twice() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::on(opened(dir.path()).await, tempfile::tempdir().unwrap());
    for seq in 1..=4 {
        world.send(&batch(1, seq, 2), 1).await;
    }
    world.send(&batch(2, 1, 2), 1).await;
    world.run_to(Metric::RefsApplied, 5).await;
    assert!(world.retire(2).await >= 2);
    let folder = world.end();

    drop(opened(dir.path()).await);
    let conn = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    assert_eq!(conn.execute("UPDATE ledger SET record = zeroblob(40) WHERE gateway = 'gw-1'", []).unwrap(), 1);
    drop(conn);
    // Found when it is read, mended at the next opening.
    let damaged = opened(dir.path()).await;
    assert!(matches!(damaged.log.read_ledger().await, Err(LogError::Damaged(_))));
    drop(damaged);
    let mended = opened(dir.path()).await;
    let [OpenOutcome::LogDamaged { salvaged, .. }] = mended.outcomes.as_slice() else {
        panic!("{:?}", mended.outcomes)
    };
    assert_eq!(salvaged.rows_lost, 1);

    let world = World::on(mended, folder);
    world.send(&batch(1, 5, 2), 5).await;
    world.run_to(Metric::RefsApplied, 1).await;
    assert_eq!((world.value(Metric::BatchesRecovered), world.value(Metric::BatchesLost)), (0, 0));
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-1/2", "gw-1/3", "gw-1/4", "gw-1/5", "gw-2/1"]));
    let receipt = world.receipt().await;
    assert_eq!((receipt.gateway, receipt.applied_through), (gateway(1), 5));
}
