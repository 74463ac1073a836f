//! Do ports of SML, D0, DLMS and ciphered P1 that say nonsense, without end, of lying lengths, forged, recorded or in clear go on as soon
//! as they say something good?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod attacks;
mod framing;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use demo::sinks::{self, Sink};
use demo::stage::Stage;
use demo::verdict::compare;
use serde_json::Value;
use tests::hostile::{RSS_KB_MAX, listen, peak_rss_kb, state_of, told};
use tests::system::{
    CATCH_UP_TIMEOUT, Fleet, Truth, everything_arrives, metric, stage, start_dlms, start_groups, until, until_logged,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use self::attacks::{Attacker, Bad, Counts};
use self::framing::Framing;

const BAD_EVERY: Duration = Duration::from_millis(50);
/// Longer than a telegram may pause: what was begun before it goes on nowhere.
const GAP: Duration = Duration::from_millis(1_200);
/// Good telegrams of each port that are to come through among the bad ones.
const GOOD_MIN: u64 = 6;

/// What a port does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nonsense of all kinds, then what is refused again and again, and nothing else.
    Hostile,
    /// What the real meter says, each telegram among bad ones.
    Mixed,
}

/// A port before which somebody sits.
struct Port {
    attacker: Attacker,
    real: SocketAddr,
    counts: Arc<Counts>,
}

impl Port {
    async fn say(&self, client: &mut TcpStream, bad: &Bad) -> std::io::Result<()> {
        for _ in 0..bad.times {
            client.write_all(&bad.octets).await?;
        }
        if bad.is_unfinished {
            tokio::time::sleep(GAP).await;
        }
        self.counts.add(bad.verdict);
        Ok(())
    }

    async fn serve(&self, mut client: TcpStream, mut phase: watch::Receiver<Phase>) -> std::io::Result<()> {
        for bad in self.attacker.nonsense() {
            self.say(&mut client, &bad).await?;
        }
        let refused = self.attacker.refused();
        while *phase.borrow_and_update() == Phase::Hostile {
            self.say(&mut client, &refused).await?;
            // Whoever is told to stop does so at once.
            drop(tokio::time::timeout(BAD_EVERY, phase.changed()).await);
        }
        // From here on telegrams count: the simulator captures nothing while nobody is connected.
        let mut meter = TcpStream::connect(self.real).await?;
        let (mut heard, mut octets, mut first) = (Vec::new(), [0; 4096], None);
        loop {
            match meter.read(&mut octets).await? {
                // The simulator was stopped: silence, until the gateway hangs up.
                0 => return client.read(&mut octets).await.map(|_| ()),
                count => heard.extend(&octets[..count]),
            }
            while let Some(used) = self.attacker.framing.telegram_in(&heard) {
                let telegram: Vec<u8> = heard.drain(..used).collect();
                for bad in self.attacker.before(&telegram) {
                    self.say(&mut client, &bad).await?;
                }
                client.write_all(&telegram).await?;
                let recorded = first.get_or_insert_with(|| telegram.clone());
                for bad in self.attacker.after(recorded) {
                    self.say(&mut client, &bad).await?;
                }
            }
        }
    }
}

