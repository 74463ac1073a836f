//! What is asked of a meter on M-Bus, and what becomes of it: it is read out as a whole, and who it is and what its clock shows
//! stand in what it says.

use protocols::mbus::{Readout, ReadoutError};
use protocols::metering::MeterId;

use super::bus::Bus;
use super::introduction::{Introduction, judge};
use super::memory::MeterMemory;
use super::moment::Moment;
use super::profile::ClockForm;
use super::session::{Order, Reads, Session, SessionError, SessionParts, Visited, Which};
use super::taken::Told;
use super::talk::TalkError;
use crate::clock::SharedClock;
use crate::config::metering::{BusSettings, MeterSettings};
use crate::trust::whole_seconds;

const HINT_PROBLEMS: &str = "does the meter mark them as wrong, or do line_quirks of its section need to be set?";
const MINUTE_MS: i64 = 60_000;

/// Does what is ordered. The state in the inventory is set at the end.
pub async fn visit(
    parts: &SessionParts,
    meter: &MeterSettings,
    settings: &BusSettings,
    memory: &mut MeterMemory,
    bus: &mut Bus<'_>,
    order: &Order<'_>,
) -> Result<Visited, SessionError> {
    let (who, readout) = read_out(bus, settings, meter.serial.as_ref(), &parts.clock).await?;
    // Nothing was waited for since its last octet came.
    let mut told = Some((readout, Moment::now(&parts.clock)));
    Session::new(parts, meter, memory, &mut told, who).visit(order).await
}

/// Reads the meter out, and finds out who answers and what its clock shows.
pub async fn read_out(
    bus: &mut Bus<'_>,
    settings: &BusSettings,
    serial: Option<&MeterId>,
    clock: &SharedClock,
) -> Result<(Introduction, Readout), SessionError> {
    let telegrams = bus.read(settings).await?;
    let received_at = clock.wall();
    let readout = match Readout::decode(&telegrams, &settings.readout, received_at) {
        // Where it does not say who it is, it is believed to be who it should be.
        Err(ReadoutError::NoIdentity) if serial.is_some() => {
            let named = protocols::mbus::Settings { alias: serial.cloned(), ..settings.readout.clone() };
            Readout::decode(&telegrams, &named, received_at)
        }
        Err(ReadoutError::NoIdentity) => return Err(SessionError::NoIdentity),
        decoded => decoded,
    };
    let readout = readout.map_err(TalkError::from)?;
    let (meter, expected) = judge(serial, vec![readout.meter.clone()]).ok_or(SessionError::NoIdentity)?;
    // Most meters say their time in minutes: on the average it is half a minute later.
    let shown = readout.clock.map(|shown| if shown.0 % MINUTE_MS == 0 { shown.plus_ms(MINUTE_MS / 2) } else { shown });
    let who = Introduction {
        meter,
        expected,
        clock_offset_ms: shown.map(|shown| whole_seconds(shown.since(received_at))),
        meter_now: shown.unwrap_or(received_at),
        shows_time: shown.is_some(),
        clock: ClockForm { deviation: None },
    };
    Ok((who, readout))
}

/// With what the meter has said, and when, until that is taken.
impl Reads for Session<'_, Option<(Readout, Moment)>> {
    async fn read_live_values(&mut self, due: &[usize]) -> Result<(), SessionError> {
        if self.held_stopped && self.parts.trust.untrusted().is_some() {
            return Ok(());
        }
        let meter = self.meter;
        let sections: Vec<_> = due.iter().filter_map(|&place| meter.reads.get(place)).collect();
        if let Some((Readout { captured_at, readings, events, problems, .. }, received)) = self.talk.take() {
            self.stamp_by(received.origin);
            self.take_told(Told { captured_at, readings, events, problems: &problems, hint: HINT_PROBLEMS }, &sections);
        }
        Ok(())
    }

    /// M-Bus has none.
    async fn read_profile(&mut self, _: usize, _: Which) -> Result<bool, SessionError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
