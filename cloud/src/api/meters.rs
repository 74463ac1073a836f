//! `GET /v1/meters`, `/v1/meters/{meter}`: who there is, in which state, with the last reading of each series.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use protocols::metering::{MeterId, UtcMillis};
use protocols::uplink::GatewayId;
use serde_json::{Value, json};

use super::fleet::{Fleet, Meter};
use super::json::{answer, reading_json};
use super::params::Params;
use super::{ApiError, ApiState, Viewer};

const LIMIT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;

pub async fn list(_: Viewer, request: HttpRequest, state: Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let params = Params::parse(request.query_string(), &["gateway", "state", "after", "limit", "tz"])?;
    let zone = params.zone(&state.zone)?;
    let limit = params.limit(LIMIT, LIMIT_MAX)?;
    let fleet = state.fleet().await?;
    let gateway = params.text("gateway");
    let wanted_state = params.text("state");
    let after = params.text("after");
    let mut keys: Vec<(String, &Meter)> = fleet.meters.iter().map(|meter| (key(meter), meter)).collect();
    // By key, not by name: a page must not shift when a meter is renamed.
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    let mut found = keys.iter().filter(|(key, meter)| {
        after.is_none_or(|after| key.as_str() > after)
            && gateway.is_none_or(|gateway| meter.gateways.iter().any(|id| id.as_str() == gateway))
            && wanted_state.is_none_or(|state| meter.state_name() == state)
    });
    let page: Vec<_> = found.by_ref().take(limit).collect();
    let next = found.next().and_then(|_| page.last()).map(|(key, _)| key);
    let meters: Vec<Value> = page.iter().map(|(_, meter)| summary(meter, &zone)).collect();
    Ok(answer(&json!({ "meters": meters, "next": next })))
}

pub async fn one(
    _: Viewer,
    request: HttpRequest,
    path: Path<String>,
    state: Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let params = Params::parse(request.query_string(), &["tz"])?;
    let zone = params.zone(&state.zone)?;
    let fleet = state.fleet().await?;
    let meter = find(&fleet, &path)?;
    let mut value = summary(meter, &zone);
    let stored = meter.last.iter().map(|last| {
        let series = &last.series;
        json!({ "code": series.code.to_string(), "kind": series.kind.name(), "period_s": series.period_s,
                "last_reading": reading_json(last, &zone) })
    });
    let expected = meter.expected.iter().map(|expected| {
        json!({ "code": expected.code.to_string(), "kind": expected.kind.name(), "period_s": expected.period_s,
                "cadence_s": expected.cadence_s })
    });
    value["series"] = stored.collect();
    value["expected"] = expected.collect();
    Ok(answer(&value))
}

/// The meter of a path, or why there is none.
pub fn find<'a>(fleet: &'a Fleet, text: &str) -> Result<&'a Meter, ApiError> {
    let hint = "GET /v1/meters lists the meters";
    let id = MeterId::new(text).map_err(|error| ApiError::parameter(error.to_string(), hint))?;
    fleet.meter(&id).ok_or_else(|| ApiError::not_found(format!("there is no meter {id}"), hint))
}

/// What names a meter that may never have said who it is.
fn key(meter: &Meter) -> String {
    match (&meter.id, meter.gateways.first()) {
        (Some(id), _) => id.to_string(),
        (None, Some(gateway)) => format!("{gateway}/{}", meter.name),
        (None, None) => meter.name.clone(),
    }
}

fn summary(meter: &Meter, zone: &jiff::tz::TimeZone) -> Value {
    let instant = |at: Option<UtcMillis>| at.map(|at| at.to_string());
    let last = meter.last_reading().map(|last| {
        let mut value = reading_json(last, zone);
        let series = &last.series;
        value["code"] = json!(series.code.to_string());
        value["kind"] = json!(series.kind.name());
        value["period_s"] = json!(series.period_s);
        value
    });
    json!({
        "meter": meter.id.as_ref().map(MeterId::as_str),
        "name": meter.name,
        "gateways": meter.gateways.iter().map(GatewayId::as_str).collect::<Vec<_>>(),
        "metering_point": meter.metering_point,
        "protocol": meter.protocol,
        "seen_by": meter.seen_by.iter().map(GatewayId::as_str).collect::<Vec<_>>(),
        "state": meter.state_name(),
        "cause": meter.cause,
        "last_read_at": instant(meter.last_read_at),
        "clock_offset_ms": meter.clock_offset_ms,
        "said_at": instant(meter.said_at),
        "last_reading": last,
    })
}
