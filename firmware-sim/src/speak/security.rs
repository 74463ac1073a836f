//! Security of DLMS meters: keys, titles and secrets that follow from the seed, and counters that outlive connections.
//!
//! Client 1 proves itself as the settings say and has to protect what it says. Whoever has the keys may also manage the meter, by
//! another mechanism and a secret of its own: only such a client changes keys. The public client is let in without any of it.

pub(super) mod setup;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocols::dlms::acse::Password;
use protocols::dlms::security::{
    AgreementKey, Challenge, Ciphered, CipheredConfig, Counter, GlobalKeys, HighLevel, Key, KeyTransport, Level,
    ReceivedCounters, SecuritySuite, Signing, SigningKey, SystemTitle, TransportKeys, Wrapping,
};
use protocols::dlms::server::{ClientRole, HighLevelClient, ServerConfig};
use protocols::metering::{MeterId, UtcMillis};
use serde::Serialize;

use super::wiretap::{HEADER_OCTETS, Wiretap};
use crate::faults::{Fault, FaultRates, LineFaults};
use crate::rng::mix;

/// How client 1 proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Low,
    Manufacturer,
    Md5,
    Sha1,
    Gmac,
    Sha256,
    Ecdsa,
}

impl Mechanism {
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Low, "low"),
        (Self::Manufacturer, "manufacturer"),
        (Self::Md5, "md5"),
        (Self::Sha1, "sha1"),
        (Self::Gmac, "gmac"),
        (Self::Sha256, "sha256"),
        (Self::Ecdsa, "ecdsa"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(mechanism, _)| *mechanism == self).map_or("", |(_, name)| name)
    }
}

/// Keys that general-ciphering brings.
pub const TRANSPORTS: [(KeyTransport, &str); 3] = [
    (KeyTransport::Wrapped, "wrapped"),
    (KeyTransport::OnePass, "one-pass"),
    (KeyTransport::StaticUnified, "static-unified"),
];

/// Where signatures are.
pub const SIGNINGS: [(Signing, &str); 2] = [(Signing::Inside, "inside"), (Signing::Outside, "outside")];

/// What a group of meters asks of client 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecuritySettings {
    pub mechanism: Mechanism,
    pub suite: SecuritySuite,
    /// At least, and of the meter's own APDUs, too.
    pub level: Level,
    /// `None`: services are under global and dedicated keys.
    pub transport: Option<KeyTransport>,
    pub signing: Option<Signing>,
}

impl SecuritySettings {
    /// Whether anything is done by pairs of keys, which suite 0 does not have.
    pub fn has_key_pairs(self) -> bool {
        self.has_agreements() || self.has_signatures()
    }

    fn has_agreements(self) -> bool {
        matches!(self.transport, Some(KeyTransport::OnePass | KeyTransport::StaticUnified))
    }

    fn has_signatures(self) -> bool {
        self.mechanism == Mechanism::Ecdsa || self.signing.is_some() || self.transport == Some(KeyTransport::OnePass)
    }
}

/// What a reader has to know of a meter, as it is printed at the start: all of it follows from the seed, so it is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecurityPlace {
    pub authentication: &'static str,
    pub security_suite: u8,
    /// Where it is not global keys that services are under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ciphering: Option<&'static str>,
    /// Where general-signing signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing: Option<&'static str>,
    pub meter_title: String,
    pub encryption_key: String,
    pub authentication_key: String,
    /// The master key, under which a client that manages the meter transfers others.
    pub key_encrypting_key: String,
    /// The private key of client 1, and the meter's public one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter_public_key: Option<String>,
    /// The same of agreements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter_agreement_key: Option<String>,
    pub management_authentication: &'static str,
    pub management_password: String,
}

/// How a meter without any other security is managed: by high level security, as meters ask for it whatever reading takes.
#[derive(Debug)]
pub struct Management {
    seed: u64,
    challenges: AtomicU64,
}

impl Management {
    /// With the secret.
    pub fn new(seed: u64) -> (Self, String) {
        (Self { seed, challenges: AtomicU64::new(0) }, management_password(seed))
    }

