//! Appends to `refs`: a producer of its own, without transactions, shared by everybody who takes messages in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use protocols::uplink::GatewayId;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as DriverError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tokio::sync::oneshot;

use super::client::{Context, config, unavailable};
use super::records::uplinked_headers;
use super::settings::KafkaSettings;
use crate::log::{LogError, Uplinked};

/// Between two looks for acknowledgements. The driver's own thread would spin: see [`super::committer`].
const SERVE_PAUSE: Duration = Duration::from_millis(1);
/// The same while nothing is under way: then only the driver's complaints are to be heard.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

type Caller = oneshot::Sender<Result<(), DriverError>>;

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
    type DeliveryOpaque = Box<Caller>;

    fn delivery(&self, result: &DeliveryResult<'_>, caller: Self::DeliveryOpaque) {
        let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        // Who asked may have gone.
        drop(caller.send(result));
    }
}

/// A producer, and the thread that serves it.
struct Served {
    producer: Arc<BaseProducer<Deliveries>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn start(settings: &KafkaSettings) -> Result<Self, LogError> {
        let producer = Arc::new(create(settings).map_err(|error| unavailable(&error))?);
        let ending = Arc::<AtomicBool>::default();
        let serve = {
            let (producer, ending) = (Arc::clone(&producer), Arc::clone(&ending));
            move || {
                while !ending.load(Ordering::Relaxed) {
                    let before = producer.in_flight_count();
                    producer.poll(Duration::ZERO);
                    match producer.in_flight_count() {
                        0 => std::thread::park_timeout(IDLE_PAUSE),
                        now if now < before => {}
                        _ => std::thread::sleep(SERVE_PAUSE),
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("kafka-append".to_owned()).spawn(serve);
        let thread = thread.map_err(|error| LogError::Unavailable(error.to_string()))?;
        Ok(Self { producer, ending, thread: Some(thread) })
    }

    fn send(&self, record: BaseRecord<'_, str, [u8], Box<Caller>>) -> Result<(), DriverError> {
        self.producer.send(record).map_err(|(error, _)| error)?;
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It ends with its look; callers of what it can no longer tell see that the producer ended.
            drop(thread.join());
        }
    }
}

pub(super) struct Appender {
    settings: KafkaSettings,
    producer: Mutex<Arc<Served>>,
}

impl Appender {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, LogError> {
        Ok(Self { settings: settings.clone(), producer: Mutex::new(Arc::new(Served::start(settings)?)) })
    }

    fn producer(&self) -> Result<Arc<Served>, LogError> {
        let mut served = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if served.producer.client().fatal_error().is_some() {
            // An idempotent producer that lost count of its own records can only be replaced.
            *served = Arc::new(Served::start(&self.settings)?);
        }
        Ok(Arc::clone(&served))
    }

    /// Returns once the record is durable. After an error it may be there all the same: a ref may be appended twice.
    pub(super) async fn append(
        &self,
        topic: &str,
        partition: u32,
        gateway: &GatewayId,
        uplinked: &Uplinked,
    ) -> Result<(), LogError> {
        let producer = self.producer()?;
        let (Uplinked::Ref(content) | Uplinked::Status(content)) = uplinked;
        let (caller, delivered) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(topic, Box::new(caller))
            .partition(partition as i32)
            .key(gateway.as_str())
            .payload(content.as_slice())
            .headers(uplinked_headers(uplinked));
        producer.send(record).map_err(|error| unavailable(&error))?;
        match delivered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(LogError::Unavailable("the producer ended".to_owned())),
        }
    }
}

fn create(settings: &KafkaSettings) -> Result<BaseProducer<Deliveries>, DriverError> {
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
