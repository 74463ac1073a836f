//! `clock`, `switch`, `write`, `image`, `keys` and `calendar`: what is changed in a meter by hand. Each of it is an event in the outbox.
//!
//! The gateway has to be stopped: it holds the outbox. Who talks to the meter is the client of `[meter.clock_set]`, where the section has
//! one, else the client of the section.

mod calendar;
mod clock;
mod image;
mod keys;
mod value;

pub use calendar::{CalendarOptions, calendar};
pub use clock::clock;
pub use image::{ImageOptions, image};
pub use keys::{KeysOptions, keys};

use std::io::{BufRead as _, IsTerminal as _, Write};
use std::sync::Arc;
use std::time::Duration;

use protocols::cosem::InterfaceClass as _;
use protocols::cosem::disconnect_control::{
    CONTROL_STATE, DisconnectControl, OUTPUT_STATE, REMOTE_DISCONNECT, REMOTE_RECONNECT,
};
use protocols::dlms::apdu::{CosemAttribute, CosemMethod};
use protocols::dlms::client::RequestError;
use protocols::dlms::data::Data;
use protocols::dlms::value::DataValue;
use protocols::metering::{Code, Event, MeterId, ObisCode};
use tokio::time::Instant;

use super::read::{HINT_BUSY, Keeper, find, is_secret, text};
use crate::clock::{SharedClock, SystemClock};
use crate::config::Checked;
use crate::config::metering::{Addressing, LinePlan, MeterSettings};
use crate::inventory::InventoryKeeper;
use crate::link::{self, ByteLink, Medium};
use crate::outbox::{OutboxHandle, StoreRequest};
use crate::reading::counters::{associate, conclude};
use crate::reading::introduction::introduce;
use crate::reading::memory::MeterMemory;
use crate::reading::registers::read_at;
use crate::reading::session::{SessionError, SessionParts};
use crate::reading::talk::Talk;
use crate::run;
use crate::telemetry::Metrics;
use crate::trust::ClockTrust;
use crate::uploader::{HttpUploader, Uploader as _};

/// The log of what was done by hand.
const COMMAND_LOG: &str = "meterpost:command";
const TIME_TIMEOUT: Duration = Duration::from_secs(5);
const HINT_STOP: &str = "hint: stop the gateway first: it holds the outbox, in which this is recorded";
/// Associations and security setups hold passwords and keys, which would stand in the event.
const SECRET_CLASSES: [u16; 3] = [12, 15, 64];

/// Into which state the breaker is switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SwitchTo {
    Connect,
    Disconnect,
}

#[derive(Debug, Clone, clap::Args)]
pub struct WriteOptions {
    /// The object's class: 1 for Data, 3 for Register, 8 for Clock; `read --object-list` shows it.
    #[arg(long, default_value_t = 1)]
    pub class: u16,
    /// The object, with /attribute when not 2, as 0-0:94.31.0 or 0-0:96.3.10/4.
    pub object: String,
    /// The value with its type, as `boolean:true`, `long-unsigned:900`, `octet-string:07ea`, `visible-string:text`.
    pub value: String,
    /// Does not ask.
    #[arg(long)]
    pub yes: bool,
}

/// What is asked of a meter.
#[derive(Debug, Clone)]
enum Change {
    Set { attribute: CosemAttribute, value: DataValue },
    Switch { breaker: ObisCode, to: SwitchTo },
}

pub async fn write(checked: &Checked, name: &str, options: &WriteOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let code: Code = options.object.parse()?;
    let Code::Obis { obis, attribute } = code else { anyhow::bail!("{:?} is no OBIS code", options.object) };
    let class_id = options.class;
    anyhow::ensure!(
        !SECRET_CLASSES.contains(&class_id) && !is_secret(class_id, attribute.cast_signed()),
        "objects of class {class_id} hold passwords and keys, which would stand in the event\nhint: use the maker's tool for them"
    );
    let attribute = CosemAttribute::new(class_id, obis, attribute.cast_signed());
    let change = Change::Set { attribute, value: value::parse(&options.value)? };
    carry_out(checked, name, &change, options.yes, out).await
}

