//! What a meter has to say when it is asked: read-out, registers, load profile, log book.

use std::sync::Arc;

use protocols::iec62056_21::{
    Address, Layout, LinesBuilder, MeterClock, MeterData, Password, ProfileHeader, ReadRequest, Stamp, StampForm,
};
use protocols::metering::{ObisCode, Quality, Quantity, Unit, UtcMillis};

use crate::meter::VirtualMeter;
use crate::profile::{Column, Entry, ProfileRing, ProfileSpec};
use crate::registers::Measurand;
use crate::speak::readout::{lines, maker_and_number, meter_clock, short, value};
use crate::station::Station;

/// The season tells the two hours of autumn apart.
const FORM: StampForm = StampForm::Zst13;
/// `P.01`, `P.98`; groups C and D of their addresses.
const LOAD_PROFILE: (u8, u8) = (99, 1);
const LOG_BOOK: (u8, u8) = (99, 98);
/// `000012.345*kvarh`
const REACTIVE: Layout = Layout::of(6, 3, 3, "kvarh", Unit::VAR_HOUR);

/// A meter as its readers see it.
pub(super) struct Objects {
    pub(super) station: Arc<Station>,
    pub(super) password: String,
}

impl MeterData for Objects {
    fn read_out(&mut self, _: u8) -> Vec<u8> {
        self.station.now(|meter| lines(meter, meter_clock(meter.clock().zone()), Quality::GOOD).0)
    }

    fn read(&mut self, request: &ReadRequest) -> Option<Vec<u8>> {
        let Address::Obis(address) = Address::parse(request.address().as_bytes()) else { return None };
        let (c, d, _) = address.cde;
        let obis = address.obis(1);
        self.station.now(|meter| match (c, d) {
            LOAD_PROFILE => load_profile(meter, range(meter, request.argument())?),
            LOG_BOOK => Some(log_book(meter, range(meter, request.argument())?)),
            _ => register(meter, obis),
        })
    }

    fn admits(&mut self, password: &Password) -> bool {
        Password::plain(&self.password).as_ref() == Ok(password)
    }
}

fn builder(meter: &VirtualMeter) -> LinesBuilder {
    LinesBuilder::new(meter_clock(meter.clock().zone()), FORM)
}

fn register(meter: &VirtualMeter, obis: ObisCode) -> Option<Vec<u8>> {
    let (_, number) = maker_and_number(meter.id());
    let [_, _, c, d, e, _] = obis.0;
    let shown = UtcMillis(meter.shown().seconds() * 1000);
    let clock = |line: &[u8]| {
        let all = builder(meter).clock(shown).finish();
        all.split_inclusive(|&octet| octet == b'\n').find(|all| all.starts_with(line)).map(<[u8]>::to_vec)
    };
    match (c, d, e) {
        (0, 0, 0) | (96, 1, 0) => Some(builder(meter).text(if c == 0 { "0.0.0" } else { "C.1.0" }, number).finish()),
        (0, 9, 1) => clock(b"0.9.1"),
        (0, 9, 2) => clock(b"0.9.2"),
        _ => {
            let (layout, quantity) = value(meter, Measurand::from_obis(obis)?)?;
            Some(builder(meter).quantity(&short(obis), quantity, layout).ok()?.finish())
        }
    }
}

/// The ends of a range, both included; what is left out is open.
fn range(meter: &VirtualMeter, argument: &str) -> Option<(UtcMillis, UtcMillis)> {
    let clock = meter_clock(meter.clock().zone());
    let at = |text: &str, open: UtcMillis| match text {
        "" => Some(open),
        text => match clock.resolve(text.as_bytes(), meter.shown())? {
            Stamp::At(resolved) => Some(resolved.instant),
            Stamp::Never => None,
        },
    };
    let (from, to) = argument.split_once(';').unwrap_or((argument, ""));
    Some((at(from, UtcMillis::MIN)?, at(to, UtcMillis::MAX)?))
}

/// How a column is displayed.
fn layout(column: Column) -> Layout {
    match column {
        Column::ReactiveRegister => REACTIVE,
        Column::AveragePower => Layout::POWER,
        Column::AverageVoltage => Layout::VOLTAGE,
        _ => Layout::ENERGY,
    }
}

/// Begins anew with a header wherever the rows do not follow each other, or their status changes.
fn load_profile(meter: &VirtualMeter, (from, to): (UtcMillis, UtcMillis)) -> Option<Vec<u8>> {
    let (spec, ring): (&ProfileSpec, &ProfileRing) =
        meter.profiles().find(|(spec, _)| spec.obis == ProfileSpec::LOAD_1)?;
    let codes: Vec<String> = spec.columns.iter().map(|column| short(column.obis())).collect();
    let channels: Vec<(&str, Layout)> =
        codes.iter().zip(&spec.columns).map(|(code, column)| (code.as_str(), layout(*column))).collect();
    let period_ms = i64::from(spec.period.seconds()) * 1000;
    let period_minutes = spec.period.seconds() / 60;
    let entries: Vec<Entry<'_>> = ring.between(from, to).collect();
    if entries.is_empty() {
        return Some(b"P.01()".to_vec());
    }
    let follows =
        |one: &Entry<'_>, next: &Entry<'_>| next.label.since(one.label) == period_ms && next.status == one.status;
    let mut lines = builder(meter);
    for rows in entries.chunk_by(follows) {
        let header = ProfileHeader {
            address: "P.01",
            first: rows[0].label,
            status: rows[0].status,
            period_minutes,
            channels: &channels,
        };
        lines = lines.profile(&header, &rows.iter().map(|row| quantities(spec, row)).collect::<Vec<_>>()).ok()?;
    }
    Some(lines.finish())
}

fn quantities(spec: &ProfileSpec, row: &Entry<'_>) -> Vec<Option<Quantity>> {
    spec.columns.iter().zip(row.values).map(|(column, value)| Some(column.quantity(*value))).collect()
}

fn log_book(meter: &VirtualMeter, (from, to): (UtcMillis, UtcMillis)) -> Vec<u8> {
    let clock: MeterClock = meter_clock(meter.clock().zone());
    let mut lines = builder(meter);
    for entry in meter.event_log().entries().filter(|entry| (from..=to).contains(&entry.label)) {
        lines = lines.groups("P.98", &[&clock.stamp(entry.label, FORM), &format!("{:08X}", entry.code as u8), "", "0"]);
    }
    let all = lines.finish();
    if all.is_empty() { b"P.98()".to_vec() } else { all }
}
