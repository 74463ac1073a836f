//! Meters that go to a listener: what it takes and confirms is what the truth says, over connections that break and datagrams that get lost.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use common::{places, start, truth};
use firmware_sim::speak::LinePlace;
use protocols::cosem::register::ScalerUnit;
use protocols::dlms::data::Data;
use protocols::dlms::datetime::ClockRules;
use protocols::dlms::notification::{NotificationBody, decode_data_notification, encode_data_notification_confirm};
use protocols::dlms::security::{
    Counter, Key, Keys, ProtectionError, PushConfig, PushReceiver, ReceivedCounters, SystemTitle,
};
use protocols::metering::ObisCode;
use protocols::wrapper::{Scan, Wpdu, scan};
use tokio::task::spawn_blocking;

const OURS: SystemTitle = SystemTitle(*b"XMP\0\0\0\0\x01");
const PATIENCE: Duration = Duration::from_secs(20);

/// A listener as strict as a gateway, which keeps what it takes.
struct Head {
    receiver: Option<PushReceiver>,
    counter: Counter,
    /// By code and label; how often it came.
    kept: BTreeMap<(String, String), (String, u32)>,
}

impl Head {
    fn new(place: &LinePlace) -> Self {
        let key = |digits: &String| Key::from_hex(digits).unwrap();
        let keys = place.encryption_key.as_ref().zip(place.authentication_key.as_ref());
        let receiver = keys.map(|(encryption, authentication)| {
            let config = PushConfig::new(Keys::new(key(encryption), key(authentication)));
            PushReceiver::new(config, ReceivedCounters::default()).unwrap()
        });
        Self { receiver, counter: Counter::reserved(1, 10_000), kept: BTreeMap::new() }
    }

    /// The frame that confirms a push, where that is wanted.
    fn take(&mut self, wpdu: &Wpdu<'_>) -> Option<Vec<u8>> {
        let (plain, protection) = match &mut self.receiver {
            None => (wpdu.apdu.to_vec(), None),
            Some(receiver) => match receiver.receive(wpdu.apdu) {
                Ok(pushed) => (pushed.apdu, pushed.protection),
                // Said again on the same connection: here nobody remembers what was answered.
                Err(ProtectionError::Replayed { .. }) => {
                    let pushed = receiver.repeated(wpdu.apdu).unwrap();
                    (pushed.apdu, pushed.protection)
                }
                Err(error) => panic!("{error}"),
            },
        };
        let notification = decode_data_notification(&plain).unwrap();
        let NotificationBody::Data(body) = notification.body else { panic!("described values") };
        let at = |code: ObisCode| {
            let code_of = |element: &Data<'_>| element.structure()?.at(0)?.obis();
            body.elements()
                .unwrap()
                .iter()
                .find(|element| code_of(element) == Some(code))
                .and_then(|element| element.structure()?.at(1))
                .unwrap()
        };
        let label = at(ObisCode::new(0, 0, 1, 0, 0, 255)).date_time().unwrap().to_utc(ClockRules::default()).unwrap();
        for element in body.elements().unwrap() {
            let Some([code, value, scaler_unit]) = element.structure().and_then(|fields| fields.exactly()) else {
                continue;
            };
            let quantity = ScalerUnit::decode(&scaler_unit).unwrap().quantity(&value).unwrap().to_string();
            let key = (code.obis().unwrap().to_string(), label.utc.to_string());
            let kept = self.kept.entry(key).or_insert((quantity.clone(), 0));
            assert_eq!(kept.0, quantity, "the same entry says the same");
            kept.1 += 1;
        }
        if !notification.is_confirmed() {
            return None;
        }
        let (mut apdu, mut octets) = (Vec::new(), Vec::new());
        encode_data_notification_confirm(notification.long_invoke_id_and_priority, None, &mut apdu);
        if let (Some(receiver), Some(protection)) = (&self.receiver, protection) {
            apdu = receiver.answer(&protection, OURS, self.counter.next().unwrap(), &apdu).unwrap();
        }
        let answer = Wpdu { source: wpdu.destination, destination: wpdu.source, apdu: &apdu };
        answer.encode(&mut octets).unwrap();
        Some(octets)
    }

