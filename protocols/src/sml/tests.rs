//! The protocol as a whole: captures of real meters, another reader, and our own writer.

use proptest::prelude::*;
use sml_rs::parser::common as theirs;
use sml_rs::parser::complete;

use super::*;
use crate::bytes::Reader;
use crate::metering::{Kind, ObisCode, Quality, Quantity, StampedBy, TelegramReading, Unit, UtcMillis};

fn now() -> UtcMillis {
    "2026-11-23T02:35:15Z".parse().unwrap()
}

/// What a capture holds, read off its octets by another program of a few lines.
struct Expected {
    capture: &'static str,
    /// Whole files with a right CRC, and whole ones with a wrong one.
    files: (usize, usize),
    meter: &'static str,
    maker: Option<&'static str>,
    property_number: Option<&'static str>,
    /// Seconds index of the first file and of the last.
    sec_index: Option<(u32, u32)>,
    first: &'static [&'static str],
    last: &'static [&'static str],
}

const CAPTURES: [Expected; 18] = [
    Expected {
        capture: "DZG_DVS-7420.2V.G2_mtr0.bin",
        files: (1, 0),
        meter: "1DZG0060694612",
        maker: Some("DZG"),
        property_number: None,
        sec_index: Some((9_424_052, 9_424_052)),
        first: &["1-0:1.8.0 607447.1 Wh", "1-0:2.8.0 1266728.6 Wh", "1-0:16.7.0 215.99 W"],
        last: &["1-0:1.8.0 607447.1 Wh", "1-0:2.8.0 1266728.6 Wh", "1-0:16.7.0 215.99 W"],
    },
    // Cut again and again: no file of it is whole.
    Expected {
        capture: "DZG_DVS-7420.2V.G2_mtr1_error.bin",
        files: (0, 0),
        meter: "",
        maker: None,
        property_number: None,
        sec_index: None,
        first: &[],
        last: &[],
    },
    Expected {
        capture: "DZG_DVS-7420.2V.G2_mtr2_neg.bin",
        files: (3, 0),
        meter: "1DZG0060694611",
        maker: Some("DZG"),
        property_number: None,
        sec_index: Some((9_513_016, 9_513_018)),
        first: &["1-0:1.8.0 13232.9 Wh", "1-0:2.8.0 1500321.3 Wh", "1-0:16.7.0 -105.50 W"],
        last: &["1-0:1.8.0 13232.9 Wh", "1-0:2.8.0 1500321.4 Wh", "1-0:16.7.0 -104.38 W"],
    },
    Expected {
        capture: "EMH-ED300L_consumption.bin",
        files: (1, 0),
        meter: "06454D4801027156CD45",
        maker: Some("EMH"),
        property_number: None,
        sec_index: Some((258_307_811, 258_307_811)),
        first: &["1-0:1.8.0 17243368.3 Wh", "1-0:1.8.1 17243368.3 Wh", "1-0:1.8.2 0.0 Wh", "1-0:15.7.0 137.1 W"],
        last: &["1-0:1.8.0 17243368.3 Wh", "1-0:1.8.1 17243368.3 Wh", "1-0:1.8.2 0.0 Wh", "1-0:15.7.0 137.1 W"],
    },
    Expected {
        capture: "EMH_eHZ-GW8E2A500AK2.bin",
        files: (16, 0),
        meter: "EMH:02280816",
        maker: Some("EMH"),
        property_number: Some("0002280816"),
        sec_index: Some((72_214_509, 72_214_570)),
        first: &["1-0:1.8.1 14798112.9 Wh", "1-0:1.8.2 2012.4 Wh", "1-0:1.7.0 13.8 W"],
        last: &["1-0:1.8.1 14798113.2 Wh", "1-0:1.8.2 2012.4 Wh", "1-0:1.7.0 14.4 W"],
    },
    Expected {
        capture: "EMH_eHZ-HW8E2A5L0EK2P_1.bin",
        files: (12, 0),
        meter: "06454D4801001D4615CA",
        maker: Some("EMH"),
        property_number: None,
        sec_index: Some((111_082_115, 111_082_131)),
        first: &["1-0:1.8.0 15141809.0 Wh", "1-0:1.8.1 15141809.0 Wh", "1-0:1.8.2 0.0 Wh", "1-0:15.7.0 1213.3 W"],
        last: &["1-0:1.8.0 15141814.5 Wh", "1-0:1.8.1 15141814.5 Wh", "1-0:1.8.2 0.0 Wh", "1-0:15.7.0 1217.5 W"],
    },
    Expected {
        capture: "EMH_eHZ-HW8E2AWL0EK2P.bin",
        files: (13, 0),
        meter: "01A815986480020102",
        maker: Some("EMH"),
        property_number: None,
        sec_index: Some((118_137_421, 118_137_446)),
        first: &["1-0:1.8.0 5378499.0 Wh", "1-0:1.8.1 5378499.0 Wh", "1-0:1.8.2 0.0 Wh", "1-0:15.7.0 191.9 W"],
        last: &["1-0:1.8.0 5378500.2 Wh", "1-0:1.8.1 5378500.2 Wh", "1-0:1.8.2 0.0 Wh", "1-0:15.7.0 191.7 W"],
    },
    Expected {
        capture: "EMH_eHZ-IW8E2AWL0EK2P.bin",
        files: (12, 0),
        meter: "01A815133577030102",
        maker: Some("EMH"),
        property_number: None,
        sec_index: Some((202_264_802, 202_264_817)),
        first: &["1-0:1.8.0 5598064.7 Wh", "1-0:1.8.1 5598064.7 Wh", "1-0:1.8.2 0.0 Wh", "1-0:16.7.0 0.0 W"],
        last: &["1-0:1.8.0 5598064.7 Wh", "1-0:1.8.1 5598064.7 Wh", "1-0:1.8.2 0.0 Wh", "1-0:16.7.0 0.0 W"],
    },
    Expected {
        capture: "EMH_eHZ361L5R_1.bin",
        files: (1, 0),
        meter: "HAGER:1001185",
        maker: Some("HAGER"),
        property_number: Some("0000116917"),
        sec_index: None,
        first: &["1-0:2.8.1 114427402.0 Wh", "1-0:1.7.1 -769.7170 W"],
        last: &["1-0:2.8.1 114427402.0 Wh", "1-0:1.7.1 -769.7170 W"],
    },
    Expected {
        capture: "EasyMeter_Q3A_A1064V1009.bin",
        files: (4, 3),
        meter: "1ESY1162232997",
        maker: Some("ESY"),
        property_number: Some("1ESY1162232997"),
        sec_index: Some((16_310_127, 16_310_132)),
        first: &[
            "1-0:1.8.0 2941646.1614 Wh",
            "1-0:2.8.0 110073.1603 Wh",
            "1-0:16.7.0 810.26 W",
            "1-0:36.7.0 505.23 W",
            "1-0:56.7.0 63.19 W",
            "1-0:76.7.0 241.83 W",
            "1-0:32.7.0 232.5 V",
            "1-0:52.7.0 230.7 V",
            "1-0:72.7.0 232.5 V",
        ],
        last: &[
            "1-0:1.8.0 2941647.1626 Wh",
            "1-0:2.8.0 110073.1603 Wh",
            "1-0:16.7.0 687.86 W",
            "1-0:36.7.0 458.29 W",
            "1-0:56.7.0 32.40 W",
            "1-0:76.7.0 197.16 W",
            "1-0:32.7.0 232.2 V",
            "1-0:52.7.0 230.5 V",
            "1-0:72.7.0 232.0 V",
        ],
    },
    Expected {
        capture: "HOLLEY_DTZ541-BDBA_without_PIN.bin",
        files: (1, 0),
        meter: "1HLY0200879590",
        maker: Some("HLY"),
        property_number: None,
        sec_index: Some((23_876_784, 23_876_784)),
        first: &["1-0:1.8.0 2324e3 Wh"],
        last: &["1-0:1.8.0 2324e3 Wh"],
    },
    Expected {
        capture: "ISKRA_MT175_D1A52-V22-K0t.bin",
        files: (8, 0),
        meter: "0649534B010E1F66299A",
        maker: Some("ISK"),
        property_number: None,
        sec_index: Some((99_258_248, 99_258_256)),
        first: &[
            "1-0:1.8.0 10732309.1 Wh",
            "1-0:1.8.1 10732309.1 Wh",
            "1-0:1.8.2 0.0 Wh",
            "1-0:2.8.0 28275324.5 Wh",
            "1-0:2.8.1 28275324.5 Wh",
            "1-0:2.8.2 0.0 Wh",
            "1-0:16.7.0 -4308 W",
            "1-0:36.7.0 -1392 W",
            "1-0:56.7.0 -1432 W",
            "1-0:76.7.0 -1482 W",
        ],
        last: &[
            "1-0:1.8.0 10732309.1 Wh",
            "1-0:1.8.1 10732309.1 Wh",
            "1-0:1.8.2 0.0 Wh",
            "1-0:2.8.0 28275333.2 Wh",
            "1-0:2.8.1 28275333.2 Wh",
            "1-0:2.8.2 0.0 Wh",
            "1-0:16.7.0 -4297 W",
            "1-0:36.7.0 -1393 W",
            "1-0:56.7.0 -1429 W",
            "1-0:76.7.0 -1476 W",
        ],
    },
    Expected {
        capture: "ISKRA_MT631-D1A52-K0z-H01_with_PIN.bin",
        files: (5, 0),
        meter: "1ISK0075126084",
        maker: Some("ISK"),
        property_number: None,
        sec_index: Some((53_782_327, 53_782_331)),
        first: &["1-0:1.8.0 2043104.7 Wh", "1-0:2.8.0 0.0 Wh", "1-0:16.7.0 193 W"],
        last: &["1-0:1.8.0 2043104.9 Wh", "1-0:2.8.0 0.0 Wh", "1-0:16.7.0 194 W"],
    },
    Expected {
        capture: "ISKRA_MT631-D2A51-V22-K0z_with_PIN.bin",
        files: (4, 0),
        meter: "1ISK0072657247",
        maker: Some("ISK"),
        property_number: None,
        sec_index: Some((107_341_989, 107_341_992)),
        first: &["1-0:1.8.0 16824856.5 Wh", "1-0:1.8.1 4592.3 Wh", "1-0:1.8.2 16820264.2 Wh", "1-0:16.7.0 0 W"],
        last: &["1-0:1.8.0 16824856.5 Wh", "1-0:1.8.1 4592.3 Wh", "1-0:1.8.2 16820264.2 Wh", "1-0:16.7.0 0 W"],
    },
    Expected {
        capture: "ISKRA_MT691_eHZ-MS2020.bin",
        files: (18, 0),
        meter: "1ISK0070409925",
        maker: Some("ISK"),
        property_number: None,
        sec_index: Some((6_825_875, 6_825_892)),
        first: &["1-0:1.8.0 198927.3 Wh", "1-0:16.7.0 26 W"],
        last: &["1-0:1.8.0 198927.5 Wh", "1-0:16.7.0 28 W"],
    },
    Expected {
        capture: "ITRON_OpenWay-3.HZ_with_PIN.bin",
        files: (5, 0),
        meter: "1ITR0055046208",
        maker: Some("ITR"),
        property_number: None,
        sec_index: Some((141_274_434, 141_274_438)),
        first: &["1-0:1.8.0 25892776.1 Wh", "1-0:16.7.0 542 W"],
        last: &["1-0:1.8.0 25892776.7 Wh", "1-0:16.7.0 542 W"],
    },
    Expected {
        capture: "dzg_dwsb20_2th_2byte.bin",
        files: (15, 0),
        meter: "1DZG0040051478",
        maker: Some("DZG"),
        property_number: None,
        sec_index: Some((5_054_376, 5_054_390)),
        first: &["1-0:1.8.0 142439.0 Wh", "1-0:2.8.0 2017197.8 Wh", "1-0:16.7.0 -310.64 W"],
        last: &["1-0:1.8.0 142439.0 Wh", "1-0:2.8.0 2017199.0 Wh", "1-0:16.7.0 -306.88 W"],
    },
    Expected {
        capture: "eBZ_DD3_DD32R06DTA-SMZ1.bin",
        files: (4, 0),
        meter: "1EBZ0100191547",
        maker: Some("EBZ"),
        property_number: None,
        sec_index: Some((104_569_093, 104_569_096)),
        first: &["1-0:1.8.0 13024e3 Wh", "1-0:1.8.1 13023e3 Wh", "1-0:1.8.2 1e3 Wh", "1-0:2.8.0 1e3 Wh"],
        last: &["1-0:1.8.0 13024e3 Wh", "1-0:1.8.1 13023e3 Wh", "1-0:1.8.2 1e3 Wh", "1-0:2.8.0 1e3 Wh"],
    },
];

