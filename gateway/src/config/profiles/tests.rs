use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::config::Checked;
use crate::config::metering::{Addressing, PushProtocol};
use protocols::hdlc::HdlcAddress;
use protocols::metering::{Quality, StatusBits};

const HEAD: &str = "[gateway]\nid = \"gw\"\n";
const LINE: &str = "[[line]]\nname = \"l\"\ntcp = \"localhost:4059\"\n";

fn parse(text: &str) -> Result<Checked, String> {
    let text = format!("{HEAD}{text}");
    Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).map_err(|error| error.to_string())
}

/// A whole file of settings that uses the profile; files in `folder` hold what is secret.
fn complete(profile: &Profile, folder: &Path) -> String {
    let name = &profile.name;
    let [key, password] = [("key", "00".repeat(16)), ("password", "12345".to_owned())].map(|(name, text)| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    });
    let secrets = match profile {
        _ if profile.text.contains("\"gmac\"") => {
            format!("encryption_key_file = {key:?}\nauthentication_key_file = {key:?}\n")
        }
        _ if profile.text.contains("\"low\"") => format!("password_file = {password:?}\n"),
        _ if profile.text.contains("accept_unauthenticated") => format!("encryption_key_file = {key:?}\n"),
        _ => String::new(),
    };
    match profile.kind() {
        "meter" => {
            let line = toml::to_string(&LineSection {
                name: "l".to_owned(),
                serial: Some("/dev/x".into()),
                ..profile.line().cloned().unwrap_or_default()
            });
            let line = line.unwrap();
            format!("[[line]]\n{line}[[meter]]\nname = \"m\"\nline = \"l\"\nprofile = {name:?}\n{secrets}")
        }
        "port" => format!("[[port]]\nname = \"p\"\nserial_port = \"/dev/x\"\nprofile = {name:?}\n{secrets}"),
        _ => format!("[[feed]]\nname = \"f\"\nprofile = {name:?}\n"),
    }
}

fn shipped() -> Vec<Profile> {
    let catalog = Catalog::new(None).unwrap();
    catalog.names().map(|name| catalog.find("shipped", name).unwrap()).collect()
}

/// Negative controls: misspell a key in one of the files; leave a file out of the list.
#[test]
fn each_shipped_profile_makes_a_complete_section() {
    let secrets = tempfile::tempdir().unwrap();
    for profile in shipped() {
        let name = &profile.name;
        match (&profile.about.refuse, parse(&complete(&profile, secrets.path()))) {
            (None, Ok(checked)) => {
                // What check-config prints is what is done, and reads back as the same.
                let printed = toml::to_string(&checked.config).unwrap();
                let again = Config::parse(&printed, Path::new("printed")).and_then(Config::check).unwrap();
                assert_eq!((again.lines, again.ports), (checked.lines, checked.ports), "{name}");
            }
            (Some(reason), Err(error)) => assert!(error.contains(reason), "{name}: {error}"),
            (_, outcome) => panic!("{name}: {outcome:?}"),
        }
        let is_guess = profile.about.certainty == Certainty::Guess;
        assert!(!is_guess || profile.text.contains("guess"), "{name} does not say what it guesses");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned())).collect();
    files.sort();
    assert_eq!(files, SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
}

fn row(profile: &Profile) -> String {
    let Profile { name, about: About { title, makers, models, certainty, refuse }, .. } = profile;
    let certainty = if refuse.is_some() { "not usable yet" } else { certainty.name() };
    let (makers, models) = (makers.join(", "), models.join(", "));
    format!("| `{name}` | {title} | {makers} | {models} | `[[{}]]` | {certainty} |", profile.kind())
}

