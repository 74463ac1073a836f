//! Cassandra, one node or three. The nodes of a cluster listen at 127.0.0.1, 127.0.0.2 and 127.0.0.3, at the same ports, and
//! all are seeds, with their tokens given: it forms at once.
//!
//! Kill with little data: its commit log is replayed at a few thousand rows a second. `stop` avoids that.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use demo::process::free_port;

use super::certificates::Authority;
use super::java::{class_path, jars, java};
use super::leftovers;
use super::server::{Ready, Server, run};
use super::settings::{derive, mounted, write};

/// 9 to 29 s were seen for one node, on a busy machine. One of three that comes back under load replays its commit log with what the
/// others and the load leave it: 75 s a segment were seen on two cores.
const START_TIMEOUT: Duration = Duration::from_secs(600);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const TOOL_TIMEOUT: Duration = Duration::from_secs(60);
const SERVES: &str = "Starting listening for CQL";
/// Once password are asked for. The first one is made in the background, after the node serves.
const FIRST_ROLE: &str = "Created default superuser role";
/// A third of the ring each.
const TOKENS: [&str; 3] = ["-9223372036854775808", "-3074457345618258603", "3074457345618258602"];
/// What Cassandra 5 reaches into, as its own start script has it.
const EXPORTS: [&str; 9] = [
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/java.lang.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
];
const OPENS: [&str; 14] = [
    "java.base/java.lang.module",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "jdk.management/com.sun.management.internal",
    "java.base/sun.nio.ch",
    "java.base/java.io",
    "java.base/java.lang.reflect",
    "java.base/java.lang",
    "java.base/java.util",
    "java.base/java.nio",
];

#[derive(Debug)]
pub struct Cassandra {
    folder: PathBuf,
    port: u16,
    jmx: Vec<u16>,
    nodes: Vec<Server>,
}

impl Cassandra {
    /// Starts one node or three, and waits until each serves. No password, no TLS.
    pub fn start(folder: &Path, nodes: usize) -> Result<Self> {
        Self::start_with(folder, nodes, None, &[])
    }

    /// The same with passwords (first `cassandra`, `cassandra`) and TLS, with a certificate of this authority.
    pub fn start_secured(folder: &Path, nodes: usize, authority: &Authority) -> Result<Self> {
        Self::start_with(folder, nodes, Some(authority), &[])
    }

    /// With other values of keys that `cassandra.yaml` has, or new ones.
    pub fn start_with(
        folder: &Path,
        nodes: usize,
        authority: Option<&Authority>,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        ensure!([1, 3].contains(&nodes), "one node or three");
        let (java, jars) = (java()?, jars("cassandra")?);
        let (port, storage) = (free_port()?, free_port()?);
        let jmx = (0..nodes).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let mut cassandra = Self { folder: folder.to_owned(), port, jmx, nodes: Vec::new() };
        for (node, token) in TOKENS.into_iter().enumerate().take(nodes) {
            let home = home(folder, node);
            std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
            let places = values(node, nodes, port, storage, &home);
            let mut yaml = yaml(&places, authority, settings)?;
            if nodes > 1 {
                yaml = format!("{yaml}initial_token: \"{token}\"\nauto_bootstrap: false\n");
            }
            if let Some(authority) = authority {
                let certificate = authority.server()?;
                write(&home.join("server.pem"), &format!("{}{}", certificate.key, certificate.chain))?;
            }
            write(&home.join("cassandra.yaml"), &yaml)?;
            write(&home.join("logback.xml"), &mounted("cassandra/logback.xml")?)?;
            let name = format!("cassandra-{}", node + 1);
            let server = Server::new(&name, &java, &home, Ready::Logged(SERVES));
            cassandra.nodes.push(server.arguments(arguments(&home, &jars, cassandra.jmx[node], nodes)));
        }
        for node in &mut cassandra.nodes {
            node.launch()?;
        }
        for node in &mut cassandra.nodes {
            node.wait_ready(START_TIMEOUT)?;
        }
        if authority.is_some() {
            cassandra.wait_logged(FIRST_ROLE)?;
        }
        Ok(cassandra)
    }

    /// `127.0.0.1:9042` and so on: what a driver connects to.
    pub fn contact_points(&self) -> Vec<String> {
        (0..self.nodes.len()).map(|node| self.address(node).to_string()).collect()
    }

    /// Of one node, counted from 0.
    pub fn address(&self, node: usize) -> SocketAddr {
        SocketAddr::from((listen_address(node), self.port))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.nodes[node].kill()
    }

    /// SIGTERM: writes its tables out, and ends.
    pub fn stop(&mut self, node: usize) -> Result<()> {
        self.nodes[node].stop(STOP_TIMEOUT)
    }

