//! The API, version 1: what the head-end tells programs. `openapi.json` documents it; a test holds both together.
//!
//! Everything here only reads. Every route takes a [`Viewer`], which is the proof that the request may see readings.

mod auth;
mod cached;
mod error;
pub mod fleet;
mod gateways;
pub mod json;
mod live;
pub mod meters;
pub mod params;
pub mod readings;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Route};
use jiff::tz::TimeZone;
use protocols::metering::Day;

pub use auth::{SESSION_COOKIE, SESSION_S, Viewer, ViewerToken, ViewerTokenError, check};
pub use error::ApiError;
pub use live::Live;

use self::cached::Cached;
use self::fleet::Fleet;
use self::json::answer;
use self::params::{Params, today};
use crate::clock::Clock;
use crate::completeness::{CompletenessReport, completeness};
use crate::log::EventLog;
use crate::store::ReadingStore;

pub const OPENAPI: &str = include_str!("../../openapi.json");
/// How old what is told of the fleet may be.
const FLEET_AGE_MAX: Duration = Duration::from_secs(2);
/// How old the completeness of a day may be: it reads every series of the day.
const COMPLETENESS_AGE_MAX: Duration = Duration::from_secs(30);

/// What API and pages work with; shared by all threads of the server.
pub struct ApiState {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ReadingStore>,
    pub clock: Arc<dyn Clock>,
    /// `None`: nobody is asked, which only a loopback listener may.
    pub viewer: Option<ViewerToken>,
    /// Whose days a request means that names no `tz`.
    pub zone: TimeZone,
    pub live: Live,
    fleet: Cached<(), Fleet>,
    completeness: Cached<(Day, String), CompletenessReport>,
}

impl ApiState {
    pub fn new(
        log: Arc<dyn EventLog>,
        store: Arc<dyn ReadingStore>,
        clock: Arc<dyn Clock>,
        viewer: Option<ViewerToken>,
        zone: TimeZone,
    ) -> Self {
        let (fleet, completeness) = (Cached::new(FLEET_AGE_MAX), Cached::new(COMPLETENESS_AGE_MAX));
        Self { log, store, clock, viewer, zone, live: Live::new(), fleet, completeness }
    }

    /// Shares the state, and follows the log for the live stream. Needs a tokio runtime that outlives the server.
    pub fn start(self) -> Data<Self> {
        let state = Arc::new(self);
        live::start(&state);
        Data::from(state)
    }

    pub async fn fleet(&self) -> Result<Arc<Fleet>, ApiError> {
        self.fleet.get_or((), Fleet::read(&*self.log, &*self.store, self.clock.now())).await
    }

    pub async fn completeness(&self, day: Day, zone: &TimeZone) -> Result<Arc<CompletenessReport>, ApiError> {
        let key = (day, zone.iana_name().unwrap_or("UTC").to_owned());
        let report = completeness(&*self.store, day, zone, self.clock.now());
        Ok(self.completeness.get_or(key, report).await?)
    }
}

/// Every route of the API: what [`configure`] registers, and the test compares with the document.
fn routes() -> Vec<(&'static str, Route)> {
    vec![
        ("/v1/openapi.json", web::get().to(openapi)),
        ("/v1/meters", web::get().to(meters::list)),
        ("/v1/meters/{meter}", web::get().to(meters::one)),
        ("/v1/readings", web::get().to(readings::readings)),
        ("/v1/gateways", web::get().to(gateways::list)),
        ("/v1/gateways/{gateway}/batches", web::get().to(gateways::batches)),
        ("/v1/live", web::get().to(live::live)),
        ("/v1/completeness", web::get().to(day_completeness)),
    ]
}

/// Registers API and pages; the app must have the state as `Data<ApiState>`.
pub fn configure(config: &mut ServiceConfig) {
    for (path, route) in routes() {
        config.route(path, route);
    }
    crate::dashboard::configure(config);
}

async fn openapi(_: Viewer) -> HttpResponse {
    HttpResponse::Ok().insert_header(ContentType::json()).body(OPENAPI)
}

async fn day_completeness(_: Viewer, request: HttpRequest, state: Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let params = Params::parse(request.query_string(), &["day", "tz"])?;
    let zone = params.zone(&state.zone)?;
    let yesterday = Day(today(state.clock.now(), &zone).0 - 1);
    let report = state.completeness(params.day(yesterday)?, &zone).await?;
    Ok(answer(&report.to_json()))
}
