//! `PUT /v1/payloads/{gateway}/{incarnation}/{seq}`: payloads into the landing area.
//!
//! The path names the gateway, and with tokens configured its token proves it: the key in the landing area is made of nothing
//! else. The body is bounded while it arrives, whatever its announced length.
//!
//! Places are few, so that no gateway has more than it needs of them, and none for a body that does not come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use protocols::uplink::limits::PAYLOAD_BYTES_MAX;
use protocols::uplink::topics::SHA256_HEADER;
use protocols::uplink::{BatchId, GatewayId, Sha256};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::HttpServices;
use super::token::{NoToken, authorize};
use crate::payloads::{PayloadKey, PayloadsError, Stored};
use crate::telemetry::Metric;

/// Uploads held in memory at once: 256 MiB at most.
const UPLOADS_AT_ONCE: usize = 32;
/// Of those, for one gateway: as many as it has under way, by its window.
pub(super) const OF_A_GATEWAY_AT_ONCE: usize = 8;
/// The largest payload on a slow mobile link.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// So many bytes come within [`PACE`], or the body is cut. All bodies of a gateway together, that is 1.1 kbit/s: NB-IoT has that
/// where it is hardly heard, and some seconds between two segments.
const PACE_BYTES: usize = 512;
const PACE: Duration = Duration::from_secs(30);
const RETRY_AFTER_S: &str = "5";

#[derive(Clone)]
pub struct Uploads {
    services: HttpServices,
    at_once: Arc<Semaphore>,
    of_gateways: OfGateways,
}

/// How many uploads each gateway has under way; who has none is not in it.
#[derive(Clone, Default)]
struct OfGateways(Arc<Mutex<HashMap<GatewayId, usize>>>);

/// One of them, given back when it is dropped, however the upload ends.
struct Place {
    of_gateways: OfGateways,
    gateway: GatewayId,
}

impl OfGateways {
    /// `None`: it has all that it may have.
    fn take(&self, gateway: &GatewayId) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = taken.entry(gateway.clone()).or_default();
        if *of_it >= OF_A_GATEWAY_AT_ONCE {
            return None;
        }
        *of_it += 1;
        Some(Place { of_gateways: self.clone(), gateway: gateway.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of_gateways.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_it) = taken.get_mut(&self.gateway) {
            *of_it -= 1;
            if *of_it == 0 {
                taken.remove(&self.gateway);
            }
        }
    }
}

/// Why an upload is not stored.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("{0}")]
    Request(String),
    #[error(transparent)]
    Token(#[from] NoToken),
    #[error("a payload has at most {PAYLOAD_BYTES_MAX} bytes")]
    TooLong,
    #[error("the body ended early or came too slowly")]
    Cut,
    #[error("the payload has hash {found} instead of {expected}")]
    Hash { expected: Sha256, found: Sha256 },
    #[error("too many uploads at once")]
    Busy,
    #[error("this gateway has {OF_A_GATEWAY_AT_ONCE} uploads under way already")]
    Crowded,
    #[error("the landing area is unavailable")]
    Unavailable,
}

impl UploadError {
    fn response(&self) -> HttpResponse {
        let status = match self {
            Self::Request(_) => StatusCode::BAD_REQUEST,
            Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Cut => StatusCode::REQUEST_TIMEOUT,
            Self::Hash { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Crowded => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = HttpResponse::build(status);
        let later = (RETRY_AFTER, RETRY_AFTER_S);
        match self {
            Self::Token(_) => drop(response.insert_header((WWW_AUTHENTICATE, "Bearer"))),
            Self::Busy | Self::Crowded | Self::Unavailable => drop(response.insert_header(later)),
            _ => {}
        }
        response.json(json!({ "error": self.to_string() }))
    }

    fn metric(&self) -> Metric {
        match self {
            Self::Cut | Self::Busy | Self::Crowded | Self::Unavailable => Metric::UploadsFailed,
            _ => Metric::UploadsRefused,
        }
    }
}

pub fn configure(config: &mut ServiceConfig) {
    config.route("/v1/payloads/{gateway}/{incarnation}/{seq}", web::put().to(put));
}

async fn put(
    request: HttpRequest,
    path: Path<(String, String, String)>,
    body: web::Payload,
    uploads: Data<Uploads>,
) -> HttpResponse {
    let metrics = &uploads.services.metrics;
    match uploads.put(&request, &path, body).await {
        Ok((stored, bytes)) => {
            let (metric, status) = match stored {
                Stored::New => (Metric::UploadsStored, StatusCode::CREATED),
                Stored::Again => (Metric::UploadsAgain, StatusCode::OK),
            };
            metrics.add(metric, 1);
            metrics.add(Metric::UploadBytes, bytes);
            HttpResponse::build(status).finish()
        }
        Err(error) => {
            tracing::warn!(gateway = path.0, seq = path.2, %error, "an upload is not stored");
            metrics.add(error.metric(), 1);
            error.response()
        }
    }
}

impl Uploads {
    pub fn new(services: HttpServices) -> Self {
        let at_once = Arc::new(Semaphore::new(UPLOADS_AT_ONCE));
        Self { services, at_once, of_gateways: OfGateways::default() }
    }

    async fn put(
        &self,
        request: &HttpRequest,
        (gateway, incarnation, seq): &(String, String, String),
        body: web::Payload,
    ) -> Result<(Stored, u64), UploadError> {
        let batch: BatchId = format!("{gateway}/{incarnation}/{seq}").parse().map_err(UploadError::Request)?;
        if batch.seq == 0 {
            return Err(UploadError::Request("seq counts from 1".to_owned()));
        }
        authorize(&self.services, request, &batch.gateway).await?;
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let sha256 =
            header(SHA256_HEADER).ok_or_else(|| UploadError::Request(format!("{SHA256_HEADER} is missing")))?;
        let sha256: Sha256 = sha256.parse().map_err(UploadError::Request)?;
        let announced = header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
        if announced.is_some_and(|length| length > PAYLOAD_BYTES_MAX) {
            return Err(UploadError::TooLong);
        }
        let _place = self.of_gateways.take(&batch.gateway).ok_or(UploadError::Crowded)?;
        let _turn = self.at_once.try_acquire().map_err(|_| UploadError::Busy)?;
        let bytes = tokio::time::timeout(BODY_TIMEOUT, read(body)).await.map_err(|_| UploadError::Cut)??;
        let length = bytes.len() as u64;
        match self.services.payloads.put(&PayloadKey { batch, sha256 }, bytes.freeze()).await {
            Ok(stored) => Ok((stored, length)),
            Err(PayloadsError::Hash { expected, found }) => Err(UploadError::Hash { expected, found }),
            Err(PayloadsError::TooLong { .. }) => Err(UploadError::TooLong),
            Err(error) => {
                tracing::error!(error = %crate::telemetry::chain(&error), "cannot store a payload");
                Err(UploadError::Unavailable)
            }
        }
    }
}

async fn read(mut body: web::Payload) -> Result<BytesMut, UploadError> {
    let mut bytes = BytesMut::new();
    let (mut wanted, mut due) = (PACE_BYTES, Instant::now() + PACE);
    while let Some(chunk) = tokio::time::timeout_at(due, body.next()).await.map_err(|_| UploadError::Cut)? {
        let chunk = chunk.map_err(|_| UploadError::Cut)?;
        if (bytes.len() + chunk.len()) as u64 > PAYLOAD_BYTES_MAX {
            return Err(UploadError::TooLong);
        }
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= wanted {
            (wanted, due) = (bytes.len() + PACE_BYTES, Instant::now() + PACE);
        }
    }
    Ok(bytes)
}
