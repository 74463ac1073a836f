//! Keys of meters, and what they seal with them: general-glo, authenticated and encrypted.

use protocols::dlms::security::{
    Key, Keys, Level, PushConfig, PushReceiver, Pushed, ReceivedCounters, SecurityControl, SecuritySuite, SystemTitle,
    protect_push,
};
use protocols::metering::{MeterId, UtcMillis};

use super::LinePlace;
use super::readout::maker_and_number;
use crate::config::KeyFiles;
use crate::rng::mix;

const KEY_LEN: usize = 16;

/// The key of a meter that nobody gave one, and how it is printed.
fn drawn(seed: u64, which: u64) -> (Key, String) {
    let octets = [0, 1].map(|half| mix(seed, &[0x6e7, which, half]).to_be_bytes()).concat();
    let octets: [u8; KEY_LEN] = octets.try_into().expect("two halves of eight octets");
    (Key::from(octets), octets.map(|octet| format!("{octet:02x}")).concat())
}

/// The encryption key of a meter; its place says which, where nobody knows it.
pub fn encryption_key(files: &KeyFiles, seed: u64, place: &mut LinePlace) -> Key {
    if let Some((_, key)) = &files.encryption {
        return key.clone();
    }
    let (key, text) = drawn(seed, 1);
    place.encryption_key = Some(text);
    key
}

/// Seals what a meter pushes.
#[derive(Debug, Clone)]
pub struct Seal {
    keys: Keys,
    title: SystemTitle,
}

impl Seal {
    /// With `authentication`, or a key of its own, which its place says.
    pub fn new(
        files: &KeyFiles,
        authentication: Option<Key>,
        meter: &MeterId,
        seed: u64,
        place: &mut LinePlace,
    ) -> Self {
        let encryption = encryption_key(files, seed, place);
        let set = authentication.or_else(|| files.authentication.as_ref().map(|(_, key)| key.clone()));
        let authentication = set.unwrap_or_else(|| {
            let (key, text) = drawn(seed, 2);
            place.authentication_key = Some(text);
            key
        });
        let (maker, number) = maker_and_number(meter);
        let number = number.parse::<u32>().unwrap_or_default().to_be_bytes();
        let mut title = [0; 8];
        title[..3].copy_from_slice(maker.as_bytes().get(..3).unwrap_or(b"SIM"));
        title[4..].copy_from_slice(&number);
        place.system_title = Some(title.map(|octet| format!("{octet:02x}")).concat());
        Self { keys: Keys::new(encryption, authentication), title: SystemTitle(title) }
    }

    /// The counter is the second that the meter's clock shows: it rises, over a restart too, unless that begins earlier (`start_at`).
    pub fn close(&self, apdu: &[u8], shown: UtcMillis) -> Vec<u8> {
        self.close_with(apdu, u32::try_from(shown.seconds()).unwrap_or_default())
    }

    /// With a counter that was not used before.
    pub fn close_with(&self, apdu: &[u8], counter: u32) -> Vec<u8> {
        let level = Level::AUTHENTICATED_ENCRYPTED;
        let control = SecurityControl { suite: SecuritySuite::Suite0, level, broadcast: false };
        protect_push(&self.keys, self.title, control, counter, apdu).expect("both keys are there")
    }

    /// What opens the answers of others, each once.
    ///
    /// # Panics
    /// Keys of another length than the suite's, which the settings do not allow.
    pub fn listener(&self) -> PushReceiver {
        PushReceiver::new(PushConfig::new(self.keys.clone()), ReceivedCounters::default()).expect("keys of 128 bits")
    }

    /// Whether something was sent under our own title: it came back.
    pub fn is_own(&self, pushed: &Pushed) -> bool {
        pushed.sender.is_some_and(|(title, _)| title == self.title)
    }

    /// Whether a reader takes an APDU for what this meter sent.
    pub fn is_taken(&self, apdu: &[u8]) -> bool {
        let receiver = PushReceiver::new(PushConfig::new(self.keys.clone()), ReceivedCounters::default());
        receiver.is_ok_and(|mut receiver| receiver.receive(apdu).is_ok())
    }
}
