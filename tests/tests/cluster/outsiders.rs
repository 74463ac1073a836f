//! Other people's readers over the three sinks, against what the meters captured.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use demo::sinks::Sink;
use demo::verdict::{Deaf, compare};
use protocols::metering::{Quantity, Unit, UtcMillis};
use serde_json::Value;
use tests::cluster::Cluster;
use tests::power_loss::skipped;
use tests::system::Truth;

/// Reads the sinks of the cloud called `name`, and compares each with the truth. How many readings each holds.
pub(crate) fn find_the_same(cluster: &Cluster, name: &str, truth: &Truth, deaf: &[Deaf]) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    let Some(python) = python() else { return Ok(found) };
    let (brokers, registry) = (cluster.kafka.bootstrap(), cluster.registry.url());
    let (topic, port) = (format!("{name}.readings"), cluster.cassandra.address(0).port().to_string());
    let bucket = cluster.s3.bucket().join(name).display().to_string();
    for (script, arguments) in [
        ("deploy/examples/read_readings.py", vec![brokers.as_str(), &registry, &topic]),
        ("tests/tests/cluster/read_store.py", vec![&port, name]),
        ("tests/tests/cluster/read_archive.py", vec![&bucket]),
    ] {
        let comparison = compare(truth, &read(&python, script, &arguments)?, deaf);
        ensure!(comparison.is_clean(), "{script}: {comparison:?}");
        found.push(comparison.captured);
    }
    Ok(found)
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
        "there is no Python with confluent-kafka[avro], cassandra-driver and duckdb: nobody else has read the sinks",
    );
    None
}

/// Runs a script of the repository. Every line is a reading; one that names its batch must be the only one with its index.
fn read(python: &str, script: &str, arguments: &[&str]) -> Result<Sink> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(script);
    let output = Command::new(python).arg(&path).args(arguments).output()?;
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
