use std::sync::Mutex;

use protocols::dlms::notification::encode_data_notification;
use protocols::dlms::value::DataValue;
use protocols::hdlc::{HdlcAddress, push_frames};
use protocols::mbus::{Baud, Builder, Input, Output, SecondaryAddress, Slave, SlaveConfig, SlaveData, maker_code};
use protocols::metering::UtcMillis;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_serial::{SerialPort, SerialStream};

use super::*;
use crate::commands::{ReadOptions, read};
use crate::config::{Checked, Config};
use crate::reading::testing::{MeterBody, SharedBody, T0, TokioClock, serve_hdlc, serve_wrapper};

const QUICK: Times = Times {
    listen: Duration::from_millis(50),
    association: Duration::from_secs(5),
    head_settles: Duration::ZERO,
    identification: Duration::from_millis(100),
    mbus_latency: Duration::from_millis(10),
    frame: Duration::from_millis(200),
};
const BUDGET: Duration = Duration::from_secs(120);

fn body(name: &str) -> SharedBody {
    MeterBody::shared(&TokioClock::shared(T0), name, 1)
}

/// A TCP endpoint that gives each connection to somebody.
async fn endpoint<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> (Target, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap().to_string());
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    (target, accepting)
}

/// What is found, and what was said meanwhile.
async fn found(target: &Target) -> (Result<String, ProbeError>, String) {
    let mut said = Vec::new();
    let outcome = probe_in(target, QUICK, BUDGET, &mut said).await;
    (outcome, String::from_utf8(said).unwrap())
}

/// What is printed is taken by the gateway as it stands.
fn taken(section: &str) -> Checked {
    let text = format!("[gateway]\nid = \"gw\"\n{section}");
    Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap()
}

async fn read_with(section: &str) -> String {
    let mut out = Vec::new();
    read(&taken(section), "meter-1", &ReadOptions::default(), &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_target_is_a_device_or_a_host() {
    assert_eq!(Target::parse("/dev/ttyUSB0"), Some(Target::Serial("/dev/ttyUSB0".into())));
    assert_eq!((Target::parse(""), Target::parse(":4059")), (None, None));
    for (text, address) in [
        ("meter.example", "meter.example:4059"),
        ("192.0.2.7:2001", "192.0.2.7:2001"),
        ("[2001:db8::1]", "[2001:db8::1]:4059"),
        ("[2001:db8::1]:7", "[2001:db8::1]:7"),
    ] {
        assert_eq!(Target::parse(text), Some(Target::Tcp(address.to_owned())));
    }
}

/// Control, seen to fail: the meter found under another client than the one that is printed.
#[tokio::test]
async fn a_meter_in_the_wrapper_is_found_and_read_by_the_section_that_is_printed() {
    let (target, accepting) = endpoint(|mut outside| async move {
        let (inside, mut relay) = tokio::io::duplex(4096);
        let server = tokio::spawn(serve_wrapper(inside, 1, body("SIM0001")));
        drop(tokio::io::copy_bidirectional(&mut outside, &mut relay).await);
        drop(relay);
        drop(server.await);
    })
    .await;
    let (section, said) = found(&target).await;
    let section = section.unwrap();
    assert!(
        section.contains("protocol = \"dlms-wrapper\"\nclient = 16\nserver = 1\nserial = \"SIM0001\"\n"),
        "{section}"
    );
    assert_eq!(said, "listening\nDLMS in the wrapper\n");
    assert!(read_with(&section).await.contains("identity               SIM0001"));
    accepting.abort();
}

/// Negative control: name a password file in the section that is tried.
#[tokio::test]
async fn a_meter_that_wants_a_password_is_found_and_sent_none() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = heard.clone();
    let (target, accepting) = endpoint(move |mut outside| {
        let (ear, body) = (ear.clone(), body("SIM0001"));
        body.lock().unwrap().password = Some("s3cr3t");
        async move {
            let (inside, mut relay) = tokio::io::duplex(4096);
            let server = tokio::spawn(serve_wrapper(inside, 1, body));
            let mut octets = [0; 1024];
            loop {
                let mut answer = [0; 1024];
                tokio::select! {
                    count = outside.read(&mut octets) => {
                        let Ok(count @ 1..) = count else { break };
                        ear.lock().unwrap().extend_from_slice(&octets[..count]);
                        drop(relay.write_all(&octets[..count]).await);
                    }
                    count = relay.read(&mut answer) => {
                        let Ok(count @ 1..) = count else { break };
                        drop(outside.write_all(&answer[..count]).await);
                    }
                }
            }
            drop(relay);
            drop(server.await);
        }
    })
    .await;
    let section = found(&target).await.0.unwrap();
    assert!(
        section.starts_with("# a DLMS meter answers, but says nothing to this client: meter refused the association"),
        "{section}"
    );
    assert_eq!(taken(&section).lines.len(), 1);
    // No AARQ holds an authentication value.
    let heard = heard.lock().unwrap().clone();
    let aarqs: Vec<_> = heard.windows(2).filter(|pair| pair[0] == 0x60).collect();
    assert!(!aarqs.is_empty() && !heard.contains(&0xac), "{heard:02x?}");
    for client in [16, 1, 32] {
        assert!(heard.windows(6).any(|header| header == [0, 1, 0, client, 0, 1]), "client {client} was not tried");
    }
    accepting.abort();
}

/// A serial port with somebody at its other end.
fn port<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(SerialStream) -> F,
) -> (Target, std::fs::File, JoinHandle<()>) {
    let (master, slave) = SerialStream::pair().unwrap();
    let path = slave.name().unwrap();
    // While nobody has it open its other end fails.
    let kept = std::fs::File::open(&path).unwrap();
    drop(slave);
    (Target::Serial(path.into()), kept, tokio::spawn(serve(master)))
}

