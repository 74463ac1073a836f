//! Does a running gateway follow its settings at SIGHUP, and stop in order at SIGTERM, whatever it is doing?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use demo::proxy::Flow;
use demo::stage::Stage;
use tests::system::{
    CATCH_UP_TIMEOUT, Fleet, everything_arrives, in_the_log, stage, stage_at_mosquitto, start_cad, start_dlms, until,
    until_logged,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

fn id_of(fleet: &Fleet, place: usize) -> String {
    fleet.endpoints[place]["meter"].as_str().unwrap().to_owned()
}

/// How many readings of a meter are in the log.
async fn logged(stage: &Stage, meter: &str) -> usize {
    in_the_log(stage).await.keys().filter(|(of, ..)| of == meter).count()
}

async fn until_more_of(stage: &Stage, meter: &str, count: usize) {
    let before = logged(stage, meter).await;
    let has_more = async || Ok(logged(stage, meter).await >= before + count);
    until(&format!("{count} more readings of {meter}"), CATCH_UP_TIMEOUT, has_more).await.unwrap();
}

/// The names of the meters that the gateway has in its inventory.
async fn known(stage: &Stage) -> BTreeSet<String> {
    let status = stage.gateway_status().await.unwrap();
    let name = |meter: &serde_json::Value| meter["name"].as_str().unwrap().to_owned();
    status["meters"].as_array().unwrap().iter().map(name).collect()
}

fn names(meters: &[&str]) -> BTreeSet<String> {
    meters.iter().map(|meter| meter.replace(':', "-")).collect()
}

/// Writes what the settings are by now, and has them read.
fn reload(stage: &mut Stage, meters_toml: String) {
    stage.meters_toml = meters_toml;
    stage.write_gateway_config(&stage.gateway_toml()).unwrap();
    stage.reload_gateway().unwrap();
}

/// A log event by event: each begins with its date, and may have several lines.
fn events(log: &str) -> Vec<String> {
    let mut events: Vec<String> = Vec::new();
    for line in log.lines() {
        let begins = line.get(..5).is_some_and(|year| year.ends_with('-') && year[..4].parse::<u16>().is_ok());
        match events.last_mut().filter(|_| !begins) {
            Some(event) => *event = format!("{event}\n{line}"),
            None => events.push(line.to_owned()),
        }
    }
    events
}

/// It has been started once, and is still the same process.
fn assert_never_restarted(stage: &Stage, pid: u32) {
    assert_eq!(stage.gateway_pid().unwrap(), pid);
    let log = stage.gateway_log().unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("outbox open")).count(), 1, "{log}");
}

/// Negative control: leave out of `Lines::follow` that a line which is gone is dismissed, and its meter is read for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meters_come_and_go_with_the_settings_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 3, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let [gone, stays, new] = [0, 1, 2].map(|place| id_of(&fleet, place));
    stage.meters_toml = fleet.part(&[0, 1]).toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let pid = stage.gateway_pid().unwrap();
    for meter in [&gone, &stays] {
        until_more_of(&stage, meter, 20).await;
    }
    reload(&mut stage, fleet.part(&[1, 2]).toml().unwrap());
    until("the settings are followed", CATCH_UP_TIMEOUT, async || Ok(known(&stage).await == names(&[&stays, &new])))
        .await
        .unwrap();
    until_more_of(&stage, &new, 20).await;
    // Whatever was under way when it went is over now.
    until_more_of(&stage, &stays, 10).await;
    let before = logged(&stage, &gone).await;
    until_more_of(&stage, &stays, 10).await;
    assert_eq!(logged(&stage, &gone).await, before, "read after it was taken out");
    // Back in, it is read from where it was left.
    reload(&mut stage, fleet.toml().unwrap());
    until_more_of(&stage, &gone, 10).await;
    stage.freeze_simulator().unwrap();
    everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap();
    assert_never_restarted(&stage, pid);
}

/// A host in front of a meter: passes on what they say, and keeps the meter's answers to itself from the `pause_at`-th on
/// while it is told to.
struct Host {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Answers that have come from the meter.
    answers: Arc<AtomicUsize>,
    passes: watch::Sender<bool>,
}

