use proptest::prelude::*;

use super::*;
use crate::iec62056_21::{LinesBuilder, MeterClock, ProfileHeader, StampForm};
use crate::metering::Quantity;
use crate::p1::Layout;

const AT: &str = "2026-11-23T02:35:15Z";

fn decode_with(content: &str, settings: &Settings) -> Profile {
    let block = DataBlock { identification: None, content: content.into(), quality: Quality::GOOD };
    Profile::decode(&block, settings, AT.parse().unwrap())
}

fn decode(content: &str) -> Profile {
    decode_with(content, &Settings::default())
}

fn shown(profile: &Profile) -> Vec<String> {
    let show = |reading: &TelegramReading| {
        let TelegramReading { code, kind, period_s, captured_at, nth, quantity, quality, .. } = reading;
        let nth = if *nth == 0 { String::new() } else { format!("#{nth}") };
        let quality = if *quality == Quality::GOOD { String::new() } else { format!(" {quality}") };
        format!("{code} {kind} {period_s} {quantity} @{captured_at}{nth}{quality}")
    };
    profile.readings.iter().map(show).collect()
}

fn problems(profile: &Profile) -> Vec<String> {
    profile.problems.iter().map(ToString::to_string).collect()
}

/// Profiles of EMH and MetCom meters, from the public tests of Runamook/iec_62056-21.
#[test]
fn profiles_of_two_makers_read_as_the_eye_does() {
    let emh = "P.01(1220823161500)(00000000)(15)(6)(1.5)(kW)(2.5)(kW)(5.5)(kvar)(6.5)(kvar)(7.5)(kvar)(8.5)(kvar)\r\n\
        (0.18374)(0.00078)(0.00000)(0.00006)(0.00087)(0.02431)\r\n(0.16832)(0.00000)(0.00000)(0.00000)(0.00000)(0.02686)";
    let profile = decode(emh);
    assert_eq!(problems(&profile), [""; 0]);
    assert_eq!(profile.readings.len(), 12);
    assert_eq!(
        shown(&profile)[5..8],
        [
            "1-0:8.5.0 average 900 24.31 var @2022-08-23T14:15:00Z",
            "1-0:1.5.0 average 900 168.32 W @2022-08-23T14:30:00Z",
            "1-0:2.5.0 average 900 0.00 W @2022-08-23T14:30:00Z",
        ]
    );
    // Status 08 is summer time, which says nothing about values.
    let metcom = "P.01(1220823150000)(08)(15)(6)(1-0:1.5.0)(kW)(1-0:2.5.0)(kW)(1-0:5.5.0)(kvar)(1-0:6.5.0)(kvar)(1-0:7.5.0)(kvar)\
        (1-0:8.5.0)(kvar)\r\n(0.00000)(0.12683)(0.00000)(0.11411)(0.00000)(0.00000)\r\n";
    let profile = decode(metcom);
    assert_eq!((problems(&profile).len(), profile.readings.len()), (0, 6));
    assert_eq!(shown(&profile)[1], "1-0:2.5.0 average 900 126.83 W @2022-08-23T13:00:00Z");
    let energies = "P.01(1221005001500)(00000000)(15)(2)(1-1:1.29)(kWh)(1-2:1.29)(kWh)\r\n(0.00000)(0.04088)\r\n";
    assert_eq!(shown(&decode(energies))[1], "1-2:1.29.0 interval 900 40.88 Wh @2022-10-04T22:15:00Z");
    let registers = "P.01(1190728163000)(08)(15)(2)(1-0:1.5.0)(kW)(1-0:2.8.0)(kWh)\r\n(0.0000)(00203.845)\r\n";
    assert_eq!(shown(&decode(registers))[1], "1-0:2.8.0 register 0 203845 Wh @2019-07-28T14:30:00Z");
}

