//! A change of a meter's global keys that was cut short.
//!
//! What the command `keys` sends to a meter is written down first: as `FILE.next` beside the `FILE` that the settings name. While it is
//! there, nobody knows which of the two the meter has. Whoever talks to the meter tries both, the one of `FILE` first; the command, given
//! again, finds out and puts the right one into `FILE`.

use std::path::{Path, PathBuf};

use protocols::cosem::security_setup::GlobalKey;
use protocols::dlms::security::{CipheredConfig, GlobalKeys, Key};

use super::{CipherSettings, Examined, SecuritySettings};
use crate::config::ConfigError;
use crate::config::metering::MeterSection;

/// What a meter has, if not what the settings say.
#[derive(Debug, Clone)]
pub struct NextKey {
    pub which: GlobalKey,
    pub key: Key,
    /// The settings with this key in its place.
    pub config: CipheredConfig,
}

/// A key of a section: which one, the setting, and the file.
pub type KeyFile<'a> = (GlobalKey, &'static str, Option<&'a PathBuf>);

/// Where the keys stand that can be changed.
pub fn key_files(section: &MeterSection) -> [KeyFile<'_>; 3] {
    [
        (GlobalKey::UnicastEncryption, "encryption_key_file", section.encryption_key_file.as_ref()),
        (GlobalKey::Authentication, "authentication_key_file", section.authentication_key_file.as_ref()),
        (GlobalKey::KeyEncrypting, "key_encrypting_key_file", section.key_encrypting_key_file.as_ref()),
    ]
}

/// Beside a key, the one that is to take its place.
pub fn next_of(path: &Path) -> PathBuf {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    next.into()
}

impl Examined<'_> {
    /// Keys change one by one: there is one at the most.
    pub(super) fn next_key(&mut self, config: &CipheredConfig) -> Result<Option<Box<NextKey>>, ConfigError> {
        let mut found: Option<Box<NextKey>> = None;
        for (which, setting, path) in key_files(self.section) {
            let Some(path) = path.map(|path| next_of(path)) else { continue };
            let exists = path.try_exists();
            let exists = exists.map_err(|error| ConfigError::Read { path: path.clone(), cause: error.to_string() })?;
            if !exists {
                continue;
            }
            let Some(key) = self.symmetric_key(setting, Some(&path))? else { continue };
            if let Some(other) = &found {
                let message = format!("a {} and a {} key are both about to change", other.which.name(), which.name());
                let hint = "keys change one by one: remove the .next of the key that the meter cannot have";
                return self.refused(message, hint);
            }
            found = Some(Box::new(NextKey { which, config: with(config, which, &key), key }));
        }
        Ok(found)
    }
}

fn with(config: &CipheredConfig, which: GlobalKey, key: &Key) -> CipheredConfig {
    let mut config = config.clone();
    let place = match which {
        GlobalKey::UnicastEncryption => &mut config.keys.unicast,
        GlobalKey::BroadcastEncryption => &mut config.keys.broadcast,
        GlobalKey::Authentication => &mut config.keys.authentication,
        GlobalKey::KeyEncrypting => &mut config.transport.key_encrypting,
    };
    *place = Some(key.clone());
    config
}

impl CipherSettings {
    /// What a meter is talked to by: with the key of a change that was cut short, where there is one, or without.
    pub fn config(&self, with_next: bool) -> &CipheredConfig {
        self.next.as_ref().filter(|_| with_next).map_or(&self.config, |next| &next.config)
    }

    /// All global keys that are known of the meter; `None` without a key-encrypting key, which the meter has all the same.
    pub fn global_keys(&self) -> Option<GlobalKeys> {
        let keys = &self.config.keys;
        Some(GlobalKeys {
            unicast: keys.unicast.clone()?,
            broadcast: keys.broadcast.clone(),
            authentication: keys.authentication.clone(),
            key_encrypting: self.config.transport.key_encrypting.clone()?,
        })
    }
}

impl SecuritySettings {
    /// The same under these keys, and no others.
    #[must_use]
    pub fn under(&self, keys: &GlobalKeys) -> Self {
        let mut settings = self.clone();
        if let Some(cipher) = &mut settings.cipher {
            cipher.next = None;
            cipher.config.keys = keys.of_associations();
            cipher.config.transport.key_encrypting = Some(keys.key_encrypting.clone());
        }
        settings
    }
}
