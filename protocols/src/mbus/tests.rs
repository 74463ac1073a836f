//! Captured telegrams against what libmbus reads in them (rscada/libmbus f09d613, BSD-3-Clause).

use super::*;
use crate::captures::{capture, logged};
use crate::iec62056_21::MeterClock;
use crate::metering::{Quantity, Unit, UtcMillis};

const RECEIVED_AT: UtcMillis = UtcMillis(1_795_401_315_000);

const NAMES: [&str; 38] = [
    "ACW_Itron-CYBLE-M-Bus-14",
    "EFE_Engelmann-Elster-SensoStar-2",
    "ELS_Elster-F96-Plus",
    "EMU_EMU-Professional-375-M-Bus",
    "FIN-Finder-7E.23.8.230.0020",
    "LGB_G350",
    "SBC_Saia-Burgess-ALE3",
    "SEN_Sensus-PolluStat-E",
    "SLB_CF-Compact-Integral-MK-MaXX",
    "ZRM_Minol-Minocal-C2",
    "abb_f95",
    "amt_calec_mb",
    "eastron_sdm630",
    "electricity-meter-2",
    "els_tmpa_telegramm1",
    "emh_diz",
    "example_binary16_lvar",
    "example_data_02",
    "frame1",
    "gmc_emmod206",
    "itron_cf_51",
    "itron_cf_echo_2",
    "itron_cyble_m-bus_v1.4_gas",
    "itron_integral_mk_maxx",
    "kamstrup_multical_601",
    "manual_frame2",
    "manual_frame7",
    "metrona_ultraheat_xs",
    "minol_minocal_wr3",
    "oms_frame1",
    "oms_frame3",
    "rel_padpuls2",
    "sen_pollucom_e",
    "sen_pollutherm",
    "siemens_water",
    "sontex_supercal_531_telegram1",
    "tch_telegramm1",
    "wmbus-converted",
];

const ERRORS: [&str; 10] = [
    "buffer_too_long",
    "premature_end_of_data1",
    "premature_end_of_dif1",
    "premature_end_of_record",
    "premature_end_of_vif1",
    "too_many_dife",
    "too_many_readouts",
    "too_many_vife",
    "too_short_header",
    "unspecified_error",
];

/// The content of the first element of that name.
fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(content, _)| content.trim())
}

fn telegram(name: &str) -> Option<Telegram> {
    let octets = logged(&format!("mbus/{name}.hex"))?;
    let mut scanner = Scanner::default();
    scanner.feed(&octets);
    let Some(Ok(Frame::Long { ci, data, .. })) = scanner.next_frame() else { panic!("{name}: no frame") };
    let octets = [&[ci], data].concat();
    Some(Telegram::decode(&octets, None, None).unwrap_or_else(|error| panic!("{name}: {error}")))
}

fn expected(name: &str) -> Option<String> {
    // ISO 8859-1, except that some degree signs are UTF-8.
    Some(capture(&format!("mbus/{name}.norm.xml"))?.iter().map(|&octet| char::from(octet)).collect())
}

fn check_header(name: &str, header: &Header, xml: &str) {
    let slave = element(xml, "SlaveInformation").expect("slave information");
    let address = header.address.expect("an address");
    let [a, b, c, d] = address.id;
    let number = crate::sml::hexadecimal(&[d, c, b, a]);
    let id = element(slave, "Id").expect("an id");
    assert_eq!(number.trim_start_matches('0'), id.trim_start_matches('0'), "{name}");
    if let Some(maker) = element(slave, "Manufacturer") {
        // libmbus makes letters of what are none.
        assert_eq!(maker_letters(address.maker), if maker == "@@@" { "0000" } else { maker }, "{name}");
        assert_eq!(element(slave, "Version"), Some(&*address.version.to_string()), "{name}");
    }
    assert_eq!(element(slave, "AccessNumber"), Some(&*header.access.to_string()), "{name}");
    assert_eq!(element(slave, "Status"), Some(&*format!("{:02X}", header.status.0)), "{name}");
}

fn function_name(function: Function) -> &'static str {
    match function {
        Function::Instantaneous => "Instantaneous value",
        Function::Maximum => "Maximum value",
        Function::Minimum => "Minimum value",
        Function::DuringError => "Value during error state",
    }
}

