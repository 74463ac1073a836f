//! The head-end's log and store on one machine: a worker that uses them in its order of steps, and what must be true of both
//! after a power loss.
//!
//! Every batch has a number, and all that is in it follows from the number. A ref is that number as text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};
use cloud::embedded::{OpenOutcome, Opened, Options, open, rebuild_store};
use cloud::log::{AppliedBatch, EventLog as _, Ownership, PartitionCommit, RefConsumer, RefEvent, Topic, Uplinked};
use cloud::store::{RangeQuery, ReadingStore as _, StoreBatch};
use firmware_sim::rng::Rng;
use protocols::metering::{Code, Event, Kind, MeterId, ObisCode, Quality, Reading, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{Batch, BatchEvent, BatchId, BlockRow, Books, GatewayId, SeriesBlock};

use super::{Promises, Subject};

/// 2026-11-23, 02:13:20 UTC.
const T0: UtcMillis = UtcMillis(1_795_400_000_000);
const GATEWAYS: u64 = 3;
const READINGS: i64 = 12;
const QUARTER_MS: i64 = 900_000;

fn gateway(number: u64) -> Result<GatewayId> {
    GatewayId::new(&format!("gw-{}", number % GATEWAYS)).map_err(|error| anyhow!("{error}"))
}

fn series(number: u64) -> Result<Series> {
    let meter = MeterId::new(&format!("SIM:{}", number % GATEWAYS)).map_err(|error| anyhow!("{error}"))?;
    Ok(Series { meter, code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)), kind: Kind::Register, period_s: 0 })
}

/// The same number gives the same batch. Its first reading revises that of every earlier batch of its gateway.
fn batch(number: u64) -> Result<Arc<Batch>> {
    let row = |index: i64| {
        let captured_at = if index == 0 { T0 } else { T0.plus_ms((number as i64 * READINGS + index) * QUARTER_MS) };
        BlockRow {
            captured_at,
            nth: 0,
            mantissa: number as i64 * 1000 + index,
            quality: Quality::GOOD,
            read_at: UtcMillis(captured_at.seconds() * 1000),
            occurred_at: None,
            clock_offset_ms: None,
        }
    };
    let series = series(number)?;
    let event = Event {
        meter: series.meter.clone(),
        log: "0-0:99.98.0".to_owned(),
        at: T0.plus_ms(number as i64 * 1000),
        nth: 0,
        code: number as i64,
        raw: Vec::new(),
        text: format!("event {number}"),
    };
    let block = SeriesBlock {
        series,
        unit: Unit::WATT_HOUR,
        scaler: 0,
        stamped_by: StampedBy::Meter,
        rows: (0..READINGS).map(row).collect(),
    };
    let mut batch = Batch {
        id: BatchId { gateway: gateway(number)?, incarnation: 7, seq: number },
        sealed_at: T0.plus_ms(number as i64),
        blocks: vec![block],
        events: vec![BatchEvent { event, read_at: T0 }],
        inventory: None,
        books: Books::default(),
    };
    batch.books = batch.compute_books();
    Ok(Arc::new(batch))
}

fn readings(number: u64) -> Result<Vec<Reading>> {
    let batch = batch(number)?;
    let rows = batch.blocks.iter().flat_map(|block| block.rows.iter().map(|row| block.reading(row)));
    Ok(rows.collect())
}

/// Goes from refs to store and log, as a worker does.
struct Worker<'a> {
    pair: &'a Opened,
    consumer: Box<dyn RefConsumer>,
    owned: BTreeMap<u32, Owned>,
    /// Refs that are in the log and were not taken yet.
    left: u64,
}

struct Owned {
    ownership: Ownership,
    position: u64,
    staged: Vec<u64>,
}

impl<'a> Worker<'a> {
    async fn join(pair: &'a Opened) -> Result<Self> {
        let ends = pair.log.ends(Topic::Refs).await?;
        let mut worker = Self { pair, consumer: pair.log.consume_refs().await?, owned: BTreeMap::new(), left: 0 };
        while worker.owned.len() < ends.len() {
            let RefEvent::Assigned { ownership, position, .. } = worker.consumer.next().await? else {
                bail!("something came before every partition was assigned");
            };
            worker.left += ends[ownership.partition as usize] - position;
            worker.owned.insert(ownership.partition, Owned { ownership, position, staged: Vec::new() });
        }
        Ok(worker)
    }