impl Host {
    async fn before(meter: SocketAddr, pause_at: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (passes, is_passing) = watch::channel(false);
        let host = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            answers: Arc::default(),
            passes,
        };
        let (connections, answers) = (host.connections.clone(), host.answers.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (answers, mut is_passing) = (answers.clone(), is_passing.clone());
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_meter, mut to_meter) = TcpStream::connect(meter).await.unwrap().into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_meter).await });
                tokio::spawn(async move {
                    let mut octets = [0; 4096];
                    // Either side hanging up ends it.
                    while let Ok(count @ 1..) = from_meter.read(&mut octets).await {
                        if answers.fetch_add(1, Ordering::Relaxed) + 1 >= pause_at {
                            drop(is_passing.wait_for(|passes| *passes).await);
                        }
                        if to_client.write_all(&octets[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        host
    }
}

/// Negative control: stop the thread of a line that is gone at once in `Lines::follow`, and with it the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meter_that_goes_from_the_settings_in_mid_session_is_read_to_the_end() {
    const IN_MID_SESSION: usize = 12;
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let mut fleet = start_dlms(&mut stage, 1, 2, "history_days = 4.0").unwrap();
    stage.freeze_simulator().unwrap();
    let host = Host::before(fleet.endpoints[0]["address"].as_str().unwrap().parse().unwrap(), IN_MID_SESSION).await;
    fleet.endpoints[0]["address"] = host.address.to_string().into();
    let [goes, comes] = [0, 1].map(|place| id_of(&fleet, place));
    stage.meters_toml = fleet.part(&[0]).toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let pid = stage.gateway_pid().unwrap();
    let is_held = async || Ok(host.answers.load(Ordering::Relaxed) >= IN_MID_SESSION);
    until("a session is under way", CATCH_UP_TIMEOUT, is_held).await.unwrap();
    let sessions = host.connections.load(Ordering::Relaxed);
    reload(&mut stage, fleet.part(&[1]).toml().unwrap());
    until("the settings are followed", CATCH_UP_TIMEOUT, async || Ok(known(&stage).await == names(&[&comes])))
        .await
        .unwrap();
    assert_eq!(host.answers.load(Ordering::Relaxed), IN_MID_SESSION, "the session waits for its answer");
    let captured = fleet.captured().unwrap();
    let of_it = captured.keys().filter(|(meter, ..)| *meter == goes).count();
    assert!(logged(&stage, &goes).await < of_it, "not all of it has been read yet");
    host.passes.send(true).unwrap();
    everything_arrives(&stage, &captured).await.unwrap();
    assert_eq!(host.connections.load(Ordering::Relaxed), sessions, "all of it in the session that was under way");
    let metrics = demo::stage::http_body(stage.gateway_address(), "/metrics").await.unwrap();
    assert!(metrics.contains("\ngateway_meter_reads_failed_total 0\n"), "{metrics}");
    assert_never_restarted(&stage, pid);
}

/// Negative control: send settings on in `reload_on_hang_up` that were read and not checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_with_a_mistake_are_refused_with_one_error_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let [first, second] = [0, 1].map(|place| id_of(&fleet, place));
    let right = fleet.part(&[0]).toml().unwrap();
    stage.meters_toml = right.clone();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let pid = stage.gateway_pid().unwrap();
    until_more_of(&stage, &first, 10).await;
    let both = fleet.toml().unwrap();
    let mistakes = [
        (both.replacen("client = ", "clint = ", 1), "unknown field `clint`"),
        (both.replacen("[[line]]\n", "[[lines]]\n", 1), "unknown field `lines`"),
        (format!("{both}[[meter]]\nname = \"x\"\nline = \"nowhere\"\n"), "nowhere"),
        (both.replacen(&fleet.password, "/nonexistent/password", 1), "/nonexistent/password"),
    ];
    for (count, (toml, named)) in (1..).zip(mistakes) {
        assert_ne!(toml, both);
        reload(&mut stage, toml);
        let errors = || -> Vec<String> {
            events(&stage.gateway_log().unwrap()).into_iter().filter(|event| event.contains(" ERROR ")).collect()
        };
        let is_told = async || Ok(errors().len() >= count);
        until(&format!("an error that names {named}"), CATCH_UP_TIMEOUT, is_told).await.unwrap();
        let errors = errors();
        let error = errors.last().unwrap();
        assert!(errors.len() == count && error.contains("stay as they were") && error.contains(named), "{errors:?}");
        assert_eq!(known(&stage).await, names(&[&first]));
    }
    until_more_of(&stage, &first, 10).await;
    assert_eq!(logged(&stage, &second).await, 0);
    // A mistake that is mended is forgotten.
    reload(&mut stage, both);
    until_more_of(&stage, &second, 10).await;
    stage.freeze_simulator().unwrap();
    everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap();
    assert_never_restarted(&stage, pid);
}

/// Negative control: leave a section out of `Checked::waits_for_a_start`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_a_restart_is_named_and_the_rest_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let [first, second] = [0, 1].map(|place| id_of(&fleet, place));
    stage.meters_toml = fleet.part(&[0]).toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_more_of(&stage, &first, 10).await;
    stage.meters_toml = fleet.toml().unwrap();
    let toml = stage.gateway_toml();
    let elsewhere = toml
        .replace("id = \"demo-gateway\"", "id = \"another\"")
        .replace("commit_delay_ms = 20", "commit_delay_ms = 21")
        .replace("keep_alive_s = 5", "keep_alive_s = 6")
        .replace("seal_age_ms = 500", "seal_age_ms = 501")
        .replace(&format!("listen = \"{}\"", stage.gateway_address()), "listen = \"127.0.0.1:1\"");
    stage.write_gateway_config(&format!("{elsewhere}[[feed]]\nname = \"new\"\n")).unwrap();
    stage.reload_gateway().unwrap();
    until_more_of(&stage, &second, 10).await;
    let warned = || -> Vec<String> {
        let log = stage.gateway_log().unwrap();
        let warned = log.lines().filter(|line| line.contains("WARN") && line.contains("takes a restart"));
        warned.filter_map(|line| line.split('"').nth(1).map(str::to_owned)).collect()
    };
    assert_eq!(warned(), ["[gateway]", "[outbox]", "[broker]", "[cloud]", "[http]", "[[feed]]"]);
    let status = stage.gateway_status().await.unwrap();
    assert_eq!((&status["gateway"], &status["connected"]), (&"demo-gateway".into(), &true.into()), "as at its start");
    // As at the start again: nothing to tell.
    stage.write_gateway_config(&toml).unwrap();
    stage.reload_gateway().unwrap();
    let followed = || stage.gateway_log().unwrap().matches("are as in the settings").count();
    until("the settings are followed", CATCH_UP_TIMEOUT, async || Ok(followed() == 2)).await.unwrap();
    assert_eq!(warned().len(), 6);
}

