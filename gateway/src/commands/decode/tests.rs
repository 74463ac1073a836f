use protocols::dlms::datetime::{ClockStatus, DateTime};
use protocols::dlms::notification::encode_data_notification;
use protocols::dlms::value::DataValue;
use protocols::hdlc::{HdlcAddress, push_frames};
use protocols::iec62056_21::{Identification, encode_push};
use protocols::metering::{ObisCode, Unit};
use protocols::sml::Builder;

use super::*;

const AT: UtcMillis = UtcMillis(1_795_401_315_000);

fn run(protocol: DecodeProtocol, octets: &[u8]) -> (Vec<serde_json::Value>, Option<String>) {
    let settings = DecodeSettings { meter: None, received_at: AT, accept_invalid_crc: false };
    let mut out = Vec::new();
    let error = decode(protocol, octets.to_vec(), &settings, &mut out).err().map(|error| error.to_string());
    let lines = String::from_utf8(out).unwrap();
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), error)
}

fn reading(meter: &str, code: &str, value: &str, unit: &str, quality: &str) -> serde_json::Value {
    serde_json::json!({
        "meter": meter, "code": code, "captured_at": "2026-11-23T02:35:15Z", "value": value, "unit": unit, "quality": quality,
    })
}

#[test]
fn telegrams_of_p1_are_decoded_one_reading_a_line() {
    let telegram = crate::push::tests::telegram(AT, AT, "");
    let (lines, error) = run(DecodeProtocol::P1, &[b"noise", &telegram[..], &telegram[..40]].concat());
    assert_eq!(error, None);
    assert_eq!(lines[0], serde_json::json!({ "error": "5 octets outside a telegram", "offset": 0 }));
    assert_eq!(
        (&lines[2]["meter"], &lines[2]["code"], &lines[2]["value"]),
        (&"SIM0001".into(), &"1-0:1.7.0".into(), &"450".into())
    );
    assert!(lines.iter().any(|line| line["meter"] == "GAS0001"));
    assert_eq!(lines.last().unwrap()["offset"], 5 + telegram.len());
}

#[test]
fn sml_is_decoded_and_what_is_damaged_is_told_with_its_place() {
    let server = [0x0a, 0x01, b'S', b'I', b'M', 0, 0, 0, 0, 0x2a];
    let energy = Quantity::new(123_456, -1, Unit::WATT_HOUR);
    let file = Builder::new(&server).quantity(ObisCode::new(1, 0, 1, 8, 0, 255), energy).finish();
    let mut spoilt = file.clone();
    spoilt[20] ^= 1;
    let (lines, error) = run(DecodeProtocol::Sml, &[&spoilt[..], &file].concat());
    assert_eq!(error, None);
    assert!(lines[0]["error"].as_str().unwrap().starts_with("crc ") && lines[0]["offset"] == 0, "{lines:?}");
    assert_eq!(lines[1..], [reading("1SIM0000000042", "1-0:1.8.0", "12345.6", "Wh", "good")]);
    let (lines, error) = run(DecodeProtocol::Sml, &spoilt);
    assert_eq!((lines.len(), error.unwrap().starts_with("nothing could be decoded\nhint: ")), (1, true));
}

#[test]
fn pushes_and_bare_lines_of_iec_62056_21_are_decoded() {
    let lines = b"0.0.0(12345678)\r\n1.8.0(000012.340*kWh)\r\n";
    let identification = Identification { manufacturer: "SIM".into(), baud: b'5', enhanced: vec![], model: "X".into() };
    let mut octets = Vec::new();
    encode_push(&mut octets, &identification, lines);
    let (said, error) = run(DecodeProtocol::Iec62056_21, &octets);
    assert_eq!((said, error), (vec![reading("SIM:12345678", "1-0:1.8.0", "12340", "Wh", "unauthenticated")], None));
    let (said, error) = run(DecodeProtocol::Iec62056_21, lines);
    assert_eq!((said, error), (vec![reading("12345678", "1-0:1.8.0", "12340", "Wh", "unauthenticated")], None));
    let (_, error) = run(DecodeProtocol::Iec62056_21, b"1.8.0(000012.340*kWh)\r\n");
    assert!(error.unwrap().ends_with("hint: name the meter with --meter"));
}

