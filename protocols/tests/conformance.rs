//! Does the table of conformance in the README tell the truth?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Packages whose tests the table may name.
const PACKAGES: [&str; 4] = ["protocols", "gateway", "firmware-sim", "tests"];
const VERDICTS: [&str; 3] = ["yes", "partly", "no"];
/// Sections of the list, and how many things some meters do otherwise.
const SECTIONS: [&str; 9] = ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8", "2.9"];
const QUIRKS: usize = 43;

fn package(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name)
}

fn sources_in(folder: &Path, into: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_in(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.insert(path.clone(), std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Whether a source has this test: a function behind an attribute that says so, or in a `proptest!`.
fn has_test(source: &str, name: &str) -> bool {
    let Some(place) = source.find(&format!("fn {name}(")) else { return false };
    let is_above =
        |line: &&str| line.is_empty() || *line == "async" || line.starts_with("#[") || line.starts_with("//");
    let mut above = source[..place].lines().rev().map(str::trim).take_while(is_above);
    above.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

fn exists(sources: &BTreeMap<PathBuf, String>, name: &str) -> bool {
    let Some((file, test)) = name.rsplit_once("::") else { return false };
    let is_of = |path: &Path| path.iter().any(|part| part.to_str().unwrap().trim_end_matches(".rs") == file);
    sources.iter().any(|(path, source)| is_of(path) && has_test(source, test))
}

/// Cells of the rows of all tables, without their heads.
fn rows(readme: &str) -> Vec<Vec<&str>> {
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.map(|row| row.split(" | ").map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| !cells.iter().any(|cell| cell.starts_with("---") || *cell == "shown by")).collect()
}

/// Negative controls: rename a test that the table names; leave a row out, or its test.
#[test]
fn each_row_has_its_verdict_and_names_tests_that_exist() {
    let readme = std::fs::read_to_string(package("protocols").join("README.md")).unwrap();
    let mut sources = BTreeMap::new();
    for name in PACKAGES {
        for folder in ["src", "tests"].map(|folder| package(name).join(folder)).iter().filter(|folder| folder.exists())
        {
            sources_in(folder, &mut sources);
        }
    }
    let rows = rows(&readme);
    for cells in &rows {
        let [.., verdict, tests] = cells[..] else { panic!("{cells:?} is no row") };
        assert!(VERDICTS.contains(&verdict), "{cells:?}: {verdict:?} is no verdict");
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert_eq!(names.is_empty(), verdict == "no", "{cells:?}");
        for name in names {
            assert!(exists(&sources, name), "the README names {name}, which is no test");
        }
    }
    let numbered: Vec<usize> =
        rows.iter().filter(|cells| cells.len() == 4).map(|cells| cells[0].parse().unwrap()).collect();
    assert_eq!(numbered, (1..=QUIRKS).collect::<Vec<_>>());
    for section in SECTIONS {
        assert!(readme.contains(&format!("### {section} ")), "section {section} is missing");
    }
}

#[test]
fn a_function_is_a_test_only_where_it_is_marked() {
    let source = "#[test]\nfn yes() {}\nfn no() {}\n#[tokio::test(start_paused = true)]\nasync fn later() {}\nproptest! {\n    #[test]\n    fn drawn(x: u8) {}\n";
    assert_eq!(
        ["yes", "no", "later", "drawn", "absent"].map(|name| has_test(source, name)),
        [true, false, true, true, false]
    );
}
