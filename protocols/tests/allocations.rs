//! What is borrowed allocates nothing for each value that it gives: counted, on this thread.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail the test")]

use std::hint::black_box;

use allocation_counter::measure;
use protocols::cosem::profile_generic::CaptureObject;
use protocols::cosem::profile_generic::reader::{ProfileReader, ProfileRules};
use protocols::dlms::data::Data;
use protocols::dlms::notification::{NotificationBody, decode_data_notification, encode_data_notification};
use protocols::dlms::value::DataValue;
use protocols::hdlc::frame::{Scan as HdlcScan, scan as scan_hdlc};
use protocols::hdlc::{ClientAddress, HdlcAddress, push_frames};
use protocols::mbus::{
    Body as TelegramBody, Builder as MbusBuilder, Datum, Item, Meaning, Place, Records, SecondaryAddress, Telegram,
};
use protocols::metering::{ObisCode, Quantity, Unit};
use protocols::p1::{Builder as P1Builder, Layout, LocalTime, Scan as P1Scan, scan as scan_p1};
use protocols::sml::{Body, Builder as SmlBuilder, Messages, Quirks, Scan as SmlScan, scan as scan_sml};

const ROWS: u16 = 1_000;
const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
const QUANTITY: Quantity = Quantity::new(123_456, 0, Unit::WATT_HOUR);

/// How many values `work` has given, and how often it has allocated.
fn count(work: impl FnOnce() -> usize) -> (usize, u64) {
    let mut values = 0;
    let allocations = measure(|| values = work()).count_total;
    (values, allocations)
}

/// Quarter hours of clock, status and a register.
fn profile() -> Vec<u8> {
    let mut octets = vec![0x01, 0x82];
    octets.extend(ROWS.to_be_bytes());
    for row in 0..ROWS {
        let (day, quarter) = (row / 96, row % 96);
        octets.extend([0x02, 0x03, 0x09, 0x0c, 0x07, 0xea, 11, 1 + day as u8, 0xff]);
        octets.extend([(quarter / 4) as u8, (quarter % 4 * 15) as u8, 0, 0, 0xff, 0xc4, 0]);
        octets.extend([0x11, 0x00, 0x06]);
        octets.extend((1_000_000 + u32::from(row) * 17).to_be_bytes());
    }
    octets
}

fn profile_rows() -> (usize, u64) {
    let status = CaptureObject::new(1, ObisCode::new(0, 0, 96, 10, 1, 255), 2);
    let columns = [CaptureObject::CLOCK, status, CaptureObject::new(3, ENERGY, 2)];
    let buffer = profile();
    let mut reader = ProfileReader::new(&columns, ProfileRules::new(900), &buffer).unwrap();
    count(|| {
        let mut rows = 0;
        while let Some(row) = reader.next_row() {
            rows += row.unwrap().cells().len() / columns.len();
        }
        rows
    })
}

fn values_of(data: &Data<'_>) -> usize {
    match data.elements() {
        Some(elements) => elements.iter().map(|element| values_of(&element)).sum(),
        None => usize::from(black_box(data).tag() > 0),
    }
}

fn push_values() -> (usize, u64) {
    let object = DataValue::Structure(vec![
        DataValue::OctetString(ENERGY.0.to_vec()),
        DataValue::DoubleLongUnsigned(123_456),
        DataValue::Structure(vec![DataValue::Integer(0), DataValue::Enum(30)]),
    ]);
    let mut push = Vec::new();
    encode_data_notification(1, None, &DataValue::Structure(vec![object; 20]), &mut push);
    count(|| match decode_data_notification(&push).unwrap().body {
        NotificationBody::Data(body) => values_of(&body),
        NotificationBody::Described(_) => 0,
    })
}

fn hdlc_frames() -> (usize, u64) {
    let server = HdlcAddress::two(1, 17).unwrap();
    let octets = push_frames(ClientAddress::PUBLIC.into(), server, &profile(), 128);
    count(|| {
        let (mut rest, mut frames) = (&octets[..], 0);
        while let HdlcScan::Frame { frame, used } = scan_hdlc(rest) {
            frames += usize::from(!frame.information.is_empty());
            rest = &rest[used..];
        }
        frames
    })
}

fn sml_entries() -> (usize, u64) {
    let file = (0..20).fold(SmlBuilder::new(b"\x0a\x01SIM\0\0\0\0\x2a"), |file, _| file.quantity(ENERGY, QUANTITY));
    let octets = file.finish();
    count(|| {
        let SmlScan::File { file, .. } = scan_sml(&octets) else { return 0 };
        let content = file.content();
        let lists = Messages::new(&content, Quirks::default()).filter_map(|message| match message.unwrap().body {
            Body::GetList(list) => Some(list),
            _ => None,
        });
        lists.flat_map(|list| list.entries()).map(|entry| usize::from(entry.unwrap().unit.is_some())).sum()
    })
}

fn mbus_records() -> (usize, u64) {
    let address = SecondaryAddress::of_number(12_345_678, 0x4d0d, 1, 0x04);
    let mut builder = MbusBuilder::new(address);
    for information in [&[0x06][..], &[0x14], &[0x2b], &[0x5a], &[0xfd, 0x48], &[0x83, 0x3c]] {
        builder = builder.record(Place::PRESENT, information, &Datum::Bcd(4_711, 4)).unwrap();
        builder = builder.record(Place::PRESENT, information, &Datum::Integer(-4_711, 4)).unwrap();
    }
    let telegram = Telegram::decode(&builder.finish()[0], None, None).unwrap();
    let TelegramBody::Records(octets) = &telegram.body else { panic!("{telegram:?}") };
    count(|| {
        let quantity = |item: Item<'_>| {
            let Item::Record(record) = item else { return None };
            let Meaning { scaler, factor, unit, .. } = Meaning::of(&record.value_information);
            record.value().unwrap().quantity(scaler, factor, unit)
        };
        Records::new(octets).filter_map(|item| quantity(item.unwrap())).flatten().count()
    })
}

fn p1_lines() -> (usize, u64) {
    let mut telegram = P1Builder::new("ISK5\\2M550T-1012", LocalTime::CET);
    for code in ["1-0:1.8.1", "1-0:1.8.2", "1-0:2.8.1", "1-0:2.8.2"] {
        telegram = telegram.quantity(code, QUANTITY, Layout::ENERGY).unwrap();
    }
    let octets = telegram.finish();
    count(|| {
        let P1Scan::Telegram { telegram, .. } = scan_p1(&octets) else { return 0 };
        telegram.lines().map(|line| line.unwrap().groups().count()).sum()
    })
}

// Negative controls, each for its path: `Vec::new()` for the labels in `ProfileReader::new`, `to_vec` on the values in
// `tagged_elements`, on the information in `frame::read`, `Cow::Owned` in `SmlFile::content`, `concat` for the value information in
// `Meaning::of_standard`, `to_vec` on the rest in `Lines::next`.
#[test]
fn borrowed_values_allocate_nothing() {
    let paths = [
        ("rows of a profile", profile_rows(), usize::from(ROWS)),
        ("values of a push", push_values(), 80),
        ("frames of HDLC", hdlc_frames(), 180),
        ("entries of SML", sml_entries(), 20),
        ("records of M-Bus", mbus_records(), 12),
        ("groups of P1", p1_lines(), 4),
    ];
    for (what, (values, allocations), expected) in paths {
        println!("{values} {what}, {allocations} allocations");
        assert_eq!((values, allocations), (expected, 0), "{what}");
    }
}
