use std::path::Path;

use protocols::iec62056_21::ReadQuirks;
use protocols::sml;

use super::*;
use crate::config::metering::Transport;
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
    assert_eq!(line("protocol = \"dlms\"\n"), (2_400, 8, Parity::Even));
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

/// Control, seen to fail: the address not looked at.
#[test]
fn whoever_may_come_has_a_key_or_is_on_this_machine() {
    let dlms = |rest: &str| parse(&format!("protocol = \"dlms\"\n{rest}"));
    let listens = |rest: &str| match dlms(rest).unwrap().ports[0].clone().as_ref() {
        PortSettings {
            medium: MediumSettings::Listen { transport, .. },
            protocol: PushProtocol::Dlms { framing: PushFraming::Wrapper, .. },
            ..
        } => *transport,
        other => panic!("{other:?}"),
    };
    assert_eq!(listens("tcp_listen = \"127.0.0.1:4059\"\n"), Transport::Tcp);
    assert_eq!(listens("udp_listen = \"[::1]:4059\"\n"), Transport::Udp);
    assert_eq!(listens("udp_listen = \"0.0.0.0:4059\"\naccept_unauthenticated = true\n"), Transport::Udp);
    for (rest, expected) in [
        ("tcp_listen = \"0.0.0.0:4059\"\n", "could push values\nhint: set encryption_key_file"),
        ("tcp_listen = \"meter:4059\"\n", "is no IP address with a port"),
        ("tcp_listen = \"127.0.0.1:1\"\nframing = \"hdlc\"\n", "push in wrapper frames"),
        ("tcp_listen = \"127.0.0.1:1\"\ntcp = \"a:1\"\n", "both tcp and tcp_listen are set"),
        ("udp_listen = \"127.0.0.1:1\"\nserial_port = \"/dev/x\"\n", "both a serial port and udp_listen are set"),
    ] {
        let error = dlms(rest).unwrap_err();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
    let error = parse("tcp_listen = \"127.0.0.1:1\"\n").unwrap_err();
    assert!(error.contains("tcp_listen is a setting of protocol \"dlms\""), "{error}");
}

#[test]
fn what_does_not_fit_the_protocol_is_refused_with_a_hint() {
    for (rest, expected) in [
        ("protocol = \"slm\"\n", "unknown variant `slm`"),
        (
            "protocol = \"sml\"\nquirks = { units_by_code = true }\n",
            "\"units_by_code\" is no quirk of its protocol\nhint: one of kermit_crc, ",
        ),
        ("quirks = { kermit_crc = true }\n", "quirks is a setting of protocols \"sml\", \"d0\""),
        (
            "protocol = \"sml\"\nmasked_parity = true\n",
            "masked_parity is a setting of protocol \"d0\"\nhint: set protocol",
        ),
        ("protocol = \"d0\"\nmasked_parity = true\nparity = \"even\"\n", "hint: leave data_bits and parity out"),
    ] {
        let error = parse(&format!("tcp = \"a:1\"\n{rest}")).unwrap_err();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
}

fn key_file(folder: &tempfile::TempDir, digits: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.path().join(format!("{}{}", &digits[..2], digits.len()));
    std::fs::write(&path, digits).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Negative control: do not ask for the authentication key.
#[test]
fn keys_come_from_files_and_what_cannot_be_verified_has_to_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (key_file(&folder, &"a1".repeat(16)), key_file(&folder, &"a2".repeat(16)));
    let long = key_file(&folder, &"a3".repeat(32));
    let keys = |protocol: &str, rest: &str| {
        parse(&format!("tcp = \"a:1\"\nprotocol = {protocol:?}\n{rest}")).map(|checked| checked.ports[0].keys.clone())
    };
    let both = format!(
        "encryption_key_file = {one:?}\nauthentication_key_file = {two:?}\nsystem_title = \"4b464d6750000009\"\n"
    );
    let expected = PushKeys {
        encryption: Key::from([0xa1; 16]),
        authentication: Some(Key::from([0xa2; 16])),
        sender: Some(SystemTitle(*b"KFMgP\0\0\x09")),
        senders: Vec::new(),
        ours: None,
        accept_unauthenticated: false,
    };
    assert_eq!(keys("dlms", &both), Ok(Some(expected.clone())));
    assert_eq!(keys("p1", &both), Ok(Some(expected)));
    let only = format!("encryption_key_file = {one:?}\n");
    let luxembourg = keys("p1", &only).unwrap().unwrap();
    assert_eq!(luxembourg.authentication, Some(Key::from(AUTHENTICATION_KEY)));
    let error = keys("dlms", &only).unwrap_err();
    assert!(
        error.contains("authentication_key_file is missing\nhint: set it; where the operator withholds"),
        "{error}"
    );
    let withheld = format!("{only}accept_unauthenticated = true\n");
    for protocol in ["dlms", "p1"] {
        assert_eq!(keys(protocol, &withheld).unwrap().unwrap().authentication, None);
    }
    let mixed = format!("encryption_key_file = {one:?}\nauthentication_key_file = {long:?}\n");
    assert!(keys("dlms", &mixed).unwrap_err().contains("the keys are of different length"));
    let shown = format!("{:?}", parse(&format!("tcp = \"a:1\"\n{both}")).unwrap());
    assert!(!shown.contains("161, 161") && !shown.to_lowercase().contains("a1a1"), "a key never shows");
    for (protocol, rest, expected) in [
        ("sml", only.clone(), "encryption_key_file is a setting of protocols \"p1\", \"dlms\""),
        (
            "dlms",
            "accept_unauthenticated = true\n".to_owned(),
            "is a setting of encrypted pushes\nhint: set encryption_key_file",
        ),
        (
            "dlms",
            format!("{withheld}system_title = \"4b46\"\n"),
            "system_title is no title\nhint: 16 hexadecimal digits",
        ),
        ("p1", "framing = \"mbus\"\n".to_owned(), "framing is a setting of protocol \"dlms\""),
        ("p1", "utc_offset_minutes = 60\n".to_owned(), "utc_offset_minutes is a setting of protocol \"dlms\""),
        ("dlms", "accept_invalid_crc = true\n".to_owned(), "accept_invalid_crc is a setting of protocols"),
    ] {
        let error = keys(protocol, &rest).unwrap_err();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
}

/// Negative control: leave the title out where the section does.
#[test]
fn confirmations_of_encrypted_pushes_have_a_title_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (key_file(&folder, &"a1".repeat(16)), key_file(&folder, &"a2".repeat(16)));
    let files = format!("encryption_key_file = {one:?}\nauthentication_key_file = {two:?}\n");
    let checked = |rest: &str| parse(&format!("protocol = \"dlms\"\n{files}{rest}"));
    let ours = |rest: &str| checked(rest).unwrap().ports[0].keys.as_ref().unwrap().ours;
    let listens = "tcp_listen = \"127.0.0.1:4059\"\n";
    assert_eq!(ours(listens), Some(title_of(&GatewayId::new("gw").unwrap())));
    let named = format!("{listens}client_title = \"4d4d4d0000000001\"\n");
    assert_eq!(ours(&named), Some(SystemTitle(*b"MMM\0\0\0\0\x01")));
    let listed = checked(&format!("{listens}system_titles = [\"4b464d6750000009\"]\n")).unwrap();
    let senders = listed.ports[0].keys.as_ref().unwrap().senders.clone();
    assert_eq!(senders, [SystemTitle(*b"KFMgP\0\0\x09")]);
    assert_eq!(ours("tcp = \"a:1\"\n"), None, "nothing is confirmed in HDLC frames");
    for (rest, expected) in [
        (format!("{named}system_title = \"4d4d4d0000000001\"\n"), "client_title and system_title are the same"),
        (format!("{named}system_titles = [\"4d4d4d0000000001\"]\n"), "client_title and system_title are the same"),
        (format!("{listens}system_titles = [\"4d4d\"]\n"), "system_titles is no title\nhint: 16 hexadecimal digits"),
        (
            format!("{listens}system_title = \"4b464d6750000009\"\nsystem_titles = [\"4b464d675000000a\"]\n"),
            "both system_title and system_titles are set",
        ),
        (format!("{listens}client_title = \"4d4d\"\n"), "client_title is no title\nhint: 16 hexadecimal digits"),
        ("tcp = \"a:1\"\nclient_title = \"4d4d4d0000000001\"\n".to_owned(), "hint: set framing = \"wrapper\""),
    ] {
        let error = checked(&rest).unwrap_err();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
    let open = format!("protocol = \"dlms\"\n{listens}client_title = \"4d4d4d0000000001\"\n");
    assert!(parse(&open).unwrap_err().contains("client_title is a setting of encrypted pushes"));
}

#[test]
fn numbers_without_a_unit_count_what_is_written() {
    let parse = |counts: &str| {
        let rest = format!("tcp = \"a:1\"\nprotocol = \"dlms\"\nscaling = {{ \"1-0:1.8.0\" = {counts:?} }}\n");
        parse(&rest).map(|checked| checked.ports[0].scaling[0].1.to_string())
    };
    assert_eq!(parse("10 Wh"), Ok("1e1 Wh".to_owned()));
    assert_eq!(parse("0.1 V"), Ok("0.1 V".to_owned()));
    for wrong in ["10", "Wh", "ten Wh", "10 Xh", "0 Wh"] {
        assert!(parse(wrong).unwrap_err().contains("hint: as \"10 Wh\""), "{wrong}");
    }
}
