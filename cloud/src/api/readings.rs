//! `GET /v1/readings`: readings of one series, paged as JSON or whole as CSV.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use jiff::tz::TimeZone;
use protocols::metering::{Series, UtcMillis};
use serde_json::{Value, json};

use super::json::{answer, decimal, reading_json, started_at};
use super::params::{After, Params, local};
use super::{ApiError, ApiState, Viewer};
use crate::completeness::Window;
use crate::store::{RangeQuery, StoredReading};

const KNOWN: [&str; 11] = ["meter", "code", "kind", "period_s", "from", "to", "day", "tz", "after", "limit", "format"];
const LIMIT: usize = 1_000;
const LIMIT_MAX: usize = 10_000;
const CSV_LIMIT_MAX: usize = 10_000_000;
/// Rows of a CSV file held in memory at a time.
const CSV_PAGE: usize = 2_000;
const CSV_HEAD: &str = "meter,code,kind,period_s,start_utc,end_utc,start_local,end_local,nth,value,unit,quality,\
                        read_at,occurred_at,gateway\r\n";

pub async fn readings(_: Viewer, request: HttpRequest, state: Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let params = Params::parse(request.query_string(), &KNOWN)?;
    let zone = params.zone(&state.zone)?;
    let series = params.series()?;
    let window = params.window(&zone, state.clock.now())?;
    let after = params.optional::<After>("after", "the text of `next` of the page before")?;
    let after = after.map(|After(at, nth)| (at, nth));
    let query = |rows_max| range(series.clone(), window, after, rows_max);
    match params.text("format") {
        None | Some("json") => {
            let limit = params.limit(LIMIT, LIMIT_MAX)?;
            let mut rows = state.store.read_range(query(limit.saturating_add(1))).await?;
            if rows.is_empty() {
                check_series(&state, &series).await?;
            }
            let is_more = rows.len() > limit;
            rows.truncate(limit);
            Ok(answer(&page(&series, window, &zone, &rows, is_more)))
        }
        Some("csv") => {
            let rows_left = params.limit(CSV_LIMIT_MAX, CSV_LIMIT_MAX)?;
            let rows = state.store.read_range(query(rows_left.min(CSV_PAGE))).await?;
            if rows.is_empty() {
                check_series(&state, &series).await?;
            }
            Ok(csv(Csv { state, zone, query: query(CSV_PAGE), rows, rows_left, started: false }))
        }
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(ApiError::parameter(format!("format={other} is not known"), "json or csv"))
        }
    }
}

/// Intervals belong to the window in which they lie: `from < captured_at <= to`. Others: `from <= captured_at <= to`.
pub fn range(series: Series, window: Window, after: Option<(UtcMillis, u8)>, rows_max: usize) -> RangeQuery {
    let from = if series.kind.has_period() { window.from.plus_ms(1) } else { window.from };
    RangeQuery { series, from, to: window.to, after, rows_max }
}

/// A series of which nothing is stored yet is one all the same when it is expected.
async fn check_series(state: &ApiState, series: &Series) -> Result<(), ApiError> {
    let fleet = state.fleet().await?;
    let meter = super::meters::find(&fleet, series.meter.as_str())?;
    let is_stored = meter.last.iter().any(|last| last.series == *series);
    let is_expected = meter.expected.iter().any(|expected| {
        (&expected.code, expected.kind, expected.period_s) == (&series.code, series.kind, series.period_s)
    });
    if is_stored || is_expected {
        return Ok(());
    }
    let hint = format!("GET /v1/meters/{} lists its series", series.meter);
    Err(ApiError::not_found(format!("there is no series {series}"), hint))
}

fn page(series: &Series, window: Window, zone: &TimeZone, rows: &[StoredReading], is_more: bool) -> Value {
    let next = rows.last().filter(|_| is_more).map(|last| After(last.captured_at, last.nth).to_string());
    json!({
        "meter": series.meter.as_str(),
        "code": series.code.to_string(),
        "kind": series.kind.name(),
        "period_s": series.period_s,
        "from": window.from.to_string(),
        "to": window.to.to_string(),
        "tz": zone.iana_name().unwrap_or("UTC"),
        "readings": rows.iter().map(|row| reading_json(row, zone)).collect::<Vec<_>>(),
        "next": next,
    })
}

/// A file under way.
struct Csv {
    state: Data<ApiState>,
    zone: TimeZone,
    query: RangeQuery,
    rows: Vec<StoredReading>,
    rows_left: usize,
    started: bool,
}

impl Csv {
    /// The next piece; `None` at the end.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ApiError> {
        let mut text = String::new();
        if self.started {
            let Some(last) = self.rows.last() else { return Ok(None) };
            self.query.after = Some((last.captured_at, last.nth));
            self.query.rows_max = self.rows_left.min(CSV_PAGE);
            if self.query.rows_max == 0 {
                return Ok(None);
            }
            self.rows = self.state.store.read_range(self.query.clone()).await?;
            if self.rows.is_empty() {
                return Ok(None);
            }
        } else {
            text.push_str(CSV_HEAD);
            self.started = true;
        }
        self.rows_left = self.rows_left.saturating_sub(self.rows.len());
        for row in &self.rows {
            push_row(&mut text, row, &self.zone);
        }
        Ok(Some((Bytes::from(text), self)))
    }
}

/// The status is sent with the first rows: a failure after that cuts the file short, which HTTP tells the client.
fn csv(csv: Csv) -> HttpResponse {
    let series = &csv.query.series;
    let stem = format!("{}_{}_{}", series.meter, series.code, series.kind);
    let stem: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((CONTENT_TYPE, "text/csv; charset=utf-8; header=present"))
        .insert_header((CONTENT_DISPOSITION, format!("attachment; filename=\"{stem}.csv\"")))
        .streaming(stream::try_unfold(csv, Csv::next))
}

/// No field needs quotes: none of their alphabets has a comma, a quote or a line end.
fn push_row(text: &mut String, row: &StoredReading, zone: &TimeZone) {
    let series = &row.series;
    let start = started_at(series, row.captured_at);
    let fields = [
        series.meter.to_string(),
        series.code.to_string(),
        series.kind.to_string(),
        series.period_s.to_string(),
        start.map(|at| at.to_string()).unwrap_or_default(),
        row.captured_at.to_string(),
        start.map(|at| local(at, zone)).unwrap_or_default(),
        local(row.captured_at, zone),
        row.nth.to_string(),
        decimal(row.quantity),
        row.quantity.unit.to_string(),
        row.quality.to_string(),
        row.read_at.to_string(),
        row.occurred_at.map(|at| at.to_string()).unwrap_or_default(),
        row.gateway.to_string(),
    ];
    text.push_str(&fields.join(","));
    text.push_str("\r\n");
}
