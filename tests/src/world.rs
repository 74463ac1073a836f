//! The whole system in one process, from one seed: virtual meters, gateway, brokers, cloud. Which protocols and protections the meters
//! speak, the seed says too ([`KINDS`]). Time is virtual, transports are memory, and everything between the meter's bytes and the sinks
//! is production code; outbox, log and store run their statements inline on SQLite in memory, so that a world has no thread but the one
//! it lives on, and no chance but its seed. (Challenges and dedicated keys are the system's; nothing depends on which.)
//!
//! A life: two hours in which uplink and feed tear, messages are lost, doubled and overtaken, the broker forgets, payloads
//! vanish, calls of log and store fail in every way, clocks are set, that of the gateway is wrong, and both processes die at any await;
//! then everything heals, pushes end, and the [`crate::checkers`] are asked.

mod clock;
mod edge;
mod fleet;
mod head;
mod host;
mod meters;
mod net;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use anyhow::ensure;
use demo::sinks::{log_events, read_archive, read_sources, without_instant};
use demo::verdict::{Captured, Comparison, Deaf, Identity};
use tokio::sync::watch;
use tokio::time::sleep;

use self::clock::WorldClock;
use self::edge::{Around, Edge};
pub use self::fleet::KINDS;
use self::head::Head;
use self::meters::Meters;
use self::net::{FeedBroker, Net, Weather, WorldUploader};
use crate::checkers;
use crate::random::Random;

const TROUBLED: Duration = Duration::from_secs(2 * 3600);
/// The longest pauses of the system are an hour (a meter that did not answer for long, a parked actor).
const QUIET_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// Between two looks, at first.
const LOOK_AFTER: Duration = Duration::from_secs(37);
/// Polls within which a doomed process dies: a few minutes of its work.
const DOOM_POLLS: u64 = 300;

/// What a life came to, when all was well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Life {
    pub captured: u64,
    pub unread: u64,
    pub batches: u64,
    pub repeated: u64,
    pub revised: u64,
    pub gateway_deaths: u64,
    pub cloud_deaths: u64,
    pub outages: u64,
    pub payloads_lost: u64,
    pub clocks_set: u64,
    /// Answers to the gateway that it stamps, and did not keep.
    pub unkept: u64,
    /// Values whose instant nobody knows.
    pub without_instant: u64,
    /// What was in the fleet, of [`KINDS`].
    pub fleet: BTreeSet<&'static str>,
    /// Virtual time until everything was in every sink.
    pub lasted: Duration,
}

/// Lives the life of one seed. An error says what did not hold.
pub fn live(seed: u64) -> anyhow::Result<Life> {
    cloud::offload::stay_on_this_thread();
    cloud::backoff::seed_this_thread(seed);
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let world = World::new(seed, folder.path())?;
        let mut script = std::pin::pin!(world.script());
        poll_fn(|context| {
            let told = script.as_mut().poll(context);
            world.edge.host.poll(context);
            for host in &world.head.hosts {
                host.poll(context);
            }
            match told {
                Poll::Pending => Poll::Pending,
                Poll::Ready(result) => Poll::Ready(result),
            }
        })
        .await
    })
}

struct World {
    clock: WorldClock,
    net: Arc<Net>,
    feeds: Arc<FeedBroker>,
    meters: Meters,
    edge: Edge,
    head: Head,
    random: RefCell<Random>,
    life: RefCell<Life>,
    deaf: RefCell<Vec<Deaf>>,
    /// Which of the cloud's hosts works.
    active: RefCell<usize>,
}

