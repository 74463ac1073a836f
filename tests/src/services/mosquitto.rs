//! The MQTT broker mosquitto: with mutual TLS, where the name in a client's certificate decides what it may say and hear, or open to
//! whoever is on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use demo::process::free_port;

use super::certificates::{Authority, Identity};
use super::server::{Ready, Server};
use super::settings::{derive, mounted, write};
use super::{Missing, program};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The name of the cloud in its certificate, as `deploy/compose/mosquitto/acl` has it.
pub const CLOUD: &str = "meterpost-cloud";

#[derive(Debug)]
pub struct Mosquitto {
    address: SocketAddr,
    server: Server,
}

impl Mosquitto {
    /// Starts it with a certificate of this authority, whose clients it admits.
    pub fn start(folder: &Path, authority: &Authority) -> Result<Self> {
        Self::start_as(folder, authority, &authority.server()?)
    }

    /// The same with this certificate.
    pub fn start_as(folder: &Path, authority: &Authority, identity: &Identity) -> Result<Self> {
        let home = folder.join("mosquitto");
        std::fs::create_dir_all(home.join("data")).with_context(|| format!("cannot make {}", home.display()))?;
        let port = free_port()?;
        let file = |name: &str| home.join(name).display().to_string();
        let values = [
            // Root stays root: who changes its user is no longer killed with its parent. Anybody else stays who he is.
            ("user", "root".to_owned()),
            ("listener", format!("{port} 127.0.0.1")),
            ("cafile", file("ca.crt")),
            ("certfile", file("server.crt")),
            ("keyfile", file("server.key")),
            ("acl_file", file("acl")),
            ("persistence_location", format!("{}/", file("data"))),
        ];
        write(&home.join("mosquitto.conf"), &derive(&mounted("mosquitto/mosquitto.conf")?, " ", &values)?)?;
        write(&home.join("acl"), &mounted("mosquitto/acl")?)?;
        write(&home.join("ca.crt"), authority.certificate())?;
        write(&home.join("server.crt"), &identity.chain)?;
        write(&home.join("server.key"), &identity.key)?;
        Self::launch(&home, port)
    }

    /// Without certificates, and for everybody on this machine. It queues all that a client lacks that is away, and forgets it when it
    /// ends.
    pub fn open(folder: &Path) -> Result<Self> {
        let home = folder.join("mosquitto");
        std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let port = free_port()?;
        let settings = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
             max_queued_bytes 0\nmax_inflight_messages 100\n"
        );
        write(&home.join("mosquitto.conf"), &settings)?;
        Self::launch(&home, port)
    }

    fn launch(home: &Path, port: u16) -> Result<Self> {
        let program = program("mosquitto").ok_or_else(|| {
            Missing::error(
                "there is no mosquitto",
                "apt-get install --no-install-recommends mosquitto mosquitto-clients",
            )
        })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = Server::new("mosquitto", &program, home, Ready::Port(address));
        let mut mosquitto = Self { address, server: server.arguments(["-c", "mosquitto.conf"]) };
        mosquitto.restart()?;
        Ok(mosquitto)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// SIGTERM: saves what it has to remember, and ends.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop(STOP_TIMEOUT)
    }

    /// Starts one that was killed or stopped, with what it remembers, and waits until it takes connections.
    pub fn restart(&mut self) -> Result<()> {
        self.server.launch()?;
        self.server.wait_ready(START_TIMEOUT)
    }

    /// So that it has forgotten everything: sessions, retained messages, what it queued. It must not run.
    pub fn forget(&self) -> Result<()> {
        let data = self.server.log().with_file_name("data");
        std::fs::remove_dir_all(&data)?;
        std::fs::create_dir(&data)?;
        Ok(())
    }

    pub fn pause(&self) -> Result<()> {
        self.server.pause()
    }

    pub fn resume(&self) -> Result<()> {
        self.server.resume()
    }

    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }
}