fn capture(name: &str) -> Option<Vec<u8>> {
    crate::captures::capture(&format!("sml/{name}"))
}

/// Files of a stream that comes in pieces of this length: their octets and verdicts.
fn files(stream: &[u8], piece_len: usize) -> Vec<(Vec<u8>, CrcVerdict)> {
    let (mut scanner, mut found) = (Scanner::default(), Vec::new());
    for piece in stream.chunks(piece_len) {
        scanner.feed(piece);
        while let Some(file) = scanner.next_file() {
            found.extend(file.map(|file| (file.octets().to_vec(), file.crc())));
        }
    }
    found
}

fn values(meter: &MeterReadout) -> Vec<String> {
    meter.readings.iter().map(|reading| format!("{} {}", reading.code, reading.quantity)).collect()
}

// Negative control: any digit of the table.
#[test]
fn captures_read_as_the_eye_does() {
    for expected in &CAPTURES {
        let Some(stream) = capture(expected.capture) else { return };
        let found = files(&stream, 64);
        assert_eq!(found, files(&stream, 1), "{}", expected.capture);
        assert_eq!(found, files(&stream, stream.len()), "{}", expected.capture);
        let good = found.iter().filter(|(_, crc)| *crc == CrcVerdict::Valid).count();
        assert_eq!((good, found.len() - good), expected.files, "{}", expected.capture);
        let decode = |octets: &[u8]| Readout::decode(&SmlFile::parse(octets).unwrap(), &Settings::default(), now());
        let readouts: Vec<_> = found.iter().filter_map(|(octets, _)| decode(octets).ok()).collect();
        assert_eq!(readouts.len(), good, "{}", expected.capture);
        for readout in &readouts {
            let [meter] = &readout.meters[..] else { panic!("{readout:?}") };
            let said = (meter.meter.as_str(), meter.maker.as_deref(), meter.property_number.as_deref());
            assert_eq!(said, (expected.meter, expected.maker, expected.property_number), "{}", expected.capture);
            assert_eq!((&readout.problems[..], readout.skipped), (&[][..], Skipped::default()), "{}", expected.capture);
            let stamped = (meter.captured_at, meter.stamped_by);
            assert_eq!(stamped, (now(), StampedBy::Gateway), "no meter among these knows the time");
            assert!(meter.readings.iter().all(|reading| reading.quality == Quality::GOOD));
            assert!(meter.readings.iter().all(is_kind_of_its_code), "{meter:?}");
        }
        let ends =
            |readouts: &[Readout]| Some((readouts.first()?.meters[0].clone(), readouts.last()?.meters[0].clone()));
        let Some((first, last)) = ends(&readouts) else { continue };
        assert_eq!((values(&first), values(&last)), (strings(expected.first), strings(expected.last)));
        assert_eq!(first.sec_index.zip(last.sec_index), expected.sec_index, "{}", expected.capture);
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn is_kind_of_its_code(reading: &TelegramReading) -> bool {
    let is_register = reading.code.to_string().contains(".8.");
    reading.kind == if is_register { Kind::Register } else { Kind::Instant }
}

#[test]
fn what_changes_in_a_capture_is_told_once() {
    let Some(stream) = capture("ISKRA_MT691_eHZ-MS2020.bin") else { return };
    let mut told = Vec::new();
    for (octets, _) in files(&stream, 100) {
        let readout = Readout::decode(&SmlFile::parse(&octets).unwrap(), &Settings::default(), now()).unwrap();
        told.extend(readout.events.into_iter().map(|event| (event.log, event.raw, event.text)));
    }
    assert_eq!(told.len(), 18);
    told.dedup();
    let word = ("sml:status".to_owned(), vec![0x00, 0x1c, 0x80, 0x04], "phases in another order".to_owned());
    assert_eq!(told, [word]);
}

// Negative control: use the whole of a file with a wrong CRC in `file`.
#[test]
fn a_capture_with_octets_lost_gives_all_files_that_are_whole() {
    let Some(stream) = capture("ISKRA_MT175_D1A52-V22-K0t.bin") else { return };
    let whole = files(&stream, 4096);
    assert_eq!(whole.len(), 8);
    for at in (0..460 * 8).step_by(37) {
        let mut damaged = stream.clone();
        damaged.remove(at);
        let good: Vec<_> = files(&damaged, 50).into_iter().filter(|(_, crc)| *crc == CrcVerdict::Valid).collect();
        let mut expected = whole.clone();
        expected.remove(at / 460);
        assert_eq!(good, expected, "octet {at}");
    }
}

/// From a telegram of a Holley DTZ541 that its owner published in 2024: a message with a CRC-16/KERMIT.
#[test]
fn a_message_of_a_holley_has_its_crc() {
    let octets = b"v\x04\x00\x00\x01b\x00b\x00re\x00\x00\x01\x01v\x01\x01\x07\x00\x00\nX;\x80\x0b\n\x01HLY\x02\x00\x01Y\xbb\x01\x01cV]\x00";
    let message = Messages::new(octets, Quirks::default()).next().unwrap().unwrap();
    assert_eq!(message.crc, CrcVerdict::Kermit);
    let Body::Open(open) = message.body else { panic!("{message:?}") };
    assert_eq!(meter_id(open.server_id, None).unwrap().as_str(), "1HLY0200088507");
}

fn time_agrees(ours: Option<SmlTime>, theirs: Option<&theirs::Time>) {
    match (ours, theirs) {
        (None, None) => {}
        (Some(SmlTime::SecIndex(ours)), Some(theirs::Time::SecIndex(theirs))) => assert_eq!(ours, *theirs),
        (ours, theirs) => panic!("{ours:?} here, {theirs:?} there"),
    }
}

fn value_agrees(ours: Value<'_>, theirs: &theirs::Value<'_>) {
    let (integer, unsigned) = match *theirs {
        theirs::Value::Bool(value) => return assert_eq!(ours, Value::Boolean(value)),
        theirs::Value::Bytes(octets) => return assert_eq!(ours, Value::Octets(octets)),
        theirs::Value::List(theirs::ListType::Time(ref time)) => {
            let Value::Time(ours) = ours else { panic!("{ours:?}") };
            return time_agrees(Some(ours), Some(time));
        }
        theirs::Value::I8(value) => (Some(i64::from(value)), None),
        theirs::Value::I16(value) => (Some(i64::from(value)), None),
        theirs::Value::I32(value) => (Some(i64::from(value)), None),
        theirs::Value::I64(value) => (Some(value), None),
        theirs::Value::U8(value) => (None, Some(u64::from(value))),
        theirs::Value::U16(value) => (None, Some(u64::from(value))),
        theirs::Value::U32(value) => (None, Some(u64::from(value))),
        theirs::Value::U64(value) => (None, Some(value)),
    };
    match ours {
        Value::Integer { value, .. } => assert_eq!((Some(value), None), (integer, unsigned)),
        Value::Unsigned { value, .. } => assert_eq!((None, Some(value)), (integer, unsigned)),
        ours => panic!("{ours:?} here, {theirs:?} there"),
    }
}

fn entry_agrees(ours: &Entry<'_>, theirs: &theirs::ListEntry<'_>) {
    let status = theirs.status.as_ref().map(|status| match *status {
        theirs::Status::Status8(word) => word.into(),
        theirs::Status::Status16(word) => word.into(),
        theirs::Status::Status32(word) => word.into(),
        theirs::Status::Status64(word) => word,
    });
    assert_eq!((&ours.code.0[..], ours.status), (theirs.obj_name, status.map(StatusWord)));
    assert_eq!((ours.unit, ours.scaler), (theirs.unit.filter(|&unit| unit != 0).map(Unit), theirs.scaler));
    assert_eq!(ours.signature, theirs.value_signature);
    time_agrees(ours.val_time, theirs.val_time.as_ref());
    value_agrees(ours.value, &theirs.value);
}

/// Compares with sml-rs, transport and messages; how many entries both found.
fn agrees_with_sml_rs(octets: &[u8]) -> usize {
    let contents: Vec<_> = sml_rs::transport::decode(octets).into_iter().filter_map(Result::ok).collect();
    let file = SmlFile::parse(octets).unwrap();
    assert_eq!(contents, [file.content().into_owned()]);
    let file = complete::parse(&contents[0]).unwrap();
    let ours: Vec<_> = Messages::new(&contents[0], Quirks::default()).collect::<Result<_, _>>().unwrap();
    assert_eq!(ours.len(), file.messages.len());
    let mut compared = 0;
    for (ours, theirs) in ours.iter().zip(&file.messages) {
        let head = (ours.transaction_id, ours.group_no, ours.abort_on_error, ours.crc);
        assert_eq!(head, (theirs.transaction_id, theirs.group_no, theirs.abort_on_error, CrcVerdict::Valid));
        match (ours.body, &theirs.message_body) {
            (Body::Open(ours), complete::MessageBody::OpenResponse(theirs)) => {
                let ids = (ours.codepage, ours.client_id, ours.req_file_id, ours.server_id, ours.sml_version);
                assert_eq!(
                    ids,
                    (theirs.codepage, theirs.client_id, theirs.req_file_id, theirs.server_id, theirs.sml_version)
                );
                time_agrees(ours.ref_time, theirs.ref_time.as_ref());
            }
            (Body::Close(ours), complete::MessageBody::CloseResponse(theirs)) => {
                assert_eq!(ours.global_signature, theirs.global_signature);
            }
            (Body::GetList(ours), complete::MessageBody::GetListResponse(theirs)) => {
                let ids = (ours.client_id, ours.server_id, ours.list_name, ours.list_signature);
                assert_eq!(ids, (theirs.client_id, theirs.server_id, theirs.list_name, theirs.list_signature));
                time_agrees(ours.act_sensor_time, theirs.act_sensor_time.as_ref());
                time_agrees(ours.act_gateway_time, theirs.act_gateway_time.as_ref());
                let entries: Vec<_> = ours.entries().collect::<Result<_, _>>().unwrap();
                assert_eq!(entries.len(), theirs.val_list.len());
                entries.iter().zip(&theirs.val_list).for_each(|(ours, theirs)| entry_agrees(ours, theirs));
                compared += entries.len();
            }
            (ours, theirs) => panic!("{ours:?} here, {theirs:?} there"),
        }
    }
    compared
}

// Negative control: leave out the sign in `integer_of`.
#[test]
fn sml_rs_reads_every_capture_as_we_do() {
    let mut compared = 0;
    for expected in &CAPTURES {
        let Some(stream) = capture(expected.capture) else { return };
        let theirs = sml_rs::transport::decode(&stream).into_iter().flatten().count();
        assert_eq!(theirs, expected.files.0, "{}", expected.capture);
        let good = files(&stream, 4096).into_iter().filter(|(_, crc)| *crc == CrcVerdict::Valid);
        compared += good.map(|(octets, _)| agrees_with_sml_rs(&octets)).sum::<usize>();
    }
    assert_eq!(compared, 790);
}

fn quantity() -> impl Strategy<Value = Quantity> {
    (prop_oneof![any::<i64>(), -70_000..70_000i64], any::<i8>(), 1..=255u8)
        .prop_map(|(mantissa, scaler, unit)| Quantity::new(mantissa, scaler, Unit(unit)))
}

fn octets(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![2 => Just(0x1b), 1 => any::<u8>()], 0..len)
}

fn time() -> impl Strategy<Value = SmlTime> {
    prop_oneof![
        any::<u32>().prop_map(SmlTime::SecIndex),
        any::<u32>().prop_map(SmlTime::Timestamp),
        any::<(u32, i16, i16)>().prop_map(|(timestamp, local_offset_min, season_offset_min)| SmlTime::Local {
            timestamp,
            local_offset_min,
            season_offset_min
        }),
    ]
}

/// Code, status, time, unit, scaler, number, its width, whether it is signed, signature.
type EntryParts = ([u8; 6], Option<u64>, Option<SmlTime>, Option<u8>, Option<i8>, (i64, u8, bool), Option<Vec<u8>>);

fn parts(time: impl Strategy<Value = SmlTime>) -> impl Strategy<Value = EntryParts> {
    (
        any::<[u8; 6]>(),
        any::<Option<u64>>(),
        prop::option::of(time),
        prop::option::of(1..=255u8),
        any::<Option<i8>>(),
        (any::<i64>(), 1..=8u8, any::<bool>()),
        prop::option::of(prop::collection::vec(any::<u8>(), 1..40)),
    )
}

fn entry((code, status, val_time, unit, scaler, (number, width, is_signed), signature): &EntryParts) -> Entry<'_> {
    let shift = 64 - 8 * u32::from(*width);
    let value = if *is_signed {
        Value::Integer { value: number << shift >> shift, width: *width }
    } else {
        Value::Unsigned { value: (*number as u64) << shift >> shift, width: *width }
    };
    Entry {
        status: status.map(StatusWord),
        val_time: *val_time,
        unit: unit.map(Unit),
        scaler: *scaler,
        signature: signature.as_deref(),
        ..Entry::new(ObisCode(*code), value)
    }
}

