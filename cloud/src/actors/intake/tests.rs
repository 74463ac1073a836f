use std::sync::Mutex;

use protocols::uplink::topics::Topic;

use super::*;
use crate::actors::{PartStopped, PipelinePart};
use crate::clock::ManualClock;
use crate::testing::broker::{Broker, Manners};
use crate::testing::{FaultyLog, T0, batch, gateway, sealed};

/// Notes the deaths that a part reports.
#[derive(Default)]
struct Morgue(Arc<Mutex<Vec<PartStopped>>>);

impl Actor for Morgue {
    type Context = Context<Self>;
}

impl Handler<PartStopped> for Morgue {
    type Result = ();

    fn handle(&mut self, stopped: PartStopped, _: &mut Self::Context) {
        self.0.lock().unwrap().push(stopped);
    }
}

struct World {
    broker: Broker,
    log: Arc<FaultyLog>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    deaths: Arc<Mutex<Vec<PartStopped>>>,
    services: IntakeServices,
    intake: Addr<Intake>,
}

impl World {
    async fn new() -> Self {
        Self::with_faults(Vec::new()).await
    }

    async fn with_faults(faults: Vec<LogError>) -> Self {
        let broker = Broker::start().await;
        let log = Arc::new(FaultyLog::new(crate::embedded::in_memory(2, 7).unwrap().0));
        log.append_faults.lock().unwrap().extend(faults);
        let (metrics, health) = (Arc::<Metrics>::default(), Arc::<Health>::default());
        let services = IntakeServices {
            log: Arc::clone(&log) as Arc<dyn EventLog>,
            clock: Arc::new(ManualClock::new(T0)),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            mqtt: broker.settings(),
            share_group: None,
            backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(4)),
        };
        let morgue = Morgue::default();
        let deaths = Arc::clone(&morgue.0);
        let report = Report { part: PipelinePart::Intake, generation: 1, to: morgue.start().recipient() };
        let intake = Intake { services: services.clone(), report }.start();
        Self { broker, log, metrics, health, deaths, services, intake }
    }

    async fn until(&self, what: &str, done: impl AsyncFn(&Self) -> bool) {
        for _ in 0..2_000 {
            if done(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it never came about that {what}");
    }

    async fn refs(&self) -> usize {
        let mut refs = 0;
        for partition in 0..2 {
            refs += self.log.inner.read_refs(partition, 0, 1_000, 1_000).await.unwrap().len();
        }
        refs
    }

    fn send_ref(&self, seq: u64) {
        self.send_ref_of(1, seq);
    }

    fn send_ref_of(&self, gateway_n: u32, seq: u64) {
        let (reference, _) = sealed(&batch(gateway_n, seq, 2), 1);
        self.broker.send(&Topic::Refs.of(&gateway(gateway_n)), &reference.encode());
    }

    async fn append(&self, gateway_n: u32, patience: Duration) -> Appended {
        let (reference, _) = sealed(&batch(gateway_n, 1, 2), 1);
        self.services.append(&gateway(gateway_n), &Uplinked::Ref(reference.encode()), patience).await.unwrap()
    }

    async fn append_for_ever(&self, gateway_n: u32) {
        loop {
            assert_eq!(self.append(gateway_n, PATIENCE).await, Appended::Durable);
        }
    }
}

#[actix::test]
async fn a_ref_is_in_the_log_and_then_acknowledged() {
    let world = World::new().await;
    world.send_ref(1);
    world.until("it is acknowledged", async |world| world.broker.acked() == 1).await;
    assert_eq!(world.refs().await, 1);
    assert_eq!(world.metrics.value(Metric::IntakeAppended), 1);
    assert!(!world.health.missing().contains(&"intake"));
    assert_eq!(world.broker.subscriptions(), filters(None));
}

/// Control: without the faults it is acknowledged at once (the test above).
#[actix::test]
async fn nothing_is_acknowledged_while_the_log_does_not_take_it() {
    let fault = || LogError::Unavailable("told so".to_owned());
    let world = World::with_faults((0..40).map(|_| fault()).collect()).await;
    world.send_ref(1);
    world
        .until("it is acknowledged", async |world| {
            // First the acknowledgement, then the log: the other order would prove nothing.
            let acked = world.broker.acked();
            assert!(acked == 0 || world.refs().await == 1, "acknowledged and not in the log");
            acked == 1
        })
        .await;
    assert_eq!(world.metrics.value(Metric::LogRetries), 40);
}

#[actix::test]
async fn what_is_no_gateways_own_word_is_dropped_counted_and_does_not_clog_the_window() {
    let world = World::new().await;
    let (reference, _) = sealed(&batch(1, 1, 2), 1);
    world.broker.send(&Topic::Refs.of(&gateway(2)), &reference.encode());
    world.broker.send(&Topic::Refs.of(&gateway(1)), &vec![0; 9_000]);
    world.broker.send(&Topic::Refs.of(&gateway(1)), b"junk");
    world.send_ref(2);
    world.until("all are acknowledged", async |world| world.broker.acked() == 4).await;
    assert_eq!(world.refs().await, 1);
    for metric in [Metric::IntakeForeign, Metric::IntakeOversize, Metric::IntakeMalformed] {
        assert_eq!(world.metrics.value(metric), 1, "{metric:?}");
    }
}

/// Negative control: wait a day before a message counts as overtaken (`PATIENCE`).
#[actix::test]
async fn a_partition_that_takes_nothing_holds_up_no_message_of_another() {
    let world = World::new().await;
    *world.log.headless.lock().unwrap() = Some(gateway(1));
    world.send_ref(1);
    for seq in 1..=100 {
        world.send_ref_of(2, seq);
    }
    world.until("all others are acknowledged", async |world| world.broker.acked() >= 100).await;
    assert_eq!(world.refs().await, 100);
}

/// Negative control: try on for ever (`IntakeServices::append`).
#[actix::test]
async fn a_message_is_given_up_while_the_log_takes_those_of_others() {
    let world = World::new().await;
    *world.log.headless.lock().unwrap() = Some(gateway(1));
    let appended = tokio::select! {
        appended = world.append(1, Duration::from_millis(20)) => appended,
        () = world.append_for_ever(2) => unreachable!("it does not end"),
    };
    assert_eq!(appended, Appended::GivenUp);
}

/// Negative control: give up without asking whether others were appended.
#[actix::test]
async fn no_message_is_given_up_while_the_log_takes_none_at_all() {
    let fault = || LogError::Unavailable("told so".to_owned());
    let world = World::with_faults((0..40).map(|_| fault()).collect()).await;
    assert_eq!(world.append(1, Duration::from_millis(1)).await, Appended::Durable);
    assert_eq!((world.refs().await, world.metrics.value(Metric::LogRetries)), (1, 40));
}

/// A broker answers every subscription with what is retained: without room for it no connection would ever live.
///
/// Negative control: leave out `make_room` (`IntakeServices::run`).
#[actix::test]
async fn a_retained_packet_beyond_the_limit_costs_one_connection_and_is_dropped_and_counted() {
    let world = World::new().await;
    world.broker.retain(&Topic::Status.of(&gateway(1)), &vec![0; (1 << 20) + 100_000]);
    world.broker.drop_connections();
    world.until("it is dropped", async |world| world.metrics.value(Metric::IntakeOversize) == 1).await;
    world.send_ref(1);
    world.until("both are acknowledged", async |world| world.broker.acked() == 2).await;
    assert_eq!((world.refs().await, world.metrics.value(Metric::IntakeOversize)), (1, 1));
}

#[actix::test]
async fn a_message_that_the_log_refuses_holds_up_no_other() {
    let world = World::with_faults(vec![LogError::Refused("told so".to_owned())]).await;
    world.send_ref(1);
    world.send_ref(2);
    world.until("both are acknowledged", async |world| world.broker.acked() == 2).await;
    assert_eq!(world.refs().await, 1);
    assert!(world.deaths.lock().unwrap().is_empty());
}

#[actix::test]
async fn after_a_lost_connection_it_subscribes_anew() {
    let world = World::new().await;
    for seq in 1..=3 {
        world.send_ref(seq);
        world.until("it is acknowledged", async |world| world.broker.acked() == seq as usize).await;
        let before = world.broker.connections();
        world.broker.drop_connections();
        // What a broker hands to a connection that is going down is gone: sessions are clean, and gateways repeat.
        world.until("it connects again", async |world| world.broker.connections() > before).await;
    }
    assert_eq!(world.refs().await, 3);
    assert!(world.deaths.lock().unwrap().is_empty(), "a lost broker ends nothing");
}

#[actix::test]
async fn a_broker_that_refuses_the_subscription_is_asked_again_and_the_intake_is_not_ready() {
    let world = World::new().await;
    world.until("it is ready", async |world| !world.health.missing().contains(&"intake")).await;
    world.broker.behave(Manners::RefusesSubscriptions);
    world.broker.drop_connections();
    let before = world.broker.connections();
    world.until("it has tried again", async |world| world.broker.connections() > before + 2).await;
    assert!(world.health.missing().contains(&"intake"));
    world.broker.behave(Manners::Good);
    world.until("it is ready", async |world| !world.health.missing().contains(&"intake")).await;
}

#[actix::test]
async fn a_damaged_log_stops_the_intake_and_the_ref_is_not_acknowledged() {
    let world = World::with_faults(vec![LogError::Damaged("told so".to_owned())]).await;
    world.send_ref(1);
    world.until("its death is reported", async |world| !world.deaths.lock().unwrap().is_empty()).await;
    assert!(!world.intake.connected() && world.broker.acked() == 0);
    assert!(!world.deaths.lock().unwrap()[0].panicked);
}
