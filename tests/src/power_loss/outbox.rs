//! The gateway's outbox: a script that uses it as the gateway does, and what must be true of it after a power loss.
//!
//! Every reading has a number, and all that is in it follows from the number. The cursor `script` moves with the readings and
//! holds the last number. Promises are said after the commit; what may take readings away (a receipt, a refusal) is announced
//! before it, since it may be on the disk before it is promised.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use firmware_sim::rng::Rng;
use gateway::outbox::{
    OpenError, Outbox, OutboxError, OutboxSettings, Resubmitted, SealLimits, SealedBatch, StoreRequest, Which, salvage,
};
use protocols::metering::{
    Code, Event, Kind, MeterId, ObisCode, Quality, Quantity, Reading, Series, StampedBy, Unit, UtcMillis,
};
use protocols::uplink::{Batch, GatewayId, Payload, Receipt, RefusedSeq, SeqSet};

use super::{Promises, Subject};

pub(super) const FILE: &str = "outbox.db";
const CURSOR: &str = "script";
/// 2026-11-23, 02:13:20 UTC.
pub(super) const T0: i64 = 1_795_400_000_000;
/// Later than every reading of a script.
pub(super) const NOW: UtcMillis = UtcMillis(T0 + 30 * 86_400_000);
const METERS: u64 = 7;
/// A disk that takes writes again takes one of so many.
const FAILED_MAX: u32 = 8;

pub(super) fn settings() -> Result<OutboxSettings> {
    Ok(OutboxSettings::new(GatewayId::new("gw-1").map_err(|error| anyhow!("{error}"))?))
}

/// Every thirteenth number is an event.
fn is_event(number: u64) -> bool {
    number.is_multiple_of(13)
}

/// Every eleventh reading revises one of the same meter, stored before.
fn revised(number: u64) -> Option<u64> {
    let original = number.checked_sub(METERS)?;
    (number % 11 == 10 && !is_event(number) && !is_event(original)).then_some(original)
}

pub(super) fn reading(number: u64) -> Result<Reading> {
    let identity = revised(number).unwrap_or(number);
    Ok(Reading {
        series: Series {
            meter: meter(identity)?,
            code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
            kind: Kind::Register,
            period_s: 0,
        },
        captured_at: UtcMillis(T0 + identity as i64 * 1000),
        nth: 0,
        quantity: Quantity::new(number as i64 * 1000 + 7, (identity % 3) as i8, Unit::WATT_HOUR),
        quality: Quality::GOOD,
        read_at: UtcMillis(T0 + number as i64 * 1000),
        occurred_at: None,
        clock_offset_ms: (number % 2 == 1).then_some(number as i64 % 100),
        stamped_by: StampedBy::Meter,
    })
}

fn event(number: u64) -> Result<(Event, UtcMillis)> {
    let at = UtcMillis(T0 + number as i64 * 1000);
    let event = Event {
        meter: meter(number)?,
        log: "0-0:99.98.0".to_owned(),
        at,
        nth: 0,
        code: number as i64,
        raw: number.to_be_bytes().to_vec(),
        text: format!("event {number}"),
    };
    Ok((event, at))
}

fn meter(number: u64) -> Result<MeterId> {
    MeterId::new(&format!("SIM:{}", number % METERS)).map_err(|error| anyhow!("{error}"))
}

fn request(first: u64, last: u64) -> Result<StoreRequest> {
    let mut request = StoreRequest { cursors: vec![(CURSOR.to_owned(), last as i64)], ..StoreRequest::default() };
    for number in first..=last {
        if is_event(number) {
            request.events.push(event(number)?);
        } else {
            request.readings.push(reading(number)?);
        }
    }
    Ok(request)
}

