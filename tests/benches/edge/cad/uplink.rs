//! The cloud's part: uploads by HTTP, refs and receipts by MQTT.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gateway::clock::{Clock as _, SystemClock};
use protocols::uplink::topics::{Topic, payload_path};
use protocols::uplink::{BatchRef, GatewayId, Receipt, SeqSet};

use super::packet::{self, Packet};

pub(super) struct Uplink {
    pub(super) mqtt_port: u16,
    pub(super) http_port: u16,
    readings: Receiver<u64>,
    receipted: Mutex<u64>,
}

/// What was uploaded: bytes by path.
type Landed = Arc<Mutex<HashMap<String, u64>>>;

impl Uplink {
    /// Listens on two free ports of loopback.
    pub(super) fn start(gateway: &str) -> Result<Self> {
        let gateway = GatewayId::new(gateway).map_err(|error| anyhow::anyhow!("{error}"))?;
        let landed = Landed::default();
        let (sender, readings) = channel();
        let uploads = landed.clone();
        let http_port = listen(move |stream| drop(serve_http(stream, &uploads)))?;
        let mqtt_port = listen(move |stream| {
            let served = serve_mqtt(stream, &gateway, &landed, &sender);
            if let Err(error) = served {
                drop(writeln!(std::io::stderr(), "the uplink broke off: {error:#}"));
            }
        })?;
        Ok(Self { mqtt_port, http_port, readings, receipted: Mutex::new(0) })
    }

    /// Waits until so many readings are receipted in all.
    pub(super) fn wait_for(&self, readings: u64, within: Duration) -> Result<()> {
        let mut receipted = self.receipted.lock().unwrap_or_else(PoisonError::into_inner);
        while *receipted < readings {
            *receipted += self.readings.recv_timeout(within).context("refs do not come")?;
        }
        ensure!(*receipted == readings, "{receipted} readings are receipted instead of {readings}");
        Ok(())
    }
}

fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(port)
}

fn serve_mqtt(stream: TcpStream, gateway: &GatewayId, landed: &Landed, readings: &Sender<u64>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let (mut applied, mut packet_id) = (SeqSet::new(), 0_u16);
    while let Some(packet) = packet::read(&mut reader)? {
        match packet {
            Packet::Connect => writer.write_all(&packet::CONNACK)?,
            Packet::Subscribe { id } => writer.write_all(&packet::suback(id))?,
            Packet::Pingreq => writer.write_all(&packet::PINGRESP)?,
            Packet::Puback { .. } | Packet::Disconnect => {}
            Packet::Publish { topic, payload, id } => {
                if let Some(id) = id {
                    writer.write_all(&packet::puback(id))?;
                }
                if topic != Topic::Refs.of(gateway) {
                    continue;
                }
                let reference = BatchRef::decode(&payload)?;
                let bytes = landed.lock().unwrap_or_else(PoisonError::into_inner).remove(&payload_path(&reference.id));
                ensure!(bytes == Some(reference.bytes), "{} is referenced, {bytes:?} landed", reference.id);
                applied.insert(reference.id.seq);
                packet_id = packet_id % u16::MAX + 1;
                let mut out = Vec::new();
                let receipt = receipt(&reference, &applied).encode();
                packet::publish(&mut out, &Topic::Receipts.of(gateway), packet_id, &receipt);
                writer.write_all(&out)?;
                readings.send(u64::from(reference.readings))?;
            }
        }
    }
    Ok(())
}

/// As the cloud writes it: all up to the first seq that is missing, and what is beyond.
fn receipt(reference: &BatchRef, applied: &SeqSet) -> Receipt {
    let through = applied.ranges().first().filter(|(first, _)| *first == 1).map_or(0, |(_, last)| *last);
    let mut beyond = applied.clone();
    if through > 0 {
        for seq in 1..=through {
            beyond.remove(seq);
        }
    }
    Receipt {
        gateway: reference.id.gateway.clone(),
        incarnation: reference.id.incarnation,
        applied_through: through,
        applied: beyond,
        refused: Vec::new(),
        resend: SeqSet::new(),
        later: SeqSet::new(),
        lost: SeqSet::new(),
        cloud_time: SystemClock::new().wall(),
    }
}

/// One connection, request after request: the time, and uploads that are counted and thrown away.
fn serve_http(stream: TcpStream, landed: &Landed) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            match header.trim_end().split_once(':') {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if request.starts_with("PUT ") {
            let path = request.split(' ').nth(1).context("a request without a path")?.to_owned();
            landed.lock().unwrap_or_else(PoisonError::into_inner).insert(path, length as u64);
            writer.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")?;
        } else {
            let body = format!("{{\"time_ms\":{}}}", SystemClock::new().wall().0);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            writer.write_all(answer.as_bytes())?;
        }
    }
}
