//! The topics: made when they are missing, else compared with what the settings say.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as DriverError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};

use super::KafkaOpenError;
use super::client::{ASK_TIMEOUT, Context, config, reading_config};
use super::settings::{KafkaSettings, Names};
use crate::ledger::LEDGER_BYTES_MAX;

/// One topic as it must be.
struct Wanted<'a> {
    name: &'a str,
    settings: BTreeMap<&'static str, String>,
    /// What it is made with, and may have otherwise.
    made_with: BTreeMap<&'static str, String>,
}

/// Of a ledger record as it lies in a topic: key, headers of record and batch.
const FRAMING_BYTES_MAX: usize = 1_024;
/// What the driver and Kafka take as they are shipped; Kafka a little more.
const MESSAGE_BYTES_SHIPPED: usize = 1_000_000;
/// Of one message that our producer may send, and of one that the topic of the ledger is made to take: of any ledger, and of one that
/// an older version has let grow.
pub(super) const MESSAGE_BYTES_MAX: usize = 2 << 20;
const _: () = assert!(LEDGER_BYTES_MAX + FRAMING_BYTES_MAX <= MESSAGE_BYTES_SHIPPED);
const _: () = assert!(MESSAGE_BYTES_SHIPPED <= MESSAGE_BYTES_MAX);
/// The longest message of a topic. One that was made before is as good with Kafka's own.
const MESSAGE_BYTES: &str = "max.message.bytes";

/// How often, at most, a topic that was just made is asked for its settings.
const DESCRIBE_TRIES: u32 = 300;
const DESCRIBE_PAUSE: Duration = Duration::from_millis(100);
/// Events of a client that got no answer.
const EVENTS_MAX: usize = 32;
const EVENT_PAUSE: Duration = Duration::from_millis(100);
/// What librdkafka logs of a connection that failed: the facility; of one that was cut while it was of use, as for want of a
/// log-in; of one that was cut before anything could be asked, for want of TLS.
const FAILED: &str = "FAIL";
const CUT_WHEN_ASKED: &str = "in state UP";
const CUT_BEFORE_ASKING: &str = "in state APIVERSION_QUERY";
/// Retention of what is kept for ever.
const FOR_EVER: &str = "-1";

fn wanted<'a>(names: &'a Names, settings: &KafkaSettings) -> Vec<Wanted<'a>> {
    let keep_ms = |ms: Option<i64>| ms.map_or_else(|| FOR_EVER.to_owned(), |ms| ms.to_string());
    let (rows, books) = (keep_ms(settings.keep.rows_ms), keep_ms(settings.keep.books_ms));
    let topic = |name: &'a str, policy: &str, retention: &str| {
        let settings = [
            ("cleanup.policy", policy.to_owned()),
            ("retention.ms", retention.to_owned()),
            ("retention.bytes", FOR_EVER.to_owned()),
            ("min.insync.replicas", settings.min_insync_replicas.to_string()),
            ("message.timestamp.type", "LogAppendTime".to_owned()),
        ];
        Wanted { name, settings: settings.into_iter().collect(), made_with: BTreeMap::new() }
    };
    let longest = BTreeMap::from([(MESSAGE_BYTES, MESSAGE_BYTES_MAX.to_string())]);
    vec![
        topic(&names.refs, "delete", &books),
        Wanted { made_with: longest, ..topic(&names.ledger, "compact", FOR_EVER) },
        topic(&names.books, "delete", &books),
        topic(&names.readings, "delete", &rows),
        topic(&names.events, "delete", &rows),
    ]
}

/// Makes what is missing, if it may, and refuses what is otherwise than wanted.
pub(super) async fn ensure(settings: &KafkaSettings, names: &Names, make: bool) -> Result<(), KafkaOpenError> {
    let admin: AdminClient<Context> = config(settings).create_with_context(Context).map_err(client_error)?;
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT * 2)).operation_timeout(Some(ASK_TIMEOUT * 2));
    let wanted = wanted(names, settings);
    let metadata = metadata(settings)?;
    let known = |name: &str| metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
    let missing: Vec<&Wanted<'_>> = wanted.iter().filter(|topic| known(topic.name).is_none()).collect();
    if let Some(topic) = missing.first().filter(|_| !make) {
        return Err(KafkaOpenError::NotMade { topic: topic.name.to_owned() });
    }
    let (partitions, replication) = (settings.partitions as i32, settings.replication as i32);
    let new: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|topic| {
            let new = NewTopic::new(topic.name, partitions, TopicReplication::Fixed(replication));
            topic.settings.iter().chain(&topic.made_with).fold(new, |new, (key, value)| new.set(key, value))
        })
        .collect();
    if !new.is_empty() {
        let made = admin.create_topics(&new, &options).await.map_err(|error| reach_error(settings, &error))?;
        for result in made {
            match result {
                // Another instance was quicker; what it made is looked at below.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(KafkaOpenError::CannotCreate { topic, cause: code.to_string() }),
            }
        }
    }
    for topic in wanted.iter().filter(|topic| known(topic.name).is_some()) {
        check_shape(known(topic.name).expect("filtered"), settings)?;
    }
    check_settings(&admin, &options, settings, &wanted).await
}

