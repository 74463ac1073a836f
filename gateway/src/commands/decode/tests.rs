use protocols::dlms::datetime::{ClockStatus, DateTime};
use protocols::dlms::notification::encode_data_notification;
use protocols::dlms::value::DataValue;
use protocols::hdlc::{HdlcAddress, push_frames};
use protocols::iec62056_21::{Identification, encode_push};
use protocols::metering::{Code, Kind, ObisCode, Unit};
use protocols::sml::Builder;

use super::*;

const AT: UtcMillis = UtcMillis(1_795_401_315_000);

const PLAIN: DecodeSettings =
    DecodeSettings { meter: None, received_at: AT, accept_invalid_crc: false, key: None, authentication_key: None };

fn run(protocol: DecodeProtocol, octets: &[u8]) -> (Vec<serde_json::Value>, Option<String>) {
    run_with(protocol, octets, &PLAIN)
}

fn run_with(
    protocol: DecodeProtocol,
    octets: &[u8],
    settings: &DecodeSettings,
) -> (Vec<serde_json::Value>, Option<String>) {
    let mut out = Vec::new();
    let error = decode(protocol, octets.to_vec(), settings, &mut out).err().map(|error| error.to_string());
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
    assert!(error.unwrap().contains("needs --key") && said[0]["offset"] == 0);
}

/// Negative control: take everything for authenticated.
#[test]
fn what_is_encrypted_is_decoded_with_its_keys_and_marked_without_that_of_authentication() {
    use crate::push::seal::tests::sealed;
    use protocols::dlms::security::{Level, SecurityControl, SecuritySuite, SystemTitle, protect_push};
    let key = |octet| Some(Key::from([octet; 16]));
    let with = |authentication_key| DecodeSettings { key: key(1), authentication_key, ..PLAIN };
    let whole = sealed(&apdu(), Level::AUTHENTICATED_ENCRYPTED, 1);
    let expected = |quality| {
        vec![
            reading("KFM0017", "1-0:1.8.0", "262951", "Wh", quality),
            reading("KFM0017", "1-0:32.7.0", "229.2", "V", quality),
        ]
    };
    let frames = push_frames(HdlcAddress::one(16).unwrap(), HdlcAddress::one(1).unwrap(), &whole, 48);
    for (protocol, octets) in [(DecodeProtocol::Dlms, &whole), (DecodeProtocol::Hdlc, &frames)] {
        assert_eq!(run_with(protocol, octets, &with(key(2))), (expected("good"), None));
        assert_eq!(run_with(protocol, octets, &with(None)), (expected("unauthenticated"), None));
        let (said, error) = run_with(protocol, octets, &with(key(3)));
        assert!(error.is_some() && said[0]["error"] == "the authentication tag is wrong", "{said:?}");
        assert!(run(protocol, octets).1.unwrap().contains("needs --key"));
    }
    let keys = protocols::dlms::security::Keys::new(Key::from([1; 16]), protocols::p1::AUTHENTICATION_KEY.into());
    let level = Level::AUTHENTICATED_ENCRYPTED;
    let control = SecurityControl { suite: SecuritySuite::Suite0, level, broadcast: false };
    let telegram = crate::push::tests::telegram(AT, AT, "");
    let block = protect_push(&keys, SystemTitle(*b"SAG\0\0\0\0\x01"), control, 5, &telegram).unwrap();
    let octets = [&block[..], b"\r\n", &block[..40]].concat();
    let (said, error) = run_with(DecodeProtocol::P1, &octets, &with(None));
    assert_eq!((error, &said[1]["code"], &said[1]["quality"]), (None, &"1-0:1.7.0".into(), &"good".into()));
    assert_eq!(said.last().unwrap()["offset"], block.len() + 2);
}

fn water(number: u32) -> protocols::mbus::Builder {
    use protocols::mbus::{SecondaryAddress, maker_code};
    let address = SecondaryAddress::of_number(number, maker_code("SIM").unwrap(), 1, 0x07);
    let volume = Quantity::new(1_234_567, -3, Unit::CUBIC_METRE);
    let volume = TelegramReading::new(ObisCode::new(8, 0, 1, 0, 0, 255), Kind::Register, AT, volume);
    let temperature = TelegramReading::new(
        "mbus:5A".parse::<Code>().unwrap(),
        Kind::Instant,
        AT,
        Quantity::new(215, -1, Unit::DEGREE_CELSIUS),
    );
    protocols::mbus::Builder::new(address).reading(&volume, 0).unwrap().reading(&temperature, 0).unwrap()
}