/// Control, seen to fail: another rate printed than the one at which it answers.
#[tokio::test]
async fn a_meter_in_hdlc_frames_is_found_at_the_address_that_it_has() {
    let (target, _kept, serving) = port(|mut master| async move {
        let (inside, mut relay) = tokio::io::duplex(4096);
        let meters = vec![(HdlcAddress::two(1, 17).unwrap(), body("SIM0017"))];
        let server = tokio::spawn(serve_hdlc(inside, meters));
        drop(tokio::io::copy_bidirectional(&mut master, &mut relay).await);
        drop(relay);
        drop(server.await);
    });
    let (section, said) = found(&target).await;
    let section = section.unwrap();
    for line in ["baud = 9600", "protocol = \"dlms-hdlc\"", "client = 16", "physical = 17", "serial = \"SIM0017\""] {
        assert!(section.contains(&format!("{line}\n")), "{line} is not in\n{section}");
    }
    assert!(said.starts_with("listening at 115200 8N1\nlistening at 9600 8N1\n"), "{said}");
    assert!(said.ends_with("M-Bus at 38400 8E1\nDLMS in HDLC frames at 9600 8N1\n"), "{said}");
    assert!(read_with(&section).await.contains("identity               SIM0017"));
    serving.abort();
}

/// Control, seen to fail: the request without parity.
#[tokio::test]
async fn a_meter_that_is_called_is_found_behind_a_device_server_that_leaves_parity_alone() {
    let even = |octet: &u8| octet | ((octet.count_ones() as u8 & 1) << 7);
    let (target, accepting) = endpoint(move |mut stream| async move {
        let (mut heard, mut octets) = (Vec::new(), [0; 64]);
        let request: Vec<u8> = b"/?!\r\n".iter().map(even).collect();
        while let Ok(count @ 1..) = stream.read(&mut octets).await {
            heard.extend_from_slice(&octets[..count]);
            if heard.ends_with(&request) {
                let answer: Vec<u8> = b"/?!\r\n/SIM5\\2METER\r\n".iter().map(even).collect();
                drop(stream.write_all(&answer).await);
            }
        }
    })
    .await;
    let quick = Times { association: Duration::from_millis(200), ..QUICK };
    let section = probe_in(&target, quick, BUDGET, &mut Vec::new()).await.unwrap();
    assert!(section.starts_with("# answers calls as SIM, METER\n"), "{section}");
    assert!(
        section.contains("announces mode E") && section.contains("echo = true\nmasked_parity = true\n"),
        "{section}"
    );
    let crate::config::metering::Addressing::Iec62056_21(call) = &taken(&section).lines[0].meters[0].addressing else {
        panic!("{section}")
    };
    assert!(call.client.masked_parity && call.client.echo);
    accepting.abort();
}

struct Water(u32);

impl Water {
    fn address(&self) -> SecondaryAddress {
        SecondaryAddress::of_number(self.0, maker_code("SIM").unwrap(), 1, 0x07)
    }
}

impl SlaveData for Water {
    fn telegrams(&mut self) -> Vec<Vec<u8>> {
        Builder::new(self.address()).finish()
    }
}

