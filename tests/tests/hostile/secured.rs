//! Does whoever sits before a secured meter, or lies in its place, get anything stored, or keep the others on its line from being
//! read?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use demo::stage::Stage;
use protocols::dlms::security::{
    Key, Keys, Level, PushConfig, PushReceiver, ReceivedCounters, SecurityControl, SecuritySuite, SystemTitle,
    protect_push,
};
use serde_json::Value;
use tests::hostile::{RSS_KB_MAX, listen, peak_rss_kb, state_of, told};
use tests::system::{
    CATCH_UP_TIMEOUT, Fleet, READS, catch_up, everything_arrives, metric, stage, start_dlms_of, until,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::wrapper::{frame, read_frame};

/// What becomes of a meter's answers on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// The last octet of each tag is another.
    WrongTag,
    /// Values are those of an answer that was heard before, whatever is asked.
    Replay,
    /// Values come in clear.
    InClear,
    /// The security control octet says that nothing is encrypted.
    LowerControl,
    /// By whoever has the keys: sealed anew and rightly, with a tag only.
    OnlyAuthenticated,
    /// The same, encrypted only.
    OnlyEncrypted,
    /// The association is granted as it was to the client without any security.
    PublicAssociation,
    /// The association is that of another system title.
    OtherTitle,
    /// By whoever has the keys: the proof of who the meter is is another.
    FalseProof,
    /// The wrapper names another service than the one inside.
    OtherService,
    /// What is wrapped has 4 GiB.
    LyingLength,
    /// What the gateway said comes back.
    Reflected,
    /// Whoever asks without security is told that nearly all invocation counters are used up.
    CounterTold,
    /// Who wants to associate is told so.
    CounterRefused,
    /// Each answer is cut in half.
    Cut,
}

const ATTACKS: [Attack; 15] = [
    Attack::WrongTag,
    Attack::Replay,
    Attack::InClear,
    Attack::LowerControl,
    Attack::OnlyAuthenticated,
    Attack::OnlyEncrypted,
    Attack::PublicAssociation,
    Attack::OtherTitle,
    Attack::FalseProof,
    Attack::OtherService,
    Attack::LyingLength,
    Attack::Reflected,
    Attack::CounterTold,
    Attack::CounterRefused,
    Attack::Cut,
];
/// Attacked meters of a line, before one that nobody attacks.
const ATTACKED_PER_LINE: usize = 3;
const LINES: usize = ATTACKS.len() / ATTACKED_PER_LINE;

/// The client that reads without any security.
const PUBLIC_CLIENT: u16 = 16;
const AARE: u8 = 0x61;
const GET_RESPONSE: u8 = 0xc4;
const GLO_GET_RESPONSE: u8 = 0xcc;
const GLO_SET_RESPONSE: u8 = 0xcd;
const GLO_ACTION_RESPONSE: u8 = 0xcf;
/// Between the tag of a service and that of its wrapper (IEC 62056-5-3, glo-).
const GLO: u8 = 0x08;
/// Leaves six, of 4 billion.
const LAST_COUNTERS: [u8; 4] = [0xff, 0xff, 0xff, 0xfa];

impl Attack {
    /// State of the meter, and what its cause says.
    fn verdict(self) -> (&'static str, &'static str) {
        match self {
            Self::WrongTag => ("refusing", "what was answered is not accepted: the authentication tag is wrong"),
            Self::Replay => ("refusing", "what was answered is not accepted: invocation counter "),
            Self::InClear => ("refusing", "APDU with tag 0xc4 is not ciphered, the association is"),
            Self::LowerControl | Self::OnlyAuthenticated => {
                ("refusing", "the APDU is authenticated, it has to be authenticated and encrypted")
            }
            Self::OnlyEncrypted => ("refusing", "the APDU is encrypted, it has to be authenticated and encrypted"),
            Self::PublicAssociation => ("refusing", "APDU with tag 0x08 is not ciphered, the association is"),
            Self::OtherTitle => ("wrong identity", "was expected"),
            Self::FalseProof => ("refusing", "meter did not prove who it is"),
            Self::OtherService => ("refusing", "APDU with tag 0xc4 inside the wrapper of 0xcd"),
            Self::LyingLength | Self::Cut => ("refusing", "content of a ciphered APDU is malformed"),
            Self::Reflected => ("refusing", "what was answered is not accepted: "),
            Self::CounterTold | Self::CounterRefused => ("refusing", "which leaves too few: its key has to be changed"),
        }
    }
}

