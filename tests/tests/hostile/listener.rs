//! Does a listener go on for its meters while others crowd it, send nonsense, forge, replay, dribble, or speak in somebody else's name?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::time::Duration;

use protocols::dlms::apdu::GeneralBlock;
use protocols::dlms::notification::encode_data_notification;
use protocols::dlms::security::{Keys, Level, SecurityControl, SecuritySuite, SystemTitle, protect_push};
use protocols::dlms::value::DataValue;
use protocols::metering::ObisCode;
use tests::hostile::{RSS_KB_MAX, peak_rss_kb, told};
use tests::listeners::{SPEED, free_ports, keys, meters_toml, port_toml, told_by_meter, until_pushed};
use tests::system::{CATCH_UP_TIMEOUT, Fleet, everything_arrives, metric, stage, start_groups, until, until_logged};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};

use crate::wrapper::frame;

const KEYS: [u8; 2] = [0xa1, 0xb2];
/// More than a listener keeps.
const CROWD: usize = 300;
/// Of one sender; more than a listener keeps of all.
const UNFINISHED: u16 = 200;
const STRANGER: SystemTitle = SystemTitle(*b"BAD\0\0\x0a\x2a\x9a");
/// An array of so many elements: the tag, a length of four octets.
const ARRAY_OF_4G: [u8; 6] = [0x01, 0x84, 0xff, 0xff, 0xff, 0xff];
const DEPTH: usize = 20_000;
const PAUSE: Duration = Duration::from_millis(20);

/// How the gateway has to count something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Refused,
    Unverified,
    Replayed,
}

#[derive(Debug, Default)]
struct Counts {
    refused: u64,
    unverified: u64,
    replayed: u64,
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        self.refused += 1;
        self.unverified += u64::from(verdict == Verdict::Unverified);
        self.replayed += u64::from(verdict == Verdict::Replayed);
    }
}

/// As whoever has the keys makes it.
fn sealed(title: SystemTitle, level: Level, counter: u32, plain: &[u8]) -> Vec<u8> {
    let [encryption, authentication] = KEYS.map(|octet| [octet; 16].into());
    let control = SecurityControl { suite: SecuritySuite::Suite0, level, broadcast: false };
    protect_push(&Keys::new(encryption, authentication), title, control, counter, plain).unwrap()
}

/// A push of a meter that is not there, which wants to be confirmed.
fn made_up() -> Vec<u8> {
    let octets = |octets: &[u8]| DataValue::OctetString(octets.to_vec());
    let named = |code: ObisCode, value| DataValue::Structure(vec![octets(&code.0), value]);
    let body = DataValue::Structure(vec![
        named(ObisCode::new(0, 0, 96, 1, 0, 255), octets(b"BAD000666")),
        named(ObisCode::new(1, 0, 1, 8, 0, 255), DataValue::DoubleLongUnsigned(666_000)),
    ]);
    let mut apdu = Vec::new();
    encode_data_notification(0x4000_0001, None, &body, &mut apdu);
    apdu
}

fn block(number: u16, window: u8, data: &[u8]) -> Vec<u8> {
    GeneralBlock { last: false, streaming: true, window, number, acknowledged: 0, data }.encode()
}