    async fn take(&mut self) -> Result<()> {
        match self.consumer.next().await? {
            RefEvent::Record { partition, offset, uplinked: Uplinked::Ref(text), .. } => {
                let owned =
                    self.owned.get_mut(&partition).ok_or_else(|| anyhow!("partition {partition} is not owned"))?;
                owned.position = offset + 1;
                owned.staged.push(std::str::from_utf8(&text)?.parse()?);
                self.left -= 1;
                Ok(())
            }
            other => bail!("{other:?} came"),
        }
    }

    /// The store first, then the log. Answers what was committed.
    async fn commit(&mut self) -> Result<Vec<u64>> {
        let mut batches = BTreeMap::new();
        for number in self.owned.values().flat_map(|owned| owned.staged.iter().copied()) {
            batches.insert(number, batch(number)?);
        }
        let stored =
            batches.values().map(|batch| StoreBatch { batch: batch.clone(), sealed_effective: batch.sealed_at });
        self.pair.store.upsert(&stored.collect::<Vec<_>>()).await?;
        let mut commits = Vec::new();
        for owned in self.owned.values_mut().filter(|owned| !owned.staged.is_empty()) {
            let mut ledger = BTreeMap::new();
            let mut applied = Vec::new();
            for number in owned.staged.drain(..) {
                ledger.insert(gateway(number)?, number.to_string().into_bytes());
                let batch = batches[&number].clone();
                applied.push(AppliedBatch { sealed_effective: batch.sealed_at, batch });
            }
            let (ownership, position) = (owned.ownership, owned.position);
            commits.push(PartitionCommit {
                ownership,
                position,
                ledger: ledger.into_iter().collect(),
                batches: applied,
            });
        }
        self.pair.log.commit(commits, T0).await?;
        Ok(batches.into_keys().collect())
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// What the log holds.
#[derive(Default)]
struct Logged {
    /// Number, partition and offset of every ref.
    refs: BTreeMap<u64, (u32, u64)>,
    batches: BTreeMap<u64, Vec<Reading>>,
}

async fn logged(pair: &Opened) -> Result<Logged> {
    let mut logged = Logged::default();
    let ends = |topic| pair.log.ends(topic);
    for (partition, end) in ends(Topic::Refs).await?.into_iter().enumerate() {
        let partition = partition as u32;
        for (offset, _, _, uplinked) in pair.log.read_refs(partition, 0, end, usize::MAX).await? {
            let Uplinked::Ref(text) = uplinked else { bail!("nobody appended a status") };
            let number = std::str::from_utf8(&text)?.parse()?;
            let twice = logged.refs.insert(number, (partition, offset));
            ensure!(twice.is_none(), "ref {number} is in the log twice");
        }
    }
    for (partition, end) in ends(Topic::Readings).await?.into_iter().enumerate() {
        for record in pair.log.read_readings(partition as u32, 0, end, usize::MAX).await? {
            logged.batches.entry(record.batch.seq).or_default().push(record.reading);
        }
    }
    let mut events = BTreeSet::new();
    for (partition, end) in ends(Topic::Events).await?.into_iter().enumerate() {
        for record in pair.log.read_events(partition as u32, 0, end, usize::MAX).await? {
            ensure!(record.event == batch(record.batch.seq)?.events[0].event, "{:?} was altered", record.event);
            ensure!(events.insert(record.batch.seq), "an event of {} is in the log twice", record.batch);
        }
    }
    for (number, found) in &logged.batches {
        ensure!(*found == readings(*number)?, "batch {number} is in the log, but not as it was sealed: {found:?}");
    }
    ensure!(events.into_iter().eq(logged.batches.keys().copied()), "events and readings are of different batches");
    Ok(logged)
}

/// Each batch of the log is in the store; of the instant that all revise, the last one, or one behind it.
async fn check_store(pair: &Opened, logged: &Logged) -> Result<()> {
    for gateway in 0..GATEWAYS {
        let (from, to) = (T0, T0.plus_ms(1_000_000 * QUARTER_MS));
        let query = RangeQuery { series: series(gateway)?, from, to, after: None, rows_max: usize::MAX >> 1 };
        let stored = pair.store.read_range(query).await?;
        let values: BTreeMap<UtcMillis, i64> =
            stored.iter().map(|row| (row.captured_at, row.quantity.mantissa)).collect();
        ensure!(values.len() == stored.len(), "the store has an identity twice");
        for number in logged.batches.keys().filter(|number| **number % GATEWAYS == gateway) {
            for reading in readings(*number)? {
                let found = values.get(&reading.captured_at).copied();
                let wanted = reading.quantity.mantissa;
                let right = if reading.captured_at == T0 { found >= Some(wanted) } else { found == Some(wanted) };
                ensure!(right, "batch {number} is in the log; the store has {found:?} instead of {wanted}");
            }
        }
    }
    Ok(())
}

/// Log and store of a head-end in one folder.
pub struct Stores;

impl Stores {
    /// Appends refs, takes them, stores and commits them, `steps` times; leaves without closing when `abrupt`.
    pub fn write(folder: &Path, seed: u64, steps: u32, abrupt: bool) -> Result<()> {
        let pair = open(folder, &Options::default())?;
        let mut promises = Promises::in_folder(folder)?;
        let mut rng = Rng::seeded(seed);
        runtime()?.block_on(async {
            let mut next = logged(&pair).await?.refs.keys().last().map_or(1, |last| last + 1);
            let mut worker = Worker::join(&pair).await?;
            for _ in 0..steps {
                for _ in 0..=rng.below(3) {
                    let now = T0.plus_ms(next as i64);
                    pair.log.append_ref(&gateway(next)?, Uplinked::Ref(next.to_string().into_bytes()), now).await?;
                    promises.say(&format!("ref {next}"))?;
                    worker.left += 1;
                    next += 1;
                }
                if rng.below(3) > 0 {
                    for _ in 0..worker.left.min(1 + rng.below(8)) {
                        worker.take().await?;
                    }
                    for number in worker.commit().await? {
                        promises.say(&format!("committed {number}"))?;
                    }
                }
            }
            anyhow::Ok(())
        })?;
        if abrupt {
            std::process::exit(0);
        }
        Ok(())
    }

    async fn check(pair: &Opened, acknowledged: &[String]) -> Result<()> {
        let before = logged(pair).await?;
        for line in acknowledged {
            match line.split_once(' ') {
                Some(("ref", number)) => ensure!(before.refs.contains_key(&number.parse()?), "ref {number} is lost"),
                Some(("committed", number)) => {
                    ensure!(before.batches.contains_key(&number.parse()?), "batch {number} is lost");
                }
                _ => bail!("an unknown promise: {line}"),
            }
        }
        check_store(pair, &before).await?;
        let mut worker = Worker::join(pair).await?;
        for (number, (partition, offset)) in &before.refs {
            let settled = *offset < worker.owned[partition].position;
            let committed = before.batches.contains_key(number);
            ensure!(settled == committed, "batch {number}: committed {committed}, behind the position {settled}");
        }
        // The next worker goes on where the power failed.
        while worker.left > 0 {
            worker.take().await?;
        }
        worker.commit().await?;
        let after = logged(pair).await?;
        ensure!(after.refs.keys().eq(after.batches.keys()), "a ref was not worked off, or a batch has no ref");
        check_store(pair, &after).await
    }
}

impl Subject for Stores {
    fn judge(&self, folder: &Path, acknowledged: &[String], _: &mut Rng) -> Result<bool> {
        let pair = open(folder, &Options::default())?;
        runtime()?.block_on(async {
            let mut mended = false;
            for outcome in &pair.outcomes {
                match outcome {
                    OpenOutcome::Created => {}
                    OpenOutcome::RebuildStore { .. } => {
                        mended = true;
                        rebuild_store(&pair.log, &pair.store, None, drop).await?;
                    }
                    // None of these is what a power loss may do.
                    other => bail!("{other:?}"),
                }
            }
            Self::check(&pair, acknowledged).await?;
            Ok(mended)
        })
    }
}