pub async fn switch(
    checked: &Checked,
    name: &str,
    to: SwitchTo,
    yes: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let change = Change::Switch { breaker: DisconnectControl::LOGICAL_NAME, to };
    carry_out(checked, name, &change, yes, out).await
}

async fn carry_out(
    checked: &Checked,
    name: &str,
    change: &Change,
    yes: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut site = Site::of(checked, name)?;
    // For the instant of the event, at best.
    drop(site.ask_the_time(checked).await);
    let looking = change.clone();
    let writer = site.writer();
    let (meter, before) = site.converse(writer.clone(), async |talk, _| looking.look(talk).await).await?;
    writeln!(out, "{:<22} {name}", "meter")?;
    writeln!(out, "{:<22} {meter}", "identity")?;
    writeln!(out, "{:<22} {before}", "before")?;
    out.flush()?;
    if !yes {
        confirm(name, change)?;
    }
    site.record(&meter, 0, change.octets(), &format!("about to {change} by hand; before: {before}")).await?;
    let (doing, known) = (change.clone(), meter.clone());
    let done = site
        .converse(writer, async |talk, who| {
            if *who != known {
                return Ok(None);
            }
            let result = doing.carry_out(talk).await?;
            // What the meter has answered is known, whatever comes then.
            let after = doing.look(talk).await.unwrap_or_else(|error| error.text());
            Ok(Some((result, after)))
        })
        .await;
    let (code, outcome) = match &done {
        Ok((_, Some((Ok(()), after)))) => (1, format!("done; after: {after}")),
        Ok((_, Some((Err(error), after)))) => (2, format!("{error}; after: {after}")),
        Ok((other, None)) => (2, format!("{other} answers now")),
        Err(error) => (3, format!("nobody knows whether it was done: {error}")),
    };
    site.record(&meter, code, change.octets(), &format!("{change} by hand: {outcome}")).await?;
    match done? {
        (_, Some((Ok(()), after))) => Ok(writeln!(out, "{:<22} {after}", "after")?),
        _ => anyhow::bail!("{name}: {outcome}"),
    }
}

/// On a terminal; elsewhere nobody could answer.
fn confirm(name: &str, change: &dyn std::fmt::Display) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    anyhow::ensure!(stdin.is_terminal(), "nobody can be asked whether to {change}\nhint: --yes does it unasked");
    let mut stderr = std::io::stderr();
    write!(stderr, "{name}: {change}? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    anyhow::ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "nothing was done");
    Ok(())
}

impl Change {
    /// What it is about to change, as it stands now.
    async fn look(&self, talk: &mut Talk<'_>) -> Result<String, SessionError> {
        let wanted = match *self {
            Self::Set { attribute, .. } => vec![attribute],
            Self::Switch { breaker, .. } => [OUTPUT_STATE, CONTROL_STATE]
                .map(|index| CosemAttribute::new(DisconnectControl::CLASS_ID, breaker, index))
                .to_vec(),
        };
        let results = talk.get_list(&wanted).await?;
        let shown = results.into_iter().map(|result| match &result {
            Ok(value) => Data::from_bytes(&value.data).map_or("not readable".to_owned(), |data| text(&data)),
            Err(error) => error.to_string(),
        });
        let shown: Vec<String> = shown.collect();
        Ok(match (self, &shown[..]) {
            (Self::Switch { .. }, [output, control]) => {
                let number = control.parse().ok();
                let control = number
                    .and_then(protocols::cosem::disconnect_control::ControlState::from_octet)
                    .map_or(control.clone(), |state| state.name().to_owned());
                format!("output_state {output}, control_state {control}")
            }
            _ => shown.join(", "),
        })
    }

