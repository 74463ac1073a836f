//! `cargo demo`: the whole system on one machine, torn and killed, then audited.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "demo", version, about = "The whole of Meterpost on one machine, torn and killed, then audited")]
struct Cli {
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

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Some(Command::Broker { port }) => demo::broker::serve(SocketAddr::from(([127, 0, 0, 1], port))),
        None => anyhow::bail!("nothing to show yet"),
    }
}
