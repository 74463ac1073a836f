//! `meterpost-gateway`: see `--help`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use gateway::cli::{Cli, Command, OutboxCommand};
use gateway::clock::{Clock as _, SystemClock};
use gateway::commands::decode::{DecodeSettings, decode, read_input, read_key};
use gateway::config::{Checked, Config};
use gateway::probe::{self, Target};
use gateway::{commands, run, telemetry};
use protocols::metering::{MeterId, UtcMillis};
use tokio::signal::unix::{SignalKind, signal};

/// Done, and what was asked about is in order.
const OK: u8 = 0;
/// The operator's to mend.
const USER: u8 = 1;

fn main() -> ExitCode {
    telemetry::set_up_logging();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; where printing fails, nobody is left to tell.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { USER } else { OK });
        }
    };
    match actix::System::new().block_on(execute(cli.command)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            // Hints stand at the end of the first text; the causes go before them.
            let (text, hint) = causes[0].split_once("\nhint: ").unwrap_or((&causes[0], ""));
            let mut line = text.to_owned();
            for cause in causes.iter().skip(1).filter(|cause| !text.contains(cause.as_str())) {
                line = format!("{line}: {cause}");
            }
            let hint = if hint.is_empty() { String::new() } else { format!("\nhint: {hint}") };
            drop(writeln!(std::io::stderr(), "error: {line}{hint}"));
            ExitCode::from(USER)
        }
    }
}

async fn execute(command: Command) -> anyhow::Result<u8> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Run(argument) => {
            let checked = checked(&argument.config)?;
            let ready = |address: &str| drop(writeln!(std::io::stdout(), "{{\"listening\":\"{address}\"}}"));
            drop(out);
            let reloaded = reload_on_hang_up(argument.config)?;
            run::run_reloading(checked, stop_signal()?, ready, reloaded).await?;
        }
        Command::CheckConfig(argument) => {
            let checked = checked(&argument.config)?;
            write!(out, "{}", toml::to_string(&checked.config)?)?;
        }
        Command::Status { config, json } => commands::status(&checked(&config.config)?, json, &mut out).await?,
        Command::Read { config, meter, options } => {
            commands::read(&checked(&config.config)?, &meter, &options, &mut out).await?;
        }
        Command::Clock { config, meter, set } => {
            commands::clock(&checked(&config.config)?, &meter, set, &mut out).await?;
        }
        Command::Switch { config, meter, to, yes } => {
            commands::switch(&checked(&config.config)?, &meter, to, yes, &mut out).await?;
        }
        Command::Write { config, meter, options } => {
            commands::write(&checked(&config.config)?, &meter, &options, &mut out).await?;
        }
        Command::Image { config, meter, options } => {
            commands::image(&checked(&config.config)?, &meter, &options, &mut out).await?;
        }
        Command::Calendar { config, meter, options } => {
            commands::calendar(&checked(&config.config)?, &meter, &options, &mut out).await?;
        }
        Command::Keys { config, meter, options } => {
            commands::keys(&checked(&config.config)?, &meter, &options, &mut out).await?;
        }
        Command::Probe { target, budget } => {
            let named = Target::parse(&target);
            let hint = "hint: name a port, like /dev/ttyUSB0, or HOST:PORT";
            let named = named.ok_or_else(|| anyhow::anyhow!("{target:?} is neither a port nor a host\n{hint}"))?;
            let budget = Duration::from_secs(budget);
            write!(out, "{}", probe::probe(&named, budget, &mut std::io::stderr()).await?)?;
        }
        Command::Profiles { name, config } => commands::profiles(config.as_deref(), name.as_deref(), &mut out)?,
        Command::Decode { protocol, file, meter, received_at, accept_invalid_crc, key, auth_key } => {
            let meter = meter.map(|meter| meter.parse::<MeterId>()).transpose();
            let meter = meter
                .map_err(|error| anyhow::anyhow!("{error}\nhint: --meter is for the identity, like SIM:000001"))?;
            let received_at = received_at.map(|at| at.parse::<UtcMillis>()).transpose();
            let received_at =
                received_at.map_err(|error| anyhow::anyhow!("{error}\nhint: write it as 2026-01-01T00:00:00Z"))?;
            let received_at = received_at.unwrap_or_else(|| SystemClock::new().wall());
            let key = key.map(|path| read_key("--key", &path)).transpose()?;
            let authentication_key = auth_key.map(|path| read_key("--auth-key", &path)).transpose()?;
            let settings = DecodeSettings { meter, received_at, accept_invalid_crc, key, authentication_key };
            decode(protocol, read_input(&file)?, &settings, &mut out)?;
        }
        Command::Outbox(command) => return outbox(command, &mut out).await,
    }
    Ok(OK)
}

async fn outbox(command: OutboxCommand, out: &mut impl Write) -> anyhow::Result<u8> {
    match command {
        OutboxCommand::Inspect { config, json } => {
            commands::inspect(&checked(&config.config)?, json, out)?;
        }
        OutboxCommand::Verify(argument) => {
            let intact = commands::verify(&checked(&argument.config)?, out)?;
            return Ok(if intact { OK } else { USER });
        }
        OutboxCommand::Export(argument) => commands::export(&checked(&argument.config)?, out)?,
        OutboxCommand::Accept { config, meter } => {
            commands::accept(&checked(&config.config)?, &meter, out).await?;
        }
        OutboxCommand::Resubmit { config, batch } => {
            commands::resubmit(&checked(&config.config)?, &batch, out)?;
        }
    }
    Ok(OK)
}

fn checked(path: &std::path::Path) -> anyhow::Result<Checked> {
    Ok(Config::read(path)?.check()?)
}

/// Reads the settings again at each SIGHUP; settings with a mistake change nothing.
fn reload_on_hang_up(path: std::path::PathBuf) -> anyhow::Result<tokio::sync::mpsc::Receiver<Checked>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            match Config::read(&path).and_then(Config::check) {
                Ok(checked) => {
                    if sender.send(checked).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::error!(%error, "the settings stay as they were"),
            }
        }
    });
    Ok(receiver)
}

/// SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