/// `stop_gateway` fails when the gateway takes more than its 5 s, or ends with another code than 0.
///
/// Negative control: go on in `run_reloading` until nothing is left in the outbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_reads_and_uploads_stops_in_time_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut stage, _broker) = stage_at_mosquitto(folder.path()).await.unwrap();
    let meters = start_dlms(&mut stage, 1, 4, "speed = 3000.0\nhistory_days = 2.0").unwrap();
    let feed = format!("[[feed]]\nname = \"cad\"\nport = {}\n", stage.broker_port());
    stage.meters_toml = format!("{feed}{}", meters.toml().unwrap());
    stage.start_cloud().unwrap();
    // From its first subscription on, the broker keeps what is pushed while the gateway is stopped.
    stage.start_gateway().unwrap();
    until_logged(&stage, 50).await.unwrap();
    let pushed = start_cad(&mut stage, 101, 20).unwrap();
    let flows =
        [(Flow::Up, Flow::Up), (Flow::Up, Flow::Stalled), (Flow::Stalled, Flow::Stalled), (Flow::Down, Flow::Down)];
    for (broker, upload) in flows {
        let before = in_the_log(&stage).await.len();
        until_logged(&stage, before + 100).await.unwrap();
        stage.set_broker_flow(broker);
        stage.set_upload_flow(upload);
        let stored = async || {
            let outbox = &stage.gateway_status().await?["outbox"];
            Ok(outbox["rows_unsealed"].as_u64() >= Some(1) || outbox["batches_unsettled"].as_u64() >= Some(1))
        };
        until("something is on its way", CATCH_UP_TIMEOUT, stored).await.unwrap();
        stage.stop_gateway().unwrap();
        stage.set_uplink(true);
        stage.start_gateway().unwrap();
    }
    stage.stop_last_simulator().unwrap();
    stage.freeze_simulator().unwrap();
    let mut truth = meters.captured().unwrap();
    truth.extend(pushed.captured().unwrap());
    everything_arrives(&stage, &truth).await.unwrap();
    stage.stop_gateway().unwrap();
}
