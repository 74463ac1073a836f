//! Every statement on the tables, each once.

use scylla::client::session::Session;
use scylla::errors::{DbError, PrepareError, RequestAttemptError};
use scylla::statement::prepared::PreparedStatement;

use super::error::CassandraError;
use super::read::READING_COLUMNS;
use super::settings::CassandraSettings;

/// An inventory can be as large as a payload: few of them to a page.
const INVENTORIES_PER_PAGE: i32 = 16;

/// Inserts end in the marker of their timestamp.
pub(super) struct Statements {
    pub(super) upsert_reading: PreparedStatement,
    pub(super) upsert_series: PreparedStatement,
    pub(super) upsert_series_day: PreparedStatement,
    pub(super) upsert_event: PreparedStatement,
    pub(super) upsert_event_day: PreparedStatement,
    pub(super) upsert_inventory: PreparedStatement,
    pub(super) select_day: PreparedStatement,
    pub(super) select_range: PreparedStatement,
    pub(super) select_instants: PreparedStatement,
    pub(super) select_last_two: PreparedStatement,
    pub(super) select_series: PreparedStatement,
    pub(super) select_series_days: PreparedStatement,
    pub(super) select_series_days_back: PreparedStatement,
    pub(super) select_event_days: PreparedStatement,
    pub(super) select_events: PreparedStatement,
    pub(super) select_inventories: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(session: &Session, settings: &CassandraSettings) -> Result<Self, CassandraError> {
        let keyspace = settings.keyspace();
        let prepare = |cql: String| prepare(session, settings, cql);
        let insert = |table: &str, columns: &str| {
            let markers = vec!["?"; columns.split(',').count()].join(", ");
            prepare(format!("INSERT INTO {keyspace}.{table} ({columns}) VALUES ({markers}) USING TIMESTAMP ?"))
        };
        let select = |columns: &str, rest: &str| prepare(format!("SELECT {columns} FROM {keyspace}.{rest}"));
        let series = "meter = ? AND code = ? AND kind = ? AND period_s = ?";
        let of_day = "readings WHERE meter = ? AND day = ? AND code = ? AND kind = ? AND period_s = ?";
        let range = format!("{of_day} AND captured_at >= ? AND captured_at <= ?");
        let mut select_inventories = select("gateway, inventory, WRITETIME(inventory)", "inventories").await?;
        select_inventories.set_page_size(INVENTORIES_PER_PAGE);
        Ok(Self {
            upsert_reading: insert(
                "readings",
                "meter, day, code, kind, period_s, captured_at, nth, value, unit, quality, gateway, read_at, occurred_at",
            )
            .await?,
            upsert_series: insert("series", "meter, code, kind, period_s, last_day").await?,
            upsert_series_day: insert("series_days", "meter, code, kind, period_s, day").await?,
            upsert_event: insert("events", "meter, day, at, log, nth, code, raw, text, gateway, read_at").await?,
            upsert_event_day: insert("event_days", "meter, day").await?,
            upsert_inventory: insert("inventories", "gateway, inventory").await?,
            select_day: select(READING_COLUMNS, "readings WHERE meter = ? AND day = ?").await?,
            select_range: select(READING_COLUMNS, &format!("{range} LIMIT ?")).await?,
            select_instants: select("captured_at", &range).await?,
            select_last_two: select(READING_COLUMNS, &format!("{of_day} ORDER BY code DESC, kind DESC, period_s DESC, captured_at DESC, nth DESC LIMIT 2")).await?,
            select_series: select("meter, code, kind, period_s, last_day", "series").await?,
            select_series_days: select("day", &format!("series_days WHERE {series} AND day >= ? AND day <= ?")).await?,
            select_series_days_back: select(
                "day",
                &format!("series_days WHERE {series} ORDER BY code DESC, kind DESC, period_s DESC, day DESC"),
            )
            .await?,
            select_event_days: select("day", "event_days WHERE meter = ? AND day >= ? AND day <= ?").await?,
            select_events: select(
                "at, log, nth, code, raw, text",
                "events WHERE meter = ? AND day = ? AND at >= ? AND at <= ?",
            )
            .await?,
            select_inventories,
        })
    }
}

/// The driver repeats only what is marked idempotent.
async fn prepare(
    session: &Session,
    settings: &CassandraSettings,
    cql: String,
) -> Result<PreparedStatement, CassandraError> {
    let prepared = session.prepare(cql.clone()).await;
    let mut prepared = prepared.map_err(|error| match &error {
        PrepareError::AllAttemptsFailed { first_attempt: RequestAttemptError::DbError(kind, cause) } => {
            let (cause, what) = (cause.clone(), cql.clone());
            match kind {
                DbError::Unauthorized => CassandraError::Forbidden { cause },
                DbError::Invalid | DbError::SyntaxError => CassandraError::Refused { what, cause },
                _ => CassandraError::Unavailable { cause: error.to_string() },
            }
        }
        _ => CassandraError::Unavailable { cause: error.to_string() },
    })?;
    prepared.set_is_idempotent(true);
    prepared.set_consistency(settings.section.read_consistency.level());
    Ok(prepared)
}
