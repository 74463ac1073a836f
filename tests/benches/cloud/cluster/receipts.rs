//! Part `receipts`: from the seal of a batch to its receipt, at 2,000 readings a second.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::measure::{Reach, Row, Samples, note};
use tokio::time::Instant;

use super::Bench;
use super::fleet::{Fleet, Shape};

const SHAPE: Shape = Shape { gateways: 40, meters: 25, every: Duration::from_secs(1) };
const WARM_UP: Duration = Duration::from_secs(8);
const WINDOW: Duration = Duration::from_secs(8);
const WINDOWS: u32 = 5;
/// For the receipts of the last batches.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    bench.start_instances(1)?;
    let (begun, receipted, waiting) = bench.runtime.block_on(async {
        let fleet = Fleet::start(&bench.stage, 1, SHAPE).await?;
        tokio::time::sleep(WARM_UP).await;
        let begun = Instant::now();
        tokio::time::sleep(WINDOW * WINDOWS + PATIENCE).await;
        anyhow::Ok((begun, fleet.receipted(), fleet.waiting()))
    })?;
    bench.stop_instances(1)?;
    let mut windows = vec![Vec::new(); WINDOWS as usize];
    for done in receipted.iter().filter(|done| done.sealed >= begun) {
        let number = (done.sealed - begun).as_millis() / WINDOW.as_millis();
        if let Some(window) = windows.get_mut(number as usize) {
            window.push((done.answered - done.sealed).as_secs_f64() * 1e3);
        }
    }
    let end = begun + WINDOW * WINDOWS;
    ensure!(
        waiting.iter().all(|sealed| *sealed < begun || *sealed >= end),
        "batches have no receipt after {PATIENCE:?}"
    );
    let batches: usize = windows.iter().map(Vec::len).sum();
    let rate = (batches * 2 * SHAPE.meters) as f64 / (WINDOW * WINDOWS).as_secs_f64();
    // A machine that cannot keep the beat measures something else.
    ensure!(rate > 0.9 * SHAPE.readings_per_s(), "{rate:.0} readings/s, {} were to be sent", SHAPE.readings_per_s());
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let figures = windows.iter_mut().map(|window| quantile(window, part)).collect();
        let work = format!("from seal to receipt at {:.0} readings/s, {name}", SHAPE.readings_per_s());
        let (figures, beside) = (Samples::new(figures)?, String::new());
        Row { work: &work, figures: &figures, unit: "ms", reach: Reach::None, beside }.print()?;
    }
    Ok(note(&format!(
        "receipts: {} gateways that each upload a batch of {} readings a second by HTTP and publish its ref by MQTT; one instance with \
         its defaults; {WINDOWS} windows of {} s, {rate:.0} readings/s on average.",
        SHAPE.gateways,
        2 * SHAPE.meters,
        WINDOW.as_secs()
    ))?)
}

fn quantile(figures: &mut [f64], part: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let rank = (figures.len() as f64 * part).ceil() as usize;
    figures[rank.clamp(1, figures.len()) - 1]
}
