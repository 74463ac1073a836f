//! Fleets that keep a gateway busy: is every entry of every profile read, how late, and what does it take?

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what went wrong by panicking, and what it measured"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use demo::meters::meter_toml;
use demo::sinks::log_records;
use demo::stage::{Stage, wall_ms};
use demo::verdict::read_truth;
use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, in_the_log, metric, stage, until};

/// Entries that are there at the start.
const HISTORY: u32 = 24;

fn asked(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// Meters whose profile has an entry each `period_s`, read as often.
struct Load {
    period_s: u32,
    /// For so long.
    periods: u32,
}

/// What a run came to.
struct Kept {
    readings: usize,
    /// Behind the instant of its capture.
    worst_ms: i64,
    took_ms: i64,
    /// All lines together.
    busy_ms: u64,
}

impl Load {
    /// What the simulator's groups have in common, but for their security.
    fn meters(&self, count: u32, password: &str) -> String {
        format!(
            "[[meters]]\ncount = {count}\npassword_file = \"{password}\"\nprofile = {{ capture_period_s = {}, columns = \
             [\"import-register\", \"import-interval\"], daily_depth_entries = 0, monthly_depth_entries = 0 }}\n",
            self.period_s
        )
    }

    fn reads(&self) -> String {
        format!(
            "[[meter.read]]\nsource = \"profile\"\nprofile = \"1-0:99.1.0\"\nevery_s = {}\nkinds = {{ \"1-0:1.29.0\" = \"interval\" }}\n",
            self.period_s
        )
    }

    /// Starts the simulator, whose `groups` are these, then everything else; `toml` makes the gateway's sections of the simulator's lines.
    async fn run(&self, stage: &mut Stage, groups: &str, toml: impl FnOnce(&Stage) -> String) -> Kept {
        let (truth, config) = (stage.folder().join("truth.jsonl"), stage.folder().join("fleet.toml"));
        let history_days = f64::from(HISTORY * self.period_s) / 86_400.0;
        let settings =
            format!("seed = 1\nspeed = 1.0\nhistory_days = {history_days:.6}\ntruth = \"{}\"\n", truth.display());
        std::fs::write(&config, settings + groups).unwrap();
        stage.start_simulator(&["fleet", "--config", &config.display().to_string(), "--json"]).unwrap();
        stage.meters_toml = toml(stage);
        let meters = stage.meters_toml.matches("[[meter]]").count();
        stage.start_cloud().unwrap();
        stage.start_gateway().unwrap();
        let logged = async |count: usize, seconds: u32| {
            let what = format!("{count} readings in the log");
            until(&what, Duration::from_secs(seconds.into()), async || Ok(in_the_log(stage).await.len() >= count)).await
        };
        let at_the_start = read_truth(&truth).unwrap().len();
        assert!(at_the_start >= 2 * meters * (HISTORY as usize - 1), "{at_the_start}");
        logged(at_the_start, 400).await.unwrap();

        let busy = async || metric(stage.gateway_address(), "gateway_line_busy_milliseconds_total").await.unwrap();
        let (since, busy_before) = (wall_ms(), busy().await);
        tokio::time::sleep(Duration::from_secs(u64::from(self.period_s) * u64::from(self.periods))).await;
        let (took_ms, busy_ms) = (wall_ms() - since, busy().await - busy_before);
        stage.freeze_simulator().unwrap();
        let truth = read_truth(&truth).unwrap();
        // The last may have been captured just behind a read.
        logged(truth.len(), 120 + self.period_s).await.unwrap();
        println!("{}", everything_arrives(stage, &truth).await.unwrap());

        let mut delays: BTreeMap<i64, usize> = BTreeMap::new();
        for record in log_records(&stage.sources().await.unwrap()).await.unwrap() {
            let reading = record.reading;
            if reading.captured_at.0 > since {
                *delays.entry(reading.read_at.since(reading.captured_at)).or_default() += 1;
            }
        }
        let (readings, worst_ms) = (delays.values().sum(), delays.keys().last().copied().unwrap_or_default());
        assert!(readings >= 2 * meters * (self.periods as usize - 1), "{readings} readings of {meters} meters");
        Kept { readings, worst_ms, took_ms, busy_ms }
    }
}

/// By default four meters at 9,600 baud, with an entry every 30 s, for two minutes. `METERPOST_LINES`, `METERPOST_LINE_METERS` (a
/// line), `METERPOST_LINE_PERIOD_S` and `METERPOST_LINE_PERIODS` ask for more; so does `tests/soak lines`.
///
/// Negative control: let the simulator's line lose octets beyond what HDLC repeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_entry_of_meters_on_slow_lines_is_read() {
    const BAUD: u32 = 9_600;
    let (lines, per_line) = (asked("METERPOST_LINES", 1), asked("METERPOST_LINE_METERS", 4));
    let load = Load { period_s: asked("METERPOST_LINE_PERIOD_S", 30), periods: asked("METERPOST_LINE_PERIODS", 4) };
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let password = folder.path().join("password").display().to_string();
    std::fs::write(&password, "reader").unwrap();
    let path = |line: u32| folder.path().join(format!("line-{line}")).display().to_string();
    let group = |line| {
        let medium = format!(
            "protocol = \"dlms-hdlc\"\nline = \"pty\"\npath = \"{}\"\nbaud = {BAUD}\npace = true\n",
            path(line)
        );
        load.meters(per_line, &password) + &medium
    };
    let groups: String = (0..lines).map(group).collect();
    let toml = |stage: &Stage| {
        let mut toml = String::new();
        for line in 0..lines {
            write!(toml, "[[line]]\nname = \"rs485-{line}\"\nserial = \"{}\"\nbaud = {BAUD}\n", path(line)).unwrap();
            for _ in 0..per_line {
                let endpoint = stage.simulator_line(CATCH_UP_TIMEOUT).unwrap();
                let section = meter_toml(&endpoint, &password, &load.reads()).unwrap();
                toml += &section.replace("\"rs485\"", &format!("\"rs485-{line}\""));
            }
        }
        toml
    };
    let Kept { readings, worst_ms, took_ms, busy_ms } = load.run(&mut stage, &groups, toml).await;
    println!(
        "{} meters on {lines} lines of {BAUD} baud, {} periods of {} s: {readings} readings, the worst {worst_ms} ms after its instant, \
         lines busy {:.1} %",
        lines * per_line,
        load.periods,
        load.period_s,
        100.0 * busy_ms as f64 / (took_ms * i64::from(lines)) as f64
    );
}

