//! What is asked of a meter that speaks DLMS, and what becomes of it: registers and momentary values in one go, then the rows of its
//! profiles and event logs.

use protocols::dlms::apdu::CosemAttribute;
use protocols::metering::{Code, Kind};
use tracing::debug;

use super::columns::{RowRules, Rows, scaled_objects, scaler_attribute, value_columns};
use super::memory::{Access, Layout};
use super::moment::Moment;
use super::profile::{Extent, ProfileError, fetch, read_layout};
use super::registers::{decode_scaler, is_permanent, read_registers};
use super::session::{Reads, Session, SessionError, Which, moved};
use super::talk::Talk;
use crate::agenda::cursor::{ProfileCursor, Span};
use crate::config::metering::{ReadSettings, Source};
use crate::outbox::Level;
use crate::telemetry::Metric;

/// The rows that one read of a profile brought.
struct Found {
    /// What they cover.
    extent: Extent,
    /// How they had to be asked for.
    access: Access,
    rows: Rows,
    /// As the meter sent it.
    buffer: Vec<u8>,
}

impl Reads for Session<'_, Talk<'_>> {
    /// Registers and instants, those of all sections in one go. All but billing values are optional: left out while the outbox
    /// is nearly full, so that the room is the profiles'.
    async fn read_live_values(&mut self, due: &[usize]) -> Result<(), SessionError> {
        let mut wanted: Vec<(Code, Kind)> = Vec::new();
        if self.held_stopped && self.parts.trust.untrusted().is_some() {
            return Ok(());
        }
        let is_tight = self.parts.outbox.level() != Level::Free;
        for read in due.iter().filter_map(|&place| self.meter.reads.get(place)) {
            if matches!(read.source, Source::Registers | Source::Instants) {
                for code in &read.codes {
                    let kind = read.kind_of(code);
                    self.parts.inventory.expect_series(&self.meter.name, code, kind, 0, read.every_s);
                    if is_tight && kind != Kind::Billing {
                        self.parts.metrics.add(Metric::OptionalSkipped, 1);
                    } else if !wanted.iter().any(|(known, _)| known == code) {
                        wanted.push((code.clone(), kind));
                    }
                }
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let mut round = read_registers(self.talk, self.memory, &wanted).await?;
        for (code, error) in round.refused.drain(..) {
            self.refused(&code.to_string(), &error);
        }
        let kind_of = |code: &Code| wanted.iter().find(|(of, _)| of == code).map_or(Kind::Register, |(_, kind)| *kind);
        let read = Moment::now(&self.parts.clock);
        self.stamp_by(read.origin);
        round.into_request(self.meter, &self.stamp, read.at, kind_of, &mut self.pending);
        Ok(())
    }

    async fn read_profile(&mut self, place: usize, which: Which) -> Result<bool, SessionError> {
        let (Some(read), Some(cursor)) = (self.meter.reads.get(place), self.cursors[place].clone()) else {
            return Ok(false);
        };
        let mut layout = match self.layout(place, read).await? {
            Ok(layout) => layout,
            Err(error) => {
                self.refused(&read.profile.to_string(), &error);
                return Ok(false);
            }
        };
        let span = match which {
            Which::Live => Some(cursor.live(self.who.meter_now, layout.rhythm(self.meter.quirks.label_at_start))),
            Which::Missing => cursor.backfill(layout.rhythm(self.meter.quirks.label_at_start)),
        };
        let Some(span) = span else { return Ok(false) };
        let access = match (self.memory.profiles[place].access, which) {
            // The numbers of old entries shift while they are read.
            (Access::Entry, Which::Missing) => Access::Whole,
            (access, _) => access,
        };
        let mut found = self.read_rows(read, &layout, access, span, &cursor).await?;
        let unread = &mut self.memory.profiles[place].unread;
        if found.as_ref().is_ok_and(|found| unread.asks_again(&found.rows.unread)) {
            // Columns and scalers may have been changed, or the row was spoiled on its way.
            self.memory.doubt_objects();
            layout = match self.layout(place, read).await? {
                Ok(layout) => layout,
                Err(error) => {
                    self.refused(&read.profile.to_string(), &error);
                    return Ok(false);
                }
            };
            found = self.read_rows(read, &layout, access, span, &cursor).await?;
        }
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.refused(&read.profile.to_string(), &error);
                return Ok(false);
            }
        };
        let Found { extent, rows, .. } = found;
        let profile = &mut self.memory.profiles[place];
        if found.access != access {
            profile.access = found.access;
        }
        let (last_label, rhythm) = (rows.last_label, layout.rhythm(self.meter.quirks.label_at_start));
        profile.label = last_label.max(profile.label);
        profile.is_irregular |= rows.is_irregular;
        profile.layout = Some(layout);
        if profile.unread.take(rows.unread, extent != Extent::Span) {
            self.keep_unread(read, rows.first_label.unwrap_or(span.from), &rows.problems, &found.buffer);
        }
        let covered = (extent != Extent::All).then_some((span, which));
        self.cursors[place] = Some(moved(&cursor, covered, last_label, &self.who, rhythm));
        self.pending.readings.extend(rows.readings);
        self.pending.events.extend(rows.events);
        Ok(true)
    }
}

