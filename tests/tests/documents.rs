//! Do the documents tell the truth: settings, commands, names of tests, example files?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cloud::log::kafka::{KafkaSection, RegistrySection};
use cloud::objects::ObjectsSection;
use cloud::store::cassandra::{CassandraSection, TlsSection};
use demo::stage::Binaries;
use serde::Serialize;
use toml::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn binaries() -> Binaries {
    // target/ci/deps/documents-… → target/ci
    let test = std::env::current_exe().unwrap();
    Binaries::in_folder(test.parent().and_then(Path::parent).unwrap()).unwrap()
}

/// Tracked Rust sources, by path.
fn sources() -> BTreeMap<String, String> {
    let listed = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().filter(|path| root().join(path).exists()).map(|path| (path.to_owned(), read(path))).collect()
}

// ----------------------------------------------------------------------------------------------------------------------------
// The reference of settings.

/// One table of a configuration file: where it stands, and the struct that is it.
struct Section {
    heading: &'static str,
    structure: &'static str,
    source: &'static str,
    defaults: Value,
}

fn section(heading: &'static str, structure: &'static str, source: &'static str, defaults: impl Serialize) -> Section {
    Section { heading, structure, source, defaults: Value::try_from(defaults).unwrap() }
}

fn gateway_sections() -> Vec<Section> {
    use gateway::config::metering::{
        ClockSetSection, LineSection, MeterSection, PortSection, QuirksSection, ReadSection,
    };
    use gateway::config::{BrokerSection, CloudSection, FeedSection, GatewaySection, HttpSection, OutboxSection};
    let (config, metering) = ("gateway/src/config.rs", "gateway/src/config/metering/sections.rs");
    vec![
        section("[gateway]", "GatewaySection", config, GatewaySection::default()),
        section("[outbox]", "OutboxSection", config, OutboxSection::default()),
        section("[broker]", "BrokerSection", config, BrokerSection::default()),
        section("[cloud]", "CloudSection", config, CloudSection::default()),
        section("[http]", "HttpSection", config, HttpSection::default()),
        section("[[feed]]", "FeedSection", config, FeedSection::default()),
        section("[[line]]", "LineSection", metering, LineSection::default()),
        section("[[meter]]", "MeterSection", metering, MeterSection::default()),
        section("[meter.quirks]", "QuirksSection", metering, QuirksSection::default()),
        section(
            "[meter.clock_set]",
            "ClockSetSection",
            "gateway/src/config/metering/clock_set.rs",
            ClockSetSection::default(),
        ),
        section("[[meter.read]]", "ReadSection", metering, ReadSection::default()),
        section("[[port]]", "PortSection", metering, PortSection::default()),
    ]
}

fn cloud_sections() -> Vec<Section> {
    use cloud::config::{
        ArchiveSection, HttpSection, LandingSection, LogSection, LoggingSection, MqttSection, Settings, WorkerSection,
    };
    let config = "cloud/src/config.rs";
    let (kafka, cassandra) = ("cloud/src/log/kafka/settings.rs", "cloud/src/store/cassandra/settings.rs");
    vec![
        section("at the top", "Settings", config, Settings::default()),
        section("[http]", "HttpSection", config, HttpSection::default()),
        section("[mqtt]", "MqttSection", config, MqttSection::default()),
        section("[worker]", "WorkerSection", config, WorkerSection::default()),
        section("[archive]", "ArchiveSection", config, ArchiveSection::default()),
        section("[landing]", "LandingSection", config, LandingSection::default()),
        section("[log]", "LogSection", config, LogSection::default()),
        section("[logging]", "LoggingSection", config, LoggingSection::default()),
        section("[objects]", "ObjectsSection", "cloud/src/objects/settings.rs", ObjectsSection::default()),
        section("[kafka]", "KafkaSection", kafka, KafkaSection::default()),
        section("[kafka.registry]", "RegistrySection", kafka, RegistrySection::default()),
        section("[cassandra]", "CassandraSection", cassandra, CassandraSection::default()),
        section("[cassandra.tls]", "TlsSection", cassandra, TlsSection::default()),
    ]
}

/// With the engines that are left out by default.
fn cloud_settings() -> cloud::config::Settings {
    let (kafka, cassandra) = (Some(KafkaSection::default()), Some(CassandraSection::default()));
    cloud::config::Settings { kafka, cassandra, ..cloud::config::Settings::default() }
}

fn simulator_sections() -> Vec<Section> {
    use firmware_sim::config::{FleetFile, MeterSection, MqttSection, ProfileSection, SecuritySection};
    let config = "firmware-sim/src/config.rs";
    vec![
        section("at the top", "FleetFile", config, FleetFile::default()),
        section("[mqtt]", "MqttSection", config, MqttSection::default()),
        section("[[meters]]", "MeterSection", config, MeterSection::default()),
        section("[meters.security]", "SecuritySection", config, SecuritySection::default()),
        section("[meters.profile]", "ProfileSection", config, ProfileSection::default()),
    ]
}

