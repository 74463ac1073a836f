use super::*;
use crate::bytes::Truncated;
use crate::captures::{capture, logged};
use crate::dlms::datetime::ClockStatus;
use crate::hdlc::{PushListener, UiReassembler};
use crate::metering::UtcMillis;
use proptest::prelude::*;
use std::fmt::Write as _;
use std::time::Duration;

/// The octets of a log and the expected values beside it.
fn pushed(name: &str) -> Option<(Vec<u8>, String)> {
    let expected = capture(&format!("dlms_push/{name}_decoded.xml"))?;
    Some((logged(&format!("dlms_push/{name}.log"))?, String::from_utf8(expected).unwrap()))
}

/// The APDUs of a line on which a meter pushes, heard in pieces of this length.
fn heard(octets: &[u8], length: usize) -> Vec<Vec<u8>> {
    let mut listener = PushListener::new(UiReassembler::new(4096, Duration::from_secs(2)), Duration::from_millis(400));
    octets.chunks(length).flat_map(|piece| listener.receive(Duration::ZERO, piece)).collect()
}

/// What the decoded file says, one line per element, without what it adds for readers (names, units, comments).
fn expected_lines(xml: &str) -> Vec<String> {
    let attribute = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\""))?;
        Some(rest.split_once('"').unwrap().0.to_owned())
    };
    let mut lines = Vec::new();
    for line in xml.lines().map(str::trim).filter(|line| !line.starts_with("</") && !line.starts_with("<?")) {
        let name = line.trim_start_matches('<').split([' ', '>', '/']).next().unwrap();
        let value = ["LongInvokeId", "Value", "Qty"].iter().find_map(|key| attribute(line, key));
        lines.push(format!("{name} {}", value.unwrap_or_default()).trim().to_owned());
    }
    lines
}

/// As that file writes it: without a field left open at the end, and with the deviation as if it were an offset.
fn date_time_text(date_time: DateTime) -> String {
    let (date, time) = (date_time.date(), date_time.time());
    let mut text = format!("{date} ");
    let fields = [time.hour(), time.minute(), time.second()].map(Option::unwrap);
    write!(text, "{:02}:{:02}:{:02}", fields[0], fields[1], fields[2]).unwrap();
    if let Some(hundredths) = time.hundredths() {
        write!(text, ".{hundredths:02}").unwrap();
    }
    if let Some(deviation) = date_time.deviation_minutes() {
        let sign = if deviation < 0 { '-' } else { '+' };
        let minutes = deviation.abs();
        write!(text, " {sign}{:02}:{:02}", minutes / 60, minutes % 60).unwrap();
    }
    text
}

fn string_text(octets: &[u8]) -> String {
    // A serial number may have twelve digits.
    let is_number = octets.iter().all(u8::is_ascii_digit);
    if let (false, Ok(octets)) = (is_number, octets.try_into()) {
        return date_time_text(DateTime(octets));
    }
    if octets.len() == 6 {
        return octets.iter().map(u8::to_string).collect::<Vec<_>>().join(".");
    }
    String::from_utf8(octets.to_vec()).unwrap()
}

fn data_lines(data: &Data<'_>, lines: &mut Vec<String>) {
    let line = match *data {
        Data::Array(elements) => format!("ARRAY {}", elements.len()),
        Data::Structure(elements) => format!("STRUCTURE {}", elements.len()),
        Data::OctetString(octets) => format!("OCTETSTRING {}", string_text(octets)),
        Data::VisibleString(octets) => format!("VISIBLESTRING {}", std::str::from_utf8(octets).unwrap()),
        Data::Enum(value) => format!("ENUM {value}"),
        Data::Integer(value) => format!("INT8 {value}"),
        Data::Long(value) => format!("INT16 {value}"),
        Data::LongUnsigned(value) => format!("UINT16 {value}"),
        Data::DoubleLongUnsigned(value) => format!("UINT32 {value}"),
        other => panic!("{other:?} in a capture that has none"),
    };
    lines.push(line.trim().to_owned());
    for element in data.elements().into_iter().flatten() {
        data_lines(&element, lines);
    }
}

