mod blocks;
mod reopened;

use protocols::dlms::datetime::{ClockRules, ClockStatus, DateTime};
use protocols::dlms::notification::{decode_data_notification_confirm, encode_data_notification};
use protocols::dlms::security::{
    Keys, Level, PushConfig, PushReceiver, ReceivedCounters, SecurityControl, SecurityQuirks, SecuritySuite,
    protect_push,
};
use protocols::dlms::value::DataValue;
use protocols::uplink::MeterState;
use protocols::wrapper::Wpdu;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::metering::{MediumSettings, PushFraming, PushProtocol, RadioSettings};
use crate::link::memory::MemoryMedium;
use crate::outbox::CounterId;
use crate::push::seal::tests::{OURS, TITLE, keys};
use crate::reading::testing::{T0, TokioClock};
use crate::reading::tests::{parts, stored};

fn settings(address: String) -> PortSettings {
    PortSettings {
        name: "p1".into(),
        protocol: PushProtocol::P1,
        medium: MediumSettings::Tcp { address, connect_timeout: Duration::from_secs(1) },
        accept_invalid_crc: false,
        keys: None,
        scaling: Vec::new(),
        every_s: 60,
        registers_every_s: 900,
        silent_after: Duration::from_secs(60),
        serial: None,
        metering_point: None,
        clock_off_above_s: Some(60),
        radio: RadioSettings::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_that_falls_silent_or_is_unplugged_says_so_and_comes_back() {
    let clock = TokioClock::shared(T0);
    let (session, outbox) = parts(&clock);
    let session = Arc::new(session);
    let (medium, mut opened) = MemoryMedium::new("memory", true);
    let medium: Arc<dyn crate::link::Medium> = Arc::new(medium);
    let address = "memory:1".to_owned();
    let settings = Arc::new(settings(address));
    let parts = PortParts { session: session.clone(), medium: Arc::new(move |_| medium.clone()), seed: 7 };
    let (keep, running) = watch::channel(());
    let port = tokio::spawn(run(parts, settings, running));
    let state = || {
        let entry = session.inventory.snapshot().1.meters.remove(0);
        (entry.state, entry.cause)
    };
    let mut stream = opened.recv().await.unwrap();
    stream.write_all(&crate::push::tests::telegram(T0, T0, "x")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(state(), (MeterState::Ok, String::new()));
    assert_eq!(stored(&outbox).len(), 5, "three readings, a message, a power failure");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(state(), (MeterState::Silent, "no telegram for 60 s".to_owned()));
    drop(stream);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(state(), (MeterState::Silent, "the other end is gone".to_owned()));
    let mut stream = opened.recv().await.unwrap();
    let at = T0.plus_ms(120_000);
    stream.write_all(&crate::push::tests::telegram(at, T0, "x")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state().0, MeterState::Ok);
    assert_eq!(stored(&outbox).len(), 6, "another minute, another momentary value");
    drop(keep);
    port.await.unwrap();
}

/// Controls, seen to fail: leave the problems out of `tell`; refuse a telegram for one bad line.
#[tokio::test(start_paused = true)]
async fn a_value_in_a_unit_that_is_none_is_counted_and_the_others_of_its_telegram_are_stored() {
    use protocols::metering::{Quantity, Unit};
    use protocols::p1::{Builder, Layout, LocalTime};
    let clock = TokioClock::shared(T0);
    let (session, outbox) = parts(&clock);
    let session = Arc::new(session);
    let (medium, mut opened) = MemoryMedium::new("memory", true);
    let medium: Arc<dyn crate::link::Medium> = Arc::new(medium);
    let parts = PortParts { session: session.clone(), medium: Arc::new(move |_| medium.clone()), seed: 7 };
    let (_keep, running) = watch::channel(());
    let port = tokio::spawn(run(parts, Arc::new(settings("memory:1".to_owned())), running));
    let mut stream = opened.recv().await.unwrap();
    let telegram = Builder::new("SIM5METERPOST", LocalTime::CET)
        .text("1-3:0.2.8", "50")
        .stamp("0-0:1.0.0", T0)
        .hex("0-0:96.1.1", "SIM0001")
        .quantity("1-0:1.8.1", Quantity::new(1_000, 0, Unit::WATT_HOUR), Layout::ENERGY)
        .unwrap()
        .text("1-0:2.8.1", "000001.000*kWx")
        .finish();
    stream.write_all(&telegram).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counted = [Metric::TelegramsRead, Metric::FieldProblems, Metric::TelegramsRefused];
    assert_eq!(counted.map(|metric| session.metrics.value(metric)), [1, 1, 0]);
    let what: Vec<String> = stored(&outbox).into_keys().map(|(_, _, what)| what).collect();
    assert!(what.len() == 1 && what[0].contains("1-0:1.8.1"), "{what:?}");
    let entry = session.inventory.snapshot().1.meters.remove(0);
    assert_eq!((entry.state, entry.clock_offset_ms), (MeterState::Ok, Some(0)), "the cloud has told the time");
    port.abort();
}

/// Control, seen to fail: the CRC not looked at.
#[tokio::test(start_paused = true)]
async fn a_port_of_sml_goes_on_after_damage_and_counts_it() {
    use protocols::metering::{ObisCode, Quantity, Unit};
    use protocols::sml::{Builder, Quirks, SmlTime};
    let file = |second: u32| {
        let server = [0x0a, 0x01, b'S', b'I', b'M', 0, 0, 0, 0, 0x2a];
        let energy = Quantity::new(i64::from(second), -1, Unit::WATT_HOUR);
        let builder = Builder::new(&server).sensor_time(SmlTime::SecIndex(second));
        builder.quantity(ObisCode::new(1, 0, 1, 8, 0, 255), energy).finish()
    };
    let clock = TokioClock::shared(T0);
    let (session, outbox) = parts(&clock);
    let session = Arc::new(session);
    let (medium, mut opened) = MemoryMedium::new("memory", true);
    let medium: Arc<dyn crate::link::Medium> = Arc::new(medium);
    let parts = PortParts { session: session.clone(), medium: Arc::new(move |_| medium.clone()), seed: 7 };
    let (_keep, running) = watch::channel(());
    let protocol = PushProtocol::Sml { quirks: Quirks::default() };
    let settings = PortSettings { protocol, registers_every_s: 1, ..settings("memory:1".to_owned()) };
    let port = tokio::spawn(run(parts, Arc::new(settings), running));
    let mut stream = opened.recv().await.unwrap();
    let mut spoilt = file(2);
    spoilt[30] ^= 1;
    let half = file(3).len() / 2;
    for octets in [file(1), spoilt, file(3)[..half].to_vec(), file(4), file(5)] {
        stream.write_all(&octets).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let counted = [Metric::TelegramsRead, Metric::TelegramsRefused, Metric::TelegramsCrcInvalid];
    assert_eq!(counted.map(|metric| session.metrics.value(metric)), [3, 2, 1]);
    let what: Vec<String> = stored(&outbox).into_keys().map(|(_, _, what)| what).collect();
    assert!(what.len() == 3 && what.iter().all(|what| what.starts_with("1SIM0000000042  1-0:1.8.0")), "{what:?}");
    let entry = session.inventory.snapshot().1.meters.remove(0);
    assert_eq!((entry.state, entry.clock_offset_ms, &*entry.protocol), (MeterState::Ok, None, "sml"));
    port.abort();
}

/// Controls, seen to fail: confirm before it is stored; no word to the meter.
#[tokio::test]
async fn meters_that_come_are_told_that_their_push_is_kept_once_it_is() {
    use crate::config::metering::Transport;

    let push = |meter: &str| {
        let text = |octets: &[u8]| DataValue::OctetString(octets.to_vec());
        let named = DataValue::Structure(vec![text(&[0, 0, 96, 1, 0, 255]), text(meter.as_bytes())]);
        let energy = DataValue::Structure(vec![text(&[1, 0, 1, 8, 0, 255]), DataValue::DoubleLongUnsigned(42)]);
        let stamp = Some(DateTime::from_utc(T0, 60, ClockStatus::GOOD));
        let (mut apdu, mut octets) = (Vec::new(), Vec::new());
        encode_data_notification(0x4000_0001, stamp, &DataValue::Structure(vec![named, energy]), &mut apdu);
        Wpdu { source: 1, destination: 16, apdu: &apdu }.encode(&mut octets).unwrap();
        octets
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let clock = TokioClock::shared(T0);
    let (session, outbox) = parts(&clock);
    let medium = MediumSettings::Listen { address, transport: Transport::Tcp };
    let protocol = PushProtocol::Dlms { framing: PushFraming::Wrapper, clock: ClockRules::default() };
    let settings = PortSettings { protocol, medium, ..settings(String::new()) };
    let parts = PortParts { session: Arc::new(session), medium: Arc::new(crate::link::medium), seed: 7 };
    let (_keep, running) = watch::channel(());
    let port = tokio::spawn(run(parts, Arc::new(settings), running));
    let mut meters = Vec::new();
    for name in ["KFM0001", "KFM0002"] {
        let mut stream = loop {
            match tokio::net::TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        stream.write_all(&push(name)).await.unwrap();
        let mut answer = [0; 14];
        tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, [0, 1, 0, 16, 0, 1, 0, 6, 0x10, 0x40, 0, 0, 1, 0]);
        meters.push(stream);
        assert_eq!(stored(&outbox).len(), meters.len(), "it is in the outbox when the meter hears of it");
    }
    port.abort();
}

fn push_keys() -> Keys {
    Keys::new([1; 16].into(), [2; 16].into())
}

/// The import that was so much when so many quarters of an hour had passed.
fn sealed_push(level: Level, counter: u32) -> Vec<u8> {
    let text = |octets: &[u8]| DataValue::OctetString(octets.to_vec());
    let energy = DataValue::Structure(vec![text(&[1, 0, 1, 8, 0, 255]), DataValue::DoubleLongUnsigned(counter)]);
    let stamp = Some(DateTime::from_utc(T0.plus_ms(i64::from(counter) * 900_000), 60, ClockStatus::GOOD));
    let (mut apdu, mut octets) = (Vec::new(), Vec::new());
    encode_data_notification(0x4000_0000 + counter, stamp, &DataValue::Structure(vec![energy]), &mut apdu);
    let control = SecurityControl { suite: SecuritySuite::Suite0, level, broadcast: false };
    let apdu = protect_push(&push_keys(), TITLE, control, counter, &apdu).unwrap();
    Wpdu { source: 1, destination: 16, apdu: &apdu }.encode(&mut octets).unwrap();
    octets
}

/// Controls, seen to fail: `reserve_for_pushes` without the time; seal with a counter that is not noted.
#[tokio::test]
async fn a_sealed_push_is_confirmed_under_a_counter_that_is_on_the_disk_and_not_without_the_time() {
    let push = |counter| sealed_push(Level::AUTHENTICATED_ENCRYPTED, counter);
    let clock = TokioClock::shared(T0);
    let (session, outbox) = parts(&clock);
    let trust = crate::trust::ClockTrust::new(clock.clone(), 1);
    let session = Arc::new(SessionParts { trust: trust.clone(), ..session });
    let (medium, mut opened) = MemoryMedium::new("memory", true);
    let medium: Arc<dyn crate::link::Medium> = Arc::new(medium);
    let parts = PortParts { session: session.clone(), medium: Arc::new(move |_| medium.clone()), seed: 7 };
    let protocol = PushProtocol::Dlms { framing: PushFraming::Wrapper, clock: ClockRules::default() };
    let keys = keys(Some([2; 16]), true);
    let id = CounterId { key: keys.encryption.fingerprint(), title: OURS };
    let settings = PortSettings { protocol, keys: Some(keys), ..settings("memory:1".to_owned()) };
    let (_keep, running) = watch::channel(());
    let port = tokio::spawn(run(parts, Arc::new(settings), running));
    let mut stream = opened.recv().await.unwrap();
    let counted = || {
        [Metric::TelegramsRead, Metric::PushesConfirmed, Metric::PushesUnconfirmed, Metric::PushesRepeated]
            .map(|metric| session.metrics.value(metric))
    };
    stream.write_all(&push(1)).await.unwrap();
    while counted()[2] == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((counted(), outbox.lock().unwrap().counter(&id).unwrap()), ([1, 0, 1, 0], None));
    trust.on_cloud_time(T0);
    let config = PushConfig { sender: Some(OURS), quirks: SecurityQuirks::NONE, ..PushConfig::new(push_keys()) };
    let mut meter = PushReceiver::new(config, ReceivedCounters::default()).unwrap();
    // What was stored and not confirmed comes again, then the next.
    for (sent, expected) in [(1, [1, 1, 1, 1]), (2, [2, 2, 1, 1])] {
        stream.write_all(&push(sent)).await.unwrap();
        let mut answer = vec![0; 512];
        let count = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer[..8], [0, 1, 0, 16, 0, 1, 0, (count - 8) as u8]);
        let pushed = meter.receive(&answer[8..count]).unwrap();
        assert_eq!(decode_data_notification_confirm(&pushed.apdu).unwrap().0, 0x4000_0000 + sent);
        assert_eq!(counted(), expected);
        let used = pushed.sender.unwrap().1;
        let next = outbox.lock().unwrap().counter(&id).unwrap().unwrap();
        assert!(used < next, "{used} may have been used when it was written down that all below {next} are");
        assert_eq!(stored(&outbox).len(), sent as usize);
    }
    // What nobody can verify is stored, and said to be not confirmed.
    stream.write_all(&sealed_push(Level::ENCRYPTED, 3)).await.unwrap();
    let is_counted = async {
        while counted()[2] < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), is_counted).await.unwrap();
    assert_eq!((counted(), stored(&outbox).len()), ([3, 2, 2, 1], 3));
    port.abort();
}

/// Controls, seen to fail: nothing said first; what came twice stored twice.
#[tokio::test(start_paused = true)]
async fn a_receiver_is_told_what_to_listen_for_and_what_its_meters_say_is_stored_once() {
    use protocols::mbus::{Builder, RadioMode, Receiver, SND_NR, SecondaryAddress, WirelessFrame, maker_code};
    use protocols::metering::{Kind, ObisCode, Quantity, TelegramReading, Unit};

    use crate::config::metering::RadioMeter;

    let address = SecondaryAddress::of_number(1, maker_code("SIM").unwrap(), 1, 7);
    let meter = RadioMeter {
        name: "m".into(),
        address,
        key: None,
        readout: protocols::mbus::Settings::default(),
        metering_point: None,
        silent_after: Duration::from_secs(600),
        clock_off_above_s: None,
    };
    let protocol = PushProtocol::Wmbus { receiver: Receiver::Im871a, mode: RadioMode::CT };
    let radio = RadioSettings { meters: vec![Arc::new(meter)], elsewhere: Vec::new() };
    let settings =
        PortSettings { protocol, radio, silent_after: Duration::from_secs(3_600), ..settings("memory:1".to_owned()) };
    let clock = TokioClock::shared(T0);
    let (session, outbox) = parts(&clock);
    let session = Arc::new(session);
    let (medium, mut opened) = MemoryMedium::new("memory", true);
    let medium: Arc<dyn crate::link::Medium> = Arc::new(medium);
    let parts = PortParts { session: session.clone(), medium: Arc::new(move |_| medium.clone()), seed: 7 };
    let (_keep, running) = watch::channel(());
    let port = tokio::spawn(run(parts, Arc::new(settings), running));
    let mut stream = opened.recv().await.unwrap();
    let mut first = [0; 14];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(first[..8], [0xa5, 0x81, 0x03, 0x08, 0x00, 0x03, 0x00, 0x0a]);
    let volume = Quantity::new(1_500, -3, Unit::CUBIC_METRE);
    let volume = TelegramReading::new(ObisCode::new(8, 0, 1, 0, 0, 255), Kind::Register, T0, volume);
    let payload = Builder::new(address).reading(&volume, 0).unwrap().finish().remove(0);
    let frame = Receiver::Im871a.hand_out(&WirelessFrame { control: SND_NR, address, payload }, T0).unwrap();
    stream.write_all(&frame.repeat(2)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counted = [Metric::TelegramsRead, Metric::TelegramsRepeated, Metric::PortNoise];
    assert_eq!(counted.map(|metric| session.metrics.value(metric)), [1, 1, 0]);
    assert_eq!(stored(&outbox).len(), 1);
    let state = || session.inventory.snapshot().1.meters.remove(0).state;
    assert_eq!(state(), MeterState::Ok);
    // The port itself may be silent for an hour.
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    assert_eq!(state(), MeterState::Silent);
    port.abort();
}
