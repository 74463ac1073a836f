//! `probe`: finds out what is on a line that nobody has described, and writes the section for it.
//!
//! | in this order | on a serial port | over TCP |
//! | --- | --- | --- |
//! | listens | at each of [`listen::RATES`] | once |
//! | DLMS in the wrapper | | clients 16, 1 and 32 at logical device 1 |
//! | calls by IEC 62056-21 | at 300 baud 7E1, then with parity in bit 7 | with parity in bit 7, which a device server at 7E1 drops |
//! | M-Bus | at each of [`mbus::RATES`], by a search for secondary addresses | at the one rate |
//! | DLMS in HDLC frames | at each of [`hdlc::RATES`], [`hdlc::SERVERS`] as clients 16, 1 and 32 | the same at the one rate |
//!
//! The first that is found ends it; on M-Bus, all meters of the line are. A meter is asked for its name and its time, as a client that needs no password; nothing is
//! written to it, and no password is sent.

mod call;
mod hdlc;
mod listen;
mod mbus;
mod section;
mod wrapper;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::metering::{MediumSettings, Parity};
use crate::link::{self, ByteLink, OpenError};
use section::Section;

/// The port of DLMS over TCP, where none is named.
const TCP_PORT: u16 = protocols::wrapper::PORT;
/// A meter that is asked for its name, at 300 baud.
const TALK_TIME: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Meters push every 10 s at the latest, but for those that push each minute.
    listen: Duration,
    /// An answer to an association request: mobile networks take their time.
    association: Duration,
    /// Opening a port feeds some optical heads, which then take a while.
    head_settles: Duration,
    /// A meter has 1,500 ms, and its name takes as long at 300 baud.
    identification: Duration,
    /// What a converter or a network adds to the time that a meter on M-Bus has.
    mbus_latency: Duration,
    /// An HDLC frame, beyond what it takes on the line: meters answer within half a second.
    frame: Duration,
}

const TIMES: Times = Times {
    listen: Duration::from_secs(12),
    association: Duration::from_secs(8),
    head_settles: Duration::from_millis(500),
    identification: Duration::from_secs(4),
    mbus_latency: Duration::from_millis(200),
    frame: Duration::from_millis(800),
};

/// What is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Serial(PathBuf),
    Tcp(String),
}

/// How a serial port is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    baud: u32,
    data_bits: u8,
    parity: Parity,
}

impl Rate {
    const fn new(baud: u32, data_bits: u8, parity: Parity) -> Self {
        Self { baud, data_bits, parity }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Even => 'E',
            Parity::Odd => 'O',
        };
        write!(f, "{} {}{parity}1", self.baud, self.data_bits)
    }
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    #[error("{0}")]
    Open(#[source] OpenError),
    #[error(
        "nothing that can be read was found on {target}\nhint: is the cable right, the optical head in its place, and the meter's \
         port switched on? An address that is not usual has to be known"
    )]
    Nothing { target: String },
    #[error(
        "nothing was found on {target} within {budget_s} s; not tried, or not to its end: {left}\nhint: a greater --budget tries the rest"
    )]
    Budget { target: String, budget_s: u64, left: String },
}

