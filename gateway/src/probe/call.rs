//! Whoever answers a call by IEC 62056-21. Only its name is asked for: the rate stays as it is, and nothing is chosen.

use protocols::iec62056_21::{Identification, LINE_LEN_MAX};

use super::{Probe, ProbeError, Rate, Section};
use crate::config::metering::Parity;
use crate::link::ByteLink;

const REQUEST: &[u8] = b"/?!\r\n";
const CALLED_AT: Rate = Rate::new(300, 7, Parity::Even);
const CALLED_MASKED: Rate = Rate::new(300, 8, Parity::None);
/// The first call wakes some heads only.
const CALLS: u8 = 2;

/// An identification as it was heard.
struct Answer {
    identification: Identification,
    /// The line gave back the request.
    echo: bool,
    /// Bit 7 of some octet is set: it is parity.
    is_masked: bool,
}

impl Probe<'_> {
    pub(super) async fn call(&mut self, is_masked: bool) -> Result<Option<Section>, ProbeError> {
        let rate = if is_masked { CALLED_MASKED } else { CALLED_AT };
        let mut link = self.open(rate).await?;
        if self.is_serial() {
            tokio::time::sleep_until(self.until(self.times.head_settles)).await;
        }
        for _ in 0..CALLS {
            if let Some(answer) = self.call_once(&mut *link, is_masked).await {
                return Ok(Some(self.section(rate, &answer)));
            }
        }
        Ok(None)
    }

    async fn call_once(&self, link: &mut dyn ByteLink, is_masked: bool) -> Option<Answer> {
        let until = self.until(self.times.identification);
        link.clear_input().ok()?;
        let request: Vec<u8> =
            REQUEST.iter().map(|octet| if is_masked { with_parity(*octet) } else { *octet }).collect();
        link.send(&request).await.ok()?;
        let (mut heard, mut octets) = (Vec::new(), [0; 256]);
        while let Ok(Ok(count)) = tokio::time::timeout_at(until, link.receive(&mut octets)).await {
            heard.extend_from_slice(&octets[..count]);
            if let Some(answer) = answer(&heard) {
                return Some(answer);
            }
            // Noise, or a meter that talks of something else.
            if heard.len() > 8 * LINE_LEN_MAX {
                return None;
            }
        }
        None
    }

    fn section(&self, rate: Rate, answer: &Answer) -> Section {
        let Answer { identification, echo, is_masked } = answer;
        let Identification { manufacturer, model, .. } = identification;
        let mut section = Section::meter(self.target, rate, "iec62056-21")
            .saying(&format!("answers calls as {manufacturer}, {model}"))
            .saying("its clock does not state its zone: set utc_offset_minutes and daylight_saving_minutes");
        if identification.offers_hdlc() {
            section = section.saying("it also announces mode E, DLMS in HDLC frames behind this call");
        }
        if *echo {
            section = section.with_line("echo", true);
        }
        if *is_masked {
            section = section.with_line("masked_parity", true);
        }
        section
    }
}

fn with_parity(octet: u8) -> u8 {
    octet | ((octet.count_ones() as u8 & 1) << 7)
}

/// The identification in what was heard, once it is whole.
fn answer(heard: &[u8]) -> Option<Answer> {
    let plain: Vec<u8> = heard.iter().map(|octet| octet & 0x7f).collect();
    let echo = plain.windows(REQUEST.len()).position(|part| part == REQUEST);
    let from = echo.map_or(0, |place| place + REQUEST.len());
    let begin = from + plain[from..].iter().position(|octet| *octet == b'/')?;
    let end = begin + plain[begin..].windows(2).position(|part| part == b"\r\n")?;
    let identification = Identification::parse(&plain[begin + 1..end])?;
    let is_masked = heard[begin..end].iter().any(|octet| octet & 0x80 != 0);
    Some(Answer { identification, echo: echo.is_some(), is_masked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_behind_an_echo_and_shows_where_its_parity_is() {
        let masked: Vec<u8> = b"/LGZ5\\2ZMD310\r\n".iter().map(|octet| with_parity(*octet)).collect();
        let found = answer(&[b"/?!\r\n\0", &masked[..]].concat()).unwrap();
        assert_eq!((found.echo, found.is_masked, found.identification.offers_hdlc()), (true, true, true));
        let found = answer(b"\x7f/ISk5ME162\r\n").unwrap();
        assert_eq!((found.echo, found.is_masked, &*found.identification.model), (false, false, "ME162"));
        assert!(answer(b"/?!\r\n").is_none() && answer(b"/ISk5ME162").is_none() && answer(b"noise\r\n").is_none());
        assert_eq!((with_parity(b'?'), with_parity(b'/')), (b'?', b'/' | 0x80));
    }
}
