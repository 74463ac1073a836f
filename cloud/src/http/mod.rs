//! The HTTP server: what every instance answers. Each module registers its own routes with a `configure` function.

pub mod held;
mod token;
pub mod upload;

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::header::ContentType;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer};
use serde_json::json;

use crate::clock::Clock;
use crate::health::Health;
use crate::payloads::Payloads;
use crate::store::ReadingStore;
use crate::telemetry::Metrics;

/// Enough for uploads to share the disk; the page and the API are light.
const WORKERS: usize = 2;
/// A client that has not sent its request's head by then is let go.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const SHUTDOWN_TIMEOUT_S: u64 = 2;

/// What the routes of this module, of `upload` and of `held` work with.
#[derive(Clone)]
pub struct HttpServices {
    pub payloads: Payloads,
    pub store: Arc<dyn ReadingStore>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    /// A folder with one file per gateway that holds its token; without it nobody is asked, which only a loopback listener may.
    pub tokens_dir: Option<PathBuf>,
}

/// Why the listener cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    #[error("{listen} names no address")]
    Address { listen: String },
    #[error("{address} is no loopback address, and no tokens are configured")]
    Open { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl BindError {
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Address { .. } => Some("give ADDR:PORT, as in 127.0.0.1:8080"),
            Self::Open { .. } => Some("set http.tokens_dir, or listen on 127.0.0.1"),
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program listens there; choose another port with --http, 0 for any that is free")
            }
            Self::Bind { .. } => None,
        }
    }
}

/// Before anything else is opened: the commonest mistake costs nothing then.
pub fn bind(listen: &str, with_tokens: bool) -> Result<TcpListener, BindError> {
    let wrong = || BindError::Address { listen: listen.to_owned() };
    let address = listen.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)?;
    if !address.ip().is_loopback() && !with_tokens {
        return Err(BindError::Open { address });
    }
    TcpListener::bind(address).map_err(|source| BindError::Bind { address, source })
}

/// Serves until its handle stops it. `more` registers further routes.
pub fn serve(
    listener: TcpListener,
    services: HttpServices,
    more: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> io::Result<Server> {
    let uploads = upload::Uploads::new(services.clone());
    let held = held::Held::new(services.clone());
    let factory = move || {
        App::new()
            .app_data(Data::new(services.clone()))
            .app_data(Data::new(uploads.clone()))
            .app_data(Data::new(held.clone()))
            .configure(configure)
            .configure(upload::configure)
            .configure(held::configure)
            .configure(more.clone())
    };
    let server = HttpServer::new(factory)
        .workers(WORKERS)
        .client_request_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(SHUTDOWN_TIMEOUT_S)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

/// What is answered while the engines are waited for: the time, alive, not ready, and what is missing. Ends when its handle stops
/// it.
pub fn serve_waiting(
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> io::Result<Server> {
    let factory = move || App::new().configure(|app| waiting(app, &clock, &metrics, &health));
    let server = HttpServer::new(factory).workers(1).client_request_timeout(HEAD_TIMEOUT).disable_signals();
    Ok(server.listen(listener)?.run())
}

fn waiting(config: &mut ServiceConfig, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>, health: &Arc<Health>) {
    let (clock, metrics, counted) = (Arc::clone(clock), Arc::clone(metrics), Arc::clone(health));
    let (asked, health) = (Arc::clone(health), Arc::clone(health));
    config
        .route("/v1/time", web::get().to(move || std::future::ready(told_time(&*clock))))
        .route("/healthz", web::get().to(alive))
        .route("/readyz", web::get().to(move || std::future::ready(readiness(&asked))))
        .route("/metrics", web::get().to(move || std::future::ready(rendered(&metrics, &counted))))
        // Not 404: there is such a path, in a moment.
        .default_service(web::to(move || std::future::ready(unready(&health))));
}

pub fn configure(config: &mut ServiceConfig) {
    config
        .route("/v1/time", web::get().to(time))
        .route("/healthz", web::get().to(alive))
        .route("/readyz", web::get().to(ready))
        .route("/metrics", web::get().to(metrics));
}

/// A gateway asks this before it seals anything.
async fn time(services: Data<HttpServices>) -> HttpResponse {
    told_time(&*services.clock)
}

fn told_time(clock: &dyn Clock) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "time_ms": clock.now().0 }))
}

async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "alive": true }))
}

async fn ready(services: Data<HttpServices>) -> HttpResponse {
    readiness(&services.health)
}

fn readiness(health: &Health) -> HttpResponse {
    if health.missing().is_empty() {
        return HttpResponse::Ok().json(json!({ "ready": true, "missing": [], "engines": [] }));
    }
    unready(health)
}

fn unready(health: &Health) -> HttpResponse {
    let (missing, engines) = (health.missing(), health.engines_away());
    HttpResponse::ServiceUnavailable().json(json!({ "ready": false, "missing": missing, "engines": engines }))
}

async fn metrics(services: Data<HttpServices>) -> HttpResponse {
    rendered(&services.metrics, &services.health)
}

fn rendered(metrics: &Metrics, health: &Health) -> HttpResponse {
    health.tell(metrics);
    HttpResponse::Ok().insert_header(ContentType::plaintext()).body(metrics.render())
}

#[cfg(test)]
mod tests;
