//! DLMS meters in the wrapper; and what meters of DLMS say of themselves.

use std::sync::Arc;

use super::hdlc::CLIENTS;
use super::{Probe, ProbeError, Rate, Section, TALK_TIME, meter_of};
use crate::clock::{SharedClock, SystemClock};
use crate::config::metering::Parity;
use crate::link;
use crate::reading::introduction::introduce;
use crate::reading::talk::Talk;

/// Over TCP there is no rate.
const NONE: Rate = Rate::new(9_600, 8, Parity::None);

impl Probe<'_> {
    pub(super) async fn wrapper(&mut self) -> Result<Option<Section>, ProbeError> {
        let mut refused = None;
        for client in CLIENTS {
            let section =
                Section::meter(self.target, NONE, "dlms-wrapper").with("client", i64::from(client)).with("server", 1);
            let meter = meter_of(&section);
            let mut link = self.open(NONE).await?;
            let Ok(mut talk) = Talk::new(&mut *link, &meter, 0, self.until(self.times.association)) else { continue };
            let associated = talk.associate().await;
            talk.hang_up().await;
            drop(link);
            match associated {
                Ok(()) => return Ok(Some(self.introduced(section, NONE).await?)),
                // Another client may be let in.
                Err(error) if error.is_refusal() => drop(refused.get_or_insert(section)),
                Err(_) => {}
            }
        }
        match refused {
            Some(section) => Ok(Some(self.introduced(section, NONE).await?)),
            None => Ok(None),
        }
    }

    /// The section with what its meter says of itself, or why it says nothing.
    pub(super) async fn introduced(&mut self, section: Section, rate: Rate) -> Result<Section, ProbeError> {
        let meter = meter_of(&section);
        let clock: SharedClock = Arc::new(SystemClock::new());
        let medium = link::medium(&self.target.medium(rate));
        let mut link = medium.open().await.map_err(ProbeError::Open)?;
        let told = |error: &str| format!("a DLMS meter answers, but says nothing to this client: {error}");
        let talk = Talk::new(&mut *link, &meter, medium.octet_time_us(), self.until(TALK_TIME));
        let mut talk = match talk {
            Ok(talk) => talk,
            Err(error) => return Ok(section.saying(&told(&error.text()))),
        };
        let answer = match talk.associate().await {
            Ok(()) => introduce(&mut talk, &meter, &clock).await.map_err(|error| error.text()),
            Err(error) => Err(error.text()),
        };
        match answer {
            Ok(who) => {
                drop(talk.release().await);
                Ok(section.with("serial", who.meter.as_str()))
            }
            Err(error) => {
                talk.hang_up().await;
                Ok(section.saying(&told(&error)))
            }
        }
    }
}
