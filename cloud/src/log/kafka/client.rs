//! librdkafka, set up the one way that suits us, and its errors in our words.

use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError as DriverError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use super::settings::KafkaSettings;
use crate::log::LogError;

/// One question to a broker.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// What all clients have in common.
pub(super) fn config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", "meterpost-cloud")
        .set("socket.keepalive.enable", "true")
        .set("socket.timeout.ms", "10000")
        .set("reconnect.backoff.max.ms", "2000")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    let protocol = match (&settings.ca_file, &settings.login) {
        (None, None) => "plaintext",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), None) => "ssl",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(file) = &settings.ca_file {
        config.set("ssl.ca.location", file.to_string_lossy());
    }
    if let Some((cert, key)) = &settings.identity {
        config.set("ssl.certificate.location", cert.to_string_lossy());
        config.set("ssl.key.location", key.to_string_lossy());
    }
    if let Some(login) = &settings.login {
        config.set("sasl.mechanism", &settings.mechanism);
        config.set("sasl.username", &login.user).set("sasl.password", &login.password);
    }
    config
}

/// For reading: no group, no commits. What is behind an open transaction is not seen.
pub(super) fn reading_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = config(settings);
    config
        // Never joined: librdkafka wants one all the same.
        .set("group.id", format!("{}readers", settings.prefix))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        // A range is asked for and no more: what comes beyond it was fetched and unpacked for nothing.
        .set("queued.max.messages.kbytes", "16384")
        .set("queued.min.messages", "10000")
        .set("fetch.message.max.bytes", "262144")
        // A fetch alone fills the queue; as shipped the next one would wait a second then.
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.wait.max.ms", "10")
        .set("fetch.error.backoff.ms", "100");
    config
}

/// Says what librdkafka says, in our log.
pub(super) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, _: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(sink = "log", "{message}");
            }
            _ => tracing::debug!(sink = "log", "{message}"),
        }
    }

    fn error(&self, error: DriverError, reason: &str) {
        // Every call that suffers from it says so itself.
        tracing::debug!(sink = "log", %error, reason);
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    /// A transaction with a record that was not delivered does not commit: nothing else need hear of it.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

pub(super) fn unavailable(error: &DriverError) -> LogError {
    LogError::Unavailable(error.to_string())
}

/// The group does not know us, or not as of this generation.
pub(super) fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::RebalanceInProgress
    )
}

/// A later producer of the same id is there, or the coordinator has ended our transaction by its time-out.
pub(super) fn is_producer_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
}

/// As Kafka's own clients spread keys that have no partition: murmur2 of the bytes.
pub(super) fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2, 32 bits, with the seed of `org.apache.kafka.common.utils.Utils`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0u32, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of `UtilsTest.testMurmur2` of Apache Kafka.
    #[test]
    fn murmur2_is_that_of_the_java_client() {
        let cases = [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (text, hash) in cases {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }
}
