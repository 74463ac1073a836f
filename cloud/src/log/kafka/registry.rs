//! The schema registry: which ids our schemas have there. Asked once, when the log is opened.
//!
//! The API is Confluent's, which others speak too: answers are parsed leniently.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::KafkaOpenError;
use super::records::Format;
use super::settings::{Names, RegistrySettings};

const READING: &str = include_str!("reading.avsc");
const EVENT: &str = include_str!("event.avsc");
/// What a reader of a new schema can read must be all that was ever written: sinks read from the beginning.
const COMPATIBILITY: &str = "BACKWARD_TRANSITIVE";
const TIMEOUT: Duration = Duration::from_secs(10);

/// Registers the schemas, or looks them up.
pub(super) async fn format(settings: &RegistrySettings, names: &Names) -> Result<Format, KafkaOpenError> {
    let registry = Registry::new(settings)?;
    let readings = registry.id_of(&names.readings, READING).await?;
    let events = registry.id_of(&names.events, EVENT).await?;
    Ok(Format::Avro { readings, events })
}

struct Registry<'a> {
    settings: &'a RegistrySettings,
    client: Client,
}

impl<'a> Registry<'a> {
    fn new(settings: &'a RegistrySettings) -> Result<Self, KafkaOpenError> {
        let client = Client::builder().timeout(TIMEOUT).no_proxy().build();
        let client = client.map_err(|error| KafkaOpenError::Client { cause: error.to_string() })?;
        Ok(Self { settings, client })
    }

    async fn id_of(&self, topic: &str, schema: &str) -> Result<u32, KafkaOpenError> {
        let subject = format!("{topic}-value");
        let body = json!({ "schema": schema });
        let found = self.look_up(&subject, &body).await;
        let missing = matches!(found, Err(KafkaOpenError::Registry { .. }));
        if !missing || !self.settings.register {
            return found;
        }
        match self.register(&subject, &body).await {
            // Another instance may have been at it too: then it is there now.
            Err(refused @ KafkaOpenError::Registry { .. }) => self.look_up(&subject, &body).await.or(Err(refused)),
            registered => registered,
        }
    }

    async fn look_up(&self, subject: &str, body: &Value) -> Result<u32, KafkaOpenError> {
        let answer = self.ask(self.client.post(self.url(&format!("subjects/{subject}"))), body, subject).await?;
        self.id_in(&answer, subject)
    }

    async fn register(&self, subject: &str, body: &Value) -> Result<u32, KafkaOpenError> {
        let compatibility = json!({ "compatibility": COMPATIBILITY });
        self.ask(self.client.put(self.url(&format!("config/{subject}"))), &compatibility, subject).await?;
        let versions = self.client.post(self.url(&format!("subjects/{subject}/versions")));
        let answer = self.ask(versions, body, subject).await?;
        self.id_in(&answer, subject)
    }

    fn id_in(&self, answer: &Value, subject: &str) -> Result<u32, KafkaOpenError> {
        let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.refused(subject, "its answer names no id"))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.settings.url.trim_end_matches('/'))
    }

    async fn ask(&self, request: RequestBuilder, body: &Value, subject: &str) -> Result<Value, KafkaOpenError> {
        let mut request = request.header("content-type", "application/json").body(body.to_string());
        if let Some(login) = &self.settings.login {
            request = request.basic_auth(&login.user, Some(&login.password));
        }
        let unreachable = |error: reqwest::Error| KafkaOpenError::RegistryUnreachable {
            url: self.settings.url.clone(),
            // Without the URL, which would be said twice.
            cause: error.without_url().to_string(),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if status.is_server_error() {
            return Err(KafkaOpenError::RegistryUnreachable {
                url: self.settings.url.clone(),
                cause: status.to_string(),
            });
        }
        if !status.is_success() {
            let said: Value = serde_json::from_str(&text).unwrap_or_default();
            let cause = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "the credentials are wrong".to_owned(),
                StatusCode::NOT_FOUND => "it is not registered".to_owned(),
                _ => format!("{status} {}", said["message"].as_str().unwrap_or_default()),
            };
            return Err(self.refused(subject, &cause));
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    fn refused(&self, subject: &str, cause: &str) -> KafkaOpenError {
        let (subject, cause) = (subject.to_owned(), cause.to_owned());
        KafkaOpenError::Registry { url: self.settings.url.clone(), subject, cause, registers: self.settings.register }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field names and kinds of values in the order of the schema.
    fn fields(schema: &str) -> Vec<(String, &'static str)> {
        let schema: Value = serde_json::from_str(schema).unwrap();
        let kind = |kind: &Value| match kind {
            Value::Array(_) => "optional",
            Value::Object(logical) if logical["type"] == "long" => "int",
            Value::String(name) => match name.as_str() {
                "int" | "long" => "int",
                "string" => "text",
                "double" => "double",
                "bytes" => "bytes",
                other => panic!("{other}"),
            },
            other => panic!("{other}"),
        };
        let fields = schema["fields"].as_array().unwrap().iter();
        fields
            .map(|field| {
                assert!(!field["doc"].as_str().unwrap().is_empty(), "{field}");
                (field["name"].as_str().unwrap().to_owned(), kind(&field["type"]))
            })
            .collect()
    }

    /// Fails when a field is written that the schema does not have, or in another place.
    #[test]
    fn what_is_written_is_what_the_schemas_say() {
        assert_eq!(super::super::records::reading_fields(), fields(READING));
        assert_eq!(super::super::records::event_fields(), fields(EVENT));
    }
}
