//! Health, metrics, status and `accept`, on loopback.
//!
//! What changes something asks for the header [`COMMAND_HEADER`], which the page of some site, open in a browser on this machine,
//! cannot send without asking first, and for a host that is this machine.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use protocols::metering::MeterId;
use tokio::net::TcpListener;
use tracing::{debug, info};

use crate::inventory::InventoryKeeper;
use crate::outbox::OutboxHandle;
use crate::telemetry::{Metric, Metrics};

/// Says that a request comes from `meterpost-gateway` itself.
pub const COMMAND_HEADER: &str = "x-meterpost-command";
/// `POST` it, with a meter id behind it.
pub const ACCEPT_PATH: &str = "/accept/";

/// Whoever asks for the health of a gateway whose disk hangs wants an answer too. Less than the wait for a locked file, 5 s.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// What the pages show.
#[derive(Clone)]
pub struct Observed {
    pub gateway: String,
    pub outbox: OutboxHandle,
    pub metrics: Metrics,
    pub inventory: InventoryKeeper,
}

/// Binds before anything else starts, so that a port in use is an error at once.
pub async fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

pub async fn serve(listener: TcpListener, observed: Observed) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others will free some.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let observed = observed.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, observed.clone()));
            if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
                debug!(%error, "http connection");
            }
        });
    }
}

async fn answer(request: Request<Incoming>, observed: Observed) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => match tokio::time::timeout(HEALTH_TIMEOUT, observed.outbox.usage()).await {
            Ok(Ok(_)) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{error}\n")),
            Err(_) => {
                let text = format!("the outbox does not answer within {} s\n", HEALTH_TIMEOUT.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, "text/plain", text)
            }
        },
        (&Method::GET, "/metrics") => (StatusCode::OK, "text/plain; version=0.0.4", observed.metrics.render()),
        (&Method::GET, "/status") => match status(&observed).await {
            Ok(status) => (StatusCode::OK, "application/json", status.to_string()),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{error}\n")),
        },
        (&Method::POST, path) if path.starts_with(ACCEPT_PATH) => {
            let (status, answer) = accept(&request, &path[ACCEPT_PATH.len()..], &observed).await;
            (status, "application/json", answer.to_string())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind.parse().expect("a plain header value"));
    Ok(response)
}

async fn accept(request: &Request<Incoming>, meter: &str, observed: &Observed) -> (StatusCode, serde_json::Value) {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_ours = host.parse::<SocketAddr>().is_ok_and(|host| host.ip().is_loopback());
    if !is_ours || !request.headers().contains_key(COMMAND_HEADER) {
        return (StatusCode::FORBIDDEN, serde_json::json!({ "error": "not a command of meterpost-gateway" }));
    }
    let meter = match MeterId::new(meter) {
        Ok(meter) => meter,
        Err(error) => return (StatusCode::BAD_REQUEST, serde_json::json!({ "error": error.to_string() })),
    };
    match observed.outbox.accept(meter.clone()).await {
        Ok((released, held)) => {
            info!(%meter, released, "held rows are released");
            let held: Vec<_> = held.keys().map(MeterId::as_str).collect();
            (StatusCode::OK, serde_json::json!({ "released": released, "held": held }))
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({ "error": error.to_string() })),
    }
}

async fn status(observed: &Observed) -> Result<serde_json::Value, crate::outbox::OutboxError> {
    let usage = observed.outbox.usage().await?;
    let meters = observed.inventory.snapshot().1.meters.into_iter().map(|meter| {
        serde_json::json!({
            "name": meter.name,
            "meter": meter.meter.map(|id| id.to_string()),
            "protocol": meter.protocol,
            "state": meter.state.name(),
            "cause": meter.cause,
            "last_read_at": meter.last_read_at.map(|at| at.to_string()),
            "clock_offset_ms": meter.clock_offset_ms,
        })
    });
    Ok(serde_json::json!({
        "gateway": observed.gateway,
        "connected": observed.metrics.value(Metric::UplinkConnected) == 1,
        "outbox": usage,
        "meters": meters.collect::<Vec<_>>(),
    }))
}