/// A key in a file that nobody else may read.
fn key_file(stage: &Stage, name: &str, digits: &str) -> String {
    let path = stage.folder().join(name);
    std::fs::write(&path, digits).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// The gateway's section for a port at this address; keys are those of the meter.
fn section(stage: &Stage, framing: Framing, address: SocketAddr, endpoint: &Value) -> String {
    let name = framing.name();
    let key = |what: &str| {
        let digits = endpoint[what].as_str()?;
        Some(format!("{what}_file = \"{}\"\n", key_file(stage, &format!("{name}.{what}"), digits)))
    };
    let keys = ["encryption_key", "authentication_key"].into_iter().filter_map(key).collect::<String>();
    let title = endpoint["system_title"].as_str().map(|title| format!("system_title = \"{title}\"\n"));
    format!(
        "[[port]]\nname = \"{name}\"\ntcp = \"{address}\"\n{}every_s = 1\nregisters_every_s = 1\nclock_check = \"off\"\n\
         silent_after_s = 5\n{keys}{}",
        framing.settings(),
        title.unwrap_or_default()
    )
}

/// Starts cloud and gateway, with an attacker before each meter of the fleet, and others that are read meanwhile.
async fn start(stage: &mut Stage, framings: &[Framing], fleet: &Fleet, others: &Fleet) -> Attacked {
    let (set_phase, phase) = watch::channel(Phase::Hostile);
    let counts = Arc::new(Counts::default());
    stage.meters_toml = others.toml().unwrap();
    for (framing, endpoint) in framings.iter().zip(&fleet.endpoints) {
        let real = endpoint["address"].as_str().unwrap().parse().unwrap();
        let attacker = Attacker::new(*framing, endpoint);
        let port = Arc::new(Port { attacker, real, counts: counts.clone() });
        let phase = phase.clone();
        let address = listen(move |client| {
            let (port, phase) = (port.clone(), phase.clone());
            async move { port.serve(client, phase).await }
        });
        let section = section(stage, *framing, address.await.unwrap(), endpoint);
        stage.meters_toml.push_str(&section);
    }
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    Attacked { set_phase, counts }
}

struct Attacked {
    set_phase: watch::Sender<Phase>,
    counts: Arc<Counts>,
}

/// While nothing but nonsense comes: each port says so, and why, and the others are read.
async fn is_told(stage: &Stage, framings: &[Framing]) {
    until_logged(stage, 100).await.unwrap();
    for framing in framings {
        let (state, words) = framing.verdict();
        let is_named = async || {
            let (found, cause) = state_of(stage, framing.name()).await?;
            Ok(found == state && cause.contains(words))
        };
        let named = until(&format!("{} is {state}: {words}", framing.name()), CATCH_UP_TIMEOUT, is_named).await;
        assert!(named.is_ok(), "{named:?}: {:?}", state_of(stage, framing.name()).await);
    }
    assert_eq!(metric(stage.gateway_address(), "gateway_telegrams_total").await.unwrap(), 0);
}

/// Until good telegrams have come through at each port; then the meters are stopped.
async fn is_well(stage: &mut Stage, framings: &[Framing], attacked: &Attacked) {
    attacked.set_phase.send(Phase::Mixed).unwrap();
    for framing in framings {
        let is_well = async || Ok(state_of(stage, framing.name()).await? == ("ok".to_owned(), String::new()));
        until(&format!("{} is well again", framing.name()), CATCH_UP_TIMEOUT, is_well).await.unwrap();
    }
    let address = stage.gateway_address();
    let good = GOOD_MIN * framings.len() as u64;
    let is_read = async || Ok(metric(address, "gateway_telegrams_total").await? >= good);
    until("good telegrams among the bad ones", CATCH_UP_TIMEOUT, is_read).await.unwrap();
    stage.stop_last_simulator().unwrap();
    stage.freeze_simulator().unwrap();
}

/// All that was refused is counted by its kind, is told once and not each time, and took no memory.
async fn is_counted(stage: &Stage, framings: &[Framing], attacked: &Attacked) {
    let address = stage.gateway_address();
    for (name, sent) in attacked.counts.by_metric() {
        let counted = metric(address, name).await.unwrap();
        assert!(counted >= sent, "{name}: {counted} of {sent}");
    }
    assert_eq!(metric(address, "gateway_actor_deaths_total").await.unwrap(), 0);
    let rss_kb = peak_rss_kb(stage).unwrap();
    assert!(rss_kb < RSS_KB_MAX, "{rss_kb} kB");
    for framing in framings {
        let warned = told(stage, &["WARN", &format!("port={} ", framing.name())]).unwrap();
        assert!(!warned.is_empty() && warned.len() < 12, "{warned:#?}");
        assert!(warned.iter().all(|line| line.contains("hint=")), "{warned:#?}");
    }
}

/// Negative controls: keep octets without end (`too_long` in `sml/transport.rs`, `PUSH_LEN_MAX` in `iec62056_21/push.rs`); take what
/// has a wrong CRC (`judge` in `sml/crc.rs`, `into_block` in `iec62056_21/push.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_ports_of_sml_and_d0_are_named_and_their_good_telegrams_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let others = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let framings = [Framing::Sml, Framing::D0];
    let groups = framings.map(Framing::group).concat();
    let fleet = start_groups(&mut stage, 101, framings.len(), "", &groups).unwrap();
    let attacked = start(&mut stage, &framings, &fleet, &others).await;
    is_told(&stage, &framings).await;
    is_well(&mut stage, &framings, &attacked).await;
    // D0 has no time of its own that a reader goes by: in the truth it has the meter's, in the log that of its arrival.
    let apart = fleet.endpoints[1]["meter"].as_str().unwrap();
    let (pushed, mut truth): (Truth, Truth) =
        fleet.captured().unwrap().into_iter().partition(|((meter, ..), _)| meter == apart);
    truth.extend(others.captured().unwrap());
    for (name, sink) in arrive_beside(&stage, &truth, apart, instants(pushed.keys()).len()).await {
        let known: BTreeSet<_> = pushed.iter().map(|((_, code, ..), captured)| (code, &captured.value)).collect();
        let stored: BTreeSet<_> = sink.iter().map(|((_, code, ..), value)| (code, value)).collect();
        assert!(stored.is_subset(&known), "{name}: {:?}", stored.difference(&known).next());
        let codes =
            |all: &BTreeSet<(&String, &String)>| all.iter().map(|(code, _)| (*code).clone()).collect::<BTreeSet<_>>();
        assert_eq!(codes(&stored), codes(&known), "{name}");
    }
    is_counted(&stage, &framings, &attacked).await;
    println!("{:?}, {} kB at the most", attacked.counts, peak_rss_kb(&stage).unwrap());
}

