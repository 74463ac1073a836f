//! Records of M-Bus beside `m-bus-parser` (its application layer) alone, whose tables are behind ours: what do exact values and
//! units of DLMS cost?

use std::hint::black_box;

use anyhow::{Context as _, Result, anyhow, bail};
use m_bus_application_layer::data_information::DataType;
use m_bus_application_layer::parse_data_records;
use protocols::mbus::{
    Body, Builder, Class, Datum, Frame, Function, Item, Meaning, Place, RecordValue, Records, Scanner,
    SecondaryAddress, Telegram, maker_code,
};
use tests::measure::note;

use crate::beside::{Limit, Work};
use crate::captured::{self, logged};

const TIMES: usize = 2_000;

/// Records, those that are numbers, and what numbers and powers of ten add up to.
type Read = (usize, usize, i64);

/// Records of a heat meter: totals, momentary values, those of its due date, a maximum.
fn built() -> Result<Vec<u8>> {
    let maker = maker_code("SIM").context("three letters")?;
    let due = Place { storage: 1, ..Place::PRESENT };
    let tariff = Place { tariff: 2, ..Place::PRESENT };
    let maximum = Place { function: Function::Maximum, ..Place::PRESENT };
    let mut builder = Builder::new(SecondaryAddress::of_number(12_345_678, maker, 1, 0x04));
    let parts: [(Place, &[u8], Datum); 15] = [
        (Place::PRESENT, &[0x06], Datum::Bcd(123_456, 4)),
        (Place::PRESENT, &[0x14], Datum::Bcd(7_891_234, 4)),
        (Place::PRESENT, &[0x3b], Datum::Integer(1_204, 2)),
        (Place::PRESENT, &[0x2b], Datum::Integer(8_120, 4)),
        (Place::PRESENT, &[0x5a], Datum::Integer(712, 2)),
        (Place::PRESENT, &[0x5e], Datum::Integer(431, 2)),
        (Place::PRESENT, &[0x61], Datum::Integer(2_810, 2)),
        (Place::PRESENT, &[0x26], Datum::Integer(34_512, 3)),
        (tariff, &[0x06], Datum::Integer(4_711, 4)),
        (due, &[0x06], Datum::Bcd(100_203, 4)),
        (due, &[0x14], Datum::Bcd(6_100_000, 4)),
        (maximum, &[0x2b], Datum::Integer(15_300, 4)),
        (Place::PRESENT, &[0xfd, 0x48], Datum::Integer(2_301, 2)),
        (Place::PRESENT, &[0xfd, 0x59], Datum::Integer(-1_750, 4)),
        (Place::PRESENT, &[0x83, 0x3c], Datum::Integer(310, 4)),
    ];
    for (place, information, datum) in parts {
        builder = builder.record(place, information, &datum)?;
    }
    let telegrams = builder.finish();
    records(telegrams.first().context("a telegram")?).context("records")
}

fn records(telegram: &[u8]) -> Option<Vec<u8>> {
    match Telegram::decode(telegram, None, None).ok()?.body {
        Body::Records(octets) => Some(octets),
        _ => None,
    }
}

/// Those of the recorded telegrams that both read alike, and how many there are of all: theirs makes numbers of what marks itself
/// as no number, and has some other units in mind.
fn recorded() -> Result<(Vec<Vec<u8>>, usize)> {
    let mut telegrams = Vec::new();
    for log in captured::files("mbus", "hex")? {
        let mut scanner = Scanner::default();
        scanner.feed(&logged(&log));
        let Some(Ok(Frame::Long { ci, data, .. })) = scanner.next_frame() else { continue };
        telegrams.extend(records(&[&[ci], data].concat()));
    }
    let all = telegrams.len();
    telegrams.retain(|octets| ours(octets).ok().zip(theirs(octets).ok()).is_some_and(|(ours, theirs)| ours == theirs));
    Ok((telegrams, all))
}

fn ours(octets: &[u8]) -> Result<Read> {
    let mut read = (0, 0, 0);
    for item in Records::new(octets) {
        let Item::Record(record) = item? else { continue };
        let meaning = Meaning::of(&record.value_information);
        let value = if let Class::Time(_) = meaning.class { record.time()? } else { record.value()? };
        black_box((record.place, meaning.class, meaning.unit));
        read.0 += 1;
        match value {
            RecordValue::Integer(number) => add(&mut read, number, meaning.scaler),
            RecordValue::Real(number) => add(&mut read, number as i64, meaning.scaler),
            RecordValue::Nothing | RecordValue::Text(_) | RecordValue::Time(_) | RecordValue::Octets(_) => {
                black_box(value);
            }
        }
    }
    Ok(read)
}

fn theirs(octets: &[u8]) -> Result<Read> {
    let mut read = (0, 0, 0);
    for record in parse_data_records(octets) {
        let record = record.map_err(|error| anyhow!("{error:?}"))?;
        // What is the maker's own has no value information.
        let Some(information) = record.value_information() else { continue };
        black_box(record.data_information());
        // Which quantity and unit it is: they say it by lists that are made when somebody looks.
        black_box((information.labels().next(), information.units().count()));
        read.0 += 1;
        match record.value() {
            Some(DataType::Number(number)) => {
                let scaler = i8::try_from(information.decimal_scale_exponent)?;
                add(&mut read, *number as i64, scaler);
            }
            Some(DataType::LossyNumber(_)) => bail!("a number that is not exact"),
            other => {
                black_box(other);
            }
        }
    }
    Ok(read)
}

fn add(read: &mut Read, number: i64, scaler: i8) {
    *read = (read.0, read.1 + 1, read.2.wrapping_add(number).wrapping_add(scaler.into()));
}

fn each(telegrams: &[Vec<u8>], read: impl Fn(&[u8]) -> Result<Read>) -> Result<Read> {
    telegrams.iter().try_fold((0, 0, 0_i64), |(records, numbers, sum), octets| {
        let read = read(black_box(octets))?;
        Ok((records + read.0, numbers + read.1, sum.wrapping_add(read.2)))
    })
}

pub(crate) fn run() -> Result<()> {
    let (recorded, all) = recorded()?;
    let (telegrams, origin) = if recorded.is_empty() {
        (vec![built()?], "made by our encoder".to_owned())
    } else {
        let alike = recorded.len();
        (recorded, format!("recorded, {all} in all, of which {alike} are read alike"))
    };
    let (records, numbers, _) = each(&telegrams, ours)?;
    Work {
        name: "M-Bus, records to values, units and powers of ten",
        peer: "m-bus-parser",
        piece: "record",
        pieces: records,
        times: TIMES,
        limit: Limit::Time(1.25),
    }
    .measure(|| each(&telegrams, ours), || each(&telegrams, theirs))?;
    Ok(note(&format!(
        "M-Bus: {records} records, {numbers} of them numbers, of telegrams {origin}. Ours takes the value information from \
         m-bus-parser's tables, tells registers from momentary values and keeps integers; theirs alone gives floats.",
    ))?)
}
