//! All gateways and meters as they stand: inventories, last readings and the ledger put together.

use std::collections::BTreeMap;

use protocols::metering::{MeterId, UtcMillis};
use protocols::uplink::{ExpectedSeries, GatewayId, MeterState};

use super::ApiError;
use crate::ledger::{GatewayLedger, StatusDigest, Twins};
use crate::log::EventLog;
use crate::seen;
use crate::store::{ReadingStore, StoredReading};

/// A gateway says something at least this often when all is well.
pub const HEARD_MS_MAX: i64 = 15 * 60_000;

#[derive(Debug, Clone)]
pub struct Meter {
    /// `None`: configured, and never said who it is.
    pub id: Option<MeterId>,
    /// As configured; the id where no inventory names it.
    pub name: String,
    /// Those that name it or delivered its last readings, the one in charge first.
    pub gateways: Vec<GatewayId>,
    /// Those at which it answers now, ascending: more than one is an alarm.
    pub seen_by: Vec<GatewayId>,
    pub metering_point: Option<String>,
    pub protocol: Option<String>,
    pub state: MeterState,
    pub cause: String,
    pub last_read_at: Option<UtcMillis>,
    pub clock_offset_ms: Option<i64>,
    /// When the inventory that says so was sealed.
    pub said_at: Option<UtcMillis>,
    pub expected: Vec<ExpectedSeries>,
    /// The last reading of each series, ascending by (code as text, kind, period).
    pub last: Vec<StoredReading>,
}

impl Meter {
    pub fn last_reading(&self) -> Option<&StoredReading> {
        self.last.iter().max_by_key(|reading| reading.captured_at)
    }

    /// The state that its gateway says, unless several gateways see it.
    pub fn state_name(&self) -> &'static str {
        if self.seen_by.len() > 1 { seen::TWO_GATEWAYS } else { self.state.name() }
    }

    fn unnamed(id: &MeterId) -> Self {
        Self {
            id: Some(id.clone()),
            name: id.to_string(),
            gateways: Vec::new(),
            seen_by: Vec::new(),
            metering_point: None,
            protocol: None,
            state: MeterState::Unknown,
            cause: String::new(),
            last_read_at: None,
            clock_offset_ms: None,
            said_at: None,
            expected: Vec::new(),
            last: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Gateway {
    /// Its last ref or status.
    pub last_heard_at: Option<UtcMillis>,
    pub status: Option<StatusDigest>,
    pub meters: usize,
    pub meters_ok: usize,
    pub batches_applied: u64,
    pub batches_refused: u64,
    pub batches_lost: u64,
    /// What a person must see to, before all else.
    pub alarm: Option<String>,
}

impl Gateway {
    pub fn is_heard(&self, now: UtcMillis) -> bool {
        self.last_heard_at.is_some_and(|at| now.since(at) <= HEARD_MS_MAX)
    }
}

#[derive(Debug, Default)]
pub struct Fleet {
    /// Ascending by name, then id.
    pub meters: Vec<Meter>,
    pub gateways: BTreeMap<GatewayId, Gateway>,
}

impl Fleet {
    pub async fn read(log: &dyn EventLog, store: &dyn ReadingStore, now: UtcMillis) -> Result<Self, ApiError> {
        let mut gateways: BTreeMap<GatewayId, Gateway> = BTreeMap::new();
        for (id, record) in log.read_ledger().await? {
            match GatewayLedger::decode(&record) {
                Ok(ledger) => drop(gateways.insert(id, judge(&ledger, now))),
                Err(error) => tracing::warn!(gateway = %id, %error, "a ledger record cannot be read"),
            }
        }
        let mut meters = read_inventories(store, &mut gateways, now).await?;
        for meter in meters.values_mut() {
            meter.seen_by.sort_unstable();
            meter.seen_by.dedup();
            if let Some(alarm) = seen::alarm(&meter.seen_by) {
                meter.cause = seen::joined(Some(alarm), &meter.cause);
            }
        }
        for reading in store.last_readings().await? {
            let id = &reading.series.meter;
            let meter = meters.entry((Some(id.clone()), String::new())).or_insert_with(|| Meter::unnamed(id));
            if !meter.gateways.contains(&reading.gateway) {
                meter.gateways.push(reading.gateway.clone());
            }
            gateways.entry(reading.gateway.clone()).or_default();
            // The inventory comes when something changed, and daily.
            meter.last_read_at = meter.last_read_at.max(Some(reading.read_at));
            meter.last.push(reading);
        }
        let mut meters: Vec<Meter> = meters.into_values().collect();
        meters.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(Self { meters, gateways })
    }

    pub fn meter(&self, id: &MeterId) -> Option<&Meter> {
        self.meters.iter().find(|meter| meter.id.as_ref() == Some(id))
    }
}

fn judge(ledger: &GatewayLedger, now: UtcMillis) -> Gateway {
    let heard = ledger.incarnations().map(|(_, incarnation)| incarnation.last_heard_at());
    let heard = heard.chain(ledger.status().map(|status| status.received_at)).filter(|at| at.0 > 0);
    let mut gateway = Gateway { last_heard_at: heard.max(), status: ledger.status().cloned(), ..Gateway::default() };
    gateway.alarm = ledger.twins().filter(|twins| twins.are_there(now)).map(Twins::to_string);
    for (_, incarnation) in ledger.incarnations() {
        gateway.batches_applied += incarnation.applied_count();
        gateway.batches_refused += incarnation.refused().len();
        gateway.batches_lost += incarnation.lost().len();
    }
    gateway
}

/// A meter that two gateways name is told as the one tells it that reads it, else as the newer inventory does.
async fn read_inventories(
    store: &dyn ReadingStore,
    gateways: &mut BTreeMap<GatewayId, Gateway>,
    now: UtcMillis,
) -> Result<BTreeMap<(Option<MeterId>, String), Meter>, ApiError> {
    let mut meters: BTreeMap<(Option<MeterId>, String), Meter> = BTreeMap::new();
    for (gateway_id, sealed_at, inventory) in store.inventories().await? {
        let gateway = gateways.entry(gateway_id.clone()).or_default();
        for entry in inventory.meters {
            gateway.meters += 1;
            gateway.meters_ok += usize::from(entry.state == MeterState::Ok);
            let name = if entry.meter.is_some() { String::new() } else { format!("{gateway_id}/{}", entry.name) };
            let is_seen = seen::is_seen(&entry, sealed_at, now);
            let mut meter = Meter {
                id: entry.meter.clone(),
                name: entry.name,
                gateways: vec![gateway_id.clone()],
                seen_by: is_seen.then(|| gateway_id.clone()).into_iter().collect(),
                metering_point: entry.metering_point,
                protocol: Some(entry.protocol),
                state: entry.state,
                cause: entry.cause,
                last_read_at: entry.last_read_at,
                clock_offset_ms: entry.clock_offset_ms,
                said_at: Some(sealed_at),
                expected: entry.expected,
                last: Vec::new(),
            };
            let key = (entry.meter, name);
            if let Some(other) = meters.get_mut(&key) {
                let rank = |meter: &Meter| (meter.state == MeterState::Ok, meter.said_at);
                meter.seen_by.append(&mut other.seen_by);
                if rank(other) >= rank(&meter) {
                    other.gateways.push(gateway_id.clone());
                    other.seen_by = meter.seen_by;
                    continue;
                }
                meter.gateways.append(&mut other.gateways);
            }
            meters.insert(key, meter);
        }
    }
    Ok(meters)
}
