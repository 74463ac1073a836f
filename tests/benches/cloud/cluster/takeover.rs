//! Part `takeover`: how long no receipts come after somebody was killed.

use std::time::Duration;

use anyhow::Result;
use tests::measure::{Reach, Row, Samples, note};
use tokio::time::Instant;

use super::Bench;
use super::fleet::{Fleet, Shape};

/// Enough gateways that each of the four partitions has some.
const SHAPE: Shape = Shape { gateways: 24, meters: 2, every: Duration::from_millis(500) };
const ROUNDS: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(180);
/// Between one blow and the next: partitions are divided again.
const REST: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
enum Victim {
    Worker,
    Kafka,
    Cassandra,
}

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    bench.start_instances(2)?;
    let fleet = bench.runtime.block_on(Fleet::start(&bench.stage, 2, SHAPE))?;
    settle(bench, &fleet)?;
    let kafka = &bench.engines.kafka;
    let bounds = [
        format!(
            "kafka.session_timeout_ms = {}, kafka.transaction_timeout_ms = {}",
            kafka.session_timeout_ms, kafka.transaction_timeout_ms
        ),
        format!("Kafka's own start, and kafka.transaction_timeout_ms = {}", kafka.transaction_timeout_ms),
        format!(
            "Cassandra's own start, and cassandra.request_timeout_ms = {}",
            bench.engines.cassandra.request_timeout_ms
        ),
    ];
    let blows = [
        ("kill -9 of one of two instances, until its partitions' batches have receipts", Victim::Worker),
        ("kill -9 and restart of Kafka's only node, until receipts", Victim::Kafka),
        ("kill -9 and restart of Cassandra's only node, until receipts", Victim::Cassandra),
    ];
    for ((work, victim), bound) in blows.into_iter().zip(bounds) {
        let (mut took, mut served) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let struck = Instant::now();
            strike(bench, victim)?;
            served.push(struck.elapsed().as_secs_f64());
            took.push(bench.runtime.block_on(fleet.served_again(struck, TIMEOUT))?.as_secs_f64());
            if let Victim::Worker = victim {
                bench.stage.start_instance(1)?;
            }
            settle(bench, &fleet)?;
        }
        let itself = Samples::new(served)?.median();
        let beside = match victim {
            Victim::Worker => bound,
            Victim::Kafka | Victim::Cassandra => format!("{itself:.1} s until it takes connections; {bound}"),
        };
        Row { work, figures: &Samples::new(took)?, unit: "s", reach: Reach::None, beside }.print()?;
    }
    drop(fleet);
    bench.stop_instances(2)?;
    Ok(note(&format!(
        "takeover: {ROUNDS} times each, two instances, four partitions, {} gateways with a batch each {} ms; from the kill until every \
         gateway has a receipt for a batch that it sealed after the kill.",
        SHAPE.gateways,
        SHAPE.every.as_millis()
    ))?)
}

/// What is struck runs again when this returns, but for an instance of ours: the other one takes over.
fn strike(bench: &mut Bench, victim: Victim) -> Result<()> {
    match victim {
        Victim::Worker => bench.stage.kill_instance(1),
        Victim::Kafka => {
            bench.cluster.kafka.kill(0)?;
            bench.cluster.kafka.restart(0)
        }
        Victim::Cassandra => {
            bench.cluster.cassandra.kill(0)?;
            bench.cluster.cassandra.restart(0)
        }
    }
}

/// Both work, and every gateway is served.
fn settle(bench: &Bench, fleet: &Fleet) -> Result<()> {
    (0..2).try_for_each(|number| bench.wait_ready(number))?;
    bench.runtime.block_on(async {
        tokio::time::sleep(REST).await;
        fleet.served_again(Instant::now(), TIMEOUT).await
    })?;
    Ok(())
}
