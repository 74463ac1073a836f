//! Does the demo clean up behind itself when it is ended before its end?

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tests::system::binaries;

/// The processes that name `folder` in their command lines.
fn running_in(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").expect("this is Linux").flatten() {
        // Some end while this looks at them.
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&*folder.to_string_lossy()) {
            found.push(command);
        }
    }
    found
}

/// Control: without the branch of `End` in `demo::show::run` cloud, gateway and simulator go on, and their files stay.
#[test]
fn a_demo_that_is_ended_leaves_neither_processes_nor_files() {
    for name in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = Command::new(binaries().unwrap().demo)
            // What is built is there: this is about what runs.
            .env_remove("CARGO")
            .env("TMPDIR", folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(demo.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(said.any(|line| line.starts_with("all of them:")), "the demo ended by itself");
        assert!(running_in(folder.path()).len() >= 3, "{:?}", running_in(folder.path()));
        let signal = Command::new("kill").args([&format!("-{name}"), &demo.id().to_string()]).status().unwrap();
        assert!(signal.success());
        let status = demo.wait().unwrap();
        assert_eq!(status.code(), Some(1), "nothing was proved");
        assert_eq!(running_in(folder.path()), Vec::<String>::new());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files are left behind");
    }
}
