//! Who may depend on whom, and what no file may contain.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// (from, to) between our packages; development dependencies too.
fn edges() -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut edges = BTreeSet::new();
    for package in packages {
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if ours.contains(to) {
                edges.insert((package["name"].as_str().unwrap().to_owned(), to.to_owned()));
            }
        }
    }
    edges
}

/// Negative control: add `cloud.workspace = true` to the gateway's dependencies.
#[test]
fn packages_depend_only_on_whom_they_may() {
    let allowed = |from: &str, to: &str| match from {
        "protocols" | "tls-client" => false,
        "gateway" | "cloud" => ["protocols", "tls-client"].contains(&to),
        "firmware-sim" => to == "protocols",
        "demo" => to != "tests",
        // The kill tests run on the demo's stage.
        "tests" => true,
        other => panic!("{other} is a new package: say here whom it may depend on"),
    };
    let forbidden: Vec<_> = edges().into_iter().filter(|(from, to)| !allowed(from, to)).collect();
    assert!(forbidden.is_empty(), "forbidden dependencies: {forbidden:?}");
}

/// Negative control: add `tokio.workspace = true` to the dependencies of `protocols`.
#[test]
fn protocols_knows_no_runtime() {
    let manifest = std::fs::read_to_string(root().join("protocols/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
    for runtime in ["tokio", "actix", "tracing", "rand", "getrandom", "futures"] {
        assert!(!dependencies.contains(runtime), "protocols depends on {runtime}");
    }
}

#[test]
fn plain_logic_imports_no_actors() {
    for package in ["gateway", "cloud"] {
        for file in rust_files(&root().join(package).join("src")) {
            let name = file.strip_prefix(root().join(package).join("src")).unwrap();
            let shell = name.starts_with("actors")
                || name.starts_with("run")
                || ["main.rs", "lib.rs", "run.rs"].contains(&name.to_str().unwrap());
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(shell || !text.contains("crate::actors"), "{} imports actors", file.display());
        }
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
