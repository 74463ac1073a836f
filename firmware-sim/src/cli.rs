//! The command line: what can be asked, and how it becomes a fleet file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, FleetFile, MeterSection};
use crate::run::Until;

/// Virtual meters that speak real bytes.
///
/// SIGTERM ends a run; SIGUSR1 stops the meters' clocks, so that what was captured can be read to the end.
/// Same seed, same bytes: with --start-at, two runs capture and push the same readings.
#[derive(Debug, Parser)]
#[command(name = "firmware-sim", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs many meters in one process, from a file or from options.
    Fleet(FleetArgs),
    /// Runs one meter.
    Meter(MeterArgs),
    /// Checks a fleet file and prints the effective settings.
    CheckConfig {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Options that describe meters: a fleet file does that too, and one description is enough.
const GROUP_OPTIONS: [&str; 29] = [
    "meters",
    "protocol",
    "source",
    "data_file",
    "interval_ms",
    "interval_s",
    "drift_ppm_max",
    "zone",
    "line",
    "listen",
    "path",
    "baud",
    "initial_baud",
    "pace",
    "meters_per_line",
    "referencing",
    "password_file",
    "medium",
    "encrypted",
    "framing",
    "push_to",
    "transport",
    "unconfirmed",
    "dsmr",
    "gas",
    "sml_time",
    "no_block_check",
    "quirks",
    "faults",
];

#[derive(Debug, Args)]
pub struct FleetArgs {
    /// Fleet file; options below that describe meters cannot be given with it.
    #[arg(long, value_name = "FILE", conflicts_with_all = GROUP_OPTIONS)]
    pub config: Option<PathBuf>,
    /// Number of meters.
    #[arg(long, value_name = "N", required_unless_present = "config")]
    pub meters: Option<u32>,
    #[command(flatten)]
    pub group: GroupArgs,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Args)]
