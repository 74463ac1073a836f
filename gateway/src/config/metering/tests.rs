use std::path::Path;

use super::*;
use crate::config::{Checked, Config};

const GATEWAY: &str = "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"localhost:4059\"\n";
const METER: &str = "[[meter]]\nname = \"m\"\nline = \"l\"\n";

fn parse(text: &str) -> Result<Checked, String> {
    Config::parse(text, Path::new("gateway.toml")).and_then(Config::check).map_err(|error| error.to_string())
}

#[test]
fn a_meter_without_sections_is_read_by_default_and_says_so() {
    let checked = parse(&format!("{GATEWAY}{METER}")).unwrap();
    let reads = &checked.lines[0].meters[0].reads;
    assert_eq!(reads.len(), 2);
    let load_profile = ObisCode::new(1, 0, 99, 1, 0, 255);
    assert_eq!((reads[0].source, reads[0].profile, reads[0].backfill_days), (Source::Profile, load_profile, 40));
    assert_eq!((reads[1].source, reads[1].every_s), (Source::Registers, 900));
    // What check-config prints is what is done, and reads back as the same.
    let printed = toml::to_string(&checked.config).unwrap();
    assert!(printed.contains("profile = \"1-0:99.1.0\"") && printed.contains("every_s = 900"), "{printed}");
    assert_eq!(parse(&printed).unwrap().lines, checked.lines);
}