    async fn carry_out(&self, talk: &mut Talk<'_>) -> Result<Result<(), RequestError>, SessionError> {
        Ok(match self {
            Self::Set { attribute, value } => talk.set(*attribute, value.to_vec()).await?,
            Self::Switch { breaker, to } => {
                let number = match to {
                    SwitchTo::Connect => REMOTE_RECONNECT,
                    SwitchTo::Disconnect => REMOTE_DISCONNECT,
                };
                let method = CosemMethod::new(DisconnectControl::CLASS_ID, *breaker, number);
                talk.invoke(method, DataValue::Integer(0).to_vec()).await?.map(drop)
            }
        })
    }

    fn octets(&self) -> Vec<u8> {
        match self {
            Self::Set { value, .. } => value.to_vec(),
            Self::Switch { .. } => Vec::new(),
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Set { attribute, value } => {
                let octets = value.to_vec();
                let shown = Data::from_bytes(&octets).map_or_else(|_| format!("{value:?}"), |data| text(&data));
                write!(f, "set {attribute} to {shown}")
            }
            Self::Switch { to: SwitchTo::Connect, .. } => f.write_str("connect the supply"),
            Self::Switch { to: SwitchTo::Disconnect, .. } => f.write_str("disconnect the supply"),
        }
    }
}

/// A meter, its line, and the outbox.
struct Site {
    line: Arc<str>,
    medium: Arc<dyn Medium>,
    budget: Duration,
    meter: Arc<MeterSettings>,
    parts: SessionParts,
    memory: MeterMemory,
    _keeper: Keeper,
}

/// Why a conversation did not do what it was for.
enum Failure {
    /// There was none.
    Line(anyhow::Error),
    Session(SessionError),
    OtherMeter {
        found: MeterId,
        expected: MeterId,
    },
}

impl Failure {
    fn told(self, name: &str) -> anyhow::Error {
        match self {
            Self::Line(error) => error,
            Self::Session(error) => anyhow::anyhow!("{name}: {}", error.text()),
            Self::OtherMeter { found, expected } => {
                let hint = "hint: serial of its section says which meter is meant";
                anyhow::anyhow!("{name}: expected {expected}, found {found}\n{hint}")
            }
        }
    }
}

impl Site {
    /// With the outbox to itself. The meter's keys are known.
    fn of(checked: &Checked, name: &str) -> anyhow::Result<Self> {
        let site = Self::with_two_keys(checked, name)?;
        let has_two = site.meter.security.cipher.as_ref().is_some_and(|cipher| cipher.next.is_some());
        let hint = format!("hint: `meterpost-gateway keys {name}` finds out which it has");
        anyhow::ensure!(!has_two, "{name}: a change of its keys was cut short\n{hint}");
        Ok(site)
    }

    /// The same, of a meter that may be in a change of its keys.
    fn with_two_keys(checked: &Checked, name: &str) -> anyhow::Result<Self> {
        Self::kept(checked, name, |_| {
            super::existing(checked)?;
            let lock = run::lock(checked).map_err(|error| match error {
                run::StartError::Locked { .. } => anyhow::anyhow!("{name}: the gateway runs\n{HINT_STOP}"),
                other => other.into(),
            })?;
            Ok(Keeper { outbox: OutboxHandle::inline(super::open(checked, &lock)?).0, _lock: Some(lock) })
        })
    }

    fn kept(
        checked: &Checked,
        name: &str,
        keep: impl FnOnce(&MeterSettings) -> anyhow::Result<Keeper>,
    ) -> anyhow::Result<Self> {
        let (LinePlan { line, .. }, meter) = find(checked, name)?;
        let is_dlms = matches!(meter.addressing, Addressing::Wrapper { .. } | Addressing::Hdlc { .. });
        let protocol = meter.protocol.name();
        anyhow::ensure!(
            is_dlms,
            "{name} speaks {protocol}, and this is for DLMS meters\nhint: `read` shows all meters"
        );
        let keeper = keep(&meter)?;
        let clock: SharedClock = Arc::new(SystemClock::new());
        let parts = SessionParts {
            outbox: keeper.outbox.clone(),
            trust: ClockTrust::new(clock.clone(), run::random_u64()),
            clock,
            inventory: InventoryKeeper::default(),
            metrics: Metrics::default(),
            held: None,
        };
        Ok(Self {
            line: line.name.clone(),
            medium: link::medium(&line.medium),
            budget: line.budget,
            memory: MeterMemory::new(meter.reads.len()),
            meter,
            parts,
            _keeper: keeper,
        })
    }

