//! The bytes of each record: one list of fields a kind, written as Avro or as CBOR.
//!
//! Readings and events are flat, since they are for others too: what a sink of a few lines of settings can take over column
//! by column. Columns are named as in the archive. Batch and index stand in the headers: with them anybody can prove that a
//! record is there once.

use std::str::FromStr;

use protocols::bytes::{Reader, unzigzag, write_varint, zigzag};
use protocols::metering::{Code, Event, Kind, MeterId, Quality, Quantity, Reading, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{BatchId, GatewayId};
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, OwnedHeaders};

use super::format::{Columns, Decode, Encode, Fields, Last, decode, encode};
use crate::archive::parquet::to_double;
use crate::log::books::{decode_books, encode_books};
use crate::log::{AppliedBatch, BooksRecord, EventRecord, LogError, ReadingRecord, Uplinked};

/// Headers of readings, events and books.
const BATCH: &str = "batch";
const INDEX: &str = "index";
/// Header of refs: what the value is.
const KIND: &str = "kind";

/// How values of readings and events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Cbor,
    /// Confluent's wire format, with the ids that the registry gave the schemas.
    Avro {
        readings: u32,
        events: u32,
    },
}

/// What the readings of one block have in common, as text.
pub(super) struct SeriesText {
    pub(super) meter: String,
    code: String,
    kind: &'static str,
    period_s: u32,
    unit: String,
}

impl SeriesText {
    pub(super) fn new(series: &Series, unit: Unit) -> Self {
        Self {
            meter: series.meter.to_string(),
            code: series.code.to_string(),
            kind: series.kind.name(),
            period_s: series.period_s,
            unit: unit.to_string(),
        }
    }
}

const fn stamp_name(stamped_by: StampedBy) -> &'static str {
    match stamped_by {
        StampedBy::Meter => "meter",
        StampedBy::Gateway => "gateway",
    }
}

struct ReadingFields<'a> {
    series: &'a SeriesText,
    applied: &'a AppliedBatch,
    reading: &'a Reading,
}

impl Encode for ReadingFields<'_> {
    fn write(&self, out: &mut impl Fields) {
        let Self { series, applied, reading } = self;
        let quantity = reading.quantity;
        out.text("meter", &series.meter);
        out.text("code", &series.code);
        out.text("kind", series.kind);
        out.int("period_s", i64::from(series.period_s));
        out.int("captured_at", reading.captured_at.0);
        out.int("nth", i64::from(reading.nth));
        out.double("value", to_double(quantity));
        out.int("mantissa", quantity.mantissa);
        out.int("scaler", i64::from(quantity.scaler));
        out.text("unit", &series.unit);
        out.int("unit_number", i64::from(quantity.unit.0));
        out.int("quality", i64::from(reading.quality.0));
        out.int("read_at", reading.read_at.0);
        out.optional("occurred_at", reading.occurred_at.map(|at| at.0));
        out.optional("clock_offset_ms", reading.clock_offset_ms);
        out.text("stamped_by", stamp_name(reading.stamped_by));
        out.text("gateway", applied.batch.id.gateway.as_str());
        out.int("sealed_at", applied.batch.sealed_at.0);
        out.int("sealed_effective", applied.sealed_effective.0);
    }
}

struct DecodedReading {
    reading: Reading,
    sealed_at: UtcMillis,
    sealed_effective: UtcMillis,
}

/// What readings that follow each other have in common.
#[derive(Default)]
struct KnownSeries {
    meter: Last<MeterId>,
    code: Last<Code>,
}

impl Decode for DecodedReading {
    type Known = KnownSeries;

