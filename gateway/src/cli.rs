//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::decode::DecodeProtocol;
use crate::commands::{CalendarOptions, ImageOptions, KeysOptions, ReadOptions, SwitchTo, WriteOptions};

/// Reads every smart meter on a site and forwards each reading exactly once.
#[derive(Debug, Parser)]
#[command(name = "meterpost-gateway", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Args)]
pub struct ConfigArgument {
    /// The settings file.
    #[arg(long, default_value = "/etc/meterpost/gateway.toml")]
    pub config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reads meters and forwards, until SIGTERM.
    Run(ConfigArgument),
    /// Checks the settings and prints the effective ones.
    CheckConfig(ConfigArgument),
    /// Shows how the running gateway is doing.
    Status {
        #[command(flatten)]
        config: ConfigArgument,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Reads one meter once and prints what it says; its line must be free. Of a port, the next telegram. Nothing is stored.
    Read {
        #[command(flatten)]
        config: ConfigArgument,
        /// Its name in the settings, or that of a port.
        meter: String,
        #[command(flatten)]
        options: ReadOptions,
    },
    /// Shows how far the clock of a DLMS meter is off, and whether it may be set now; its line must be free.
    Clock {
        #[command(flatten)]
        config: ConfigArgument,
        /// Its name in the settings.
        meter: String,
        /// Sets it, by the rules of [meter.clock_set] except the one of once a day. The gateway must be stopped.
        #[arg(long)]
        set: bool,
    },
    /// Disconnects the supply behind a DLMS meter, or connects it again; the gateway must be stopped.
    Switch {
        #[command(flatten)]
        config: ConfigArgument,
        /// Its name in the settings.
        meter: String,
        to: SwitchTo,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Gives one attribute of a DLMS meter a value; the gateway must be stopped.
    Write {
        #[command(flatten)]
        config: ConfigArgument,
        /// Its name in the settings.
        meter: String,
        #[command(flatten)]
        options: WriteOptions,
    },
    /// Brings new firmware into a DLMS meter, and goes on where it was cut short; the gateway must be stopped. Tried on the simulator's
    /// meters only, not yet on one of any maker.
    Image {
        #[command(flatten)]
        config: ConfigArgument,
        /// Its name in the settings.
        meter: String,
        #[command(flatten)]
        options: ImageOptions,
    },
    /// Prints the activity calendars of a DLMS meter, by which its rates switch; its line must be free. Writes the passive one from a file, and
    /// says when it becomes the active one. Tried on the simulator's meters only.
    Calendar {
        #[command(flatten)]
        config: ConfigArgument,
        /// Its name in the settings.
        meter: String,
        #[command(flatten)]
        options: CalendarOptions,
    },
    /// Gives a DLMS meter other global keys, and puts them into the files that its section names; the gateway must be stopped. While a key
    /// is on its way it stands in FILE.next beside the old one in FILE, and whoever reads the meter tries both. Given again after it was cut
    /// short, with the same files or none, it finds out which key the meter has, and finishes.
    Keys {
        #[command(flatten)]
        config: ConfigArgument,
        /// Its name in the settings.
        meter: String,
        #[command(flatten)]
        options: KeysOptions,
    },
    /// Finds out what is on a line and prints the section for it; the line must be free. It listens, then calls, searches on
    /// M-Bus, and asks as a client without a password; it writes nothing to a meter. What it does stands on standard error. Exit code 1 when
    /// nothing is found.
    Probe {
        /// A serial port, like /dev/ttyUSB0, or HOST[:PORT] of a meter or of a serial device server.
        #[arg(value_name = "PORT|HOST[:PORT]")]
        target: String,
        /// Seconds after which it gives up, and says what it has not tried.
        #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        budget: u64,
    },
    /// Lists the profiles of families of meters that sections may name, or prints one.
    Profiles {
        /// Which one to print.
        name: Option<String>,
        /// A settings file, for those of its `profiles_dir`, too.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Decodes recorded octets and prints a JSON object a line: readings, and errors with their place. Exit code 1 when there is no
    /// reading among them.
    Decode {
        /// What was recorded.
        protocol: DecodeProtocol,
        /// A file, `-` for standard input: raw octets or hexadecimal text.
        file: PathBuf,
        /// Whose readings they are, when the octets do not say it.
        #[arg(long, value_name = "ID")]
        meter: Option<String>,
        /// When they arrived, as 2026-01-01T00:00:00Z: the stamp of what has none [default: now].
        #[arg(long, value_name = "INSTANT")]
        received_at: Option<String>,
        /// Takes what has a wrong or missing check, marked so.
        #[arg(long)]
        accept_invalid_crc: bool,
        /// The key of what is encrypted: a file with 32 or 64 hexadecimal digits that nobody but its owner may read.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The authentication key of DLMS and P1; without it, nothing is verified, and what is decoded is marked so.
        #[arg(long, value_name = "FILE", requires = "key")]
        auth_key: Option<PathBuf>,
    },
    /// Looks into the outbox.
    #[command(subcommand)]
    Outbox(OutboxCommand),
}

#[derive(Debug, Subcommand)]
pub enum OutboxCommand {
    /// How much lies in it: rows, batches on their way, refused batches with their reasons.
    Inspect {
        #[command(flatten)]
        config: ConfigArgument,
        #[arg(long)]
        json: bool,
    },
    /// Checks every row and every payload; exit code 1 when something is damaged.
    Verify(ConfigArgument),
    /// Writes every row that is not receipted to standard output, one JSON object a line.
    Export(ConfigArgument),
    /// Releases what was read of a meter that answered in place of the expected one; the gateway may be running.
    Accept {
        #[command(flatten)]
        config: ConfigArgument,
        /// The identity that was found, as `status` and `inspect` show it.
        meter: String,
    },
    /// Seals a refused batch anew; the gateway must be stopped.
    Resubmit {
        #[command(flatten)]
        config: ConfigArgument,
        /// As `inspect` prints it: incarnation/seq.
        batch: String,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Negative control: let an option require one that does not exist.
    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
        let parsed = |line: &str| Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.kind());
        for line in [
            "read m 1-0:1.8.0 --trace",
            "read m --object-list --json",
            "read m --profile 1-0:99.1.0 --csv",
            "probe /dev/x",
            "clock m --set",
            "switch m disconnect --yes",
            "write m 0-0:94.31.0 unsigned:3 --class 1",
            "keys m --encryption-key a --authentication-key b --key-encrypting-key c --yes",
            "keys m",
            "calendar m --only passive --json",
            "calendar m --write f --activate now --yes",
        ] {
            assert!(parsed(&format!("meterpost-gateway {line}")).is_ok(), "{line}");
        }
        for line in [
            "read m --csv",
            "read m 1-0:1.8.0 --object-list",
            "read m --profile 1-0:99.1.0 --csv --json",
            "probe",
            "switch m off",
            "write m 0-0:94.31.0",
            "calendar m --only passive --write f",
        ] {
            assert!(parsed(&format!("meterpost-gateway {line}")).is_err(), "{line}");
        }
    }
}
