//! `keys`: other global keys for a DLMS meter. Whoever is killed in between, or hears no answer, loses none.
//!
//! [`KeyChange`] says what to do; the [files] are its disk. Keys change one by one, each from `FILE.next` beside its `FILE`:
//!
//! | on the disk | the meter has | who finds out |
//! | --- | --- | --- |
//! | `FILE` | that one | |
//! | `FILE` and `FILE.next` | one of the two | whoever reads it tries both; this command, given again, puts the right one into `FILE` |

mod files;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use protocols::cosem::InterfaceClass as _;
use protocols::cosem::security_setup::{GlobalKey, KEY_TRANSFER, SecuritySetup};
use protocols::dlms::apdu::CosemMethod;
use protocols::dlms::security::{GlobalKeys, KeyChange, KeyChangeStep, StepOutcome, StoredKeys};
use protocols::metering::{MeterId, ObisCode};

use self::files::KeyFiles;
use super::{Failure, Site, confirm};
use crate::config::Checked;
use crate::config::metering::MeterSettings;
use crate::reading::error::OfKeys;
use crate::reading::memory::MeterMemory;

/// So often a meter that says nothing is asked under one key, before that counts as a no: to the other key it may answer.
const TRIES: u8 = 2;
const HINT_RIGHTS: &str =
    "may this client transfer keys ([meter.clock_set] can name another), and is key_encrypting_key_file right?";
const HINT_AGAIN: &str =
    "hint: give the same command again: it finds out which key the meter has; until then both are kept";

#[derive(Debug, Clone, clap::Args)]
pub struct KeysOptions {
    /// A file with the new global unicast encryption key (GUEK), 32 or 64 hexadecimal digits, that nobody but its owner may read.
    #[arg(long, value_name = "FILE")]
    pub encryption_key: Option<PathBuf>,
    /// The same with the new authentication key (GAK).
    #[arg(long, value_name = "FILE")]
    pub authentication_key: Option<PathBuf>,
    /// The same with the new key-encrypting key (KEK, master key), under which the others are sent.
    #[arg(long, value_name = "FILE")]
    pub key_encrypting_key: Option<PathBuf>,
    /// The security setup whose keys they are.
    #[arg(long, value_name = "OBIS", default_value = "0-0:43.0.0")]
    pub object: String,
    /// Does not ask.
    #[arg(long)]
    pub yes: bool,
}

impl KeysOptions {
    /// Files by key, with the options that name them.
    fn named(&self) -> [(GlobalKey, &'static str, Option<&PathBuf>); 3] {
        [
            (GlobalKey::UnicastEncryption, "--encryption-key", self.encryption_key.as_ref()),
            (GlobalKey::Authentication, "--authentication-key", self.authentication_key.as_ref()),
            (GlobalKey::KeyEncrypting, "--key-encrypting-key", self.key_encrypting_key.as_ref()),
        ]
    }
}

pub async fn keys(checked: &Checked, name: &str, options: &KeysOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let mut changing = Changing::of(checked, name, options).await?;
    let what = changing.what();
    for (key, value) in [("meter", name), ("identity", changing.meter.as_str()), ("change", what.as_str())] {
        writeln!(out, "{key:<22} {value}")?;
    }
    out.flush()?;
    if !options.yes {
        confirm(name, &what)?;
    }
    changing.record(0, &format!("about to {what} by hand")).await?;
    let ended = loop {
        match changing.step().await {
            Ok(None) => {}
            Ok(Some(end)) => break Ok(end),
            Err(error) => break Err(error),
        }
    };
    let (code, text) = match &ended {
        Ok(KeyChangeStep::Refused(key)) => {
            (2, format!("the meter does not take the new {} key; the old one is in force", key.name()))
        }
        Ok(KeyChangeStep::Neither(key)) => {
            (2, format!("the meter answers under neither the old nor the new {} key", key.name()))
        }
        Ok(_) => (1, "done".to_owned()),
        Err(error) => (3, format!("cut short: {error}")),
    };
    let event = text.lines().next().unwrap_or_default();
    changing.record(code, &format!("{what} by hand: {event}")).await?;
    match ended {
        Ok(KeyChangeStep::Refused(_)) => {
            anyhow::bail!("{name}: {text}\nhint: {HINT_RIGHTS}")
        }
        Ok(KeyChangeStep::Neither(key)) => {
            anyhow::bail!(
                "{name}: {text}; both are kept, in {}\n{HINT_AGAIN}\nhint: {HINT_RIGHTS}",
                changing.files.places(key)
            )
        }
        Ok(_) => Ok(writeln!(out, "{:<22} done; the files of its section hold the new keys", "after")?),
        Err(error) => anyhow::bail!("{error}\n{HINT_AGAIN}"),
    }
}

/// A change under way.
struct Changing {
    site: Site,
    writer: Arc<MeterSettings>,
    change: KeyChange,
    files: KeyFiles,
    object: ObisCode,
    meter: MeterId,
    /// Keys that are to change.
    wanted: Vec<GlobalKey>,
}

impl Changing {
    /// What is on the disk, and what is wanted. The meter says who it is.
    async fn of(checked: &Checked, name: &str, options: &KeysOptions) -> anyhow::Result<Self> {
        let object: ObisCode = options.object.parse()?;
        let mut site = Site::with_two_keys(checked, name)?;
        let writer = site.writer();
        let mut files = KeyFiles::of(checked, &site.meter, &writer)?;
        let wanted = files.wanted(&options.named())?;
        // For the instant of the event, at best.
        drop(site.ask_the_time(checked).await);
        let stored = files.stored().clone();
        let meter = identity(&mut site, &writer, &stored).await?;
        let keys = wanted.iter().map(|(key, _)| *key).collect();
        Ok(Self { site, writer, change: KeyChange::new(stored, wanted), files, object, meter, wanted: keys })
    }