    fn read(columns: &mut impl Columns, known: &mut KnownSeries) -> Option<Self> {
        let series = Series {
            meter: known.meter.of(&columns.text("meter")?, |text| MeterId::new(text).ok())?,
            code: known.code.of(&columns.text("code")?, |text| Code::from_str(text).ok())?,
            kind: Kind::from_str(&columns.text("kind")?).ok()?,
            period_s: u32::try_from(columns.int("period_s")?).ok()?,
        };
        let (captured_at, nth) = (UtcMillis(columns.int("captured_at")?), u8::try_from(columns.int("nth")?).ok()?);
        columns.double("value")?;
        let (mantissa, scaler) = (columns.int("mantissa")?, i8::try_from(columns.int("scaler")?).ok()?);
        columns.text("unit")?;
        let unit = Unit(u8::try_from(columns.int("unit_number")?).ok()?);
        let reading = Reading {
            series,
            captured_at,
            nth,
            quantity: Quantity::new(mantissa, scaler, unit),
            quality: Quality(u32::try_from(columns.int("quality")?).ok()?),
            read_at: UtcMillis(columns.int("read_at")?),
            occurred_at: columns.optional("occurred_at").ok()?.map(UtcMillis),
            clock_offset_ms: columns.optional("clock_offset_ms").ok()?,
            stamped_by: match columns.text("stamped_by")?.as_ref() {
                "meter" => StampedBy::Meter,
                "gateway" => StampedBy::Gateway,
                _ => return None,
            },
        };
        columns.text("gateway")?;
        let (sealed_at, sealed_effective) =
            (UtcMillis(columns.int("sealed_at")?), UtcMillis(columns.int("sealed_effective")?));
        Some(Self { reading, sealed_at, sealed_effective })
    }
}

struct EventFields<'a> {
    applied: &'a AppliedBatch,
    event: &'a Event,
    read_at: UtcMillis,
}

impl Encode for EventFields<'_> {
    fn write(&self, out: &mut impl Fields) {
        let Self { applied, event, read_at } = self;
        out.text("meter", event.meter.as_str());
        out.text("log", &event.log);
        out.int("at", event.at.0);
        out.int("nth", i64::from(event.nth));
        out.int("code", event.code);
        out.bytes("raw", &event.raw);
        out.text("text", &event.text);
        out.int("read_at", read_at.0);
        out.text("gateway", applied.batch.id.gateway.as_str());
        out.int("sealed_effective", applied.sealed_effective.0);
    }
}

struct DecodedEvent {
    event: Event,
    read_at: UtcMillis,
    sealed_effective: UtcMillis,
}

impl Decode for DecodedEvent {
    type Known = ();

    fn read(columns: &mut impl Columns, (): &mut ()) -> Option<Self> {
        let event = Event {
            meter: MeterId::new(&columns.text("meter")?).ok()?,
            log: columns.text("log")?.into_owned(),
            at: UtcMillis(columns.int("at")?),
            nth: u8::try_from(columns.int("nth")?).ok()?,
            code: columns.int("code")?,
            raw: columns.bytes("raw")?,
            text: columns.text("text")?.into_owned(),
        };
        let read_at = UtcMillis(columns.int("read_at")?);
        columns.text("gateway")?;
        Some(Self { event, read_at, sealed_effective: UtcMillis(columns.int("sealed_effective")?) })
    }
}

impl Format {
    pub(super) fn reading(self, out: &mut Vec<u8>, series: &SeriesText, applied: &AppliedBatch, reading: &Reading) {
        let schema = if let Self::Avro { readings, .. } = self { Some(readings) } else { None };
        encode(out, schema, &ReadingFields { series, applied, reading });
    }

    pub(super) fn event(self, out: &mut Vec<u8>, applied: &AppliedBatch, event: &Event, read_at: UtcMillis) {
        let schema = if let Self::Avro { events, .. } = self { Some(events) } else { None };
        encode(out, schema, &EventFields { applied, event, read_at });
    }
}

pub(super) fn batch_header(batch: &str) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header { key: BATCH, value: Some(batch) })
}