/// What needs no key, or is in the name of a meter that comes here.
fn apdus(meter: SystemTitle) -> Vec<(Vec<u8>, Verdict)> {
    let all = Level::AUTHENTICATED_ENCRYPTED;
    let header = [&[0xdb, 0x08][..], &meter.0].concat();
    let lengths = [&[0x84, 0xff, 0xff, 0xff, 0xff][..], &[0x82, 0xff, 0xff], &[0x80]];
    let lying = lengths.map(|length| ([&header[..], length, &[0x30, 0, 0, 0, 1, 0x5a]].concat(), Verdict::Refused));
    let mut forged = sealed(meter, all, u32::MAX - 2, &made_up());
    *forged.last_mut().unwrap() ^= 1;
    let others = [
        (forged, Verdict::Unverified),
        (sealed(meter, Level::AUTHENTICATED, u32::MAX - 3, &made_up()), Verdict::Unverified),
        (sealed(meter, Level::ENCRYPTED, u32::MAX - 4, &made_up()), Verdict::Unverified),
        (made_up(), Verdict::Unverified),
        (sealed(meter, all, 1, &made_up()), Verdict::Replayed),
        (vec![0xe0], Verdict::Refused),
        (block(7, 0, &[0x0f; 40]), Verdict::Refused),
        ([&[0x02, 0x01].repeat(DEPTH)[..], &[0x11, 0x01]].concat(), Verdict::Unverified),
    ];
    lying.into_iter().chain(others).collect()
}

/// What is wrong inside, by a stranger who has the keys, each under a counter of its own.
fn inside(first: u32) -> Vec<(Vec<u8>, Verdict)> {
    let data = |data: &[u8]| [&[0x0f, 0x40, 0, 0, 1, 0][..], data].concat();
    let plain = [
        data(&[&ARRAY_OF_4G[..], &[0x11, 0x01]].concat()),
        data(&[[0x02, 0x01].repeat(DEPTH), vec![0x11, 0x01]].concat()),
        data(&[0x09, 0x84, 0xff, 0xff, 0xff, 0xff]),
        data(&[0x13, 0x00, 0x84, 0xff, 0xff, 0xff, 0xff]),
        data(&[]),
        vec![0x10, 0x40, 0, 0, 1, 0],
        block(9, 0, &[0x0f; 40]),
    ];
    let all = Level::AUTHENTICATED_ENCRYPTED;
    (first..).zip(plain).map(|(counter, plain)| (sealed(STRANGER, all, counter, &plain), Verdict::Refused)).collect()
}

/// Over connections: nonsense, pushes in the name of `meter`, pushes that never end. A connection that is hung up on is no error here.
async fn attack_tcp(port: u16, meter: SystemTitle, first: u32, counts: &mut Counts) {
    let connect = async || TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    for (apdu, verdict) in apdus(meter) {
        connect().await.write_all(&frame([1, 16], &apdu)).await.unwrap();
        counts.add(verdict);
    }
    let known = sealed(STRANGER, Level::AUTHENTICATED_ENCRYPTED, first, &made_up());
    connect().await.write_all(&frame([1, 16], &known)).await.unwrap();
    counts.add(Verdict::Unverified);
    for nonsense in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xa5; 64 * 1024]] {
        drop(connect().await.write_all(&nonsense).await);
        counts.add(Verdict::Refused);
    }
    let mut endless = connect().await;
    for source in 0..UNFINISHED {
        endless.write_all(&frame([source, 16], &block(1, 0, &[0x0f; 40]))).await.unwrap();
    }
    for number in 1..80 {
        endless.write_all(&frame([1, 16], &block(number, 0, &[0x0f; 1_000]))).await.unwrap();
    }
    // Of the first all but 64, and of the second what goes beyond 64 KiB.
    (0..=UNFINISHED - 64).for_each(|_| counts.add(Verdict::Refused));
}

/// In datagrams, each from another address.
async fn attack_udp(port: u16, meter: SystemTitle, first: u32, counts: &mut Counts) {
    let send = async |octets: &[u8]| {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(octets, ("127.0.0.1", port)).await.unwrap();
        // Nothing is said before it is read: a socket's buffer is small.
        tokio::time::sleep(PAUSE).await;
    };
    for (apdu, verdict) in apdus(meter).into_iter().chain(inside(first)) {
        send(&frame([1, 16], &apdu)).await;
        counts.add(verdict);
    }
    let whole = frame([1, 16], &sealed(meter, Level::AUTHENTICATED_ENCRYPTED, 2, &made_up()));
    for count in [1, 7, 9, whole.len() - 1] {
        send(&whole[..count]).await;
        counts.add(Verdict::Refused);
    }
    send(&[]).await;
    send(&[0xff; 1_000]).await;
    counts.add(Verdict::Refused);
}