    pub fn admit(&self, server: &mut ServerConfig) {
        let how = HighLevel::Sha1(Password::new(management_password(self.seed)));
        server.high_level.push(HighLevelClient { role: ClientRole::Manager, how, title: None, minimum: Level::NONE });
    }

    /// For one connection.
    pub fn challenge(&self) -> Challenge {
        let drawn = mix(self.seed, &[0x6d67, self.challenges.fetch_add(1, Ordering::Relaxed)]);
        Challenge::new(octets(drawn, 6, Challenge::LEN)).expect("16 octets are a challenge")
    }
}

fn management_password(seed: u64) -> String {
    hex(&octets(seed, 5, 8))
}

/// What outlives a connection.
#[derive(Debug)]
struct Ledger {
    /// The meter's next invocation counter.
    next: u32,
    received: ReceivedCounters,
    challenges: u64,
    /// Keys that were drawn for one connection each.
    agreements: u64,
    faults: LineFaults,
    /// A ciphered answer of before.
    recorded: Option<Vec<u8>>,
    wiretap: Wiretap,
    keys: GlobalKeys,
    /// No connection has been told of the keys yet.
    is_renewed: bool,
}

/// The security of one meter.
#[derive(Debug)]
pub struct MeterSecurity {
    seed: u64,
    config: CipheredConfig,
    high_level: Vec<HighLevelClient>,
    minimum: Level,
    ledger: Mutex<Ledger>,
}

/// 2020-01-01, in milliseconds.
const EPOCH_MS: i64 = 1_577_836_800_000;
/// A meter that is started again goes on behind its last counter, as long as it used no more than four a second.
const COUNTER_MS: i64 = 250;
/// What [`Fault::CounterJump`] adds.
const JUMP: u32 = 5_000;
/// A GET response of one register, without any protection.
const PLAIN_ANSWER: [u8; 9] = [0xc4, 0x01, 0xc1, 0x00, 0x06, 0x00, 0x00, 0x00, 0x2a];

