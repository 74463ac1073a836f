use proptest::prelude::*;

use super::*;

/// Shape of what a Glow stick publishes, with figures of our own.
const ELECTRICITY: &str = r#"{"electricitymeter":{"timestamp":"2026-06-24T13:02:29Z","energy":{"export":{"cumulative":0.412,"units":"kWh"},"import":{"cumulative":4711.563,"day":10.464,"week":85.675,"month":512.937,"units":"kWh","mpan":"2000000000123","supplier":"Example Energy","price":{"unitrate":0.3,"standingcharge":0.4457}}},"power":{"value":0.623,"units":"kW"}}}"#;
const GAS: &str = r#"{"gasmeter":{"timestamp":"2026-06-30T13:53:28Z","energy":{"import":{"cumulative":2713.756,"day":2.591,"week":17.044,"month":244.627,"units":"kWh","cumulativevol":244.238,"cumulativevolunits":"m3","dayvol":2.591,"weekvol":17.044,"monthvol":244.627,"dayweekmonthvolunits":"kWh","mprn":"---","supplier":"---","price":{"unitrate":0.0736,"standingcharge":0.2722}}}}}"#;

fn electricity(payload: &str) -> Telegram {
    decode(Topic::Electricity { device: "4C11AE000001" }, payload.as_bytes()).unwrap().unwrap()
}

fn gas(payload: &str) -> Telegram {
    decode(Topic::Gas { device: "4C11AE000001" }, payload.as_bytes()).unwrap().unwrap()
}

fn values(telegram: &Telegram) -> Vec<String> {
    let show = |reading: &TelegramReading| format!("{} {} {}", reading.code, reading.kind, reading.quantity);
    telegram.readings.iter().map(show).collect()
}

