use proptest::prelude::*;

use super::*;
use crate::metering::ObisCode;

const EXAMPLE: &str = r#"{"meter":"SIM:000001","captured_at":"2026-11-23T02:35:15Z","readings":[{"code":"1-0:1.8.0","kind":"register","value":12345.678,"unit":"kWh"},{"code":"1-0:1.7.0","kind":"instant","value":"0.951","unit":"kW","quality":"good"}]}"#;

fn telegram(payload: &str) -> Telegram {
    decode(payload.as_bytes()).unwrap()
}

/// Decodes a payload with these readings and tells what became of it.
fn readings(list: &str) -> Telegram {
    telegram(&format!(r#"{{"meter":"SIM:1","captured_at":"2026-11-23T02:35:15Z","readings":[{list}]}}"#))
}

/// The one problem of a payload with this single reading.
fn problem(reading: &str) -> String {
    let telegram = readings(reading);
    assert_eq!(telegram.readings, [], "{reading}");
    assert_eq!(telegram.problems.len(), 1, "{reading}");
    telegram.problems[0].to_string()
}

#[test]
fn the_documented_example_is_read_exactly() {
    let telegram = telegram(EXAMPLE);
    let at = UtcMillis(1_795_401_315_000);
    assert_eq!(telegram.meter.as_str(), "SIM:000001");
    assert_eq!(telegram.problems, []);
    assert_eq!(
        telegram.readings,
        [
            TelegramReading::new(
                ObisCode::new(1, 0, 1, 8, 0, 255),
                Kind::Register,
                at,
                Quantity::new(12_345_678, 0, Unit::WATT_HOUR)
            ),
            TelegramReading::new(
                ObisCode::new(1, 0, 1, 7, 0, 255),
                Kind::Instant,
                at,
                Quantity::new(951, 0, Unit::WATT)
            ),
        ]
    );
    assert_eq!(
        encode(&telegram.meter, at, &telegram.readings).parse::<serde_json::Value>().unwrap()["readings"][0]["unit"],
        "kWh"
    );
}

#[test]
fn the_example_in_the_documentation_is_the_tested_one() {
    let source = include_str!("../minimal.rs");
    let example: String = source
        .lines()
        .skip_while(|line| *line != "//! ```json")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!").trim())
        .collect();
    assert_eq!(decode(example.as_bytes()).unwrap(), telegram(EXAMPLE));
}

#[test]
fn every_optional_field_is_read() {
    let telegram = readings(
        r#"{"code":"1-0:1.29.0","kind":"interval","period_s":1800,"captured_at":"2026-11-23T02:30:00+01:00","nth":2,
            "value":"0.250","unit":"kWh","quality":"clock-invalid|power-failure","colour":{"ignored":[1]},"occurred_at":null},
           {"code":"1-0:1.6.0","kind":"maximum","value":4.1,"unit":"kW","occurred_at":"2026-11-20T17:15:00Z"},
           {"code":"cad:water","value":1e3,"unit":"l"}"#,
    );
    assert_eq!(telegram.problems, []);
    let [interval, maximum, water] = &telegram.readings[..] else { panic!("{telegram:?}") };
    assert_eq!((interval.kind, interval.period_s, interval.nth), (Kind::Interval, 1800, 2));
    assert_eq!(interval.captured_at.to_string(), "2026-11-23T01:30:00Z");
    assert_eq!(interval.quantity, Quantity::new(250, 0, Unit::WATT_HOUR));
    assert_eq!(interval.quality, Quality::CLOCK_INVALID.with(Quality::POWER_FAILURE));
    assert_eq!(maximum.occurred_at.map(|at| at.to_string()), Some("2026-11-20T17:15:00Z".to_owned()));
    assert_eq!((water.kind, water.quantity), (Kind::Register, Quantity::new(1, 3, Unit(19))));
}

#[test]
fn numbers_that_no_float_holds_stay_exact() {
    let telegram = readings(
        r#"{"code":"1-0:1.8.0","value":900719925474099.3123,"unit":"kWh"},
           {"code":"1-0:2.8.0","value":9007199254740993,"unit":"Wh"},
           {"code":"1-0:3.8.0","value":0.10,"unit":"kvarh"}"#,
    );
    assert_eq!(telegram.problems, []);
    let quantities: Vec<_> = telegram.readings.iter().map(|reading| reading.quantity).collect();
    assert_eq!(
        quantities,
        [
            Quantity::new(9_007_199_254_740_993_123, -1, Unit::WATT_HOUR),
            Quantity::new(9_007_199_254_740_993, 0, Unit::WATT_HOUR),
            Quantity::new(10, 1, Unit::VAR_HOUR),
        ]
    );
}

#[test]
fn each_bad_field_is_named_with_its_reading() {
    let cases = [
        (r#"{"value":1,"unit":"kWh"}"#, "readings[0].code: missing"),
        (r#"{"code":7,"value":1,"unit":"kWh"}"#, "readings[0].code: a number where a string was expected"),
        (r#"{"code":"1.8","value":1,"unit":"kWh"}"#, "readings[0].code: \"1.8\" is no code"),
        (r#"{"code":"1-0:1.8.0","unit":"kWh"}"#, "readings[0].value: missing"),
        (r#"{"code":"1-0:1.8.0","value":null,"unit":"kWh"}"#, "readings[0].value: missing"),
        (
            r#"{"code":"1-0:1.8.0","value":true,"unit":"kWh"}"#,
            "readings[0].value: a boolean where a number or a string with a decimal was expected",
        ),
        (r#"{"code":"1-0:1.8.0","value":"12,5","unit":"kWh"}"#, "readings[0].value: \"12,5\" is no decimal"),
        (r#"{"code":"1-0:1.8.0","value":"NaN","unit":"kWh"}"#, "readings[0].value: \"NaN\" is no decimal"),
        (r#"{"code":"1-0:1.8.0","value":NaN,"unit":"kWh"}"#, "readings[0].value: \"NaN\" is no decimal"),
        (r#"{"code":"1-0:1.8.0","value":-Infinity,"unit":"kWh"}"#, "readings[0].value: \"-Infinity\" is no decimal"),
        (r#"{"code":"1-0:1.8.0","value":1e999,"unit":"kWh"}"#, "readings[0].value: a value of more than 18 digits"),
        (r#"{"code":"1-0:1.8.0","value":99999999999999999999,"unit":"kWh"}"#, "readings[0].value: a value of more"),
        (r#"{"code":"1-0:1.8.0","value":1}"#, "readings[0].unit: missing"),
        (r#"{"code":"1-0:1.8.0","value":1,"unit":"kwh"}"#, "readings[0].unit: \"kwh\" is no unit"),
        (r#"{"code":"1-0:1.8.0","value":1,"unit":"kW"}"#, "readings[0].unit: a value in W where Wh is meant"),
        (r#"{"code":"1-0:1.8.0","kind":"total","value":1,"unit":"kWh"}"#, "readings[0].kind: \"total\" is unknown"),
        (r#"{"code":"1-0:1.8.0","kind":"interval","value":1,"unit":"kWh"}"#, "readings[0].period_s: missing"),
        (
            r#"{"code":"1-0:1.8.0","period_s":60,"value":1,"unit":"kWh"}"#,
            "readings[0].period_s: not for a reading of kind register",
        ),
        (
            r#"{"code":"1-0:1.8.0","kind":"interval","period_s":-1,"value":1,"unit":"kWh"}"#,
            "readings[0].period_s: a number where a number of seconds was expected",
        ),
        (r#"{"code":"1-0:1.8.0","nth":256,"value":1,"unit":"kWh"}"#, "readings[0].nth: a number where an integer from"),
        (
            r#"{"code":"1-0:1.8.0","captured_at":"now","value":1,"unit":"kWh"}"#,
            "readings[0].captured_at: \"now\" is no",
        ),
        (
            r#"{"code":"1-0:1.8.0","captured_at":"9999-12-31T23:59:59-01:00","value":1,"unit":"kWh"}"#,
            "readings[0].captured_at: \"9999-12-31T23:59:59-01:00\" is no instant",
        ),
        (r#"{"code":"1-0:1.8.0","quality":"fine","value":1,"unit":"kWh"}"#, "readings[0].quality: \"fine\" is unknown"),
        (
            r#"{"code":"1-0:1.8.0","occurred_at":"2026-11-20T17:15:00Z","value":1,"unit":"kWh"}"#,
            "readings[0].occurred_at: not for a reading of kind register",
        ),
        (r#"{"code":"1-0:1.8.0","value":1,"value":2,"unit":"kWh"}"#, "readings[0].value: given more than once"),
        (r#"{"code":"\ud800","value":1,"unit":"kWh"}"#, "readings[0].code: a string where text was expected"),
        ("[1,[2]]", "readings[0].reading: an array where an object was expected"),
        ("null", "readings[0].reading: null where an object was expected"),
        ("-1.5", "readings[0].reading: a number where an object was expected"),
    ];
    for (reading, expected) in cases {
        let message = problem(reading);
        assert!(message.starts_with(expected), "{reading}\n{message}\n{expected}");
    }
}

#[test]
fn one_bad_reading_does_not_spoil_the_others() {
    let good = r#"{"code":"1-0:1.8.0","value":1,"unit":"kWh"}"#;
    let telegram = readings(&format!(r#"{{"code":3}},"x",{good},{{"code":"1-0:2.8.0","value":NaN,"unit":"kWh"}}"#));
    assert_eq!(telegram.readings.len(), 1);
    let wrong: Vec<_> = telegram.problems.iter().map(|problem| (problem.reading, problem.field)).collect();
    assert_eq!(wrong, [(Some(0), "code"), (Some(1), "reading"), (Some(3), "value")]);
}

#[test]
fn of_two_readings_with_the_same_identity_the_first_counts() {
    let one = |code: &str, value: u32| format!(r#"{{"code":"{code}","value":{value},"unit":"kWh"}}"#);
    let twice = readings(&[one("1-0:1.8.0", 1), one("1-0:2.8.0", 2), one("1-0:1.8.0", 3)].join(","));
    assert_eq!(twice.readings.len(), 2);
    assert_eq!(twice.problems[0].error, FieldError::Duplicate { first: 0 });
    // Beyond what is compared one by one.
    let many: Vec<_> = (0..100).map(|n| one(&format!("1-0:1.8.{}", n % 60), n)).collect();
    let many = readings(&many.join(","));
    assert_eq!(many.readings.len(), 60);
    let firsts: Vec<_> = many.problems.iter().map(|problem| problem.error.clone()).collect();
    assert_eq!(firsts, (0..40).map(|first| FieldError::Duplicate { first }).collect::<Vec<_>>());
    // Another nth is another identity.
    assert_eq!(
        readings(r#"{"code":"cad:x","value":1,"unit":"l"},{"code":"cad:x","nth":1,"value":1,"unit":"l"}"#).problems,
        []
    );
}

#[test]
fn a_missing_instant_spoils_only_readings_without_their_own() {
    let payload = r#"{"meter":"SIM:1","readings":[
        {"code":"1-0:1.8.0","value":1,"unit":"kWh"},
        {"code":"1-0:1.8.0","captured_at":"2026-11-23T02:30:00Z","value":1,"unit":"kWh"}]}"#;
    let without = telegram(payload);
    assert_eq!(without.readings.len(), 1);
    assert_eq!(without.problems[0].to_string(), "readings[0].captured_at: missing");
    let bad = telegram(&payload.replace("\"readings\"", "\"captured_at\":\"2026-11-23T02:30:00\",\"readings\""));
    assert_eq!(bad.readings.len(), 1);
    assert_eq!((bad.problems[0].reading, bad.problems[0].field), (None, "captured_at"));
}

#[test]
fn an_unusable_envelope_is_an_error_that_names_the_field() {
    let cases = [
        (r#"{"readings":[]}"#, "field meter: missing"),
        (r#"{"meter":1,"readings":[]}"#, "field meter: a number where a string was expected"),
        (r#"{"meter":"a/b","readings":[]}"#, "field meter: a meter id holds"),
        (r#"{"meter":"x"}"#, "field readings: missing"),
        (r#"{"meter":"x","readings":{}}"#, "the payload is no JSON object of the expected shape"),
        ("", "the payload is no JSON object of the expected shape"),
        ("[]", "the payload is no JSON object of the expected shape"),
        (r#"{"meter":"x","readings":[]} x"#, "the payload is no JSON object of the expected shape"),
    ];
    for (payload, expected) in cases {
        let message = decode(payload.as_bytes()).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{payload}: {message}");
    }
    assert!(matches!(decode(b"{\"meter\":\"\xff\"}"), Err(DecodeError::NotUtf8 { valid_up_to: 10 })));
    assert!(matches!(decode("[".repeat(60_000).as_bytes()), Err(DecodeError::Json(_))));
}

#[test]
fn limits_hold_exactly() {
    let some = |count: usize| {
        let one = |n: usize| format!(r#"{{"code":"x:{n}","value":1,"unit":"V"}}"#);
        let list: Vec<_> = (0..count).map(one).collect();
        format!(r#"{{"meter":"x","captured_at":"2026-11-23T02:30:00Z","readings":[{}]}}"#, list.join(","))
    };
    assert_eq!(telegram(&some(READINGS_MAX)).readings.len(), READINGS_MAX);
    assert!(matches!(decode(some(READINGS_MAX + 1).as_bytes()), Err(DecodeError::TooManyReadings { count: 1_001 })));
    let padded = |len: usize| EXAMPLE.to_owned() + &" ".repeat(len - EXAMPLE.len());
    assert!(decode(padded(super::super::PAYLOAD_LEN_MAX).as_bytes()).is_ok());
    assert!(matches!(decode(padded(65_537).as_bytes()), Err(DecodeError::TooLong { len: 65_537 })));
}

#[test]
fn the_schema_speaks_of_the_same_fields_and_limits() {
    let schema: serde_json::Value = SCHEMA.parse().unwrap();
    assert_eq!(schema["properties"]["readings"]["maxItems"], READINGS_MAX);
    let reading = &schema["$defs"]["reading"];
    let kinds: Vec<_> = reading["properties"]["kind"]["enum"].as_array().unwrap().iter().collect();
    assert_eq!(kinds, Kind::ALL.map(Kind::name));
    let mut fields: Vec<_> = reading["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let known = ["captured_at", "code", "kind", "nth", "occurred_at", "period_s", "quality", "unit", "value"];
    assert_eq!(fields, known);
}

#[test]
fn topics_carry_the_meter() {
    let meter = MeterId::new("SIM:000001").unwrap();
    assert_eq!(topic(&meter), "meterpost/cad/SIM:000001/reading");
    assert_eq!(meter_of_topic(&topic(&meter)), Some(meter));
    assert_eq!(meter_of_topic("meterpost/cad/a/b/reading"), None);
}

fn any_reading() -> impl Strategy<Value = TelegramReading> {
    let code = prop_oneof![
        "cad:[a-z.]{1,12}".prop_map(|text| text.parse::<Code>().unwrap()),
        (any::<[u8; 6]>(), any::<u8>())
            .prop_filter("a code whose unit is fixed", |(groups, _)| unit_of(ObisCode(*groups)).is_none())
            .prop_map(|(groups, attribute)| Code::Obis { obis: ObisCode(groups), attribute }),
    ];
    let instant = || (UtcMillis::MIN.0..=UtcMillis::MAX.0).prop_map(UtcMillis);
    let quantity = (any::<i64>(), -99..=99i8, any::<u8>())
        .prop_map(|(mantissa, scaler, unit)| Quantity::new(mantissa, scaler, Unit(unit)));
    let kind = prop::sample::select(&Kind::ALL[..]);
    (code, kind, 1..u32::MAX, (instant(), proptest::option::of(instant())), any::<u8>(), quantity, any::<u32>())
        .prop_map(|(code, kind, period_s, (captured_at, occurred_at), nth, quantity, quality)| TelegramReading {
            code,
            kind,
            period_s: if kind.has_period() { period_s } else { 0 },
            captured_at,
            nth,
            quantity,
            quality: Quality(quality),
            occurred_at: occurred_at.filter(|_| matches!(kind, Kind::Maximum | Kind::Billing)),
            stamped_by: StampedBy::Meter,
        })
}

proptest! {
    #[test]
    fn encode_and_decode_round_trip(readings in prop::collection::vec(any_reading(), 0..20)) {
        let meter = MeterId::new("SIM:1").unwrap();
        let text = encode(&meter, readings.first().map_or(UtcMillis(0), |reading| reading.captured_at), &readings);
        let telegram = decode(text.as_bytes()).unwrap();
        let unique = readings.iter().enumerate().all(|(n, one)| readings[..n].iter().all(|earlier| !earlier.same_identity(one)));
        if unique {
            prop_assert_eq!(telegram.problems, []);
            prop_assert_eq!(telegram.readings, readings);
        }
    }

    #[test]
    fn no_payload_panics(text in "[\\[\\]{}\",:a-zA-Z0-9 .\\\\-]{0,200}") {
        drop(decode(text.as_bytes()));
    }
}