// Negative control: let `status_quality` forget the power that returned.
#[test]
fn the_status_of_a_header_marks_its_rows() {
    let of = |status: &str| {
        let content = format!("P.01(0260101001500)({status})(15)(1)(1.5)(kW)\r\n(1)\r\n");
        decode(&content).readings.first().map(|reading| reading.quality.to_string())
    };
    for (status, quality) in [
        ("00", "good"),
        ("", "good"),
        ("08", "good"),
        ("10", "good"),
        ("80", "power-failure"),
        ("40", "power-failure"),
        ("20", "clock-adjusted"),
        ("04", "not-valid"),
        ("02", "clock-invalid"),
        ("01", "critical-error"),
        ("00008020", "clock-adjusted"),
        ("A4", "not-valid|clock-adjusted|power-failure"),
    ] {
        assert_eq!(of(status).as_deref(), Some(quality), "{status}");
    }
    assert_eq!(of("xyz"), None);
}

#[test]
fn each_header_begins_anew() {
    let content = "P.01(0260101001500)(00)(15)(1)(1.5)(kW)\r\n(1)\r\n(2)\r\nP.01(0260101010000)(80)(15)(1)(1.5)(kW)\r\n(3)\r\n\
        P.01(0260101010000)(40)(15)(1)(1.5)(kW)\r\n(4)\r\n";
    assert_eq!(
        shown(&decode(content)),
        [
            "1-0:1.5.0 average 900 1e3 W @2025-12-31T23:15:00Z",
            "1-0:1.5.0 average 900 2e3 W @2025-12-31T23:30:00Z",
            "1-0:1.5.0 average 900 3e3 W @2026-01-01T00:00:00Z power-failure",
            "1-0:1.5.0 average 900 4e3 W @2026-01-01T00:00:00Z#1 power-failure",
        ]
    );
}

#[test]
fn a_header_without_its_address_and_values_on_its_line_are_read() {
    // As a reader of public origin has them: the answer to R5 begins with the stamp.
    let content = "(0191128152324)(00)(01)(2)(1.5)(W)(11.5)(A)\r\n(230)(1.5)\r\n(0191128152500)(00)(01)(2)(1.5)(W)(11.5)(A)(231)(1.6)\r\n";
    assert_eq!(
        shown(&decode(content)),
        [
            "1-0:1.5.0 average 60 230 W @2019-11-28T14:23:24Z",
            "1-0:11.5.0 average 60 1.5 A @2019-11-28T14:23:24Z",
            "1-0:1.5.0 average 60 231 W @2019-11-28T14:25:00Z",
            "1-0:11.5.0 average 60 1.6 A @2019-11-28T14:25:00Z",
        ]
    );
}

// Negative control: let `lose_row` do nothing.
#[test]
fn what_cannot_be_read_keeps_the_others_in_their_place() {
    let content =
        "P.01(0260101001500)(00)(15)(2)(1.5)(kW)(2.5)(kW)\r\n(1)(x)\r\n(2\r\n(3)(3)(3)\r\n()(--)\r\n(5)(5)\r\n";
    let profile = decode(content);
    assert_eq!(
        shown(&profile),
        [
            "1-0:1.5.0 average 900 1e3 W @2025-12-31T23:15:00Z",
            "1-0:1.5.0 average 900 5e3 W @2026-01-01T00:15:00Z",
            "1-0:2.5.0 average 900 5e3 W @2026-01-01T00:15:00Z",
        ]
    );
    assert_eq!(
        problems(&profile),
        [
            "line 2: \"x\" is no decimal number",
            "line 3: the line has no group or unbalanced parentheses",
            "line 4: 3 groups do not fit",
        ]
    );
}

#[test]
fn a_header_that_cannot_be_read_takes_its_rows_with_it() {
    for header in [
        "P.01(x)(00)(15)(1)(1.5)(kW)",
        "P.01(0260101001500)(zz)(15)(1)(1.5)(kW)",
        "P.01(0260101001500)(00)(0)(1)(1.5)(kW)",
        "P.01(0260101001500)(00)(99999)(1)(1.5)(kW)",
        "P.01(0260101001500)(00)(15)(0)",
        "P.01(0260101001500)(00)(15)(65)(1.5)(kW)",
        "P.01(0260101001500)(00)(15)(2)(1.5)(kW)",
        "P.01(0260101001500)(00)(15)(1)(1.5)(kkW)",
        "P.01(0260101001500)",
    ] {
        let profile = decode(&format!("P.01(0260101001500)(00)(15)(1)(1.5)(kW)\r\n{header}\r\n(1)\r\n"));
        assert_eq!(profile.readings, [], "{header}");
        assert_eq!(profile.problems.len(), 2, "{header} {:?}", profile.problems);
        assert_eq!(profile.problems[1].error, LineError::NoHeader, "{header}");
    }
}

