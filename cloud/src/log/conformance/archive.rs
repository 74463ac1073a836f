//! Cases of archive cuts.

use super::commits::{assigned, commit_of};
use super::samples::{T0, batch, register};
use super::worker::two_partitions;
use super::{LogSubject, Logs};
use crate::log::{ArchiveAssignment, ArchivedEnds, Cut, EventLog, LogError, Topic};

/// A log with one commit of ten readings and an event of one meter, and the partition that has them.
async fn with_readings(logs: &dyn Logs) -> (Box<dyn LogSubject>, u32) {
    let subject = logs.fresh().await;
    let log = subject.log();
    let (partition, home) = two_partitions(&*log).await.unwrap().remove(0);
    let mut consumer = log.consume_refs().await.unwrap();
    let held = assigned(&mut consumer, &[partition]).await.remove(&partition).unwrap();
    let batch = batch(home.as_str(), 1).quarters(register(1, 1), 10).event(1, T0, 1, "").build();
    log.commit(vec![commit_of(&held, held.position, batch, b"x")], T0).await.unwrap();
    let ends = log.ends(Topic::Readings).await.unwrap();
    let partition = ends.iter().position(|end| *end > 0).expect("readings were committed");
    (subject, partition as u32)
}

async fn own(log: &dyn EventLog, partition: u32) -> ArchiveAssignment {
    let assignments = log.own_archive().await.unwrap();
    assignments.into_iter().find(|assignment| assignment.ownership.partition == partition).unwrap()
}

/// Everything committed from what is archived on.
async fn cut(log: &dyn EventLog, assignment: &ArchiveAssignment) -> Cut {
    let partition = assignment.ownership.partition;
    let (readings, events) = assignment.archived.unwrap_or_default();
    let end = |ends: Vec<u64>| ends[partition as usize];
    let ends = (end(log.ends(Topic::Readings).await.unwrap()), end(log.ends(Topic::Events).await.unwrap()));
    Cut { partition, readings: (readings, ends.0), events: (events, ends.1) }
}

/// Fails when the record of a cut is not durable, or is forgotten with its owner.
pub async fn a_recorded_cut_is_taken_over(logs: &dyn Logs) {
    let (mut subject, partition) = with_readings(logs).await;
    let recorded = {
        let log = subject.log();
        let first = own(&*log, partition).await;
        assert_eq!((first.archived, first.unfinished), (None, None));
        let cut = cut(&*log, &first).await;
        log.record_cut(first.ownership, cut).await.unwrap();
        // Recording again is what a successor of a doubtful answer does.
        log.record_cut(first.ownership, cut).await.unwrap();
        cut
    };
    subject.reopen().await;
    let log = subject.log();
    let second = own(&*log, partition).await;
    assert_eq!((second.archived, second.unfinished), (None, Some(recorded)));
    log.end_cut(second.ownership, recorded).await.unwrap();
    let third = own(&*log, partition).await;
    assert_eq!((third.archived, third.unfinished), (Some((recorded.readings.1, recorded.events.1)), None));
}

/// Fails when cuts are not checked against the newest owner.
pub async fn a_replaced_archiver_is_fenced(logs: &dyn Logs) {
    let (subject, partition) = with_readings(logs).await;
    let (log, other) = (subject.log(), subject.another().await);
    let old = own(&*log, partition).await;
    let cut = cut(&*log, &old).await;
    if subject.members_keep() {
        subject.leave_archive().await;
    }
    let new = own(&*other, partition).await;
    let answer = log.record_cut(old.ownership, cut).await;
    assert!(matches!(answer, Err(LogError::Fenced { .. })), "{answer:?}");
    other.record_cut(new.ownership, cut).await.unwrap();
    let answer = log.end_cut(old.ownership, cut).await;
    assert!(matches!(answer, Err(LogError::Fenced { .. })), "{answer:?}");
    let by = if subject.members_keep() { &other } else { &log };
    assert_eq!(own(&**by, partition).await.unfinished, Some(cut), "the old owner ended nothing");
}

/// Fails when an end that was not answered cannot be repeated.
pub async fn ending_a_cut_again_changes_nothing(logs: &dyn Logs) {
    let (subject, partition) = with_readings(logs).await;
    let log = subject.log();
    let owner = own(&*log, partition).await;
    let cut = cut(&*log, &owner).await;
    log.record_cut(owner.ownership, cut).await.unwrap();
    log.end_cut(owner.ownership, cut).await.unwrap();
    log.end_cut(owner.ownership, cut).await.unwrap();
    let found = own(&*log, partition).await;
    assert_eq!((found.archived, found.unfinished), (Some((cut.readings.1, cut.events.1)), None));
}

/// Fails when a second cut replaces the recorded one, or one is ended that was never recorded.
pub async fn another_cut_waits_for_the_recorded_one(logs: &dyn Logs) {
    let (subject, partition) = with_readings(logs).await;
    let log = subject.log();
    let owner = own(&*log, partition).await;
    let whole = cut(&*log, &owner).await;
    let part = Cut { events: (whole.events.0, whole.events.0), ..whole };
    let answer = log.end_cut(owner.ownership, part).await;
    assert!(matches!(answer, Err(LogError::Refused(_))), "{answer:?}");
    log.record_cut(owner.ownership, part).await.unwrap();
    let answer = log.record_cut(owner.ownership, whole).await;
    assert!(matches!(answer, Err(LogError::Refused(_))), "{answer:?}");
    log.end_cut(owner.ownership, part).await.unwrap();
    // Nothing is archived twice: a cut that begins before the archived end is refused.
    let answer = log.record_cut(owner.ownership, whole).await;
    assert!(matches!(answer, Err(LogError::Refused(_))), "{answer:?}");
    let rest = Cut { readings: (whole.readings.1, whole.readings.1), ..whole };
    log.record_cut(owner.ownership, rest).await.unwrap();
    log.end_cut(owner.ownership, rest).await.unwrap();
    assert_eq!(own(&*log, partition).await.archived, Some((whole.readings.1, whole.events.1)));
}

/// Fails when what looks at the archived ends takes partitions over, or sees a cut that is only recorded, or when an end is
/// forgotten with the process.
pub async fn archived_ends_are_those_of_ended_cuts(logs: &dyn Logs) {
    let (mut subject, partition) = with_readings(logs).await;
    let cut = {
        let log = subject.log();
        let archived = |ends: ArchivedEnds| ends.get(&partition).copied();
        assert_eq!(archived(log.archived().await.unwrap()), None);
        let owner = own(&*log, partition).await;
        let cut = cut(&*log, &owner).await;
        log.record_cut(owner.ownership, cut).await.unwrap();
        assert_eq!(archived(log.archived().await.unwrap()), None, "recorded is not archived");
        log.end_cut(owner.ownership, cut).await.unwrap();
        cut
    };
    subject.reopen().await;
    let archived = subject.log().archived().await.unwrap();
    assert_eq!(archived.get(&partition), Some(&(cut.readings.1, cut.events.1)));
}
