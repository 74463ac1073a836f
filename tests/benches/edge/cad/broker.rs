//! The broker's part towards one subscriber of CAD messages.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gateway::clock::{Clock as _, SystemClock};
use protocols::cad::smets2::electricity_topic;
use protocols::metering::UtcMillis;

use super::packet::{self, Packet};

/// Messages sent and not acknowledged yet.
pub(super) const WINDOW: u64 = 1_000;
const DEVICES: u64 = 100;
const CADENCE_MS: i64 = 10_000;
/// Sent in one write.
const CHUNK: u64 = 50;

pub(super) struct Broker {
    pub(super) port: u16,
    subscriber: Mutex<Option<Subscriber>>,
    arrived: Receiver<Subscriber>,
}

struct Subscriber {
    stream: TcpStream,
    acknowledged: Receiver<u16>,
    sent: u64,
    first_at: UtcMillis,
}

impl Broker {
    /// Listens on a free port of loopback.
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (sender, arrived) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                // A client that breaks off is seen by whoever waits for its acknowledgements.
                std::thread::spawn(move || drop(serve(stream, &sender)));
            }
        });
        Ok(Self { port, subscriber: Mutex::new(None), arrived })
    }

    /// Returns when the subscriber has acknowledged all of them.
    pub(super) fn publish(&self, messages: u64, within: Duration) -> Result<()> {
        let mut place = self.subscriber.lock().map_err(|_| anyhow::anyhow!("a round before this one failed"))?;
        if place.is_none() {
            *place = Some(self.arrived.recv_timeout(within).context("nobody subscribed")?);
        }
        let subscriber = place.as_mut().context("nobody subscribed")?;
        let (end, mut acknowledged) = (subscriber.sent + messages, subscriber.sent);
        let mut chunk = Vec::new();
        while acknowledged < end {
            while subscriber.sent < end && subscriber.sent + CHUNK <= acknowledged + WINDOW {
                chunk.clear();
                for number in subscriber.sent..(subscriber.sent + CHUNK).min(end) {
                    append_message(&mut chunk, number, subscriber.first_at);
                    subscriber.sent += 1;
                }
                subscriber.stream.write_all(&chunk)?;
            }
            let id = subscriber.acknowledged.recv_timeout(within).context("acknowledgements do not come")?;
            ensure!(id == packet_id(acknowledged), "message {acknowledged} is acknowledged out of order, as {id}");
            acknowledged += 1;
        }
        Ok(())
    }
}

fn serve(stream: TcpStream, arrived: &Sender<Subscriber>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let (sender, receiver) = channel();
    let mut receiver = Some(receiver);
    while let Some(packet) = packet::read(&mut reader)? {
        match packet {
            Packet::Connect => writer.write_all(&packet::CONNACK)?,
            Packet::Subscribe { id } => {
                writer.write_all(&packet::suback(id))?;
                // Ten days back: every round goes on from there, and none comes near the present.
                let first_at = UtcMillis(SystemClock::new().wall().seconds() * 1000).plus_ms(-10 * 86_400_000);
                if let Some(acknowledged) = receiver.take() {
                    let subscriber = Subscriber { stream: writer.try_clone()?, acknowledged, sent: 0, first_at };
                    // Whoever would publish to it is gone at the end of the benchmark only.
                    drop(arrived.send(subscriber));
                }
            }
            Packet::Puback { id } => sender.send(id)?,
            Packet::Pingreq => writer.write_all(&packet::PINGRESP)?,
            Packet::Publish { .. } | Packet::Disconnect => {}
        }
    }
    Ok(())
}

/// Never 0.
fn packet_id(number: u64) -> u16 {
    (number % 65_535 + 1) as u16
}

fn append_message(out: &mut Vec<u8>, number: u64, first_at: UtcMillis) {
    let at = first_at.plus_ms((number / DEVICES) as i64 * CADENCE_MS);
    let device = format!("C8F09E{:06X}", number % DEVICES);
    packet::publish(out, &electricity_topic(&device), packet_id(number), payload(number, at).as_bytes());
}

/// What such a device publishes every ten seconds; import register and power become readings.
fn payload(number: u64, at: UtcMillis) -> String {
    let (step, device) = (number / DEVICES, number % DEVICES);
    let watt_hours = 14_237_104 + device * 1_000 + step * 2;
    let watts = 300 + (step * 37 + device * 11) % 2_000;
    let cumulative = format!("{}.{:03}", watt_hours / 1000, watt_hours % 1000);
    format!(
        r#"{{"electricitymeter":{{"timestamp":"{at}","energy":{{"import":{{"cumulative":{cumulative},"day":{}.{:03},"week":41.726,"month":203.551,"units":"kWh","mpan":"1200031345678","supplier":"Octopus Energy","tariff":"E-1R-VAR-22-11-01-C","price":{{"unitrate":0.27470,"standingcharge":0.47850}}}}}},"power":{{"value":{}.{:03},"units":"kW"}}}}}}"#,
        step % 10,
        step % 1000,
        watts / 1000,
        watts % 1000,
    )
}

pub(super) fn message_len() -> usize {
    payload(0, UtcMillis(1_795_400_000_000)).len()
}
