//! Meters on M-Bus: searched for by their secondary addresses, all that there are.

use std::time::Duration;

use protocols::mbus::{
    ANYBODY, Answer, Baud, Input, Master, MasterConfig, MasterError, MasterEvent, Output, SecondaryAddress, Selection,
    Target, Telegram,
};
use tokio::time::Instant;

use super::{Probe, ProbeError, Rate, Section};
use crate::config::metering::Parity;
use crate::link::ByteLink;

/// Rates of lines, most frequent first.
pub(super) const RATES: [Rate; 4] = [
    Rate::new(2_400, 8, Parity::Even),
    Rate::new(300, 8, Parity::Even),
    Rate::new(9_600, 8, Parity::Even),
    Rate::new(38_400, 8, Parity::Even),
];

/// What a line answered.
#[derive(Default)]
struct Heard {
    found: Vec<SecondaryAddress>,
    unresolved: Vec<Selection>,
    answer: Option<Answer>,
    /// Something came, whatever it was.
    something: bool,
    /// What was sent came back.
    echo: bool,
}

impl Probe<'_> {
    pub(super) async fn mbus(&mut self, rate: Option<Rate>) -> Result<Option<Section>, ProbeError> {
        let rate = rate.unwrap_or(RATES[0]);
        let mut link = self.open(rate).await?;
        let baud = Baud::ALL.into_iter().find(|baud| baud.bits_per_second() == rate.baud).unwrap_or(Baud::B2400);
        let latency_ms = u32::try_from(self.times.mbus_latency.as_millis()).unwrap_or(u32::MAX);
        let mut config = MasterConfig { retries_max: 1, latency_ms, ..MasterConfig::new(baud) };
        let search = |master: &mut Master| master.search(Duration::ZERO, Selection::ANY);
        let mut heard = self.converse(&mut *link, &config, search).await;
        if heard.echo {
            config.echo = true;
            heard = Heard { echo: true, ..self.converse(&mut *link, &config, search).await };
        }
        if !heard.found.is_empty() {
            return Ok(Some(self.found_on_bus(rate, &heard)));
        }
        // A meter that cannot be selected, as old ones, answers to the address of anybody.
        let read = |master: &mut Master| master.read(Duration::ZERO, Target::Primary(ANYBODY));
        let alone = self.converse(&mut *link, &config, read).await;
        let Some(answer) = alone.answer else {
            if heard.something || alone.something {
                self.tell(
                    "something answers, but nothing that can be understood: another rate, or several meters at once",
                );
            }
            return Ok(None);
        };
        let section = self.line_section(rate, heard.echo).with("address", ANYBODY.to_string());
        let telegram = answer.telegrams.first().and_then(|octets| Telegram::decode(octets, None, None).ok());
        let address = telegram.and_then(|telegram| telegram.header.address);
        Ok(Some(match address.and_then(SecondaryAddress::meter_id) {
            Some(meter) => section.with("serial", meter.as_str()),
            None => section,
        }))
    }

    /// What a master hears in one job, which it begins with `job`.
    async fn converse(
        &self,
        link: &mut dyn ByteLink,
        config: &MasterConfig,
        job: impl Fn(&mut Master) -> Result<(), MasterError>,
    ) -> Heard {
        let (mut heard, mut master, origin) = (Heard::default(), Master::new(config.clone()), Instant::now());
        let (mut sent, mut came, mut octets) = (Vec::new(), Vec::new(), [0; 512]);
        if link.clear_input().is_err() || job(&mut master).is_err() {
            return heard;
        }
        while Instant::now() < self.deadline {
            match master.poll() {
                Output::Send(frame) => {
                    if link.send(&frame).await.is_err() {
                        break;
                    }
                    sent = frame;
                    came.clear();
                }
                Output::Event(MasterEvent::Found { address, .. }) => heard.found.push(address),
                Output::Event(MasterEvent::Unresolved { selection }) => heard.unresolved.push(selection),
                Output::Event(MasterEvent::Answered(answer)) => heard.answer = Some(answer),
                Output::Event(_) => {}
                Output::WaitUntil(_) if master.is_idle() => break,
                Output::WaitUntil(at) => {
                    let until = at.map_or(self.deadline, |at| (origin + at).min(self.deadline));
                    let input = match tokio::time::timeout_at(until, link.receive(&mut octets)).await {
                        Ok(Ok(count)) => Input::Received(&octets[..count]),
                        Ok(Err(_)) => break,
                        Err(_) => Input::Tick,
                    };
                    if let Input::Received(octets) = input {
                        came.extend_from_slice(octets);
                        heard.something = true;
                        if !config.echo && !sent.is_empty() && came.starts_with(&sent) {
                            heard.echo = true;
                            break;
                        }
                    }
                    master.handle(origin.elapsed(), input);
                }
            }
        }
        heard
    }

    fn line_section(&self, rate: Rate, echo: bool) -> Section {
        let section = Section::meter(self.target, rate, "mbus");
        if echo { section.with_line("echo", true) } else { section }
    }

    fn found_on_bus(&self, rate: Rate, heard: &Heard) -> Section {
        let mut section = self.line_section(rate, heard.echo);
        for (number, address) in (1..).zip(&heard.found) {
            if number > 1 {
                section = section.and_meter(number, "mbus");
            }
            section = section.with("address", Selection::from(*address).to_string());
            if let Some(meter) = address.meter_id() {
                section = section.with("serial", meter.as_str());
            }
        }
        for selection in &heard.unresolved {
            section = section.saying(&format!("whoever answers to {selection} cannot be told apart"));
        }
        if Instant::now() >= self.deadline {
            section =
                section.saying("the search was not done when the time was over: a greater --budget finds the rest");
        }
        section.saying("a meter whose values are enciphered needs encryption_key_file")
    }
}
