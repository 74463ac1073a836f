//! Kafka in KRaft mode, one node or three, each broker and controller.
//!
//! A node's folder holds `server.properties`, `data` and `kafka-N.log`. No node is started on data that another process still has
//! open: the live one would die of it. `kill` and `stop` wait until the process is gone.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use demo::process::free_port;

use super::certificates::Authority;
use super::java::{class_path, jars, java};
use super::server::{Ready, Server, run};
use super::settings::{derive, mounted, write};

/// Recovery of the log grows with its size; 3 to 16 s were seen.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const TOOL_TIMEOUT: Duration = Duration::from_secs(120);
/// Any 16 bytes, in the alphabet of base64 for URLs.
const CLUSTER_ID: &str = "bWV0ZXJwb3N0LXRlc3RzMQ";
/// Who may come to a secured node.
pub const USER: &str = "meterpost";
pub const PASSWORD: &str = "made-for-tests-and-nothing-else";
const LOG_LEVEL: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
/// Until a node alone is taken for dead, and let in again after a kill: 7 s instead of 15.
const SESSION_MS_ALONE: &str = "2000";

#[derive(Debug)]
pub struct Kafka {
    folder: PathBuf,
    ports: Vec<u16>,
    nodes: Vec<Server>,
}

impl Kafka {
    /// Starts so many nodes on free ports, on the data that the folder may hold, and waits until each takes connections.
    pub fn start(folder: &Path, nodes: usize) -> Result<Self> {
        Self::start_with(folder, nodes, &[])
    }

    /// One node that wants a password of its clients, over TLS with a certificate of this authority.
    pub fn start_secured(folder: &Path, authority: &Authority) -> Result<Self> {
        Self::start_as(folder, 1, &[], Some(authority))
    }

    /// The same as [`Self::start`] with further values of keys that `server.properties` has, or new ones.
    pub fn start_with(folder: &Path, nodes: usize, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(folder, nodes, settings, None)
    }

    fn start_as(folder: &Path, nodes: usize, settings: &[(&str, &str)], authority: Option<&Authority>) -> Result<Self> {
        let (java, jars) = (java()?, jars("kafka")?);
        let ports = (0..nodes).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let controllers = (0..nodes).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let text = mounted("kafka/server.properties")?;
        let mut kafka = Self { folder: folder.to_owned(), ports, nodes: Vec::new() };
        for node in 0..nodes {
            let home = folder.join(format!("kafka-{}", node + 1));
            std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
            let mut properties = derive(&text, "=", &values(node, &kafka.ports, &controllers, &home))?;
            for (key, value) in settings {
                let known = derive(&properties, "=", &[(key, (*value).to_owned())]);
                properties = known.unwrap_or_else(|_| format!("{properties}{key}={value}\n"));
            }
            if let Some(authority) = authority {
                properties =
                    secured(&properties, (kafka.ports[node], free_port()?, controllers[node]), &home, authority)?;
            }
            write(&home.join("server.properties"), &properties)?;
            let mut format = Command::new(&java);
            format.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", LOG_LEVEL, "-cp", &class_path(&jars)]);
            format.args([
                "kafka.tools.StorageTool",
                "format",
                "--ignore-formatted",
                "-t",
                CLUSTER_ID,
                "-c",
                "server.properties",
            ]);
            if authority.is_some() {
                format.args(["--add-scram", &format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]")]);
            }
            run("format", &format, &home, TOOL_TIMEOUT)?;
            let ready = Ready::Port(SocketAddr::from((Ipv4Addr::LOCALHOST, kafka.ports[node])));
            let heap: &[&str] = if nodes == 1 { &["-Xms256m", "-Xmx512m"] } else { &["-Xmx384m"] };
            let server = Server::new(&format!("kafka-{}", node + 1), &java, &home, ready)
                .arguments(heap)
                .arguments(["-XX:+UseSerialGC", LOG_LEVEL, "-cp", &class_path(&jars)])
                .arguments(["kafka.Kafka", "server.properties"]);
            kafka.nodes.push(server);
        }
        for node in &mut kafka.nodes {
            node.launch()?;
        }
        for node in &mut kafka.nodes {
            node.wait_ready(START_TIMEOUT)?;
        }
        Ok(kafka)
    }

    /// `127.0.0.1:9092,127.0.0.1:9093`: what a client connects to.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        addresses.join(",")
    }