    fn what(&self) -> String {
        let named = |keys: &[GlobalKey]| keys.iter().map(|key| key.name()).collect::<Vec<_>>().join(", ");
        let pending = self.files.stored().pending.as_ref().map(|(key, _)| key.name());
        match (pending, &self.wanted[..]) {
            (Some(pending), []) => format!("finish the change of its {pending} key"),
            (Some(pending), wanted) => {
                format!("finish the change of its {pending} key, then change keys: {}", named(wanted))
            }
            (None, wanted) => format!("change keys: {}", named(wanted)),
        }
    }

    async fn record(&self, code: i64, text: &str) -> anyhow::Result<()> {
        self.site.record(&self.meter, code, Vec::new(), text).await
    }

    /// Takes one step; the last one is answered. Whoever is killed in here has lost nothing.
    async fn step(&mut self) -> anyhow::Result<Option<KeyChangeStep>> {
        let step = self.change.step();
        let outcome = match &step {
            KeyChangeStep::Store(stored) => {
                self.files.store(stored)?;
                StepOutcome::Done
            }
            KeyChangeStep::Transfer { keys, parameters } => self.ask(keys, Some(&parameters[..])).await?,
            KeyChangeStep::Try { keys, parameters } => {
                let mut outcome = StepOutcome::Unknown;
                for _ in 0..TRIES {
                    outcome = self.ask(keys, parameters.as_deref()).await?;
                    if outcome != StepOutcome::Unknown {
                        break;
                    }
                }
                // Some meters say nothing to whoever has another key. It costs no key where that is not so: then the old one is not taken
                // either, and both are kept.
                if outcome == StepOutcome::Unknown { StepOutcome::Refused } else { outcome }
            }
            KeyChangeStep::Finished | KeyChangeStep::Refused(_) | KeyChangeStep::Neither(_) => return Ok(Some(step)),
        };
        self.change.handle(outcome);
        Ok(None)
    }

    /// An association under these keys, and key_transfer in it where there are parameters. An error is none of the meter and its keys.
    async fn ask(&mut self, keys: &GlobalKeys, parameters: Option<&[u8]>) -> anyhow::Result<StepOutcome> {
        let (method, known) = (CosemMethod::new(SecuritySetup::CLASS_ID, self.object, KEY_TRANSFER), &self.meter);
        let client = under(&self.writer, keys);
        // Counters are of one key.
        self.site.memory = MeterMemory::new(0);
        let asked = self.site.attempt(&client, async |talk, who| {
            if who != known {
                return Ok(None);
            }
            let Some(parameters) = parameters else { return Ok(Some(StepOutcome::Done)) };
            let invoked = talk.invoke(method, parameters.to_vec()).await?;
            Ok(Some(if invoked.is_ok() { StepOutcome::Done } else { StepOutcome::Refused }))
        });
        match asked.await {
            Ok((_, Some(outcome))) => Ok(outcome),
            Ok((other, None)) => anyhow::bail!("{}: {other} answers now", client.name),
            Err(Failure::Session(error)) => match error.of_keys() {
                OfKeys::Refused => Ok(StepOutcome::Refused),
                OfKeys::Silent => Ok(StepOutcome::Unknown),
                OfKeys::Nothing => Err(Failure::Session(error).told(&client.name)),
            },
            Err(failure) => Err(failure.told(&client.name)),
        }
    }
}

/// Who answers under the keys that are in force, or under those that have arrived.
async fn identity(site: &mut Site, writer: &MeterSettings, stored: &StoredKeys) -> anyhow::Result<MeterId> {
    let mut ask = async |keys: &GlobalKeys| {
        site.memory = MeterMemory::new(0);
        let asked = site.attempt(&under(writer, keys), async |_, who| Ok(who.clone())).await;
        asked.map(|(who, _)| who)
    };
    let failure = match ask(&stored.in_force).await {
        Ok(meter) => return Ok(meter),
        Err(failure) => failure,
    };
    let may_be_other = matches!(&failure, Failure::Session(error) if error.of_keys() != OfKeys::Nothing);
    let arrived = if stored.pending.is_some() && may_be_other { ask(&stored.arrived()).await } else { Err(failure) };
    arrived.map_err(|failure| failure.told(&writer.name))
}

/// The client with these keys.
fn under(writer: &MeterSettings, keys: &GlobalKeys) -> MeterSettings {
    MeterSettings { security: writer.security.under(keys), ..writer.clone() }
}

#[cfg(test)]
mod tests;
