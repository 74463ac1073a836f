//! Media that are open and of no more use, as nobody says so, or as what waits in them is old; and what is stored late.

use tokio::io::DuplexStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::clock::SharedClock;
use crate::reading::testing::SetClock;

/// A port, and the other ends of what it opens.
struct World {
    opened: UnboundedReceiver<DuplexStream>,
    port: JoinHandle<()>,
    _keep: watch::Sender<()>,
}

impl World {
    fn of(session: &Arc<SessionParts>, settings: PortSettings, stays_open: bool) -> Self {
        let (medium, opened) = MemoryMedium::new("memory", stays_open);
        let medium: Arc<dyn crate::link::Medium> = Arc::new(medium);
        let parts = PortParts { session: session.clone(), medium: Arc::new(move |_| medium.clone()), seed: 7 };
        let (keep, running) = watch::channel(());
        Self { opened, port: tokio::spawn(run(parts, Arc::new(settings), running)), _keep: keep }
    }

    /// The next opening, which is there within so long.
    async fn opening(&mut self, within: Duration) -> DuplexStream {
        timeout(within, self.opened.recv()).await.expect("it is opened").expect("the port runs")
    }
}

/// Controls: never give up what is open; wait as after a failure; give up a serial port, too; take octets for nothing.
#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nothing_comes_is_made_anew_and_a_serial_port_is_not() {
    let (session, outbox) = parts(&TokioClock::shared(T0));
    let session = Arc::new(session);
    let mut world = World::of(&session, settings("memory:1".to_owned()), false);
    let state = || {
        let entry = session.inventory.snapshot().1.meters.remove(0);
        (entry.state, entry.cause)
    };
    let mut stream = world.opening(Duration::from_secs(1)).await;
    stream.write_all(&crate::push::tests::telegram(T0, T0, "x")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    // Somebody is there, and says nothing good.
    stream.write_all(b"x").await.unwrap();
    tokio::time::sleep(Duration::from_secs(55)).await;
    assert_eq!(state().0, MeterState::Silent);
    assert!(world.opened.try_recv().is_err(), "octets have come");
    // From now on as if its power had failed: this end is not closed.
    let dead = stream;
    let next = world.opening(Duration::from_secs(36)).await;
    assert_eq!(state(), (MeterState::Silent, "no telegram for 60 s".to_owned()));
    let mut last = world.opening(Duration::from_millis(60_100)).await;
    last.write_all(&crate::push::tests::telegram(T0.plus_ms(180_000), T0, "x")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((state().0, stored(&outbox).len()), (MeterState::Ok, 6));
    assert_eq!(session.metrics.value(Metric::LinesLost), 0);
    world.port.abort();
    drop((dead, next));

    let mut serial = World::of(&session, settings("memory:2".to_owned()), true);
    let stream = serial.opening(Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(serial.opened.try_recv().is_err());
    serial.port.abort();
    drop(stream);
}

/// What a meter without a clock says, one file of SML: its import, which is so much.
fn sml(second: u32) -> Vec<u8> {
    use protocols::metering::{ObisCode, Quantity, Unit};
    use protocols::sml::{Builder, SmlTime};
    let server = [0x0a, 0x01, b'S', b'I', b'M', 0, 0, 0, 0, 0x2a];
    let energy = Quantity::new(i64::from(second), -1, Unit::WATT_HOUR);
    let builder = Builder::new(&server).sensor_time(SmlTime::SecIndex(second));
    builder.quantity(ObisCode::new(1, 0, 1, 8, 0, 255), energy).finish()
}

fn sml_settings(address: &str) -> PortSettings {
    let protocol = PushProtocol::Sml { quirks: protocols::sml::Quirks::default() };
    PortSettings { protocol, registers_every_s: 1, ..settings(address.to_owned()) }
}

/// Controls: read on after however long a store; close a listener, too; throw away what waited for a second.
#[tokio::test(start_paused = true)]
async fn what_waited_for_the_outbox_for_long_is_not_stored_with_a_late_stamp() {
    use crate::config::metering::Transport;

    let listen = MediumSettings::Listen { address: "127.0.0.1:1".parse().unwrap(), transport: Transport::Tcp };
    let at_port = sml_settings("memory:1");
    let at_listener = PortSettings { medium: listen, ..sml_settings("") };
    for (settings, stalled_s, expected) in
        [(&at_port, 2, (true, 2)), (&at_port, 20, (false, 1)), (&at_listener, 20, (true, 2))]
    {
        let (session, outbox) = parts(&TokioClock::shared(T0));
        let session = Arc::new(session);
        let mut world = World::of(&session, settings.clone(), true);
        let mut stream = world.opening(Duration::from_secs(1)).await;
        outbox.lock().unwrap().set_read_only(true);
        stream.write_all(&sml(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(stalled_s)).await;
        stream.write_all(&sml(2)).await.unwrap();
        outbox.lock().unwrap().set_read_only(false);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let is_open = match world.opened.try_recv() {
            Ok(anew) => {
                stream = anew;
                false
            }
            Err(_) => true,
        };
        assert_eq!((is_open, stored(&outbox).len()), expected, "{stalled_s} s, {}", settings.medium);
        stream.write_all(&sml(3)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(stored(&outbox).len(), expected.1 + 1, "it is heard again");
        world.port.abort();
    }
}

/// Control: judge the clock in `store`; the second telegram is trusted then, and dated two hours early.
#[tokio::test(start_paused = true)]
async fn telegrams_of_before_the_clock_was_set_are_dated_by_when_they_came() {
    let right = TokioClock::shared(T0);
    let clock = SetClock::shared(&right, -2 * 3_600_000);
    let (session, outbox) = parts(&(clock.clone() as SharedClock));
    let session = Arc::new(session);
    session.trust.on_cloud_time(right.wall());
    assert!(session.trust.untrusted().is_some());
    let mut world = World::of(&session, sml_settings("memory:1"), true);
    let mut stream = world.opening(Duration::from_secs(1)).await;
    outbox.lock().unwrap().set_read_only(true);
    let from = right.wall();
    stream.write_all(&[sml(1), sml(2)].concat()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let to = right.wall();
    tokio::time::sleep(Duration::from_secs(1)).await;
    clock.set(0);
    assert!(session.trust.untrusted().is_none());
    outbox.lock().unwrap().set_read_only(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(session.outbox.usage().await.unwrap().rows_held, 2);
    let cloud = right.wall();
    let origin = session.trust.on_cloud_time(cloud);
    assert_eq!(session.outbox.resolve_clock(session.trust.boot(), origin, cloud).await.unwrap(), 2);
    let dated: Vec<i64> = stored(&outbox).into_keys().map(|(at, ..)| at).collect();
    assert!(dated.len() == 2 && dated.iter().all(|at| (from.0..=to.0).contains(at)), "{dated:?}");
    world.port.abort();
}

/// The other way round: what a good clock has stamped stays as it is when somebody sets it wrong.
///
/// Control: judge the clock in `store`; the second telegram waits then, by an uptime that is two hours too late.
#[tokio::test(start_paused = true)]
async fn telegrams_of_before_the_clock_was_set_wrong_are_stored_as_they_were_stamped() {
    let right = TokioClock::shared(T0);
    let clock = SetClock::shared(&right, 0);
    let (session, outbox) = parts(&(clock.clone() as SharedClock));
    let session = Arc::new(session);
    let mut world = World::of(&session, sml_settings("memory:1"), true);
    let mut stream = world.opening(Duration::from_secs(1)).await;
    outbox.lock().unwrap().set_read_only(true);
    let from = right.wall();
    stream.write_all(&[sml(1), sml(2)].concat()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let to = right.wall();
    tokio::time::sleep(Duration::from_secs(1)).await;
    clock.set(-2 * 3_600_000);
    assert!(session.trust.untrusted().is_some());
    outbox.lock().unwrap().set_read_only(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(session.outbox.usage().await.unwrap().rows_held, 0);
    let dated: Vec<i64> = stored(&outbox).into_keys().map(|(at, ..)| at).collect();
    assert!(dated.len() == 2 && dated.iter().all(|at| (from.0..=to.0).contains(at)), "{dated:?}");
    world.port.abort();
}
