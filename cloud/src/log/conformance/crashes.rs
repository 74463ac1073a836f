//! Cases in which a worker goes from refs to store and log, and is disturbed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use protocols::metering::{Quantity, Unit};
use protocols::uplink::Batch;

use super::samples::{T0, batch, register};
use super::worker::{Landing, Worker, append, append_ends, check_once, landing};
use super::{Fault, Faults, FaultyLog, FaultyStore, Logs};
use crate::log::{EventLog, LogError};
use crate::store::ReadingStore;
use crate::store::conformance::Stores;

/// Before what was refused is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Three gateways, four batches each; batches 1 and 3 of a gateway say different things of one instant.
fn batches() -> Vec<Arc<Batch>> {
    let mut batches = Vec::new();
    for (number, gateway) in [(1, "gw-1"), (2, "gw-2"), (3, "gw-3")] {
        for seq in 1..=4u64 {
            let quantity = Quantity::new(seq as i64, -1, Unit::WATT);
            let builder =
                batch(gateway, seq).quarters(register(number, 1), 5 + seq as i64).event(number, T0, seq as i64, "");
            let builder = if seq % 2 == 1 { builder.reading(register(number, 2), T0, quantity) } else { builder };
            batches.push(builder.build());
        }
    }
    batches
}

/// Fails when a worker looks for a batch among the committed ones only.
pub async fn two_copies_of_a_ref_in_one_group_commit_are_applied_once(logs: &dyn Logs, stores: &dyn Stores) {
    let (subject, store) = (logs.fresh().await, stores.fresh().await);
    let (log, store) = (subject.log(), store.store());
    let landing = landing(&batches());
    for batch in landing.values() {
        append(&*log, batch).await.unwrap();
        append(&*log, batch).await.unwrap();
    }
    append_ends(&*log, &landing).await.unwrap();
    let worker = Worker { log: &*log, store: &*store, landing: &landing, group: usize::MAX };
    worker.run().await.unwrap();
    check_once(&*log, &*store, &landing, "two copies each").await;
}

/// Fails when the ledger is a watermark alone, or the store lets the later write win in place of the later seal.
pub async fn refs_repeated_and_out_of_order_are_applied_once(logs: &dyn Logs, stores: &dyn Stores) {
    for group in [1, 3, 100] {
        let (subject, store) = (logs.fresh().await, stores.fresh().await);
        let (log, store) = (subject.log(), store.store());
        let landing = landing(&batches());
        let all: Vec<&Arc<Batch>> = landing.values().collect();
        // 7 is prime to the number of batches: each comes once, in another order; then backwards.
        for step in 0..all.len() {
            append(&*log, all[step * 7 % all.len()]).await.unwrap();
        }
        for batch in all.iter().rev() {
            append(&*log, batch).await.unwrap();
        }
        append_ends(&*log, &landing).await.unwrap();
        Worker { log: &*log, store: &*store, landing: &landing, group }.run().await.unwrap();
        check_once(&*log, &*store, &landing, &format!("groups of {group}")).await;
    }
}

/// Fails when the log is committed before the store is written, when positions move without the batches, when staged work
/// survives a doubtful commit, or when an answer is given before it is durable.
pub async fn a_crash_between_any_two_steps_loses_and_doubles_nothing(logs: &dyn Logs, stores: &dyn Stores) {
    let landing = landing(&batches());
    let none = Faults::none();
    run(logs, stores, &landing, &none).await;
    let calls = none.calls();
    assert!(calls > 8, "a run that has seams: {calls} calls");
    let mut plans = Vec::new();
    for call in 1..=calls {
        for fault in Fault::ALL {
            plans.extend([(call, fault, false), (call, fault, true)]);
        }
    }
    let landing = &landing;
    let run_one = async |(call, fault, dies): (u64, Fault, bool)| {
        let faults = Faults::none();
        if dies {
            faults.die(call, fault);
        } else {
            faults.fail(call, fault);
        }
        run(logs, stores, landing, &faults).await;
        assert_eq!(faults.hits(), 1, "call {call} was made");
    };
    // Where a run waits for others most of its time.
    let runs = plans.into_iter().step_by(logs.runs_one_in()).map(run_one);
    futures_util::stream::iter(runs).buffer_unordered(logs.runs_at_once()).collect::<()>().await;
}

/// For faults of a log's own making: refs from the first to the last, a new worker whenever the old one is gone, at most
/// `attempts` of them. `log` is what the workers see, `seen` what is looked at in the end.
pub async fn a_disturbed_log_loses_and_doubles_nothing(
    log: &dyn EventLog,
    seen: &dyn EventLog,
    store: &dyn ReadingStore,
    attempts: usize,
) {
    let landing = landing(&batches());
    for batch in landing.values() {
        while append(log, batch).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    while append_ends(log, &landing).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    let worker = Worker { log, store, landing: &landing, group: 4 };
    let mut failed = 0;
    while let Err(error) = worker.run().await {
        failed += 1;
        assert!(failed < attempts, "no worker gets through: {error}");
        tokio::time::sleep(PAUSE).await;
    }
    check_once(seen, store, &landing, "disturbed").await;
}

/// One system from the first ref to the last, with a new worker whenever the old one is gone.
async fn run(logs: &dyn Logs, stores: &dyn Stores, landing: &Landing, faults: &Arc<Faults>) {
    let (subject, store_subject) = (logs.fresh().await, stores.fresh().await);
    let (log, store) = (subject.log(), store_subject.store());
    for batch in landing.values() {
        append(&*log, batch).await.unwrap();
    }
    append_ends(&*log, landing).await.unwrap();
    let faulty_log = FaultyLog::new(Arc::clone(&log), Arc::clone(faults));
    let faulty_store = FaultyStore::new(Arc::clone(&store), Arc::clone(faults));
    let worker = Worker { log: &faulty_log, store: &faulty_store, landing, group: 4 };
    let mut attempts = 0;
    while let Err(error) = worker.run().await {
        attempts += 1;
        assert!(attempts < 5, "no worker gets through: {error}");
        assert!(matches!(error, LogError::Unavailable(_) | LogError::Doubtful(_)), "{error}");
        faults.revive();
    }
    check_once(&*log, &*store, landing, &format!("{faults:?}")).await;
}