    /// Starts one that was killed or stopped, on its data, and waits until it serves. Does what an operator has to where a kill
    /// has left [`leftovers`].
    pub fn restart(&mut self, node: usize) -> Result<()> {
        self.nodes[node].launch()?;
        let Err(error) = self.nodes[node].wait_ready(START_TIMEOUT) else { return Ok(()) };
        if !self.nodes[node].logged()?.contains(leftovers::REFUSES) {
            return Err(error);
        }
        self.nodes[node].kill()?;
        let finished = leftovers::finish_deletions(&home(&self.folder, node).join("data"))?;
        ensure!(finished > 0, error);
        eprintln!("cassandra-{} did not start after a kill: {finished} compactions were finished by hand", node + 1);
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

    /// Until any of the nodes has logged it since its start.
    pub fn wait_logged(&self, words: &str) -> Result<()> {
        let step = Duration::from_millis(100);
        let mut waited = Duration::ZERO;
        while waited < START_TIMEOUT {
            for node in &self.nodes {
                if node.logged()?.contains(words) {
                    return Ok(());
                }
            }
            std::thread::sleep(step);
            waited += step;
        }
        anyhow::bail!("no node of Cassandra logged {words:?} within {START_TIMEOUT:?}")
    }

    /// Runs `nodetool` on a node, and answers what it printed.
    pub fn nodetool(&self, node: usize, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(java()?);
        let home = self.folder.join("nodetool");
        std::fs::create_dir_all(&home)?;
        for export in ["java.base/sun.nio.ch", "java.base/jdk.internal.ref"] {
            command.args(["--add-exports", &format!("{export}=ALL-UNNAMED")]);
        }
        command.args(["--add-opens", "java.base/java.nio=ALL-UNNAMED", "-Xmx128m"]);
        command.arg(format!("-Dcassandra.storagedir={}", home.display()));
        command.args(["-cp", &class_path(&jars("cassandra")?), "org.apache.cassandra.tools.NodeTool"]);
        command.args(["-p", &self.jmx[node].to_string()]).args(arguments);
        run(&format!("nodetool-{}", node + 1), &command, &home, TOOL_TIMEOUT)
    }
}

fn home(folder: &Path, node: usize) -> PathBuf {
    folder.join(format!("cassandra-{}", node + 1))
}

fn listen_address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, node as u8 + 1)
}

/// `cassandra.yaml` of one node, but for its place in the ring.
fn yaml(places: &[(&str, String)], authority: Option<&Authority>, settings: &[(&str, &str)]) -> Result<String> {
    let mut yaml = derive(&mounted("cassandra/cassandra.yaml")?, ": ", places)?;
    if authority.is_none() {
        yaml = derive(&yaml, ": ", &open())?;
    }
    for (key, value) in settings {
        let known = derive(&yaml, ": ", &[(key, (*value).to_owned())]);
        yaml = known.unwrap_or_else(|_| format!("{yaml}{key}: {value}\n"));
    }
    Ok(yaml)
}

/// Ports, addresses and folders of one node.
fn values(node: usize, nodes: usize, port: u16, storage: u16, home: &Path) -> Vec<(&'static str, String)> {
    let address = listen_address(node).to_string();
    let seeds: Vec<String> = (0..nodes).map(|node| format!("{}:{storage}", listen_address(node))).collect();
    let folder = |name: &str| home.join(name).display().to_string();
    let mut values = vec![
        ("- seeds", format!("\"{}\"", seeds.join(","))),
        ("listen_address", address.clone()),
        ("storage_port", storage.to_string()),
        ("rpc_address", address.clone()),
        ("broadcast_rpc_address", address),
        ("native_transport_port", port.to_string()),
        ("data_file_directories", format!("[{}]", folder("data"))),
        ("commitlog_directory", folder("commitlog")),
        ("hints_directory", folder("hints")),
        ("saved_caches_directory", folder("saved_caches")),
        ("cdc_raw_directory", folder("cdc_raw")),
        ("keystore", folder("server.pem")),
    ];
    if nodes > 1 {
        values.push(("num_tokens", "1".to_owned()));
    }
    values
}

/// Neither password nor TLS.
fn open() -> Vec<(&'static str, String)> {
    vec![
        ("authenticator", "AllowAllAuthenticator".to_owned()),
        ("authorizer", "AllowAllAuthorizer".to_owned()),
        ("enabled", "false".to_owned()),
    ]
}

fn arguments(home: &Path, jars: &Path, jmx: u16, nodes: usize) -> Vec<String> {
    let heap: &[&str] = if nodes == 1 {
        &["-Xms512m", "-Xmx512m", "-XX:+UseG1GC"]
    } else {
        &["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    };
    let mut arguments: Vec<String> = heap.iter().map(|word| (*word).to_owned()).collect();
    let options = ["-XX:MaxDirectMemorySize=256m", "-Xss512k", "-Djdk.attach.allowAttachSelf=true"];
    arguments.extend(options.map(str::to_owned));
    arguments.push("-Dio.netty.tryReflectionSetAccessible=true".to_owned());
    for (option, packages) in [("--add-exports", &EXPORTS[..]), ("--add-opens", &OPENS[..])] {
        for package in packages {
            arguments.extend([option.to_owned(), format!("{package}=ALL-UNNAMED")]);
        }
    }
    let home = home.display();
    arguments.extend([
        format!("-javaagent:{}/jamm-0.4.0.jar", jars.display()),
        "-Dlogback.configurationFile=logback.xml".to_owned(),
        format!("-Dcassandra.config=file://{home}/cassandra.yaml"),
        format!("-Dcassandra.storagedir={home}"),
        format!("-Dcassandra.logdir={home}/log"),
        format!("-Dcassandra.jmx.local.port={jmx}"),
        "-Dcassandra-foreground=yes".to_owned(),
        // Nothing to wait for: the cluster is what was just started.
        "-Dcassandra.skip_wait_for_gossip_to_settle=0".to_owned(),
        "-Dcassandra.ring_delay_ms=2000".to_owned(),
        "-Dcassandra.superuser_setup_delay_ms=0".to_owned(),
        "-cp".to_owned(),
        format!("{home}:{}", class_path(jars)),
        "org.apache.cassandra.service.CassandraDaemon".to_owned(),
    ]);
    arguments
}