fn value(code: ObisCode, value: DataValue, scaler: i8, unit: u8) -> DataValue {
    let scaler_unit = DataValue::Structure(vec![DataValue::Integer(scaler), DataValue::Enum(unit)]);
    DataValue::Structure(vec![DataValue::OctetString(code.0.to_vec()), value, scaler_unit])
}

fn apdu() -> Vec<u8> {
    let name = DataValue::Structure(vec![
        DataValue::OctetString(vec![0, 0, 96, 1, 0, 255]),
        DataValue::OctetString(b"KFM0017".to_vec()),
    ]);
    let energy = value(ObisCode::new(1, 0, 1, 8, 0, 255), DataValue::DoubleLongUnsigned(262_951), 0, 30);
    let voltage = value(ObisCode::new(1, 0, 32, 7, 0, 255), DataValue::LongUnsigned(2_292), -1, 35);
    let stamp = DateTime::from_utc(AT, 60, ClockStatus::GOOD);
    let mut apdu = Vec::new();
    encode_data_notification(7, Some(stamp), &DataValue::Structure(vec![name, energy, voltage]), &mut apdu);
    apdu
}

#[test]
fn plain_pushes_of_dlms_are_decoded_bare_and_in_frames() {
    let expected = vec![
        reading("KFM0017", "1-0:1.8.0", "262951", "Wh", "good"),
        reading("KFM0017", "1-0:32.7.0", "229.2", "V", "good"),
    ];
    assert_eq!(run(DecodeProtocol::Dlms, &apdu()), (expected.clone(), None));
    let frames = push_frames(HdlcAddress::one(16).unwrap(), HdlcAddress::one(1).unwrap(), &apdu(), 48);
    assert_eq!(run(DecodeProtocol::Hdlc, &frames), (expected, None));
    let (said, error) = run(DecodeProtocol::Hdlc, &frames[..frames.len() - 10]);
    assert!(
        error.is_some() && said.len() == 1 && said[0]["error"].as_str().unwrap().ends_with("end before the frame does"),
        "{said:?}"
    );
    let (said, error) = run(DecodeProtocol::Dlms, &[0xdb, 0x08]);
    assert!(error.unwrap().contains("Encrypted pushes") && said[0]["offset"] == 0);
}

/// Pushes of real meters, where the folder of captures is there.
#[test]
fn captures_of_real_meters_are_decoded() {
    let Some(folder) = std::env::var_os("METERPOST_DATA").map(std::path::PathBuf::from) else {
        // To stderr itself: what a test that passes prints by macro is not shown.
        return std::io::stderr().write_all(b"skipped: METERPOST_DATA names no folder\n").unwrap();
    };
    for (name, protocol, readings) in [
        ("dlms_push/hdlc_iskra550.log", DecodeProtocol::Hdlc, 10),
        ("dlms_push/hdlc_norway_han_1phase.log", DecodeProtocol::Hdlc, 6),
        ("dlms_push/raw_salzburg_netz.log", DecodeProtocol::Dlms, 10),
        ("dlms_push/raw_egd_example.log", DecodeProtocol::Dlms, 10),
    ] {
        let octets = read_input(&folder.join("captures").join(name)).unwrap();
        let (lines, error) = run(protocol, &octets);
        let (read, wrong): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line["error"].is_null());
        assert!(error.is_none() && wrong.is_empty() && read.len() >= readings, "{name}: {} {wrong:?}", read.len());
        assert!(read.iter().all(|line| line["meter"].is_string()), "{name}");
    }
}
