//! What the log says of itself: its partitions and its generation, one record in the first partition of `ledger`.
//!
//! It is written by whoever opens the log first, under a transactional id of its own: initialising it fences everybody who is
//! at it too, so that of several only one writes, and the others read what that one wrote.

use ciborium::Value;
use rdkafka::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::client::{ASK_TIMEOUT, Context, config, unavailable};
use super::readers::Readers;
use super::settings::{KafkaSettings, Names};
use crate::log::{LogError, LogGeneration};

/// No gateway is called so.
pub(super) const DESCRIPTION_KEY: &[u8] = b"~log";
const DESCRIPTION_PARTITION: u32 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) partitions: u32,
    pub(super) generation: LogGeneration,
}

impl Description {
    fn encode(self) -> Vec<u8> {
        let entry = |name: &str, value: u64| (Value::from(name), Value::from(value));
        let value =
            Value::Map(vec![entry("partitions", u64::from(self.partitions)), entry("generation", self.generation.0)]);
        let mut out = Vec::new();
        ciborium::into_writer(&value, &mut out).expect("a vector takes everything");
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let entries = ciborium::from_reader::<Value, _>(bytes).ok()?.into_map().ok()?;
        let number = |name: &str| {
            let value = &entries.iter().find(|(key, _)| key.as_text() == Some(name))?.1;
            u64::try_from(i128::from(value.as_integer()?)).ok()
        };
        let generation = LogGeneration(number("generation")?);
        Some(Self { partitions: u32::try_from(number("partitions")?).ok()?, generation })
    }
}

/// The newest description, if there is any.
pub(super) fn read(readers: &Readers, names: &Names) -> Result<Option<Description>, LogError> {
    let mut found = None;
    readers.read_all(&names.ledger, DESCRIPTION_PARTITION, |message| {
        if message.key() == Some(DESCRIPTION_KEY) {
            let damaged = || LogError::Damaged("the record that describes the log cannot be read".to_owned());
            found = Some(Description::decode(message.payload().unwrap_or_default()).ok_or_else(damaged)?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// The description there is, or else `new`; with `replaced`, `new` in the place of that one.
pub(super) fn agree(
    settings: &KafkaSettings,
    names: &Names,
    readers: &Readers,
    new: Description,
    replaced: Option<Description>,
) -> Result<Description, LogError> {
    let mut config = config(settings);
    config.set("transactional.id", &names.maker).set("transaction.timeout.ms", "10000");
    let producer: BaseProducer<Context> = config.create_with_context(Context).map_err(|error| unavailable(&error))?;
    let timeout = ASK_TIMEOUT * 4;
    producer.init_transactions(timeout).map_err(|error| unavailable(&error))?;
    // From here on, whoever comes next fences us; whoever came before has written, or never will.
    if let Some(found) = read(readers, names)?
        && replaced != Some(found)
    {
        return Ok(found);
    }
    producer.begin_transaction().map_err(|error| unavailable(&error))?;
    let value = new.encode();
    let record = BaseRecord::to(&names.ledger).partition(DESCRIPTION_PARTITION as i32).key(DESCRIPTION_KEY);
    producer.send(record.payload(&value)).map_err(|(error, _)| unavailable(&error))?;
    producer.commit_transaction(timeout).map_err(|error| unavailable(&error))?;
    Ok(new)
}
