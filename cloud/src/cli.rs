//! The command line: what can be asked of `meterpost-cloud`.
//!
//! stdout is data, stderr the rest. Exit 0: done; 1: the user's input; 2: ours. Errors end with a hint where there is one.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Settings};
use crate::run::{self, RunError};
use crate::telemetry;

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
        /// Say where it listens as a line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the effective settings, or what is wrong with them
    CheckConfig {
        #[command(flatten)]
        settings: SettingsArgs,
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
    #[error("logging.level: {0}")]
    Logging(String),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot write to stdout")]
    Stdout(#[source] std::io::Error),
}

impl CommandError {
    fn is_the_users(&self) -> bool {
        match self {
            Self::Config(_) | Self::Logging(_) => true,
            Self::Run(error) => error.is_the_users(),
            Self::Stdout(_) => false,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Logging(_) => Some("give a level: error, warn, info, debug or trace".to_owned()),
            Self::Run(error) => error.hint(),
            Self::Stdout(_) => None,
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
        Command::Run { settings, json } => {
            settings.load().map_err(CommandError::from).and_then(|(settings, config)| {
                telemetry::init_logging(&settings.logging.level).map_err(CommandError::Logging)?;
                Ok(run::run(config, *json)?)
            })
        }
        Command::CheckConfig { settings } => settings.load().map_err(CommandError::from).and_then(|(settings, _)| {
            std::io::stdout().write_all(settings.to_toml().as_bytes()).map_err(CommandError::Stdout)
        }),
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
        let Command::Run { settings, json: true } = cli.unwrap().command else { panic!("not run") };
        let (settings, config) = settings.load().unwrap();
        assert_eq!((config.mqtt.host.as_str(), config.mqtt.port), ("line", 2));
        assert_eq!(settings.data_dir, PathBuf::from("/of/file"));
        assert_eq!(settings.http, crate::config::HttpSection::default());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