pub struct MeterArgs {
    /// Serial number.
    #[arg(long, default_value_t = 1)]
    pub number: u32,
    #[command(flatten)]
    pub group: GroupArgs,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What the meters are.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// cad, dlms-tcp, dlms-hdlc, dlms-push, dlms-notify, p1, sml, d0, iec62056-21, mbus, wmbus, or none: nobody can read it and only --truth
    /// tells what it captured.
    #[arg(long, default_value = "cad")]
    pub protocol: String,
    /// household, uci, lcl, bdew-h0 to bdew-l2, bdew-h25.
    #[arg(long, default_value = "household")]
    pub source: String,
    /// Data set for the source; uci has a few days compiled in.
    #[arg(long, value_name = "FILE")]
    pub data_file: Option<PathBuf>,
    /// A push every so often by the wall clock.
    #[arg(long, value_name = "MS", conflicts_with = "interval_s")]
    pub interval_ms: Option<u64>,
    /// A push every so often by the meter's time [default: 10].
    #[arg(long, value_name = "S")]
    pub interval_s: Option<u64>,
    /// Each clock drifts by up to this.
    #[arg(long, value_name = "PPM", default_value_t = 0)]
    pub drift_ppm_max: u32,
    /// UTC, WET, CET, EET.
    #[arg(long, default_value = "UTC")]
    pub zone: String,
    /// What a meter is connected by that pushes at a port or is asked on a line: tcp, pty, serial.
    #[arg(long, default_value = "tcp")]
    pub line: String,
    /// Address and port of the first TCP line, the next line takes the next port; port 0: a free one for each.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen: String,
    /// The serial port, or a symbolic link to make to the pty.
    #[arg(long)]
    pub path: Option<PathBuf>,
    /// Line speed [default: 9600, for P1 115200, for mbus and dlms-push 2400].
    #[arg(long)]
    pub baud: Option<u32>,
    /// Rate at which a meter of iec62056-21 is called; it offers --baud.
    #[arg(long, value_name = "BAUD", default_value_t = 300)]
    pub initial_baud: u32,
    /// Octets pass no faster than the line speed says.
    #[arg(long)]
    pub pace: bool,
    /// Meters that share a line [default: all on HDLC, iec62056-21 and mbus, else 1].
    #[arg(long, value_name = "N")]
    pub meters_per_line: Option<u32>,
    /// How clients name the objects of dlms-tcp and dlms-hdlc: ln, sn.
    #[arg(long, default_value = "ln")]
    pub referencing: String,
    /// The password of client 1, or of programming mode; without, each meter has its own, which is printed.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// How the receiver of a wmbus meter hands its telegrams out: rtl-wmbus, im871a.
    #[arg(long, default_value = "rtl-wmbus")]
    pub receiver: String,
    /// What a meter of mbus or wmbus counts: water, warm-water, heat, gas, electricity.
    #[arg(long, default_value = "water")]
    pub medium: String,
    /// What meters of mbus, wmbus, p1, dlms-push and dlms-notify say is encrypted; the keys are printed.
    #[arg(long)]
    pub encrypted: bool,
    /// Frames of dlms-push: hdlc, mbus.
    #[arg(long, default_value = "hdlc")]
    pub framing: String,
    /// Listener to which a meter of dlms-notify goes with each entry of its load profile.
    #[arg(long, value_name = "HOST:PORT")]
    pub push_to: Option<String>,
    /// By which it goes there: tcp, udp.
    #[arg(long, default_value = "tcp")]
    pub transport: String,
    /// It does not ask for confirmations.
    #[arg(long)]
    pub unconfirmed: bool,
    /// Version of P1 telegrams: 5.0, 4.2.
    #[arg(long, default_value = "5.0")]
    pub dsmr: String,
    /// A gas meter is connected behind the P1 meter.
    #[arg(long)]
    pub gas: bool,
    /// What an SML meter says about time: timestamp, seconds-index.
    #[arg(long, value_name = "FORM", default_value = "timestamp")]
    pub sml_time: String,
    /// D0 without a block check.
    #[arg(long)]
    pub no_block_check: bool,
    /// A firmware quirk by name; may be repeated.
    #[arg(long = "quirk", value_name = "NAME")]
    pub quirks: Vec<String>,
    /// A fault by name and rate, as in silence=0.01; may be repeated.
    #[arg(long = "fault", value_name = "NAME=RATE", value_parser = named_rate)]
    pub faults: Vec<(String, f64)>,
}

/// How they are run; each wins over the fleet file.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[arg(long)]
    pub seed: Option<u64>,
    /// Seconds for the meters in one second of the wall clock. Never overtakes the wall clock.
    #[arg(long, value_name = "X")]
    pub speed: Option<f64>,
    /// What the meters' clocks show at the start, as 2026-01-01T00:00:00Z.
    #[arg(long, value_name = "INSTANT", conflicts_with = "days_back")]
    pub start_at: Option<String>,
    /// Days before now at which the meters' clocks start.
    #[arg(long, value_name = "DAYS")]
    pub days_back: Option<f64>,
    /// Days before the start from which the profiles are filled.
    #[arg(long, value_name = "DAYS")]
    pub history_days: Option<f64>,
    /// Appends every captured or pushed reading, as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// MQTT broker for CAD, as 127.0.0.1:1883.
    #[arg(long, value_name = "HOST:PORT")]
    pub broker: Option<String>,
    /// Prints JSON lines instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Stops after so many seconds.
    #[arg(long, value_name = "S")]
    pub duration_s: Option<u64>,
    /// Stops after so many pushes, when all are acknowledged.
    #[arg(long, value_name = "N")]
    pub pushes_max: Option<u64>,
}

fn named_rate(text: &str) -> Result<(String, f64), String> {
    let (name, rate) = text.split_once('=').ok_or("expected NAME=RATE")?;
    let rate = rate.parse().map_err(|_| format!("{rate:?} is no rate"))?;
    Ok((name.to_owned(), rate))
}

