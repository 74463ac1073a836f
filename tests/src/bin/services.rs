//! Starts real services, prints where they are as one JSON object, and runs until standard input ends or a signal comes:
//! `services [--folder FOLDER] kafka cassandra s3 ...`. Without a folder, what they stored is gone afterwards.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};
use tests::services::mosquitto::CLOUD;
use tests::services::s3::{ACCESS_KEY, BUCKET, REGION, SECRET_KEY};
use tests::services::{Authority, Cassandra, Kafka, Mosquitto, Registry, S3};
use tokio::signal::unix::{SignalKind, signal};

const NAMES: &str = "kafka kafka3 registry cassandra cassandra3 cassandra-secured s3 versitygw mosquitto";

/// What runs. Each ends its processes when it is dropped.
#[derive(Default)]
struct Running {
    kafka: Option<Kafka>,
    registry: Option<Registry>,
    cassandra: Vec<Cassandra>,
    s3: Vec<S3>,
    mosquitto: Option<Mosquitto>,
    addresses: Map<String, Value>,
}

impl Running {
    fn start(&mut self, name: &str, folder: &Path) -> Result<()> {
        let address = match name {
            "kafka" | "kafka3" => {
                let kafka = self.kafka.insert(Kafka::start(folder, if name == "kafka" { 1 } else { 3 })?);
                json!({ "bootstrap": kafka.bootstrap() })
            }
            "registry" => {
                let kafka = self.kafka.as_ref().context("the registry needs kafka before it")?;
                json!({ "url": self.registry.insert(Registry::start(folder, &kafka.bootstrap())?).url() })
            }
            "cassandra" | "cassandra3" => {
                let cassandra = Cassandra::start(folder, if name == "cassandra" { 1 } else { 3 })?;
                let address = json!({ "contact_points": cassandra.contact_points() });
                self.cassandra.push(cassandra);
                address
            }
            "cassandra-secured" => {
                let (authority, file) = (Authority::new("tests")?, folder.join("cassandra-ca.crt"));
                std::fs::write(&file, authority.certificate())?;
                let cassandra = Cassandra::start_secured(folder, 1, &authority)?;
                let points = cassandra.contact_points();
                self.cassandra.push(cassandra);
                json!({ "contact_points": points, "user": "cassandra", "password": "cassandra", "ca_file": file })
            }
            "s3" | "versitygw" => {
                let s3 = if name == "s3" { S3::start(folder)? } else { S3::start_versitygw(folder)? };
                let endpoint = s3.endpoint();
                self.s3.push(s3);
                json!({ "endpoint": endpoint, "bucket": BUCKET, "region": REGION, "access_key_id": ACCESS_KEY,
                        "secret_access_key": SECRET_KEY })
            }
            "mosquitto" => {
                let authority = Authority::new("tests")?;
                let address = self.mosquitto.insert(Mosquitto::start(folder, &authority)?).address();
                json!({ "address": address.to_string(), "clients": clients(folder, &authority)? })
            }
            _ => bail!("{name} is no service\nhint: {NAMES}"),
        };
        self.addresses.insert(name.to_owned(), address);
        Ok(())
    }
}

/// Certificates to connect with: of the cloud, and of the gateways gw-1 to gw-9.
fn clients(folder: &Path, authority: &Authority) -> Result<Value> {
    let folder = folder.join("clients");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("ca.crt"), authority.certificate())?;
    for name in std::iter::once(CLOUD.to_owned()).chain((1..10).map(|number| format!("gw-{number}"))) {
        let identity = authority.client(&name)?;
        std::fs::write(folder.join(format!("{name}.crt")), identity.chain)?;
        std::fs::write(folder.join(format!("{name}.key")), identity.key)?;
    }
    Ok(json!(folder))
}

fn main() -> Result<()> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let temporary = tempfile::tempdir()?;
    let mut folder = temporary.path().to_owned();
    if names.first().is_some_and(|word| word == "--folder") {
        folder = std::path::absolute(PathBuf::from(names.get(1).context("--folder FOLDER")?))?;
        names.drain(..2);
    }
    let mut running = Running::default();
    for name in &names {
        running.start(name, &folder)?;
    }
    {
        use std::io::Write as _;
        writeln!(std::io::stdout(), "{}", Value::Object(std::mem::take(&mut running.addresses)))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(until_told())
}

async fn until_told() -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, ended) = tokio::sync::oneshot::channel();
    // On a thread that nothing waits for: a read of standard input cannot be given up.
    std::thread::spawn(move || {
        let end = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(sender.send(end));
    });
    tokio::select! {
        _ = ended => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
