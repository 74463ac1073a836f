use std::sync::Arc;
use std::time::Duration;

use protocols::uplink::Receipt;
use protocols::uplink::topics::Topic;

use super::PipelinePart;
use super::intake::IntakeServices;
use super::receipts::ReceiptServices;
use super::supervisor::{Observe, Pipeline, Shutdown, Supervisor};
use crate::backoff::Backoff;
use crate::clock::{Clock, ManualClock};
use crate::health::Health;
use crate::log::EventLog;
use crate::payloads::{PayloadKey, Payloads};
use crate::receipt_queue::ReceiptQueue;
use crate::store::{ReadingStore, StoreError};
use crate::telemetry::{Metric, Metrics};
use crate::testing::broker::Broker;
use crate::testing::{FaultyLog, FaultyStore, T0, batch, gateway, sealed};
use crate::worker::{Budget, Services, WorkerSettings};

/// Waits for a receipt that covers `seq`.
async fn receipted(broker: &Broker, seq: u64) -> Receipt {
    for _ in 0..2_000 {
        let published = broker.published();
        let receipts = published.iter().filter(|(topic, _)| *topic == Topic::Receipts.of(&gateway(1)));
        let receipts = receipts.map(|(_, bytes)| Receipt::decode(bytes).unwrap());
        if let Some(receipt) = receipts.into_iter().find(|receipt| receipt.says_applied(seq)) {
            return receipt;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no receipt for {seq}");
}

/// Control: before the damage the first generation does its work; the damage makes exactly one more.
#[actix::test]
async fn a_ref_goes_in_and_its_receipt_comes_out_even_when_the_pipeline_fails_in_between() {
    let broker = Broker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (log, store) = crate::embedded::in_memory(2, 7).unwrap();
    let (log, store) = (Arc::new(FaultyLog::new(log)), Arc::new(FaultyStore::new(store)));
    let (metrics, health) = (Arc::<Metrics>::default(), Arc::<Health>::default());
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(4));
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(T0));
    let worker = Services {
        log: Arc::clone(&log) as Arc<dyn EventLog>,
        store: Arc::clone(&store) as Arc<dyn ReadingStore>,
        payloads: Payloads::local(folder.path()).unwrap(),
        receipts: Arc::new(ReceiptQueue::new(100, Arc::clone(&metrics))),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        budget: Arc::new(Budget::new(256 << 20)),
    };
    let receipts = ReceiptServices {
        queue: Arc::clone(&worker.receipts),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        mqtt: broker.settings(),
        backoff: backoff.clone(),
    };
    let intake = IntakeServices {
        log: Arc::clone(&worker.log),
        clock,
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        mqtt: broker.settings(),
        share_group: None,
        backoff: backoff.clone(),
    };
    for seq in 1..=2 {
        let (reference, payload) = sealed(&batch(1, seq, 3), 1);
        let key = PayloadKey { batch: reference.id, sha256: reference.sha256 };
        worker.payloads.put(&key, payload.bytes.into()).await.unwrap();
    }
    let pipeline = Pipeline { worker, worker_settings: WorkerSettings::default(), intake, receipts };
    let supervisor = actix::Actor::start(Supervisor::new(
        pipeline.into_factory(),
        PipelinePart::ALL.to_vec(),
        Arc::clone(&metrics),
        backoff,
    ));

    let send = |seq: u64| broker.send(&Topic::Refs.of(&gateway(1)), &sealed(&batch(1, seq, 3), 1).0.encode());
    send(1);
    receipted(&broker, 1).await;
    assert_eq!(supervisor.send(Observe).await.unwrap().generation, 1);

    store.faults.lock().unwrap().push_back(StoreError::Damaged("told so".to_owned()));
    send(2);
    let receipt = receipted(&broker, 2).await;
    assert!(receipt.says_applied(1) && receipt.applied_through == 2);
    assert_eq!(supervisor.send(Observe).await.unwrap().generation, 2);
    assert_eq!(metrics.value(Metric::RefsApplied), 2);

    supervisor.send(Shutdown).await.unwrap();
    assert!(supervisor.send(Observe).await.unwrap().running.is_empty());
    assert!(!health.missing().is_empty(), "what has ended is not ready");
}
