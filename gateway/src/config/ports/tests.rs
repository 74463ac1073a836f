use std::path::Path;

use protocols::iec62056_21::ReadQuirks;
use protocols::sml;

use super::*;
use crate::config::metering::MediumSettings;
use crate::config::{Checked, Config};

fn parse(rest: &str) -> Result<Checked, String> {
    let text = format!("[gateway]\nid = \"gw\"\n[[port]]\nname = \"p\"\n{rest}");
    Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).map_err(|error| error.to_string())
}

#[test]
fn each_protocol_has_the_line_that_its_meters_have() {
    let line = |rest: &str| {
        let checked = parse(&format!("serial_port = \"/dev/x\"\n{rest}")).unwrap();
        let MediumSettings::Serial { baud, data_bits, parity, .. } = checked.ports[0].medium else { panic!("serial") };
        // What check-config prints is what is done, and reads back as the same.
        let printed = toml::to_string(&checked.config).unwrap();
        assert!(printed.contains(&format!("baud = {baud}\ndata_bits = {data_bits}\n")), "{printed}");
        let again = Config::parse(&printed, Path::new("gateway.toml")).and_then(Config::check).unwrap();
        assert_eq!(again.ports, checked.ports);
        (baud, data_bits, parity)
    };
    assert_eq!(line(""), (115_200, 8, Parity::None));
    assert_eq!(line("protocol = \"sml\"\n"), (9_600, 8, Parity::None));
    assert_eq!(line("protocol = \"d0\"\n"), (9_600, 7, Parity::Even));
    assert_eq!(line("protocol = \"d0\"\nmasked_parity = true\n"), (9_600, 8, Parity::None));
    assert_eq!(line("baud = 9600\ndata_bits = 7\nparity = \"even\"\n"), (9_600, 7, Parity::Even));
}

/// Control, seen to fail: `switch` gives the default.
#[test]
fn quirks_are_switched_by_their_names() {
    let protocol = |rest: &str| parse(&format!("tcp = \"a:1\"\n{rest}")).unwrap().ports[0].protocol;
    let quirks = sml::Quirks { power_sign_from_status: true, kermit_crc: false, ..sml::Quirks::default() };
    let named = "quirks = { power_sign_from_status = true, kermit_crc = false }\n";
    assert_eq!(protocol(&format!("protocol = \"sml\"\n{named}")), PushProtocol::Sml { quirks });
    let quirks = ReadQuirks { units_by_code: true, ..ReadQuirks::default() };
    let named = "masked_parity = true\nquirks = { units_by_code = true }\n";
    assert_eq!(protocol(&format!("protocol = \"d0\"\n{named}")), PushProtocol::D0 { quirks, masked_parity: true });
    assert_eq!(protocol(""), PushProtocol::P1);
    let printed = toml::to_string(&parse("tcp = \"a:1\"\nprotocol = \"sml\"\n").unwrap().config).unwrap();
    assert!(printed.contains("kermit_crc = true") && printed.contains("list_length_by_content = false"), "{printed}");
}

#[test]
fn every_quirk_of_a_protocol_has_its_name() {
    let mut all = sml::Quirks::NONE;
    for (_, switch) in SML {
        *switch(&mut all) = true;
    }
    assert!(!format!("{all:?}").contains("false"), "{all:?}");
    let mut all = ReadQuirks::STRICT;
    for (_, switch) in LINES {
        *switch(&mut all) = true;
    }
    assert!(!format!("{all:?}").contains("false"), "{all:?}");
}

#[test]
fn what_does_not_fit_the_protocol_is_refused_with_a_hint() {
    for (rest, expected) in [
        ("protocol = \"slm\"\n", "unknown variant `slm`"),
        (
            "protocol = \"sml\"\nquirks = { units_by_code = true }\n",
            "\"units_by_code\" is no quirk of its protocol\nhint: one of kermit_crc, ",
        ),
        ("quirks = { kermit_crc = true }\n", "hint: its protocol has none"),
        ("protocol = \"sml\"\nmasked_parity = true\n", "masked_parity is a setting of D0\nhint: set protocol"),
        ("protocol = \"d0\"\nmasked_parity = true\nparity = \"even\"\n", "hint: leave data_bits and parity out"),
    ] {
        let error = parse(&format!("tcp = \"a:1\"\n{rest}")).unwrap_err();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
}