/// Numbers of all that a batch holds, each checked to be what was stored under its number.
fn numbers_of(outbox: &Outbox, sealed: &SealedBatch) -> Result<Vec<u64>> {
    let id = &sealed.id;
    let bytes = outbox.payload(id.incarnation, id.seq)?.with_context(|| format!("payload of {id} is gone"))?;
    let batch: Batch = Payload::open(&bytes, sealed.sha256, sealed.uncompressed_bytes)?;
    batch.check().map_err(|error| anyhow!("{id}: {error}"))?;
    let mut numbers = Vec::new();
    for block in &batch.blocks {
        for row in &block.rows {
            let number = (row.mantissa / 1000) as u64;
            let (found, stored) = (block.reading(row), reading(number)?);
            ensure!(found == stored, "reading {number} was altered: {found:?} instead of {stored:?}");
            numbers.push(number);
        }
    }
    for found in &batch.events {
        let number = found.event.code as u64;
        ensure!((found.event.clone(), found.read_at) == event(number)?, "event {number} was altered: {found:?}");
        numbers.push(number);
    }
    Ok(numbers)
}

pub(super) fn receipt(incarnation: u64) -> Result<Receipt> {
    Ok(Receipt {
        gateway: settings()?.gateway,
        incarnation,
        applied_through: 0,
        applied: SeqSet::new(),
        refused: Vec::new(),
        resend: SeqSet::new(),
        later: SeqSet::new(),
        lost: SeqSet::new(),
        cloud_time: NOW,
    })
}

fn seal(outbox: &mut Outbox, which: Which, rows_max: usize) -> Result<Option<SealedBatch>> {
    let limits = SealLimits { rows_max, now: NOW };
    Ok(outbox.transaction(|outbox| outbox.seal(which, limits, None))?)
}

/// Opens as the gateway does: what is damaged is salvaged. True when it was.
fn open(path: &Path, mut draw: impl FnMut() -> u64 + Send + 'static) -> Result<(Outbox, bool)> {
    let incarnation = draw();
    let draw = move || Box::new(move || incarnation) as Box<dyn FnMut() -> u64 + Send>;
    match Outbox::open(path, settings()?, draw()) {
        Err(OpenError::Damaged(_)) => {
            salvage(path, settings()?)?;
            Ok((Outbox::open(path, settings()?, draw())?.0, true))
        }
        other => Ok((other?.0, false)),
    }
}

/// The script, run by a process of its own.
struct Script {
    outbox: Outbox,
    promises: Promises,
    rng: Rng,
    last: u64,
    /// Sealed and on their way.
    unsettled: BTreeSet<(u64, u64)>,
    refused: BTreeSet<(u64, u64)>,
}

impl Script {
    fn begin(folder: &Path, seed: u64) -> Result<Self> {
        let incarnation = seed + 1;
        let (outbox, _) = open(&folder.join(FILE), move || incarnation)?;
        let last = outbox.cursor(CURSOR)?.unwrap_or(0) as u64;
        let mut script = Self {
            promises: Promises::in_folder(folder)?,
            rng: Rng::seeded(seed),
            last,
            unsettled: BTreeSet::new(),
            refused: BTreeSet::new(),
            outbox,
        };
        for sealed in script.outbox.unsettled()? {
            script.sealed(&sealed)?;
        }
        script.refused =
            script.outbox.refused()?.iter().map(|it| (it.sealed.id.incarnation, it.sealed.id.seq)).collect();
        Ok(script)
    }

    fn step(&mut self) -> Result<()> {
        match self.rng.below(100) {
            _ if self.unsettled.len() > 6 => self.settle(),
            0..50 => self.store(),
            50..72 => self.seal(),
            72..90 => self.settle(),
            90..93 => self.refuse(),
            93..96 => self.resubmit(),
            _ => self.abandon(),
        }
    }

    /// One transaction, as the writer groups them: up to three stores, and now and then a seal with them.
    fn store(&mut self) -> Result<()> {
        let first = self.last + 1;
        let mut requests = Vec::new();
        let mut last = self.last;
        for _ in 0..=self.rng.below(3) {
            let count = 1 + self.rng.below(20);
            requests.push(request(last + 1, last + count)?);
            last += count;
        }
        let rows_max = 10 + self.rng.below(100) as usize;
        let seals = self.rng.below(5) == 0;
        let sealed = self.outbox.transaction(|outbox| {
            for request in &requests {
                outbox.store(request)?;
            }
            if seals { outbox.seal(Which::Backlog, SealLimits { rows_max, now: NOW }, None) } else { Ok(None) }
        })?;
        self.last = last;
        self.promises.say(&format!("stored {first} {last}"))?;
        sealed.map_or(Ok(()), |sealed| self.sealed(&sealed))
    }

