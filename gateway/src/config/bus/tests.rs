use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use protocols::iec62056_21::MeterClock;

use super::*;
use crate::config::metering::{MeterProtocol, Source};
use crate::config::{Checked, Config};

const SERIAL: &str = "serial = \"/dev/x\"\nbaud = 2400\nparity = \"even\"\n";
const TCP: &str = "tcp = \"a:1\"\n";
const KEY: &str = "000102030405060708090a0b0c0d0e0f";

fn parse(line: &str, meters: &[&str]) -> Result<Checked, String> {
    let mut text = format!("[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\n{line}");
    for (number, rest) in meters.iter().enumerate() {
        let protocol = if rest.contains("protocol") { "" } else { "protocol = \"mbus\"\n" };
        write!(text, "[[meter]]\nname = \"m{number}\"\nline = \"l\"\n{protocol}{rest}").unwrap();
    }
    Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).map_err(|error| error.to_string())
}

fn bus(checked: &Checked) -> Arc<BusSettings> {
    match &checked.lines[0].meters[0].addressing {
        Addressing::Mbus(bus) => bus.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_meter_is_read_out_at_the_rate_of_its_line() {
    let checked = parse(SERIAL, &["address = \"5\"\n"]).unwrap();
    let meter = &checked.lines[0].meters[0];
    assert_eq!((meter.protocol, meter.reads.len(), meter.reads[0].source), (MeterProtocol::Mbus, 1, Source::Readout));
    let settings = bus(&checked);
    assert_eq!((settings.target, settings.master.baud), (Target::Primary(5), Baud::B2400));
    let printed = toml::to_string(&checked.config).unwrap();
    let expected = ["source = \"readout\"", "maker_extensions = true", "season_by_calendar = false"];
    assert!(expected.iter().all(|text| printed.contains(text)), "{printed}");
    let again = Config::parse(&printed, Path::new("gateway.toml")).and_then(Config::check).unwrap();
    assert_eq!(again.lines, checked.lines);
    let behind_tcp = |rest: &str| bus(&parse(TCP, &[&format!("address = \"254\"\n{rest}")]).unwrap()).master.baud;
    assert_eq!((behind_tcp(""), behind_tcp("initial_baud = 300\n")), (Baud::B2400, Baud::B300));
}

#[test]
fn line_and_meter_say_how_it_is_asked_and_understood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, KEY).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let meter = format!(
        "address = \"1234567824234007\"\nencryption_key_file = {path:?}\napplication_reset = 16\nutc_offset_minutes = 60\n\
         daylight_saving_minutes = 60\nquirks = {{ label_at_start = true }}\nline_quirks = {{ season_by_calendar = true }}\n\
         [[meter.read]]\nsource = \"readout\"\ncodes = [\"mbus:5A\", \"8-0:1.0.0\"]\n"
    );
    let checked = parse(&format!("{SERIAL}echo = true\n"), &[&meter]).unwrap();
    let BusSettings { target, master, readout } = &*bus(&checked);
    assert_eq!(*target, Target::Secondary("1234567824234007".parse().unwrap()));
    assert!(master.echo && master.quirks.season_by_calendar && readout.quirks.season_by_calendar);
    assert_eq!(
        (master.application_reset, &master.key),
        (Some(16), &Some(Key::new(std::array::from_fn(|at| at as u8))))
    );
    assert_eq!((readout.clock, readout.date_edge), (MeterClock::CET, DateEdge::Start));
    assert_eq!(checked.lines[0].meters[0].reads[0].codes.len(), 2);
    let shown = format!("{checked:?}");
    assert!(!shown.contains("0a0b") && !shown.contains("10, 11"), "a key never shows");
}

/// Negative control: do not look at `polled`.
#[test]
fn what_does_not_hold_together_is_refused_with_a_hint() {
    for (meters, expected) in [
        (vec![""], "a meter on M-Bus needs an address\nhint: 0 to 250"),
        (vec!["address = \"251\"\n"], "is no address of a meter on M-Bus"),
        (vec!["address = \"1234\"\n"], "selects no meter"),
        (
            vec!["address = \"1\"\nphysical = 17\n"],
            "physical is a setting of protocol \"dlms-hdlc\"\nhint: set protocol",
        ),
        (
            vec!["address = \"1\"\npassword_file = \"/x\"\n"],
            "password_file is a setting of protocols \"dlms-wrapper\", \"dlms-hdlc\", \"iec62056-21\"",
        ),
        (vec!["address = \"1\"\nbaud_max = 300\n"], "baud_max is a setting of protocol \"iec62056-21\""),
        (vec!["address = \"1\"\ninitial_baud = 300\n"], "hint: leave initial_baud out"),
        (vec!["address = \"1\"\nline_quirks = { units_by_code = true }\n"], "hint: one of length_overflow, "),
        (vec!["address = \"1\"\n[[meter.read]]\nsource = \"registers\"\n"], "is only read out\nhint: set source"),
        (vec!["address = \"1\"\nencryption_key_file = \"/no/key\"\n"], "cannot read /no/key"),
        (vec!["address = \"1\"\n", "address = \"01\"\n"], "meter \"m0\" has the same address on line \"l\""),
        (vec!["address = \"1\"\n", "address = \"254\"\n"], "answers too where one has the address 254"),
        (vec!["address = \"12345678\"\n", "address = \"1234567F\"\n"], "meter \"m0\" may be selected by both"),
        (
            vec!["protocol = \"dlms-hdlc\"\napplication_reset = 0\n"],
            "application_reset is a setting of protocol \"mbus\"",
        ),
        (
            vec!["protocol = \"iec62056-21\"\napplication_reset = 0\n"],
            "application_reset is a setting of protocol \"mbus\"",
        ),
    ] {
        let error = parse(SERIAL, &meters).expect_err(&format!("{meters:?}"));
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
    let error = parse(&format!("{SERIAL}echo = true\n"), &["protocol = \"dlms-hdlc\"\n"]).unwrap_err();
    assert!(error.starts_with("line \"l\": echo is a setting of protocols"), "{error}");
    let error = parse("serial = \"/dev/x\"\n", &["address = \"1\"\n"]).unwrap_err();
    assert!(error.contains("hint: set parity = \"even\" for its line"), "{error}");
    let error = parse(&SERIAL.replace("2400", "1000"), &["address = \"1\"\n"]).unwrap_err();
    assert!(error.contains("1000 baud is no rate of M-Bus\nhint: one of 300, 600"), "{error}");
    parse(SERIAL, &["address = \"1\"\n", "address = \"12345678\"\n", "address = \"2\"\n"]).unwrap();
}
