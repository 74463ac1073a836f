//! Changing the global keys of a meter one by one, so that whoever dies in between, or hears no answer, still has every key that the
//! meter may use.
//!
//! Without IO: [`KeyChange::step`] says what to do, [`KeyChange::handle`] hears what came of it. For each key:
//!
//! ```text
//! Store ──▶ Transfer ──answered──▶ Try(new) ──▶ Store ──▶ next key
//!               │                    │    ▲
//!               └─no answer──────────┘    │ neither: both stay on the disk, and a human is needed
//!                          Try(old) ◀─────┘
//! ```
//!
//! The key-encrypting key goes last, since the others go under it. Each key goes in an invocation of its own: of one that nobody
//! answered there are two states, not sixteen.

use super::{Key, Keys, wrap_key};
use crate::cosem::security_setup::{GlobalKey, KeyData};

/// Every global key of one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalKeys {
    pub unicast: Key,
    pub broadcast: Option<Key>,
    pub authentication: Option<Key>,
    pub key_encrypting: Key,
}

impl GlobalKeys {
    pub const fn key(&self, which: GlobalKey) -> Option<&Key> {
        match which {
            GlobalKey::UnicastEncryption => Some(&self.unicast),
            GlobalKey::BroadcastEncryption => self.broadcast.as_ref(),
            GlobalKey::Authentication => self.authentication.as_ref(),
            GlobalKey::KeyEncrypting => Some(&self.key_encrypting),
        }
    }

    /// Those that APDUs are under.
    pub fn of_associations(&self) -> Keys {
        let (unicast, broadcast) = (Some(self.unicast.clone()), self.broadcast.clone());
        Keys { unicast, broadcast, authentication: self.authentication.clone() }
    }

    /// The same with one key in its place.
    #[must_use]
    pub fn with(mut self, which: GlobalKey, key: Key) -> Self {
        match which {
            GlobalKey::UnicastEncryption => self.unicast = key,
            GlobalKey::BroadcastEncryption => self.broadcast = Some(key),
            GlobalKey::Authentication => self.authentication = Some(key),
            GlobalKey::KeyEncrypting => self.key_encrypting = key,
        }
        self
    }
}

/// What has to be on the disk, so that no kill loses a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKeys {
    /// Those that the meter uses, but for the one that is `pending`: of that nobody knows whether it still does.
    pub in_force: GlobalKeys,
    /// The key that is on its way.
    pub pending: Option<(GlobalKey, Key)>,
}

impl StoredKeys {
    /// As if the one that is pending had arrived.
    pub fn arrived(&self) -> GlobalKeys {
        let keys = self.in_force.clone();
        match &self.pending {
            Some((which, key)) => keys.with(*which, key.clone()),
            None => keys,
        }
    }
}

/// What to do next. Nothing else may be done to the meter's keys meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChangeStep {
    /// Write this down so that it survives, in place of what was there.
    Store(StoredKeys),
    /// Invoke key_transfer with `parameters`, in an association under `keys`.
    Transfer { keys: GlobalKeys, parameters: Vec<u8> },
    /// Find out whether these are the meter's: by an association under them. For the key-encrypting key with `parameters`, which transfer
    /// under it a key that the meter has already.
    Try { keys: GlobalKeys, parameters: Option<Vec<u8>> },
    /// All keys are changed.
    Finished,
    /// The meter takes this key not. The old one is in force.
    Refused(GlobalKey),
    /// The meter answers under neither the old nor the new key. Both have to be kept.
    Neither(GlobalKey),
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    Done,
    /// The meter answered, and it was no.
    Refused,
    /// Nobody knows: no answer, or one that could not be read.
    Unknown,
}

/// How often one key is sent while the meter goes on with the old one.
const TRANSFERS_MAX: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    StorePending,
    Transfer,
    TryNew,
    TryOld,
    StoreNew,
    StoreOld,
    Finished,
    Refused(GlobalKey),
    Neither(GlobalKey),
}

/// The change of one meter's keys.
#[derive(Debug)]
pub struct KeyChange {
    stored: StoredKeys,
    /// Those that are still to be changed, the next one last.
    wanted: Vec<(GlobalKey, Key)>,
    stage: Stage,
    transfers: u8,
}

impl KeyChange {
    /// `stored` is what is on the disk: of a change that was broken off, the key that is pending is settled first. Then come those of
    /// `wanted`, each key at most once.
    pub fn new(stored: StoredKeys, mut wanted: Vec<(GlobalKey, Key)>) -> Self {
        wanted.sort_by_key(|(which, _)| std::cmp::Reverse(which.octet()));
        wanted.dedup_by_key(|(which, _)| *which);
        let is_pending = stored.pending.is_some();
        let mut change = Self { stored, wanted, stage: Stage::TryNew, transfers: 0 };
        if !is_pending {
            change.begin_next();
        } else if change.is_untestable() {
            (change.stage, change.transfers) = (Stage::Transfer, 1);
        }
        change
    }

