//! The actor of the receipts: from the queue to the broker.
//!
//! Owns its MQTT connection, apart from the intake's: acknowledgements queue behind publishes. Fed by the queue of receipts,
//! whose bound is the only one; feeds the broker. A receipt that is lost with a connection is asked for again by the gateway.

use std::sync::Arc;

use actix::prelude::*;
use protocols::uplink::limits::RECEIPT_BYTES_MAX;
use protocols::uplink::topics::Topic;
use rumqttc::{AsyncClient, QoS};
use tokio::sync::Notify;

use super::{Report, Stop};
use crate::backoff::Backoff;
use crate::health::{Health, Part};
use crate::mqtt::{Connection, MqttError, MqttEvent, MqttSettings};
use crate::receipt_queue::ReceiptQueue;
use crate::telemetry::{Metric, Metrics};

#[derive(Clone)]
pub struct ReceiptServices {
    pub queue: Arc<ReceiptQueue>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub mqtt: MqttSettings,
    pub backoff: Backoff,
}

pub struct Receipts {
    pub services: ReceiptServices,
    pub report: Report,
}

impl Actor for Receipts {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Only `Stop` is ever sent here.
        ctx.set_mailbox_capacity(1);
        ctx.spawn(self.services.clone().run().into_actor(self));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.services.health.stopped(Part::Receipts);
        self.report.stopped();
    }
}

impl Handler<Stop> for Receipts {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl ReceiptServices {
    /// Connects again and again, for ever.
    async fn run(self) {
        let mut backoff = self.backoff.clone();
        loop {
            self.metrics.add(Metric::ReceiptsConnects, 1);
            let error = self.serve(&mut backoff).await;
            self.health.set(Part::Receipts, false);
            let delay = backoff.delay();
            tracing::warn!(%error, hint = error.hint(), delay_ms = delay.as_millis(), "receipts lost the broker; connecting again");
            tokio::time::sleep(delay).await;
        }
    }

    async fn serve(&self, backoff: &mut Backoff) -> MqttError {
        let (mut connection, client) = match Connection::open(&self.mqtt, "out", Vec::new()) {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        let ready = Notify::new();
        let poll = async {
            loop {
                match connection.next().await {
                    Ok(MqttEvent::Ready) => {
                        backoff.reset();
                        self.health.set(Part::Receipts, true);
                        ready.notify_one();
                    }
                    Ok(MqttEvent::Message(_)) => {}
                    Err(error) => return error,
                }
            }
        };
        let publish = async {
            // Not before: what waits in the queue is merged, what waits in a dead connection is gone.
            ready.notified().await;
            self.publish(&client).await
        };
        tokio::select! {
            lost = poll => lost,
            lost = publish => lost,
        }
    }

    /// Waits in `publish` while the broker's window is full; meanwhile the queue merges.
    async fn publish(&self, client: &AsyncClient) -> MqttError {
        loop {
            let receipt = self.queue.next().await;
            let bytes = receipt.encode();
            if bytes.len() > RECEIPT_BYTES_MAX {
                tracing::error!(gateway = %receipt.gateway, len = bytes.len(), "a receipt is too long to be sent");
                self.metrics.add(Metric::ReceiptsDropped, 1);
                continue;
            }
            let topic = Topic::Receipts.of(&receipt.gateway);
            if client.publish(topic, QoS::AtLeastOnce, false, bytes).await.is_err() {
                self.queue.put(receipt);
                return MqttError::Full;
            }
            self.metrics.add(Metric::ReceiptsPublished, 1);
        }
    }
}

#[cfg(test)]
mod tests;
