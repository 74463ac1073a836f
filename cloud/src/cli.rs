//! The command line: what can be asked of `meterpost-cloud`.
//!
//! stdout is data, stderr the rest. Exit 0: done; 1: the user's input; 2: ours. Errors end with a hint where there is one.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use protocols::metering::UtcMillis;

use crate::archive::commands::{self, ArchiveCommandError, CompactArgs, FilesArgs};
use crate::audit::{AuditArgs, AuditError, AuditOptions, AuditSources};
use crate::clock::{Clock, SystemClock};
use crate::completeness::{CompletenessArgs, CompletenessError};
use crate::config::{Cluster, Config, ConfigError, Settings};
use crate::engines::{self, EngineError};
use crate::objects::ObjectsError;
use crate::rebuild::bar::Bar;
use crate::rebuild::commands::{RebuildArchiveArgs, RebuildArgs, RebuildCommandError};
use crate::rebuild_store::{self, RebuildStoreArgs, RebuildStoreError};
use crate::roles::Roles;
use crate::run::{self, RunError};
use crate::store::cassandra;
use crate::telemetry;
use crate::trace::{TraceArgs, TraceError};

#[derive(Debug, Parser)]
#[command(
    name = "meterpost-cloud",
    version,
    about = "The head-end: takes readings from gateways, delivers each one once"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT
    Run {
        #[command(flatten)]
        settings: SettingsArgs,
        /// Only these: intake, worker, archiver, api, divided by commas; the rest is left to other instances
        #[arg(long, value_name = "ROLES")]
        roles: Option<Roles>,
        /// Say where it listens as a line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the effective settings, or what is wrong with them
    CheckConfig {
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Close the books: what gateways sealed against what log, store and archive hold; exit 1 when anything is lost or doubled
    Audit {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        audit: AuditArgs,
    },
    /// Where is my reading: sealed, uploaded, referenced, refused, committed, in store, archived
    Trace {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        trace: TraceArgs,
    },
    /// Expected against held readings of a local day; exit 1 below the target
    Completeness {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        completeness: CompletenessArgs,
    },
    /// Tables of the store on Cassandra
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// The files of the archive
    Archive {
        #[command(subcommand)]
        command: ArchiveCommand,
    },
    /// Fill what lost rows from what has them
    Rebuild {
        #[command(subcommand)]
        command: RebuildCommand,
    },
    /// Make the store anew from archive and log, while no cloud runs; the old one is set aside; exit 1 when not all could be read
    RebuildStore {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        rebuild: RebuildStoreArgs,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Make keyspace and tables, or bring them up to date; may be repeated, and by several at once
    Migrate {
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

#[derive(Debug, Subcommand)]
enum ArchiveCommand {
    /// Merge the raw files of a date that is over into few large ones; may be stopped, repeated, and run beside everything else
    Compact {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        compact: CompactArgs,
    },
    /// Print the keys of the files that hold the rows of a date now, each row once
    Files {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        files: FilesArgs,
    },
}

#[derive(Debug, Subcommand)]
enum RebuildCommand {
    /// Write into the store what archive or log hold; goes on where it was stopped; exit 1 when not all could be read
    Store {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        rebuild: RebuildArgs,
    },
    /// Make the files anew that the archive lost or that are damaged; what is there stays; exit 1 when not all of them can be made
    Archive {
        #[command(flatten)]
        settings: SettingsArgs,
        #[command(flatten)]
        rebuild: RebuildArchiveArgs,
    },
}

/// Settings given on the command line beat those of the file.
#[derive(Debug, Args)]
struct SettingsArgs {
    /// The configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where log, store and objects lie
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The MQTT broker
    #[arg(long, value_name = "HOST:PORT")]
    mqtt: Option<String>,
    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("there is no [cassandra] in the settings")]
    NoCassandra,
    #[error("--roles without engines that other instances share")]
    Alone,
    #[error("logging.level: {0}")]
    Logging(String),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot look into {}", dir.display())]
    Look {
        dir: PathBuf,
        #[source]
        source: Box<EngineError>,
    },
    #[error(transparent)]
    Engine(Box<EngineError>),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Completeness(#[from] CompletenessError),
    #[error(transparent)]
    RebuildStore(#[from] RebuildStoreError),
    #[error(transparent)]
    Archive(#[from] ArchiveCommandError),
    #[error(transparent)]
    Rebuild(#[from] RebuildCommandError),
    #[error("cannot write to stdout")]
    Stdout(#[source] std::io::Error),
}

impl CommandError {
    fn is_the_users(&self) -> bool {
        match self {
            Self::Config(_) | Self::Alone | Self::NoCassandra | Self::Logging(_) | Self::Look { .. } => true,
            Self::Engine(error) => error.is_the_users(),
            Self::Run(error) => error.is_the_users(),
            Self::RebuildStore(error) => error.is_the_users(),
            Self::Archive(error) => error.is_the_users(),
            Self::Audit(_) | Self::Trace(_) | Self::Completeness(_) | Self::Rebuild(_) | Self::Stdout(_) => false,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::NoCassandra => Some("the embedded store brings itself up to date".to_owned()),
            Self::Alone => Some("leave it out, or set [kafka], [cassandra] and [objects]".to_owned()),
            Self::Logging(_) => Some("give a level: error, warn, info, debug or trace".to_owned()),
            Self::Run(error) => error.hint(),
            Self::RebuildStore(error) => error.hint(),
            Self::Archive(error) => error.hint(),
            Self::Rebuild(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Look { .. } => Some("give the data directory of a cloud that has run, with --data".to_owned()),
            Self::Audit(_) | Self::Trace(_) | Self::Completeness(_) | Self::Stdout(_) => None,
        }
    }
}

/// The whole program; returns its exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and are no errors.
            drop(error.print());
            return u8::from(error.use_stderr());
        }
    };
    let done = match &cli.command {
        Command::Run { settings, roles, json } => {
            settings.load().map_err(CommandError::from).and_then(|(settings, mut config)| {
                config.roles = roles.clone().unwrap_or_default();
                if config.cluster.is_none() && !config.roles.are_all() {
                    return Err(CommandError::Alone);
                }
                telemetry::init_logging(&settings.logging.level).map_err(CommandError::Logging)?;
                Ok(run::run(config, *json)?)
            })
        }
        Command::CheckConfig { settings } => settings.load().map_err(CommandError::from).and_then(|(settings, _)| {
            std::io::stdout().write_all(settings.to_toml().as_bytes()).map_err(CommandError::Stdout)
        }),
        Command::Store { command: StoreCommand::Migrate { settings } } => migrate(settings),
        Command::Archive { command } => on_archive(command),
        Command::Rebuild { command } => match on_rebuild(command) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::RebuildStore { settings, rebuild } => match make_store_anew(settings, *rebuild) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        looking => match look(looking) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
    };
    let Err(error) = done else { return 0 };
    let mut text = format!("error: {}\n", telemetry::chain(&error));
    if let Some(hint) = error.hint() {
        text.push_str("hint: ");
        text.push_str(&hint);
        text.push('\n');
    }
    // Nobody is left to tell when stderr is gone.
    drop(std::io::stderr().write_all(text.as_bytes()));
    if error.is_the_users() { 1 } else { 2 }
}

fn migrate(settings: &SettingsArgs) -> Result<(), CommandError> {
    let (settings, config) = settings.load()?;
    telemetry::init_logging(&settings.logging.level).map_err(CommandError::Logging)?;
    let Some(Cluster { cassandra, .. }) = config.cluster else { return Err(CommandError::NoCassandra) };
    let done = actix::System::new().block_on(cassandra::migrate(&cassandra));
    let done = done.map_err(|error| CommandError::Engine(Box::new(error.into())))?;
    let keyspace = if done.keyspace_created { "made" } else { "there" };
    let text = format!("keyspace {keyspace}, schema version {} (was {})\n", done.to, done.from);
    std::io::stdout().write_all(text.as_bytes()).map_err(CommandError::Stdout)
}

fn on_archive(command: &ArchiveCommand) -> Result<(), CommandError> {
    let (ArchiveCommand::Compact { settings, .. } | ArchiveCommand::Files { settings, .. }) = command;
    let (settings, config) = settings.load()?;
    telemetry::init_logging(&settings.logging.level).map_err(CommandError::Logging)?;
    let mut out = std::io::stdout();
    let no_objects = |error: ObjectsError| CommandError::Engine(Box::new(error.into()));
    actix::System::new().block_on(async {
        match command {
            ArchiveCommand::Compact { compact, .. } => {
                let objects = config.objects.beside().await.map_err(no_objects)?;
                commands::run_compact(*compact, &objects, &SystemClock, &mut out).await?;
            }
            ArchiveCommand::Files { files, .. } => {
                let objects = config.objects.look().await.map_err(no_objects)?;
                commands::run_files(*files, &objects, &mut out).await?;
            }
        }
        Ok(())
    })
}

/// Answers the exit code.
fn on_rebuild(command: &RebuildCommand) -> Result<u8, CommandError> {
    let (RebuildCommand::Store { settings, .. } | RebuildCommand::Archive { settings, .. }) = command;
    let (settings, config) = settings.load()?;
    telemetry::init_logging(&settings.logging.level).map_err(CommandError::Logging)?;
    let (mut out, mut stderr) = (std::io::stdout(), std::io::stderr());
    let is_terminal = stderr.is_terminal();
    let mut told = Bar::new(&mut stderr, is_terminal);
    actix::System::new().block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let engine = |error| CommandError::Engine(Box::new(error));
        Ok(match command {
            RebuildCommand::Store { rebuild, .. } => {
                let sources = engines::fill(&config, &clock).await.map_err(engine)?;
                crate::rebuild::commands::run(*rebuild, &sources, &config.data_dir, &mut out, &mut told).await?
            }
            RebuildCommand::Archive { rebuild, .. } => {
                let log = engines::look_log(&config, &clock).await.map_err(engine)?;
                let objects = config.objects.beside().await.map_err(|error| engine(error.into()))?;
                crate::rebuild::commands::run_archive(
                    *rebuild,
                    &*log,
                    &objects,
                    &config.cut,
                    &*clock,
                    &mut out,
                    &mut told,
                )
                .await?
            }
        })
    })
}

/// Answers the exit code.
fn make_store_anew(settings: &SettingsArgs, args: RebuildStoreArgs) -> Result<u8, CommandError> {
    let (settings, config) = settings.load()?;
    telemetry::init_logging(&settings.logging.level).map_err(CommandError::Logging)?;
    let mut out = std::io::stdout();
    Ok(actix::System::new().block_on(rebuild_store::run(args, &config.data_dir, &mut out))?)
}

/// The commands that look into the data directory, beside the process that works with it. Answers the exit code.
fn look(command: &Command) -> Result<u8, CommandError> {
    let (Command::Run { settings, .. }
    | Command::CheckConfig { settings }
    | Command::Audit { settings, .. }
    | Command::Trace { settings, .. }
    | Command::Completeness { settings, .. }
    | Command::Store { command: StoreCommand::Migrate { settings } }
    | Command::Archive {
        command: ArchiveCommand::Compact { settings, .. } | ArchiveCommand::Files { settings, .. },
    }
    | Command::Rebuild {
        command: RebuildCommand::Store { settings, .. } | RebuildCommand::Archive { settings, .. },
    }
    | Command::RebuildStore { settings, .. }) = command;
    let (settings, config) = settings.load()?;
    telemetry::init_logging(&settings.logging.level).map_err(CommandError::Logging)?;
    let mut out = std::io::stdout();
    actix::System::new().block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let sources: AuditSources = engines::look(&config, &clock).await.map_err(|source| match config.cluster {
            Some(_) => CommandError::Engine(Box::new(source)),
            None => CommandError::Look { dir: config.data_dir.clone(), source: Box::new(source) },
        })?;
        Ok(match command {
            Command::Run { .. }
            | Command::CheckConfig { .. }
            | Command::Store { .. }
            | Command::Archive { .. }
            | Command::Rebuild { .. }
            | Command::RebuildStore { .. } => 0,
            Command::Audit { audit, .. } => {
                crate::audit::run(audit, &sources, may_have_expired(&config, SystemClock.now()), &mut out).await?
            }
            Command::Trace { trace, .. } => crate::trace::run(trace, &sources, None, &mut out).await?,
            Command::Completeness { completeness, .. } => {
                crate::completeness::run(completeness, &*sources.store, SystemClock.now(), &mut out).await?
            }
        })
    })
}

/// What retention may have taken from log and store.
fn may_have_expired(config: &Config, now: UtcMillis) -> AuditOptions {
    AuditOptions {
        log_expires_before: config.log_keep.books_ms.map(|keep_ms| now.plus_ms(-keep_ms)),
        store_expires_before: config.cluster.as_ref().and_then(|cluster| cluster.cassandra.expires_before(now)),
        ..AuditOptions::default()
    }
}

impl SettingsArgs {
    fn load(&self) -> Result<(Settings, Config), ConfigError> {
        let mut settings = self.config.as_deref().map_or_else(|| Ok(Settings::default()), Settings::read)?;
        if let Some(data) = &self.data {
            settings.data_dir.clone_from(data);
        }
        if let Some(mqtt) = &self.mqtt {
            settings.mqtt.broker.clone_from(mqtt);
        }
        if let Some(http) = &self.http {
            settings.http.listen.clone_from(http);
        }
        let config = settings.check()?;
        Ok((settings, config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_beats_the_file_and_the_file_the_defaults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "data_dir = \"/of/file\"\n[mqtt]\nbroker = \"file:1\"\n").unwrap();
        let path = file.path().to_str().unwrap();
        let cli = Cli::try_parse_from(["meterpost-cloud", "run", "--config", path, "--mqtt", "line:2", "--json"]);
        let Command::Run { settings, json: true, .. } = cli.unwrap().command else { panic!("not run") };
        let (settings, config) = settings.load().unwrap();
        assert_eq!((config.mqtt.host.as_str(), config.mqtt.port), ("line", 2));
        assert_eq!(settings.data_dir, PathBuf::from("/of/file"));
        assert_eq!(settings.http, crate::config::HttpSection::default());
    }

    /// Negative control: leave the store's out: the audit reports what `cassandra.ttl_days` took as lost.
    #[test]
    fn the_audit_knows_what_the_settings_let_expire() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let key = file("key", "x");
        let expires = |cassandra: &str| {
            let text = format!(
                "[log]\nbooks_days = 60\n[kafka]\n[cassandra]\n{cassandra}[objects]\nendpoint = \"http://127.0.0.1:9\"\n\
                 bucket = \"archive\"\naccess_key_id_file = {key:?}\nsecret_access_key_file = {key:?}\n"
            );
            let config = Settings::read(&file("cloud.toml", &text)).unwrap().check().unwrap();
            let noon: UtcMillis = "2026-11-23T12:00:00Z".parse().unwrap();
            let options = may_have_expired(&config, noon);
            assert_eq!(options.log_expires_before, Some("2026-09-24T12:00:00Z".parse().unwrap()));
            options.store_expires_before.map(|day| day.to_string())
        };
        assert_eq!(expires("ttl_days = 10\n"), Some("2026-11-14".to_owned()), "half of the 13th may still be there");
        assert_eq!(expires(""), None);
        assert_eq!(may_have_expired(&Settings::default().check().unwrap(), UtcMillis(0)).store_expires_before, None);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