/// When readings were captured.
fn instants<'a>(identities: impl Iterator<Item = &'a demo::verdict::Identity>) -> BTreeSet<&'a str> {
    identities.map(|(.., captured_at, _)| captured_at.as_str()).collect()
}

/// Waits until log, store and archive hold all of `truth` and nothing else but readings of the meter `apart`, of nearly so many
/// instants: what arrives twice within one second is stored once. Gives those.
async fn arrive_beside(stage: &Stage, truth: &Truth, apart: &str, telegrams: usize) -> [(&'static str, Sink); 3] {
    let read = async || {
        let sources = stage.sources().await.unwrap();
        sinks::read_sources(&sources).await.unwrap().map(|(name, sink)| {
            let (of_apart, rest): (Sink, Sink) = sink.into_iter().partition(|((meter, ..), _)| meter == apart);
            (name, of_apart, rest)
        })
    };
    let has_arrived = async || {
        let all = read().await;
        let is_there = |(_, of_apart, rest): &(&str, Sink, Sink)| {
            compare(truth, rest, &[]).is_clean() && instants(of_apart.keys()).len() + 2 >= telegrams
        };
        Ok(all.iter().all(is_there))
    };
    until("everything has arrived", CATCH_UP_TIMEOUT, has_arrived).await.unwrap();
    read().await.map(|(name, of_apart, rest)| {
        let comparison = compare(truth, &rest, &[]);
        assert!(comparison.is_clean(), "{name}: {comparison:?}");
        assert!(instants(of_apart.keys()).len() <= telegrams, "{name}: more than was pushed");
        (name, of_apart)
    })
}

/// Negative controls: keep all flags of a line that idles with them, and say nothing of pushes without end (`hdlc` in
/// `push/dlms.rs`), seen to fail with both; take pushes in clear (`acceptable` in `dlms/security/push.rs`), recorded ones (`received.check` there), or
/// whatever the tag (`open` in `dlms/security/content.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_ports_of_sealed_pushes_are_named_and_their_good_telegrams_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let others = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let framings = [Framing::Hdlc, Framing::Mbus, Framing::P1];
    let groups = framings.map(Framing::group).concat();
    let fleet = start_groups(&mut stage, 101, framings.len(), "", &groups).unwrap();
    let attacked = start(&mut stage, &framings, &fleet, &others).await;
    is_told(&stage, &framings).await;
    is_well(&mut stage, &framings, &attacked).await;
    let mut truth = others.captured().unwrap();
    truth.extend(fleet.captured().unwrap());
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());
    is_counted(&stage, &framings, &attacked).await;
    println!("{:?}, {} kB at the most", attacked.counts, peak_rss_kb(&stage).unwrap());
}