fn notification_lines(notification: &DataNotification<'_>) -> Vec<String> {
    let date_time = notification.date_time.map(date_time_text).unwrap_or_default();
    let mut lines = vec![
        format!("DataNotification {:08X}", notification.long_invoke_id_and_priority),
        format!("DateTime {date_time}").trim().to_owned(),
    ];
    match &notification.body {
        NotificationBody::Data(data) => data_lines(data, &mut lines),
        NotificationBody::Described(values) => {
            lines.push("STRUCTURE 2".to_owned());
            data_lines(&values.head, &mut lines);
            lines.push(format!("ARRAY {}", values.len()));
            for described in values.iter() {
                lines.extend(["STRUCTURE 2".to_owned(), "AttributeDescriptor".to_owned()]);
                lines.push(format!("ClassId {:04X}", described.class_id));
                lines.push(format!("InstanceId {}", string_text(&described.logical_name.0)));
                lines.push(format!("AttributeId {:02X}", described.attribute));
                data_lines(&described.value, &mut lines);
            }
        }
    }
    lines
}

/// What the APDU says is what is known of it.
pub(crate) fn compare(name: &str, apdu: &[u8], expected: &str) {
    let notification = decode_data_notification(apdu).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(notification_lines(&notification), expected_lines(expected), "{name}");
    assert_eq!(notification.surplus, [0; 0], "{name}");
}

#[test]
fn recorded_pushes_have_the_values_that_are_known_for_them() {
    for name in ["raw_salzburg_netz", "raw_egd_example"] {
        let Some((octets, expected)) = pushed(name) else { continue };
        compare(name, &octets, &expected);
    }
}

// Negative control: keep the LLC octets, or drop the segments of a push but the last.
#[test]
fn recorded_lines_have_the_values_that_are_known_for_them() {
    for name in ["hdlc_iskra550", "hdlc_kaifa_ma304h3e", "hdlc_norway_han_1phase"] {
        let Some((octets, expected)) = pushed(name) else { continue };
        for length in [octets.len(), 1, 17] {
            let apdus = heard(&octets, length);
            assert_eq!(apdus.len(), 1, "{name}");
            compare(name, &apdus[0], &expected);
        }
    }
}

#[test]
fn a_date_time_may_be_absent_plain_or_tagged() {
    let date_time = DateTime::from_utc(UtcMillis(1_795_401_315_000), 60, ClockStatus::GOOD);
    let apdu = |head: &[u8], date_time: &[u8]| {
        let mut apdu = vec![0x0f, 0x40, 0x00, 0x00, 0x07];
        apdu.extend(head);
        apdu.extend(date_time);
        apdu.extend([0x11, 0x2a]);
        apdu
    };
    for (head, octets, expected) in [
        (&[0x00][..], &[][..], None),
        (&[0x0c], &date_time.0, Some(date_time)),
        (&[0x09, 0x0c], &date_time.0, Some(date_time)),
        (&[0x09, 0x00], &[], None),
    ] {
        let apdu = apdu(head, octets);
        let notification = decode_data_notification(&apdu).unwrap();
        assert_eq!(notification.date_time, expected);
        assert_eq!(notification.body, NotificationBody::Data(Data::Unsigned(42)));
        assert_eq!(notification.invoke_id(), 7);
    }
    let apdu = apdu(&[0x05], &[0; 5]);
    assert_eq!(decode_data_notification(&apdu), Err(NotificationError::DateTime { length: 5 }));
}

#[test]
fn octets_after_the_body_are_kept_apart() {
    let notification = decode_data_notification(&[0x0f, 0, 0, 0, 1, 0, 0x11, 0x2a, 0xa5, 0xa5]).unwrap();
    assert_eq!(notification.body, NotificationBody::Data(Data::Unsigned(42)));
    assert_eq!(notification.surplus, [0xa5, 0xa5]);
}

#[test]
fn described_values_are_found_only_where_nothing_else_is_left() {
    let mut apdu = vec![0x0f, 0, 0, 0, 1, 0, 0x02, 0x02, 0x16, 0x01, 0x01, 0x02];
    for value in [3, 4] {
        apdu.extend([0x02, 0x02, 0x00, 0x03, 1, 0, 1, 8, 0, 255, 0x02, 0x06, 0, 0, 0, value]);
    }
    let NotificationBody::Described(values) = decode_data_notification(&apdu).unwrap().body else {
        panic!("not described")
    };
    let energy = |value| DescribedValue {
        class_id: 3,
        logical_name: ObisCode::new(1, 0, 1, 8, 0, 255),
        attribute: 2,
        value: Data::DoubleLongUnsigned(value),
    };
    assert_eq!(values.iter().collect::<Vec<_>>(), [energy(3), energy(4)]);
    assert_eq!((values.len(), values.head), (2, Data::Enum(1)));
    // Cut by an octet, or with one more, it is not taken for that; what is left over shows.
    for other in [&apdu[..apdu.len() - 1], &[&apdu[..], &[0]].concat()] {
        match decode_data_notification(other) {
            Ok(notification) => {
                assert!(matches!(notification.body, NotificationBody::Data(_)));
                assert!(!notification.surplus.is_empty());
            }
            Err(error) => assert!(matches!(error, NotificationError::Axdr(_))),
        }
    }
}