pub(super) fn row_headers(batch: &str, index: u32) -> OwnedHeaders {
    let mut digits = [0; 10];
    let mut rest = index;
    let mut from = digits.len();
    while from == digits.len() || rest > 0 {
        from -= 1;
        digits[from] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    OwnedHeaders::new_with_capacity(2)
        .insert(Header { key: BATCH, value: Some(batch) })
        .insert(Header { key: INDEX, value: Some(&digits[from..]) })
}

pub(super) fn uplinked_headers(uplinked: &Uplinked) -> OwnedHeaders {
    let kind = if matches!(uplinked, Uplinked::Ref(_)) { "ref" } else { "status" };
    OwnedHeaders::new_with_capacity(1).insert(Header { key: KIND, value: Some(kind) })
}

fn header<'m>(message: &'m BorrowedMessage<'_>, key: &str) -> Option<&'m str> {
    let headers = message.headers()?;
    let value = headers.iter().find(|header| header.key == key)?.value?;
    std::str::from_utf8(value).ok()
}

fn damaged(message: &BorrowedMessage<'_>) -> LogError {
    let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
    LogError::Damaged(format!("{topic} {partition}:{offset} is no record of ours"))
}

/// Decodes the rows of a topic in their order.
struct Rows<T: Decode> {
    batch: Last<BatchId>,
    known: T::Known,
}

impl<T: Decode<Known: Default>> Rows<T> {
    fn new() -> Self {
        Self { batch: Last::default(), known: T::Known::default() }
    }

    /// Batch, index and content.
    fn decode(&mut self, message: &BorrowedMessage<'_>) -> Result<(BatchId, u32, T), LogError> {
        let (batch, index) = self.headers(message).ok_or_else(|| damaged(message))?;
        let content = decode(message.payload().unwrap_or_default(), &mut self.known);
        Ok((batch, index, content.ok_or_else(|| damaged(message))?))
    }

    fn headers(&mut self, message: &BorrowedMessage<'_>) -> Option<(BatchId, u32)> {
        let (mut batch, mut index) = (None, None);
        for header in message.headers()?.iter() {
            let found = match header.key {
                BATCH => &mut batch,
                INDEX => &mut index,
                _ => continue,
            };
            *found = Some(std::str::from_utf8(header.value?).ok()?);
        }
        Some((self.batch.of(batch?, |text| text.parse().ok())?, index?.parse().ok()?))
    }
}

pub(super) fn reading_decoder() -> impl FnMut(&BorrowedMessage<'_>) -> Result<ReadingRecord, LogError> {
    let mut rows = Rows::new();
    move |message| {
        let (batch, index, DecodedReading { reading, sealed_at, sealed_effective }) = rows.decode(message)?;
        let (partition, offset) = (message.partition() as u32, message.offset() as u64);
        Ok(ReadingRecord { partition, offset, batch, index, sealed_at, sealed_effective, reading })
    }
}

pub(super) fn event_decoder() -> impl FnMut(&BorrowedMessage<'_>) -> Result<EventRecord, LogError> {
    let mut rows = Rows::new();
    move |message| {
        let (batch, index, DecodedEvent { event, read_at, sealed_effective }) = rows.decode(message)?;
        let (partition, offset) = (message.partition() as u32, message.offset() as u64);
        Ok(EventRecord { partition, offset, batch, index, sealed_effective, read_at, event })
    }
}

/// Three instants, then the books.
pub(super) fn encode_books_record(applied: &AppliedBatch, committed_at: UtcMillis) -> Vec<u8> {
    let mut out = Vec::new();
    for at in [applied.batch.sealed_at, applied.sealed_effective, committed_at] {
        write_varint(&mut out, zigzag(at.0));
    }
    out.extend_from_slice(&encode_books(&applied.batch.books));
    out
}

/// `expired_before`: what was appended earlier may have lost its rows to retention.
pub(super) fn decode_books_record(
    message: &BorrowedMessage<'_>,
    expired_before: Option<UtcMillis>,
) -> Result<BooksRecord, LogError> {
    let decode = || {
        let batch = header(message, BATCH)?.parse().ok()?;
        let payload = message.payload()?;
        let mut reader = Reader::new(payload);
        let mut at = || reader.varint().map(unzigzag).map(UtcMillis);
        let (sealed_at, sealed_effective, committed_at) = (at()?, at()?, at()?);
        let books = decode_books(reader.rest())?;
        let (partition, offset) = (message.partition() as u32, message.offset() as u64);
        let rows_expired = expired_before.is_some_and(|before| appended_at(message) < before);
        Some(BooksRecord { partition, offset, batch, sealed_at, sealed_effective, committed_at, books, rows_expired })
    };
    decode().ok_or_else(|| damaged(message))
}

/// By the broker's clock: the topics say so.
pub(super) fn appended_at(message: &BorrowedMessage<'_>) -> UtcMillis {
    UtcMillis(message.timestamp().to_millis().unwrap_or_default())
}

/// Offset, append time, gateway, content.
pub(super) fn decode_ref(message: &BorrowedMessage<'_>) -> Result<(u64, UtcMillis, GatewayId, Uplinked), LogError> {
    let decode = || {
        let gateway = gateway(message)?;
        let content = message.payload().unwrap_or_default().to_vec();
        let uplinked = match header(message, KIND)? {
            "ref" => Uplinked::Ref(content),
            "status" => Uplinked::Status(content),
            _ => return None,
        };
        Some((message.offset() as u64, appended_at(message), gateway, uplinked))
    };
    decode().ok_or_else(|| damaged(message))
}

/// The key.
fn gateway(message: &BorrowedMessage<'_>) -> Option<GatewayId> {
    GatewayId::new(std::str::from_utf8(message.key()?).ok()?).ok()
}

/// `None` for a record that is not of a gateway: the one that describes the log.
pub(super) fn decode_ledger(message: &BorrowedMessage<'_>) -> Result<Option<(GatewayId, Vec<u8>)>, LogError> {
    if message.key() == Some(super::maker::DESCRIPTION_KEY) {
        return Ok(None);
    }
    let gateway = gateway(message).ok_or_else(|| damaged(message))?;
    Ok(Some((gateway, message.payload().unwrap_or_default().to_vec())))
}

/// Names and kinds of the fields of a reading, in their order.
#[cfg(test)]
pub(super) fn reading_fields() -> Vec<(String, &'static str)> {
    let (applied, reading) = tests::sample();
    let series = SeriesText::new(&reading.series, reading.quantity.unit);
    let mut names = super::format::Names::default();
    ReadingFields { series: &series, applied: &applied, reading: &reading }.write(&mut names);
    names.0
}

#[cfg(test)]
pub(super) fn event_fields() -> Vec<(String, &'static str)> {
    let (applied, _) = tests::sample();
    let mut names = super::format::Names::default();
    let event = &applied.batch.events[0];
    EventFields { applied: &applied, event: &event.event, read_at: event.read_at }.write(&mut names);
    names.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::log::conformance::samples::{T0, batch, register};

    pub(super) fn sample() -> (AppliedBatch, Reading) {
        let batch = batch("gw-1", 1).quarters(register(1, 1), 1).event(1, T0, 7, "up").build();
        let reading = batch.blocks[0].reading(&batch.blocks[0].rows[0]);
        (AppliedBatch { batch: Arc::clone(&batch), sealed_effective: T0 }, reading)
    }

    proptest! {
        #[test]
        fn a_reading_comes_back_from_both_formats(
            mantissa: i64, scaler: i8, unit: u8, at: i64, quality: u32, occurred_at: Option<i64>, offset: Option<i64>, nth: u8,
        ) {
            let (applied, mut reading) = sample();
            reading.quantity = Quantity::new(mantissa, scaler, Unit(unit));
            (reading.captured_at, reading.nth, reading.quality) = (UtcMillis(at), nth, Quality(quality));
            (reading.occurred_at, reading.clock_offset_ms) = (occurred_at.map(UtcMillis), offset);
            let series = SeriesText::new(&reading.series, reading.quantity.unit);
            for format in [Format::Cbor, Format::Avro { readings: 7, events: 8 }] {
                let mut out = vec![1, 2, 3];
                format.reading(&mut out, &series, &applied, &reading);
                let decoded: DecodedReading = decode(&out, &mut KnownSeries::default()).unwrap();
                prop_assert_eq!(&decoded.reading, &reading);
                prop_assert_eq!((decoded.sealed_at, decoded.sealed_effective), (applied.batch.sealed_at, T0));
                let event = &applied.batch.events[0];
                format.event(&mut out, &applied, &event.event, event.read_at);
                let decoded: DecodedEvent = decode(&out, &mut ()).unwrap();
                prop_assert_eq!((&decoded.event, decoded.read_at), (&event.event, event.read_at));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            drop(decode::<DecodedReading>(&bytes, &mut KnownSeries::default()));
            drop(decode::<DecodedEvent>(&bytes, &mut ()));
        }
    }

    #[test]
    fn readings_of_series_in_turns_are_of_their_own_series() {
        let (applied, reading) = sample();
        let mut known = KnownSeries::default();
        for series in [register(1, 1), register(1, 2), register(2, 2), register(1, 2), register(1, 1)] {
            let reading = Reading { series, ..reading.clone() };
            let text = SeriesText::new(&reading.series, reading.quantity.unit);
            for format in [Format::Cbor, Format::Avro { readings: 7, events: 8 }] {
                let mut out = Vec::new();
                format.reading(&mut out, &text, &applied, &reading);
                assert_eq!(decode::<DecodedReading>(&out, &mut known).unwrap().reading, reading);
            }
        }
    }

    #[test]
    fn an_index_is_written_as_text() {
        for index in [0, 9, 10, 4_294_967_295] {
            let headers = row_headers("gw/1/1", index);
            assert_eq!(headers.get(1).value, Some(index.to_string().as_bytes()));
        }
    }
}
