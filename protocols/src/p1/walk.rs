//! The walk over the lines of one telegram: what each means, gathered by channel until the telegram has said who is who.

use std::borrow::Cow;

use super::line::{Line, LineError, LineProblem, code, hex_text, printable, quantity, quantity_in, shown};
use super::readout::{MeterReadout, Readout, ReadoutError, Version};
use super::stamp::{LocalTime, Resolved};
use crate::metering::{Event, Kind, MeterId, ObisCode, Quality, Quantity, StampedBy, TelegramReading, Unit, UtcMillis};

/// Most values of one `0-n:24.3.0`; every known meter sends one.
const MBUS_VALUES_MAX: usize = 8;

/// Values of the longest telegrams of a meter without monthly peaks: one allocation for all of them.
const READINGS_EXPECTED: usize = 40;

/// How well a line says who a meter is: 0-n:96.1.2 is the EAN of the point where it stands, 0-n:42.0.0 its COSEM logical device name
/// (many meters of Luxembourg send no other), 0-n:96.1.0 and 0-n:96.1.1 its equipment identifier.
const DEVICE_NAME: u8 = 0;
const METERING_POINT: u8 = 1;
const EQUIPMENT: u8 = 2;

/// A channel while the telegram is walked; its identifier may follow its values.
struct Channel<'a> {
    number: u8,
    /// The best identifier so far and its rank.
    identity: Option<(u8, &'a [u8])>,
    device_type: Option<u8>,
    readings: Vec<TelegramReading>,
    /// Last line with something to store, for the problem when nobody owns it.
    last_line: Option<(usize, ObisCode)>,
}

impl Channel<'_> {
    fn new(number: u8) -> Self {
        Self { number, identity: None, device_type: None, readings: Vec::new(), last_line: None }
    }

    /// Hexadecimal of an ASCII text as a rule; some meters send the text itself, or digits.
    fn meter(&self) -> Option<MeterId> {
        let (_, content) = self.identity?;
        match hex_text(content) {
            Some(text) => MeterId::from_device(text.as_bytes()),
            None => MeterId::from_device(content),
        }
    }
}

/// An event while its meter is not known.
struct PendingEvent<'a> {
    channel: u8,
    log: ObisCode,
    /// `None`: the telegram's instant.
    at: Option<UtcMillis>,
    nth: u8,
    code: i64,
    raw: Cow<'a, [u8]>,
    text: String,
}

