//! `cargo demo`: the whole system on one machine, torn and killed, then audited.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "demo", version, about = "The whole of Meterpost on one machine, torn and killed, then audited")]
struct Cli {
    /// Stop after the audit; exit code 0 only when nothing is lost or doubled.
    #[arg(long)]
    once: bool,
    /// Keep all files here.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the embedded MQTT broker alone; it keeps nothing on disk.
    Broker {
        #[arg(long)]
        port: u16,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(Command::Broker { port }) = cli.command {
        demo::broker::serve(SocketAddr::from(([127, 0, 0, 1], port)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let binaries = demo::show::build_and_find(cli.once)?;
    let temporary = tempfile::tempdir()?;
    let folder = cli.keep.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let clean = runtime.block_on(demo::show::run(&folder, binaries, cli.once))?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
