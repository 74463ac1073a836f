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
            let url = self.settings.url.clone();
            let cause = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let user = self.settings.login.as_ref().map(|login| login.user.clone());
                    return Err(KafkaOpenError::RegistryLogin { url, user });
                }
                // A registry says of what it has nothing, in its own words.
                StatusCode::NOT_FOUND if said["error_code"].is_null() => {
                    return Err(KafkaOpenError::NoRegistry { url });
                }
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
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::mqtt::Login;

    const UNKNOWN_SCHEMA: &str = r#"{"error_code":40403,"message":"Schema not found"}"#;
    const INCOMPATIBLE: &str = r#"{"error_code":409,"message":"the new schema is incompatible with an earlier one"}"#;

    /// What is asked of a registry that gives these answers in turn, each to a request that begins so.
    async fn asked(
        settings: RegistrySettings,
        answers: &'static [(&'static str, u16, &'static str)],
    ) -> Result<Format, KafkaOpenError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api", listener.local_addr().unwrap());
        let registry = std::thread::spawn(move || {
            for (expected, status, body) in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut request = BufReader::new(stream);
                let (mut first, mut length) = (String::new(), 0);
                request.read_line(&mut first).unwrap();
                assert!(first.starts_with(expected), "{first} instead of {expected}");
                loop {
                    let mut line = String::new();
                    request.read_line(&mut line).unwrap();
                    match line.trim_end().split_once(": ") {
                        Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                            length = value.parse().unwrap();
                        }
                        Some(_) => {}
                        None => break,
                    }
                }
                request.by_ref().take(length).read_to_end(&mut Vec::new()).unwrap();
                let head =
                    format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                request.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        let found = format(&RegistrySettings { url, ..settings }, &Names::new("x.")).await;
        registry.join().unwrap();
        found
    }

    fn settings(login: Option<&str>) -> RegistrySettings {
        let login = login.map(|user| Login { user: user.to_owned(), password: "hunter2".to_owned() });
        RegistrySettings { url: String::new(), register: true, login }
    }

    /// Whether it was told at once, with these words and this hint, and without a secret.
    #[track_caller]
    fn refused(found: Result<Format, KafkaOpenError>, words: &str, hint: &str) {
        let error = found.expect_err("it was taken");
        let (said, hinted) = (error.to_string(), error.hint().unwrap());
        assert!(said.contains(words) && hinted.contains(hint), "{said}\nhint: {hinted}");
        assert!(!error.is_passing() && !format!("{error:?}{hinted}").contains("hunter2"), "{error:?}");
    }

    /// Control: every refusal taken for one that passes (`ask`): the test does not end, its registry waits for the next question.
    #[tokio::test]
    async fn a_subject_of_another_programs_schema_is_refused_by_name() {
        let answers = &[
            ("POST /api/subjects/x.readings-value ", 404, UNKNOWN_SCHEMA),
            ("PUT /api/config/x.readings-value ", 200, "{}"),
            ("POST /api/subjects/x.readings-value/versions ", 409, INCOMPATIBLE),
            ("POST /api/subjects/x.readings-value ", 404, UNKNOWN_SCHEMA),
        ];
        refused(asked(settings(None), answers).await, "refuses x.readings-value: 409", "another kafka.prefix");
        let looking = RegistrySettings { register: false, ..settings(None) };
        let answers = &[("POST /api/subjects/x.readings-value ", 404, UNKNOWN_SCHEMA)];
        refused(
            asked(looking, answers).await,
            "x.readings-value: it is not registered",
            "kafka.registry.register = true",
        );
    }

    /// Control: the two statuses left to the words of a refused schema (`ask`).
    #[tokio::test]
    async fn credentials_and_addresses_that_are_wrong_are_told_from_refusals() {
        let answer = |status, body| -> &'static [(&'static str, u16, &'static str)] {
            Box::leak(Box::new([("POST /api/subjects/x.readings-value ", status, body)]))
        };
        let hint = "the file of kafka.registry.password_file";
        refused(asked(settings(Some("meterpost")), answer(401, "")).await, "refuses the user \"meterpost\"", hint);
        refused(asked(settings(Some("meterpost")), answer(403, "no")).await, "refuses the user \"meterpost\"", hint);
        refused(asked(settings(None), answer(401, "{}")).await, "without a user", "set kafka.registry.user");
        refused(
            asked(settings(None), answer(404, "<html>")).await,
            "there is no schema registry at",
            "before /subjects",
        );
    }

    #[tokio::test]
    async fn a_registry_that_is_away_or_not_well_is_waited_for() {
        let answers = &[("POST /api/subjects/x.readings-value ", 503, "not yet")];
        let unwell = asked(settings(None), answers).await.unwrap_err();
        assert!(unwell.is_passing() && unwell.to_string().contains("503"), "{unwell}");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let away = RegistrySettings { url: format!("http://{port}"), ..settings(None) };
        let away = format(&away, &Names::new("x.")).await.unwrap_err();
        assert!(away.is_passing() && away.hint().unwrap().contains("kafka.registry.url"), "{away}");
    }

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
