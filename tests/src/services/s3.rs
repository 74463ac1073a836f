//! An S3 server on a folder: s3s-fs, which needs nothing but Rust (`src/bin/s3_server.rs`), or versitygw, where Go is there.
//!
//! Neither is asked to keep a conditional PUT: correctness does not rest on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use demo::process::free_port;
use object_store::ClientOptions;
use object_store::aws::AmazonS3Builder;

use super::java::{fetch, fetched};
use super::server::{Ready, Server};
use super::{Missing, program};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const VERSITYGW: &str = "github.com/versity/versitygw/cmd/versitygw";
const VERSITYGW_VERSION: &str = "v1.8.0";
pub const BUCKET: &str = "meterpost";
pub const REGION: &str = "us-east-1";
pub const ACCESS_KEY: &str = "meterpost-tests";
pub const SECRET_KEY: &str = "made for tests and nothing else";

#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    objects: PathBuf,
    server: Server,
}

impl S3 {
    /// Starts s3s-fs, with one bucket.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, "s3", |address, objects| {
            let program = own_program("s3_server")?;
            let server = Server::new("s3", &program, folder, Ready::Port(address));
            let arguments = [&address.to_string(), &objects.display().to_string(), ACCESS_KEY, SECRET_KEY];
            Ok(server.arguments(arguments.map(str::to_owned)))
        })
    }

    /// Starts versitygw, with one bucket.
    pub fn start_versitygw(folder: &Path) -> Result<Self> {
        let program = versitygw()?;
        Self::start_with(folder, "versitygw", |address, objects| {
            let server = Server::new("versitygw", &program, folder, Ready::Port(address));
            let arguments = ["--port", &address.to_string(), "--quiet", "posix", &objects.display().to_string()];
            let server = server.arguments(arguments.map(str::to_owned));
            Ok(server.variable("ROOT_ACCESS_KEY", ACCESS_KEY).variable("ROOT_SECRET_KEY", SECRET_KEY))
        })
    }

    fn start_with(folder: &Path, name: &str, server: impl FnOnce(SocketAddr, &Path) -> Result<Server>) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let objects = folder.join(format!("{name}-objects"));
        let bucket = objects.join(BUCKET);
        std::fs::create_dir_all(&bucket).with_context(|| format!("cannot make {}", bucket.display()))?;
        let mut s3 = Self { address, server: server(address, &objects)?, objects };
        s3.restart()?;
        Ok(s3)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of the bucket; `build` it, or change what it shall have otherwise first.
    pub fn client(&self) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_region(REGION)
            .with_bucket_name(BUCKET)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .with_client_options(ClientOptions::new().with_allow_http(true))
    }

    /// Where the bucket lies on disk.
    pub fn bucket(&self) -> PathBuf {
        self.objects.join(BUCKET)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts one that was killed, on its data, and waits until it takes connections.
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

/// Built into the cache, once.
fn versitygw() -> Result<PathBuf> {
    let folder = fetched(&format!("versitygw-{VERSITYGW_VERSION}"), |staging, repository| {
        let installed = Path::new("/usr/local/go/bin/go").to_owned();
        let go = program("go").or_else(|| Some(installed).filter(|go| go.is_file()));
        let go =
            go.ok_or_else(|| Missing::error("there is no Go to build versitygw with", "install Go 1.24 or newer"))?;
        let mut install = Command::new(go);
        install.args(["install", &format!("{VERSITYGW}@{VERSITYGW_VERSION}")]).env("GOBIN", staging);
        fetch("go-versitygw", &install, repository)
    })?;
    Ok(folder.join("versitygw"))
}

/// A program of this package: beside the running one, or, when that is a test, in the folder above.
fn own_program(name: &str) -> Result<PathBuf> {
    let running = std::env::current_exe()?;
    let program = running.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|file| file.is_file());
    program.with_context(|| format!("{name} is not built\nhint: cargo build --profile ci -p tests --bins"))
}