/// Connections that say nothing, or begin a frame, or say something once; they are held.
async fn crowd(port: u16) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for octets in [&[][..], &[0, 1, 0, 1], &frame([1, 16], &[0x0f])] {
        for _ in 0..CROWD {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            drop(stream.write_all(octets).await);
            held.push(stream);
        }
    }
    held
}

fn title_of(fleet: &Fleet, place: usize) -> SystemTitle {
    SystemTitle::from_hex(fleet.endpoints[place]["system_title"].as_str().unwrap()).unwrap()
}

/// Negative controls: let newcomers wait for a place (`make_room` in `link/listen.rs`); keep what a datagram began; keep all blocks
/// (`make_room` in `push_blocks.rs`); take what is not sealed (`acceptable` in `dlms/security/push.rs`), or whatever the tag; remember a counter
/// before its tag is verified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_to_a_listener_with_ill_intent_is_refused_and_its_meters_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let ([tcp, _, udp], keys) = (free_ports().unwrap(), keys(&stage, KEYS).unwrap());
    let groups = meters_toml(2, tcp, &format!("first_number = 101\nencrypted = true\n{keys}"))
        + &meters_toml(2, udp, &format!("transport = \"udp\"\nencrypted = true\n{keys}"));
    let fleet = start_groups(&mut stage, 101, 4, SPEED, &groups).unwrap();
    let titles = [0, 1].map(|place| fleet.endpoints[place]["system_title"].to_string()).join(", ");
    stage.meters_toml = port_toml("meters", "tcp_listen", tcp, &format!("{keys}system_titles = [{titles}]\n"))
        + &port_toml("datagrams", "udp_listen", udp, &keys);
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 100).await.unwrap();
    let (mut counts, before) = (Counts::default(), told_by_meter(&fleet).unwrap());
    let held = crowd(tcp).await;
    // Under counters that rise, as whoever has the keys would use them.
    for first in [1, 101, 201] {
        attack_tcp(tcp, title_of(&fleet, 0), first, &mut counts).await;
        attack_udp(udp, title_of(&fleet, 2), first, &mut counts).await;
    }
    // While the crowd is there.
    let go_on = async || {
        let now = told_by_meter(&fleet)?;
        Ok(before.iter().zip(&now).all(|(before, now)| now >= &(before + 20)))
    };
    until("its meters go on", CATCH_UP_TIMEOUT, go_on).await.unwrap();
    drop(held);
    let address = stage.gateway_address();
    for (name, sent) in [
        ("gateway_telegrams_refused_total", counts.refused),
        ("gateway_telegrams_unverified_total", counts.unverified),
        ("gateway_telegrams_replayed_total", counts.replayed),
        ("gateway_connections_dropped_total", (3 * CROWD - 256) as u64),
    ] {
        let is_counted = async || Ok(metric(address, name).await? >= sent);
        let counted = until(name, CATCH_UP_TIMEOUT, is_counted).await;
        assert!(counted.is_ok(), "{name}: {:?} of {sent}", metric(address, name).await);
    }
    assert_eq!(metric(address, "gateway_actor_deaths_total").await.unwrap(), 0);
    let rss_kb = peak_rss_kb(&stage).unwrap();
    assert!(rss_kb < RSS_KB_MAX, "{rss_kb} kB");
    for port in ["meters", "datagrams"] {
        let warned = told(&stage, &["WARN", &format!("port={port} ")]).unwrap();
        assert!(!warned.is_empty() && warned.len() < 12, "{warned:#?}");
        assert!(warned.iter().all(|line| line.contains("hint=")), "{warned:#?}");
    }
    stage.freeze_simulator().unwrap();
    until_pushed(&fleet).await.unwrap();
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
    println!("{counts:?}, {rss_kb} kB at the most");
}
