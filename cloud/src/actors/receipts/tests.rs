use std::time::Duration;

use protocols::metering::UtcMillis;
use protocols::uplink::{Receipt, SeqSet};

use super::*;
use crate::actors::{PartStopped, PipelinePart};
use crate::testing::broker::Broker;
use crate::testing::gateway;

struct Deaf;

impl Actor for Deaf {
    type Context = Context<Self>;
}

impl Handler<PartStopped> for Deaf {
    type Result = ();

    fn handle(&mut self, _: PartStopped, _: &mut Self::Context) {}
}

fn start(broker: &Broker) -> (Arc<ReceiptQueue>, Arc<Health>, Arc<Metrics>) {
    let (metrics, health) = (Arc::<Metrics>::default(), Arc::<Health>::default());
    let queue = Arc::new(ReceiptQueue::new(100, Arc::clone(&metrics)));
    let services = ReceiptServices {
        queue: Arc::clone(&queue),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        mqtt: broker.settings(),
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(4)),
    };
    let report = Report { part: PipelinePart::Receipts, generation: 1, to: Deaf.start().recipient() };
    Receipts { services, report }.start();
    (queue, health, metrics)
}

fn receipt(n: u32, applied_through: u64) -> Receipt {
    Receipt {
        gateway: gateway(n),
        incarnation: 1,
        applied_through,
        applied: SeqSet::new(),
        refused: Vec::new(),
        resend: SeqSet::new(),
        later: SeqSet::new(),
        lost: SeqSet::new(),
        cloud_time: UtcMillis(0),
    }
}

async fn published(broker: &Broker, count: usize) -> Vec<(String, Receipt)> {
    for _ in 0..2_000 {
        let published = broker.published();
        if published.len() >= count {
            let decoded = published.iter().map(|(topic, bytes)| (topic.clone(), Receipt::decode(bytes).unwrap()));
            return decoded.collect();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} of {count} receipts were published", broker.published().len());
}

#[actix::test]
async fn each_gateway_gets_its_receipt_on_its_topic() {
    let broker = Broker::start().await;
    let (queue, health, metrics) = start(&broker);
    queue.put(receipt(1, 5));
    queue.put(receipt(2, 6));
    let published = published(&broker, 2).await;
    assert_eq!(published[0], ("meterpost/v1/gw-1/receipts".to_owned(), receipt(1, 5)));
    assert_eq!(published[1], ("meterpost/v1/gw-2/receipts".to_owned(), receipt(2, 6)));
    assert!(!health.missing().contains(&"receipts"));
    assert_eq!(metrics.value(Metric::ReceiptsPublished), 2);
}

#[actix::test]
async fn what_gathers_while_there_is_no_connection_is_sent_as_its_newest() {
    let broker = Broker::start().await;
    let (queue, health, _) = start(&broker);
    queue.put(receipt(1, 1));
    published(&broker, 1).await;
    broker.behave(crate::testing::broker::Manners::SaysNothing);
    broker.drop_connections();
    while !health.missing().contains(&"receipts") {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for through in 2..=9 {
        queue.put(receipt(1, through));
    }
    broker.behave(crate::testing::broker::Manners::Good);
    broker.drop_connections();
    let published = published(&broker, 2).await;
    assert_eq!(published.last().unwrap().1, receipt(1, 9));
    assert_eq!(published.len(), 2);
}