#[test]
fn other_apdus_and_cut_ones_are_refused() {
    assert_eq!(decode_data_notification(&[0xc4, 0x01]), Err(NotificationError::Tag { tag: 0xc4 }));
    let truncated = AxdrError::Truncated(Truncated { offset: 1, wanted: 4, left: 1 });
    assert_eq!(decode_data_notification(&[0x0f, 0]), Err(NotificationError::Axdr(truncated)));
    assert!(decode_data_notification(&[]).is_err());
}

proptest! {
    #[test]
    fn notifications_round_trip(id: u32, date_time: Option<[u8; 12]>, values in prop::collection::vec(any::<u32>(), 0..9)) {
        let date_time = date_time.map(DateTime);
        let body = DataValue::Structure(values.into_iter().map(DataValue::DoubleLongUnsigned).collect());
        let mut apdu = vec![0xa5];
        encode_data_notification(id, date_time, &body, &mut apdu);
        let notification = decode_data_notification(&apdu[1..]).unwrap();
        prop_assert_eq!((notification.long_invoke_id_and_priority, notification.date_time), (id, date_time));
        let NotificationBody::Data(data) = notification.body else { panic!("described") };
        prop_assert_eq!(DataValue::from(data), body);
    }

    #[test]
    fn random_octets_never_panic(mut apdu in prop::collection::vec(prop_oneof![any::<u8>(), 0..35u8], 1..120)) {
        apdu[0] = DATA_NOTIFICATION;
        if let Ok(notification) = decode_data_notification(&apdu) {
            let text = format!("{notification:?}");
            prop_assert!(text.contains("body"));
        }
    }
}

#[test]
fn a_confirmed_push_is_confirmed_by_its_number() {
    let mut apdu = Vec::new();
    encode_data_notification(0x4000_0007, None, &DataValue::Unsigned(1), &mut apdu);
    let push = decode_data_notification(&apdu).unwrap();
    assert!(push.is_confirmed());
    let mut confirm = Vec::new();
    encode_data_notification_confirm(push.long_invoke_id_and_priority, None, &mut confirm);
    assert_eq!(confirm, [0x10, 0x40, 0, 0, 7, 0]);
    assert_eq!(decode_data_notification_confirm(&confirm), Ok((0x4000_0007, None)));
    let mut dated = Vec::new();
    encode_data_notification_confirm(7, Some(DateTime([7; 12])), &mut dated);
    assert_eq!(decode_data_notification_confirm(&dated), Ok((7, Some(DateTime([7; 12])))));
    assert_eq!(decode_data_notification_confirm(&apdu), Err(NotificationError::Tag { tag: 0x0f }));
    assert_eq!(
        decode_data_notification_confirm(&[0x10, 0, 0, 0, 0, 5]),
        Err(NotificationError::DateTime { length: 5 })
    );
    encode_data_notification(7, None, &DataValue::Null, &mut apdu);
    assert!(!decode_data_notification(&apdu[8..]).unwrap().is_confirmed());
}

#[test]
fn an_event_notification_names_its_attribute() {
    let attribute = CosemAttribute::new(1, ObisCode::new(0, 0, 97, 98, 0, 255), 2);
    for time in [None, Some(DateTime([1; 12]))] {
        let mut apdu = Vec::new();
        encode_event_notification(time, attribute, &DataValue::Unsigned(5), &mut apdu);
        let expected = EventNotification { time, attribute, value: Data::Unsigned(5), surplus: &[] };
        assert_eq!(decode_event_notification(&apdu), Ok(expected));
        for len in 0..apdu.len() {
            assert!(decode_event_notification(&apdu[..len]).is_err(), "{len}");
        }
    }
    assert_eq!(decode_event_notification(&[0x0f]), Err(NotificationError::Tag { tag: 0x0f }));
    assert_eq!(decode_event_notification(&[0xc2, 2]), Err(NotificationError::Flag { flag: 2 }));
    assert_eq!(decode_event_notification(&[0xc2, 1, 4]), Err(NotificationError::DateTime { length: 4 }));
}
