//! Who talks without being asked.

use protocols::metering::UtcMillis;

use super::{Probe, ProbeError, Rate, Section, checked};
use crate::clock::{Clock as _, SystemClock};
use crate::config::metering::Parity;
use crate::push::{Found, Hearing, Telegram, Trouble, hearing};

/// What meters push at, most frequent first: P1; SML; D0 and P1 before DSMR 4; D0; DLMS in Norway, Austria, Switzerland; DLMS of
/// Kamstrup.
pub(super) const RATES: [Rate; 6] = [
    Rate::new(115_200, 8, Parity::None),
    Rate::new(9_600, 8, Parity::None),
    Rate::new(9_600, 7, Parity::Even),
    Rate::new(2_400, 7, Parity::Even),
    Rate::new(2_400, 8, Parity::Even),
    Rate::new(2_400, 8, Parity::None),
];
/// What may be heard, and who understands it.
struct Candidate {
    section: Section,
    hearing: Box<dyn Hearing>,
    /// The best that was refused.
    refused: Option<(Trouble, String)>,
}

impl Candidate {
    fn new(section: Section) -> Self {
        let port = checked(&section).ports.remove(0);
        Self { section, hearing: hearing(&port), refused: None }
    }
}

impl Probe<'_> {
    pub(super) async fn listen(&mut self, rate: Option<Rate>) -> Result<Option<Section>, ProbeError> {
        let mut candidates = self.candidates(rate);
        let mut link = self.open(rate.unwrap_or(RATES[0])).await?;
        let until = self.until(self.times.listen);
        let (clock, mut octets) = (SystemClock::new(), [0; 2048]);
        // A link that is lost has nothing more to say: what is tried next opens it anew.
        while let Ok(Ok(count)) = tokio::time::timeout_at(until, link.receive(&mut octets)).await {
            let received = &octets[..count];
            for candidate in &mut candidates {
                if let Some(telegram) = candidate.hear(received, clock.wall()) {
                    return Ok(Some(with_identity(candidate.section.clone(), &telegram)));
                }
            }
        }
        let refused =
            candidates.into_iter().filter_map(|it| it.refused.map(|(trouble, text)| (trouble, text, it.section)));
        Ok(refused.max_by_key(|(trouble, ..)| *trouble).map(|(trouble, text, section)| {
            section.saying(&format!("its telegrams cannot be used yet: {text}")).saying(trouble.hint())
        }))
    }

    fn candidates(&self, rate: Option<Rate>) -> Vec<Candidate> {
        let port = |protocol: &str| Section::port(self.target, rate.unwrap_or(RATES[0]), protocol);
        let dlms = || ["hdlc", "mbus"].map(|framing| port("dlms").with("framing", framing));
        let sections = match rate {
            None => {
                let masked = port("d0").with("masked_parity", true);
                [vec![port("p1"), port("sml"), port("d0"), masked], dlms().to_vec()].concat()
            }
            Some(Rate { baud: 115_200, .. }) => vec![port("p1")],
            // P1 first: what it refuses for want of a name may be D0, whose names are others.
            Some(Rate { data_bits: 7, baud: 9_600, .. }) => {
                vec![port("p1").with("accept_invalid_crc", true), port("d0")]
            }
            Some(Rate { data_bits: 7, .. }) => vec![port("d0")],
            Some(Rate { baud: 9_600, .. }) => [vec![port("sml")], dlms().to_vec()].concat(),
            Some(_) => dlms().to_vec(),
        };
        sections.into_iter().map(Candidate::new).collect()
    }
}

impl Candidate {
    fn hear(&mut self, octets: &[u8], received_at: UtcMillis) -> Option<Telegram> {
        for found in self.hearing.hear(&mut octets.to_vec(), received_at) {
            match found {
                Found::Telegram(telegram) => return Some(telegram),
                // Octets of any other protocol are no frames of this one.
                Found::Refused(refusal) if refusal.trouble > Trouble::Frame => {
                    self.refused = Some((refusal.trouble, refusal.text));
                }
                Found::Refused(_) | Found::Noise | Found::Answer(_) | Found::Confirmation(_) | Found::Repeated(_) => {}
            }
        }
        None
    }
}

fn with_identity(section: Section, telegram: &Telegram) -> Section {
    match telegram.parts.iter().find(|part| part.is_main) {
        Some(part) => section.with("serial", part.meter.as_str()),
        None => section,
    }
}
