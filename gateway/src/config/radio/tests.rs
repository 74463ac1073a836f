use std::os::unix::fs::PermissionsExt as _;

use protocols::iec62056_21::MeterClock;

use super::*;
use crate::config::metering::{MediumSettings, PortSettings};
use crate::config::{Checked, Config};

const PORT: &str = "[[port]]\nname = \"radio\"\nprotocol = \"wmbus\"\ntcp = \"a:1\"\nreceiver = \"rtl-wmbus\"\n";
const METER: &str =
    "[[meter]]\nname = \"m\"\nprotocol = \"wmbus\"\nport = \"radio\"\naddress = \"HYD:26718590:28:07\"\n";

fn parse(rest: &str) -> Result<Checked, String> {
    let text = format!("[gateway]\nid = \"gw\"\n{rest}");
    Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).map_err(|error| error.to_string())
}

fn port(rest: &str) -> Arc<PortSettings> {
    parse(rest).unwrap().ports[0].clone()
}

#[test]
fn a_meter_is_bound_to_its_port_by_who_sends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "000102030405060708090a0b0c0d0e0f").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let more = format!(
        "encryption_key_file = {path:?}\nserial = \"12345678\"\nutc_offset_minutes = 60\ndaylight_saving_minutes = 60\n\
         clock_check = \"off\"\n"
    );
    let text = format!("{PORT}{METER}{more}");
    let checked = parse(&text).unwrap();
    let port = &checked.ports[0];
    assert_eq!(port.protocol, PushProtocol::Wmbus { receiver: Receiver::RtlWmbus, mode: RadioMode::CT });
    assert_eq!(port.silent_after, Duration::from_secs(3_600));
    let meter = &port.radio.meters[0];
    assert_eq!(
        (&*meter.name, meter.address.to_string(), meter.silent_after.as_secs(), meter.clock_off_above_s),
        ("m", "HYD:26718590:28:07".to_owned(), 86_400, None)
    );
    assert_eq!(meter.readout.clock, MeterClock::CET);
    assert_eq!(meter.meter_id().unwrap().as_str(), "12345678", "the printed number");
    assert!(meter.key.is_some() && !format!("{checked:?}").contains("0405"), "a key is never shown");
    // What check-config prints is what is done, and reads back as the same.
    let printed = toml::to_string(&checked.config).unwrap();
    assert!(printed.contains("maker_extensions = true") && printed.contains("silent_after_s = 86400"), "{printed}");
    let again = Config::parse(&printed, Path::new("gateway.toml")).and_then(Config::check).unwrap();
    assert_eq!((again.ports, again.lines.len()), (checked.ports, 0));
}

/// Control: the meters of other ports left out.
#[test]
fn a_port_knows_the_meters_of_others_and_may_have_none() {
    let second = PORT.replace("\"radio\"", "\"attic\"").replace("a:1", "a:2");
    let other = METER.replace("\"m\"", "\"n\"").replace("\"radio\"", "\"attic\"").replace("26718590", "26718591");
    let checked = parse(&format!("{PORT}{second}{METER}{other}")).unwrap();
    let of = |number: usize| {
        let radio = &checked.ports[number].radio;
        (radio.meters.iter().map(|meter| meter.name.to_string()).collect::<Vec<_>>(), radio.elsewhere.len())
    };
    assert_eq!((of(0), of(1)), ((vec!["m".to_owned()], 1), (vec!["n".to_owned()], 1)));
    assert!(port(PORT).radio.meters.is_empty());
}

#[test]
fn a_receiver_has_its_rate_and_may_be_told_its_mode() {
    let serial = |receiver: &str| {
        let text = format!(
            "[[port]]\nname = \"p\"\nprotocol = \"wmbus\"\nserial_port = \"/dev/x\"\nreceiver = \"{receiver}\"\n"
        );
        let MediumSettings::Serial { baud, .. } = port(&text).medium else { panic!("serial") };
        baud
    };
    assert_eq!(["cul", "im871a", "amb8465", "hex"].map(serial), [38_400, 57_600, 9_600, 9_600]);
    let stick = PORT.replace("rtl-wmbus", "amb8465");
    let mode = |rest: &str| port(&format!("{stick}{rest}")).protocol;
    let of = |mode| PushProtocol::Wmbus { receiver: Receiver::Amb8465, mode };
    assert_eq!((mode(""), mode("radio_mode = \"s\"\n")), (of(RadioMode::CT), of(RadioMode::S)));
}

#[test]
fn what_does_not_hold_together_is_refused_with_a_hint() {
    let other = METER.replace("\"m\"", "\"n\"");
    for (text, expected) in [
        (METER.to_owned(), "there is no port \"radio\" of wireless M-Bus\nhint: add a [[port]]"),
        (
            format!("{PORT}{}", METER.replace("\"radio\"", "\"x\"")),
            "there is no port \"x\" of wireless M-Bus\nhint: known ports of wireless M-Bus: radio",
        ),
        (format!("{PORT}{}", METER.replace("HYD:", "")), "address: \"26718590:28:07\" is no address of a meter"),
        (
            format!("{PORT}{}", METER.replace("address", "#")),
            "a meter of wireless M-Bus needs an address\nhint: as \"HYD:",
        ),
        (format!("{PORT}{METER}{other}"), "meter \"m\" has the same address, HYD:26718590:28:07"),
        (format!("{PORT}{METER}{METER}"), "has the same address"),
        (format!("{PORT}{METER}{}", METER.replace("26718590", "26718591")), "meter \"m\": two meters have this name"),
        (
            format!("{PORT}{METER}{}serial = \"HYD:26718590:28:07\"\n", other.replace("26718590", "26718591")),
            "the values of meter \"m\" are stored under the same identity",
        ),
        (format!("{PORT}{METER}line = \"l\"\n"), "line is a setting of protocols"),
        (format!("{PORT}{METER}[[meter.read]]\nsource = \"readout\"\n"), "read is a setting of protocols"),
        (format!("{PORT}{METER}clock_set = {{}}\n"), "nobody can set the clock"),
        (format!("{PORT}{METER}quirks = {{ no_release = true }}\n"), "a quirk of DLMS is set"),
        (format!("{PORT}{METER}silent_after_s = 0\n"), "silent_after_s is 0"),
        (PORT.replace("receiver = \"rtl-wmbus\"\n", ""), "receiver is missing"),
        (format!("{PORT}radio_mode = \"t\"\n"), "this receiver cannot be told what to listen for"),
        (format!("{PORT}serial = \"x\"\n"), "serial is a setting of protocols \"p1\", \"sml\", \"d0\", \"dlms\""),
        (
            "[[port]]\nname = \"p\"\ntcp = \"a:1\"\nreceiver = \"hex\"\n".to_owned(),
            "receiver is a setting of protocol \"wmbus\"",
        ),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected), "{text}\n{error}");
    }
}