/// Meters that share a line, which gives back what is said on it when `echoes`.
async fn serve_mbus(mut stream: impl AsyncRead + AsyncWrite + Unpin, numbers: &[u32], echoes: bool) {
    let origin = Instant::now();
    let meter = |number: &u32| {
        let water = Water(*number);
        (Slave::new(SlaveConfig::new(0, water.address(), Baud::B2400)), water)
    };
    let (mut meters, mut octets): (Vec<_>, _) = (numbers.iter().map(meter).collect(), [0; 256]);
    loop {
        let (mut wake, mut said) = (None, Vec::new());
        for (slave, _) in &mut meters {
            loop {
                match slave.poll() {
                    // Who speak at once spoil each other's words.
                    Output::Send(octets) if said.is_empty() => said = octets,
                    Output::Send(octets) => said.iter_mut().zip(octets).for_each(|(one, other)| *one &= other),
                    Output::Event(()) => {}
                    Output::WaitUntil(at) => {
                        wake = [wake, at].into_iter().flatten().min();
                        break;
                    }
                }
            }
        }
        drop(stream.write_all(&said).await);
        let until = wake.map_or_else(|| Instant::now() + BUDGET, |at| origin + at);
        let received = tokio::time::timeout_at(until, stream.read(&mut octets)).await;
        let input = match &received {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(count)) => Input::Received(&octets[..*count]),
            Err(_) => Input::Tick,
        };
        if let (true, Input::Received(octets)) = (echoes, input) {
            drop(stream.write_all(octets).await);
        }
        for (slave, water) in &mut meters {
            slave.handle(origin.elapsed(), input, water);
        }
    }
}

/// Negative control: end the search with the first meter.
#[tokio::test]
async fn all_meters_of_an_m_bus_line_are_found() {
    let quick = Times { association: Duration::from_millis(200), ..QUICK };
    for echoes in [false, true] {
        let (target, accepting) = endpoint(move |stream| async move {
            serve_mbus(stream, &[12_345_678, 87_654_321], echoes).await;
        })
        .await;
        let mut said = Vec::new();
        let section = probe_in(&target, quick, BUDGET, &mut said).await.unwrap();
        assert_eq!(section.contains("echo = true\n"), echoes, "{section}");
        assert!(String::from_utf8(said).unwrap().ends_with("\nM-Bus\n"));
        let taken = taken(&section);
        let serials: Vec<_> =
            taken.lines[0].meters.iter().map(|meter| meter.serial.as_ref().unwrap().as_str()).collect();
        assert_eq!(serials, ["SIM:12345678:01:07", "SIM:87654321:01:07"], "{section}");
        accepting.abort();
    }
}

/// Control, seen to fail: what is heard told as another protocol.
#[tokio::test]
async fn what_is_pushed_is_heard_before_anything_is_asked() {
    let telegram = crate::push::tests::telegram(UtcMillis(T0.0), UtcMillis(T0.0), "");
    let names =
        |name: &str| vec![DataValue::OctetString(vec![0, 0, 96, 1, 0, 255]), DataValue::OctetString(name.into())];
    let energy = [DataValue::OctetString(vec![1, 0, 1, 8, 0, 255]), DataValue::DoubleLongUnsigned(7)];
    let unit = DataValue::Structure(vec![DataValue::Integer(0), DataValue::Enum(30)]);
    let energy = DataValue::Structure([energy.to_vec(), vec![unit]].concat());
    let body = DataValue::Structure(vec![DataValue::Structure(names("SIM0001")), energy]);
    let mut apdu = Vec::new();
    encode_data_notification(1, None, &body, &mut apdu);
    let (to, from) = (HdlcAddress::one(16).unwrap(), HdlcAddress::one(1).unwrap());
    let frames = push_frames(to, from, &apdu, 512);
    for (octets, settings) in [(telegram, "protocol = \"p1\"\n"), (frames, "protocol = \"dlms\"\n")] {
        let (target, accepting) = endpoint(move |mut stream| {
            let octets = octets.clone();
            async move {
                while stream.write_all(&octets).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
        let (section, said) = found(&target).await;
        let section = section.unwrap();
        let start = format!("[[port]]\nname = \"port-1\"\n{settings}");
        assert!(section.starts_with(&start) && section.contains("serial = \"SIM0001\""), "{section}");
        assert_eq!((taken(&section).ports.len(), &*said), (1, "listening\n"));
        accepting.abort();
    }
}
