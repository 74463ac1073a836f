//! Part `cluster`: Kafka, Cassandra and a Parquet writer, each alone, and our program through all three, in turns.

use std::cell::RefCell;

use anyhow::Result;
use tests::measure::{Reach, Row, Samples, alternate, note, own_cpu};

use super::load::{Made, READINGS};
use super::ours::Drained;
use super::parquet::Rows;
use super::peers::{CassandraPeer, KafkaPeer};
use super::{Bench, settle};

const ROUNDS: usize = 3;
const GATEWAYS: usize = 60;
/// Of each gateway in one round: so many that what Cassandra puts off, compaction above all, falls due within it.
const BATCHES: usize = 15;

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    let count = GATEWAYS * BATCHES * READINGS;
    // Warms everything up, and makes the records for the others.
    let first = bench.loads.next(GATEWAYS, BATCHES)?;
    bench.drain(1, &first)?;
    let folder = bench.stage.folder().to_owned();
    let kafka = KafkaPeer::new(&bench.cluster.kafka, &bench.engines.kafka, count, &folder)?;
    let cassandra = bench.runtime.block_on(CassandraPeer::new(&bench.engines.cassandra))?;
    // Each round has rows of its own: the warm-up, and the rounds.
    let rounds = (0..=ROUNDS).map(|_| bench.loads.next(GATEWAYS, BATCHES)).collect::<Result<Vec<Vec<Made>>>>()?;
    let rows = Rows::new(&first);
    let (mut loaded, mut drained) = (rounds.iter(), rounds.iter());
    let mut ours: Vec<Drained> = Vec::new();
    let bench = RefCell::new(bench);
    let spent: [RefCell<Vec<f64>>; 3] = Default::default();
    let [by_bare, by_c, by_p] = &spent;
    let [k, bare, c, p, own] = alternate(
        ROUNDS,
        [
            &mut || {
                let bench = bench.borrow();
                settle()?;
                kafka.benchmark(&bench.cluster.kafka, count)
            },
            &mut || {
                settle()?;
                metered(by_bare, count, || kafka.produce())
            },
            &mut || {
                settle()?;
                let made = loaded.next().expect("a load for each round");
                metered(by_c, count, || bench.borrow().runtime.block_on(cassandra.load(made)))
            },
            &mut || {
                settle()?;
                metered(by_p, count, || rows.write(&folder.join("bare.parquet")))
            },
            &mut || {
                let made = drained.next().expect("a load for each round");
                let run = bench.borrow_mut().drain(1, made)?;
                ours.push(run);
                Ok(run.readings_per_s)
            },
        ],
    )?;
    // The first was the warm-up.
    let runs = &ours[1..];
    print(runs, &own, [&k, &bare, &c, &p])?;
    let [by_bare, by_c, by_p] = spent.map(|spent| Samples::new(spent.into_inner().split_off(1)));
    print_cpu(&Samples::new(runs.iter().map(|run| run.cpu_us).collect())?, [&by_bare?, &by_c?, &by_p?])?;
    let committed: Vec<f64> = runs.iter().map(|run| run.committed_share).collect();
    Ok(note(&format!(
        "cluster: {count} readings of 10 s cadence a round, batches of {READINGS}; each begins once the machine is quiet; a record is {:.0} bytes with key and headers. Ours: one \
         instance of `meterpost-cloud run`, payloads landed before, timed from the first ref in the log until all readings are stored, \
         committed and archived ({:.0} % of that until all are committed); CPU and peak memory of its process. k: \
         ProducerPerformance, acks=all, zstd, no transactions, records of the same bytes with the top bit off (it reads text), after \
         a warm-up. Bare: one loop on librdkafka, the same records in the same order. c: one loop on the same driver, the same \
         statement, batches and requests at once. p: the crate `parquet`, the same schema and settings, sorted rows in memory \
         to a file.",
        kafka.record_bytes(),
        Samples::new(committed)?.median() * 100.0
    ))?)
}

fn print(runs: &[Drained], own: &Samples, [k, bare, c, p]: [&Samples; 4]) -> Result<()> {
    let samples = |of: fn(&Drained) -> f64| Samples::new(runs.iter().map(of).collect());
    let alone = |work: &str, figures: &Samples| {
        let (unit, reach, beside) = ("readings/s", Reach::None, String::new());
        Row { work, figures, unit, reach, beside }.print()
    };
    alone("k: Kafka alone, its producer benchmark", k)?;
    alone("Kafka alone, a bare loop on librdkafka", bare)?;
    alone("c: Cassandra alone, a bare loader with our statement", c)?;
    alone("p: a bare Parquet writer", p)?;
    alone("head-end through all three, from refs in the log to committed, stored and archived", own)?;
    let one_after_the_other = |k: &Samples| {
        let slowness = k.map(|k| 1.0 / k).plus(&c.map(|c| 1.0 / c)).plus(&p.map(|p| 1.0 / p));
        slowness.map(|slowness| 1.0 / slowness)
    };
    let (limit, limit_bare) = (one_after_the_other(k), one_after_the_other(bare));
    let beside = format!("{:.0} readings/s", limit.median());
    let work = "the same, over 1/(1/k + 1/c + 1/p)";
    Row { work, figures: &own.over(&limit), unit: "x", reach: Reach::AtLeast(0.8), beside }.print()?;
    let beside = format!("{:.0} readings/s", limit_bare.median());
    let work = "the same, with the bare loop on librdkafka for k";
    Row { work, figures: &own.over(&limit_bare), unit: "x", reach: Reach::None, beside }.print()?;
    let (work, figures) =
        ("head-end on the engines: peak of resident memory at full load", samples(|run| run.peak_mb)?);
    let beside = String::new();
    Ok(Row { work, figures: &figures, unit: "MB", reach: Reach::AtMost(300.0), beside }.print()?)
}

fn print_cpu(own: &Samples, [bare, c, p]: [&Samples; 3]) -> Result<()> {
    let unit = "µs per reading";
    let (work, reach, beside) = ("head-end on the engines: CPU", Reach::AtMost(4.0), String::new());
    Row { work, figures: own, unit, reach, beside }.print()?;
    let all = bare.plus(c).plus(p);
    let [bare, c, p] = [bare, c, p].map(Samples::median);
    let beside = format!("librdkafka {bare:.2}, driver of Cassandra {c:.2}, Parquet {p:.2}");
    let work = "the bare loops together: CPU, of rows that lie in memory";
    Row { work, figures: &all, unit, reach: Reach::None, beside }.print()?;
    let (work, beside) = ("head-end's CPU over theirs", String::new());
    Ok(Row { work, figures: &own.over(&all), unit: "x", reach: Reach::None, beside }.print()?)
}

/// Work of this process on so many readings, and what it takes of the CPU for each, in µs.
fn metered(spent: &RefCell<Vec<f64>>, readings: usize, work: impl FnOnce() -> Result<f64>) -> Result<f64> {
    let before = own_cpu();
    let rate = work()?;
    spent.borrow_mut().push(own_cpu().saturating_sub(before).as_secs_f64() * 1e6 / readings as f64);
    Ok(rate)
}
