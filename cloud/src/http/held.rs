//! `GET /v1/held/{gateway}?meter=&code=&kind=&period_s=&from=&to=&step_s=`: which ranges of a series the cloud holds.
//!
//! A gateway that has lost its outbox, or is new, asks this before it reads all that a meter remembers: what is named here
//! need not be read again. So the answer may name too little, and never too much. Held is a range of the grid `from`,
//! `from + step_s`, ... with a reading at every point; a reading beside the grid (a register that is read live belongs to the
//! same series) holds nothing.
//!
//! Any gateway may ask about any meter: a new one asks about what another has delivered. It learns instants, no values.

use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use protocols::metering::{Series, UtcMillis};
use protocols::uplink::limits::{HELD_POINTS_MAX, HELD_RANGES_MAX};
use protocols::uplink::topics::HeldGrid;
use protocols::uplink::{GatewayId, GatewayIdError};
use serde_json::json;
use tokio::sync::Semaphore;

use super::HttpServices;
use super::token::{NoToken, authorize};
use crate::api::ApiError;
use crate::api::params::{INSTANT, Params};
use crate::telemetry::Metric;

pub(crate) const KNOWN: [&str; 7] = ["meter", "code", "kind", "period_s", "from", "to", "step_s"];
/// Each reads up to [`HELD_POINTS_MAX`] rows of the store, which has other work.
const QUESTIONS_AT_ONCE: usize = 4;
const RETRY_AFTER_S: &str = "5";

#[derive(Clone)]
pub struct Held {
    services: HttpServices,
    at_once: Arc<Semaphore>,
}

impl Held {
    pub fn new(services: HttpServices) -> Self {
        Self { services, at_once: Arc::new(Semaphore::new(QUESTIONS_AT_ONCE)) }
    }
}

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
enum HeldError {
    #[error(transparent)]
    Token(#[from] NoToken),
    #[error("too many questions at once")]
    Busy,
    /// A parameter, or the store.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl HeldError {
    fn response(&self) -> HttpResponse {
        let (mut response, hint) = match self {
            Self::Api(error) => return error.error_response(),
            Self::Token(_) => {
                (HttpResponse::Unauthorized(), "send the gateway's upload token: `Authorization: Bearer`")
            }
            Self::Busy => (HttpResponse::ServiceUnavailable(), "ask again in some seconds"),
        };
        let (name, value) = match self {
            Self::Busy => (RETRY_AFTER, RETRY_AFTER_S),
            _ => (WWW_AUTHENTICATE, "Bearer"),
        };
        response.insert_header((CACHE_CONTROL, "no-store")).insert_header((name, value));
        response.json(json!({ "error": self.to_string(), "hint": hint }))
    }
}

pub fn configure(config: &mut ServiceConfig) {
    config.route("/v1/held/{gateway}", web::get().to(get));
}

async fn get(request: HttpRequest, path: Path<String>, held: Data<Held>) -> HttpResponse {
    let metrics = &held.services.metrics;
    match held.answer(&request, &path).await {
        Ok(ranges) => {
            metrics.add(Metric::HeldAnswered, 1);
            let range = |(first, last): &(UtcMillis, UtcMillis)| json!({ "first": first.to_string(), "last": last.to_string() });
            let held: Vec<_> = ranges.iter().map(range).collect();
            HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(json!({ "held": held }))
        }
        Err(error) => {
            metrics.add(Metric::HeldNotAnswered, 1);
            tracing::warn!(gateway = %path.chars().take(64).collect::<String>(), %error, "what is held is not told");
            error.response()
        }
    }
}

impl Held {
    async fn answer(&self, request: &HttpRequest, gateway: &str) -> Result<Vec<(UtcMillis, UtcMillis)>, HeldError> {
        let wrong = |error: GatewayIdError| ApiError::parameter(error.to_string(), "the id of a gateway");
        let gateway = GatewayId::new(gateway).map_err(wrong)?;
        authorize(&self.services, request, &gateway).await?;
        let (series, grid) = parse(request.query_string())?;
        let _turn = self.at_once.try_acquire().map_err(|_| HeldError::Busy)?;
        let step_ms = i64::from(grid.step_s) * 1000;
        let ranges = self.services.store.ranges_held(&series, grid.from, grid.to, step_ms).await;
        let mut ranges = ranges.map_err(ApiError::from)?;
        // What is not named is read again: harmless.
        ranges.drain(..ranges.len().saturating_sub(HELD_RANGES_MAX));
        Ok(ranges)
    }
}

fn parse(query: &str) -> Result<(Series, HeldGrid), ApiError> {
    let params = Params::parse(query, &KNOWN)?;
    let series = params.series()?;
    let (from, to) = (params.required("from", INSTANT)?, params.required("to", INSTANT)?);
    let step_s = params.required("step_s", "the seconds between two captures, such as 900")?;
    let grid = HeldGrid { from, to, step_s };
    let points = grid.points().ok_or_else(|| {
        ApiError::parameter("the grid has no points", "give the earlier instant as from, and a step_s of at least 1")
    })?;
    if points > HELD_POINTS_MAX {
        let hint = format!("at most {HELD_POINTS_MAX}: ask for a shorter range");
        return Err(ApiError::parameter(format!("the grid has {points} points"), hint));
    }
    Ok((series, grid))
}