/// What the driver says of brokers that do not let us in; the question itself only times out.
#[derive(Default)]
struct Heard(Mutex<Vec<(RDKafkaErrorCode, String)>>);

impl Heard {
    fn push(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() < EVENTS_MAX {
            heard.push((code, reason.to_owned()));
        }
    }
}

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(sink = "log", "{message}");
        // A connection that the broker closes is no error to the driver, which says so here alone.
        if facility == FAILED {
            self.push(RDKafkaErrorCode::BrokerTransportFailure, message);
        }
    }

    fn error(&self, error: DriverError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.push(code, reason);
        }
    }
}

impl ConsumerContext for Heard {}

fn metadata(settings: &KafkaSettings) -> Result<Metadata, KafkaOpenError> {
    let mut config = reading_config(settings);
    config.set_log_level(RDKafkaLogLevel::Info);
    let asker: BaseConsumer<Heard> = config.create_with_context(Heard::default()).map_err(client_error)?;
    let unanswered = match asker.fetch_metadata(None, ASK_TIMEOUT) {
        Ok(metadata) => return Ok(metadata),
        Err(error) => reach_error(settings, &error),
    };
    // What it has to say waits until it is asked for.
    for _ in 0..EVENTS_MAX {
        if asker.poll(EVENT_PAUSE).is_none() {
            break;
        }
    }
    let heard = asker.context().0.lock().unwrap_or_else(PoisonError::into_inner);
    Err(why_not(settings, &heard).unwrap_or(unanswered))
}

/// Credentials first: what cannot pass by itself must not be waited for.
fn why_not(settings: &KafkaSettings, heard: &[(RDKafkaErrorCode, String)]) -> Option<KafkaOpenError> {
    let brokers = settings.brokers.clone();
    let user = settings.login.as_ref().map(|login| login.user.clone());
    for (code, _) in heard {
        match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                return Some(KafkaOpenError::Login { brokers, user });
            }
            RDKafkaErrorCode::SSL => return Some(KafkaOpenError::Tls { brokers }),
            _ => {}
        }
    }
    let reasons = heard.iter().filter(|(code, _)| *code != RDKafkaErrorCode::AllBrokersDown).map(|(_, reason)| reason);
    let first = reasons.clone().next()?;
    // Who lacks what the broker wants is cut off each time; a broker that went away refuses connections, too.
    let all = |place: &str| reasons.clone().all(|reason| reason.contains(place));
    if settings.ca_file.is_none() && all(CUT_BEFORE_ASKING) {
        return Some(KafkaOpenError::Tls { brokers });
    }
    if user.is_none() && all(CUT_WHEN_ASKED) {
        return Some(KafkaOpenError::Login { brokers, user });
    }
    Some(KafkaOpenError::Unreachable { brokers, cause: first.clone() })
}

fn check_shape(found: &MetadataTopic, settings: &KafkaSettings) -> Result<(), KafkaOpenError> {
    let partitions = found.partitions().len();
    if partitions != settings.partitions as usize {
        return Err(KafkaOpenError::Partitions {
            topic: found.name().to_owned(),
            found: partitions,
            wanted: settings.partitions,
        });
    }
    let copies = found.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or_default();
    if copies < settings.replication as usize {
        return Err(KafkaOpenError::Replication {
            topic: found.name().to_owned(),
            found: copies,
            wanted: settings.replication,
        });
    }
    Ok(())
}