    fn seal(&mut self) -> Result<()> {
        let which = if self.rng.below(3) == 0 { Which::Live } else { Which::Backlog };
        let rows_max = 10 + self.rng.below(200) as usize;
        match seal(&mut self.outbox, which, rows_max)? {
            Some(sealed) => self.sealed(&sealed),
            None => Ok(()),
        }
    }

    fn sealed(&mut self, sealed: &SealedBatch) -> Result<()> {
        let numbers: Vec<String> = numbers_of(&self.outbox, sealed)?.iter().map(u64::to_string).collect();
        let id = &sealed.id;
        let (at, sha256) = (sealed.sealed_at.0, sealed.sha256);
        self.unsettled.insert((id.incarnation, id.seq));
        let line = format!("sealed {} {} {sha256} {at} {}", id.incarnation, id.seq, numbers.join(","));
        self.promises.say(&line)
    }

    /// Does `work` to one batch, announced before and promised after.
    fn batch(
        &mut self,
        (incarnation, seq): (u64, u64),
        word: &str,
        work: impl FnOnce(&mut Outbox) -> Result<(), OutboxError>,
    ) -> Result<()> {
        self.promises.say(&format!("will-be-{word} {incarnation} {seq}"))?;
        self.outbox.transaction(work)?;
        self.promises.say(&format!("{word} {incarnation} {seq}"))
    }

    fn settle(&mut self) -> Result<()> {
        let Some(&(incarnation, seq)) = self.any(&self.unsettled.clone()) else { return Ok(()) };
        self.unsettled.remove(&(incarnation, seq));
        let mut receipt = receipt(incarnation)?;
        receipt.applied.insert(seq);
        self.batch((incarnation, seq), "applied", |outbox| outbox.settle(&receipt).map(drop))
    }

    fn refuse(&mut self) -> Result<()> {
        let Some(&(incarnation, seq)) = self.any(&self.unsettled.clone()) else { return Ok(()) };
        self.unsettled.remove(&(incarnation, seq));
        self.refused.insert((incarnation, seq));
        let mut receipt = receipt(incarnation)?;
        receipt.refused.push(RefusedSeq { seq, reason: "because".to_owned() });
        self.batch((incarnation, seq), "refused", |outbox| outbox.settle(&receipt).map(drop))
    }

    fn resubmit(&mut self) -> Result<()> {
        let Some(&(incarnation, seq)) = self.any(&self.refused.clone()) else { return Ok(()) };
        self.refused.remove(&(incarnation, seq));
        let mut again = Resubmitted::Unknown;
        self.batch((incarnation, seq), "resubmitted", |outbox| {
            again = outbox.resubmit(incarnation, seq, NOW)?;
            Ok(())
        })?;
        match again {
            Resubmitted::Sealed(sealed) => self.sealed(&sealed),
            other => bail!("batch {incarnation}-{seq} was refused, and is {other:?}"),
        }
    }

    fn abandon(&mut self) -> Result<()> {
        let Some(&(incarnation, seq)) = self.any(&self.unsettled.clone()) else { return Ok(()) };
        self.unsettled.remove(&(incarnation, seq));
        self.batch((incarnation, seq), "abandoned", |outbox| outbox.abandon(incarnation, seq))
    }

    fn any<'a>(&mut self, of: &'a BTreeSet<(u64, u64)>) -> Option<&'a (u64, u64)> {
        of.iter().nth(self.rng.below(of.len() as u64) as usize)
    }
}

/// What the promises add up to.
#[derive(Default)]
struct Promised {
    stored: u64,
    /// What each batch holds that was ever promised sealed, and its hash.
    batches: BTreeMap<(u64, u64), (String, Vec<u64>)>,
    sealed_at_max: i64,
    /// Word by word: the batches of which it was announced or promised.
    said: HashMap<String, BTreeSet<(u64, u64)>>,
}