/// Where the content of a ciphered service begins: behind tag and length.
fn content_at(apdu: &[u8]) -> usize {
    match apdu[1] {
        0x82 => 4,
        0x81 => 3,
        _ => 2,
    }
}

/// Whoever sits before one meter.
struct Attacker {
    attack: Attack,
    /// Those of the meter: some know them.
    keys: Keys,
    title: SystemTitle,
    /// What was heard of the meter that may be of use.
    heard: Mutex<Option<Vec<u8>>>,
    /// Answers that were tampered with.
    struck: AtomicU64,
}

impl Attacker {
    fn new(attack: Attack, endpoint: &Value) -> Self {
        let text = |key: &str| endpoint["security"][key].as_str().unwrap();
        let key = |name: &str| Key::from_hex(text(name)).unwrap();
        Self {
            attack,
            keys: Keys::new(key("encryption_key"), key("authentication_key")),
            title: SystemTitle::from_hex(text("meter_title")).unwrap(),
            heard: Mutex::default(),
            struck: AtomicU64::new(0),
        }
    }

    /// A ciphered service in clear, and its invocation counter.
    fn opened(&self, apdu: &[u8]) -> (Vec<u8>, u32) {
        let config = PushConfig { sender: Some(self.title), ..PushConfig::new(self.keys.clone()) };
        let pushed = PushReceiver::new(config, ReceivedCounters::default()).unwrap().receive(apdu).unwrap();
        (pushed.apdu, pushed.sender.unwrap().1)
    }

    /// As the meter would seal it: that of general-glo, in the wrapper of the service.
    fn sealed(&self, level: Level, counter: u32, plain: &[u8]) -> Vec<u8> {
        let control = SecurityControl { suite: SecuritySuite::Suite0, level, broadcast: false };
        let general = protect_push(&self.keys, self.title, control, counter, plain).unwrap();
        // Its tag, length and title.
        [&[plain[0] + GLO], &general[2 + SystemTitle::LEN..]].concat()
    }

    /// What becomes of the answer to `asked`.
    fn tampered(&self, is_public: bool, asked: &[u8], answer: &[u8]) -> Vec<u8> {
        let tag = answer[0];
        let (is_value, is_ciphered) = (tag == GLO_GET_RESPONSE, matches!(tag, 0xc8..=0xd7));
        let is_aare = tag == AARE;
        let mut tampered = answer.to_vec();
        match self.attack {
            Attack::WrongTag if is_ciphered => *tampered.last_mut().unwrap() ^= 1,
            Attack::Replay if is_value => return self.heard.lock().unwrap().get_or_insert(tampered).clone(),
            Attack::InClear if is_value => return vec![GET_RESPONSE, 0x01, 0xc1, 0x00, 0x06, 0x00, 0x00, 0x00, 0x2a],
            Attack::LowerControl if is_value => tampered[content_at(answer)] &= !0x20,
            Attack::OnlyAuthenticated | Attack::OnlyEncrypted if is_value => {
                let level = if self.attack == Attack::OnlyEncrypted { Level::ENCRYPTED } else { Level::AUTHENTICATED };
                let (plain, counter) = self.opened(answer);
                return self.sealed(level, counter, &plain);
            }
            Attack::PublicAssociation if is_aare && is_public => *self.heard.lock().unwrap() = Some(tampered.clone()),
            Attack::PublicAssociation if is_aare => return self.heard.lock().unwrap().clone().unwrap_or(tampered),
            Attack::OtherTitle if is_aare && !is_public => {
                let at = answer.windows(SystemTitle::LEN).position(|window| window == self.title.0).unwrap();
                tampered[at + SystemTitle::LEN - 1] ^= 1;
            }
            Attack::FalseProof if tag == GLO_ACTION_RESPONSE => {
                let (mut plain, counter) = self.opened(answer);
                *plain.last_mut().unwrap() ^= 1;
                return self.sealed(Level::AUTHENTICATED_ENCRYPTED, counter, &plain);
            }
            Attack::OtherService if is_value => tampered[0] = GLO_SET_RESPONSE,
            Attack::LyingLength if is_value => {
                tampered.splice(1..content_at(answer), [0x84, 0xff, 0xff, 0xff, 0xff]);
            }
            Attack::Reflected if is_value => return asked.to_vec(),
            Attack::CounterTold if is_public && tag == GET_RESPONSE => {
                return [&[GET_RESPONSE, 0x01, answer[2], 0x00, 0x06], &LAST_COUNTERS[..]].concat();
            }
            // Exception response: service not allowed, invocation counter error.
            Attack::CounterRefused if is_aare && !is_public => {
                return [&[0xd8, 0x01, 0x06], &LAST_COUNTERS[..]].concat();
            }
            Attack::Cut if is_value => tampered.truncate(answer.len() / 2),
            _ => {}
        }
        tampered
    }
}