impl Session<'_, Talk<'_>> {
    /// The rows that the cursor lacks.
    async fn read_rows(
        &mut self,
        read: &ReadSettings,
        layout: &Layout,
        access: Access,
        span: Span,
        cursor: &ProfileCursor,
    ) -> Result<Result<Found, ProfileError>, SessionError> {
        let columns = value_columns(layout, self.meter, read, self.memory);
        for column in &columns {
            let cadence_s = if layout.capture_period_s == 0 { read.every_s } else { layout.capture_period_s };
            let (code, kind) = (&column.code, column.kind);
            self.parts.inventory.expect_series(&self.meter.name, code, kind, column.period_s, cadence_s);
        }
        let mut asked = access;
        let mut worked = None;
        loop {
            let buffer = fetch(self.talk, read.profile, layout, asked, span, self.who.clock).await?;
            let buffer = match buffer {
                Ok(buffer) => buffer,
                Err(error) => return Ok(Err(error.into())),
            };
            let access = *worked.get_or_insert(buffer.access);
            let rules = RowRules { layout, read, meter: self.meter, columns: &columns, stamp: &self.stamp };
            let (meter_now, is_all) = (self.who.meter_now, buffer.extent == Extent::All);
            let wanted = |label| if is_all { cursor.lacks(label, meter_now) } else { span.contains(label) };
            let Ok(rows) = rules.read(&buffer.data, wanted, meter_now) else {
                return Ok(Err(ProfileError::Layout { what: "the buffer" }));
            };
            let covers = rows.first_label.is_some_and(|label| label < span.from);
            if buffer.extent == Extent::Newest && !covers {
                asked = Access::Whole;
                continue;
            }
            let (from, to) = (span.from, span.to);
            debug!(meter = %self.meter.name, obis = %read.profile, %from, %to, rows = rows.count, "profile read");
            return Ok(Ok(Found { extent: buffer.extent, access, rows, buffer: buffer.data }));
        }
    }

    /// The columns of a profile and the scalers of their objects, as known or as asked for now. Whoever reads by it gives it back.
    async fn layout(
        &mut self,
        place: usize,
        read: &ReadSettings,
    ) -> Result<Result<Box<Layout>, ProfileError>, SessionError> {
        let profile = &mut self.memory.profiles[place];
        let is_old = std::mem::take(&mut profile.is_layout_old);
        let layout = match profile.layout.take().filter(|_| !is_old) {
            Some(layout) => layout,
            None => match read_layout(self.talk, read.profile).await? {
                Ok(layout) => Box::new(layout),
                Err(error) => return Ok(Err(error)),
            },
        };
        if read.source == Source::Events {
            return Ok(Ok(layout));
        }
        let mut wanted = Vec::new();
        for object in scaled_objects(&layout, read) {
            let known = self.memory.object(object.class_id, object.logical_name).is_some();
            if let (false, Some(index)) = (known, scaler_attribute(object.class_id)) {
                let attribute = CosemAttribute::new(object.class_id, object.logical_name, index);
                if !wanted.contains(&attribute) {
                    wanted.push(attribute);
                }
            }
        }
        let results = self.talk.get_list(&wanted).await?;
        for (attribute, result) in wanted.into_iter().zip(results) {
            match result {
                Ok(value) => {
                    let Some(scaler_unit) = decode_scaler(&value) else {
                        return Ok(Err(ProfileError::Layout { what: "a scaler_unit" }));
                    };
                    self.memory.know(attribute.class_id, attribute.obis, scaler_unit);
                }
                // Its values are kept as bare numbers: what the meter delivered, and all that it will.
                Err(error) if is_permanent(&error) => self.refused(&attribute.obis.to_string(), &error),
                Err(error) => return Ok(Err(error.into())),
            }
        }
        Ok(Ok(layout))
    }
}