impl Promised {
    fn read(lines: &[String]) -> Result<Self> {
        let mut promised = Self::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["stored", _, last] => promised.stored = last.parse()?,
                ["sealed", incarnation, seq, sha256, at, numbers] => {
                    let numbers = numbers.split(',').map(str::parse).collect::<Result<_, _>>()?;
                    let id = (incarnation.parse()?, seq.parse()?);
                    promised.batches.insert(id, (sha256.to_owned(), numbers));
                    promised.sealed_at_max = promised.sealed_at_max.max(at.parse()?);
                }
                [word, incarnation, seq] => {
                    let id = (incarnation.parse()?, seq.parse()?);
                    promised.said.entry(word.to_owned()).or_default().insert(id);
                }
                _ => bail!("an unknown promise: {line}"),
            }
        }
        Ok(promised)
    }

    fn has(&self, word: &str, id: (u64, u64)) -> bool {
        self.said.get(word).is_some_and(|ids| ids.contains(&id))
    }

    fn numbers(&self, word: &str) -> BTreeSet<u64> {
        let ids = self.said.get(word).into_iter().flatten();
        ids.filter_map(|id| self.batches.get(id)).flat_map(|(_, numbers)| numbers.iter().copied()).collect()
    }
}

/// All outboxes of one gateway, in every image: what a batch number was ever seen to name.
#[derive(Default)]
pub struct OutboxFile {
    named: Mutex<HashMap<(u64, u64), String>>,
    drawn: AtomicU64,
}

/// Incarnations that images draw begin here; those of scripts are below.
const DRAWN_FROM: u64 = 1 << 40;

impl OutboxFile {
    /// Runs `steps` steps of the script and answers without closing the file when `abrupt`.
    pub fn write(folder: &Path, seed: u64, steps: u32, abrupt: bool) -> Result<()> {
        let mut script = Script::begin(folder, seed)?;
        for _ in 0..steps {
            script.step()?;
        }
        if abrupt {
            std::mem::forget(script.outbox);
        }
        Ok(())
    }

    /// The same on a disk that fails now and then: a step that fails is an error of the disk, and before long one succeeds.
    pub fn write_on_failing_disk(folder: &Path, seed: u64, steps: u32) -> Result<()> {
        let mut failed = 0;
        let mut script = loop {
            match Script::begin(folder, seed) {
                Ok(script) => break script,
                // The gateway ends, and is started again.
                Err(error) => {
                    failed += 1;
                    ensure!(failed < FAILED_MAX, "{failed} starts failed: {error:?}");
                }
            }
        };
        for _ in 0..steps {
            match script.step() {
                Ok(()) => failed = 0,
                Err(error) => {
                    let of_disk = matches!(error.downcast_ref(), Some(OutboxError::Disk(_)));
                    failed += 1;
                    ensure!(of_disk && failed < FAILED_MAX, "failed {failed} times: {error:?}");
                }
            }
        }
        // The disk takes everything again: so does the outbox, whatever has failed before.
        script.store()?;
        script.seal()?;
        while !script.unsettled.is_empty() {
            script.settle()?;
        }
        std::mem::forget(script.outbox);
        Ok(())
    }

    /// Takes over what later promises of the same record say of batch numbers: an image may hold a batch whose promise the
    /// power loss prevented.
    pub fn expect(&self, promises: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
        let lines: Vec<String> = promises.into_iter().map(|line| line.as_ref().to_owned()).collect();
        for (id, (sha256, _)) in Promised::read(&lines)?.batches {
            self.name(id, &sha256)?;
        }
        Ok(())
    }

    fn name(&self, id: (u64, u64), sha256: &str) -> Result<()> {
        let mut named = self.named.lock().map_err(|_| anyhow!("an explorer panicked"))?;
        let before = named.entry(id).or_insert_with(|| sha256.to_owned());
        ensure!(before == sha256, "batch {}-{} names payload {before} and payload {sha256}", id.0, id.1);
        Ok(())
    }