impl Target {
    /// `HOST[:PORT]`, unless it names a device; `None` when it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains('/') || Path::new(text).exists() {
            return Some(Self::Serial(PathBuf::from(text)));
        }
        let has_port = text
            .rsplit_once(':')
            .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
        let address = if has_port { text.to_owned() } else { format!("{text}:{TCP_PORT}") };
        (!address.starts_with(':')).then_some(Self::Tcp(address))
    }

    fn medium(&self, rate: Rate) -> MediumSettings {
        match self {
            Self::Serial(path) => {
                let Rate { baud, data_bits, parity } = rate;
                MediumSettings::Serial { path: path.clone(), baud, data_bits, parity, stop_bits: 1, rts_on_send: None }
            }
            Self::Tcp(address) => MediumSettings::Tcp { address: address.clone(), connect_timeout: CONNECT_TIMEOUT },
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serial(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// One look at a line.
struct Probe<'p> {
    target: &'p Target,
    times: Times,
    deadline: Instant,
    progress: &'p mut (dyn Write + Send),
}

/// A way to find something, by its name for people.
#[derive(Debug, Clone, Copy)]
enum Step {
    Listen(Option<Rate>),
    Wrapper,
    Call { is_masked: bool },
    Mbus(Option<Rate>),
    Hdlc(Option<Rate>),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |rate: &Option<Rate>| rate.map_or_else(String::new, |rate| format!(" at {rate}"));
        match self {
            Self::Listen(rate) => write!(f, "listening{}", at(rate)),
            Self::Wrapper => f.write_str("DLMS in the wrapper"),
            Self::Call { is_masked: false } => f.write_str("a call by IEC 62056-21"),
            Self::Call { is_masked: true } => f.write_str("a call by IEC 62056-21 with parity in bit 7"),
            Self::Mbus(rate) => write!(f, "M-Bus{}", at(rate)),
            Self::Hdlc(rate) => write!(f, "DLMS in HDLC frames{}", at(rate)),
        }
    }
}

fn steps(target: &Target) -> Vec<Step> {
    match target {
        Target::Serial(_) => {
            let listen = listen::RATES.iter().map(|rate| Step::Listen(Some(*rate)));
            let calls = [false, true].map(|is_masked| Step::Call { is_masked });
            let mbus = mbus::RATES.iter().map(|rate| Step::Mbus(Some(*rate)));
            let hdlc = hdlc::RATES.iter().map(|rate| Step::Hdlc(Some(*rate)));
            listen.chain(calls).chain(mbus).chain(hdlc).collect()
        }
        Target::Tcp(_) => {
            vec![Step::Listen(None), Step::Wrapper, Step::Call { is_masked: true }, Step::Mbus(None), Step::Hdlc(None)]
        }
    }
}

/// Finds what is there; what it does meanwhile, `progress` is told. The answer is text of a settings file.
pub async fn probe(target: &Target, budget: Duration, progress: &mut (dyn Write + Send)) -> Result<String, ProbeError> {
    probe_in(target, TIMES, budget, progress).await
}

async fn probe_in(
    target: &Target,
    times: Times,
    budget: Duration,
    progress: &mut (dyn Write + Send),
) -> Result<String, ProbeError> {
    let mut probe = Probe { target, times, deadline: Instant::now() + budget, progress };
    let steps = steps(target);
    for (place, step) in steps.iter().enumerate() {
        probe.tell(&step.to_string());
        let found = match *step {
            Step::Listen(rate) => probe.listen(rate).await,
            Step::Wrapper => probe.wrapper().await,
            Step::Call { is_masked } => probe.call(is_masked).await,
            Step::Mbus(rate) => probe.mbus(rate).await,
            Step::Hdlc(rate) => probe.hdlc(rate).await,
        };
        match found {
            Ok(Some(section)) => return Ok(section.to_string()),
            Ok(None) => {}
            // The port is there: it cannot be set so, or the endpoint takes nobody for a while.
            Err(ProbeError::Open(error)) if place > 0 => probe.tell(&error.to_string()),
            Err(error) => return Err(error),
        }
        if Instant::now() >= probe.deadline {
            let left: Vec<String> = steps[place..].iter().map(ToString::to_string).collect();
            let (target, budget_s) = (target.to_string(), budget.as_secs());
            return Err(ProbeError::Budget { target, budget_s, left: left.join(", ") });
        }
    }
    Err(ProbeError::Nothing { target: target.to_string() })
}

impl Probe<'_> {
    /// Who does not look at it is told nothing.
    fn tell(&mut self, text: &str) {
        drop(writeln!(self.progress, "{text}"));
    }

    async fn open(&self, rate: Rate) -> Result<Box<dyn ByteLink>, ProbeError> {
        link::medium(&self.target.medium(rate)).open().await.map_err(ProbeError::Open)
    }

    /// Until then, as far as the budget goes.
    fn until(&self, time: Duration) -> Instant {
        (Instant::now() + time).min(self.deadline)
    }

    fn is_serial(&self) -> bool {
        matches!(self.target, Target::Serial(_))
    }
}

/// The settings of the only port or meter of a section, as the gateway would have them.
fn checked(section: &Section) -> crate::config::Checked {
    let text = format!("[gateway]\nid = \"probe\"\n{section}");
    let checked = crate::config::Config::parse(&text, Path::new("probe")).and_then(crate::config::Config::check);
    checked.expect("what is printed is what the gateway takes")
}

/// The settings of the only meter in a section.
fn meter_of(section: &Section) -> Arc<crate::config::metering::MeterSettings> {
    let mut lines = checked(section).lines;
    lines.remove(0).meters.remove(0)
}

#[cfg(test)]
mod tests;