/// A line of meters, by their wPorts from 1 on.
struct Line {
    real: SocketAddr,
    attackers: Vec<Attacker>,
}

async fn serve(mut client: TcpStream, line: Arc<Line>, is_hostile: Arc<AtomicBool>) -> std::io::Result<()> {
    let mut meters = TcpStream::connect(line.real).await?;
    loop {
        let ([from, to], asked) = read_frame(&mut client).await?;
        meters.write_all(&frame([from, to], &asked)).await?;
        let (_, mut answer) = read_frame(&mut meters).await?;
        let attacker = line.attackers.get(usize::from(to) - 1);
        if let Some(attacker) = attacker.filter(|_| is_hostile.load(Ordering::Relaxed)) {
            let tampered = attacker.tampered(from == PUBLIC_CLIENT, &asked, &answer);
            attacker.struck.fetch_add((tampered != answer).into(), Ordering::Relaxed);
            answer = tampered;
        }
        client.write_all(&frame([to, from], &answer)).await?;
    }
}

/// A key in a file that nobody else may read.
fn key_file(folder: &Path, name: &str, digits: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, digits).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// The gateway's section for a meter of the simulator.
fn section(folder: &Path, name: &str, line: usize, endpoint: &Value) -> String {
    let security = &endpoint["security"];
    let text = |key: &str| security[key].as_str().unwrap();
    let file = |key: &str| key_file(folder, &format!("{name}.{key}"), text(key));
    format!(
        "[[meter]]\nname = \"{name}\"\nserial = \"{}\"\nline = \"host-{line}\"\nserver = {}\nclient = 1\n\
         authentication = \"gmac\"\nsecurity_suite = 0\nsecurity_policy = \"authenticated-encrypted\"\n\
         encryption_key_file = \"{}\"\nauthentication_key_file = \"{}\"\nmeter_title = \"{}\"\nclock_check = \"off\"\n{READS}",
        endpoint["meter"].as_str().unwrap(),
        endpoint["wport"],
        file("encryption_key"),
        file("authentication_key"),
        text("meter_title"),
    )
}

/// Who is who on the lines of a stage.
struct Lines {
    attacked: Vec<Arc<Line>>,
    /// Meters that nobody attacks.
    honest: Vec<String>,
    is_hostile: Arc<AtomicBool>,
}

impl Lines {
    /// Puts the meters of the fleet behind attackers, the last of each line excepted, and the gateway's sections into the stage.
    async fn set_up(stage: &mut Stage, fleet: &Fleet) -> Self {
        let is_hostile = Arc::new(AtomicBool::new(true));
        let (mut attacked_lines, mut honest) = (Vec::new(), Vec::new());
        let by_line = fleet.endpoints.chunks(ATTACKED_PER_LINE + 1).zip(ATTACKS.chunks(ATTACKED_PER_LINE));
        for (place, (endpoints, attacks)) in by_line.enumerate() {
            let (last, attacked) = endpoints.split_last().unwrap();
            let attackers = attacks.iter().zip(attacked).map(|(attack, endpoint)| Attacker::new(*attack, endpoint));
            let real = last["address"].as_str().unwrap().parse().unwrap();
            let line = Arc::new(Line { real, attackers: attackers.collect() });
            let (of_line, hostile) = (line.clone(), is_hostile.clone());
            let host = listen(move |client| serve(client, of_line.clone(), hostile.clone())).await.unwrap();
            let names = attacks.iter().map(|attack| format!("{attack:?}")).chain([format!("honest-{place}")]);
            let sections = names.zip(endpoints).map(|(name, endpoint)| section(stage.folder(), &name, place, endpoint));
            let sections: String = sections.collect();
            let host = format!("[[line]]\nname = \"host-{place}\"\ntcp = \"{host}\"\nbudget_s = 2\n");
            stage.meters_toml.extend([host, sections]);
            honest.push(last["meter"].as_str().unwrap().to_owned());
            attacked_lines.push(line);
        }
        Self { attacked: attacked_lines, honest, is_hostile }
    }