fn problems(telegram: &Telegram) -> Vec<String> {
    telegram.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_electricity_meter_has_import_export_and_power() {
    let telegram = electricity(ELECTRICITY);
    assert_eq!(telegram.meter.as_str(), "GLOW:4C11AE000001:electricity");
    assert_eq!(telegram.metering_point.as_deref(), Some("2000000000123"));
    assert_eq!(
        values(&telegram),
        ["1-0:1.8.0 register 4711563 Wh", "1-0:2.8.0 register 412 Wh", "1-0:1.7.0 instant 623 W"]
    );
    assert!(telegram.readings.iter().all(|reading| reading.captured_at.to_string() == "2026-06-24T13:02:29Z"));
    assert_eq!(telegram.problems, []);
}

#[test]
fn a_gas_meter_has_volume_and_energy_under_codes_of_their_own() {
    let telegram = gas(GAS);
    assert_eq!(telegram.meter.as_str(), "GLOW:4C11AE000001:gas");
    assert_eq!(telegram.metering_point, None);
    assert_eq!(
        values(&telegram),
        ["cad:gas.import.volume register 244.238 m3", "cad:gas.import.energy register 2713756 Wh"]
    );
    assert_eq!(telegram.problems, []);
}

#[test]
fn exporting_is_negative_power_and_the_types_no_value_is_no_reading() {
    let exporting = electricity(&ELECTRICITY.replace("0.623", "-1.250"));
    assert_eq!(values(&exporting)[2], "1-0:1.7.0 instant -1250 W");
    let none = electricity(&ELECTRICITY.replace("0.623", "-8388.608"));
    assert_eq!(values(&none).len(), 2);
    assert_eq!(problems(&none), ["power.value: the device has no value: -8388608 W"]);
}

#[test]
fn a_field_without_a_value_costs_that_field_only() {
    for text in ["\"---\"", "\"not available\"", "\"\""] {
        let telegram = electricity(&ELECTRICITY.replace("4711.563", text));
        assert_eq!(values(&telegram), ["1-0:2.8.0 register 412 Wh", "1-0:1.7.0 instant 623 W"]);
        assert!(problems(&telegram)[0].starts_with("energy.import.cumulative: the device has no value: "));
    }
    let telegram = electricity(&ELECTRICITY.replace("4711.563", "null"));
    assert_eq!((telegram.readings.len(), telegram.problems.len()), (2, 0));
    let telegram = electricity(&ELECTRICITY.replace("4711.563", "NaN"));
    assert_eq!((telegram.readings.len(), telegram.problems.len()), (2, 1));
}

#[test]
fn a_field_that_changes_its_type_is_read_or_named() {
    let text =
        electricity(&ELECTRICITY.replace("4711.563", "\"4711.563\"").replace("\"2000000000123\"", "2000000000123"));
    assert_eq!(values(&text)[0], "1-0:1.8.0 register 4711563 Wh");
    assert_eq!(text.metering_point.as_deref(), Some("2000000000123"));
    let boolean = electricity(&ELECTRICITY.replace("0.623", "false"));
    assert_eq!(problems(&boolean), ["power.value: a boolean where a number or a string with a decimal was expected"]);
    let flat = electricity(&ELECTRICITY.replace("{\"value\":0.623,\"units\":\"kW\"}", "0.623"));
    assert_eq!(problems(&flat), ["power: a number where an object was expected"]);
    assert_eq!(flat.readings.len(), 2);
}

#[test]
fn absurd_registers_are_problems() {
    for (text, shown) in [("281474976710.655", "281474976710655 Wh"), ("-1.0", "-10e2 Wh")] {
        let telegram = electricity(&ELECTRICITY.replace("4711.563", text));
        assert_eq!(telegram.readings.len(), 2, "{text}");
        assert_eq!(problems(&telegram), [format!("energy.import.cumulative: {shown} cannot be")]);
    }
}

#[test]
fn gas_in_the_wrong_unit_is_never_stored_as_volume() {
    let kwh = gas(&GAS.replace("\"cumulativevolunits\":\"m3\"", "\"cumulativevolunits\":\"kWh\""));
    assert_eq!(problems(&kwh), ["energy.import.cumulativevol: a value in Wh where m3 is meant"]);
    let equal = gas(&GAS.replace("\"cumulativevol\":244.238", "\"cumulativevol\":2713.756"));
    assert_eq!(problems(&equal), ["energy.import.cumulativevol: 2713.756 m3 for 2713756 Wh cannot be"]);
    assert_eq!(values(&equal), ["cad:gas.import.energy register 2713756 Wh"]);
    let volume_as_energy = gas(&GAS.replace("\"units\":\"kWh\"", "\"units\":\"m3\""));
    assert_eq!(problems(&volume_as_energy), ["energy.import.cumulative: a value in m3 where Wh is meant"]);
    assert_eq!(values(&volume_as_energy), ["cad:gas.import.volume register 244.238 m3"]);
    let without_unit = gas(&GAS.replace("\"cumulativevolunits\":\"m3\",", ""));
    assert_eq!(problems(&without_unit), ["energy.import.cumulativevol: missing"]);
}

#[test]
fn an_older_gas_payload_has_energy_only() {
    let payload = r#"{"gasmeter":{"timestamp":"2026-06-24T13:13:30Z","energy":{"export":{"cumulative":0,"units":"kWh"},"import":{"cumulative":6728.026,"day":0,"units":"kWh","mprn":"EMPTY","supplier":"---"}},"power":{"value":0,"units":"kW"}}}"#;
    let telegram = gas(payload);
    assert_eq!(values(&telegram), ["cad:gas.import.energy register 6728026 Wh"]);
    assert_eq!((telegram.metering_point, telegram.problems), (None, vec![]));
}

#[test]
fn topics_are_told_apart() {
    let device = "4C11AE000001";
    assert_eq!(Topic::parse(&electricity_topic(device)), Some(Topic::Electricity { device }));
    assert_eq!(Topic::parse(&gas_topic(device)), Some(Topic::Gas { device }));
    assert_eq!(Topic::parse("glow/4C11AE000001/STATE"), Some(Topic::State { device }));
    for topic in ["", "glow", "glow//STATE", "glow/x/SENSOR", "glow/x/SENSOR/watermeter", "other/x/STATE"] {
        assert_eq!(Topic::parse(topic), None, "{topic}");
    }
    assert!(matches!(decode(Topic::State { device }, b"{\"timestamp\":1}"), Ok(None)));
}

#[test]
fn an_unusable_payload_is_an_error_that_names_the_field() {
    let cases = [
        ("{}", "field electricitymeter: missing"),
        (r#"{"electricitymeter":{"energy":{}}}"#, "field timestamp: missing"),
        (r#"{"electricitymeter":{"timestamp":"soon"}}"#, "field timestamp: \"soon\" is no instant"),
        (r#"{"electricitymeter":"---"}"#, "the payload is no JSON object"),
        ("x", "the payload is no JSON object"),
    ];
    for (payload, expected) in cases {
        let message = decode(Topic::Electricity { device: "x" }, payload.as_bytes()).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{payload}: {message}");
    }
}

proptest! {
    #[test]
    fn encode_and_decode_round_trip(
        seconds in 946_684_800..4_102_444_800i64,
        import in 0..100_000_000_000i64,
        power in -8_388_607..8_388_607i64,
        mpan in proptest::option::of("[0-9]{13}"),
    ) {
        let captured_at = UtcMillis(seconds * 1000);
        let wh = |mantissa| Quantity::new(mantissa, 0, Unit::WATT_HOUR);
        let meter = ElectricityMeter {
            captured_at, import: wh(import), export: wh(import / 7), power: Quantity::new(power, 0, Unit::WATT), mpan,
        };
        let telegram = electricity(&meter.encode());
        prop_assert_eq!(&telegram.problems, &[]);
        let quantities: Vec<_> = telegram.readings.iter().map(|reading| (reading.captured_at, reading.quantity)).collect();
        prop_assert_eq!(quantities, [meter.import, meter.export, meter.power].map(|quantity| (captured_at, quantity)));
        prop_assert_eq!(telegram.metering_point, meter.mpan);

        let meter = GasMeter { captured_at, energy: wh(import), volume: Quantity::new(import / 11, -3, Unit::CUBIC_METRE), mprn: None };
        let telegram = gas(&meter.encode());
        prop_assert_eq!(&telegram.problems, &[]);
        let quantities: Vec<_> = telegram.readings.iter().map(|reading| reading.quantity).collect();
        prop_assert_eq!(quantities, [meter.volume, meter.energy]);
    }
}
