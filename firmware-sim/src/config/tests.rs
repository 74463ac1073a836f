use super::*;
use crate::faults::Fault;
use crate::speak::sml::TimeForm;

fn check(text: &str) -> Result<Fleet, ConfigError> {
    FleetFile::parse(text)?.check()
}

fn hint(text: &str) -> String {
    let error = check(text).unwrap_err();
    error.hint.unwrap_or_else(|| panic!("no hint with {:?}", error.message))
}

#[test]
fn a_fleet_file_is_read() {
    let fleet = check(
        r#"
        seed = 7
        speed = 60.0
        start_at = "2026-01-01T00:00:00Z"
        [mqtt]
        broker = "localhost:11883"
        [[meters]]
        count = 10
        protocol = "cad"
        interval_ms = 250
        faults = { silence = 0.01, clock-jump = 2.0 }
        [[meters]]
        count = 5
        protocol = "none"
        source = "uci"
        zone = "CET"
        quirks = ["label-at-start"]
        profile = { capture_period_s = 3600, columns = ["import-interval"] }
        "#,
    )
    .unwrap();
    assert_eq!((fleet.broker.host.as_str(), fleet.broker.port), ("localhost", 11_883));
    let [cad, silent] = &fleet.groups[..] else { panic!("two groups") };
    assert_eq!((cad.numbers.clone(), silent.numbers.clone()), (1..11, 11..16));
    assert_eq!(cad.push_every.world_ms(fleet.speed), 15_000);
    assert_eq!(cad.faults.set_faults().collect::<Vec<_>>(), [Fault::Silence, Fault::ClockJump]);
    assert!(cad.profiles.is_empty());
    assert_eq!((silent.profiles.len(), silent.quirks.label_at_start), (3, true));
}

#[test]
fn lines_are_read() {
    let fleet = check(
        r#"
        [[meters]]
        count = 40
        protocol = "dlms-tcp"
        listen = "127.0.0.1:20000"
        quirks = ["null-clock", "blocks-from-zero"]
        [[meters]]
        count = 3
        protocol = "dlms-hdlc"
        line = "serial"
        path = "/dev/ttyUSB0"
        baud = 2400
        pace = true
        [[meters]]
        protocol = "p1"
        dsmr = "4.2"
        gas = true
        [[meters]]
        protocol = "sml"
        sml_time = "seconds-index"
        faults = { line-noise = 0.1 }
        [[meters]]
        protocol = "d0"
        block_check = false
        faults = { silence = 0.1 }
        "#,
    )
    .unwrap();
    let lines: Vec<&LineSettings> = fleet.groups.iter().map(|group| group.line.as_ref().unwrap()).collect();
    assert_eq!(lines[0].medium, LineMedium::Tcp(([127, 0, 0, 1], 20_000).into()));
    assert_eq!(lines.iter().map(|line| line.meters_per_line).collect::<Vec<_>>(), [1, 3, 1, 1, 1]);
    assert_eq!(lines[1].medium, LineMedium::Serial { path: "/dev/ttyUSB0".into(), baud: 2_400 });
    assert_eq!(lines[1].speed.map(|speed| speed.baud), Some(2_400));
    assert!(lines[2].p1.has_gas && lines[2].speed.is_none());
    assert!(fleet.groups[0].quirks.null_clock && fleet.groups[0].quirks.server.blocks_from_zero);
    assert!(lines[3].sml_time == TimeForm::SecondsIndex && !lines[4].block_check);
    let [tcp, _, p1, sml, d0] = &fleet.groups[..] else { panic!("five groups") };
    let every = PushEvery::WallMs(1_000);
    assert_eq!((sml.push_every, d0.push_every, d0.quirks.six_digit_display), (every, every, true));
    assert_eq!((tcp.profiles.len(), p1.profiles.len(), p1.push_every), (3, 0, PushEvery::WallMs(10_000)));
}

#[test]
fn a_misspelt_key_names_its_neighbour() {
    assert_eq!(hint("spead = 2.0"), "did you mean \"speed\"?");
    assert_eq!(hint("[[meters]]\nprotocol = \"cad\"\nintervall_ms = 5"), "did you mean \"interval_ms\"?");
}

#[test]
fn misspelt_names_name_their_neighbours() {
    assert_eq!(hint("[[meters]]\nprotocol = \"cat\""), "did you mean \"cad\"?");
    assert_eq!(hint("[[meters]]\nprotocol = \"cad\"\nsource = \"houshold\""), "did you mean \"household\"?");
    assert_eq!(hint("[[meters]]\nprotocol = \"cad\"\nfaults = { clock-jumps = 1.0 }"), "did you mean \"clock-jump\"?");
}