/// Negative control: change a title, or a certainty, in one of the files.
#[test]
fn the_readme_lists_the_shipped_profiles_as_they_are() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/README.md")).unwrap();
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `[")).collect();
    let expected: Vec<String> = shipped().iter().map(row).collect();
    assert_eq!(rows, expected);
}

/// Control, seen to fail: the profile wins; tables are replaced.
#[test]
fn the_section_wins_tables_are_merged_and_lists_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let about = "[profile]\ntitle = \"X\"\nmakers = []\ncertainty = \"guess\"\n";
    let defaults = "[meter]\nprotocol = \"dlms-hdlc\"\nclient = 1\nserver = 2\nquirks = { no_release = true, blocks_from_zero = true }\n\
                    [[meter.read]]\nprofile = \"1-0:99.2.0\"\n[protocol.dlms-hdlc]\nphysical = 17\n";
    std::fs::write(folder.path().join("mine.toml"), format!("{about}{defaults}")).unwrap();
    std::fs::write(folder.path().join("dsmr-5.toml"), format!("{about}[port]\nprotocol = \"sml\"\n")).unwrap();
    let gateway = format!("profiles_dir = {:?}\n{LINE}", folder.path());
    let meter = |rest: &str| {
        let text = format!("{gateway}[[meter]]\nname = \"m\"\nline = \"l\"\nprofile = \"mine\"\n{rest}");
        parse(&text).map(|checked| checked.lines[0].meters[0].clone())
    };
    let plain = meter("").unwrap();
    let Addressing::Hdlc { client, server } = plain.addressing else { panic!("{plain:?}") };
    assert_eq!((client.value(), server), (1, HdlcAddress::two(2, 17).unwrap()));
    assert_eq!((plain.reads.len(), plain.reads[0].profile.to_string()), (1, "1-0:99.2.0".to_owned()));
    let own = meter(
        "client = 3\nquirks = { blocks_from_zero = false }\n[[meter.read]]\n[[meter.read]]\nsource = \"events\"\n",
    );
    let own = own.unwrap();
    assert!(matches!(own.addressing, Addressing::Hdlc { client, .. } if client.value() == 3));
    assert_eq!((own.quirks.no_release, own.quirks.blocks_from_zero, own.reads.len()), (true, false, 2));
    // What counts for one protocol only does not stand in the way of another.
    let wrapper = meter("protocol = \"dlms-wrapper\"\n").unwrap();
    assert_eq!(wrapper.addressing, Addressing::Wrapper { client: 1, server: 2 });
    // A file comes before a profile of the same name in the program.
    let port = "[[meter]]\nname = \"m\"\nline = \"l\"\n[[port]]\nname = \"p\"\ntcp = \"a:1\"\nprofile = \"dsmr-5\"\n";
    assert!(matches!(parse(&format!("{gateway}{port}")).unwrap().ports[0].protocol, PushProtocol::Sml { .. }));
}

#[test]
fn errors_name_the_section_and_the_profile() {
    let meter = |profile: &str, rest: &str| {
        parse(&format!("{LINE}[[meter]]\nname = \"m\"\nline = \"l\"\nprofile = {profile:?}\n{rest}")).unwrap_err()
    };
    assert_eq!(
        meter("iskraemeco-am55", ""),
        "meter \"m\" with profile \"iskraemeco-am55\": there is no profile \"iskraemeco-am55\"\nhint: did you mean \"iskraemeco-am550\"?"
    );
    let error = meter("qqqqqqqqqqqqqqqq", "");
    assert!(error.ends_with("hint: `meterpost-gateway profiles` lists them"), "{error}");
    let error = meter("smets2", "");
    assert!(error.contains("is for a [[feed]] section") && error.contains("hint: write a [[feed]] section"), "{error}");
    let error = meter("iskraemeco-am550", "address_octets = 3\n");
    assert!(error.starts_with("meter \"m\" with profile \"iskraemeco-am550\": address_octets = 3"), "{error}");
    let error = meter("idis-package-2", "");
    assert!(error.contains("\"gmac\" needs keys") && error.contains("hint: set encryption_key_file"), "{error}");
    let error =
        parse("profiles_dir = \"/no/such/folder\"\n[[feed]]\nname = \"f\"\nprofile = \"smets2\"\n").unwrap_err();
    assert!(error.starts_with("cannot read /no/such/folder: "), "{error}");
}

#[test]
fn a_profile_of_ones_own_that_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let about = "[profile]\ntitle = \"X\"\nmakers = []\ncertainty = \"guess\"\n";
    let error = |text: &str| {
        std::fs::write(folder.path().join("mine.toml"), text).unwrap();
        parse(&format!("profiles_dir = {:?}\n[[feed]]\nname = \"f\"\nprofile = \"mine\"\n", folder.path())).unwrap_err()
    };
    let wrong = error(&format!("{about}[feed]\ncadense_s = 10\n"));
    assert!(
        wrong.starts_with("feed \"f\" with profile \"mine\": the profile is wrong: unknown field `cadense_s`"),
        "{wrong}"
    );
    assert!(wrong.ends_with("hint: did you mean `cadence_s`?"), "{wrong}");
    assert!(error(about).contains("mine.toml: a profile has one of the tables"), "{}", error(about));
    let unknown = error(&format!("{about}[meter]\n[protocol.dlms-hdcl]\nphysical = 17\n"));
    assert!(unknown.contains("mine.toml: [protocol.dlms-hdcl]: there is no protocol"), "{unknown}");
    let refused = error(&format!("{about}refuse = \"it sings\"\n[feed]\n"));
    assert!(refused.starts_with("feed \"f\" with profile \"mine\": it sings\nhint: leave profile out"), "{refused}");
    assert!(error("[profile]\ntitel = \"X\"\n").contains("hint: did you mean `title`?"));
    assert!(error(&"#".repeat(70_000)).contains("a profile of more than 65536 octets"));
}

/// Negative control: the bits of the standard for every meter.
#[test]
fn status_bits_are_a_makers_own() {
    let (catalog, secrets) = (Catalog::new(None).unwrap(), tempfile::tempdir().unwrap());
    let status = |name: &str| {
        let checked = parse(&complete(&catalog.find("x", name).unwrap(), secrets.path())).unwrap();
        let meter = checked.lines[0].meters[0].clone();
        (meter.status.as_ref().map(|status| status.bits), checked.config.meter[0].status_bits.len())
    };
    let iskra = StatusBits::AMR.with(6, Quality::POWER_FAILURE);
    assert_eq!(status("iskraemeco-am550"), (iskra, 6), "those of the standard are filled in");
    assert_eq!(status("idis-package-2"), (Some(StatusBits::AMR), 5));
    assert_eq!(status("idis-package-3"), (None, 0));
    let error = |rest: &str| parse(&format!("{LINE}[[meter]]\nname = \"m\"\nline = \"l\"\n{rest}")).unwrap_err();
    for wrong in ["6 = \"power-loss\"", "32 = \"good\"", "x = \"good\"", "1 = \"crc-invalid\""] {
        let text = error(&format!("status_bits = {{ {wrong} }}\n"));
        assert!(
            text.contains("cannot say") && text.contains("hint: bits are 0 to 31 and say good, or critical-error|"),
            "{text}"
        );
    }
    assert!(error("status_columns = [\"x\"]\n").contains("is no code"));
    assert!(
        error("protocol = \"iec62056-21\"\nstatus_columns = [\"0-0:96.240.12/18\"]\n")
            .contains("status_columns is a setting of")
    );
}

/// Control, seen to fail: rules without what the settings say.
#[test]
fn rows_are_read_by_the_status_that_the_settings_name() {
    use crate::reading::columns::{profile_rules, value_columns};
    use crate::reading::memory::{Layout, MeterMemory};
    use protocols::cosem::profile_generic::{CaptureObject, SortMethod};
    let status = "status_columns = [\"0-0:96.240.12/18\"]\nstatus_bits = { 15 = \"clock-adjusted\" }\n";
    let checked = parse(&format!("{LINE}[[meter]]\nname = \"m\"\nline = \"l\"\n{status}")).unwrap();
    let meter = &checked.lines[0].meters[0];
    let energy = CaptureObject::new(3, "1-1:1.8.0".parse().unwrap(), 2);
    let edis = CaptureObject::new(3, "0-0:96.240.12".parse().unwrap(), 18);
    let layout = Layout {
        columns: Box::new([CaptureObject::CLOCK, edis, energy]),
        capture_period_s: 900,
        sort_method: SortMethod::Fifo,
    };
    let rules = profile_rules(meter, &layout);
    assert_eq!((rules.status_column, rules.status.quality(0x8000)), (Some(1), Quality::CLOCK_ADJUSTED));
    let columns = value_columns(&layout, meter, &meter.reads[0], &MeterMemory::new(1));
    assert_eq!(columns.iter().map(|column| column.place).collect::<Vec<_>>(), [2]);
}
