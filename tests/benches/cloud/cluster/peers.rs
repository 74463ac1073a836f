//! Kafka and Cassandra alone, each at what it can: the records and rows are ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cloud::log::kafka::KafkaSection;
use cloud::store::cassandra::{CassandraSection, migrate};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use scylla::client::PoolSize;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch as Statements, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlDate, CqlDecimal, CqlTimestamp, MaybeUnset};
use tests::services::Kafka;
use tokio::time::Instant;

use super::load::Made;

/// Of the producer of ours.
const PRODUCER: [(&str, &str); 4] =
    [("acks", "all"), ("linger.ms", "5"), ("batch.size", "1000000"), ("compression.type", "zstd")];
/// The producer benchmark chooses among so many records, which it reads as text.
const SAMPLED: usize = 20_000;
/// Sent and not counted: Java is slow at first.
const WARM_UP: usize = 100_000;
/// Of one batch, as we do it.
const ATTEMPTS: usize = 4;
const DELIMITER: &str = "<next-record>";
const PAUSE: Duration = Duration::from_millis(1);
const POLL: Duration = Duration::from_millis(100);
const SILENT_POLLS: usize = 200;
const CONNECTIONS_PER_NODE: std::num::NonZeroUsize = std::num::NonZeroUsize::new(2).expect("is not zero");

/// Records of ours as they lie at Kafka, in topics of their own.
pub(crate) struct KafkaPeer {
    topic: String,
    bootstrap: String,
    payloads: PathBuf,
    records: Vec<OwnedMessage>,
}

impl KafkaPeer {
    /// Takes the first records of our topic of readings.
    pub(crate) fn new(kafka: &Kafka, section: &KafkaSection, count: usize, folder: &Path) -> Result<Self> {
        let records = read(kafka, &format!("{}readings", section.prefix), section.partitions, count)?;
        let (topic, payloads) = ("bench-bare".to_owned(), folder.join("records"));
        let partitions = section.partitions.to_string();
        let create = ["--bootstrap-server", &kafka.bootstrap(), "--create", "--topic", &topic];
        let create = [&create[..], &["--partitions", &partitions, "--replication-factor", "1"]].concat();
        kafka.tool("org.apache.kafka.tools.TopicCommand", &create)?;
        let step = (records.len() / SAMPLED).max(1);
        let texts: Vec<String> = records.iter().step_by(step).map(as_text).collect();
        std::fs::write(&payloads, texts.join(DELIMITER))?;
        Ok(Self { topic, bootstrap: kafka.bootstrap(), payloads, records })
    }

    /// Bytes of a record: key, value and headers.
    pub(crate) fn record_bytes(&self) -> f64 {
        let bytes: usize = self.records.iter().map(|record| as_text(record).len()).sum();
        bytes as f64 / self.records.len() as f64
    }

    /// Kafka's own producer benchmark.
    pub(crate) fn benchmark(&self, kafka: &Kafka, records: usize) -> Result<f64> {
        let (count, warm_up) = ((records + WARM_UP).to_string(), WARM_UP.to_string());
        let payloads = self.payloads.to_string_lossy().into_owned();
        let mut properties: Vec<String> = PRODUCER.iter().map(|(key, value)| format!("{key}={value}")).collect();
        properties.push("compression.zstd.level=1".to_owned());
        let mut arguments = vec!["--bootstrap-server", &self.bootstrap, "--topic", &self.topic];
        arguments.extend(["--num-records", &count, "--warmup-records", &warm_up, "--throughput", "-1"]);
        arguments.extend(["--payload-file", &payloads, "--payload-delimiter", DELIMITER]);
        arguments.extend(["--reporting-interval", "600000", "--command-property"]);
        arguments.extend(properties.iter().map(String::as_str));
        let said = kafka.measured_tool("org.apache.kafka.tools.ProducerPerformance", &arguments)?;
        let rate = said.lines().rev().find_map(|line| {
            let (before, _) = line.split_once(" records/sec")?;
            before.rsplit_once(' ')?.1.parse::<f64>().ok()
        });
        rate.with_context(|| format!("the producer benchmark said: {said}"))
    }

    /// One loop on the driver that we use: the same records in the same order, with keys and headers.
    pub(crate) fn produce(&self) -> Result<f64> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        for (key, value) in PRODUCER {
            config.set(key, value);
        }
        config.set("compression.level", "1").set("enable.idempotence", "true").set("batch.num.messages", "50000");
        config.set("queue.buffering.max.messages", "500000").set("partitioner", "murmur2_random");
        let producer: BaseProducer = config.create()?;
        let started = Instant::now();
        for (number, record) in self.records.iter().enumerate() {
            let key = record.key().unwrap_or_default();
            let headers = record.headers().cloned().unwrap_or_else(OwnedHeaders::new);
            let mut sent =
                BaseRecord::to(&self.topic).key(key).payload(record.payload().unwrap_or_default()).headers(headers);
            while let Err((error, unsent)) = producer.send(sent) {
                ensure!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
                serve(&producer);
                sent = unsent;
            }
            if number % 512 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        while producer.in_flight_count() > 0 {
            serve(&producer);
        }
        Ok(self.records.len() as f64 / started.elapsed().as_secs_f64())
    }
}

/// As ours does: the driver's own waiting spins.
fn serve(producer: &BaseProducer) {
    let before = producer.in_flight_count();
    producer.poll(Duration::ZERO);
    if producer.in_flight_count() >= before {
        std::thread::sleep(PAUSE);
    }
}

