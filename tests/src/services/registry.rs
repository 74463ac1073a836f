//! The schema registry: Apicurio, which keeps its schemas in Kafka and speaks Confluent's interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use demo::process::free_port;

use super::java::{archive, java};
use super::server::{Ready, Server};

/// 3.3 needs a newer Java, and opens a port on every address.
const ARTIFACT: &str = "io.apicurio:apicurio-registry-app:3.0.9:tar.gz:all";
/// 25 to 33 s were seen, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(180);
const PATH: &str = "/apis/ccompat/v7";
/// Apicurio's own interface, which its own deserializers ask.
const OWN_PATH: &str = "/apis/registry/v3";
const SUBJECTS: &str = "/apis/ccompat/v7/subjects";

#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    server: Server,
}

impl Registry {
    /// Starts it on a running Kafka, and waits until it answers.
    pub fn start(folder: &Path, bootstrap: &str) -> Result<Self> {
        let (java, program) = (java()?, archive(ARTIFACT)?);
        let home = folder.join("registry");
        std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let server = Server::new("registry", &java, &home, Ready::Answers(address, SUBJECTS)).arguments([
            "-Xmx384m".to_owned(),
            "-XX:+UseSerialGC".to_owned(),
            "-Dquarkus.http.host=127.0.0.1".to_owned(),
            format!("-Dquarkus.http.port={}", address.port()),
            "-Dquarkus.management.host=127.0.0.1".to_owned(),
            format!("-Dquarkus.management.port={}", free_port()?),
            "-Dapicurio.storage.kind=kafkasql".to_owned(),
            format!("-Dapicurio.kafkasql.bootstrap.servers={bootstrap}"),
            "-jar".to_owned(),
            runner(&program)?.display().to_string(),
        ]);
        let mut registry = Self { address, server };
        registry.restart()?;
        Ok(registry)
    }

    /// The base URL of Confluent's interface. Nothing is checked between versions of a schema until the client asks for it.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// The base URL of Apicurio's own interface.
    pub fn own_url(&self) -> String {
        format!("http://{}{OWN_PATH}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts one that was killed, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.server.launch()?;
        self.server.wait_ready(START_TIMEOUT)
    }

    pub fn pause(&self) -> Result<()> {
        self.server.pause()
    }

    pub fn resume(&self) -> Result<()> {
        self.server.resume()
    }
}

/// The archive's one program, at its top or in a folder there.
fn runner(folder: &Path) -> Result<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect()
    };
    let top = entries(folder);
    let below = top.iter().flat_map(|path| entries(path));
    let mut files = top.iter().cloned().chain(below);
    files
        .find(|path| path.to_string_lossy().ends_with("runner.jar"))
        .context("the registry's archive has no runner.jar")
}
