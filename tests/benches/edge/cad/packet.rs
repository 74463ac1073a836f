//! As much of MQTT 3.1.1 as the broker's side of a connection needs.

use std::io::BufRead;

use anyhow::{Context as _, Result, bail, ensure};

/// Far above any packet of the gateway.
const PACKET_BYTES_MAX: usize = 1024 * 1024;

pub(super) const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
pub(super) const PINGRESP: [u8; 2] = [0xd0, 0];

/// What clients send.
#[derive(Debug)]
pub(super) enum Packet {
    Connect,
    Publish { topic: String, payload: Vec<u8>, id: Option<u16> },
    Puback { id: u16 },
    Subscribe { id: u16 },
    Pingreq,
    Disconnect,
}

/// The next packet; `None` when the client is gone.
pub(super) fn read(stream: &mut impl BufRead) -> Result<Option<Packet>> {
    if stream.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let [first] = octets(stream)?;
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let [octet] = octets(stream)?;
        length |= usize::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            break;
        }
    }
    ensure!(length <= PACKET_BYTES_MAX, "a packet of {length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let id = |at: usize| {
        let octets = body.get(at..at + 2).context("a packet without its id")?;
        anyhow::Ok(u16::from_be_bytes([octets[0], octets[1]]))
    };
    Ok(Some(match first >> 4 {
        1 => Packet::Connect,
        3 => {
            let topic_end = 2 + usize::from(id(0)?);
            let topic = String::from_utf8(body.get(2..topic_end).context("a cut topic")?.to_vec())?;
            let has_id = first & 0x06 != 0;
            let start = if has_id { topic_end + 2 } else { topic_end };
            let payload = body.get(start..).context("a cut publish")?.to_vec();
            Packet::Publish { topic, payload, id: has_id.then(|| id(topic_end)).transpose()? }
        }
        4 => Packet::Puback { id: id(0)? },
        8 => Packet::Subscribe { id: id(0)? },
        12 => Packet::Pingreq,
        14 => Packet::Disconnect,
        other => bail!("packet type {other} from a client"),
    }))
}

fn octets<const N: usize>(stream: &mut impl BufRead) -> Result<[u8; N]> {
    let mut octets = [0; N];
    stream.read_exact(&mut octets)?;
    Ok(octets)
}

/// Grants one filter at QoS 1: each client here has one.
pub(super) fn suback(id: u16) -> [u8; 5] {
    let [high, low] = id.to_be_bytes();
    [0x90, 3, high, low, 1]
}

pub(super) fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

/// Appends a PUBLISH of QoS 1.
pub(super) fn publish(out: &mut Vec<u8>, topic: &str, id: u16, payload: &[u8]) {
    let mut length = 2 + topic.len() + 2 + payload.len();
    out.push(0x32);
    loop {
        let octet = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length == 0 { octet } else { octet | 0x80 });
        if length == 0 {
            break;
        }
    }
    out.extend((topic.len() as u16).to_be_bytes());
    out.extend(topic.as_bytes());
    out.extend(id.to_be_bytes());
    out.extend(payload);
}
