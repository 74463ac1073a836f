//! Do other people's tools read the archive as its schema says? Runs the snippets of `cloud/src/archive/SCHEMA.md` themselves. Passes
//! with a line where there is no Python with duckdb, pandas and pyarrow (`METERPOST_PYTHON` names one).

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};

use cloud::clock::{Clock as _, SystemClock};
use demo::sinks::Sink;
use demo::stage::Stage;
use demo::verdict::Identity;
use protocols::metering::{Quantity, Unit, UtcMillis};
use serde_json::Value;
use tests::power_loss::skipped;
use tests::system::{CATCH_UP_TIMEOUT, binaries, in_the_log, serial_toml, stage, start_serial, until_logged};

/// What both snippets end in: every row as a line of JSON, numbers as they are.
const PRINT: &str = r#"
import json
for row in rows.to_dict("records"):
    at = int(row["captured_at"].value) // 1_000_000 if hasattr(row["captured_at"], "value") else row["captured_at"]
    exact = {"mantissa": int(row["mantissa"]), "scaler": int(row["scaler"]), "unit_number": int(row["unit_number"])}
    key = {name: row[name] for name in ("meter", "code", "kind")} | {"period_s": int(row["period_s"]), "nth": int(row["nth"])}
    print(json.dumps(key | exact | {"at": at, "value": float(row["value"])}))
"#;

/// The block of this language in the schema's text, on the files of `archive`.
fn snippet(language: &str, archive: &Path) -> String {
    let text = include_str!("../../cloud/src/archive/SCHEMA.md");
    let (_, behind) = text.split_once(&format!("```{language}\n")).unwrap();
    let (block, _) = behind.split_once("\n```").unwrap();
    assert!(block.contains("archive/raw/readings"), "{block}");
    block.replace("archive/raw", &archive.join("raw").display().to_string()).replace("date=2026-11-23", "date=*")
}