    pub const fn stored(&self) -> &StoredKeys {
        &self.stored
    }

    pub fn step(&self) -> KeyChangeStep {
        match self.stage {
            Stage::StorePending | Stage::StoreNew | Stage::StoreOld => KeyChangeStep::Store(self.to_store()),
            Stage::Transfer => KeyChangeStep::Transfer {
                keys: self.stored.in_force.clone(),
                parameters: self
                    .stored
                    .pending
                    .as_ref()
                    .map_or_else(Vec::new, |(which, key)| self.wrapped(*which, key)),
            },
            Stage::TryNew => self.trial(self.stored.arrived()),
            Stage::TryOld => self.trial(self.stored.in_force.clone()),
            Stage::Finished => KeyChangeStep::Finished,
            Stage::Refused(which) => KeyChangeStep::Refused(which),
            Stage::Neither(which) => KeyChangeStep::Neither(which),
        }
    }

    /// What came of [`Self::step`]. After [`StepOutcome::Unknown`] it may say the same again: then another time may help.
    pub fn handle(&mut self, outcome: StepOutcome) {
        use StepOutcome::{Done, Refused, Unknown};
        self.stage = match (self.stage, outcome) {
            (Stage::StorePending, Done) => {
                self.stored = self.to_store();
                self.wanted.pop();
                Stage::Transfer
            }
            (Stage::StoreNew, Done) => {
                self.stored = self.to_store();
                return self.begin_next();
            }
            (Stage::StoreOld, Done) => {
                let refused = self.pending_key().map_or(Stage::Finished, Stage::Refused);
                self.stored = self.to_store();
                refused
            }
            (Stage::Transfer, Done) if self.is_untestable() => Stage::StoreNew,
            // Nothing tells whether it arrived, and to send it again does no harm. Who refuses it then may have it already.
            (Stage::Transfer, Unknown) if self.is_untestable() => {
                self.transfers = 1;
                Stage::Transfer
            }
            (Stage::Transfer, Refused) if self.is_untestable() && self.transfers == 0 => Stage::StoreOld,
            (Stage::Transfer, Refused) if self.is_untestable() => Stage::Neither(GlobalKey::BroadcastEncryption),
            // A refusal may be that of a repetition that the meter had understood.
            (Stage::Transfer, _) => {
                self.transfers += 1;
                Stage::TryNew
            }
            (Stage::TryNew, Done) => Stage::StoreNew,
            (Stage::TryNew, Refused) => Stage::TryOld,
            (Stage::TryOld, Done) if self.transfers < TRANSFERS_MAX => Stage::Transfer,
            (Stage::TryOld, Done) => Stage::StoreOld,
            (Stage::TryOld, Refused) => self.pending_key().map_or(Stage::Finished, Stage::Neither),
            (stage, _) => stage,
        };
    }

    fn begin_next(&mut self) {
        self.transfers = 0;
        while self.wanted.pop_if(|(which, key)| self.stored.in_force.key(*which) == Some(&*key)).is_some() {}
        self.stage = if self.wanted.is_empty() { Stage::Finished } else { Stage::StorePending };
    }

    /// What is to be on the disk behind a stage that stores.
    fn to_store(&self) -> StoredKeys {
        let in_force = self.stored.in_force.clone();
        match self.stage {
            Stage::StorePending => StoredKeys { in_force, pending: self.wanted.last().cloned() },
            Stage::StoreNew => StoredKeys { in_force: self.stored.arrived(), pending: None },
            _ => StoredKeys { in_force, pending: None },
        }
    }

    fn pending_key(&self) -> Option<GlobalKey> {
        self.stored.pending.as_ref().map(|(which, _)| *which)
    }

    /// No association of ours is under the broadcast key.
    fn is_untestable(&self) -> bool {
        self.pending_key() == Some(GlobalKey::BroadcastEncryption)
    }

    fn trial(&self, keys: GlobalKeys) -> KeyChangeStep {
        let is_master = self.pending_key() == Some(GlobalKey::KeyEncrypting);
        let parameters = is_master.then(|| {
            // Not the unicast key, where there is another: a meter may begin its invocation counters anew with it.
            let (key, known) = match &keys.authentication {
                Some(authentication) => (GlobalKey::Authentication, authentication),
                None => (GlobalKey::UnicastEncryption, &keys.unicast),
            };
            KeyData::encode(&[KeyData { key, octets: wrap_key(&keys.key_encrypting, known) }])
        });
        KeyChangeStep::Try { keys, parameters }
    }

    fn wrapped(&self, key: GlobalKey, new: &Key) -> Vec<u8> {
        let octets = wrap_key(&self.stored.in_force.key_encrypting, new);
        KeyData::encode(&[KeyData { key, octets }])
    }
}

#[cfg(test)]
mod tests;
