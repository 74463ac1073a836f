//! Pushes in blocks: what their meters are told before and after they are on the disk.

use protocols::dlms::apdu::GeneralBlock;
use protocols::metering::{Kind, MeterId, Quality, Quantity, Reading, Series, StampedBy, Unit};
use protocols::wrapper::{Scan, scan};
use tokio::io::DuplexStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::*;
use crate::outbox::OutboxHandle;
use crate::reading::tests::room::small_parts;

/// A port of a meter that pushes in wrapper frames.
struct World {
    opened: UnboundedReceiver<DuplexStream>,
    port: JoinHandle<()>,
    _keep: watch::Sender<()>,
}

impl World {
    fn of(session: &Arc<SessionParts>, serial: Option<&str>) -> Self {
        let (medium, opened) = MemoryMedium::new("memory", true);
        let medium: Arc<dyn crate::link::Medium> = Arc::new(medium);
        let parts = PortParts { session: session.clone(), medium: Arc::new(move |_| medium.clone()), seed: 7 };
        let protocol = PushProtocol::Dlms { framing: PushFraming::Wrapper, clock: ClockRules::default() };
        let serial = serial.map(|serial| MeterId::new(serial).unwrap());
        let settings = PortSettings { protocol, serial, ..settings("memory:1".to_owned()) };
        let (keep, running) = watch::channel(());
        Self { opened, port: tokio::spawn(run(parts, Arc::new(settings), running)), _keep: keep }
    }
}

/// The blocks of a push that wants no confirmation, each of which waits to be acknowledged.
fn blocks() -> Vec<Vec<u8>> {
    let text = |octets: &[u8]| DataValue::OctetString(octets.to_vec());
    let named = DataValue::Structure(vec![text(&[0, 0, 96, 1, 0, 255]), text(b"KFM0001")]);
    let energy = DataValue::Structure(vec![text(&[1, 0, 1, 8, 0, 255]), DataValue::DoubleLongUnsigned(42)]);
    let stamp = Some(DateTime::from_utc(T0, 60, ClockStatus::GOOD));
    let mut apdu = Vec::new();
    encode_data_notification(1, stamp, &DataValue::Structure(vec![named, energy]), &mut apdu);
    let pieces: Vec<_> = apdu.chunks(20).collect();
    assert!(pieces.len() > 2);
    let block = |(number, data): (u16, &&[u8])| {
        let last = usize::from(number) == pieces.len();
        let block = GeneralBlock { last, streaming: false, window: 1, number, acknowledged: 0, data }.encode();
        let mut octets = Vec::new();
        Wpdu { source: 1, destination: 16, apdu: &block }.encode(&mut octets).unwrap();
        octets
    };
    (1..).zip(&pieces).map(block).collect()
}

/// How many blocks have come, as the gateway says within so long; 0 where it says nothing.
async fn acknowledged(stream: &mut DuplexStream, within: Duration) -> usize {
    let (mut heard, mut octets) = (Vec::new(), [0; 512]);
    let until = tokio::time::Instant::now() + within;
    while let Ok(Ok(count)) = tokio::time::timeout_at(until, stream.read(&mut octets)).await {
        if count == 0 {
            break;
        }
        heard.extend_from_slice(&octets[..count]);
    }
    let (mut rest, mut last) = (&heard[..], 0);
    while let Scan::Wpdu { wpdu, used } = scan(rest, 1_000) {
        last = GeneralBlock::decode(wpdu.apdu).unwrap().acknowledged;
        rest = &rest[used..];
    }
    last.into()
}

/// Control: send answers before the store.
#[tokio::test(start_paused = true)]
async fn what_has_come_is_stored_also_where_its_meter_cannot_be_answered() {
    let (session, outbox) = parts(&TokioClock::shared(T0));
    let session = Arc::new(session);
    let mut world = World::of(&session, None);
    let mut stream = world.opened.recv().await.unwrap();
    stream.write_all(&blocks().concat()).await.unwrap();
    // What was written is read, and nothing can be written back.
    drop(stream);
    let again = world.opened.recv().await;
    assert!(again.is_some());
    assert_eq!((session.metrics.value(Metric::TelegramsRead), stored(&outbox).len()), (1, 1));
    world.port.abort();
}

/// Control: close the push in `Notifications::notified`, and send answers before the store.
#[tokio::test(start_paused = true)]
async fn a_meter_hears_that_all_of_its_blocks_have_come_once_they_are_on_the_disk() {
    let (session, outbox) = parts(&TokioClock::shared(T0));
    let mut world = World::of(&Arc::new(session), None);
    let mut stream = world.opened.recv().await.unwrap();
    outbox.lock().unwrap().set_read_only(true);
    stream.write_all(&blocks().concat()).await.unwrap();
    let said = acknowledged(&mut stream, Duration::from_millis(2_500)).await;
    assert!(said < blocks().len(), "they are not on the disk");
    outbox.lock().unwrap().set_read_only(false);
    assert_eq!(acknowledged(&mut stream, Duration::from_secs(10)).await, blocks().len());
    assert_eq!(stored(&outbox).len(), 1);
    world.port.abort();
}

/// What is held of somebody else, until another row finds no room. None was refused yet.
async fn fill_held(outbox: &OutboxHandle) {
    /// Each takes at least so much, and is refused where it does not find a little more: see `check_held`.
    const ROW_BYTES: u64 = 96;
    let (meter, code) = (MeterId::new("OTHER").unwrap(), "cad:x".parse().unwrap());
    let series = Series { meter, code, kind: Kind::Instant, period_s: 0 };
    let reading = |n: i64| Reading {
        series: series.clone(),
        captured_at: T0.plus_ms(n),
        nth: 0,
        quantity: Quantity::new(n, 0, Unit::WATT),
        quality: Quality::GOOD,
        read_at: T0,
        occurred_at: None,
        clock_offset_ms: None,
        stamped_by: StampedBy::Meter,
    };
    for n in 0.. {
        let usage = outbox.usage().await.unwrap();
        if usage.held_bytes + ROW_BYTES > usage.bytes_max / 10 {
            return;
        }
        let request = StoreRequest { readings: vec![reading(n)], hold_identity: true, ..StoreRequest::default() };
        outbox.store(request).await.unwrap();
        assert!(n < 10_000);
    }
}

/// Control: leave `is_stored` out of `Voice::answers`.
#[tokio::test(start_paused = true)]
async fn a_stranger_that_finds_no_room_does_not_hear_that_all_of_its_blocks_have_come() {
    let (session, outbox) = small_parts(&TokioClock::shared(T0));
    let session = Arc::new(session);
    fill_held(&session.outbox).await;
    let before = stored(&outbox).len();
    let mut world = World::of(&session, Some("KFM0002"));
    let mut stream = world.opened.recv().await.unwrap();
    assert!(!session.outbox.held_stopped());
    stream.write_all(&blocks().concat()).await.unwrap();
    let said = acknowledged(&mut stream, Duration::from_secs(10)).await;
    assert!(said > 0 && said < blocks().len(), "{said}");
    assert!(session.outbox.held_stopped(), "it was refused");
    assert_eq!(stored(&outbox).len(), before);
    world.port.abort();
}
