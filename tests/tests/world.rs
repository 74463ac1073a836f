//! Does anything get lost, doubled or out of order in a thousand lives, each from one seed?

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tests::world::{KINDS, Life, live};

const SEEDS: u64 = 1_000;

/// `METERPOST_SEEDS` asks for more or fewer, `METERPOST_SEED` for one alone.
fn seeds() -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("METERPOST_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("METERPOST_SEEDS").unwrap_or(SEEDS)),
    }
}

/// Negative controls, each run once over 60 lives, with how many of them failed: acknowledge in `actors/feed.rs` before the store
/// (28); take a batch for settled when its ref is published (12); apply a batch that the ledger has already (60); let a receipt say
/// one seq more than is applied (60); let rows that are not fresh overtake the backlog (14); forget the day below the head when a
/// clock was set (1); use one incarnation for ever (60). Over 200 lives: ignore `resend` (5). Not seen, since the rules cover for
/// each other: that the store takes the later seal, or that a row waits for an unsettled one of its identity, broken alone.
///
/// Of the fleets: do not write down which invocation counters are reserved (5 of 14 lives); store each push of a port twice; take a D0 push
/// whose block check is wrong (both in the life of seed 6, which has D0).
#[test]
fn nothing_is_lost_or_doubled_in_any_life() {
    let (first, count) = seeds();
    if count == 1 {
        // The story of this life; `RUST_LOG=debug` for what the parts say in it.
        let default = "tests=info".parse().expect("a filter");
        let filter = tracing_subscriber::EnvFilter::builder().with_default_directive(default).from_env_lossy();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    let (next, lives) = (AtomicU64::new(first), Mutex::new(Vec::<Life>::new()));
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    match std::panic::catch_unwind(|| live(seed)) {
                        Ok(Ok(life)) => lives.lock().unwrap_or_else(PoisonError::into_inner).push(life),
                        Ok(Err(error)) => failures.lock().unwrap().push(format!("seed {seed}: {error:#}")),
                        Err(_) => failures.lock().unwrap().push(format!("seed {seed}: a panic, see above")),
                    }
                }
            });
        }
    });
    let (lives, mut failures) = (lives.into_inner().unwrap(), failures.into_inner().unwrap());
    failures.sort();
    let sum = |of: fn(&Life) -> u64| lives.iter().map(of).sum::<u64>();
    println!(
        "{} lives: {} readings captured, {} unread, {} answers not kept, {} without an instant; {} batches, {} repeated, {} revised; \
         {} deaths of the gateway, {} of the cloud, {} outages, {} payloads lost, {} clocks set",
        lives.len(),
        sum(|life| life.captured),
        sum(|life| life.unread),
        sum(|life| life.unkept),
        sum(|life| life.without_instant),
        sum(|life| life.batches),
        sum(|life| life.repeated),
        sum(|life| life.revised),
        sum(|life| life.gateway_deaths),
        sum(|life| life.cloud_deaths),
        sum(|life| life.outages),
        sum(|life| life.payloads_lost),
        sum(|life| life.clocks_set),
    );
    let mut fleets = KINDS.map(|kind| (kind, 0)).into_iter().collect::<BTreeMap<_, u64>>();
    for kind in lives.iter().flat_map(|life| &life.fleet) {
        *fleets.entry(*kind).or_default() += 1;
    }
    println!("in their fleets: {fleets:?}");
    assert!(
        failures.is_empty(),
        "{} of {count} lives failed; METERPOST_SEED=N replays one:\n{}",
        failures.len(),
        failures.iter().take(10).cloned().collect::<Vec<_>>().join("\n")
    );
    assert_eq!(lives.len() as u64, count);
    if count >= SEEDS {
        assert!(fleets.values().all(|lives| *lives > 0), "a kind of meter is in no fleet any more");
        assert!(sum(|life| life.without_instant) > 0 && sum(|life| life.unkept) > 0);
    }
}

#[test]
fn the_same_seed_lives_the_same_life() {
    for seed in [3, 4] {
        assert_eq!(live(seed).unwrap(), live(seed).unwrap(), "seed {seed}");
    }
}
