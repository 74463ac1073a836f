//! What goes over a link, in hexadecimal, without its secrets.
//!
//! A line is `2026-11-29T16:43:52.120Z sent     7e a0 07 ...`: an HDLC frame, a WPDU, or of IEC 62056-21 and M-Bus what was sent or came
//! in one piece. `**` stands for an octet that may not be seen: passwords, proofs and challenges of high level security, keys, authentication
//! tags, and check sequences over any of these, which would give away a part of them. Octets that are no frame are shown only until
//! a secret was sent: an echo of it may come damaged.

mod hidden;

use std::fmt::Write as _;
use std::io::Write;
use std::ops::Range;

use async_trait::async_trait;
use protocols::hdlc::frame::{self, Frame};
use protocols::wrapper;

use self::hidden::{Called, Hidden, hidden};
use super::{ByteLink, Line, LinkLost};
use crate::clock::SharedClock;

/// What the octets of a link are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Hdlc,
    Wrapper,
    Iec62056_21,
    /// Nothing that goes over it is a secret: what is encrypted stays so.
    Mbus,
}

/// More octets without a frame are noise.
const PENDING_OCTETS_MAX: usize = 128 * 1024;

/// A link that tells what goes over it.
pub struct TraceLink {
    inner: Box<dyn ByteLink>,
    tracer: Tracer,
}

impl TraceLink {
    pub fn new(inner: Box<dyn ByteLink>, framing: Framing, clock: SharedClock, out: Box<dyn Write + Send>) -> Self {
        let tracer = Tracer {
            framing,
            clock,
            out,
            sent: Stream::default(),
            received: Stream::default(),
            called: Called::default(),
            has_secret: false,
        };
        Self { inner, tracer }
    }
}

impl Drop for TraceLink {
    /// What began and did not end.
    fn drop(&mut self) {
        for (what, octets) in [
            ("sent", std::mem::take(&mut self.tracer.sent.octets)),
            ("received", std::mem::take(&mut self.tracer.received.octets)),
        ] {
            // A closing flag stays.
            if octets.iter().any(|octet| *octet != frame::FLAG) {
                let text = self.tracer.noise(&octets);
                self.tracer.tell(what, &text);
            }
        }
    }
}

#[async_trait]
impl ByteLink for TraceLink {
    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, LinkLost> {
        let count = self.inner.receive(into).await?;
        self.tracer.trace(Way::Received, into.get(..count).unwrap_or_default());
        Ok(count)
    }

    async fn send(&mut self, octets: &[u8]) -> Result<(), LinkLost> {
        self.tracer.trace(Way::Sent, octets);
        self.inner.send(octets).await
    }

    fn clear_input(&mut self) -> Result<(), LinkLost> {
        self.inner.clear_input()
    }

    fn set_line(&mut self, line: Option<Line>) -> Result<(), LinkLost> {
        let text = line.map_or_else(
            || "as it was".to_owned(),
            |line| format!("{} {:?}", line.baud.bits_per_second(), line.framing),
        );
        self.tracer.tell("line", &text);
        self.inner.set_line(line)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Sent,
    Received,
}

/// One way of a link.
#[derive(Default)]
struct Stream {
    octets: Vec<u8>,
    /// What of the rest of an APDU in several frames may not be seen.
    rest: Option<Hidden>,
}

struct Tracer {
    framing: Framing,
    clock: SharedClock,
    out: Box<dyn Write + Send>,
    sent: Stream,
    received: Stream,
    called: Called,
    has_secret: bool,
}

impl Tracer {
    /// A trace that cannot be written is lost; the conversation goes on.
    fn tell(&mut self, what: &str, text: &str) {
        drop(writeln!(self.out, "{} {what:<8} {text}", self.clock.wall()));
    }

    fn trace(&mut self, way: Way, octets: &[u8]) {
        let what = if way == Way::Sent { "sent" } else { "received" };
        if self.framing == Framing::Mbus {
            return self.tell(what, &masked(octets, &[]));
        }
        if self.framing == Framing::Iec62056_21 {
            let mask = if way == Way::Sent { self.called.sent(octets) } else { self.called.received(octets) };
            let text = hexadecimal(octets.iter().zip(mask).map(|(octet, is_hidden)| (!is_hidden).then_some(*octet)));
            return self.tell(what, &text);
        }
        let mut stream = std::mem::take(if way == Way::Sent { &mut self.sent } else { &mut self.received });
        stream.octets.extend_from_slice(octets);
        let mut done = 0;
        while let Some((used, text)) = self.next(&mut stream.rest, &stream.octets[done..]) {
            done += used;
            self.tell(what, &text);
        }
        stream.octets.drain(..done);
        *(if way == Way::Sent { &mut self.sent } else { &mut self.received }) = stream;
    }

