//! Security of the virtual meter: its counters outlive connections, and it can turn hostile.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use protocols::cosem::security_setup::{GlobalKey, KeyData};
use protocols::dlms::acse::Password;
use protocols::dlms::apdu::ActionResult;
use protocols::dlms::data::Data;
use protocols::dlms::security::{
    AgreementKey, Challenge, Ciphered, CipheredConfig, Counter, HighLevel, Key, KeySet, KeyTransport, Keys, Level,
    ReceivedCounters, SecuritySuite, Signing, SigningKey, SystemTitle, TransportKeys, Wrapping, unwrap_key,
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
    /// Transfers of keys that it does not take.
    pub(crate) refuses: Option<GlobalKey>,
    /// So many more transfers of keys it takes, and hangs up.
    pub(crate) lost_answers: usize,
    hangs_up: bool,
    next: u32,
    challenges: u8,
    recorded: Option<Vec<u8>>,
}

/// The octets of a key, by what it is for.
fn key(which: u8, suite: SecuritySuite) -> Vec<u8> {
    vec![which; suite.key_bits() / 8]
}

/// A private key of the suite's curve, of signatures or agreements.
fn signing_key(which: u8, suite: SecuritySuite) -> Vec<u8> {
    vec![which; if suite == SecuritySuite::Suite2 { 48 } else { 32 }]
}

fn agreement_key(which: u8, suite: SecuritySuite) -> AgreementKey {
    AgreementKey::from_octets(&signing_key(which, suite)).unwrap()
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
        config.transport.key_encrypting = Some(symmetric(7));
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
            refuses: None,
            lost_answers: 0,
            hangs_up: false,
            next: 1,
            challenges: 0,
            recorded: None,
        }
    }

    /// The same meter, whose services are under such keys and signed so. The master key is that of [`key`] with 7, keys of agreements
    /// are those of [`signing_key`] with 5 for the client and 6 for the meter.
    pub(crate) fn under(mut self, transport: KeyTransport, signing: Option<Signing>) -> Self {
        let suite = self.config.suite;
        let signatures = |which| SigningKey::from_octets(&signing_key(which, suite)).unwrap();
        let has_pairs = suite != SecuritySuite::Suite0;
        (self.config.wrapping, self.config.signing) = (Wrapping::Ciphering(transport), signing);
        self.config.transport = TransportKeys {
            key_encrypting: Some(Key::from_octets(&key(7, suite)).unwrap()),
            agreement: has_pairs.then(|| agreement_key(6, suite)),
            peer_agreement: has_pairs.then(|| agreement_key(5, suite).public_key()),
            signing: has_pairs.then(|| signatures(4)),
            peer_signing: has_pairs.then(|| signatures(3).verifying_key()),
            ..TransportKeys::NONE
        };
        self
    }

    pub(super) fn protection(&self) -> Box<Ciphered> {
        let counter = Counter::reserved(self.next, u32::MAX);
        let mut config = self.config.clone();
        if config.wrapping == Wrapping::Ciphering(KeyTransport::OnePass) {
            // Another one for each connection.
            let drawn = 32 + (self.next % 200) as u8;
            config.transport.ephemeral = Some(agreement_key(drawn, config.suite));
        }
        Box::new(Ciphered::server(config, counter, self.received.clone()).unwrap())
    }

    /// The keys of the next connection: all of `parameters` or none.
    pub(super) fn transfer(&mut self, parameters: &[u8]) -> Result<(), ActionResult> {
        let transferred = KeyData::decode(&Data::from_bytes(parameters).unwrap()).unwrap();
        let master = self.config.transport.key_encrypting.clone().unwrap();
        for KeyData { key, octets } in transferred {
            let new = unwrap_key(&master, &octets).map_err(|_| ActionResult::OTHER_REASON)?;
            let place = match key {
                _ if self.refuses == Some(key) => return Err(ActionResult::READ_WRITE_DENIED),
                GlobalKey::UnicastEncryption => &mut self.config.keys.unicast,
                GlobalKey::BroadcastEncryption => &mut self.config.keys.broadcast,
                GlobalKey::Authentication => &mut self.config.keys.authentication,
                GlobalKey::KeyEncrypting => &mut self.config.transport.key_encrypting,
            };
            *place = Some(new);
        }
        if self.lost_answers > 0 {
            (self.lost_answers, self.hangs_up) = (self.lost_answers - 1, true);
        }
        Ok(())
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
        // As many meters count: under global keys only.
        let unicast = self.received.iter().filter(|(keys, ..)| *keys == KeySet::GlobalUnicast);
        self.told.unwrap_or(unicast.map(|(.., counter)| counter).max().unwrap_or(0))
    }

    /// `false`: it hangs up instead.
    pub(super) fn tamper(&mut self, octets: &mut Vec<u8>) -> bool {
        if std::mem::take(&mut self.hangs_up) {
            return false;
        }
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
        let write = |name: String, text: String| files.write(&name, &text);
        let hex = |octets: &[u8]| octets.iter().fold(String::new(), |text, octet| format!("{text}{octet:02x}"));
        write("password".to_owned(), PASSWORD.to_owned());
        for suite in SUITES {
            let id = suite.id();
            let public = SigningKey::from_octets(&signing_key(4, suite)).unwrap().verifying_key().to_octets();
            write(format!("encryption{id}"), hex(&key(1, suite)));
            write(format!("authentication{id}"), hex(&key(2, suite)));
            write(format!("signing{id}"), hex(&signing_key(3, suite)));
            write(format!("public{id}"), hex(&public));
            write(format!("master{id}"), hex(&key(7, suite)));
            write(format!("agreement{id}"), hex(&signing_key(5, suite)));
            write(format!("meter-agreement{id}"), hex(&agreement_key(6, suite).public_key().to_octets()));
        }
        files
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// More lines of a section, for a meter that is [under](BodySecurity::under) these keys.
    pub(crate) fn transport(&self, ciphering: &str, signing: &str, suite: SecuritySuite) -> String {
        let (folder, id) = (self.0.path().display(), suite.id());
        let when = |wanted: bool, lines: String| if wanted { lines } else { String::new() };
        let has_pairs = matches!(ciphering, "one-pass" | "static-unified");
        [
            format!("ciphering = {ciphering:?}\n"),
            when(ciphering == "wrapped", format!("key_encrypting_key_file = \"{folder}/master{id}\"\n")),
            when(has_pairs, format!("agreement_key_file = \"{folder}/agreement{id}\"\n")),
            when(has_pairs, format!("meter_agreement_key_file = \"{folder}/meter-agreement{id}\"\n")),
            when(!signing.is_empty(), format!("signing = {signing:?}\n")),
            when(
                ciphering == "one-pass" || !signing.is_empty(),
                format!(
                    "signing_key_file = \"{folder}/signing{id}\"\nmeter_public_key_file = \"{folder}/public{id}\"\n"
                ),
            ),
        ]
        .concat()
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