/// What one unit of ours is in the unit of libmbus, which it calls so.
fn factor(unit: Unit, name: &str) -> Option<f64> {
    const SAME: [(u8, &str); 9] =
        [(7, "s"), (13, "m^3"), (15, "m^3/h"), (25, "J"), (27, "W"), (30, "Wh"), (33, "A"), (35, "V"), (52, "K")];
    let seconds = match unit.0 {
        4 => 86_400.0,
        5 => 3600.0,
        6 => 60.0,
        // Other units and none.
        254 | 255 => return Some(1.0),
        9 => return name.ends_with("\u{b0}C").then_some(1.0),
        number => return SAME.contains(&(number, name)).then_some(1.0),
    };
    (name == "s").then_some(seconds)
}

fn check_number(place: &str, quantity: Quantity, unit: &str, value: &str) {
    let factor = factor(quantity.unit, unit).unwrap_or_else(|| panic!("{place}: {quantity} is in {unit:?}"));
    let (ours, theirs): (f64, f64) = (quantity.decimal().parse().unwrap(), value.parse().unwrap());
    let difference = (ours * factor - theirs).abs();
    assert!(difference <= 5e-7_f64.max(theirs.abs() * 1e-7), "{place}: {quantity} is {value} {unit}");
}

fn check_record(place: &str, record: &Record<'_>, xml: &str) {
    let of = |name: &str| element(xml, name).unwrap_or("0").to_owned();
    assert_eq!(function_name(record.place.function), of("Function"), "{place}");
    assert_eq!(record.place.storage.to_string(), of("StorageNumber"), "{place}");
    assert_eq!(record.place.tariff.to_string(), of("Tariff"), "{place}");
    assert_eq!(record.place.subunit.to_string(), of("Device"), "{place}");
    let meaning = Meaning::of(&record.value_information);
    let (unit, value) = (of("Unit"), of("Value"));
    if let Class::Time(_) = meaning.class {
        let Ok(RecordValue::Time(civil)) = record.time() else { panic!("{place}: {:02x?} is no time", record.data) };
        if let Some(instant) = civil.instant(MeterClock::UTC, DateEdge::Start, Quirks::default(), RECEIVED_AT) {
            let text = instant.to_string();
            assert!(value == text || value == text[..10], "{place}: {instant} is {value}");
        }
        return;
    }
    match record.value() {
        Ok(RecordValue::Text(text)) => assert_eq!(text.trim(), value, "{place}"),
        Ok(RecordValue::Octets(octets)) => {
            let hexadecimal: Vec<_> = octets.iter().rev().map(|octet| format!("{octet:02X}")).collect();
            let forward: Vec<_> = octets.iter().map(|octet| format!("{octet:02X}")).collect();
            assert!(value == hexadecimal.join(" ") || value == forward.join(" "), "{place}: {value}");
        }
        Ok(RecordValue::Nothing) => {
            assert!(value == "0.000000" || value.is_empty() || value == "0", "{place}: {value}");
        }
        Ok(number) => {
            let quantity = number.quantity(meaning.scaler, meaning.factor, meaning.unit).expect("a number");
            check_number(place, quantity.expect("it fits"), &unit, &value);
        }
        // libmbus reckons with the digits A to F; they are none.
        Err(ValueError::Digit { .. }) => {}
        Err(error) => panic!("{place}: {error}"),
    }
}

/// Control, seen to fail: read the digits of a BCD number in the order in which they are sent.
#[test]
fn captured_telegrams_read_as_libmbus_reads_them() {
    for name in NAMES {
        let (Some(telegram), Some(xml)) = (telegram(name), expected(name)) else { return };
        check_header(name, &telegram.header, &xml);
        let expected: Vec<&str> = xml.split("<DataRecord").skip(1).collect();
        let Body::Records(octets) = &telegram.body else { continue };
        let items: Vec<_> = Records::new(octets).map(|item| item.expect("a record")).collect();
        assert_eq!(items.len(), expected.len(), "{name}");
        for (number, (item, xml)) in items.iter().zip(expected).enumerate() {
            let place = format!("{name}, record {number}");
            match item {
                // libmbus has no name for VIF 7B and leaves the record empty.
                Item::Record(record) if record.value_information.vif == 0x7b => {
                    assert_eq!(element(xml, "Value"), None, "{place}");
                }
                Item::Record(record) => check_record(&place, record, xml),
                Item::Manufacturer(_) => assert_eq!(element(xml, "Function"), Some("Manufacturer specific"), "{place}"),
                Item::MoreRecordsFollow(_) => {
                    assert_eq!(element(xml, "Function"), Some("More records follow"), "{place}");
                }
            }
        }
    }
}

