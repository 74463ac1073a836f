//! An outbox whose content is known, and looking at one without going through the outbox.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use gateway::outbox::{Outbox, OutboxSettings, SealLimits, SealedBatch, StoreRequest, Which};
use protocols::metering::{
    Code, Kind, MeterId, ObisCode, Quality, Quantity, Reading, Series, StampedBy, Unit, UtcMillis,
};
use protocols::uplink::{GatewayId, Receipt, RefusedSeq, SeqSet};
use rusqlite::Connection;
use rusqlite::types::Value;

/// Who owns it, when nobody else is named: the gateway of a stage.
pub const OWNER: &str = "demo-gateway";
/// The incarnation of everything that is sealed in [`filled`].
pub const INCARNATION: u64 = 0x00c0_ffee_00c0_ffee;
/// Its reason for refusing the first batch.
pub const REASON: &str = "the hash is not that of the payload";
pub const METER: &str = "SIM:1";
pub const HELD_METER: &str = "KFM:9";

/// What [`filled`] puts in.
pub const REFUSED: i64 = 10;
pub const UNSETTLED: i64 = 5;
pub const UNSEALED: i64 = 3;
pub const HELD: i64 = 2;

const T0: i64 = 1_795_400_000_000;

/// The `number`-th reading of a meter: a register of so many Wh.
pub fn reading(meter: &str, number: i64) -> anyhow::Result<Reading> {
    let code = Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255));
    Ok(Reading {
        series: Series { meter: MeterId::new(meter)?, code, kind: Kind::Register, period_s: 0 },
        captured_at: UtcMillis(T0 + number * 1000),
        nth: 0,
        quantity: Quantity::new(number, 0, Unit::WATT_HOUR),
        quality: Quality::GOOD,
        read_at: UtcMillis(T0 + number * 1000),
        occurred_at: None,
        clock_offset_ms: None,
        stamped_by: StampedBy::Meter,
    })
}

pub fn path_in(folder: &Path) -> PathBuf {
    folder.join("outbox.db")
}

/// Creates or opens the outbox of `gateway`.
pub fn open(folder: &Path, gateway: &str) -> anyhow::Result<Outbox> {
    let settings = OutboxSettings::new(GatewayId::new(gateway)?);
    Ok(Outbox::open(&path_in(folder), settings, Box::new(|| INCARNATION))?.0)
}

/// Puts readings `from..to` of a meter in.
pub fn store(outbox: &mut Outbox, meter: &str, from: i64, to: i64) -> anyhow::Result<()> {
    let readings = (from..to).map(|number| reading(meter, number)).collect::<anyhow::Result<_>>()?;
    let request = StoreRequest { readings, hold_identity: meter == HELD_METER, ..StoreRequest::default() };
    outbox.transaction(|outbox| outbox.store(&request))?;
    Ok(())
}

fn seal(outbox: &mut Outbox) -> anyhow::Result<SealedBatch> {
    let limits = SealLimits { rows_max: 1_000, now: UtcMillis(T0 + 60_000) };
    outbox.transaction(|outbox| outbox.seal(Which::Backlog, limits, None))?.context("there is something to seal")
}

/// Of the stage's gateway: a refused batch, one on its way, rows that are not sealed, rows that are held, a repeat. Readings of
/// [`METER`] are numbered in this order.
pub fn filled(folder: &Path) -> anyhow::Result<()> {
    let mut outbox = open(folder, OWNER)?;
    store(&mut outbox, METER, 0, REFUSED)?;
    let refused = seal(&mut outbox)?.id;
    let receipt = Receipt {
        gateway: GatewayId::new(OWNER)?,
        incarnation: refused.incarnation,
        applied_through: 0,
        applied: SeqSet::new(),
        refused: vec![RefusedSeq { seq: refused.seq, reason: REASON.to_owned() }],
        resend: SeqSet::new(),
        later: SeqSet::new(),
        lost: SeqSet::new(),
        cloud_time: UtcMillis(T0),
    };
    outbox.transaction(|outbox| outbox.settle(&receipt))?;
    store(&mut outbox, METER, REFUSED, REFUSED + UNSETTLED)?;
    seal(&mut outbox)?;
    let end = REFUSED + UNSETTLED + UNSEALED;
    store(&mut outbox, METER, REFUSED + UNSETTLED, end)?;
    store(&mut outbox, METER, end - 1, end)?;
    store(&mut outbox, HELD_METER, 0, HELD)
}

/// Every file of a folder, octet by octet, but for the lock and SQLite's index of the WAL, which readers write to.
pub fn files(folder: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "lock" && !name.ends_with("-shm") {
            files.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// Every row of every table.
pub fn tables(folder: &Path) -> anyhow::Result<BTreeMap<String, Vec<Vec<Value>>>> {
    let connection = Connection::open(path_in(folder))?;
    let names = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let names: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?
        .query_map([], names)?
        .collect::<Result<_, _>>()?;
    ensure!(!names.is_empty(), "there is no table");
    let mut tables = BTreeMap::new();
    for name in names {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name}"))?;
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        let rows = statement.query_map([], row)?.collect::<Result<Vec<Vec<Value>>, _>>()?;
        tables.insert(name, rows);
    }
    Ok(tables)
}
