//! Other people's readers over the three sinks, against what the meters captured.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cloud::clock::{Clock as _, SystemClock};
use demo::sinks::Sink;
use demo::stage::Stage;
use demo::verdict::{Deaf, compare};
use protocols::metering::{Quantity, Unit, UtcMillis};
use serde_json::Value;
use tests::cluster::Cluster;
use tests::power_loss::skipped;
use tests::services::if_to_be_had;
use tests::services::java::{class_path, jars_of, jdk};
use tests::system::Truth;

/// Somebody's program that prints every reading of a sink as a line of JSON.
struct Reader {
    name: &'static str,
    command: Command,
}

/// Reads the sinks of the stage's cloud, which is called `name`, and compares each with the truth; the archive before and after a
/// last compaction. How many readings each reader found.
///
/// Negative control, seen: let the example in Java read uncommitted records; it finds deliveries twice.
pub(crate) fn find_the_same(
    cluster: &Cluster,
    stage: &Stage,
    name: &str,
    truth: &Truth,
    deaf: &[Deaf],
) -> Result<Vec<(&'static str, u64)>> {
    let bucket = cluster.s3.bucket().join(name);
    let topic = format!("{name}.readings");
    let (brokers, registry) = (cluster.kafka.bootstrap(), cluster.registry.url());
    let port = cluster.cassandra.address(0).port().to_string();
    let of_archive = || {
        let keys = files(stage, &bucket)?.display().to_string();
        anyhow::Ok(in_python("tests/tests/cluster/read_archive.py", &[&bucket.display().to_string(), &keys]))
    };
    let before = [
        in_python("deploy/examples/read_readings.py", &[&brokers, &registry, &topic]),
        in_java(cluster, &topic)?,
        in_python("tests/tests/cluster/read_store.py", &[&port, name]),
        of_archive()?,
    ];
    let mut found = compare_all(before, truth, deaf)?;
    compact(stage, &bucket)?;
    found.extend(compare_all([of_archive()?], truth, deaf)?);
    Ok(found)
}

/// All at the same time: each takes a minute or more.
fn compare_all<const N: usize>(
    readers: [Option<Reader>; N],
    truth: &Truth,
    deaf: &[Deaf],
) -> Result<Vec<(&'static str, u64)>> {
    let compare_with = |mut reader: Reader| {
        let comparison = compare(truth, &read(&mut reader)?, deaf);
        ensure!(comparison.is_clean(), "{}: {comparison:?}", reader.name);
        Ok((reader.name, comparison.captured))
    };
    std::thread::scope(|scope| {
        let readers = readers.into_iter().flatten();
        let at_work: Vec<_> = readers.map(|reader| scope.spawn(move || compare_with(reader))).collect();
        at_work.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a comparison panicked"))?).collect()
    })
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// `None` where there is no Python with the clients.
fn in_python(name: &'static str, arguments: &[&str]) -> Option<Reader> {
    let mut command = Command::new(python()?);
    command.arg(in_repository(name)).args(arguments);
    Some(Reader { name, command })
}

/// The example in Java, where there is a compiler of it, and Maven can fetch what the example needs.
fn in_java(cluster: &Cluster, topic: &str) -> Result<Option<Reader>> {
    let to_be_had = jdk().and_then(|java| Ok((java, jars_of("examples", &in_repository("deploy/examples/pom.xml"))?)));
    let Some((java, jars)) = if_to_be_had(to_be_had)? else { return Ok(None) };
    let name = "deploy/examples/ReadReadings.java";
    let mut command = Command::new(java);
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-cp", &class_path(&jars)]).arg(in_repository(name));
    command.args([cluster.kafka.bootstrap(), cluster.registry.own_url(), topic.to_owned()]);
    Ok(Some(Reader { name, command }))
}

/// Compacts every date that is over. How many those are.
pub(crate) fn compact(stage: &Stage, bucket: &Path) -> Result<usize> {
    let today = SystemClock.now().day().to_string();
    let over: Vec<String> = dates(bucket)?.into_iter().filter(|date| *date < today).collect();
    for date in &over {
        ask(stage, &["archive", "compact", date, "--grace", "0s"])?;
    }
    Ok(over.len())
}

/// A file with the keys that `archive files` prints, of all dates.
fn files(stage: &Stage, bucket: &Path) -> Result<PathBuf> {
    let mut keys = String::new();
    for date in dates(bucket)? {
        keys.push_str(&ask(stage, &["archive", "files", &date])?);
    }
    let path = stage.folder().join("archive-files.txt");
    std::fs::write(&path, keys)?;
    Ok(path)
}

/// Of the readings in the archive.
fn dates(bucket: &Path) -> Result<BTreeSet<String>> {
    let mut dates = BTreeSet::new();
    for folder in ["archive/raw/readings", "archive/compacted/readings"] {
        let Ok(entries) = std::fs::read_dir(bucket.join(folder)) else { continue };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            dates.extend(name.strip_prefix("date=").map(str::to_owned));
        }
    }
    Ok(dates)
}

fn ask(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let output = stage.cloud_command(arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A Python with the clients, if there is one.
fn python() -> Option<String> {
    let python = std::env::var("METERPOST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let imports = "import confluent_kafka.schema_registry.avro, cassandra.cluster, duckdb";
    let has_all = Command::new(&python).args(["-c", imports]).output();
    if has_all.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    skipped(
        "there is no Python with confluent-kafka[avro], cassandra-driver and duckdb: nobody has read the sinks with it",
    );
    None
}

/// Every line is a reading; one that names its batch must be the only one with its index.
fn read(reader: &mut Reader) -> Result<Sink> {
    let script = reader.name;
    let output = reader.command.output().with_context(|| format!("cannot run {script}"))?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    let mut deliveries = BTreeSet::new();
    let mut sink = Sink::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let row: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if let Some(batch) = row["batch"].as_str() {
            ensure!(deliveries.insert((batch.to_owned(), row["index"].to_string())), "{script}: twice: {line}");
        }
        let (identity, value) = reading(&row).with_context(|| format!("{script}: {line}"))?;
        let earlier = sink.insert(identity, value.clone());
        ensure!(earlier.is_none_or(|earlier| earlier == value), "{script}: two values of one reading: {line}");
    }
    Ok(sink)
}

fn reading(row: &Value) -> Option<(demo::verdict::Identity, String)> {
    let text = |name: &str| row[name].as_str().map(str::to_owned);
    let at: UtcMillis = text("captured_at")?.replace("+00:00", "Z").parse().ok()?;
    let quantity = Quantity::new(
        row["mantissa"].as_i64()?,
        i8::try_from(row["scaler"].as_i64()?).ok()?,
        Unit(u8::try_from(row["unit_number"].as_u64()?).ok()?),
    );
    let kind = kind(&row["kind"])?;
    // The examples work out the value themselves, in whatever decimals their language has.
    if let Some(exact) = text("exact") {
        (Quantity::from_decimal(&exact, 0, quantity.unit).ok()? == quantity).then_some(())?;
    }
    let identity =
        (text("meter")?, text("code")?, kind, row["period_s"].as_u64()?, at.to_string(), row["nth"].as_u64()?);
    Some((identity, quantity.to_string()))
}

/// By name, or by the number that the table has.
fn kind(kind: &Value) -> Option<String> {
    match kind.as_u64() {
        Some(number) => {
            protocols::metering::Kind::from_u8(u8::try_from(number).ok()?).map(|kind| kind.name().to_owned())
        }
        None => kind.as_str().map(str::to_owned),
    }
}