fn read(python: &str, script: &str) -> Sink {
    let output = Command::new(python).args(["-c", &format!("{script}\n{PRINT}")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(reading).collect()
}

fn reading(line: &str) -> (Identity, String) {
    let row: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    let number = |name: &str| row[name].as_u64().unwrap();
    let at = UtcMillis(row["at"].as_i64().unwrap());
    let scaler = row["scaler"].as_i64().unwrap();
    let mantissa = row["mantissa"].as_i64().unwrap();
    let quantity = Quantity::new(mantissa, scaler as i8, Unit(number("unit_number") as u8));
    let double = mantissa as f64 * 10f64.powi(scaler as i32);
    assert!((row["value"].as_f64().unwrap() - double).abs() <= double.abs() * 1e-15, "{line}");
    let identity = (text("meter"), text("code"), text("kind"), number("period_s"), at.to_string(), number("nth"));
    (identity, quantity.to_string())
}

/// Negative controls: write the mantissa as `value` (`archive/parquet/readings.rs`); let `holdings` name the raw files too that a
/// manifest replaces (rows are in two files, while the raw ones are still there).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_and_pandas_read_what_the_log_holds() {
    let python = std::env::var("METERPOST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_all = Command::new(&python).args(["-c", "import duckdb, pandas, pyarrow"]).output();
    if !has_all.is_ok_and(|output| output.status.success()) {
        return skipped("there is no Python with duckdb, pandas and pyarrow: nobody else has read the archive");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    // Profiles, and telegrams with decimals; over a day and a half, so that at least one date is over.
    let fleet = start_serial(&mut stage, 1, 1, "speed = 600.0\nhistory_days = 1.5").unwrap();
    stage.meters_toml = serial_toml(&stage) + &fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 120).await.unwrap();
    stage.freeze_simulator().unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    let audit = stage.audit(CATCH_UP_TIMEOUT).await.unwrap();
    assert_eq!((&audit["pending"], &audit["closed"]), (&0.into(), &true.into()), "{audit}");
    let log = in_the_log(&stage).await;
    assert!(log.values().any(|value| value.contains('.')), "a value with decimals");

    let archive = stage.cloud_folder().join("objects/archive");
    let sql = snippet("sql", &archive);
    let scripts = [
        ("DuckDB", format!("import duckdb\nrows = duckdb.sql(\"\"\"{sql}\"\"\").df()")),
        ("pandas", format!("{}\nrows = readings.sort_values(\"sealed_effective\")", snippet("python", &archive))),
    ];
    for (tool, script) in scripts {
        let read = read(&python, &script);
        assert!(read == log, "{tool} reads {} rows of {}", read.len(), log.len());
    }
    unseen_compaction(&python, &stage, &archive, &sql, &log).await;
}

/// What a compaction does, DuckDB over `archive files` must not see: before it, stopped after it published, and after it.
async fn unseen_compaction(python: &str, stage: &Stage, archive: &Path, sql: &str, log: &Sink) {
    let over = dates_over(archive);
    assert!(!over.is_empty(), "no date is over");
    let of_over = |sink: &Sink| -> Sink {
        let is_over = |at: &str| over.iter().any(|date| at.starts_with(date.as_str()));
        sink.iter()
            .filter(|(identity, _)| is_over(&identity.4))
            .map(|(at, value)| (at.clone(), value.clone()))
            .collect()
    };
    let expected = of_over(log);
    assert!(!expected.is_empty());
    let compared = |when: &str| {
        let sink = read_files(python, stage, &over, sql);
        assert!(sink == expected, "{when}: DuckDB reads {} rows of {}", sink.len(), expected.len());
    };
    let raw_files = || over.iter().map(|date| raw_files(archive, date)).sum::<usize>();
    let before = raw_files();
    compared("before");
    for date in &over {
        let mut waiting = cloud_command(stage, &["archive", "compact", date, "--grace", "1h"]).spawn().unwrap();
        // Not while it is being written beside its place.
        let is_manifest = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
        };
        let folder = archive.join(format!("manifests/readings/date={date}"));
        let published = || std::fs::read_dir(&folder).is_ok_and(|mut files| files.any(is_manifest));
        tests::system::until("a manifest", CATCH_UP_TIMEOUT, async || Ok(published())).await.unwrap();
        waiting.kill().unwrap();
        waiting.wait().unwrap();
    }
    assert_eq!(raw_files(), before, "the raw files are still there");
    compared("during");
    for date in &over {
        let done = cloud_command(stage, &["archive", "compact", date, "--grace", "0s"]).status().unwrap();
        assert!(done.success());
    }
    assert_eq!(raw_files(), 0);
    compared("after");
    let audit = stage.audit(CATCH_UP_TIMEOUT).await.unwrap();
    assert_eq!((&audit["pending"], &audit["closed"]), (&0.into(), &true.into()), "{audit}");
    let closed = || cloud_command(stage, &["audit", "--full"]).status().unwrap().success();
    assert!(closed(), "the books are not closed");

    let compacted = archive.join(format!("compacted/readings/date={}", over[0]));
    let file = std::fs::read_dir(&compacted).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(file).unwrap();
    assert!(!closed(), "nobody misses a file");
    let made = cloud_command(stage, &["rebuild", "archive", "--from", "log"]).status().unwrap();
    assert!(made.success());
    compared("made anew");
    assert!(closed(), "the books are not closed");
}

/// The cloud's program on the data of the stage, beside the one that runs.
fn cloud_command(stage: &Stage, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries().unwrap().cloud);
    command.args(arguments).arg("--data").arg(stage.cloud_folder()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Dates of the archive that are over, as `archive compact` asks for.
fn dates_over(archive: &Path) -> Vec<String> {
    let today = SystemClock.now().day().to_string();
    let names = std::fs::read_dir(archive.join("raw/readings")).unwrap().map(|entry| entry.unwrap().file_name());
    let dates = names.filter_map(|name| Some(name.to_str()?.strip_prefix("date=")?.to_owned()));
    dates.filter(|date| *date < today).collect()
}

fn raw_files(archive: &Path, date: &str) -> usize {
    std::fs::read_dir(archive.join(format!("raw/readings/date={date}"))).map_or(0, Iterator::count)
}

/// What DuckDB reads of the files that `archive files` names.
fn read_files(python: &str, stage: &Stage, dates: &[String], sql: &str) -> Sink {
    let mut keys = Vec::new();
    for date in dates {
        let output = cloud_command(stage, &["archive", "files", date]).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success());
        keys.extend(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned));
    }
    let objects = stage.cloud_folder().join("objects");
    let files: Vec<String> = keys.iter().map(|key| format!("'{}'", objects.join(key).display())).collect();
    let (head, rest) = sql.split_once("read_parquet('").unwrap();
    let (_, tail) = rest.split_once("',").unwrap();
    let files = format!("read_parquet([{}],", files.join(", "));
    // What a row was in the log, it is once: the newest of two would hide that it was read twice.
    let once = format!(
        "SELECT count(*) = count(DISTINCT (generation, partition, \"offset\")) FROM {files} hive_partitioning = true)"
    );
    let asked = format!("import duckdb\nprint(duckdb.sql(\"\"\"{once}\"\"\").fetchall()[0][0])");
    let output = Command::new(python).args(["-c", &asked]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "True", "{}", String::from_utf8_lossy(&output.stderr));
    let sql = format!("{head}{files}{tail}");
    read(python, &format!("import duckdb\nrows = duckdb.sql(\"\"\"{sql}\"\"\").df()"))
}
