//! HDLC frames beside `dlms-cosem-rs`: found one after the other, both check sequences checked, the information borrowed.

use std::hint::black_box;

use anyhow::{Result, bail};
use dlms_cosem_rs::transport::hdlc::decode_frame;
use protocols::hdlc::frame::{Scan, scan};
use protocols::hdlc::{ClientAddress, HdlcAddress, push_frames};
use tests::measure::note;

use crate::beside::{Limit, Work};
use crate::captured::{self, logged};
use crate::dlms;

const TIMES: usize = 300;
const TIMES_RECORDED: usize = 20_000;
/// What both sides take unless more is negotiated.
const INFORMATION_MAX: u16 = 128;
/// The pushes that are in frames.
const CAPTURES: [&str; 4] =
    ["hdlc_iskra550", "hdlc_kaifa_ma304h3e", "hdlc_kamstrup_omnipower", "hdlc_norway_han_1phase"];

/// Frames, octets of their information, and a sum of the ends of it.
type Read = (usize, usize, usize);

/// A load profile, cut in frames of the length that needs no negotiation.
fn segmented() -> Result<Vec<u8>> {
    let (destination, source) = (HdlcAddress::from(ClientAddress::PUBLIC), HdlcAddress::two(1, 17)?);
    Ok(push_frames(destination, source, &dlms::buffer(), INFORMATION_MAX))
}

/// What was recorded of pushes; nothing where there is no folder of captures.
fn recorded() -> Result<Vec<u8>> {
    let mut octets = Vec::new();
    for name in CAPTURES {
        let log = captured::file("dlms_push", &format!("{name}.log"))?;
        octets.extend(log.iter().flat_map(|log| logged(log)));
    }
    Ok(octets)
}

fn add(read: &mut Read, information: &[u8]) {
    let (first, last) = (information.first().copied(), information.last().copied());
    let ends = usize::from(first.unwrap_or_default()) + usize::from(last.unwrap_or_default());
    *read = (read.0 + 1, read.1 + information.len(), read.2 + ends);
}

fn ours(mut octets: &[u8]) -> Result<Read> {
    let mut read = (0, 0, 0);
    // The closing flag of the last frame stays, as if it were to open another.
    while octets.len() > 1 {
        match scan(octets) {
            Scan::Frame { frame, used } => {
                add(&mut read, frame.information);
                octets = &octets[used..];
            }
            other => bail!("{other:?} after {} frames", read.0),
        }
    }
    Ok(read)
}

fn theirs(mut octets: &[u8]) -> Result<Read> {
    let mut read = (0, 0, 0);
    while !octets.is_empty() {
        let (frame, used) = decode_frame(octets)?;
        add(&mut read, frame.information);
        octets = &octets[used..];
    }
    Ok(read)
}

fn compare(name: &str, octets: &[u8], times: usize) -> Result<Read> {
    let read = ours(octets)?;
    let (peer, piece) = ("dlms-cosem-rs", "frame");
    Work { name, peer, piece, pieces: read.0, times, limit: Limit::Speed(1.2) }
        .measure(|| ours(black_box(octets)), || theirs(black_box(octets)))?;
    Ok(read)
}

pub(crate) fn run() -> Result<()> {
    let (frames, octets, _) = compare("HDLC deframing, information fields of 128 octets", &segmented()?, TIMES)?;
    note(&format!(
        "HDLC: {frames} frames of a load profile, {octets} octets of information; theirs by `decode_frame`."
    ))?;
    let recorded = recorded()?;
    if recorded.is_empty() {
        return Ok(note("HDLC, recorded: skipped, METERPOST_DATA names no folder of captures")?);
    }
    let (frames, octets, _) = compare("the same, recorded pushes", &recorded, TIMES_RECORDED)?;
    Ok(note(&format!("HDLC, recorded: {frames} frames, {octets} octets of information."))?)
}
