use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A broker that takes publishes and does with them what the test says.
struct Broker {
    listener: TcpListener,
    /// Payloads in the order of arrival.
    taken: Vec<Vec<u8>>,
}

impl Broker {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), taken: Vec::new() }
    }

    fn settings(&self) -> BrokerSettings {
        BrokerSettings {
            host: "127.0.0.1".to_owned(),
            port: self.listener.local_addr().unwrap().port(),
            client_id: "test".to_owned(),
            keep_alive_s: 5,
            user_name: None,
            password: None,
        }
    }

    /// Takes `publishes` messages on a new connection, acknowledges the first `acknowledged` of them, and hangs up unless it
    /// acknowledged all. How many of the acknowledgements before a hang-up get through is up to the client's timing.
    async fn serve(&mut self, publishes: usize, acknowledged: usize) -> Option<TcpStream> {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        assert_eq!(packet(&mut stream).await.0 >> 4, 1, "CONNECT");
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        for n in 0..publishes {
            let (kind, body) = packet(&mut stream).await;
            assert_eq!(kind & 0xf6, 0x32, "PUBLISH at QoS 1");
            let topic = usize::from(body[0]) << 8 | usize::from(body[1]);
            let id = &body[2 + topic..4 + topic];
            self.taken.push(body[4 + topic..].to_vec());
            if n < acknowledged {
                stream.write_all(&[0x40, 2, id[0], id[1]]).await.unwrap();
            }
        }
        if publishes == acknowledged {
            return Some(stream);
        }
        // Closed with octets unread, the socket would reset and take the acknowledgements with it.
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        None
    }
}

async fn packet(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let kind = stream.read_u8().await.unwrap();
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = stream.read_u8().await.unwrap();
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (kind, body)
}

fn publication(n: u32) -> Publication {
    let line = TruthLine {
        meter: "SIM:000001".to_owned(),
        code: "1-0:1.8.0".to_owned(),
        kind: "register",
        period_s: 0,
        captured_at: "2026-11-23T02:35:15Z".to_owned(),
        nth: 0,
        value: n.to_string(),
        unit: "Wh".to_owned(),
        quality: "good".to_owned(),
        protocol: "cad",
        pushed_at: None,
        stamped_by: None,
    };
    Publication { meter_index: 0, topic: "a/b".into(), payload: n.to_string().into_bytes(), truth: vec![line] }
}

struct Setup {
    queue: Arc<PublishQueue>,
    stop: watch::Sender<bool>,
    publisher: JoinHandle<()>,
    truth_file: tempfile::NamedTempFile,
}

fn start(broker: &Broker, messages: u32, per_meter_max: u32) -> Setup {
    let queue = Arc::new(PublishQueue::new(1, per_meter_max));
    for n in 0..messages {
        queue.offer(publication(n));
    }
    let truth_file = tempfile::NamedTempFile::new().unwrap();
    let truth = Arc::new(Truth::append_to(truth_file.path()).unwrap());
    let (stop, stopping) = watch::channel(false);
    let publisher = Publisher::new(broker.settings(), queue.clone(), truth, stopping);
    Setup { queue, stop, publisher: tokio::spawn(publisher.run()), truth_file }
}

impl Setup {
    fn values(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.truth_file.path()).unwrap();
        let lines = text.lines().map(|line| line.parse::<serde_json::Value>().unwrap());
        lines
            .map(|line| {
                assert!(line["pushed_at"].as_i64().unwrap() > 1_500_000_000_000);
                line["value"].as_str().unwrap().parse().unwrap()
            })
            .collect()
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_is_published_again_and_in_the_truth_once() {
    let mut broker = Broker::start().await;
    let mut setup = start(&broker, 250, 1000);
    assert!(broker.serve(30, 20).await.is_none());
    assert!(broker.serve(0, 0).await.is_some(), "a connection that dies after its CONNACK");
    let again = 250 - setup.queue.acknowledged() as usize;
    assert!((230..=250).contains(&again), "{again} to be published again");
    let stream = broker.serve(again, again).await;
    setup.stop.send(true).unwrap();
    (&mut setup.publisher).await.unwrap();
    drop(stream);
    assert_eq!(setup.values(), (0..250).collect::<Vec<_>>());
    assert_eq!((setup.queue.acknowledged(), setup.queue.outstanding(), setup.queue.dropped()), (250, 0, 0));
    let mut counts = BTreeMap::new();
    for payload in &broker.taken {
        *counts.entry(payload.clone()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 250, "every payload arrived");
    assert_eq!(broker.taken.len(), 30 + again);
    assert!(counts.values().all(|count| *count <= 2));
}

#[tokio::test]
async fn what_finds_its_queue_full_is_dropped_and_not_in_the_truth() {
    let mut broker = Broker::start().await;
    let mut setup = start(&broker, 15, 10);
    let stream = broker.serve(10, 10).await;
    setup.stop.send(true).unwrap();
    (&mut setup.publisher).await.unwrap();
    drop(stream);
    assert_eq!(setup.values(), (0..10).collect::<Vec<_>>());
    assert_eq!((setup.queue.acknowledged(), setup.queue.dropped()), (10, 5));
}

#[tokio::test]
async fn an_acknowledgement_out_of_order_waits_for_those_before_it() {
    let mut progress = Progress::new(3);
    for packet_id in [7, 8, 9] {
        progress.note(&Event::Outgoing(Outgoing::Publish(packet_id))).unwrap();
    }
    let acknowledge = |pkid| Event::Incoming(Incoming::PubAck(rumqttc::PubAck { pkid }));
    progress.note(&acknowledge(8)).unwrap();
    assert_eq!(progress.settle_next(), None);
    progress.note(&acknowledge(7)).unwrap();
    assert_eq!(progress.settle_next().map(|(place, _)| place), Some(0));
    assert_eq!(progress.settle_next().map(|(place, _)| place), Some(1));
    assert_eq!((progress.settle_next(), progress.settled()), (None, 2));
    assert!(matches!(progress.note(&Event::Outgoing(Outgoing::AwaitAck(8))), Err(Lost::Collision)));
}