    /// Of one node, counted from 0: for a proxy before it.
    pub fn address(&self, node: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[node]))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.nodes[node].kill()
    }

    /// SIGTERM: hands its partitions over, and ends.
    pub fn stop(&mut self, node: usize) -> Result<()> {
        self.nodes[node].stop(STOP_TIMEOUT)
    }

    /// Starts one that was killed or stopped, on its data, and waits until it takes connections.
    pub fn restart(&mut self, node: usize) -> Result<()> {
        self.nodes[node].launch()?;
        self.nodes[node].wait_ready(START_TIMEOUT)
    }

    pub fn pause(&self, node: usize) -> Result<()> {
        self.nodes[node].pause()
    }

    pub fn resume(&self, node: usize) -> Result<()> {
        self.nodes[node].resume()
    }

    pub fn nodes(&mut self) -> &mut [Server] {
        &mut self.nodes
    }

    /// Runs one of Kafka's own tools, as `org.apache.kafka.tools.TopicCommand`, and answers what it printed.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        // Over before better code would pay.
        self.run_tool(&["-XX:TieredStopAtLevel=1"], class, arguments)
    }

    /// The same for one whose speed is measured.
    pub fn measured_tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        self.run_tool(&[], class, arguments)
    }

    fn run_tool(&self, options: &[&str], class: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(java()?);
        command.args(["-Xmx512m", "-XX:+UseSerialGC", LOG_LEVEL]).args(options);
        command.args(["-cp", &class_path(&jars("kafka")?), class]).args(arguments);
        run(class, &command, &self.folder, TOOL_TIMEOUT)
    }
}

/// A listener for clients beside the one of the brokers.
fn secured(
    properties: &str,
    (clients, brokers, controller): (u16, u16, u16),
    home: &Path,
    authority: &Authority,
) -> Result<String> {
    let identity = authority.server()?;
    let (key, trusted) = (home.join("server.pem"), home.join("ca.pem"));
    write(&key, &format!("{}{}", identity.key, identity.chain))?;
    write(&trusted, authority.certificate())?;
    let (at_brokers, at_clients) =
        (format!("PLAINTEXT://127.0.0.1:{brokers}"), format!("CLIENTS://127.0.0.1:{clients}"));
    let listeners = format!("{at_brokers},{at_clients},CONTROLLER://127.0.0.1:{controller}");
    let places = [
        ("listeners", listeners),
        ("advertised.listeners", format!("{at_brokers},{at_clients}")),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CLIENTS:SASL_SSL,CONTROLLER:PLAINTEXT".to_owned()),
    ];
    let module = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    Ok(format!(
        "{}sasl.enabled.mechanisms=SCRAM-SHA-512\n\
         listener.name.clients.scram-sha-512.sasl.jaas.config={module}\n\
         ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n",
        derive(properties, "=", &places)?,
        key.display(),
        trusted.display(),
    ))
}

/// Ports, addresses and folders of one node, and what the number of nodes decides.
fn values(node: usize, ports: &[u16], controllers: &[u16], home: &Path) -> Vec<(&'static str, String)> {
    let (port, controller) = (ports[node], controllers[node]);
    let voters: Vec<String> = (1..).zip(controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
    let nodes = ports.len();
    let (factor, least) = (nodes.min(3).to_string(), nodes.min(3).div_ceil(2).to_string());
    let mut values = vec![
        ("node.id", (node + 1).to_string()),
        ("controller.quorum.voters", voters.join(",")),
        ("listeners", format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}")),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}")),
        ("log.dirs", home.join("data").display().to_string()),
    ];
    if nodes == 1 {
        values.push(("broker.session.timeout.ms", SESSION_MS_ALONE.to_owned()));
    }
    let factors = [
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "share.coordinator.state.topic.replication.factor",
    ];
    values.extend(factors.map(|key| (key, factor.clone())));
    let least_in_sync =
        ["min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"];
    values.extend(least_in_sync.map(|key| (key, least.clone())));
    values
}