    fn assert_is_the_truth(&self, path: &Path, is_confirmed: bool) {
        let text = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap().to_owned();
        let mut told = BTreeMap::new();
        for line in truth(path) {
            assert!(line["protocol"] == "dlms-notify" && line["pushed_at"].is_i64() != is_confirmed, "{line}");
            let value = format!("{} {}", text(&line, "value"), text(&line, "unit"));
            let before = told.insert((text(&line, "code"), text(&line, "captured_at")), value);
            assert_eq!(before, None, "told once: {line}");
        }
        let kept: BTreeMap<_, _> = self.kept.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
        // The last may be on its way.
        assert!(kept.iter().all(|(key, value)| told.get(key) == Some(value)), "{kept:?} and {told:?}");
        assert!(told.len() - kept.len() <= 2, "{} of {} came", kept.len(), told.len());
    }
}

fn fleet(path: &Path, address: &str, rest: &str) -> String {
    format!(
        "truth = \"{}\"\nspeed = 3600.0\n[[meters]]\nprotocol = \"dlms-notify\"\npush_to = {address:?}\nzone = \"CET\"\n\
         profile = {{ capture_period_s = 900 }}\n{rest}",
        path.display()
    )
}

/// Control, seen to fail: let a meter say the next entry without a confirmation.
#[tokio::test(flavor = "multi_thread")]
async fn a_meter_says_each_entry_until_it_is_confirmed_over_connections_that_break() {
    for rest in ["", "encrypted = true\n"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fleet = start(&fleet(&path, &address, rest)).await;
        let mut head = Head::new(&places(&fleet)[0].1);
        let head = spawn_blocking(move || {
            let mut taken = 0;
            while taken < 24 {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut heard = Vec::new();
                loop {
                    let mut chunk = [0; 2048];
                    let count = stream.read(&mut chunk).unwrap_or(0);
                    heard.extend(&chunk[..count]);
                    let Scan::Wpdu { wpdu, used } = scan(&heard, 65_535) else {
                        if count == 0 {
                            break;
                        }
                        continue;
                    };
                    let answer = head.take(&wpdu).unwrap();
                    heard.drain(..used);
                    taken += 1;
                    // Every third is kept, and the connection breaks before its meter hears of it.
                    if taken % 3 == 0 {
                        break;
                    }
                    stream.write_all(&answer).unwrap();
                }
            }
            head
        });
        let head = head.await.unwrap();
        fleet.stop().await;
        head.assert_is_the_truth(&path, true);
        assert!(head.kept.values().any(|(_, times)| *times == 2), "{:?}", head.kept);
        assert!(head.kept.values().all(|(_, times)| *times <= 2), "{:?}", head.kept);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_sends_datagrams_confirmed_or_not() {
    for rest in ["encrypted = true\n", "confirmed = false\n"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let fleet = start(&fleet(&path, &address, &format!("transport = \"udp\"\n{rest}"))).await;
        let mut head = Head::new(&places(&fleet)[0].1);
        let head = spawn_blocking(move || {
            for _ in 0..12 {
                let mut datagram = [0; 2048];
                let (count, peer) = socket.recv_from(&mut datagram).unwrap();
                let Scan::Wpdu { wpdu, used } = scan(&datagram[..count], 65_535) else { panic!("no frame") };
                assert_eq!(used, count);
                if let Some(answer) = head.take(&wpdu) {
                    socket.send_to(&answer, peer).unwrap();
                }
            }
            (head, socket)
        });
        let (head, _socket) = head.await.unwrap();
        fleet.stop().await;
        assert_eq!(head.kept.len(), 24);
        head.assert_is_the_truth(&path, rest.contains("encrypted"));
    }
}