    /// The next frame, or what is none, as its length and its text; `None` while it is not whole.
    fn next(&mut self, rest: &mut Option<Hidden>, octets: &[u8]) -> Option<(usize, String)> {
        if octets.is_empty() {
            return None;
        }
        let found = match self.framing {
            Framing::Hdlc => match frame::scan(octets) {
                frame::Scan::Frame { frame, used } => {
                    let hidden = self.in_frame(rest, &frame, used);
                    Some((used, masked(&octets[..used], &hidden)))
                }
                frame::Scan::Garbage { skip, .. } => Some((skip, self.noise(&octets[..skip]))),
                frame::Scan::NeedMore => None,
            },
            _ => match wrapper::scan(octets, usize::from(u16::MAX)) {
                wrapper::Scan::Wpdu { wpdu, used } => {
                    let start = used - wpdu.apdu.len();
                    let hidden = self.note(hidden(wpdu.apdu, false), wpdu.apdu.len());
                    let hidden: Vec<_> = hidden.into_iter().map(|range| shifted(range, start)).collect();
                    Some((used, masked(&octets[..used], &hidden)))
                }
                wrapper::Scan::Broken(_) => Some((octets.len(), self.noise(octets))),
                wrapper::Scan::NeedMore => None,
            },
        };
        found.or_else(|| (octets.len() > PENDING_OCTETS_MAX).then(|| (octets.len(), self.noise(octets))))
    }

    /// What of a frame may not be seen, its check sequence with it.
    fn in_frame(&mut self, rest: &mut Option<Hidden>, frame: &Frame<'_>, used: usize) -> Vec<Range<usize>> {
        let check = used - 2;
        let start = check - frame.information.len();
        let (llc, apdu, found) = match (frame.information, rest.take()) {
            ([], going_on) => {
                *rest = going_on;
                return Vec::new();
            }
            (part, Some(going_on)) => (0, part, going_on),
            ([0xe6, 0xe6 | 0xe7, _, apdu @ ..], None) => (3, apdu, hidden(apdu, frame.segmented)),
            // Perhaps the end of an APDU, sent again.
            (part, None) if self.has_secret => (0, part, Hidden::From(0)),
            (apdu, None) => (0, apdu, hidden(apdu, frame.segmented)),
        };
        if frame.segmented {
            *rest = Some(found.clone());
        }
        let mut ranges: Vec<_> =
            self.note(found, apdu.len()).into_iter().map(|range| shifted(range, start + llc)).collect();
        if !ranges.is_empty() {
            ranges.push(check..used);
        }
        ranges
    }

    fn note(&mut self, hidden: Hidden, length: usize) -> Vec<Range<usize>> {
        let ranges = hidden.ranges(length);
        self.has_secret |= !ranges.is_empty();
        ranges
    }

    fn noise(&self, octets: &[u8]) -> String {
        let length = octets.len();
        if self.has_secret {
            return format!("{length} octets that are no frame, not shown");
        }
        format!("{} (no frame)", masked(octets, &[]))
    }
}

fn shifted(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

fn masked(octets: &[u8], hidden: &[Range<usize>]) -> String {
    let is_hidden = |place: &usize| hidden.iter().any(|range| range.contains(place));
    hexadecimal(octets.iter().enumerate().map(|(place, octet)| (!is_hidden(&place)).then_some(*octet)))
}

/// `None` is an octet that may not be seen.
fn hexadecimal(octets: impl Iterator<Item = Option<u8>>) -> String {
    let mut text = String::new();
    for octet in octets {
        let separator = if text.is_empty() { "" } else { " " };
        match octet {
            Some(octet) => drop(write!(text, "{separator}{octet:02x}")),
            None => drop(write!(text, "{separator}**")),
        }
    }
    text
}

#[cfg(test)]
mod tests;
