//! What batches of different sizes cost Cassandra and us. The server's CPU is the limit of a head-end, and the size of a batch
//! the lever: `rows_per_batch_max` and `bytes_per_batch_max` of the settings come from this table.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cloud::clock::SystemClock;
use cloud::store::cassandra::{CassandraSection, CassandraStore, Replication, migrate, open};
use cloud::store::{ReadingStore as _, StoreBatch};
use protocols::metering::{Code, Kind, MeterId, ObisCode, Quality, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{Batch, BatchId, BlockRow, Books, GatewayId, SeriesBlock};
use tests::measure::{Samples, folder, note, own_cpu, process_cpu};
use tests::services::{Cassandra, if_to_be_had};

const ROWS_PER_BATCH: [usize; 6] = [1, 50, 100, 200, 500, 1_000];
const ROUNDS: usize = 5;
/// Readings of one meter, all in one day, so that the largest batch can be full.
const ROWS: i64 = 2_000;
const METERS: u32 = 20;
/// Upserts of one run.
const UPSERTS: u32 = 2;
/// 2026-11-23, 00:00 UTC.
const MIDNIGHT: UtcMillis = UtcMillis(1_795_392_000_000);

/// Wall, server's CPU, own CPU of one run.
type Spent = (Duration, Duration, Duration);

pub(crate) fn run() -> Result<()> {
    let folder = folder()?;
    let Some(mut cassandra) = if_to_be_had(Cassandra::start(folder.path(), 1))? else { return Ok(()) };
    let server = cassandra.nodes()[0].id().context("it runs")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let stores = runtime.block_on(stores(&cassandra))?;
    let mut spent: Vec<Vec<Spent>> = vec![Vec::new(); stores.len()];
    let mut seq = 0;
    // The first round is for warming up.
    for round in 0..=ROUNDS {
        for place in 0..stores.len() {
            let place = if round % 2 == 0 { place } else { stores.len() - 1 - place };
            let upserts: Vec<StoreBatch> = (0..UPSERTS).map(|n| batch(seq + u64::from(n))).collect();
            seq += u64::from(UPSERTS);
            let run = runtime.block_on(write(&stores[place], &upserts, server))?;
            if round > 0 {
                spent[place].push(run);
            }
        }
    }
    let readings = f64::from(METERS) * ROWS as f64 * f64::from(UPSERTS);
    for (rows, runs) in ROWS_PER_BATCH.iter().zip(spent) {
        let median = |of: fn(&Spent) -> Duration| -> Result<f64> {
            Ok(Samples::new(runs.iter().map(|run| of(run).as_secs_f64()).collect())?.median())
        };
        let (wall, server, own) = (median(|run| run.0)?, median(|run| run.1)?, median(|run| run.2)?);
        note(&format!(
            "cassandra, {rows} rows a batch: {:.0} rows/s; CPU s per million rows: server {:.1}, we {:.2}",
            readings / wall,
            server / readings * 1e6,
            own / readings * 1e6
        ))?;
    }
    Ok(())
}

/// One for each size, all on the same tables.
async fn stores(cassandra: &Cassandra) -> Result<Vec<CassandraStore>> {
    let mut stores = Vec::new();
    for rows in ROWS_PER_BATCH {
        let section = CassandraSection {
            hosts: cassandra.contact_points(),
            replication: Replication::Everywhere(1),
            rows_per_batch_max: rows,
            bytes_per_batch_max: 1 << 20,
            ..CassandraSection::default()
        };
        let settings = section.check()?;
        migrate(&settings).await?;
        stores.push(open(&settings, &SystemClock).await?);
    }
    Ok(stores)
}

async fn write(store: &CassandraStore, upserts: &[StoreBatch], server: u32) -> Result<Spent> {
    let before = (tokio::time::Instant::now(), process_cpu(server)?, own_cpu());
    for upsert in upserts {
        store.upsert(std::slice::from_ref(upsert)).await?;
    }
    let (server, own) = (process_cpu(server)?.saturating_sub(before.1), own_cpu().saturating_sub(before.2));
    Ok((before.0.elapsed(), server, own))
}

/// A day for itself.
fn batch(seq: u64) -> StoreBatch {
    let block = |number: u32| SeriesBlock {
        series: Series {
            meter: MeterId::new(&format!("SIM:{number:08}")).expect("a valid id"),
            code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
            kind: Kind::Register,
            period_s: 0,
        },
        unit: Unit::WATT_HOUR,
        scaler: 0,
        stamped_by: StampedBy::Meter,
        rows: (0..ROWS)
            .map(|n| BlockRow {
                captured_at: MIDNIGHT.plus_ms(seq as i64 * 86_400_000 + n * 10_000),
                nth: 0,
                mantissa: 1_000_000 + i64::from(number) + 17 * n,
                quality: Quality::GOOD,
                read_at: MIDNIGHT,
                occurred_at: None,
                clock_offset_ms: None,
            })
            .collect(),
    };
    let id = BatchId { gateway: GatewayId::new("gw-000001").expect("a valid id"), incarnation: 7, seq };
    let batch = Batch {
        id,
        sealed_at: MIDNIGHT.plus_ms(seq as i64 * 86_400_000),
        blocks: (0..METERS).map(block).collect(),
        events: Vec::new(),
        inventory: None,
        books: Books::default(),
    };
    StoreBatch { sealed_effective: batch.sealed_at, batch: Arc::new(batch) }
}