    /// Nobody else has told this process the time.
    async fn ask_the_time(&self, checked: &Checked) -> Result<(), String> {
        let cloud = &checked.config.cloud;
        let http = HttpUploader::new(cloud.host.clone(), cloud.port, checked.token.clone());
        let told = match tokio::time::timeout(TIME_TIMEOUT, http.cloud_time()).await {
            Ok(told) => told.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("no answer within {TIME_TIMEOUT:?}")),
        };
        self.parts.trust.on_cloud_time(told);
        Ok(())
    }

    /// Who may change something.
    fn writer(&self) -> Arc<MeterSettings> {
        match &self.meter.clock_set {
            Some(set) => set.writer.clone(),
            None => Arc::new(MeterSettings { sends_commands: true, ..(*self.meter).clone() }),
        }
    }

    async fn open(&self) -> anyhow::Result<Box<dyn ByteLink>> {
        let opened = self.medium.open().await;
        opened.map_err(|error| anyhow::anyhow!("line {}: {error}\n{HINT_BUSY}", self.line))
    }

    /// One conversation as that client, with the meter that the section means.
    async fn converse<T>(
        &mut self,
        client: Arc<MeterSettings>,
        what: impl AsyncFnOnce(&mut Talk<'_>, &MeterId) -> Result<T, SessionError>,
    ) -> anyhow::Result<(MeterId, T)> {
        self.attempt(&client, what).await.map_err(|failure| failure.told(&client.name))
    }

    async fn attempt<T>(
        &mut self,
        client: &MeterSettings,
        what: impl AsyncFnOnce(&mut Talk<'_>, &MeterId) -> Result<T, SessionError>,
    ) -> Result<(MeterId, T), Failure> {
        let mut link = self.open().await.map_err(Failure::Line)?;
        let Self { medium, parts, memory, budget, .. } = self;
        let deadline = Instant::now() + *budget;
        let talk = Talk::new(&mut *link, client, medium.octet_time_us(), deadline);
        let mut talk = talk.map_err(|error| Failure::Session(error.into()))?;
        let outcome = async {
            associate(&mut talk, client, parts.counters(), memory).await?;
            let who = introduce(&mut talk, client, &parts.clock).await?;
            if let Some(expected) = who.expected {
                return Ok::<_, SessionError>(Err((who.meter, expected)));
            }
            let done = what(&mut talk, &who.meter).await?;
            Ok(Ok((who.meter, done)))
        };
        let outcome = outcome.await;
        match &outcome {
            Ok(_) => drop(talk.release().await),
            Err(_) => talk.hang_up().await,
        }
        let outcome = conclude(&mut talk, client, parts.counters(), &parts.metrics, memory, outcome).await;
        let answered = outcome.map_err(Failure::Session)?;
        answered.map_err(|(found, expected)| Failure::OtherMeter { found, expected })
    }

    async fn record(&self, meter: &MeterId, code: i64, raw: Vec<u8>, text: &str) -> anyhow::Result<()> {
        let parts = &self.parts;
        let at = parts.trust.now().unwrap_or_else(|| parts.clock.wall());
        let (log, text) = (COMMAND_LOG.to_owned(), text.to_owned());
        let event = Event { meter: meter.clone(), log, at, nth: 0, code, raw, text };
        let request = StoreRequest { events: vec![(event, read_at(&parts.clock))], ..StoreRequest::default() };
        parts.outbox.store(request).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