impl World {
    fn new(seed: u64, folder: &std::path::Path) -> anyhow::Result<Self> {
        let mut random = Random::new(seed);
        let clock = WorldClock::new();
        let weather = Weather { lost: random.below(15), doubled: random.below(15), late: random.below(10) };
        let net = Net::new(clock.clone(), weather, random.next_u64());
        let feeds = FeedBroker::new(net.clone());
        let meters = Meters::start(&mut random, &feeds, folder)?;
        let edge = Edge::new(&mut random, &meters.toml.concat())?;
        let head = Head::new(&mut random, clock.clone(), net.clone())?;
        // Before the first start nobody hears a port.
        let deaf = RefCell::new(vec![Deaf { from: 0, to: i64::MAX, before_the_first_start: false }]);
        let life = RefCell::new(Life { fleet: meters.kinds.clone(), ..Life::default() });
        let active = RefCell::new(0);
        Ok(Self { clock, net, feeds, meters, edge, head, random: RefCell::new(random), life, deaf, active })
    }

    /// For whoever replays one life.
    fn tell(&self, what: &str) {
        tracing::info!(at = %self.clock.now(), "{what}");
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    fn boot_gateway(&self) -> anyhow::Result<()> {
        let (payloads, store) = (self.head.payloads(), self.head.sources().store);
        let cloud = Arc::new(WorldUploader { net: self.net.clone(), payloads, store });
        let around = Around {
            clock: &self.clock,
            net: &self.net,
            feeds: &self.feeds,
            meters: &self.meters,
            uploader: cloud.clone(),
            held: cloud,
        };
        self.edge.boot(&around)?;
        self.tell("the gateway starts");
        if let Some(deaf) = self.deaf.borrow_mut().last_mut() {
            // What was pushed in this very instant may have found the port still closed.
            deaf.to = self.clock.now().0;
        }
        Ok(())
    }

    async fn script(&self) -> anyhow::Result<Life> {
        // One gateway in eight has no clock battery.
        if self.below(8) == 0 {
            self.clock.set_gateway_off(-self.clock.now().0 + self.below(1_000_000) as i64);
        }
        self.tell(&format!("the fleet has {:?}", self.meters.kinds));
        self.head.boot(0, true);
        self.boot_gateway()?;
        while self.clock.elapsed() < TROUBLED {
            sleep(Duration::from_millis(1_000 + self.below(300_000))).await;
            match self.below(11) {
                0..3 => self.gateway_dies().await?,
                3..5 => self.cloud_dies().await,
                5 => self.outage(&self.net.mqtt_up, 900),
                6 => self.outage(&self.net.http_up, 900),
                7 => self.outage(&self.net.feed_up, 300),
                8 => {
                    self.tell("the broker forgets");
                    self.net.forget();
                }
                9 => {
                    let mut random = Random::new(self.random.borrow_mut().next_u64());
                    self.meters.set_a_clock(&mut random, |what| self.tell(what)).await;
                    self.life.borrow_mut().clocks_set += 1;
                }
                _ => {
                    let lost = self.head.lose_a_payload().await?;
                    self.tell(&format!("a payload is lost: {lost}"));
                    self.life.borrow_mut().payloads_lost += u64::from(lost);
                }
            }
        }
        self.heal().await?;
        let troubled = self.truth();
        self.wait_until_quiet(&troubled).await?;
        self.check(&troubled).await
    }

    /// Tears a way for so many seconds at most.
    fn outage(&self, way: &watch::Sender<bool>, most_s: u64) {
        let (way, lasts) = (way.clone(), Duration::from_millis(1_000 + self.below(most_s * 1000)));
        way.send_replace(false);
        self.tell(&format!("a way is torn for {lasts:?}"));
        self.life.borrow_mut().outages += 1;
        tokio::spawn(async move {
            sleep(lasts).await;
            way.send_replace(true);
        });
    }

    async fn gateway_dies(&self) -> anyhow::Result<()> {
        self.edge.host.doom(self.below(DOOM_POLLS) as u32);
        let mut from = 0;
        while self.edge.host.is_alive() {
            from = self.clock.now().0;
            sleep(Duration::from_millis(200)).await;
        }
        self.deaf.borrow_mut().push(Deaf { from, to: i64::MAX, before_the_first_start: false });
        self.life.borrow_mut().gateway_deaths += 1;
        self.tell("the gateway is dead");
        sleep(Duration::from_millis(self.below(300_000))).await;
        if self.below(4) == 0 {
            // The time has come over the network meanwhile.
            self.clock.set_gateway_off(0);
        }
        self.boot_gateway()
    }

    /// The next process begins after the death, or before it.
    async fn cloud_dies(&self) {
        let active = *self.active.borrow();
        let overlaps = self.below(3) == 0;
        let next = if overlaps { 1 - active } else { active };
        if overlaps {
            self.head.boot(next, true);
            *self.active.borrow_mut() = next;
        }
        let host = &self.head.hosts[active];
        host.doom(self.below(DOOM_POLLS) as u32);
        while host.is_alive() {
            sleep(Duration::from_millis(200)).await;
        }
        self.life.borrow_mut().cloud_deaths += 1;
        self.tell("the cloud is dead");
        if !overlaps {
            sleep(Duration::from_millis(self.below(300_000))).await;
            self.head.boot(next, true);
        }
    }

    async fn heal(&self) -> anyhow::Result<()> {
        self.meters.calm_down();
        self.clock.set_gateway_off(0);
        // Outages end by themselves.
        sleep(Duration::from_secs(900)).await;
        for way in [&self.net.mqtt_up, &self.net.http_up, &self.net.feed_up] {
            ensure!(*way.borrow(), "an outage did not end");
        }
        Ok(())
    }

    fn truth(&self) -> BTreeMap<Identity, Captured> {
        checkers::truth_of(&self.meters.truth.kept_lines())
    }

    /// Waits until all that was captured in the troubled times is in every sink and has left the outbox. Those meters that are
    /// read go on.
    async fn wait_until_quiet(&self, troubled: &BTreeMap<Identity, Captured>) -> anyhow::Result<()> {
        let sources = self.head.sources();
        let (since, peace) = (self.clock.elapsed(), self.clock.now().0);
        let (mut missing, mut pause) = (String::new(), LOOK_AFTER);
        while self.clock.elapsed() < since + QUIET_WITHIN {
            sleep(pause).await;
            // The meters do not know that there is peace.
            self.meters.restore_power();
            let (usage, feeds) = (self.edge.usage()?, self.feeds.is_empty());
            if !feeds || usage.oldest_read_at_ms.is_some_and(|oldest| oldest < peace) {
                missing = format!("feeds empty: {feeds}, outbox: {usage:?}, unsettled: {:?}", self.edge.unsettled()?);
                continue;
            }
            // Reading the sinks is dear: seldom, when it takes long.
            pause = pause.mul_f64(1.5);
            // The archive is last.
            match checkers::everything_is_in(&read_archive(&sources).await?, troubled, &self.deaf.borrow()) {
                Ok(_) => return Ok(()),
                Err(error) => missing = error.to_string(),
            }
        }
        anyhow::bail!("after {QUIET_WITHIN:?} of peace: {missing}")
    }

    async fn check(&self, troubled: &BTreeMap<Identity, Captured>) -> anyhow::Result<Life> {
        let sources = self.head.sources();
        let sins = self.head.sins.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ensure!(sins.is_empty(), "{sins:?}");
        let repeated = self.meters.counters_repeated();
        ensure!(repeated == 0, "{repeated} invocation counters were not above all that were used before");
        let deaf = self.deaf.borrow().clone();
        let mut comparison = Comparison::default();
        let truth = self.truth();
        for sink in &read_sources(&sources).await? {
            comparison = checkers::everything_is_in(sink, troubled, &deaf)?;
            checkers::nothing_is_invented(sink, &truth)?;
            checkers::stamps_are_true(sink, &truth)?;
        }
        checkers::each_batch_is_committed_once_and_in_order(&sources).await?;
        checkers::the_store_has_the_last_sealed_revision(&sources).await?;
        let report = checkers::the_books_close(&sources).await?;
        Ok(Life {
            captured: comparison.captured,
            unread: comparison.unread,
            unkept: comparison.unkept,
            without_instant: without_instant(&log_events(&sources).await?)?.len() as u64,
            batches: report.batches,
            repeated: report.repeated,
            revised: report.revised,
            lasted: self.clock.elapsed(),
            ..self.life.borrow().clone()
        })
    }
}
