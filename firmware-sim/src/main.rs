//! Runs virtual meters. stdout is data, stderr the rest; exit 0 done, 1 the user's input, 2 ours.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use firmware_sim::cli::{self, Cli, Command, RunArgs};
use firmware_sim::config::{ConfigError, FleetFile};
use firmware_sim::run::{Ended, RunningFleet, StartError, Summary};
use firmware_sim::speak::Endpoint;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Why the process ends with another code than 0.
enum Failure {
    Input { error: Box<dyn Error>, hint: Option<String> },
    Ours(Box<dyn Error>),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let hint = error.hint.clone();
        Self::Input { error: error.into(), hint }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self::Input { error: error.into(), hint }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Ours(error.into())
    }
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,rumqttc=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; where printing fails, nobody is left to tell.
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS };
        }
    };
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Input { error, hint }) => {
            report(&*error);
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(1)
        }
        Err(Failure::Ours(error)) => {
            report(&*error);
            ExitCode::from(2)
        }
    }
}

fn report(error: &dyn Error) {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    eprintln!("error: {}", causes.join(": "));
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::CheckConfig { config } => {
            let file = cli::read(config)?;
            file.check()?;
            io::stdout().write_all(file.effective().as_bytes())?;
            Ok(())
        }
        Command::Fleet(args) => serve(&args.file()?, &args.run),
        Command::Meter(args) => serve(&args.file(), &args.run),
    }
}

fn serve(file: &FleetFile, args: &RunArgs) -> Result<(), Failure> {
    let fleet = file.check()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // SIGUSR1: the meters' clocks stop, so that somebody can read the last of what they captured. Before anybody is told that
        // there are meters: unheard, it ends the process.
        let mut freeze = signal(SignalKind::user_defined1())?;
        let until = args.until();
        let running = RunningFleet::start(fleet, until.pushes).await?;
        print_endpoints(running.endpoints(), args.json)?;
        let ended = loop {
            tokio::select! {
                ended = running.wait(until) => break Some(ended),
                _ = interrupt.recv() => break None,
                _ = terminate.recv() => break None,
                _ = freeze.recv() => running.freeze(),
            }
        };
        let summary = running.stop().await;
        print_summary(&summary, args.json)?;
        match ended {
            Some(Ended::TruthFailed) => Err(Failure::Ours("the truth file could not be written".into())),
            _ => Ok(()),
        }
    })
}

fn print_endpoints(endpoints: &[Endpoint], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !json {
        writeln!(out, "{:<20} {:<9} where", "meter", "protocol")?;
    }
    for endpoint in endpoints {
        if json {
            writeln!(out, "{}", serde_json::to_string(endpoint)?)?;
        } else {
            writeln!(out, "{:<20} {:<9} {}", endpoint.meter.0, endpoint.protocol, endpoint.place)?;
        }
    }
    out.flush()
}

fn print_summary(summary: &Summary, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::json!({ "summary": summary }))?;
    } else {
        writeln!(
            out,
            "{} meters, {} ms, {} readings in the truth; messages: {} acknowledged, {} dropped, {} unacknowledged",
            summary.meters,
            summary.elapsed_ms,
            summary.truth_lines,
            summary.messages_acknowledged,
            summary.messages_dropped,
            summary.messages_unacknowledged
        )?;
    }
    out.flush()
}
