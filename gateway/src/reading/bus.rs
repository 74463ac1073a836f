//! One read-out of one meter on M-Bus: drives a master over a byte link, with a deadline on everything.

use protocols::mbus::{Answer, Input, Master, MasterEvent, Output, Telegram};
use tokio::time::Instant;

use super::talk::TalkError;
use super::wire::Wire;
use crate::config::metering::BusSettings;
use crate::link::ByteLink;

pub struct Bus<'l> {
    wire: Wire<'l>,
    master: Master,
}

impl<'l> Bus<'l> {
    /// A conversation that ends by `deadline` at the latest. What has arrived before is thrown away.
    pub fn new(link: &'l mut dyn ByteLink, settings: &BusSettings, deadline: Instant) -> Result<Self, TalkError> {
        Ok(Self { wire: Wire::new(link, deadline)?, master: Master::new(settings.master.clone()) })
    }

    /// All telegrams of the meter, deciphered. Nobody is left selected.
    pub async fn read(&mut self, settings: &BusSettings) -> Result<Vec<Telegram>, TalkError> {
        self.master.read(self.wire.now(), settings.target)?;
        let mut answered = None;
        loop {
            match self.wire.check_time() {
                // It is told already: only the farewell is missing.
                Err(_) if answered.is_some() => break,
                in_time => in_time?,
            }
            match self.master.poll() {
                Output::Send(octets) => self.wire.send(&octets).await?,
                Output::Event(MasterEvent::Answered(answer)) => answered = Some(Ok(answer)),
                Output::Event(MasterEvent::Failed { error, .. }) => answered = Some(Err(error)),
                Output::Event(_) => {}
                Output::WaitUntil(_) if self.master.is_idle() => break,
                Output::WaitUntil(at) => {
                    let octets = self.wire.receive_until(at).await?;
                    let octets = if octets.is_empty() { None } else { Some(octets.to_vec()) };
                    let input = octets.as_deref().map_or(Input::Tick, Input::Received);
                    self.master.handle(self.wire.now(), input);
                }
            }
        }
        let Answer { telegrams, .. } = answered.expect("a master is idle when it has told of its job")?;
        let key = settings.master.key.as_ref();
        Ok(telegrams.iter().map(|octets| Telegram::decode(octets, None, key)).collect::<Result<_, _>>()?)
    }
}