#[test]
fn what_does_not_hold_together_is_refused_with_a_hint() {
    let hdlc = "protocol = \"dlms-hdlc\"\n";
    let cases = [
        (format!("{GATEWAY}{METER}{METER}"), "two meters have this name"),
        (format!("{GATEWAY}{METER}[[meter]]\nname = \"n\"\nline = \"l\"\n"), "meter \"m\" has the same address"),
        (format!("{GATEWAY}{METER}[[meter]]\nname = \"n\"\nline = \"x\"\n"), "hint: known lines: l"),
        (GATEWAY.to_owned(), "line \"l\": no meter is on this line"),
        (format!("{GATEWAY}[[line]]\nname = \"l\"\ntcp = \"a:1\"\n{METER}"), "two lines have this name"),
        (format!("{GATEWAY}[[line]]\nname = \"k\"\ntcp = \"a\"\n{METER}"), "is no host:port"),
        (format!("{GATEWAY}[[line]]\nname = \"k\"\n{METER}"), "neither a serial port nor tcp"),
        (format!("{GATEWAY}[[line]]\nname = \"k\"\nserial = \"/dev/x\"\ndata_bits = 9\n{METER}"), "9 data bits"),
        (
            format!(
                "{GATEWAY}{METER}[[line]]\nname = \"j\"\nserial = \"/x\"\n[[line]]\nname = \"k\"\nserial = \"/x\"\n"
            ),
            "/x is the port of line \"j\" already",
        ),
        (format!("{GATEWAY}{METER}physical = 17\n"), "hint: set protocol = \"dlms-hdlc\""),
        (format!("{GATEWAY}{METER}{hdlc}client = 200\n"), "does not fit"),
        (format!("{GATEWAY}{METER}{hdlc}physical = 17\naddress_octets = 3\n"), "address_octets = 3 does not exist"),
        (format!("{GATEWAY}{METER}password_file = \"/no/such/file\"\n"), "cannot read /no/such/file"),
        (format!("{GATEWAY}{METER}[[meter.read]]\nsource = \"registers\"\n"), "codes"),
        (format!("{GATEWAY}{METER}[[meter.read]]\ncodes = [\"1-0:1.8\"]\n"), "is no code"),
        (format!("{GATEWAY}{METER}[[meter.read]]\nkind = \"intervall\"\n"), "hint: one of register, interval"),
        (
            format!(
                "{GATEWAY}{METER}[[meter.read]]\nsource = \"instants\"\ncodes = [\"1-0:1.7.0\"]\nkind = \"interval\"\n"
            ),
            "interval values have a period, which only a profile states",
        ),
        (format!("{GATEWAY}{METER}[[meter.read]]\nevery_s = 0\n"), "every_s = 0"),
        (format!("{GATEWAY}{METER}[[meter.read]]\n[[meter.read]]\n"), "1-0:99.1.0 is read twice"),
        (format!("{GATEWAY}{METER}[[port]]\nname = \"m\"\ntcp = \"a:1\"\n"), "a meter or another port has this name"),
        (
            format!("{GATEWAY}{METER}[[port]]\nname = \"p\"\ntcp = \"localhost:4059\"\n"),
            "localhost:4059 is the endpoint of line \"l\" already",
        ),
        (format!("{GATEWAY}{METER}name2 = \"x\"\n"), "unknown field `name2`"),
    ];
    for (text, expected) in cases {
        let error = parse(&text).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
}

/// Negative controls: compare whole addresses only; keep the client in the key of wrapper addresses; leave out
/// `is_broadcast_to`.
#[test]
fn two_meters_that_are_one_device_are_refused_whatever_form_their_addresses_have() {
    let both = |one: &str, other: &str| {
        let meter = |name: &str, rest: &str| format!("[[meter]]\nname = \"{name}\"\nline = \"l\"\n{rest}");
        parse(&format!("{GATEWAY}{}{}", meter("m", one), meter("n", other))).map(|_| ())
    };
    let hdlc = |rest: &str| format!("protocol = \"dlms-hdlc\"\n{rest}");
    let refused = [
        (hdlc("physical = 17\n"), hdlc("physical = 17\naddress_octets = 4\n"), "in another form", "its own server"),
        (hdlc("physical = 17\n"), hdlc("physical = 17\nclient = 1\n"), "read as another client", "one section"),
        (hdlc(""), hdlc("physical = 17\n"), "reach the same device", "set physical for both"),
        (hdlc("physical = 17\n"), hdlc(""), "reach the same device", "set physical for both"),
        (hdlc("physical = 127\n"), hdlc("physical = 17\n"), "one is that of all meters", "give each its own"),
        (hdlc("server = 127\n"), hdlc("physical = 17\n"), "one is that of all meters", "give each its own"),
        (hdlc("physical = 1000\n"), hdlc("physical = 1000\n"), "has the same address", "its own server"),
        ("client = 1\n".to_owned(), String::new(), "read as another client", "one section"),
        (String::new(), String::new(), "has the same address", "its own server"),
    ];
    for (one, other, message, hint) in refused {
        let error = both(&one, &other).expect_err(&format!("{one} and {other}"));
        let expected = error.starts_with("meter \"n\": ") && error.contains("meter \"m\"");
        assert!(expected && error.contains(message) && error.contains("on line \"l\"\nhint: "), "{error}");
        assert!(error.contains(hint), "{error}");
    }
    let taken = [
        (hdlc("physical = 17\n"), hdlc("physical = 18\n")),
        // Two logical devices of one physical.
        (hdlc("physical = 17\n"), hdlc("server = 2\nphysical = 17\n")),
        (String::new(), "server = 2\n".to_owned()),
    ];
    for (one, other) in taken {
        both(&one, &other).unwrap();
    }
}

/// Negative controls: compare paths, and hosts, as they are written.
#[test]
fn one_medium_by_two_names_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (device, link) = (folder.path().join("ttyUSB0"), folder.path().join("by-id"));
    std::fs::write(&device, "").unwrap();
    std::os::unix::fs::symlink(&device, &link).unwrap();
    let two = |kind: &str, one: &str, other: &str| {
        let line = |name: &str, medium: &str| format!("[[line]]\nname = \"{name}\"\n{kind} = \"{medium}\"\n");
        let meter = |name: &str| format!("[[meter]]\nname = \"m-{name}\"\nline = \"{name}\"\n");
        let text = [line("a", one), line("b", other), meter("a"), meter("b")].concat();
        parse(&format!("[gateway]\nid = \"gw\"\n{text}")).map(|_| ())
    };
    let (device, link) = (device.to_str().unwrap(), link.to_str().unwrap());
    let error = two("serial", device, link).unwrap_err();
    let expected = format!(
        "line \"b\": {link} is {device} by another name, which is the port of line \"a\" already\n\
         hint: put all meters of one port or endpoint on one line"
    );
    assert_eq!(error, expected);
    for other in ["meter.example:4059", "METER.example.:04059"] {
        let error = two("tcp", "meter.example:4059", other).unwrap_err();
        assert!(error.contains("endpoint of line \"a\" already\nhint: put all meters"), "{error}");
    }
    for (one, other) in
        [("localhost:1", "127.0.0.1:1"), ("[::1]:1", "[0:0::1]:1"), ("[::ffff:10.0.0.1]:1", "10.0.0.1:1")]
    {
        assert!(two("tcp", one, other).is_err(), "{one} and {other}");
    }
    for (one, other) in [("localhost:1", "localhost:2"), ("a.example:1", "b.example:1")] {
        two("tcp", one, other).unwrap();
    }
    two("serial", "/dev/no-such-port-1", "/dev/no-such-port-2").unwrap();
    // A P1 port, too.
    let port = format!("{GATEWAY}{METER}[[port]]\nname = \"p\"\ntcp = \"127.0.0.1:4059\"\n");
    let error = parse(&port).unwrap_err();
    assert!(error.contains("by another name, which is the endpoint of line \"l\" already\nhint: a P1 port"), "{error}");
}