#[test]
fn a_label_may_be_the_start_of_the_period() {
    let settings = Settings { profile_label: ProfileLabel::Start, ..Settings::default() };
    let profile = decode_with("P.01(0260101000000)(00)(15)(1)(1.5)(kW)\r\n(1)\r\n", &settings);
    assert_eq!(shown(&profile), ["1-0:1.5.0 average 900 1e3 W @2025-12-31T23:15:00Z"]);
}

// Negative control: leave out `due` in `label`.
#[test]
fn a_header_in_the_doubled_hour_goes_on_where_the_rows_before_ended() {
    let header = |stamp: &str| format!("P.01({stamp})(00)(30)(1)(1.5)(kW)\r\n");
    let content =
        format!("{}(1)\r\n{}(2)\r\n(3)\r\n{}(4)\r\n", header("2610250200"), header("2610250230"), header("2610250230"));
    let found: Vec<_> =
        decode(&content).readings.iter().map(|one| (one.captured_at.to_string(), one.quality)).collect();
    let derived = Quality::LABEL_DERIVED;
    assert_eq!(
        found,
        [
            // The first has nothing to go by: as late as it can be.
            ("2026-10-25T01:00:00Z".to_owned(), derived),
            ("2026-10-25T01:30:00Z".to_owned(), derived),
            ("2026-10-25T02:00:00Z".to_owned(), derived),
            ("2026-10-25T01:30:00Z".to_owned(), derived),
        ]
    );
    let content = format!("{}(1)\r\n{}(2)\r\n", header("2610250200").replace("P.01(", "P.01(1"), header("2610250230"));
    let found: Vec<_> =
        decode(&content).readings.iter().map(|one| (one.captured_at.to_string(), one.quality)).collect();
    assert_eq!(
        found,
        [("2026-10-25T00:00:00Z".to_owned(), Quality::GOOD), ("2026-10-25T00:30:00Z".to_owned(), Quality::GOOD)]
    );
}

proptest! {
    #[test]
    fn what_the_builder_writes_is_read_back(
        minutes in 15_778_000..68_000_000i64,
        period in 1..1440u32,
        status in any::<u8>(),
        rows in prop::collection::vec(prop::collection::vec(prop::option::of(0..99_999i64), 2), 0..40),
    ) {
        let first = UtcMillis(minutes * 60_000);
        let watts = |mantissa| Quantity::new(mantissa, 0, Unit::WATT);
        let quantities: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|value| value.map(watts)).collect()).collect();
        let header = ProfileHeader { address: "P.01", first, status, period_minutes: period, channels: &[("1.5", Layout::POWER), ("2.5", Layout::POWER)] };
        let lines = LinesBuilder::new(MeterClock::CET, StampForm::Zst13).profile(&header, &quantities).unwrap().finish();
        let profile = decode(std::str::from_utf8(&lines).unwrap());
        prop_assert_eq!(problems(&profile), [""; 0]);
        let expected: Vec<_> = rows
            .iter()
            .enumerate()
            .flat_map(|(row, values)| {
                let at = first.plus_ms(row as i64 * i64::from(period) * 60_000);
                values.iter().zip([1u8, 2]).filter_map(move |(value, c)| value.map(|value| (at, c, watts(value))))
            })
            .collect();
        let found: Vec<_> = profile
            .readings
            .iter()
            .map(|one| match one.code {
                Code::Obis { obis, .. } => (one.captured_at, obis.0[2], one.quantity),
                Code::Source(_) => panic!(),
            })
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_octets_panic(content in prop::collection::vec(prop::sample::select(&b"P.01(0260101001500)(00)(15)(1)(1.5)(kW)\r\n-*"[..]), 0..300)) {
        let text = String::from_utf8(content).unwrap();
        drop(decode(&text));
        drop(decode(&format!("P.01(0260101001500)(00)(15)(1)(1.5)(kW)\r\n{text}")));
    }
}
