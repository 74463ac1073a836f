//! `read --profile`: the entries of a load profile or an event log between two instants.

use std::collections::BTreeMap;
use std::io::Write;

use protocols::cosem::profile_generic::CaptureObject;
use protocols::cosem::profile_generic::reader::ProfileReader;
use protocols::cosem::register::ScalerUnit;
use protocols::dlms::apdu::CosemAttribute;
use protocols::dlms::data::Data;
use protocols::metering::{Event, ObisCode, Quality, Quantity, TelegramReading, UtcMillis};

use super::answer::text_of;
use super::{ReadOptions, value};
use crate::agenda::cursor::{DAY_MS, Span};
use crate::config::metering::MeterSettings;
use crate::reading::columns::{is_scaled, profile_rules, scaler_attribute};
use crate::reading::introduction::Introduction;
use crate::reading::memory::{Access, Layout};
use crate::reading::profile::{Extent, fetch, read_layout};
use crate::reading::registers::decode_scaler;
use crate::reading::talk::{Talk, TalkError};

/// What is wanted of which profile.
pub(super) struct Wanted {
    pub(super) profile: ObisCode,
    /// Labels; the last instant is not part of it.
    pub(super) span: Span,
}

impl Wanted {
    /// `None` when no profile is wanted. By default the last day.
    pub(super) fn of(options: &ReadOptions, now: UtcMillis) -> anyhow::Result<Option<Self>> {
        let Some(profile) = &options.profile else { return Ok(None) };
        let instant = |text: &Option<String>, default: UtcMillis| match text {
            Some(text) => text.parse().map_err(|error| anyhow::anyhow!("{error}")),
            None => Ok(default),
        };
        let to = instant(&options.to, now)?;
        let from = instant(&options.from, to.plus_ms(-DAY_MS))?;
        anyhow::ensure!(from < to, "--from {from} is not before --to {to}");
        let profile = profile.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Some(Self { profile, span: Span::new(from, to) }))
    }
}

/// A table as it is printed.
pub(super) struct Table {
    /// Code, and unit where there is one.
    pub(super) columns: Vec<(String, String)>,
    pub(super) rows: Vec<Row>,
    /// Rows that cannot be read.
    pub(super) problems: Vec<String>,
}

pub(super) struct Row {
    pub(super) captured_at: UtcMillis,
    pub(super) quality: Quality,
    pub(super) cells: Vec<String>,
}

/// Reads what is wanted. The inner error is about the profile.
pub(super) async fn read(
    talk: &mut Talk<'_>,
    meter: &MeterSettings,
    who: &Introduction,
    wanted: &Wanted,
) -> Result<anyhow::Result<Table>, TalkError> {
    let Wanted { profile, span } = wanted;
    let refused =
        |error: String| Ok(Err(anyhow::anyhow!("{profile}: {error}\nhint: `read --object-list` shows its profiles")));
    let layout = match read_layout(talk, *profile).await? {
        Ok(layout) => layout,
        Err(error) => return refused(error.to_string()),
    };
    let scalers = read_scalers(talk, &layout).await?;
    let mut access = Access::Range;
    let buffer = loop {
        let buffer = match fetch(talk, *profile, &layout, access, *span, who.clock).await? {
            Ok(buffer) => buffer,
            Err(error) => return refused(error.to_string()),
        };
        let covers = first_label(meter, &layout, &buffer.data).is_some_and(|label| label < span.from);
        if buffer.extent != Extent::Newest || covers {
            break buffer;
        }
        access = Access::Whole;
    };
    Ok(table(meter, &layout, &scalers, &buffer.data, *span))
}

/// Of each column; those without one count.
async fn read_scalers(talk: &mut Talk<'_>, layout: &Layout) -> Result<Vec<Option<ScalerUnit>>, TalkError> {
    let scaler = |object: &CaptureObject| {
        let attribute =
            scaler_attribute(object.class_id).filter(|_| is_scaled(object.class_id, object.attribute_index))?;
        Some(CosemAttribute::new(object.class_id, object.logical_name, attribute))
    };
    let wanted: Vec<Option<CosemAttribute>> = layout.columns.iter().map(scaler).collect();
    let list: Vec<CosemAttribute> = wanted.iter().flatten().copied().collect();
    let mut results = talk.get_list(&list).await?.into_iter();
    Ok(wanted.into_iter().map(|wanted| decode_scaler(&wanted.and_then(|_| results.next())?.ok()?)).collect())
}

fn first_label(meter: &MeterSettings, layout: &Layout, buffer: &[u8]) -> Option<UtcMillis> {
    let mut reader = ProfileReader::new(&layout.columns, profile_rules(meter, layout), buffer).ok()?;
    reader.next_row()?.ok().map(|row| row.captured_at)
}