#[test]
fn hdlc_addresses_take_the_shortest_form_that_fits() {
    let address = |extra: &str| {
        let checked = parse(&format!("{GATEWAY}{METER}protocol = \"dlms-hdlc\"\n{extra}")).unwrap();
        match checked.lines[0].meters[0].addressing {
            Addressing::Hdlc { server, .. } => server,
            Addressing::Wrapper { .. } | Addressing::Iec62056_21(_) | Addressing::Mbus(_) => panic!("not HDLC"),
        }
    };
    assert_eq!(address(""), HdlcAddress::one(1).unwrap());
    assert_eq!(address("physical = 17\n"), HdlcAddress::two(1, 17).unwrap());
    assert_eq!(address("physical = 1000\n"), HdlcAddress::four(1, 1000).unwrap());
    assert_eq!(address("physical = 17\naddress_octets = 4\n"), HdlcAddress::four(1, 17).unwrap());
}

#[test]
fn a_profile_column_is_what_its_code_says_unless_set() {
    let text = format!("{GATEWAY}{METER}[[meter.read]]\nkinds = {{ \"1-0:2.8.0\" = \"billing\" }}\n");
    let reads = parse(&text).unwrap().lines[0].meters[0].reads.clone();
    let kind = |code: &str| reads[0].kind_of(&code.parse().unwrap());
    assert_eq!(kind("1-0:1.8.0"), Kind::Register);
    assert_eq!(kind("1-0:1.29.0"), Kind::Interval);
    assert_eq!(kind("1-0:1.5.0"), Kind::Average);
    assert_eq!(kind("1-0:2.8.0"), Kind::Billing);
}

#[test]
fn meters_that_are_read_alike_share_what_is_read() {
    let other = "[[meter]]\nname = \"n\"\nline = \"l\"\nserver = 2\n";
    let checked = parse(&format!("{GATEWAY}{METER}{other}")).unwrap();
    assert!(Arc::ptr_eq(&checked.lines[0].meters[0].reads, &checked.lines[0].meters[1].reads));
}

#[test]
fn the_example_holds_together() {
    let checked = parse(include_str!("../../../../deploy/config/gateway.toml")).unwrap();
    assert_eq!((checked.lines.len(), checked.ports.len(), checked.config.feed.len()), (4, 5, 1));
}