#[test]
fn what_does_not_hold_together_is_refused() {
    let cad = "[[meters]]\nprotocol = \"cad\"\n";
    let (tcp, hdlc) = ("[[meters]]\nprotocol = \"dlms-tcp\"\n", "[[meters]]\nprotocol = \"dlms-hdlc\"\n");
    let p1 = "[[meters]]\nprotocol = \"p1\"\n";
    for text in [
        String::new(),
        "[[meters]]\ncount = 3".to_owned(),
        format!("{cad}interval_ms = 1000\ninterval_s = 1"),
        format!("{cad}interval_ms = 1"),
        format!("{cad}faults = {{ wrong-crc = 0.1 }}"),
        format!("{cad}faults = {{ silence = 1.5 }}"),
        format!("{cad}source = \"lcl\""),
        format!("{cad}manufacturer = \"sim\""),
        format!("{cad}count = 1000000"),
        format!("{cad}zone = \"Mars\""),
        format!("{cad}{cad}first_number = 1"),
        format!("speed = 0.0\n{cad}"),
        format!("speed = nan\n{cad}"),
        format!("history_days = -1.0\n{cad}"),
        format!("start_at = \"2026-01-01T00:00:00Z\"\ndays_back = 1.0\n{cad}"),
        format!("start_at = \"yesterday\"\n{cad}"),
        format!("mqtt.broker = \"localhost\"\n{cad}"),
        format!("mqtt.keep_alive_s = 0\n{cad}"),
        format!("mqtt.password_file = \"/nonexistent\"\n{cad}"),
        format!("{tcp}listen = \"localhost\""),
        format!("{tcp}listen = \"127.0.0.1:65535\"\ncount = 2"),
        format!("{tcp}line = \"pty\""),
        format!("{tcp}path = \"/tmp/x\""),
        format!("{tcp}meters_per_line = 0"),
        format!("{tcp}password_file = \"/nonexistent\""),
        format!("{tcp}password_file = \"/dev/null\""),
        format!("{tcp}faults = {{ line-noise = 0.1 }}"),
        format!("{hdlc}line = \"serial\""),
        format!("{hdlc}line = \"serial\"\npath = \"/dev/x\"\ncount = 2\nmeters_per_line = 1"),
        format!("{hdlc}line = \"optical\""),
        format!("{hdlc}baud = 0"),
        format!("{hdlc}hdlc_address_first = 1"),
        format!("{hdlc}hdlc_address_first = 16000\ncount = 500"),
        format!("{hdlc}hdlc_information_octets_max = 4000"),
        format!("{p1}dsmr = \"6\""),
        format!("{p1}interval_s = 1"),
        format!("{p1}count = 2\nmeters_per_line = 2"),
        format!("{p1}faults = {{ clock-jump = 1.0 }}"),
        "[[meters]]\nprotocol = \"sml\"\nsml_time = \"utc\"".to_owned(),
        "[[meters]]\nprotocol = \"sml\"\ncount = 2\nmeters_per_line = 2".to_owned(),
        "[[meters]]\nprotocol = \"sml\"\nfaults = { duplicate = 0.1 }".to_owned(),
        "[[meters]]\nprotocol = \"iec62056-21\"\nbaud = 1000".to_owned(),
        "[[meters]]\nprotocol = \"iec62056-21\"\nprofile.capture_period_s = 90".to_owned(),
        "[[meters]]\nprotocol = \"iec62056-21\"\nfaults = { dropped-bytes = 0.1 }".to_owned(),
        "[[meters]]\nprotocol = \"d0\"\nblock_check = false\nfaults = { line-noise = 0.1 }".to_owned(),
        format!("{tcp}faults = {{ wrong-tag = 0.1 }}"),
        format!("{hdlc}security = {{}}\nfaults = {{ wrong-tag = 0.1 }}"),
        format!("{tcp}security = {{ authentication = \"gmak\" }}"),
        format!("{tcp}security = {{ authentication = \"ecdsa\" }}"),
        format!("{tcp}security = {{ suite = 3 }}"),
        format!("{tcp}security = {{ policy = \"all\" }}"),
        format!("{tcp}security = {{ ciphering = \"agreed\" }}"),
        format!("{tcp}security = {{ ciphering = \"one-pass\" }}"),
        format!("{tcp}security = {{ signing = \"inside\" }}"),
        format!("{tcp}security = {{ signing = \"both\", suite = 1 }}"),
        format!("{tcp}security = {{ signing = \"inside\", suite = 1, policy = \"none\" }}"),
        format!("{p1}security = {{}}"),
        "[[meters]]\nprotocol = \"none\"\nprofile.capture_period_s = 7".to_owned(),
        "[[meters]]\nprotocol = \"none\"\nprofile.columns = [\"import-register\", \"import-register\"]".to_owned(),
        "[[meters]]\nprotocol = \"none\"\nprofile.depth_entries = 0".to_owned(),
    ] {
        let error = check(&text).expect_err(&text);
        assert!(!error.message.is_empty() && !error.message.ends_with('.'), "{}", error.message);
    }
}