fn table(
    meter: &MeterSettings,
    layout: &Layout,
    scalers: &[Option<ScalerUnit>],
    buffer: &[u8],
    span: Span,
) -> anyhow::Result<Table> {
    let shown = |object: &&CaptureObject| !object.is_clock();
    let named = |(object, scaler): (&CaptureObject, &Option<ScalerUnit>)| {
        let attribute =
            if object.attribute_index == 2 { String::new() } else { format!("/{}", object.attribute_index) };
        let unit = scaler.map_or_else(String::new, |scaler| scaler.unit.to_string());
        (format!("{}{attribute}", object.logical_name), unit)
    };
    let columns = layout.columns.iter().zip(scalers).filter(|(object, _)| shown(object)).map(named).collect();
    let mut table = Table { columns, rows: Vec::new(), problems: Vec::new() };
    let mut reader = ProfileReader::new(&layout.columns, profile_rules(meter, layout), buffer)?;
    while let Some(row) = reader.next_row() {
        let row = match row {
            Ok(row) if span.contains(row.captured_at) => row,
            Ok(_) => continue,
            Err(error) => {
                let is_end = matches!(error, protocols::cosem::profile_generic::rows::RowError::Encoding { .. });
                table.problems.push(error.to_string());
                if is_end {
                    break;
                }
                continue;
            }
        };
        let cell = |place: usize| {
            let data = row.cell(place).copied().unwrap_or(Data::Null);
            let quantity = scalers.get(place).copied().flatten().and_then(|scaler| scaler.quantity(&data).ok());
            quantity
                .map_or_else(|| if data == Data::Null { String::new() } else { value::text(&data) }, Quantity::decimal)
        };
        let places = layout.columns.iter().enumerate().filter(|(_, object)| shown(object));
        let cells = places.map(|(place, _)| cell(place)).collect();
        // As it is stored: at the end of the period.
        let captured_at = row.captured_at.plus_ms(meter.label_lag_ms(layout.capture_period_s));
        table.rows.push(Row { captured_at, quality: row.quality, cells });
    }
    Ok(table)
}

impl Table {
    /// Of readings that carry their codes, and of the entries of a log.
    pub(super) fn of_rows(readings: Vec<TelegramReading>, events: &[Event], problems: &[impl ToString]) -> Self {
        let mut table = Self {
            columns: Vec::new(),
            rows: Vec::new(),
            problems: problems.iter().map(ToString::to_string).collect(),
        };
        let mut labels: BTreeMap<(UtcMillis, u8), Vec<TelegramReading>> = BTreeMap::new();
        for reading in readings {
            let column = (reading.code.to_string(), reading.quantity.unit.to_string());
            if !table.columns.contains(&column) {
                table.columns.push(column);
            }
            labels.entry((reading.captured_at, reading.nth)).or_default().push(reading);
        }
        for ((captured_at, _), readings) in labels {
            let quality = readings.iter().fold(Quality::GOOD, |quality, reading| quality.with(reading.quality));
            let cell = |(code, unit): &(String, String)| {
                let mut of_column = readings
                    .iter()
                    .filter(|reading| reading.code.to_string() == *code && reading.quantity.unit.to_string() == *unit);
                of_column.next().map_or_else(String::new, |reading| reading.quantity.decimal())
            };
            let cells = table.columns.iter().map(cell).collect();
            table.rows.push(Row { captured_at, quality, cells });
        }
        if !events.is_empty() {
            table.columns.push(("event".to_owned(), String::new()));
            let row =
                |event: &Event| Row { captured_at: event.at, quality: Quality::GOOD, cells: vec![text_of(event)] };
            table.rows.extend(events.iter().map(row));
        }
        table
    }

    pub(super) fn print(&self, options: &ReadOptions, out: &mut impl Write) -> anyhow::Result<()> {
        if options.csv {
            self.print_csv(out)?;
        } else if options.json {
            self.print_json(out)?;
        } else {
            self.print_table(out)?;
        }
        for problem in &self.problems {
            drop(writeln!(std::io::stderr(), "a row cannot be read: {problem}"));
        }
        Ok(())
    }

    fn print_csv(&self, out: &mut impl Write) -> std::io::Result<()> {
        let title =
            |(code, unit): &(String, String)| if unit.is_empty() { code.clone() } else { format!("{code} [{unit}]") };
        let titles: Vec<String> = self.columns.iter().map(|column| quoted(&title(column))).collect();
        let line = |fields: &[String]| if fields.is_empty() { String::new() } else { format!(",{}", fields.join(",")) };
        writeln!(out, "captured_at,quality{}", line(&titles))?;
        for Row { captured_at, quality, cells } in &self.rows {
            let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
            writeln!(out, "{captured_at},{quality}{}", line(&cells))?;
        }
        Ok(())
    }

    fn print_json(&self, out: &mut impl Write) -> std::io::Result<()> {
        for Row { captured_at, quality, cells } in &self.rows {
            let value = |((code, unit), cell): (&(String, String), &String)| serde_json::json!({ "code": code, "value": cell, "unit": unit });
            let values: Vec<_> = self.columns.iter().zip(cells).map(value).collect();
            let row = serde_json::json!({
                "captured_at": captured_at.to_string(), "quality": quality.to_string(), "values": values,
            });
            writeln!(out, "{row}")?;
        }
        Ok(())
    }

    fn print_table(&self, out: &mut impl Write) -> std::io::Result<()> {
        let titles = self.columns.iter().map(|(code, unit)| format!("{code} {unit}").trim_end().to_owned());
        let titles: Vec<String> = titles.collect();
        let width = |place: usize| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(place));
            cells.chain(titles.get(place)).map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..titles.len()).map(width).collect();
        let line = |cells: &[String]| {
            let cells = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:>width$}"));
            cells.collect::<String>()
        };
        let quality_width = self.rows.iter().map(|row| row.quality.to_string().len()).max().unwrap_or(0).max(7);
        writeln!(out, "{:<20} {:<quality_width$}{}", "captured_at", "quality", line(&titles))?;
        for Row { captured_at, quality, cells } in &self.rows {
            let quality = quality.to_string();
            writeln!(out, "{:<20} {quality:<quality_width$}{}", captured_at.to_string(), line(cells))?;
        }
        Ok(())
    }
}

/// A field of RFC 4180.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
