//! Media that are open and of no more use: nobody says so, or what waits in them is old.

use tokio::io::DuplexStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

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
