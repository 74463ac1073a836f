//! Appends to `refs`: a producer of its own, without transactions, shared by everybody who takes messages in.

use std::sync::{Arc, Mutex, PoisonError};

use protocols::uplink::GatewayId;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as DriverError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::client::{Context, config, unavailable};
use super::records::uplinked_headers;
use super::settings::KafkaSettings;
use crate::log::{LogError, Uplinked};

type Producer = ThreadedProducer<Deliveries>;

/// Tells each caller what became of its record.
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Context.log(level, facility, message);
    }

    fn error(&self, error: DriverError, reason: &str) {
        Context.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), DriverError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, caller: Self::DeliveryOpaque) {
        let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        // Who asked may have gone.
        drop(caller.send(result));
    }
}

pub(super) struct Appender {
    settings: KafkaSettings,
    producer: Mutex<Arc<Producer>>,
}

impl Appender {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, DriverError> {
        Ok(Self { settings: settings.clone(), producer: Mutex::new(Arc::new(create(settings)?)) })
    }

    fn producer(&self) -> Result<Arc<Producer>, DriverError> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if producer.client().fatal_error().is_some() {
            // An idempotent producer that lost count of its own records can only be replaced.
            *producer = Arc::new(create(&self.settings)?);
        }
        Ok(Arc::clone(&producer))
    }

    /// Returns once the record is durable. After an error it may be there all the same: a ref may be appended twice.
    pub(super) async fn append(
        &self,
        topic: &str,
        partition: u32,
        gateway: &GatewayId,
        uplinked: &Uplinked,
    ) -> Result<(), LogError> {
        let producer = self.producer().map_err(|error| unavailable(&error))?;
        let (Uplinked::Ref(content) | Uplinked::Status(content)) = uplinked;
        let (caller, delivered) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(topic, Box::new(caller))
            .partition(partition as i32)
            .key(gateway.as_str())
            .payload(content)
            .headers(uplinked_headers(uplinked));
        producer.send(record).map_err(|(error, _)| unavailable(&error))?;
        match delivered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(LogError::Unavailable("the producer ended".to_owned())),
        }
    }
}

fn create(settings: &KafkaSettings) -> Result<Producer, DriverError> {
    let mut config = config(settings);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "10000")
        .set("linger.ms", "2")
        .set("queue.buffering.max.messages", "20000")
        .set("queue.buffering.max.kbytes", "32768");
    config.create_with_context(Deliveries)
}