impl GroupArgs {
    fn section(&self, count: u32, first_number: u32) -> MeterSection {
        MeterSection {
            count,
            first_number: Some(first_number),
            protocol: self.protocol.clone(),
            source: self.source.clone(),
            data_file: self.data_file.clone(),
            interval_ms: self.interval_ms,
            interval_s: self.interval_s,
            drift_ppm_max: self.drift_ppm_max,
            zone: self.zone.clone(),
            line: self.line.clone(),
            listen: self.listen.clone(),
            path: self.path.clone(),
            baud: self.baud,
            initial_baud: self.initial_baud,
            pace: self.pace,
            meters_per_line: self.meters_per_line,
            referencing: self.referencing.clone(),
            password_file: self.password_file.clone(),
            receiver: self.receiver.clone(),
            medium: self.medium.clone(),
            encrypted: self.encrypted,
            framing: self.framing.clone(),
            push_to: self.push_to.clone(),
            transport: self.transport.clone(),
            confirmed: !self.unconfirmed,
            dsmr: self.dsmr.clone(),
            gas: self.gas,
            sml_time: self.sml_time.clone(),
            block_check: !self.no_block_check,
            quirks: self.quirks.clone(),
            faults: self.faults.iter().cloned().collect(),
            ..MeterSection::default()
        }
    }
}

impl RunArgs {
    fn apply(&self, file: &mut FleetFile) {
        file.seed = self.seed.unwrap_or(file.seed);
        file.speed = self.speed.unwrap_or(file.speed);
        file.history_days = self.history_days.unwrap_or(file.history_days);
        if self.start_at.is_some() || self.days_back.is_some() {
            (file.start_at, file.days_back) = (self.start_at.clone(), self.days_back);
        }
        if self.truth.is_some() {
            file.truth.clone_from(&self.truth);
        }
        if let Some(broker) = &self.broker {
            file.mqtt.broker.clone_from(broker);
        }
    }

    pub fn until(&self) -> Until {
        Until { duration: self.duration_s.map(Duration::from_secs), pushes: self.pushes_max }
    }
}

impl FleetArgs {
    pub fn file(&self) -> Result<FleetFile, ConfigError> {
        let mut file = match &self.config {
            Some(path) => read(path)?,
            None => FleetFile { meters: vec![self.group.section(self.meters.unwrap_or(0), 1)], ..FleetFile::default() },
        };
        self.run.apply(&mut file);
        Ok(file)
    }
}

impl MeterArgs {
    pub fn file(&self) -> FleetFile {
        let mut file = FleetFile { meters: vec![self.group.section(1, self.number)], ..FleetFile::default() };
        self.run.apply(&mut file);
        file
    }
}

/// Reads a fleet file; errors name it.
pub fn read(path: &std::path::Path) -> Result<FleetFile, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(format!("{} cannot be read: {error}", path.display()), None))?;
    FleetFile::parse(&text)
        .map_err(|error| ConfigError { message: format!("{}: {}", path.display(), error.message), ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_commands_are_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_become_a_fleet() {
        let line = "firmware-sim fleet --meters 20 --protocol cad --seed 9 --speed 60 --interval-ms 500 --fault silence=0.1 \
                    --quirk label-at-start --truth /tmp/t.jsonl --broker h:1";
        let Command::Fleet(args) = parse(line).unwrap().command else { panic!("a fleet") };
        let fleet = args.file().unwrap().check().unwrap();
        assert_eq!((fleet.seed, fleet.groups[0].numbers.clone(), fleet.broker.port), (9, 1..21, 1));
    }

    #[test]
    fn a_file_and_options_that_describe_meters_exclude_each_other() {
        assert!(parse("firmware-sim fleet --config f.toml --seed 3").is_ok());
        for line in [
            "firmware-sim fleet",
            "firmware-sim fleet --config f.toml --meters 3",
            "firmware-sim fleet --config f.toml --quirk label-at-start",
            "firmware-sim meter --interval-ms 5 --interval-s 5",
            "firmware-sim meter --fault silence",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