#[test]
fn frames_of_m_bus_are_decoded_wired_and_wireless_in_clear_or_not() {
    use protocols::mbus::{Datum, Frame, Place, SecondaryAddress, WirelessForm, WirelessFrame, control, maker_code};
    let key = protocols::mbus::Key::new([1; 16]);
    let settings = DecodeSettings { key: Some(Key::from([1; 16])), ..PLAIN };
    let id = "SIM:12345678:01:07";
    let expected =
        vec![reading(id, "8-0:1.0.0", "1234.567", "m3", "good"), reading(id, "mbus:5A", "21.5", "degC", "good")];
    let long = |telegram: &Vec<u8>| {
        let mut octets = Vec::new();
        let frame = Frame::Long { control: control::RSP_UD, address: 1, ci: telegram[0], data: &telegram[1..] };
        frame.encode(&mut octets).unwrap();
        octets
    };
    let plain = long(&water(12_345_678).finish()[0]);
    assert_eq!(run(DecodeProtocol::Mbus, &[&[0xe5], &plain[..], b"\r\n"].concat()), (expected.clone(), None));
    let closed = long(&water(12_345_678).finish_enciphered(&key)[0]);
    assert_eq!(run_with(DecodeProtocol::Mbus, &closed, &settings), (expected.clone(), None));
    let (said, error) = run(DecodeProtocol::Mbus, &closed);
    assert!(
        error.unwrap().contains("needs --key") && said[0]["error"].as_str().unwrap().contains("mode 5"),
        "{said:?}"
    );
    let (said, _) = run(DecodeProtocol::Mbus, &plain[..20]);
    assert_eq!(said, [serde_json::json!({ "error": "the octets end before the frame does", "offset": 0 })]);

    // Several telegrams are one answer: of two equal values the second is the next of its identity, and both are told.
    let many = (0..60).fold(water(12_345_678), |builder, storage| {
        builder.record(Place { storage, ..Place::PRESENT }, &[0x3b], &Datum::Integer(7, 4)).unwrap()
    });
    let frames: Vec<u8> = many.finish().iter().flat_map(long).collect();
    let (said, error) = run(DecodeProtocol::Mbus, &frames);
    assert_eq!((said.len(), error), (62, None));

    let address = SecondaryAddress::of_number(12_345_678, maker_code("SIM").unwrap(), 1, 0x07);
    let frame = |builder: protocols::mbus::Builder, form| {
        let payload = builder.finish_enciphered(&key).remove(0);
        WirelessFrame { control: 0x44, address, payload }.encode(form).unwrap()
    };
    for form in [WirelessForm::A, WirelessForm::B, WirelessForm::Stripped] {
        let two = [frame(water(12_345_678), form), frame(water(12_345_678), form)].concat();
        let twice = [expected.clone(), expected.clone()].concat();
        assert_eq!(run_with(DecodeProtocol::Wmbus, &two, &settings), (twice, None), "{form:?}");
        assert!(run_with(DecodeProtocol::Wmbus, &two[..20], &settings).1.is_some());
    }
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
        ("dlms_push/hdlc_kaifa_ma304h3e.log", DecodeProtocol::Hdlc, 10),
        ("dlms_push/hdlc_kamstrup_omnipower.log", DecodeProtocol::Hdlc, 25),
        ("dlms_push/mbus_netz_noe_p1.log", DecodeProtocol::Mbus, 11),
    ] {
        let captures = folder.join("captures");
        let octets = read_input(&captures.join(name)).unwrap();
        // Key files of captures may be read by everybody: here they are taken as they are.
        let key = |ending: &str| {
            let text = std::fs::read_to_string(captures.join(name).with_extension(ending)).ok()?;
            Some(Key::from_hex(&text).unwrap())
        };
        let settings = DecodeSettings { key: key("key"), authentication_key: key("gak"), ..PLAIN };
        let (lines, error) = run_with(protocol, &octets, &settings);
        let (read, wrong): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line["error"].is_null());
        assert!(error.is_none() && wrong.is_empty() && read.len() >= readings, "{name}: {} {wrong:?}", read.len());
        assert!(read.iter().all(|line| line["meter"].is_string()), "{name}");
    }
}

/// What they tell is text, or the maker's own.
const WITHOUT_NUMBERS: [&str; 3] = ["example_binary16_lvar.hex", "frame1.hex", "manual_frame7.hex"];

/// Frames of meters of twelve makers; those that are wrong are refused.
#[test]
fn captures_of_m_bus_are_decoded_and_wrong_ones_refused() {
    let Some(folder) = std::env::var_os("METERPOST_DATA").map(std::path::PathBuf::from) else {
        return std::io::stderr().write_all(b"skipped: METERPOST_DATA names no folder\n").unwrap();
    };
    let captures = |below: &str| {
        let files =
            std::fs::read_dir(folder.join("captures/mbus").join(below)).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|ending| ending == "hex")).collect::<Vec<_>>()
    };
    let (mut right, mut refused) = (captures("."), captures("errors"));
    right.sort();
    refused.sort();
    assert!(right.len() >= 30 && refused.len() >= 10);
    for path in right {
        let (lines, error) = run(DecodeProtocol::Mbus, &read_input(&path).unwrap());
        let read = lines.iter().filter(|line| line["meter"].is_string()).count();
        let has_none = WITHOUT_NUMBERS.iter().any(|name| path.ends_with(name));
        assert_eq!((error.is_some(), read == 0), (has_none, has_none), "{}: {lines:?}", path.display());
    }
    for path in refused {
        let (lines, error) = run(DecodeProtocol::Mbus, &read_input(&path).unwrap());
        assert!(error.is_some() && lines.iter().all(|line| line["error"].is_string()), "{}: {lines:?}", path.display());
    }
}
