//! What is asked of a meter that speaks IEC 62056-21, and what becomes of it.
//!
//! A read-out goes first, where one is due. Registers, load profiles and log books are asked for in programming mode, which is
//! entered once. Who it is and what its clock shows stand in the read-out, or are asked for; of a meter with profiles the clock is
//! always asked for, since a read-out at 300 baud takes longer than clocks may be off.
//!
//! Cursors go by the end of each period, whatever edge the meter's labels name: only the range that is asked for is in its words.

mod address;
mod profile;
mod stretches;

use protocols::iec62056_21::{DataBlock, IdentityLine, ReadRequest, Readout, Settings};
use protocols::metering::{Code, MeterId, ObisCode, UtcMillis};
use tracing::debug;

use self::address::address;
pub use self::profile::Rows;
use super::call::Call;
use super::introduction::{Introduction, judge};
use super::memory::MeterMemory;
use super::moment::Moment;
use super::profile::ClockForm;
use super::session::{Order, Reads, Session, SessionError, SessionParts, Visited, Which};
use super::taken::Told;
use super::talk::TalkError;
use crate::clock::SharedClock;
use crate::config::metering::{CallSettings, MeterSettings, ReadSettings, Source};
use crate::trust::whole_seconds;

/// Where a meter that is not read out says who it is.
const IDENTITY: [ObisCode; 3] =
    [ObisCode::new(1, 0, 0, 0, 0, 255), ObisCode::new(0, 0, 96, 1, 0, 255), ObisCode::new(1, 0, 0, 0, 9, 255)];
const TIME: ObisCode = ObisCode::new(1, 0, 0, 9, 1, 255);
const DATE: ObisCode = ObisCode::new(1, 0, 0, 9, 2, 255);
const IDENTITY_LINES: [IdentityLine; 4] =
    [IdentityLine::DinNumber, IdentityLine::ServerNumber, IdentityLine::SerialNumber, IdentityLine::DeviceAddress];
const HINT_PROBLEMS: &str = "do line_quirks of its section, or utc_offset_minutes, need to be set?";

/// A call and what it brought.
pub struct Conversation<'c, 'l> {
    call: &'c mut Call<'l>,
    settings: &'c CallSettings,
    /// With when it had arrived.
    read_out: Option<(DataBlock, Moment)>,
}

/// Does what is ordered. The state in the inventory is set at the end; ending the call is left to the caller.
pub async fn visit(
    parts: &SessionParts,
    meter: &MeterSettings,
    settings: &CallSettings,
    memory: &mut MeterMemory,
    call: &mut Call<'_>,
    order: &Order<'_>,
) -> Result<Visited, SessionError> {
    let mut conversation = Conversation { call, settings, read_out: None };
    let is_due = |place: &usize| meter.reads.get(*place).is_some_and(|read| read.source == Source::Readout);
    let is_read_out = order.due.iter().any(is_due);
    let has_profiles = meter.reads.iter().any(|read| matches!(read.source, Source::Profile | Source::Events));
    let who = conversation.introduce(meter.serial.as_ref(), is_read_out, has_profiles, &parts.clock).await?;
    Session::new(parts, meter, memory, &mut conversation, who).visit(order).await
}

impl<'c, 'l> Conversation<'c, 'l> {
    pub fn new(call: &'c mut Call<'l>, settings: &'c CallSettings) -> Self {
        Self { call, settings, read_out: None }
    }

    /// Finds out who answers and what its clock shows, by a read-out or by asking for both.
    pub async fn introduce(
        &mut self,
        serial: Option<&MeterId>,
        is_read_out: bool,
        asks_clock: bool,
        clock: &SharedClock,
    ) -> Result<Introduction, SessionError> {
        let begun_at = clock.wall();
        let identity = if is_read_out {
            let block = self.call.read_out().await?;
            self.read_out = Some((block.clone(), Moment::now(clock)));
            Some(block)
        } else {
            self.call.enter(self.settings.password.as_ref()).await?;
            self.ask_identity().await?
        };
        let midway = UtcMillis(begun_at.0.midpoint(clock.wall().0));
        let known = identity.as_ref().map_or_else(Vec::new, |block| self.identities(block, midway));
        let (meter, expected) = judge(serial, known).ok_or(SessionError::NoIdentity)?;
        let shown = if asks_clock || !is_read_out {
            self.ask_clock(&meter, clock).await?
        } else {
            let shown =
                identity.and_then(|block| self.decode(&block, &meter, midway)).and_then(|readout| readout.clock);
            shown.map(|shown| (shown, midway))
        };
        Ok(Introduction {
            meter,
            expected,
            clock_offset_ms: shown.map(|(shown, at)| whole_seconds(shown.since(at))),
            meter_now: shown.map_or_else(|| clock.wall(), |(shown, _)| shown),
            shows_time: shown.is_some(),
            clock: ClockForm { deviation: None },
        })
    }

    /// The read-out that introduced the meter.
    pub fn take_read_out(&mut self) -> Option<(DataBlock, Moment)> {
        self.read_out.take()
    }

    /// All lines of a block, as of this meter.
    pub fn decode(&self, block: &DataBlock, meter: &MeterId, received_at: UtcMillis) -> Option<Readout> {
        let settings = Settings { assumed_meter: Some(meter.clone()), ..self.settings.lines.clone() };
        Readout::decode(block, &settings, received_at).ok()
    }