/// Every record becomes something, and numbers with a unit become readings.
#[test]
fn captured_telegrams_lose_nothing_on_the_way_to_readings() {
    for name in NAMES {
        let Some(telegram) = telegram(name) else { return };
        let readout = Readout::decode(std::slice::from_ref(&telegram), &Settings::default(), RECEIVED_AT);
        let readout = readout.unwrap_or_else(|error| panic!("{name}: {error}"));
        let Body::Records(octets) = &telegram.body else {
            assert_eq!((readout.readings.len(), readout.problems.len()), (2, 0), "{name}");
            continue;
        };
        let records: Vec<_> = Records::new(octets)
            .filter_map(|item| match item {
                Ok(Item::Record(record)) => Some(record),
                _ => None,
            })
            .collect();
        let is_number = |record: &&Record<'_>| {
            let class = Meaning::of(&record.value_information).class;
            matches!(class, Class::Register(_) | Class::Momentary)
                && matches!(record.value(), Ok(RecordValue::Integer(_) | RecordValue::Real(_)))
        };
        let numbers = records.iter().filter(is_number).count();
        assert_eq!(readout.readings.len(), numbers, "{name}");
        // What labels others is told with them.
        let times =
            records.iter().filter(|record| matches!(Meaning::of(&record.value_information).class, Class::Time(_)));
        let told = readout.readings.len() + readout.events.len() + readout.problems.len() + readout.skipped.empty;
        assert!(told + times.count() >= records.len(), "{name}: {told} of {}", records.len());
        for reading in &readout.readings {
            let same = readout.readings.iter().filter(|other| other.same_identity(reading)).count();
            assert_eq!(same, 1, "{name}: {} stands {same} times", reading.code);
            assert_eq!(reading.code.to_string().parse(), Ok(reading.code.clone()));
        }
    }
}

#[test]
fn damaged_captures_and_application_errors_are_refused() {
    for name in ERRORS {
        let Some(octets) = logged(&format!("mbus/errors/{name}.hex")) else { return };
        let mut scanner = Scanner::default();
        scanner.feed(&octets);
        let Some(Ok(Frame::Long { ci, data, .. })) = scanner.next_frame() else { panic!("{name}: no frame") };
        let telegram = Telegram::decode(&[&[ci], data].concat(), None, None);
        let readout = telegram.map(|telegram| Readout::decode(&[telegram], &Settings::default(), RECEIVED_AT));
        assert!(!matches!(readout, Ok(Ok(_))), "{name}: {readout:?}");
    }
}

#[test]
fn values_of_a_heat_meter_have_their_codes_kinds_and_instants() {
    let Some(telegram) = telegram("abb_f95") else { return };
    let settings = Settings { clock: MeterClock::UTC, ..Settings::default() };
    let readout = Readout::decode(&[telegram], &settings, RECEIVED_AT).expect("values");
    assert_eq!(readout.meter.as_str(), "HYD:26718590:28:04");
    assert_eq!(readout.clock.map(|clock| clock.to_string()).as_deref(), Some("2012-01-13T16:34:00Z"));
    let told: Vec<_> = readout
        .readings
        .iter()
        .map(|reading| format!("{} {} {} {}", reading.code, reading.kind, reading.quantity, reading.captured_at))
        .collect();
    let now = RECEIVED_AT.to_string();
    assert_eq!(
        told[..6],
        [
            format!("6-0:1.0.0 register 0e2 Wh {now}"),
            format!("6-0:2.0.0 register 0.0742 m3 {now}"),
            format!("mbus:5A instant 20.4 degC {now}"),
            format!("mbus:5E instant 20.4 degC {now}"),
            format!("mbus:62 instant 0.0 K {now}"),
            "6-0:1.0.0 billing 0e2 Wh 2011-04-30T23:59:00Z".to_owned(),
        ][..],
        "{told:#?}"
    );
    // Power and flow in the error state are marked with digits that are none.
    let problems: Vec<_> = readout.problems.iter().map(ToString::to_string).collect();
    assert!(problems[0].starts_with("telegram 1, record 3, mbus:2A-error: the number has the digit"), "{problems:?}");
}