    /// Of all attackers, those who have tampered with nothing.
    fn idle(&self) -> Vec<Attack> {
        let attackers = self.attacked.iter().flat_map(|line| &line.attackers);
        let idle = attackers.filter(|attacker| attacker.struck.load(Ordering::Relaxed) == 0);
        idle.map(|attacker| attacker.attack).collect()
    }
}

/// Each attacked meter is found to be what is played on it, and whoever looks after the gateway is told.
async fn each_is_named(stage: &Stage) {
    for attack in ATTACKS {
        let (state, words) = attack.verdict();
        let is_named = async || {
            let (found, cause) = state_of(stage, &format!("{attack:?}")).await?;
            anyhow::ensure!(found != "ok", "{attack:?} was taken");
            Ok(found == state && cause.contains(words))
        };
        let named = until(&format!("{attack:?} is {state}: {words}"), CATCH_UP_TIMEOUT, is_named).await;
        assert!(named.is_ok(), "{named:?}: {:?}", state_of(stage, &format!("{attack:?}")).await);
        let warned = told(stage, &["WARN", "could not be read", &format!("meter={attack:?}")]).unwrap();
        assert!(!warned.is_empty(), "{attack:?}");
    }
}

/// What was refused is counted, and the gateway has neither died of it nor grown.
async fn is_counted(stage: &Stage) {
    let address = stage.gateway_address();
    let failed = metric(address, "gateway_meter_reads_failed_total").await.unwrap();
    let refused = metric(address, "gateway_protection_errors_total").await.unwrap();
    // A counter that is not believed is no answer that was refused.
    let is_of_protection = |attack: &&Attack| !matches!(attack, Attack::CounterTold | Attack::CounterRefused);
    let refused_min = ATTACKS.iter().filter(is_of_protection).count();
    assert!(failed >= ATTACKS.len() as u64 && refused >= refused_min as u64, "{failed} sessions, {refused} answers");
    assert_eq!(metric(address, "gateway_actor_deaths_total").await.unwrap(), 0);
    let rss_kb = peak_rss_kb(stage).unwrap();
    assert!(rss_kb < RSS_KB_MAX, "{rss_kb} kB");
}

/// Negative controls: take what is protected less than it has to be (`acceptable_level` in `dlms/security/ciphered.rs`); take
/// what was heard before (leave the checks of `received` out of `open` there); take every proof (`on_proof_response`); take what
/// comes in clear (`unprotect`); believe every counter (`BELIEVED_MAX` in `reading/counters.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sits_before_a_secured_meter_gets_nothing_stored_and_the_line_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let kind = format!(
        "meters_per_line = {}\nsecurity = {{ authentication = \"gmac\", suite = 0, policy = \"authenticated-encrypted\" }}\n",
        ATTACKED_PER_LINE + 1
    );
    let count = ATTACKS.len() + LINES;
    let fleet = start_dlms_of(&mut stage, 1, count, "speed = 1200.0\nhistory_days = 0.5", &kind).unwrap();
    let lines = Lines::set_up(&mut stage, &fleet).await;
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    each_is_named(&stage).await;
    assert_eq!(lines.idle(), []);
    stage.freeze_simulator().unwrap();
    let truth = fleet.captured().unwrap();
    let mut of_honest = truth.clone();
    of_honest.retain(|(meter, ..), _| lines.honest.contains(meter));
    assert!(!of_honest.is_empty() && of_honest.len() < truth.len());
    // All of theirs, and nothing else: no value of an attacked meter, nor one that an attacker made up.
    for (name, comparison) in catch_up(&stage, &of_honest).await.unwrap() {
        assert!(comparison.is_clean(), "{name}: {comparison:?}");
    }
    is_counted(&stage).await;
    println!("{} kB at the most", peak_rss_kb(&stage).unwrap());
    // Nobody attacks any more. A gateway that starts anew asks at once whom it would have left alone for minutes.
    lines.is_hostile.store(false, Ordering::Relaxed);
    stage.stop_gateway().unwrap();
    stage.start_gateway().unwrap();
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());
    for attack in ATTACKS {
        let is_well = async || Ok(state_of(&stage, &format!("{attack:?}")).await?.0 == "ok");
        until(&format!("{attack:?} is well again"), CATCH_UP_TIMEOUT, is_well).await.unwrap();
    }
}
