//! A commit on its way. Meanwhile the worker opens and stores the next group, on the ledgers that this one leaves behind: should
//! it come to nothing, what was built on it is dropped with it, and upserts that were too early are repeated.

use protocols::metering::UtcMillis;
use protocols::uplink::GatewayId;
use tokio::time::Instant;

use super::budget::Share;
use super::group::{Claim, Staged, StagedPartition};
use super::retry::Retry;
use super::task::Task;
use super::{GatewayLedger, Services, Stop, WorkerError};
use crate::health::Part;
use crate::log::{LogError, PartitionCommit};
use crate::telemetry::Metric;

/// Dropped, it is asked for no more; what had been written by then stays written.
pub(super) struct Pending {
    pub(super) task: Task<Settled>,
    pub(super) records: usize,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Settled {
    /// Partitions that belong to others now: their part was left out.
    pub(super) fenced: Vec<u32>,
    /// Who sent messages of a newer version, and of which; one a partition.
    pub(super) newer: Vec<(GatewayId, u64)>,
    /// See [`Staged::singled_out`].
    pub(super) singled_out: Vec<Claim>,
    pub(super) at: UtcMillis,
    pub(super) result: Result<(), Stop>,
}

impl Pending {
    pub(super) fn start(
        services: Services,
        retry: Retry,
        staged: Staged,
        commits: Vec<PartitionCommit>,
        share: Share,
    ) -> Self {
        let records = staged.records;
        let task = Task::start(async move {
            let settled = commit(&services, retry, staged, commits).await;
            drop(share);
            settled
        });
        Self { task, records }
    }
}

/// The commit point. Afterwards the receipts are on their way.
async fn commit(
    services: &Services,
    mut retry: Retry,
    mut staged: Staged,
    mut commits: Vec<PartitionCommit>,
) -> Settled {
    let mut fenced = Vec::new();
    let result = loop {
        if commits.is_empty() {
            break Ok(());
        }
        let started = Instant::now();
        match services.log.commit(commits.clone(), services.clock.now()).await {
            Ok(()) => {
                services.metrics.observe(Metric::LogWrite, started.elapsed());
                services.health.set(Part::Log, true);
                break Ok(());
            }
            Err(LogError::Unavailable(error)) => retry.wait(&error).await,
            Err(LogError::Fenced { partition }) if staged.partitions.remove(&partition).is_some() => {
                tracing::warn!(partition, "another owner has the partition; its part of the group is dropped");
                services.metrics.add(Metric::FencedCommits, 1);
                commits.retain(|commit| commit.ownership.partition != partition);
                fenced.push(partition);
            }
            // Fenced by a partition that is no part of this: what is held is not what was thought.
            Err(error @ (LogError::Doubtful(_) | LogError::Fenced { .. })) => break Err(Stop::Resync(error)),
            Err(LogError::Refused(reason)) if staged.has_batches() => {
                break Err(Stop::Refused { claims: staged.claims(), reason });
            }
            Err(error) => break Err(WorkerError::Log(error).into()),
        }
    };
    let at = services.clock.now();
    let mut newer = Vec::new();
    if result.is_ok() {
        for part in staged.partitions.into_values() {
            part.count(&services.metrics, at);
            answer(services, &part, at);
            newer.extend(part.newer);
        }
    }
    Settled { fenced, newer, singled_out: staged.singled_out, at, result }
}

fn answer(services: &Services, part: &StagedPartition, now: UtcMillis) {
    // Of a gateway that has only sent what cannot be read nothing is known.
    let unknown = GatewayLedger::default();
    for ((gateway, incarnation), answers) in &part.answers {
        let ledger = part.ledgers.get(gateway).unwrap_or(&unknown);
        services.receipts.put(ledger.receipt(gateway, *incarnation, answers, now));
    }
}