/// Negative controls: take what is left out of `[meter.clock_set]` from nowhere; take both from `[[meter]]` where one is named.
#[test]
fn whoever_sets_a_clock_is_as_the_meters_section_says_unless_its_own_does() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let set = |section: &str, rest: &str| {
        let text = format!("{GATEWAY}{METER}{section}[meter.clock_set]\nset_above_s = 5\nset_below_s = 600\n{rest}");
        let checked = parse(&text)?;
        let printed = toml::to_string(&checked.config).unwrap();
        assert_eq!(parse(&printed).unwrap().lines, checked.lines);
        Ok::<_, String>(checked.lines[0].meters[0].clone())
    };
    let low = format!("client = 2\npassword_file = {password:?}\n");
    let meter = set(&low, "").unwrap();
    let same = meter.clock_set.clone().unwrap();
    assert_eq!((same.above_ms, same.below_ms), (5_000, 600_000));
    assert_eq!((&same.writer.addressing, &same.writer.security), (&meter.addressing, &meter.security));
    assert!(same.writer.sends_commands && !meter.sends_commands);
    let other = set(&low, "client = 1\nauthentication = \"none\"\n").unwrap().clock_set.clone().unwrap();
    assert_eq!(other.writer.addressing, Addressing::Wrapper { client: 1, server: 1 });
    assert!(matches!(other.writer.security.proof, crate::config::security::Proof::None));
    let named = set("client = 16\n", &low).unwrap().clock_set.clone().unwrap();
    assert_eq!(named.writer.security, meter.security);
    // Who reads in an association that nobody asks for may leave setting to one that proves itself.
    let known = "association = \"pre-established\"\n";
    let meter = set(known, &low).unwrap();
    let of_writer = meter.clock_set.as_ref().unwrap().writer.association;
    assert_eq!((meter.association, of_writer), (AssociationName::PreEstablished, AssociationName::Negotiated));
    let key = folder.path().join("key");
    std::fs::write(&key, "00112233445566778899aabbccddeeff").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = format!("encryption_key_file = {key:?}\nauthentication_key_file = {key:?}\n");
    let meter = set("", &format!("client = 1\nauthentication = \"gmac\"\n{keys}")).unwrap();
    let ciphered = meter.clock_set.as_ref().unwrap().writer.security.cipher.is_some();
    assert!(ciphered && meter.security.cipher.is_none());
    for (section, rest, expected) in [
        ("clock_check = \"off\"\n", "", "a clock that is not looked at is not set"),
        ("protocol = \"mbus\"\naddress = \"1\"\n", "", "only the clocks of DLMS meters are set"),
        ("", "authentication = \"low\"\n", "meter \"m\", clock_set: authentication = \"low\" needs a password"),
        ("", "authentication = \"gmac\"\n", "needs keys"),
        ("", "set_everything = true\n", "unknown field"),
    ] {
        let error = set(section, rest).unwrap_err();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
    for (bounds, expected) in [
        ("set_above_s = 5\n", "set_above_s and set_below_s are needed"),
        ("set_above_s = 1\nset_below_s = 600\n", "above 1 s"),
        ("set_above_s = 60\nset_below_s = 60\n", "below 60 s"),
    ] {
        let error = parse(&format!("{GATEWAY}{METER}[meter.clock_set]\n{bounds}")).err().unwrap();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
}

#[test]
fn a_line_of_datagrams_is_for_the_wrapper() {
    let line = |protocol: &str| {
        parse(&format!(
            "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\nudp = \"meter:4059\"\n[[meter]]\nname = \"m\"\nline = \"l\"\n\
             protocol = \"{protocol}\"\n"
        ))
    };
    let plan = line("dlms-wrapper").unwrap().lines.remove(0);
    assert_eq!(plan.line.medium, MediumSettings::Udp { address: "meter:4059".to_owned() });
    assert!(plan.meters[0].over_datagrams);
    let error = line("dlms-hdlc").unwrap_err();
    assert!(error.contains("udp is a setting of protocol \"dlms-wrapper\""), "{error}");
}