/// Fields of a struct as its source has them: name, type, documentation.
fn fields(source: &str, structure: &str) -> Vec<(String, String, String)> {
    let body = source.split_once(&format!("pub struct {structure} {{\n")).map(|(_, rest)| rest);
    let body = body.and_then(|rest| rest.split_once("\n}\n")).map(|(body, _)| body);
    let body = body.unwrap_or_else(|| panic!("there is no struct {structure}"));
    let (mut fields, mut documentation) = (Vec::new(), Vec::new());
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            documentation.push(text.trim());
        } else if let Some((name, of)) = line.strip_prefix("pub ").and_then(|field| field.split_once(": ")) {
            fields.push((name.to_owned(), of.trim_end_matches(',').to_owned(), documentation.join(" ")));
            documentation.clear();
        }
    }
    fields
}

/// Tables within a table have a section of their own.
fn is_table(of: &str) -> bool {
    of.ends_with("Section") || ((of.starts_with("Vec<") || of.starts_with("Option<")) && of.ends_with("Section>"))
}

fn reference() -> String {
    let mut text = String::from(
        "# Settings\n\nMade from the code by `tests/tests/documents.rs`, which also checks it. `check-config --config FILE` of each program prints \
         what is in force.\nNot set: there is no default, or it follows from other keys as described.\n",
    );
    let programs = [
        ("meterpost-gateway", gateway_sections()),
        ("meterpost-cloud", cloud_sections()),
        ("firmware-sim fleet", simulator_sections()),
    ];
    let mut undocumented = Vec::new();
    for (program, sections) in programs {
        writeln!(text, "\n## {program}").unwrap();
        for Section { heading, structure, source, defaults } in sections {
            let rows = fields(&read(source), structure).into_iter().filter(|(_, of, _)| !is_table(of));
            writeln!(text, "\n### {heading}\n\n| key | default | meaning |\n| --- | --- | --- |").unwrap();
            for (key, _, meaning) in rows {
                let default = defaults.get(&key).map_or("not set".to_owned(), |value| format!("`{value}`"));
                writeln!(text, "| `{key}` | {default} | {} |", meaning.replace('|', "\\|")).unwrap();
                if meaning.is_empty() {
                    undocumented.push(format!("{source}: {structure}::{key}"));
                }
            }
        }
    }
    assert!(undocumented.is_empty(), "settings without documentation:\n{}", undocumented.join("\n"));
    text
}