#[test]
fn meters_that_go_to_a_listener_are_told_where_it_is() {
    use crate::speak::notify::Transport;
    let notify = "[[meters]]\nprotocol = \"dlms-notify\"\n";
    let called =
        |rest: &str| check(&format!("{notify}push_to = \"127.0.0.1:4059\"\n{rest}")).unwrap().groups[0].clone();
    let of = |group: &crate::config::Group| group.line.as_ref().unwrap().call.unwrap();
    let call = of(&called(""));
    assert_eq!((call.to.port(), call.transport, call.confirmed), (4_059, Transport::Tcp, true));
    let call = of(&called("transport = \"udp\"\nconfirmed = false\nencrypted = true\n"));
    assert_eq!((call.transport, call.confirmed), (Transport::Udp, false));
    let profiles = called("").profiles;
    assert!(profiles.len() == 1 && !profiles[0].is_billing, "it pushes no other");
    for (text, expected) in [
        (notify.to_owned(), "set push_to to the tcp_listen"),
        (format!("{notify}push_to = \"listener\""), "as 127.0.0.1:4059"),
        (format!("{notify}push_to = \"127.0.0.1:1\"\ntransport = \"tcpp\""), "did you mean \"tcp\"?"),
    ] {
        assert!(hint(&text).contains(expected), "{text}");
    }
    assert!(check("[[meters]]\nprotocol = \"p1\"\npush_to = \"127.0.0.1:1\"").is_err());
    assert!(check(&format!("{notify}push_to = \"127.0.0.1:1\"\nfaults = {{ silence = 0.1 }}")).is_err());
}

#[test]
fn the_effective_settings_read_back() {
    let file = FleetFile::parse("[[meters]]\nprotocol = \"cad\"\ninterval_ms = 1000").unwrap();
    assert_eq!(FleetFile::parse(&file.effective()).unwrap(), file);
}

#[test]
fn a_password_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "open sesame\n").unwrap();
    let text = format!("mqtt.password_file = {path:?}\n[[meters]]\nprotocol = \"cad\"");
    let fleet = check(&text).unwrap();
    assert_eq!(fleet.broker.password.as_ref().map(|secret| secret.0.as_str()), Some("open sesame"));
    assert!(!format!("{fleet:?}").contains("sesame"));
}

/// Negative control: do not look at the last primary address.
#[test]
fn meters_of_m_bus_and_encrypted_pushes_are_read_or_refused_with_a_hint() {
    use crate::speak::dlms_push::Framing;
    use crate::speak::mbus::Medium;
    let fleet = check(
        r#"
        [[meters]]
        count = 3
        protocol = "mbus"
        medium = "heat"
        primary_address_first = 5
        encrypted = true
        [[meters]]
        count = 2
        protocol = "mbus"
        medium = "electricity"
        primary_address_first = 0
        baud = 300
        [[meters]]
        protocol = "dlms-push"
        framing = "mbus"
        "#,
    )
    .unwrap();
    let line = |group: usize| fleet.groups[group].line.clone().unwrap();
    assert_eq!((line(0).mbus.medium, line(0).mbus.primary_first, line(0).meters_per_line), (Medium::Heat, 5, 3));
    assert!(line(0).keys.is_some() && line(1).keys.is_none());
    assert_eq!(line(1).speed.map(|speed| (speed.baud, speed.bits_per_octet)), Some((300, 11)));
    assert_eq!((fleet.groups[0].profiles.len(), fleet.groups[1].profiles.len()), (0, 1));
    assert_eq!((line(2).framing, line(2).speed), (Framing::Mbus, None));
    for (text, expected) in [
        ("protocol = \"mbus\"\nmedium = \"wate\"", "did you mean \"water\"?"),
        ("protocol = \"mbus\"\nbaud = 1000", "one of 300, 600, 1200"),
        ("protocol = \"mbus\"\ncount = 251", "or primary_address_first = 0"),
        ("protocol = \"dlms-push\"\nframing = \"hdlcc\"", "did you mean \"hdlc\"?"),
        ("protocol = \"dlms-tcp\"\nreferencing = \"sm\"", "did you mean \"sn\"?"),
        ("protocol = \"mbus\"\nencryption_key_file = \"/x\"", "set encrypted = true"),
    ] {
        assert!(hint(&format!("[[meters]]\n{text}")).contains(expected), "{text}");
    }
    let stuck = "[[meters]]\nprotocol = \"mbus\"\nfaults = { stuck-register = 1.0 }\n";
    assert!(hint(stuck).contains("set medium = \"electricity\""));
    assert!(check(&format!("{stuck}medium = \"electricity\"\n")).is_ok());
    for refused in [
        "protocol = \"sml\"\nencrypted = true",
        "protocol = \"mbus\"\nfaults = { line-noise = 0.1 }",
        "protocol = \"sml\"\nreferencing = \"sn\"",
    ] {
        assert!(check(&format!("[[meters]]\n{refused}")).is_err(), "{refused}");
    }
}