/// High level security by keys, everything authenticated and encrypted, each meter behind an address of its own.
///
/// Negative control: reserve one counter at a time, and let the store of that fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_secured_meters_are_read_every_ten_seconds() {
    let load = Load { period_s: 10, periods: 6 };
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let password = folder.path().join("password").display().to_string();
    std::fs::write(&password, "reader").unwrap();
    let meters = asked("METERPOST_SECURED_METERS", 200);
    let security = "protocol = \"dlms-tcp\"\n[meters.security]\n";
    let groups = load.meters(meters, &password).replace(&format!("password_file = \"{password}\"\n"), "") + security;
    let toml = |stage: &Stage| {
        let endpoints = (0..meters).map(|_| stage.simulator_line(CATCH_UP_TIMEOUT).unwrap());
        endpoints.map(|endpoint| meter_toml(&endpoint, &password, &load.reads()).unwrap()).collect()
    };
    let Kept { readings, worst_ms, took_ms, busy_ms } = load.run(&mut stage, &groups, toml).await;
    println!(
        "{meters} secured meters over TCP, {} periods of {} s: {readings} readings, the worst {worst_ms} ms after its instant, a line busy \
         {:.1} %",
        load.periods,
        load.period_s,
        100.0 * busy_ms as f64 / (took_ms * i64::from(meters)) as f64
    );
}