    /// All that it calls itself, the best name first.
    fn identities(&self, block: &DataBlock, received_at: UtcMillis) -> Vec<MeterId> {
        let by = |line: IdentityLine| {
            let settings = Settings { identity: vec![line], ..self.settings.lines.clone() };
            Readout::decode(block, &settings, received_at).ok().map(|readout| readout.meter)
        };
        IDENTITY_LINES.into_iter().filter_map(by).collect()
    }

    async fn ask_identity(&mut self) -> Result<Option<DataBlock>, TalkError> {
        for obis in IDENTITY {
            match self.ask(obis).await? {
                Ok(block) if !self.identities(&block, UtcMillis(0)).is_empty() => return Ok(Some(block)),
                Ok(_) => {}
                Err(reason) => debug!(%obis, reason, "no identity"),
            }
        }
        Ok(None)
    }

    /// What the clock shows, and when.
    async fn ask_clock(
        &mut self,
        meter: &MeterId,
        clock: &SharedClock,
    ) -> Result<Option<(UtcMillis, UtcMillis)>, TalkError> {
        self.call.enter(self.settings.password.as_ref()).await?;
        let Ok(date) = self.ask(DATE).await? else { return Ok(None) };
        let asked_at = clock.wall();
        let Ok(time) = self.ask(TIME).await? else { return Ok(None) };
        let midway = UtcMillis(asked_at.0.midpoint(clock.wall().0));
        // Midnight may have come between the two; a date that is asked for now is the time's.
        let date = if is_past_midnight(&time.content) {
            let Ok(date) = self.ask(DATE).await? else { return Ok(None) };
            date
        } else {
            date
        };
        let both = joined(date, &time);
        let shown = self.decode(&both, meter, midway).and_then(|readout| readout.clock);
        Ok(shown.map(|shown| (shown, midway)))
    }

    /// One register.
    async fn ask(&mut self, obis: ObisCode) -> Result<Result<DataBlock, String>, TalkError> {
        match ReadRequest::register(self.settings.read_command, &address(obis, self.settings.full_codes)) {
            Ok(request) => self.call.read(&request).await,
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Registers by their codes, as one block, and the codes that the meter refuses.
    pub async fn read_registers(
        &mut self,
        codes: &[Code],
    ) -> Result<(Option<DataBlock>, Vec<(Code, String)>), TalkError> {
        let (mut all, mut refused) = (None::<DataBlock>, Vec::new());
        self.call.enter(self.settings.password.as_ref()).await?;
        for code in codes {
            let Code::Obis { obis, .. } = code else { continue };
            match self.ask(*obis).await? {
                Ok(block) => all = Some(all.map_or_else(|| block.clone(), |all| joined(all, &block))),
                Err(reason) => refused.push((code.clone(), reason)),
            }
        }
        Ok((all, refused))
    }
}

/// Data lines behind each other.
fn joined(mut block: DataBlock, next: &DataBlock) -> DataBlock {
    block.content.extend(b"\r\n");
    block.content.extend(&next.content);
    block.quality = block.quality.with(next.quality);
    block
}

/// Whether the time in parentheses is in the first hour of a day.
fn is_past_midnight(content: &[u8]) -> bool {
    let group = content.rsplit(|&octet| octet == b'(').next().unwrap_or_default();
    let digits: Vec<u8> = group.iter().copied().filter(u8::is_ascii_digit).collect();
    // A season digit stands before it.
    let time = if digits.len() == 7 { &digits[1..] } else { &digits[..] };
    time.starts_with(b"00")
}

impl Reads for Session<'_, Conversation<'_, '_>> {
    /// All but billing values are optional: left out while the outbox is nearly full, so that the room is the profiles'.
    async fn read_live_values(&mut self, due: &[usize]) -> Result<(), SessionError> {
        if self.held_stopped && self.parts.trust.untrusted().is_some() {
            return Ok(());
        }
        let meter = self.meter;
        let reads = due.iter().filter_map(|&place| meter.reads.get(place));
        let (read_outs, asked): (Vec<_>, Vec<_>) = reads
            .filter(|read| !matches!(read.source, Source::Profile | Source::Events))
            .partition(|read| read.source == Source::Readout);
        if let Some((block, received)) = self.talk.take_read_out() {
            self.take(&block, received, &read_outs);
        }
        let mut codes: Vec<Code> = Vec::new();
        for code in asked.iter().flat_map(|read| &read.codes) {
            if !codes.contains(code) {
                codes.push(code.clone());
            }
        }
        if codes.is_empty() {
            return Ok(());
        }
        let (block, refused) = self.talk.read_registers(&codes).await?;
        for (code, reason) in refused {
            self.refused(&code.to_string(), &reason);
        }
        if let Some(block) = block {
            self.take(&block, Moment::now(&self.parts.clock), &asked);
        }
        Ok(())
    }

    async fn read_profile(&mut self, place: usize, which: Which) -> Result<bool, SessionError> {
        self.read_rows_of(place, which).await
    }
}

impl Session<'_, Conversation<'_, '_>> {
    /// Makes what these sections want of the lines of a block pending.
    fn take(&mut self, block: &DataBlock, received: Moment, sections: &[&ReadSettings]) {
        let Some(readout) = self.talk.decode(block, &self.who.meter, received.at) else { return };
        self.stamp_by(received.origin);
        let Readout { captured_at, readings, events, problems, .. } = readout;
        self.take_told(Told { captured_at, readings, events, problems: &problems, hint: HINT_PROBLEMS }, sections);
    }
}

#[cfg(test)]
mod tests;
