//! Meters that share a slow line: is every entry of every profile read, and how late, and how much of the line does it take?
//!
//! By default four meters at 9,600 baud, with an entry every 30 s, for two minutes. `METERPOST_LINES`, `METERPOST_LINE_METERS` (a
//! line), `METERPOST_LINE_PERIOD_S` and `METERPOST_LINE_PERIODS` ask for more; so does `tests/soak lines`.

use std::collections::BTreeMap;
use std::time::Duration;

use demo::meters::meter_toml;
use demo::sinks::log_records;
use demo::stage::wall_ms;
use demo::verdict::read_truth;
use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, in_the_log, metric, stage, until};

const BAUD: u32 = 9_600;
/// Entries that are there at the start.
const HISTORY: u32 = 24;

fn asked(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// Negative control: let the simulator's line lose octets, and entries are missing; only what is complete passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_entry_of_meters_on_a_slow_line_is_read() {
    let (lines, per_line) = (asked("METERPOST_LINES", 1), asked("METERPOST_LINE_METERS", 4));
    let (period_s, periods) = (asked("METERPOST_LINE_PERIOD_S", 30), asked("METERPOST_LINE_PERIODS", 4));
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let password = folder.path().join("password").display().to_string();
    std::fs::write(&password, "reader").unwrap();
    let (truth, config) = (folder.path().join("truth.jsonl"), folder.path().join("fleet.toml"));
    let paths: Vec<String> =
        (0..lines).map(|line| folder.path().join(format!("line-{line}")).display().to_string()).collect();
    let groups = paths.iter().map(|path| {
        format!(
            "[[meters]]\ncount = {per_line}\nprotocol = \"dlms-hdlc\"\nline = \"pty\"\npath = \"{path}\"\nbaud = {BAUD}\npace = true\n\
             password_file = \"{password}\"\nprofile = {{ capture_period_s = {period_s}, columns = [\"import-register\", \
             \"import-interval\"], daily_depth_entries = 0, monthly_depth_entries = 0 }}\n"
        )
    });
    let history_days = f64::from(HISTORY * period_s) / 86_400.0;
    let settings =
        format!("seed = 1\nspeed = 1.0\nhistory_days = {history_days:.6}\ntruth = \"{}\"\n", truth.display());
    std::fs::write(&config, settings + &groups.collect::<String>()).unwrap();
    stage.start_simulator(&["fleet", "--config", &config.display().to_string(), "--json"]).unwrap();
    let reads = format!(
        "[[meter.read]]\nsource = \"profile\"\nprofile = \"1-0:99.1.0\"\nevery_s = {period_s}\nkinds = {{ \"1-0:1.29.0\" = \"interval\" }}\n"
    );
    for (line, path) in paths.iter().enumerate() {
        stage.meters_toml.push_str(&format!("[[line]]\nname = \"rs485-{line}\"\nserial = \"{path}\"\nbaud = {BAUD}\n"));
        for _ in 0..per_line {
            let endpoint = stage.simulator_line(CATCH_UP_TIMEOUT).unwrap();
            let section = meter_toml(&endpoint, &password, &reads).unwrap();
            stage.meters_toml.push_str(&section.replace("\"rs485\"", &format!("\"rs485-{line}\"")));
        }
    }
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let meters = (lines * per_line) as usize;
    let at_the_start = read_truth(&truth).unwrap().len();
    assert!(at_the_start >= 2 * meters * (HISTORY as usize - 1), "{at_the_start}");
    let logged = async |count: usize, seconds: u32| {
        let what = format!("{count} readings in the log");
        until(&what, Duration::from_secs(seconds.into()), async || Ok(in_the_log(&stage).await.len() >= count)).await
    };
    logged(at_the_start, 60 + 10 * per_line).await.unwrap();

    let busy = async || metric(stage.gateway_address(), "gateway_line_busy_milliseconds_total").await.unwrap();
    let (since, busy_before) = (wall_ms(), busy().await);
    tokio::time::sleep(Duration::from_secs(u64::from(period_s) * u64::from(periods))).await;
    let (took, busy_ms) = (wall_ms() - since, busy().await - busy_before);
    stage.freeze_simulator().unwrap();
    let truth = read_truth(&truth).unwrap();
    // The last may have been captured just behind a read.
    logged(truth.len(), 120 + period_s).await.unwrap();
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());

    let mut delays: BTreeMap<i64, usize> = BTreeMap::new();
    for record in log_records(&stage.sources().await.unwrap()).await.unwrap() {
        let reading = record.reading;
        if reading.captured_at.0 > since {
            *delays.entry(reading.read_at.since(reading.captured_at)).or_default() += 1;
        }
    }
    let (count, worst) = (delays.values().sum::<usize>(), delays.keys().last().copied().unwrap_or_default());
    assert!(count >= 2 * meters * (periods as usize - 1), "{count} readings of {meters} meters");
    println!(
        "{meters} meters on {lines} lines of {BAUD} baud, an entry every {period_s} s, {periods} periods: {count} readings, the worst {worst} ms \
         after its instant, lines busy {:.1} %",
        100.0 * busy_ms as f64 / (took * i64::from(lines)) as f64
    );
}
