//! After a power loss at any instant, everything that was acknowledged is there.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the helpers of a test fail it, and say what was looked at"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tests::power_loss::{
    Change, Exploration, Findings, Journal, OutboxFile, Record, Shim, Stores, Table, explore, image_to, run, scratch,
};

const SUBJECT: &str = env!("CARGO_BIN_EXE_disk_subject");

fn shim() -> Option<Shim> {
    Shim::build(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

/// Runs the processes one after another in one folder, and answers what they did together.
fn record(shim: &Shim, folder: &Path, promised: Vec<String>, processes: &[Vec<String>]) -> Record {
    let before = files_of(folder);
    let log = folder.with_extension("record");
    for arguments in processes {
        let mut command = shim.recording(Path::new(SUBJECT), folder, &log);
        run(command.arg(&arguments[0]).arg(folder).args(&arguments[1..])).unwrap();
    }
    let record = Record::read(&log, folder, before, promised).unwrap();
    std::fs::remove_file(log).unwrap();
    record
}

fn files_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap())).collect()
}

fn arguments(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn promises(record: &Record) -> impl Iterator<Item = &String> {
    record.changes.iter().filter_map(|change| match change {
        Change::Promise(line) => Some(line),
        _ => None,
    })
}

fn nothing_broken(findings: &Findings) {
    println!("{findings:?}");
    assert_eq!(
        findings.broken,
        0,
        "{} of {} images: {}",
        findings.broken,
        findings.images,
        findings.first.as_deref().unwrap_or_default()
    );
}

/// How often a file that began with a WAL's header got another one.
fn begun_anew(record: &Record) -> usize {
    let headers = record.changes.iter().filter_map(|change| match change {
        Change::Write { file, offset: 0, data } if data.len() == 32 => Some(*file),
        _ => None,
    });
    let headers: Vec<usize> = headers.collect();
    headers.len() - headers.iter().collect::<BTreeSet<_>>().len()
}

/// The outbox of one gateway, through two clean stops and a kill.
fn outbox_record(shim: &Shim, folder: &Path) -> Record {
    let run = |seed: &str, steps, end| arguments(&["outbox", seed, steps, end]);
    let processes =
        [run("1", "60", "clean"), run("2", "260", "abrupt"), run("3", "60", "clean"), run("4", "40", "abrupt")];
    record(shim, folder, Vec::new(), &processes)
}

/// Negative controls: `an_explorer_that_ignores_flushes_...` and `plain_sqlite_...` below; or set `synchronous` to NORMAL in
/// `Outbox::open` (and what it reads back), commit after the reply, keep the incarnation across openings.
#[test]
fn no_acknowledged_reading_is_lost_by_the_outbox() {
    let Some(shim) = shim() else { return };
    let folder = scratch().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let record = outbox_record(&shim, &data);
    println!("{} changes, {} bytes, {} promises", record.changes.len(), record.bytes.len(), promises(&record).count());
    assert!(begun_anew(&record) > 0, "no WAL was begun anew behind a checkpoint");
    let removed = |change: &Change| matches!(change, Change::Unname { path } if path.ends_with("outbox.db-wal"));
    assert_eq!(record.changes.iter().filter(|change| removed(change)).count(), 2, "two clean stops");
    let outbox = OutboxFile::default();
    outbox.expect(promises(&record)).unwrap();
    let how = Exploration { seed: 1, images: 6_000, flushes_count: true };
    let findings = explore(&record, &outbox, how).unwrap();
    assert_eq!(findings.images, 6_000);
    nothing_broken(&findings);
}

/// A power loss while the gateway starts after a power loss, and later in its life.
#[test]
fn nothing_is_lost_by_a_second_power_loss() {
    let Some(shim) = shim() else { return };
    let folder = scratch().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let first = outbox_record(&shim, &data);
    let outbox = OutboxFile::default();
    outbox.expect(promises(&first)).unwrap();
    for life in 0..10_u64 {
        let data = folder.path().join(format!("life-{life}"));
        let how = Exploration { seed: 100 + life, images: 10, flushes_count: true };
        let promised = image_to(&first, how, life as usize, &data).unwrap();
        let seed = (1_000 + life).to_string();
        let second = record(&shim, &data, promised, &[arguments(&["outbox", &seed, "15", "abrupt"])]);
        outbox.expect(promises(&second)).unwrap();
        nothing_broken(&explore(&second, &outbox, Exploration { seed: life, images: 100, ..how }).unwrap());
    }
}

/// The explorer can fail: the same record on a disk whose flushes do nothing.
#[test]
fn an_explorer_that_ignores_flushes_finds_the_outbox_wanting() {
    let Some(shim) = shim() else { return };
    let folder = scratch().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let record = record(&shim, &data, Vec::new(), &[arguments(&["outbox", "1", "60", "abrupt"])]);
    let outbox = OutboxFile::default();
    outbox.expect(promises(&record)).unwrap();
    let findings = explore(&record, &outbox, Exploration { seed: 1, images: 200, flushes_count: false }).unwrap();
    println!("{findings:?}");
    assert!(findings.broken > 100, "{findings:?}");
}

/// The explorer is right: it finds what each setting of SQLite is known to lose, and nothing else.
#[test]
fn plain_sqlite_loses_exactly_what_its_settings_allow() {
    let Some(shim) = shim() else { return };
    for journal in Journal::ALL {
        let folder = scratch().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let processes = [arguments(&["table", &journal.name(), "120"])];
        let record = record(&shim, &data, Vec::new(), &processes);
        let findings = explore(&record, &Table, Exploration { seed: 1, images: 600, flushes_count: true }).unwrap();
        println!("{}: {findings:?}", journal.name());
        match (journal.mode, journal.synchronous) {
            ("wal", "full") | ("delete", "extra") => nothing_broken(&findings),
            // Its journal's name may come back: the last transaction is rolled back.
            ("delete", "full") => assert!(findings.broken > 20, "{findings:?}"),
            _ => assert!(findings.broken > 300, "{findings:?}"),
        }
    }
}

/// Negative controls: the same record on a disk whose flushes do nothing, below; or set `synchronous` to NORMAL in
/// `cloud::embedded`, commit the log before the store, move a position in a transaction of its own.
#[test]
fn log_and_store_keep_every_ref_and_every_commit() {
    let Some(shim) = shim() else { return };
    let folder = scratch().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let run = |seed: &str, steps, end| arguments(&["stores", seed, steps, end]);
    let processes = [run("1", "20", "clean"), run("2", "60", "abrupt"), run("3", "20", "clean")];
    let record = record(&shim, &data, Vec::new(), &processes);
    println!("{} changes, {} bytes, {} promises", record.changes.len(), record.bytes.len(), promises(&record).count());
    let how = Exploration { seed: 1, images: 2_000, flushes_count: true };
    nothing_broken(&explore(&record, &Stores, how).unwrap());
    let lying = explore(&record, &Stores, Exploration { images: 60, flushes_count: false, ..how }).unwrap();
    println!("{lying:?}");
    assert!(lying.broken > 30, "{lying:?}");
}

/// One index page is damaged, all rows can be read: the gateway salvages at its next start, and the power fails meanwhile.
#[test]
fn nothing_is_lost_by_a_power_loss_while_salvaging() {
    let Some(shim) = shim() else { return };
    let folder = scratch().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let first = record(&shim, &data, Vec::new(), &[arguments(&["outbox", "1", "60", "clean"])]);
    let promised: Vec<String> = promises(&first).cloned().collect();
    let path = data.join("outbox.db");
    let root: u32 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_series_1'", [], |row| row.get(0))
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let root = root as usize * 4096;
    bytes[root - 4096..root].fill(0);
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(data.join("acknowledged")).unwrap();
    let second = record(&shim, &data, promised, &[arguments(&["outbox", "2", "5", "abrupt"])]);
    let outbox = OutboxFile::default();
    outbox.expect(promises(&first)).unwrap();
    outbox.expect(promises(&second)).unwrap();
    let findings = explore(&second, &outbox, Exploration { seed: 1, images: 600, flushes_count: true }).unwrap();
    assert!(findings.mended > 0, "{findings:?}");
    nothing_broken(&findings);
}
