//! How complete a local day is: what the inventories lead to expect against what the store holds, per meter and series.
//!
//! A local day has 23, 24 or 25 hours, now and then another number; an interval belongs to the day in which it *began*, so the
//! one that ends at midnight is the last of its day.

mod report;
mod series;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use protocols::metering::{Day, MeterId, Series, UtcMillis};
use protocols::uplink::{GatewayId, MeterEntry, MeterState};

pub use report::{CompletenessReport, MeterReport};
pub use series::{Gap, SeriesReport};

use crate::seen::{self, INVENTORY_AGE_MS_MAX};
use crate::store::{RangeQuery, ReadingStore, StoreError};
use series::Expectation;

/// Readings of one series read at once.
const PAGE: usize = 10_000;

/// How complete a day is: expected against held, per meter and series. Exit code 1 below the target.
#[derive(Debug, Clone, Args)]
pub struct CompletenessArgs {
    /// The local day.
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub day: Day,
    /// Whose days: an IANA time zone such as Europe/Berlin.
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    pub tz: String,
    /// Percent of the expected readings that is enough.
    #[arg(long, default_value_t = 100.0, value_name = "PERCENT")]
    pub target: f64,
    /// One JSON object on one line.
    #[arg(long)]
    pub json: bool,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompletenessError {
    #[error("{name:?} is no time zone of the IANA database")]
    Zone { name: String },
    #[error("{day} is no day that a calendar knows in {zone}")]
    Day { day: Day, zone: String },
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    #[error("the report could not be written")]
    Write(#[from] std::io::Error),
}

/// A local day as instants: from (inclusive) to (exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: UtcMillis,
    pub to: UtcMillis,
}

pub fn find_zone(name: &str) -> Result<TimeZone, CompletenessError> {
    TimeZone::get(name).map_err(|_| CompletenessError::Zone { name: name.to_owned() })
}

impl Window {
    /// Where midnight does not exist, the day begins when the clocks were set forward.
    pub fn of_day(day: Day, zone: &TimeZone) -> Result<Self, CompletenessError> {
        let error = || CompletenessError::Day { day, zone: zone.iana_name().unwrap_or("?").to_owned() };
        let (year, month, of_month) = day.civil();
        let year = i16::try_from(year).map_err(|_| error())?;
        let (month, of_month) = (month.cast_signed(), of_month.cast_signed());
        let date = Date::new(year, month, of_month).map_err(|_| error())?;
        let start = |date: Date| date.to_zoned(zone.clone()).map(|start| UtcMillis(start.timestamp().as_millisecond()));
        let from = start(date).map_err(|_| error())?;
        let to = date.tomorrow().and_then(start).map_err(|_| error())?;
        Ok(Self { from, to })
    }