impl MeterSecurity {
    /// With what a reader has to know of it. `password` is that of client 1; `wall` is when it is started.
    pub fn new(
        settings: SecuritySettings,
        id: &MeterId,
        seed: u64,
        password: &str,
        faults: FaultRates,
        wall: UtcMillis,
    ) -> (Self, SecurityPlace) {
        let key = |which| octets(seed, which, settings.suite.key_bits() / 8);
        let (encryption, authentication, key_encrypting) = (key(1), key(2), key(8));
        let title = title_of(id, seed);
        let private = |which| private_octets(settings.suite, seed, which);
        let signing = |octets: &[u8]| SigningKey::from_octets(octets).expect(IN_RANGE);
        let agreement = |octets: &[u8]| AgreementKey::from_octets(octets).expect(IN_RANGE);
        let (client_private, meter_private) = (private(3), private(4));
        let (client_agreement, meter_agreement) = (private(9), agreement(&private(10)));
        let how = proof(settings.mechanism, password, || HighLevel::Ecdsa {
            ours: signing(&meter_private),
            theirs: signing(&client_private).verifying_key(),
        });
        let management_password = management_password(seed);
        let (management_authentication, management) = match settings.mechanism {
            Mechanism::Sha256 => ("sha1", HighLevel::Sha1(Password::new(management_password.as_str()))),
            _ => ("sha256", HighLevel::Sha256(Password::new(management_password.as_str()))),
        };
        let client = |role, how| HighLevelClient { role, how, title: None, minimum: settings.level };
        let reader = how.map(|how| client(ClientRole::Reader, how));
        let high_level = reader.into_iter().chain([client(ClientRole::Manager, management)]).collect();
        let symmetric = |octets: &[u8]| Key::from_octets(octets).expect("16 and 32 octets are a key");
        let keys = GlobalKeys {
            unicast: symmetric(&encryption),
            broadcast: None,
            authentication: Some(symmetric(&authentication)),
            key_encrypting: symmetric(&key_encrypting),
        };
        let mut config = CipheredConfig::new(keys.of_associations(), title);
        config.suite = settings.suite;
        // What each client has to do at least is asked of it alone: the public one does nothing.
        (config.level, config.minimum) = (settings.level, Level::NONE);
        config.wrapping = settings.transport.map_or(Wrapping::Service, Wrapping::Ciphering);
        config.signing = settings.signing;
        let (is_signed, is_agreed) = (settings.has_signatures(), settings.has_agreements());
        config.transport = TransportKeys {
            key_encrypting: Some(keys.key_encrypting.clone()),
            agreement: is_agreed.then(|| meter_agreement.clone()),
            peer_agreement: is_agreed.then(|| agreement(&client_agreement).public_key()),
            signing: is_signed.then(|| signing(&meter_private)),
            peer_signing: is_signed.then(|| signing(&client_private).verifying_key()),
            ..TransportKeys::NONE
        };
        let place = SecurityPlace {
            authentication: settings.mechanism.name(),
            security_suite: settings.suite.id(),
            ciphering: TRANSPORTS.into_iter().find(|(of, _)| Some(*of) == settings.transport).map(|(_, name)| name),
            signing: SIGNINGS.into_iter().find(|(of, _)| Some(*of) == settings.signing).map(|(_, name)| name),
            meter_title: hex(&title.0),
            encryption_key: hex(&encryption),
            authentication_key: hex(&authentication),
            key_encrypting_key: hex(&key_encrypting),
            signing_key: is_signed.then(|| hex(&client_private)),
            meter_public_key: is_signed.then(|| hex(&signing(&meter_private).verifying_key().to_octets())),
            agreement_key: is_agreed.then(|| hex(&client_agreement)),
            meter_agreement_key: is_agreed.then(|| hex(&meter_agreement.public_key().to_octets())),
            management_authentication,
            management_password,
        };
        let ledger = Ledger {
            next: u32::try_from((wall.0 - EPOCH_MS) / COUNTER_MS).unwrap_or(0),
            received: ReceivedCounters::default(),
            challenges: 0,
            agreements: 0,
            faults: LineFaults::new(mix(seed, &[0x7a3e]), faults),
            recorded: None,
            wiretap: Wiretap::default(),
            keys,
            is_renewed: false,
        };
        (Self { seed, config, high_level, minimum: settings.level, ledger: Mutex::new(ledger) }, place)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server is told beside this.
    pub fn admit(&self, server: &mut ServerConfig) {
        let has_low = !self.high_level.iter().any(|client| client.role == ClientRole::Reader);
        server.reader_password = server.reader_password.take().filter(|_| has_low);
        server.reader_minimum = self.minimum;
        server.high_level.clone_from(&self.high_level);
    }

    /// For one connection.
    pub fn protection(&self) -> Box<Ciphered> {
        let mut ledger = self.ledger();
        if ledger.faults.strikes(Fault::CounterJump) {
            for (keys, title, counter) in ledger.received.clone().iter() {
                let jumped = ledger.received.remember(keys, title, counter.saturating_add(JUMP));
                jumped.expect("whoever is remembered has room");
            }
        }
        let (counter, received) = (Counter::reserved(ledger.next, u32::MAX), ledger.received.clone());
        let mut config = CipheredConfig { keys: ledger.keys.of_associations(), ..self.config.clone() };
        config.transport.key_encrypting = Some(ledger.keys.key_encrypting.clone());
        if config.wrapping == Wrapping::Ciphering(KeyTransport::OnePass) {
            ledger.agreements += 1;
            let drawn = mix(self.seed, &[0x6570, ledger.agreements, u64::from(ledger.next)]);
            let octets = private_octets(config.suite, drawn, 11);
            config.transport.ephemeral = Some(AgreementKey::from_octets(&octets).expect(IN_RANGE));
        }
        Box::new(Ciphered::server(config, counter, received).expect("the keys are those of the suite"))
    }

    /// Keeps what a connection has used.
    pub fn keep(&self, used: &Ciphered) {
        let mut ledger = self.ledger();
        ledger.next = used.counter().peek().unwrap_or(u32::MAX);
        ledger.received.clone_from(used.received());
    }

    /// Hears what clients say over the wrapper, before anybody looks whether it is accepted.
    pub fn overhear(&self, wpdus: &[u8]) {
        self.ledger().wiretap.hear(wpdus);
    }

    /// How often a client has said an invocation counter that was not above all before.
    pub fn counters_repeated(&self) -> u64 {
        self.ledger().wiretap.repeated
    }

    /// A challenge that no client was asked before.
    pub fn challenge(&self) -> Challenge {
        let mut ledger = self.ledger();
        ledger.challenges += 1;
        let drawn = mix(self.seed, &[ledger.challenges, u64::from(ledger.next)]);
        Challenge::new(octets(drawn, 6, Challenge::LEN)).expect("16 octets are a challenge")
    }

    /// The greatest invocation counter that a client has used: what 0-0:43.1.0 says.
    pub fn counter(&self) -> u32 {
        let ledger = self.ledger();
        ledger.received.iter().map(|(.., counter)| counter).max().unwrap_or(0)
    }

    /// What somebody makes of an answer who sits between the meter and its reader: over the wrapper, since HDLC puts a check sequence round it.
    pub fn tamper(&self, wpdu: &mut Vec<u8>) {
        let Some((header, apdu)) = wpdu.split_first_chunk_mut::<HEADER_OCTETS>() else { return };
        let (Some(tag), mut ledger) = (apdu.first(), self.ledger()) else { return };
        if !matches!(tag, 0xc8..=0xd7 | 0xdb..=0xdd | 0xdf) {
            return;
        }
        if ledger.faults.strikes(Fault::WrongTag)
            && let Some(last) = apdu.last_mut()
        {
            *last ^= 1;
        } else if ledger.faults.strikes(Fault::Downgrade) {
            let mut plain = header.to_vec();
            plain.truncate(HEADER_OCTETS - 2);
            plain.extend((PLAIN_ANSWER.len() as u16).to_be_bytes());
            plain.extend(PLAIN_ANSWER);
            *wpdu = plain;
        } else if let Some(recorded) = ledger.recorded.clone().filter(|_| ledger.faults.strikes(Fault::ReplayedAnswer))
        {
            *wpdu = recorded;
        } else {
            ledger.recorded.get_or_insert_with(|| wpdu.clone());
        }
    }
}

/// Whether a WPDU says that the client's invocation counter is too low.
pub fn is_counter_error(wpdu: &[u8]) -> bool {
    matches!(wpdu.get(HEADER_OCTETS..), Some([0xd8, _, 0x06, ..]))
}

/// How client 1 proves who it is, by high level security.
fn proof(mechanism: Mechanism, password: &str, signatures: impl FnOnce() -> HighLevel) -> Option<HighLevel> {
    let secret = || Password::new(password);
    match mechanism {
        Mechanism::Low => None,
        Mechanism::Manufacturer => Some(HighLevel::Manufacturer(secret())),
        Mechanism::Md5 => Some(HighLevel::Md5(secret())),
        Mechanism::Sha1 => Some(HighLevel::Sha1(secret())),
        Mechanism::Gmac => Some(HighLevel::Gmac),
        Mechanism::Sha256 => Some(HighLevel::Sha256(secret())),
        Mechanism::Ecdsa => Some(signatures()),
    }
}

/// Three letters of the maker and a number of its own.
fn title_of(id: &MeterId, seed: u64) -> SystemTitle {
    let mut title = [0; SystemTitle::LEN];
    let number = octets(seed, 7, 5);
    let letters = id.as_str().bytes().take(3).chain(number);
    title.iter_mut().zip(letters).for_each(|(octet, letter)| *octet = letter);
    SystemTitle(title)
}

const IN_RANGE: &str = "it is above zero and below the order";

/// A private key of the suite's curve. The first octet keeps it below the order.
fn private_octets(suite: SecuritySuite, seed: u64, which: u64) -> Vec<u8> {
    let len = if suite == SecuritySuite::Suite2 { 48 } else { 32 };
    [vec![0x01], octets(seed, which, len - 1)].concat()
}

fn octets(seed: u64, which: u64, count: usize) -> Vec<u8> {
    (0..).flat_map(|place| mix(seed, &[0x6b65, which, place]).to_be_bytes()).take(count).collect()
}

fn hex(octets: &[u8]) -> String {
    octets
        .iter()
        .flat_map(|octet| [octet >> 4, octet & 0xf])
        .filter_map(|half| char::from_digit(half.into(), 16))
        .collect()
}