/// The state while the lines of one telegram are walked.
pub(super) struct Walk<'a> {
    local_time: LocalTime,
    received_at: UtcMillis,
    quality: Quality,
    clock: Option<Resolved>,
    version: Option<Version>,
    main: Channel<'a>,
    channels: Vec<Channel<'a>>,
    events: Vec<PendingEvent<'a>>,
    problems: Vec<LineProblem>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(local_time: LocalTime, received_at: UtcMillis, quality: Quality) -> Self {
        Self {
            local_time,
            received_at,
            quality,
            clock: None,
            version: None,
            main: Channel { readings: Vec::with_capacity(READINGS_EXPECTED), ..Channel::new(0) },
            channels: Vec::new(),
            events: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn problem(&mut self, problem: LineProblem) {
        self.problems.push(problem);
    }

    /// Takes a line in.
    pub(super) fn line(&mut self, line: &Line<'a>) -> Result<(), LineError> {
        let ObisCode([a, b, c, d, e, _]) = line.code;
        let channel = if a == 0 { b } else { 0 };
        match (a, c, d, e) {
            (0, 1, 0, 0) if b == 0 => self.clock = Some(self.stamp(line.first())?),
            (1, 0, 2, 8) if b == 3 => self.version = version(line.first()),
            (0, 96, 1, 4) if b == 0 => self.version = version(line.first()),
            (0, 96, 1, 0 | 1) => self.identify(channel, EQUIPMENT, line.first()),
            (0, 96, 1, 2) => self.identify(channel, METERING_POINT, line.first()),
            (0, 42, 0, 0) => self.identify(channel, DEVICE_NAME, line.first()),
            (0, 24, 1, 0) => {
                let device_type = std::str::from_utf8(line.first()).ok().and_then(|text| text.parse().ok());
                self.channel(channel).device_type = device_type;
            }
            (0, 24, 3, 0) => return self.mbus_values(channel, line),
            (1, 99, 97, _) => return self.power_failures(line),
            (0 | 1, 98, 1, _) => return self.monthly_peaks(line),
            (0, 96, 13, _) => self.text(channel, line),
            (1, 31, 4, 0) if !line.is_single() => return self.thresholds(line),
            _ if line.is_single() => return self.value(channel, line),
            _ => return self.stamped_value(channel, line),
        }
        Ok(())
    }

    /// The first of the best identifiers counts.
    fn identify(&mut self, channel: u8, rank: u8, content: &'a [u8]) {
        let channel = self.channel(channel);
        if !content.is_empty() && channel.identity.is_none_or(|(known, _)| known < rank) {
            channel.identity = Some((rank, content));
        }
    }

    /// `(value*unit)`, a counter, a power factor, or a state.
    #[inline]
    fn value(&mut self, channel: u8, line: &Line<'a>) -> Result<(), LineError> {
        let content = line.first();
        if content.is_empty() {
            return Ok(());
        }
        let (quantity, has_unit) = match quantity(content) {
            Ok(found) => found,
            Err(LineError::Overflow) => {
                self.state(channel, line, content);
                return Err(LineError::Overflow);
            }
            // A unit is announced by an asterisk: then this was meant to be a number.
            Err(error) if content.contains(&b'*') => return Err(error),
            Err(_) => {
                self.state(channel, line, content);
                return Ok(());
            }
        };
        let kind = match line.code.0 {
            [0, 0, 96, 7, ..] | [1, _, 32 | 52 | 72, 32 | 36, ..] => Kind::Register,
            // The power factor, which has no unit either.
            [1, _, 13 | 33 | 53 | 73, 7, ..] => Kind::Instant,
            _ if !has_unit => {
                self.state(channel, line, content);
                return Ok(());
            }
            [1..=255, _, _, 8 | 9, ..] | [0, 1..=255, 24, 2, ..] => Kind::Register,
            [1..=255, _, _, 6, ..] => Kind::Maximum,
            _ => Kind::Instant,
        };
        let reading = self.reading(line.code, kind, None, quantity);
        self.push(channel, line, reading);
        Ok(())
    }

    /// `1-1:31.4.0(040*A)(-040*A)` (Luxembourg): the threshold of what is drawn, then that of what is fed in.
    fn thresholds(&mut self, line: &Line<'a>) -> Result<(), LineError> {
        let mut groups = line.groups();
        let (Some(drawn), Some(fed_in), None) = (groups.next(), groups.next(), groups.next()) else {
            return Err(LineError::Count { count: line.groups().count() });
        };
        for (nth, content) in [(0, drawn), (1, fed_in)] {
            if content.is_empty() {
                continue;
            }
            let mut reading = self.reading(line.code, Kind::Instant, None, quantity(content)?.0);
            reading.nth = nth;
            self.push(0, line, reading);
        }
        Ok(())
    }

    /// `(stamp)(value*unit)`: a maximum with its instant, or a sub-meter's register with the instant of its capture.
    fn stamped_value(&mut self, channel: u8, line: &Line<'a>) -> Result<(), LineError> {
        let mut groups = line.groups();
        let (Some(stamp), Some(value), None) = (groups.next(), groups.next(), groups.next()) else {
            return Err(LineError::Count { count: line.groups().count() });
        };
        let is_maximum = matches!(line.code.0, [1..=255, _, _, 6, ..]);
        if value.is_empty() {
            return Ok(());
        }
        let stamp = self.stamp(stamp)?;
        let (quantity, _) = quantity(value)?;
        let mut reading = if is_maximum {
            self.reading(line.code, Kind::Maximum, None, quantity)
        } else {
            self.reading(line.code, Kind::Register, Some(stamp), quantity)
        };
        if is_maximum {
            reading.occurred_at = Some(stamp.instant);
        }
        self.push(channel, line, reading);
        Ok(())
    }

    /// `0-n:24.3.0(stamp)(status)(period)(count)(code)(unit)..(value)..`, versions 2.2 and 3. The status is 0 while the
    /// sub-meter answers.
    fn mbus_values(&mut self, channel: u8, line: &Line<'a>) -> Result<(), LineError> {
        let count = line.groups().count();
        let mut groups = line.groups();
        let (Some(stamp), Some(status), Some(_), Some(values)) =
            (groups.next(), groups.next(), groups.next(), groups.next())
        else {
            return Err(LineError::Count { count });
        };
        let values = std::str::from_utf8(values).ok().and_then(|text| text.parse::<usize>().ok());
        let values = values.filter(|&values| values <= MBUS_VALUES_MAX && count == 4 + 3 * values);
        let values = values.ok_or(LineError::Count { count })?;
        let stamp = self.stamp(stamp)?;
        let is_bad = status.iter().any(|&digit| digit != b'0');
        if is_bad {
            self.state(channel, line, status);
        }
        let definitions = line.groups().skip(4);
        let contents = line.groups().skip(4 + 2 * values);
        let names = definitions.clone().step_by(2).zip(definitions.skip(1).step_by(2)).take(values);
        for ((name, unit), content) in names.zip(contents) {
            let name = code(name).ok_or(LineError::Code)?;
            if content.is_empty() {
                continue;
            }
            let mut reading = self.reading(name, Kind::Register, Some(stamp), quantity_in(content, unit)?);
            if is_bad {
                reading.quality = reading.quality.with(Quality::NOT_VALID);
            }
            self.push(channel, line, reading);
        }
        Ok(())
    }

    /// `1-0:99.97.0(count)(0-0:96.7.19)(end)(seconds*s)..`: long power failures, each at its end.
    fn power_failures(&mut self, line: &Line<'a>) -> Result<(), LineError> {
        let mut groups = line.groups().skip(2);
        let mut earlier: Option<(UtcMillis, u8)> = None;
        while let (Some(stamp), Some(duration)) = (groups.next(), groups.next()) {
            let at = self.stamp(stamp)?.instant;
            let (Quantity { mantissa: seconds, scaler: 0, unit: Unit::SECOND }, _) = quantity(duration)? else {
                return Err(LineError::Decimal { text: printable(duration) });
            };
            let nth = earlier.filter(|&(same, _)| same == at).map_or(0, |(_, nth)| nth.saturating_add(1));
            earlier = Some((at, nth));
            let text = format!("power failure of {seconds} s");
            self.events.push(PendingEvent {
                channel: 0,
                log: line.code,
                at: Some(at),
                nth,
                code: 0,
                raw: duration.into(),
                text,
            });
        }
        Ok(())
    }

    /// `0-0:98.1.0(count)(1-0:1.6.0)(1-0:1.6.0)` and, for each month, `(freeze)(occurrence)(value*unit)`.
    fn monthly_peaks(&mut self, line: &Line<'a>) -> Result<(), LineError> {
        if !line.is_single()
            && let Some(stamp) = self.local_time.resolve(line.first(), self.received_at)
        {
            self.month_end(line, stamp);
            return Ok(());
        }
        let mut groups = line.groups();
        let (Some(count), Some(name), Some(_)) = (groups.next(), groups.next(), groups.next()) else {
            return if line.is_single() { Ok(()) } else { Err(LineError::Count { count: line.groups().count() }) };
        };
        if count.iter().all(|&digit| digit == b'0') {
            return Ok(());
        }
        let name = code(name).ok_or(LineError::Code)?;
        while let (Some(freeze), Some(occurrence), Some(value)) = (groups.next(), groups.next(), groups.next()) {
            let (freeze, occurrence) = (self.stamp(freeze)?, self.stamp(occurrence)?);
            let mut reading = self.reading(name, Kind::Billing, Some(freeze), quantity(value)?.0);
            reading.occurred_at = Some(occurrence.instant);
            self.push(0, line, reading);
        }
        Ok(())
    }

    /// `0-0:98.1.0(230801000000S)(000663.924*kWh)..` (E.ON Hungary): what stood in the meter at the end of a month. Which value is
    /// of which register, the line does not say.
    fn month_end(&mut self, line: &Line<'a>, stamp: Resolved) {
        let groups: Vec<&[u8]> = line.groups().collect();
        let text: String = groups.join(&b' ').into_iter().map(shown).collect();
        let raw: Vec<u8> = groups.iter().flat_map(|&group| [&b"("[..], group, &b")"[..]].concat()).collect();
        let at = Some(stamp.instant);
        self.events.push(PendingEvent { channel: 0, log: line.code, at, nth: 0, code: 0, raw: raw.into(), text });
    }

    /// A message or its number, as hexadecimal of ASCII.
    fn text(&mut self, channel: u8, line: &Line<'a>) {
        if !line.first().is_empty() {
            let text = hex_text(line.first()).unwrap_or_else(|| printable(line.first()));
            let (log, raw) = (line.code, line.first().into());
            self.channel(channel).last_line = Some((line.number, log));
            self.events.push(PendingEvent { channel, log, at: None, nth: 0, code: 0, raw, text });
        }
    }

    /// A word that says how things are: tariff, breaker, valve, status.
    fn state(&mut self, channel: u8, line: &Line<'a>, raw: &'a [u8]) {
        self.channel(channel).last_line = Some((line.number, line.code));
        let is_number = raw.iter().all(u8::is_ascii_digit);
        let code = std::str::from_utf8(raw).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
        let text = if is_number { String::new() } else { printable(raw) };
        self.events.push(PendingEvent {
            channel,
            log: line.code,
            at: None,
            nth: 0,
            code: code.unwrap_or(0),
            raw: raw.into(),
            text,
        });
    }

    fn stamp(&self, content: &[u8]) -> Result<Resolved, LineError> {
        let resolved = self.local_time.resolve(content, self.received_at);
        resolved.ok_or_else(|| LineError::Stamp { text: printable(content) })
    }

    /// A reading at its own stamp or at the telegram's instant as far as it is known.
    #[inline]
    fn reading(&self, code: ObisCode, kind: Kind, own: Option<Resolved>, quantity: Quantity) -> TelegramReading {
        let (captured_at, stamped_by, is_guess) = match own.or(self.clock) {
            Some(Resolved { instant, is_guess }) => (instant, StampedBy::Meter, is_guess),
            None => (self.received_at, StampedBy::Gateway, false),
        };
        let quality = if is_guess { self.quality.with(Quality::LABEL_DERIVED) } else { self.quality };
        TelegramReading { quality, stamped_by, ..TelegramReading::new(code, kind, captured_at, quantity) }
    }

    #[inline]
    fn push(&mut self, channel: u8, line: &Line<'a>, reading: TelegramReading) {
        let channel = self.channel(channel);
        channel.last_line = Some((line.number, line.code));
        channel.readings.push(reading);
    }

    #[inline]
    fn channel(&mut self, number: u8) -> &mut Channel<'a> {
        if number == 0 {
            return &mut self.main;
        }
        let at = self.channels.iter().position(|channel| channel.number == number).unwrap_or_else(|| {
            self.channels.push(Channel::new(number));
            self.channels.len() - 1
        });
        self.channels.get_mut(at).expect("found or just pushed")
    }

    /// Tells whose everything is.
    pub(super) fn finish(mut self, assumed: Option<&MeterId>) -> Result<Readout, ReadoutError> {
        // Who is configured knows better than a name that no label has.
        let is_device_name = self.main.identity.is_some_and(|(rank, _)| rank == DEVICE_NAME);
        let assumed_first = assumed.filter(|_| is_device_name).cloned();
        let main = assumed_first.or_else(|| self.main.meter()).or_else(|| assumed.cloned());
        let main = main.ok_or(ReadoutError::NoIdentity)?;
        let (captured_at, stamped_by) = match self.clock {
            Some(clock) => (clock.instant, StampedBy::Meter),
            None => (self.received_at, StampedBy::Gateway),
        };
        let mut meters = Vec::with_capacity(1 + self.channels.len());
        let mut owners = vec![(0, main.clone())];
        meters.push(MeterReadout {
            meter: main,
            channel: 0,
            device_type: self.main.device_type,
            readings: self.main.readings,
        });
        for channel in self.channels {
            let Some(meter) = channel.meter() else {
                if let Some((line, code)) = channel.last_line {
                    let error = LineError::NoIdentity { channel: channel.number };
                    self.problems.push(LineProblem { line, code: Some(code), error });
                }
                continue;
            };
            owners.push((channel.number, meter.clone()));
            let Channel { number, device_type, readings, .. } = channel;
            meters.push(MeterReadout { meter, channel: number, device_type, readings });
        }
        if let Some(clock) = self.clock {
            // Lines before the clock line were stamped on arrival for want of a better instant.
            let early = meters.iter_mut().flat_map(|meter| &mut meter.readings);
            for reading in early.filter(|reading| reading.stamped_by == StampedBy::Gateway) {
                reading.captured_at = clock.instant;
                reading.stamped_by = StampedBy::Meter;
                if clock.is_guess {
                    reading.quality = reading.quality.with(Quality::LABEL_DERIVED);
                }
            }
        }
        let events = self.events.into_iter().filter_map(|event| {
            let (_, meter) = owners.iter().find(|(channel, _)| *channel == event.channel)?;
            let PendingEvent { log, at, nth, code, raw, text, .. } = event;
            let at = at.unwrap_or(captured_at);
            Some(Event { meter: meter.clone(), log: log.to_string(), at, nth, code, raw: raw.into_owned(), text })
        });
        let events = events.collect();
        Ok(Readout { version: self.version, captured_at, stamped_by, meters, events, problems: self.problems })
    }
}

fn version(content: &[u8]) -> Option<Version> {
    std::str::from_utf8(content).ok()?.parse().ok().map(Version)
}