async fn check_settings(
    admin: &AdminClient<Context>,
    options: &AdminOptions,
    settings: &KafkaSettings,
    wanted: &[Wanted<'_>],
) -> Result<(), KafkaOpenError> {
    let resources: Vec<ResourceSpecifier<'_>> =
        wanted.iter().map(|topic| ResourceSpecifier::Topic(topic.name)).collect();
    let mut tries = 0;
    let found = loop {
        let answers = admin.describe_configs(&resources, options).await;
        let answers = answers.map_err(|error| reach_error(settings, &error))?;
        let found: Result<Vec<ConfigResource>, _> = answers.into_iter().collect();
        let found = found.map_err(|code| reach_error(settings, &DriverError::AdminOp(code)))?;
        // A topic that was just made may not be known yet to the broker that is asked: it has no settings then.
        tries += 1;
        if tries == DESCRIBE_TRIES || found.iter().all(|resource| !resource.entries.is_empty()) {
            break found;
        }
        tokio::time::sleep(DESCRIBE_PAUSE).await;
    };
    for topic in wanted {
        let is_it =
            |resource: &&ConfigResource| resource.specifier == OwnedResourceSpecifier::Topic(topic.name.to_owned());
        let found = found.iter().find(is_it);
        let value = |key: &str| found.and_then(|found| found.get(key)?.value.clone()).unwrap_or_default();
        if topic.made_with.contains_key(MESSAGE_BYTES) && is_too_short(&value(MESSAGE_BYTES)) {
            let (found, hint) =
                (value(MESSAGE_BYTES), "raise it: a gateway with a longer ledger would stop its partition");
            tracing::warn!(
                sink = "log",
                topic = topic.name,
                setting = MESSAGE_BYTES,
                found,
                hint,
                "a topic is set too low"
            );
        }
        for (key, wanted) in &topic.settings {
            let value = value(key);
            if value != *wanted {
                return Err(KafkaOpenError::Setting {
                    topic: topic.name.to_owned(),
                    key,
                    found: value,
                    wanted: wanted.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Whether there may be a ledger that a topic with this longest message does not take.
fn is_too_short(message_bytes: &str) -> bool {
    message_bytes.parse::<usize>().is_ok_and(|bytes| bytes < LEDGER_BYTES_MAX + FRAMING_BYTES_MAX)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(super) fn client_error(error: DriverError) -> KafkaOpenError {
    KafkaOpenError::Client { cause: error.to_string() }
}

/// Whether it is our credentials that a broker does not like, or that there is none.
pub(super) fn reach_error(settings: &KafkaSettings, error: &DriverError) -> KafkaOpenError {
    let brokers = settings.brokers.clone();
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
            KafkaOpenError::Forbidden { brokers, cause: error.to_string() }
        }
        _ => KafkaOpenError::Unreachable { brokers, cause: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogKeep;
    use crate::log::kafka::KafkaSection;
    use crate::mqtt::Login;

    /// Negative control: put it among the settings that are compared, and topics of before are refused.
    #[test]
    fn the_topic_of_the_ledger_takes_any_ledger_also_one_that_was_made_before() {
        let settings = KafkaSection::default().check(LogKeep { rows_ms: None, books_ms: None }).unwrap();
        let names = Names::new("x.");
        let topics = wanted(&names, &settings);
        let ledger = topics.iter().find(|topic| topic.name == "x.ledger").unwrap();
        assert_eq!(ledger.made_with.get(MESSAGE_BYTES), Some(&MESSAGE_BYTES_MAX.to_string()));
        assert!(!ledger.settings.contains_key(MESSAGE_BYTES) && !is_too_short(&MESSAGE_BYTES_MAX.to_string()));
        // Kafka's own, and what is too short for the longest.
        assert!(!is_too_short("1048588") && is_too_short("900000"));
    }

    /// What librdkafka said, as it was seen.
    #[test]
    fn what_cannot_pass_by_itself_is_told_from_a_broker_that_is_away() {
        let unnamed = KafkaSection::default().check(LogKeep { rows_ms: None, books_ms: None }).unwrap();
        let login = Login { user: "meterpost".to_owned(), password: "hunter2".to_owned() };
        let named = KafkaSettings { login: Some(login), ..unnamed.clone() };
        let (gone, cut) =
            (RDKafkaErrorCode::BrokerTransportFailure, "Send failed: Broken pipe (after 0ms in state UP)");
        let refused = "Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)";
        let heard = |settings: &KafkaSettings, said: &[(RDKafkaErrorCode, &str)]| {
            let said: Vec<_> = said.iter().map(|(code, reason)| (*code, (*reason).to_owned())).collect();
            why_not(settings, &said)
        };
        let all_down = (RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        let is_login = |found| matches!(found, Some(KafkaOpenError::Login { .. }));
        assert!(is_login(heard(&named, &[all_down, (RDKafkaErrorCode::Authentication, "invalid credentials")])));
        assert!(is_login(heard(&unnamed, &[(gone, cut), all_down])));
        assert!(heard(&named, &[(gone, cut)]).unwrap().is_passing());
        let early = "Disconnected: connection closed by peer (after 5ms in state APIVERSION_QUERY)";
        assert!(matches!(heard(&named, &[(gone, early), all_down]), Some(KafkaOpenError::Tls { .. })));
        // A broker that dies while it is asked, and one that is not there at all.
        for said in [&[(gone, cut), (gone, refused), all_down][..], &[(gone, refused)]] {
            let found = heard(&unnamed, said).unwrap();
            assert!(found.is_passing() && found.to_string().contains(said[0].1), "{found}");
        }
        assert!(heard(&unnamed, &[]).is_none() && heard(&unnamed, &[all_down]).is_none());
    }
}
