//! `GET /v1/gateways`, `/v1/gateways/{gateway}/batches`: what each gateway said, and what it delivered.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use protocols::metering::UtcMillis;
use protocols::uplink::GatewayId;
use serde_json::{Value, json};

use super::fleet::Gateway;
use super::json::answer;
use super::params::Params;
use super::{ApiError, ApiState, Viewer};
use crate::log::{BooksRecord, EventLog, Topic};

const LIMIT: usize = 50;
const LIMIT_MAX: usize = 500;
/// Offsets looked at in one step.
const WINDOW: u64 = 512;
/// Offsets looked at for one answer: the books of a large fleet hold few batches of one gateway. What is further back takes
/// another request.
const LOOKED_AT_MAX: u64 = 65_536;

pub(super) async fn list(_: Viewer, request: HttpRequest, state: Data<ApiState>) -> Result<HttpResponse, ApiError> {
    Params::parse(request.query_string(), &[])?;
    let fleet = state.fleet().await?;
    let now = state.clock.now();
    let gateways = fleet.gateways.iter().map(|(id, gateway)| gateway_json(id, gateway, state.live.rate(id, now)));
    Ok(answer(&json!({ "gateways": gateways.collect::<Vec<_>>() })))
}

pub(super) async fn batches(
    _: Viewer,
    request: HttpRequest,
    path: Path<String>,
    state: Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let params = Params::parse(request.query_string(), &["after", "limit"])?;
    let limit = params.limit(LIMIT, LIMIT_MAX)?;
    let hint = "GET /v1/gateways lists the gateways";
    let gateway = GatewayId::new(&path).map_err(|error| ApiError::parameter(error.to_string(), hint))?;
    let ends = state.log.ends(Topic::Books).await?;
    let (page, next) = match params.text("after") {
        Some(cursor) => back(&*state.log, &gateway, parse_cursor(cursor, &ends)?, limit).await?,
        None => back(&*state.log, &gateway, ends, limit).await?,
    };
    if page.is_empty() && next.is_none() && !state.fleet().await?.gateways.contains_key(&gateway) {
        return Err(ApiError::not_found(format!("there is no gateway {gateway}"), hint));
    }
    let batches: Vec<Value> = page.iter().map(batch_json).collect();
    Ok(answer(&json!({ "gateway": gateway.as_str(), "batches": batches, "next": next })))
}

fn parse_cursor(text: &str, ends: &[u64]) -> Result<Vec<u64>, ApiError> {
    let offsets: Option<Vec<u64>> = text.split('-').map(|offset| offset.parse().ok()).collect();
    let wrong = || ApiError::parameter("after is not valid", "the text of `next` of the page before");
    let offsets = offsets.filter(|offsets| offsets.len() == ends.len()).ok_or_else(wrong)?;
    Ok(offsets.into_iter().zip(ends).map(|(offset, end)| offset.min(*end)).collect())
}

/// Goes back through the books from `before`, newest first. All batches of a gateway are in one partition: once that is
/// found, the others are left alone. The cursor says how far back each partition was looked at.
async fn back(
    log: &dyn EventLog,
    gateway: &GatewayId,
    mut before: Vec<u64>,
    limit: usize,
) -> Result<(Vec<BooksRecord>, Option<String>), ApiError> {
    let mut page = Vec::new();
    let mut looked_at = 0;
    while page.len() < limit && looked_at < LOOKED_AT_MAX && before.iter().any(|end| *end > 0) {
        for partition in 0..before.len() {
            let end = before[partition];
            let from = end.saturating_sub(WINDOW);
            if end == 0 {
                continue;
            }
            let records = log.read_books(partition as u32, from, end, WINDOW as usize).await?;
            looked_at += end - from;
            before[partition] = from;
            let own = records.into_iter().rev().filter(|record| record.batch.gateway == *gateway);
            let own: Vec<BooksRecord> = own.take(limit - page.len()).collect();
            if own.is_empty() {
                continue;
            }
            page.extend(own);
            let last = page.last().map_or(from, |record| record.offset);
            before.fill(0);
            before[partition] = if page.len() == limit { last } else { from };
            break;
        }
    }
    let is_more = before.iter().any(|end| *end > 0);
    let cursor = || before.iter().map(u64::to_string).collect::<Vec<_>>().join("-");
    Ok((page, is_more.then(cursor)))
}

fn gateway_json(id: &GatewayId, gateway: &Gateway, readings_per_s: f64) -> Value {
    let instant = |at: Option<UtcMillis>| at.map(|at| at.to_string());
    let status = gateway.status.as_ref();
    json!({
        "gateway": id.as_str(),
        "last_heard_at": instant(gateway.last_heard_at),
        "software": status.map(|status| &status.software),
        "backlog_rows": status.map(|status| status.backlog_rows),
        "backlog_since": instant(status.and_then(|status| status.backlog_since)),
        "dropped": status.map(|status| status.dropped),
        "meters": gateway.meters,
        "meters_ok": gateway.meters_ok,
        "batches_applied": gateway.batches_applied,
        "batches_refused": gateway.batches_refused,
        "batches_lost": gateway.batches_lost,
        "alarm": gateway.alarm,
        "readings_per_s": readings_per_s,
    })
}

fn batch_json(record: &BooksRecord) -> Value {
    let days = record
        .books
        .days
        .iter()
        .map(|(day, books)| json!({ "day": day.to_string(), "readings": books.readings, "events": books.events }));
    let sum = |of: fn(&protocols::uplink::DayBooks) -> u64| record.books.days.values().map(of).sum::<u64>();
    json!({
        "batch": record.batch.to_string(),
        "incarnation": format!("{:016x}", record.batch.incarnation),
        "seq": record.batch.seq,
        "sealed_at": record.sealed_at.to_string(),
        "committed_at": record.committed_at.to_string(),
        "readings": sum(|day| day.readings),
        "events": sum(|day| day.events),
        "days": days.collect::<Vec<_>>(),
        "partition": record.partition,
        "offset": record.offset,
    })
}