/// Every key with its default and its meaning, from the structs that are read and the comments beside them.
///
/// Negative control: change a default, or a comment, in one of the sources.
#[test]
fn the_reference_of_settings_is_what_the_code_says() {
    let (path, text) = (root().join("deploy/config/REFERENCE.md"), reference());
    if std::env::var_os("METERPOST_WRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "{} is old\nhint: METERPOST_WRITE=1 cargo test -p tests --test documents", path.display());
}

/// Each table of a default configuration, and each within one of them, has a section in the reference.
///
/// Negative control: leave a section out above.
#[test]
fn no_section_is_missing_in_the_reference() {
    let programs = [
        (Value::try_from(gateway::config::Config::default()).unwrap(), gateway_sections()),
        (Value::try_from(cloud_settings()).unwrap(), cloud_sections()),
        (Value::try_from(firmware_sim::config::FleetFile::default()).unwrap(), simulator_sections()),
    ];
    for (defaults, sections) in programs {
        let keys = defaults.as_table().unwrap().iter();
        // At the top, every list is one of tables.
        let mut tables: BTreeSet<String> =
            keys.filter(|(_, value)| value.is_table() || value.is_array()).map(|(key, _)| key.clone()).collect();
        let mut described = BTreeSet::new();
        for Section { heading, structure, source, .. } in &sections {
            if heading.starts_with('[') {
                let name = heading.trim_matches(['[', ']']);
                described.insert(name.to_owned());
                let fields = fields(&read(source), structure).into_iter();
                tables.extend(fields.filter(|(_, of, _)| is_table(of)).map(|(key, ..)| format!("{name}.{key}")));
            }
        }
        assert_eq!(described, tables);
    }
}

/// Negative control: misspell a key in one of the files.
#[test]
fn each_example_file_passes_its_programs_check() {
    let binaries = binaries();
    let examples =
        [(&binaries.gateway, "gateway.toml"), (&binaries.cloud, "cloud.toml"), (&binaries.simulator, "fleet.toml")];
    for (program, example) in examples {
        let path = root().join("deploy/config").join(example);
        let output = Command::new(program).args(["check-config", "--config"]).arg(&path).output().unwrap();
        assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

// ----------------------------------------------------------------------------------------------------------------------------
// Commands in the README.

/// Everything in the README that is typed as code: lines of fenced blocks, and what stands between backticks.
fn typed_in_the_readme() -> Vec<String> {
    let (readme, mut typed, mut fenced) = (read("README.md"), Vec::new(), false);
    for line in readme.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            typed.push(line.to_owned());
        } else {
            typed.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    typed
}

/// What a command line asks of one of our programs: `sub --option`, of which the help must know.
fn help_of(program: &Path, words: &[&str]) -> (Vec<String>, String) {
    let mut path: Vec<String> = Vec::new();
    let mut help = String::new();
    for depth in 0..=words.len() {
        let candidate: Vec<&str> = words[..depth].to_vec();
        let output = Command::new(program).args(&candidate).arg("--help").output().unwrap();
        if !output.status.success() {
            break;
        }
        path = candidate.iter().map(|word| (*word).to_owned()).collect();
        help = String::from_utf8(output.stdout).unwrap();
        if !help.contains("Commands:") {
            break;
        }
    }
    (path, help)
}

/// Each command of ours that the README shows exists, with each option that it shows.
///
/// Negative control: write `--dat` for `--data` in the README.
#[test]
fn each_command_of_the_readme_exists() {
    let binaries = binaries();
    let programs: BTreeMap<&str, &Path> = BTreeMap::from([
        ("meterpost-gateway", binaries.gateway.as_path()),
        ("meterpost-cloud", binaries.cloud.as_path()),
        ("firmware-sim", binaries.simulator.as_path()),
    ]);
    let mut checked = BTreeSet::new();
    for line in typed_in_the_readme() {
        let words: Vec<&str> = line.split_whitespace().filter(|word| !word.contains('=')).collect();
        let Some((&first, rest)) = words.split_first() else { continue };
        let name = first.rsplit('/').next().unwrap();
        if let Some(program) = programs.get(name).filter(|_| !rest.is_empty()) {
            let plain: Vec<&str> = rest.iter().copied().take_while(|word| !word.starts_with('-')).collect();
            let (path, help) = help_of(program, &plain);
            assert!(!path.is_empty(), "README: {line:?}: {name} knows no such command");
            for option in rest.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "README: {line:?}: {} {} knows no {option}", name, path.join(" "));
            }
            checked.insert(line.clone());
        } else if name == "cargo" {
            check_cargo(&line, rest);
            checked.insert(line.clone());
        } else if first.starts_with("tests/") || first.starts_with("deploy/") {
            assert!(root().join(first).exists(), "README: there is no {first}");
            checked.insert(line.clone());
        }
    }
    assert!(checked.len() >= 8, "only these commands were found: {checked:?}");
}

fn check_cargo(line: &str, words: &[&str]) {
    let after = |flag: &str| words.iter().position(|word| *word == flag).and_then(|place| words.get(place + 1));
    if let Some(test) = after("--test") {
        let package = after("-p").unwrap_or_else(|| panic!("README: {line:?} names no package"));
        let path = root().join(package).join("tests").join(format!("{test}.rs"));
        assert!(path.exists(), "README: {line:?}: there is no {}", path.display());
    }
    if words.first() == Some(&"demo") {
        let help = Command::new(&binaries().demo).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        for option in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "README: {line:?}: the demo knows no {option}");
        }
    }
}

// ----------------------------------------------------------------------------------------------------------------------------
// Names of tests and files.

/// `file::name` and `file::tests::name` in the architecture's tables, and anywhere in the guide, are tests that exist.
///
/// Negative control: rename a test that a table names.
#[test]
fn each_test_that_the_architecture_names_exists() {
    let sources = sources();
    let (architecture, guide) = (read("ARCHITECTURE.md"), read("deploy/GUIDE.md"));
    let rows = architecture.lines().filter(|line| line.starts_with('|')).map(|line| ("ARCHITECTURE.md", line));
    let mut named = 0;
    for (document, row) in rows.chain(guide.lines().map(|line| ("deploy/GUIDE.md", line))) {
        for name in row.split('`').skip(1).step_by(2).filter(|name| name.contains("::") && !name.contains(' ')) {
            let (module, function) = name.rsplit_once("::").unwrap();
            if !function.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                continue;
            }
            let file = module.split("::").next().unwrap();
            let is_there = |(path, text): (&String, &String)| {
                path.split(['/', '.']).any(|part| part == file) && text.contains(&format!("fn {function}("))
            };
            assert!(sources.iter().any(is_there), "{document} names {name}, which is no test");
            named += 1;
        }
    }
    assert!(named > 0, "the architecture names no test");
}

/// Paths that README, architecture and contributing guide name in backticks exist.
#[test]
fn each_path_that_the_documents_name_exists() {
    let tops: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "target")
        .collect();
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "deploy/GUIDE.md"] {
        for typed in read(document).split('`').skip(1).step_by(2) {
            let is_path = typed.split('/').next().is_some_and(|top| tops.iter().any(|known| known == top));
            if is_path && typed.contains('/') && !typed.contains([' ', '{', '*', '…']) {
                assert!(root().join(typed).exists(), "{document} names {typed}, which is not there");
            }
        }
    }
}
