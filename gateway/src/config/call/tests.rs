use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::config::metering::{MeterProtocol, Source};
use crate::config::{Checked, Config};

const SERIAL: &str = "serial = \"/dev/x\"\n";
const TCP: &str = "tcp = \"a:1\"\n";

fn parse(line: &str, meters: &[&str]) -> Result<Checked, String> {
    let mut text = format!("[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\n{line}");
    for (number, rest) in meters.iter().enumerate() {
        let protocol = if rest.contains("protocol") { "" } else { "protocol = \"iec62056-21\"\n" };
        write!(text, "[[meter]]\nname = \"m{number}\"\nline = \"l\"\n{protocol}{rest}").unwrap();
    }
    Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).map_err(|error| error.to_string())
}

fn call(checked: &Checked) -> Arc<CallSettings> {
    match &checked.lines[0].meters[0].addressing {
        Addressing::Iec62056_21(call) => call.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_meter_without_more_is_read_out_and_says_so() {
    let checked = parse(SERIAL, &[""]).unwrap();
    let meter = &checked.lines[0].meters[0];
    assert_eq!(
        (meter.protocol, meter.reads.len(), meter.reads[0].source),
        (MeterProtocol::Iec62056_21, 1, Source::Readout)
    );
    let call = call(&checked);
    assert_eq!((call.client.initial_baud, call.client.baud_max), (Baud::B300, Baud::B19200));
    assert_eq!((call.read_command, call.profile_command), (ReadLevel::R1, ReadLevel::R5));
    let printed = toml::to_string(&checked.config).unwrap();
    let expected = ["initial_baud = 300", "source = \"readout\"", "stamp_form = \"zst13\"", "doubled_groups = true"];
    assert!(expected.iter().all(|text| printed.contains(text)), "{printed}");
    let again = Config::parse(&printed, Path::new("gateway.toml")).and_then(Config::check).unwrap();
    assert_eq!(again.lines, checked.lines);
}

#[test]
fn line_and_meter_say_how_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "0123\n").unwrap();
    let meter = format!(
        "address = \"00012345\"\npassword_file = {path:?}\nutc_offset_minutes = 60\ndaylight_saving_minutes = 60\nread_command = 5\n\
         profile_command = 6\nstamp_form = \"zst10\"\nline_quirks = {{ units_by_code = true, ignores_rate = true }}\n"
    );
    let checked = parse(&format!("{SERIAL}echo = true\nmasked_parity = true\n"), &[&meter]).unwrap();
    let call = call(&checked);
    assert!(call.client.echo && call.client.masked_parity && call.client.quirks.ignores_rate);
    assert!(call.lines.quirks.units_by_code && call.lines.clock == MeterClock::CET);
    assert_eq!(
        (call.read_command, call.profile_command, call.stamp_form),
        (ReadLevel::R5, ReadLevel::R6, StampForm::Zst10)
    );
    assert_eq!(call.password, Password::plain("0123").ok());
    assert!(!format!("{checked:?}").contains("0123\""), "a password never shows");
}

/// Control, seen to fail: `fastest` of a serial port on TCP.
#[test]
fn behind_tcp_the_rate_stays() {
    let rates = |rest: &str| {
        parse(TCP, &[rest]).map(|checked| (call(&checked).client.initial_baud, call(&checked).client.baud_max))
    };
    assert_eq!(rates(""), Ok((Baud::B300, Baud::B300)));
    assert_eq!(rates("initial_baud = 9600\n"), Ok((Baud::B9600, Baud::B9600)));
    let error = rates("initial_baud = 300\nbaud_max = 9600\n").unwrap_err();
    assert!(error.contains("nobody can change the rate behind a TCP endpoint\nhint: leave baud_max out"), "{error}");
}

#[test]
fn what_does_not_hold_together_is_refused_with_a_hint() {
    for (meters, expected) in [
        (vec!["initial_baud = 1000\n"], "initial_baud = 1000 is no rate of IEC 62056-21\nhint: one of 300, 600"),
        (vec!["address = \"1!\"\n"], "is no device address"),
        (vec!["physical = 17\n"], "physical is a setting of protocol \"dlms-hdlc\""),
        (vec!["client = 1\n"], "client is a setting of protocols \"dlms-wrapper\", \"dlms-hdlc\""),
        (vec!["quirks = { no_release = true }\n"], "a quirk of DLMS is set"),
        (
            vec!["line_quirks = { units_by_cod = true }\n"],
            "\"units_by_cod\" is no quirk of its protocol\nhint: one of ignores_rate, ",
        ),
        (vec!["readout_character = \"1\"\n"], "asks for no read-out"),
        (vec!["read_command = 7\n"], "read_command = 7 is no read command\nhint: 1 to 6"),
        (vec!["daylight_saving_minutes = 30\n"], "neither 0 nor 60"),
        (
            vec!["address = \"1\"\n", "address = \"001\"\n"],
            "meter \"m0\" has the same address, 1, which is 001 on line \"l\"",
        ),
        (vec!["address = \"1\"\n", ""], "meter \"m0\" answers too when one is called without an address"),
        (
            vec!["protocol = \"dlms-hdlc\"\naddress = \"1\"\n"],
            "address is a setting of protocols \"iec62056-21\", \"mbus\", \"wmbus\"\nhint: set protocol",
        ),
        (vec!["protocol = \"dlms-hdlc\"\n[[meter.read]]\nsource = \"readout\"\n"], "a DLMS meter has no read-out"),
    ] {
        let error = parse(SERIAL, &meters).expect_err(&format!("{meters:?}"));
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
    parse(SERIAL, &["address = \"1\"\n", "address = \"2\"\n"]).unwrap();
}