    pub fn hours(&self) -> f64 {
        self.to.since(self.from) as f64 / 3_600_000.0
    }
}

/// A meter as the newest inventory that names it describes it.
struct Known {
    gateway: GatewayId,
    sealed_at: UtcMillis,
    entry: MeterEntry,
    /// Every gateway that sees it now.
    seen_by: Vec<GatewayId>,
}

/// How complete a local day is. Of a day that is not over, what was due until `now`.
pub async fn completeness(
    store: &dyn ReadingStore,
    day: Day,
    zone: &TimeZone,
    now: UtcMillis,
) -> Result<CompletenessReport, CompletenessError> {
    let whole = Window::of_day(day, zone)?;
    let window = Window { from: whole.from, to: whole.to.min(now).max(whole.from) };
    let day_is_over = now >= whole.to;
    let mut meters = Vec::new();
    for known in find_meters(store, now).await? {
        let mut series = Vec::new();
        for expected in &known.entry.expected {
            let Some(expectation) = Expectation::new(expected, window, day_is_over) else { continue };
            let instants = match &known.entry.meter {
                Some(meter) => read_instants(store, meter, &expectation).await?,
                None => Vec::new(),
            };
            series.push(expectation.compare(&instants));
        }
        meters.push(judge(known, series, now));
    }
    let zone = zone.iana_name().unwrap_or("UTC").to_owned();
    Ok(CompletenessReport { day, zone, window, day_is_over, meters })
}

/// Every meter of every inventory once. One that two gateways name counts as the one reports it that reads it.
async fn find_meters(store: &dyn ReadingStore, now: UtcMillis) -> Result<Vec<Known>, CompletenessError> {
    let mut meters: BTreeMap<(Option<MeterId>, String), Known> = BTreeMap::new();
    for (gateway, sealed_at, inventory) in store.inventories().await? {
        for entry in inventory.meters {
            // A meter that never said who it is has a name only, unique on its gateway.
            let name = if entry.meter.is_some() { String::new() } else { format!("{gateway}/{}", entry.name) };
            let seen_by: Vec<GatewayId> =
                seen::is_seen(&entry, sealed_at, now).then(|| gateway.clone()).into_iter().collect();
            let mut known = Known { gateway: gateway.clone(), sealed_at, entry, seen_by };
            let key = (known.entry.meter.clone(), name);
            let rank = |known: &Known| (known.entry.state == MeterState::Ok, known.sealed_at);
            if let Some(other) = meters.get_mut(&key) {
                other.seen_by.append(&mut known.seen_by);
                // Two entries of one gateway are one gateway.
                other.seen_by.sort_unstable();
                other.seen_by.dedup();
                if rank(other) >= rank(&known) {
                    continue;
                }
                known.seen_by.append(&mut other.seen_by);
            }
            meters.insert(key, known);
        }
    }
    Ok(meters.into_values().collect())
}

async fn read_instants(
    store: &dyn ReadingStore,
    meter: &MeterId,
    expectation: &Expectation,
) -> Result<Vec<UtcMillis>, CompletenessError> {
    let (from, to) = expectation.instants();
    let series = Series { meter: meter.clone(), ..expectation.series() };
    let mut instants: Vec<UtcMillis> = Vec::new();
    let mut after = None;
    loop {
        let query = RangeQuery { series: series.clone(), from, to, after, rows_max: PAGE };
        let page = store.read_range(query).await?;
        let Some(last) = page.last() else { return Ok(instants) };
        after = Some((last.captured_at, last.nth));
        instants.extend(page.iter().map(|row| row.captured_at));
        instants.dedup();
    }
}

fn judge(known: Known, series: Vec<SeriesReport>, now: UtcMillis) -> MeterReport {
    let Known { gateway, sealed_at, entry, seen_by } = known;
    let is_complete = series.iter().all(SeriesReport::is_complete) && (!series.is_empty() || entry.meter.is_some());
    let with_cause = |text: &str| match entry.cause.as_str() {
        "" => text.to_owned(),
        cause => format!("{text}: {cause}"),
    };
    let state_cause = match entry.state {
        MeterState::Ok | MeterState::Unknown => None,
        MeterState::Silent => Some(match entry.last_read_at {
            Some(at) => with_cause(&format!("silent since {at}")),
            None => with_cause("never answered"),
        }),
        MeterState::WrongIdentity => Some(with_cause("wrong identity")),
        MeterState::Refusing => Some(with_cause("refuses an object")),
        MeterState::ClockOff => Some(match entry.clock_offset_ms {
            Some(ms) => with_cause(&format!("clock off by {} s", ms / 1000)),
            None => with_cause("clock off"),
        }),
        MeterState::Parked => Some(with_cause("parked")),
    };
    let unheard = now.since(sealed_at) > INVENTORY_AGE_MS_MAX;
    let unheard = unheard.then(|| format!("gateway {gateway} not heard of since {sealed_at}"));
    let worst = series.iter().filter(|series| !series.is_complete()).min_by_key(|series| series.permille());
    let gap = worst.map(SeriesReport::describe);
    let unknown = (!is_complete && entry.meter.is_none()).then(|| "never identified".to_owned());
    // Why it is incomplete, most telling first; a complete meter needs attention only when its state says so.
    let cause = if is_complete { state_cause } else { state_cause.or(unheard).or(unknown).or(gap) };
    let seen_twice = seen::alarm(&seen_by);
    let cause = match (&seen_twice, cause) {
        (None, cause) => cause,
        (Some(_), cause) => Some(seen::joined(seen_twice, cause.as_deref().unwrap_or_default())),
    };
    MeterReport { name: entry.name, meter: entry.meter, gateway, seen_by, is_complete, cause, series }
}

/// Writes the report and returns the exit code: 0 when the target is met.
pub async fn run(
    args: &CompletenessArgs,
    store: &dyn ReadingStore,
    now: UtcMillis,
    out: &mut (dyn Write + Send),
) -> Result<u8, CompletenessError> {
    let zone = find_zone(&args.tz)?;
    let report = completeness(store, args.day, &zone, now).await?;
    if args.json {
        writeln!(out, "{}", report.to_json())?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(u8::from(!report.meets(args.target)))
}