proptest! {
    #[test]
    fn what_the_builder_writes_is_read_back(
        server_id in octets(20),
        list_name in octets(8),
        sensor_time in time(),
        gateway_time in time(),
        entries in prop::collection::vec(parts(time()), 0..20),
        text in octets(80),
        transaction: u32,
    ) {
        let named = ObisCode::new(1, 0, 96, 13, 0, 255);
        let builder = Builder::new(&server_id)
            .transaction(transaction)
            .list_name(&list_name)
            .sensor_time(sensor_time)
            .gateway_time(gateway_time);
        let builder = entries.iter().fold(builder, |builder, parts| builder.entry(&entry(parts)));
        let bytes = builder.octets(named, &text).finish();
        let file = SmlFile::parse(&bytes).unwrap();
        prop_assert_eq!((file.crc(), file.octets()), (CrcVerdict::Valid, &bytes[..]));
        let content = file.content();
        let messages: Vec<_> = Messages::new(&content, Quirks::NONE).collect::<Result<_, _>>().unwrap();
        prop_assert!(messages.iter().all(|message| message.crc == CrcVerdict::Valid));
        let transactions = (0..3).map(|number| transaction.wrapping_add(number).to_be_bytes().to_vec());
        prop_assert!(messages.iter().map(|message| message.transaction_id.to_vec()).eq(transactions));
        let [Body::Open(open), Body::GetList(list), Body::Close(_)] = [messages[0].body, messages[1].body, messages[2].body]
        else { panic!("{messages:?}") };
        prop_assert_eq!((open.server_id, open.ref_time), (&server_id[..], Some(sensor_time)));
        prop_assert_eq!((list.server_id, list.list_name.unwrap_or_default()), (&server_id[..], &list_name[..]));
        prop_assert_eq!((list.act_sensor_time, list.act_gateway_time), (Some(sensor_time), Some(gateway_time)));
        let found: Vec<_> = list.entries().collect::<Result<_, _>>().unwrap();
        let expected = entries.iter().map(entry).chain([Entry::new(named, Value::Octets(&text))]);
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn readings_are_read_back(
        quantities in prop::collection::vec(quantity(), 1..12),
        seconds in 946_684_800..4_294_967_295i64,
        is_stamped: bool,
    ) {
        let stamped_by = if is_stamped { StampedBy::Meter } else { StampedBy::Gateway };
        let captured_at = if is_stamped { UtcMillis(seconds * 1000) } else { now() };
        let readings: Vec<_> = (0..).zip(&quantities).map(|(e, &quantity)| {
            let code = ObisCode::new(1, 0, 1, 8, e, 255);
            TelegramReading { stamped_by, ..TelegramReading::new(code, Kind::Register, captured_at, quantity) }
        }).collect();
        let builder = readings.iter().try_fold(Builder::new(b"SIM"), Builder::reading).unwrap();
        let bytes = builder.finish();
        let readout = Readout::decode(&SmlFile::parse(&bytes).unwrap(), &Settings::default(), now()).unwrap();
        prop_assert_eq!(&readout.problems, &[]);
        prop_assert_eq!(&readout.meters[0].readings, &readings);
    }

    #[test]
    fn sml_rs_reads_what_the_builder_writes(
        server_id in prop::collection::vec(any::<u8>(), 1..20),
        index: u32,
        entries in prop::collection::vec(parts(any::<u32>().prop_map(SmlTime::SecIndex)), 1..20),
        text in octets(80),
    ) {
        let builder = Builder::new(&server_id).sensor_time(SmlTime::SecIndex(index));
        let builder = entries.iter().fold(builder, |builder, parts| builder.entry(&entry(parts)));
        let bytes = builder.octets(ObisCode::new(1, 0, 96, 13, 0, 255), &text).finish();
        prop_assert_eq!(agrees_with_sml_rs(&bytes), entries.len() + 1);
    }

    #[test]
    fn no_octets_panic(stream: Vec<u8>, content in prop::collection::vec(prop_oneof![
        3 => prop::sample::select(&[0x00, 0x01, 0x1b, 0x52, 0x62, 0x63, 0x65, 0x71, 0x72, 0x76, 0x77, 0x83, 0xf1, 0x07][..]),
        1 => any::<u8>(),
    ], 0..200)) {
        for piece_len in [1, 7, 4096] {
            drop(files(&stream, piece_len));
        }
        let list = [&[0x76, 0x01, 0x62, 0x00, 0x62, 0x00, 0x72, 0x63, 0x07, 0x01, 0x77][..], &content].concat();
        let policy = Policy { accept_invalid_crc: true };
        let bytes = encode_file(&list, CrcAlgorithm::X25);
        let settings = Settings { policy, ..Settings::default() };
        drop(Readout::decode(&SmlFile::parse(&bytes).unwrap(), &settings, now()));
        let _value = Value::read(&mut Reader::new(&content), Quirks::default());
    }
}

#[test]
fn a_reading_that_sml_cannot_tell_is_refused() {
    let reading = |code: &str, at: i64| {
        let code: crate::metering::Code = code.parse().unwrap();
        TelegramReading::new(code, Kind::Register, UtcMillis(at), Quantity::new(1, 0, Unit::WATT_HOUR))
    };
    let build = |reading: &TelegramReading| Builder::new(b"SIM").reading(reading).map(|_| ());
    assert!(matches!(build(&reading("cad:power", 0)), Err(BuildError::Code { .. })));
    assert!(matches!(build(&reading("1-0:1.6.0/5", 0)), Err(BuildError::Code { .. })));
    assert_eq!(build(&reading("1-0:1.8.0", -1_000)), Err(BuildError::Time { seconds: -1 }));
    assert_eq!(build(&reading("1-0:1.8.0", 4_294_967_295_999)), Ok(()));
    assert_eq!(build(&reading("1-0:1.8.0", 4_294_967_296_000)), Err(BuildError::Time { seconds: 4_294_967_296 }));
}