    /// Everything that can be taken out of the outbox, as the cloud would see it: number and `sealed_at` of its batch.
    fn drain(&self, outbox: &mut Outbox, fresh: u64, promised: &Promised) -> Result<BTreeMap<u64, UtcMillis>> {
        let mut found = BTreeMap::new();
        for refused in outbox.refused()? {
            self.take(outbox, &refused.sealed, &mut found)?;
        }
        for _ in 0..100 {
            while let Some(sealed) = seal(outbox, Which::Backlog, 10_000)? {
                ensure!(sealed.id.incarnation == fresh, "{} is not of the new incarnation {fresh}", sealed.id);
                let (at, max) = (sealed.sealed_at.0, promised.sealed_at_max);
                ensure!(at > max, "{} was sealed at {at}, and another at {max} before it", sealed.id);
            }
            let unsettled = outbox.unsettled()?;
            if unsettled.is_empty() {
                ensure!(outbox.unsealed_rows() == 0, "{} rows can never be sealed", outbox.unsealed_rows());
                return Ok(found);
            }
            for sealed in unsettled {
                let id = (sealed.id.incarnation, sealed.id.seq);
                for word in ["applied", "refused", "abandoned"] {
                    ensure!(!promised.has(word, id), "{} was {word}, and is back", sealed.id);
                }
                self.take(outbox, &sealed, &mut found)?;
                let mut receipt = receipt(id.0)?;
                receipt.applied.insert(id.1);
                outbox.transaction(|outbox| outbox.settle(&receipt))?;
            }
        }
        bail!("the outbox never runs empty")
    }

    fn take(&self, outbox: &Outbox, sealed: &SealedBatch, found: &mut BTreeMap<u64, UtcMillis>) -> Result<()> {
        self.name((sealed.id.incarnation, sealed.id.seq), &sealed.sha256.to_string())?;
        for number in numbers_of(outbox, sealed)? {
            let twice = found.insert(number, sealed.sealed_at);
            ensure!(twice.is_none(), "number {number} is in two batches");
        }
        Ok(())
    }
}

impl Subject for OutboxFile {
    fn judge(&self, folder: &Path, acknowledged: &[String], _: &mut Rng) -> Result<bool> {
        let promised = Promised::read(acknowledged)?;
        let fresh = DRAWN_FROM + self.drawn.fetch_add(1, Ordering::Relaxed);
        let (mut outbox, salvaged) = open(&folder.join(FILE), move || fresh)?;
        let (_, _, damage) = outbox.verify()?;
        ensure!(damage.is_empty(), "{damage:?}");
        let cursor = outbox.cursor(CURSOR)?.unwrap_or(0) as u64;
        ensure!(cursor >= promised.stored, "the cursor is at {cursor}, {} was promised", promised.stored);
        let statuses = outbox.incarnations(NOW)?;
        for &(incarnation, seq) in promised.said.get("abandoned").into_iter().flatten() {
            let status = statuses.iter().find(|status| status.incarnation == incarnation);
            let told = status.is_some_and(|status| status.abandoned.contains(seq));
            ensure!(told, "batch {incarnation}-{seq} was abandoned, and nobody is told");
        }
        let found = self.drain(&mut outbox, fresh, &promised)?;
        let (leaving, gone) = (promised.numbers("will-be-applied"), promised.numbers("applied"));
        // The cursor moves with the readings: what it covers is there, promised or not.
        for number in 1..=cursor {
            ensure!(found.contains_key(&number) || leaving.contains(&number), "number {number} of {cursor} is lost");
        }
        for (&number, &sealed_at) in &found {
            ensure!(number <= cursor, "number {number} was not stored, the cursor is at {cursor}");
            ensure!(!gone.contains(&number), "number {number} had its receipt, and is sent again");
            // Also where the original was refused, and was submitted again after its revision was sealed.
            if let Some(&before) = revised(number).and_then(|original| found.get(&original)) {
                ensure!(before < sealed_at, "revision {number} is sealed at {sealed_at}, its original at {before}");
            }
        }
        Ok(salvaged)
    }
}