/// As many bytes, in characters that are a byte each.
fn as_text(record: &OwnedMessage) -> String {
    let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
    let headers = headers.flat_map(|header| header.key.bytes().chain(header.value.unwrap_or_default().iter().copied()));
    let value = record.key().unwrap_or_default().iter().chain(record.payload().unwrap_or_default()).copied();
    value.chain(headers).map(|byte| char::from(byte & 0x7f)).collect()
}

fn read(kafka: &Kafka, topic: &str, partitions: u32, count: usize) -> Result<Vec<OwnedMessage>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("group.id", "bench-reader");
    config.set("isolation.level", "read_committed").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let (mut records, mut silent) = (Vec::with_capacity(count), 0);
    while records.len() < count {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                silent = 0;
                records.push(message.detach());
            }
            Some(Err(_)) | None => silent += 1,
        }
        ensure!(silent < SILENT_POLLS, "{} of {count} records came", records.len());
    }
    Ok(records)
}

/// In the order of the statement's markers.
type Bound<'a> = (
    &'a str,
    CqlDate,
    &'a str,
    i8,
    i32,
    CqlTimestamp,
    i8,
    CqlDecimal,
    i8,
    i32,
    &'a str,
    CqlTimestamp,
    MaybeUnset<CqlTimestamp>,
    i64,
);

/// A loop that sends our statement, in batches of our size, as many at once as we do.
pub(crate) struct CassandraPeer {
    session: Session,
    upsert: PreparedStatement,
    section: CassandraSection,
}

impl CassandraPeer {
    pub(crate) async fn new(section: &CassandraSection) -> Result<Self> {
        let section = CassandraSection { keyspace: "bare".to_owned(), ..section.clone() };
        migrate(&section.check()?).await?;
        let session = SessionBuilder::new()
            .known_nodes(&section.hosts)
            .pool_size(PoolSize::PerHost(CONNECTIONS_PER_NODE))
            .build()
            .await?;
        let columns =
            "meter, day, code, kind, period_s, captured_at, nth, value, unit, quality, gateway, read_at, occurred_at";
        let markers = vec!["?"; columns.split(',').count()].join(", ");
        let statement = format!("INSERT INTO bare.readings ({columns}) VALUES ({markers}) USING TIMESTAMP ?");
        let mut upsert = session.prepare(statement).await?;
        upsert.set_is_idempotent(true);
        Ok(Self { session, upsert, section })
    }

    /// Rows per second.
    pub(crate) async fn load(&self, made: &[Made]) -> Result<f64> {
        let codes: Vec<Vec<String>> = made
            .iter()
            .map(|made| made.batch.blocks.iter().map(|block| block.series.code.to_string()).collect())
            .collect();
        let mut partitions: BTreeMap<(&str, u32), Vec<Bound<'_>>> = BTreeMap::new();
        for (made, codes) in made.iter().zip(&codes) {
            for (block, code) in made.batch.blocks.iter().zip(codes) {
                for row in &block.rows {
                    let bound = bind(made, block, code, row);
                    partitions.entry((bound.0, bound.1.0)).or_default().push(bound);
                }
            }
        }
        let batches: Vec<&[Bound<'_>]> =
            partitions.values().flat_map(|rows| rows.chunks(self.section.rows_per_batch_max)).collect();
        let rows: usize = batches.iter().map(|batch| batch.len()).sum();
        let started = Instant::now();
        let sends: Vec<_> = batches.into_iter().map(|rows| self.send(rows)).collect();
        stream::iter(sends).buffer_unordered(self.section.in_flight_max).try_collect::<()>().await?;
        Ok(rows as f64 / started.elapsed().as_secs_f64())
    }

    async fn send(&self, rows: &[Bound<'_>]) -> Result<()> {
        let statements = vec![BatchStatement::PreparedStatement(self.upsert.clone()); rows.len()];
        let mut batch = Statements::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        batch.set_consistency(Consistency::LocalQuorum);
        for _ in 1..ATTEMPTS {
            // A node that is busy says that it timed out: that is no answer, and the same again changes nothing.
            if self.session.batch(&batch, rows).await.is_ok() {
                return Ok(());
            }
        }
        self.session.batch(&batch, rows).await?;
        Ok(())
    }
}

fn bind<'a>(
    made: &'a Made,
    block: &'a protocols::uplink::SeriesBlock,
    code: &'a str,
    row: &protocols::uplink::BlockRow,
) -> Bound<'a> {
    let value =
        CqlDecimal::from_signed_be_bytes_slice_and_exponent(&least_bytes(row.mantissa), -i32::from(block.scaler));
    (
        block.series.meter.as_str(),
        CqlDate((row.captured_at.day().0 as u32).wrapping_add(1 << 31)),
        code,
        block.series.kind as i8,
        block.series.period_s as i32,
        CqlTimestamp(row.captured_at.0),
        row.nth as i8,
        value,
        block.unit.0 as i8,
        row.quality.0 as i32,
        made.batch.id.gateway.as_str(),
        CqlTimestamp(row.read_at.0),
        MaybeUnset::Unset,
        made.batch.sealed_at.0 * 1000,
    )
}

/// The shortest two's complement.
fn least_bytes(mantissa: i64) -> Vec<u8> {
    let bytes = mantissa.to_be_bytes();
    let sign = if mantissa < 0 { 0xff } else { 0 };
    let spare = bytes.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0).count();
    bytes[spare..].to_vec()
}
