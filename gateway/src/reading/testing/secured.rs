//! Security of the virtual meter: its counters outlive connections, and it can turn hostile.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use protocols::dlms::acse::Password;
use protocols::dlms::security::{
    Challenge, Ciphered, CipheredConfig, Counter, HighLevel, Key, KeySet, Keys, Level, ReceivedCounters, SecuritySuite,
    SigningKey, SystemTitle,
};
use protocols::dlms::server::{ClientRole, HighLevelClient, ServerConfig};

pub(crate) const TITLE: SystemTitle = SystemTitle(*b"SIM\x00\x00\x00\x00\x01");
const PASSWORD: &str = "known to both";
pub(crate) const SUITES: [SecuritySuite; 3] = [SecuritySuite::Suite0, SecuritySuite::Suite1, SecuritySuite::Suite2];
const HEADER_OCTETS: usize = 8;

/// What becomes of answers over the wrapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hostility {
    None,
    WrongTag,
    Replay,
    Downgrade,
    /// Hangs up where an invocation counter is too low.
    SilentCounterError,
}

pub(crate) struct BodySecurity {
    pub(crate) config: CipheredConfig,
    pub(crate) server: ServerConfig,
    pub(crate) received: ReceivedCounters,
    pub(crate) hostility: Hostility,
    /// Requests that were refused since their counter was used before.
    pub(crate) counter_errors: usize,
    /// What the counter object says; by default the truth.
    pub(crate) told: Option<u32>,
    next: u32,
    challenges: u8,
    recorded: Option<Vec<u8>>,
}

/// The octets of a key, by what it is for.
fn key(which: u8, suite: SecuritySuite) -> Vec<u8> {
    vec![which; suite.key_bits() / 8]
}

/// A private key of the suite's curve.
fn signing_key(which: u8, suite: SecuritySuite) -> Vec<u8> {
    vec![which; if suite == SecuritySuite::Suite2 { 48 } else { 32 }]
}

impl BodySecurity {
    /// Keys are those of [`key`] with 1 and 2, signing keys those of [`signing_key`] with 3 for the client and 4 for the meter.
    pub(crate) fn new(authentication: &str, suite: SecuritySuite, level: Level) -> Self {
        let secret = || Password::new(PASSWORD);
        let signing = |which| SigningKey::from_octets(&signing_key(which, suite)).unwrap();
        let how = match authentication {
            "low" => None,
            "manufacturer" => Some(HighLevel::Manufacturer(secret())),
            "md5" => Some(HighLevel::Md5(secret())),
            "sha1" => Some(HighLevel::Sha1(secret())),
            "gmac" => Some(HighLevel::Gmac),
            "sha256" => Some(HighLevel::Sha256(secret())),
            _ => Some(HighLevel::Ecdsa { ours: signing(4), theirs: signing(3).verifying_key() }),
        };
        let symmetric = |which| Key::from_octets(&key(which, suite)).unwrap();
        let mut config = CipheredConfig::new(Keys::new(symmetric(1), symmetric(2)), TITLE);
        (config.suite, config.level, config.minimum) = (suite, level, Level::NONE);
        let client = |how| HighLevelClient { role: ClientRole::Reader, how, title: None, minimum: level };
        let server = ServerConfig {
            reader_password: how.is_none().then(secret),
            reader_minimum: level,
            high_level: how.map(client).into_iter().collect(),
            conformance: ServerConfig::CONFORMANCE_WITH_COMMANDS,
            ..ServerConfig::default()
        };
        Self {
            config,
            server,
            received: ReceivedCounters::default(),
            hostility: Hostility::None,
            counter_errors: 0,
            told: None,
            next: 1,
            challenges: 0,
            recorded: None,
        }
    }

    pub(super) fn protection(&self) -> Box<Ciphered> {
        let counter = Counter::reserved(self.next, u32::MAX);
        Box::new(Ciphered::server(self.config.clone(), counter, self.received.clone()).unwrap())
    }

    pub(super) fn keep(&mut self, used: &Ciphered) {
        self.next = used.counter().peek().unwrap();
        self.received = used.received().clone();
    }

    pub(super) fn challenge(&mut self) -> Challenge {
        self.challenges = self.challenges.wrapping_add(1);
        Challenge::new([self.challenges; Challenge::LEN]).unwrap()
    }

    /// The greatest counter that was accepted.
    pub(crate) fn counter(&self) -> u32 {
        let unicast = self.received.iter().filter(|(keys, ..)| *keys == KeySet::GlobalUnicast);
        self.told.unwrap_or(unicast.map(|(.., counter)| counter).max().unwrap_or(0))
    }

    /// `false`: it hangs up instead.
    pub(super) fn tamper(&mut self, octets: &mut Vec<u8>) -> bool {
        let is_wrapped = octets.starts_with(&[0, 1]);
        let apdu = octets.get(HEADER_OCTETS..).filter(|_| is_wrapped).unwrap_or_default();
        match (apdu, self.hostility) {
            ([0xd8, _, 0x06, ..], hostility) => {
                self.counter_errors += 1;
                return hostility != Hostility::SilentCounterError;
            }
            ([0xc8..=0xdd, ..], Hostility::WrongTag) => *octets.last_mut().unwrap() ^= 1,
            ([0xc8..=0xdd, ..], Hostility::Replay) => *octets = self.recorded.clone().unwrap(),
            ([0xc8..=0xdd, ..], Hostility::Downgrade) => {
                octets.truncate(HEADER_OCTETS - 2);
                octets.extend([0, 9, 0xc4, 0x01, 0xc1, 0x00, 0x06, 0x00, 0x00, 0x00, 0x2a]);
            }
            ([0xcc, ..], _) => self.recorded = Some(octets.clone()),
            _ => {}
        }
        true
    }
}

/// Key files of every suite.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let write = |name: String, text: String| {
            let path = files.0.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        let hex = |octets: &[u8]| octets.iter().fold(String::new(), |text, octet| format!("{text}{octet:02x}"));
        write("password".to_owned(), PASSWORD.to_owned());
        for suite in SUITES {
            let id = suite.id();
            let public = SigningKey::from_octets(&signing_key(4, suite)).unwrap().verifying_key().to_octets();
            write(format!("encryption{id}"), hex(&key(1, suite)));
            write(format!("authentication{id}"), hex(&key(2, suite)));
            write(format!("signing{id}"), hex(&signing_key(3, suite)));
            write(format!("public{id}"), hex(&public));
        }
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The lines of a meter's section.
    pub(crate) fn section(&self, authentication: &str, suite: SecuritySuite) -> String {
        let (folder, id) = (self.0.path().display(), suite.id());
        let secret = match authentication {
            "gmac" => String::new(),
            "ecdsa" => format!(
                "signing_key_file = \"{folder}/signing{id}\"\nmeter_public_key_file = \"{folder}/public{id}\"\n"
            ),
            _ => format!("password_file = \"{folder}/password\"\n"),
        };
        format!(
            "client = 1\nauthentication = \"{authentication}\"\nsecurity_suite = {id}\n{secret}\
             encryption_key_file = \"{folder}/encryption{id}\"\nauthentication_key_file = \"{folder}/authentication{id}\"\n"
        )
    }
}
