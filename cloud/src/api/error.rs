//! Why a request is not answered as asked: a status code, one line for people and what to do about it.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use crate::completeness::CompletenessError;
use crate::log::LogError;
use crate::store::StoreError;
use crate::telemetry::chain;

const RETRY_AFTER_S: &str = "5";

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The request is wrong, and will be wrong again.
    #[error("{error}")]
    Parameter { error: String, hint: String },
    #[error("{error}")]
    NotFound { error: String, hint: String },
    /// A token is configured, and the request carries neither it nor a session.
    #[error("no valid viewer token")]
    Token,
    /// No token is configured, and the request names a host that is not this machine: another site's page may have sent it.
    #[error("without a viewer token only requests to localhost are answered, not to {host:?}")]
    Host { host: String },
    #[error("{clients_max} clients follow the live stream already")]
    LiveFull { clients_max: usize },
    /// Log or store do not answer for now.
    #[error("log or store do not answer")]
    Unavailable,
    /// Log or store hold what nobody wrote, or refuse to be read.
    #[error("log or store cannot be read")]
    Damaged,
}

impl ApiError {
    pub fn parameter(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Parameter { error: error.into(), hint: hint.into() }
    }

    pub fn not_found(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::NotFound { error: error.into(), hint: hint.into() }
    }

    pub fn hint(&self) -> &str {
        match self {
            Self::Parameter { hint, .. } | Self::NotFound { hint, .. } => hint,
            Self::Token => "send the header `Authorization: Bearer TOKEN`, or sign in at /login",
            Self::Host { .. } => "ask for http://127.0.0.1 or http://localhost, or configure a viewer token",
            Self::LiveFull { .. } => "close a page or a client that listens, or ask /v1/readings instead",
            Self::Unavailable => "try again in some seconds; /readyz says what is missing",
            Self::Damaged => "the log of meterpost-cloud says what is damaged",
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Parameter { .. } => StatusCode::BAD_REQUEST,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Host { .. } => StatusCode::FORBIDDEN,
            Self::LiveFull { .. } | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((CACHE_CONTROL, "no-store"));
        match self {
            Self::Token => drop(response.insert_header((WWW_AUTHENTICATE, "Bearer"))),
            Self::LiveFull { .. } | Self::Unavailable => drop(response.insert_header((RETRY_AFTER, RETRY_AFTER_S))),
            _ => {}
        }
        response.json(json!({ "error": self.to_string(), "hint": self.hint() }))
    }
}

impl From<StoreError> for ApiError {
    /// The cause is for the operator's log, not for the network.
    fn from(error: StoreError) -> Self {
        tracing::warn!(error = %chain(&error), "the API cannot read the store");
        match error {
            StoreError::Unavailable(_) => Self::Unavailable,
            StoreError::Refused(_) | StoreError::Damaged(_) => Self::Damaged,
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        tracing::warn!(error = %chain(&error), "the API cannot read the log");
        match error {
            LogError::Refused(_) | LogError::Damaged(_) => Self::Damaged,
            _ => Self::Unavailable,
        }
    }
}

impl From<CompletenessError> for ApiError {
    fn from(error: CompletenessError) -> Self {
        match error {
            CompletenessError::Zone { .. } => {
                Self::parameter(error.to_string(), "an IANA name such as Europe/Berlin, or UTC")
            }
            CompletenessError::Day { .. } => Self::parameter(error.to_string(), "a day such as 2026-03-29"),
            CompletenessError::Store(error) => error.into(),
            CompletenessError::Write(_) => Self::Damaged,
        }
    }
}
