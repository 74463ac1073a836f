//! Do the commands of the gateway say what is so, and leave it as it is?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use demo::stage::{Stage, http_answer};
use demo::verdict::Identity;
use rusqlite::Connection;
use serde_json::{Value, json};
use tests::outbox_file::{
    HELD, HELD_METER, INCARNATION, METER, OWNER, REASON, REFUSED, UNSEALED, UNSETTLED, files, filled, open, path_in,
    reading, store, tables,
};
use tests::system::{
    CATCH_UP_TIMEOUT, Truth, binaries, command, everything_arrives, in_the_log, outbox, stage, start_cad, start_dlms,
    until, until_logged,
};

const DONE: Option<i32> = Some(0);
const IS_THE_USERS: Option<i32> = Some(1);

/// A stage on which nothing runs; its settings are written.
async fn still_stage(folder: &Path) -> Stage {
    let stage = Stage::new(folder, binaries().unwrap()).await.unwrap();
    stage.write_gateway_config(&stage.gateway_toml()).unwrap();
    stage
}

/// The output of a command that is to go well.
fn done(stage: &Stage, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = command(stage, arguments).unwrap();
    assert_eq!((code, stderr.as_str()), (DONE, ""), "{arguments:?}");
    stdout
}

/// The message of a command that is to fail.
fn failed(stage: &Stage, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = command(stage, arguments).unwrap();
    assert_eq!((code, stdout.as_str()), (IS_THE_USERS, ""), "{arguments:?}: {stderr}");
    stderr
}

fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| line.parse().unwrap()).collect()
}

fn batch(seq: u64) -> String {
    format!("{INCARNATION:016x}/{seq}")
}

// ----------------------------------------------------------------------------------------------------------------------------
// The outbox of a stopped gateway.

/// Negative control: count held rows among those not sealed in `Outbox::usage`.
#[tokio::test]
async fn inspect_counts_what_was_put_in() {
    let folder = tempfile::tempdir().unwrap();
    let stage = still_stage(folder.path()).await;
    filled(&stage.gateway_folder()).unwrap();
    let all: Value = done(&stage, &["outbox", "inspect", "--json"]).parse().unwrap();
    let usage = |key: &str| all["usage"][key].as_i64().unwrap();
    let counted =
        ["rows_unsealed", "rows_held", "batches_unsettled", "batches_refused", "repeated", "dropped"].map(usage);
    assert_eq!(counted, [UNSEALED, HELD, 1, 1, 1, 0]);
    let batches: Vec<_> = all["batches"].as_array().unwrap().iter().collect();
    let told = |at: usize| json!([batches[at]["batch"], batches[at]["readings"], batches[at]["refused"]]);
    assert_eq!(told(0), json!([batch(2), UNSETTLED, null]));
    assert_eq!(told(1), json!([batch(1), REFUSED, REASON]));
    assert_eq!((batches.len(), &all["held"]), (2, &json!({ HELD_METER: HELD })));

    let text = done(&stage, &["outbox", "inspect"]);
    let sealed_at = |at: usize| batches[at]["sealed_at"].as_str().unwrap();
    let used = usage("used_bytes");
    let expected = [
        format!("rows not sealed   {UNSEALED}"),
        format!("rows held         {HELD}"),
        format!("bytes in use      {used} of 536870912 (free)"),
        "repeated, dropped 1, 0".to_owned(),
        "refused, gone     0".to_owned(),
        format!("held        {HELD_METER}  {HELD} rows, for `outbox accept {HELD_METER}`"),
        format!("on its way  {}  {UNSETTLED} readings, sealed {}", batch(2), sealed_at(0)),
        format!("refused     {}  {REFUSED} readings: {REASON}", batch(1)),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

/// Negative control: leave the rows of refused batches out of `Outbox::export`.
#[tokio::test]
async fn export_writes_every_row_that_is_not_receipted() {
    let folder = tempfile::tempdir().unwrap();
    let stage = still_stage(folder.path()).await;
    filled(&stage.gateway_folder()).unwrap();
    let of = |meter: &'static str, count: i64| (0..count).map(move |number| (meter, number));
    let rows = of(METER, REFUSED + UNSETTLED + UNSEALED).chain(of(HELD_METER, HELD));
    let expected = (1..).zip(rows).map(|(row, (meter, number))| {
        json!({
            "row": row, "meter": meter, "code": "1-0:1.8.0", "kind": "register", "period_s": 0,
            "captured_at": reading(meter, number).unwrap().captured_at.to_string(), "nth": 0, "value": number.to_string(),
            "unit": "Wh", "quality": "good", "held": meter == HELD_METER, "intact": true,
        })
    });
    assert_eq!(objects(&done(&stage, &["outbox", "export"])), expected.collect::<Vec<_>>());
}

/// Negative control: leave the checksum of rows out of `Outbox::verify`.
#[tokio::test]
async fn verify_finds_the_row_and_the_payload_that_are_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let stage = still_stage(folder.path()).await;
    filled(&stage.gateway_folder()).unwrap();
    let rows = REFUSED + UNSETTLED + UNSEALED + HELD;
    assert_eq!(done(&stage, &["outbox", "verify"]), format!("2 batches and {rows} rows checked, 0 damaged\n"));
    let outbox = Connection::open(path_in(&stage.gateway_folder())).unwrap();
    outbox.execute("UPDATE rows SET mantissa = 4711 WHERE id = 3", []).unwrap();
    outbox.execute("UPDATE batches SET payload = zeroblob(length(payload)) WHERE seq = 2", []).unwrap();
    drop(outbox);
    let (code, stdout, stderr) = command(&stage, &["outbox", "verify"]).unwrap();
    assert_eq!((code, stderr.as_str()), (IS_THE_USERS, ""));
    let lines: Vec<_> = stdout.lines().collect();
    let [payload, row, sum] = lines.as_slice() else { panic!("{stdout}") };
    assert!(payload.starts_with("batch ") && payload.ends_with("the payload does not match its hash"), "{payload}");
    assert_eq!(*row, "row 3: its checksum is wrong");
    assert_eq!(*sum, format!("2 batches and {rows} rows checked, 2 damaged"));
    let intact = |row: &Value| row["intact"].as_bool().unwrap();
    let damaged: Vec<_> =
        objects(&done(&stage, &["outbox", "export"])).into_iter().filter(|row| !intact(row)).collect();
    assert_eq!(damaged.iter().map(|row| &row["row"]).collect::<Vec<_>>(), [&json!(3)]);
}

const LOOKS: [&[&str]; 4] =
    [&["outbox", "inspect"], &["outbox", "inspect", "--json"], &["outbox", "verify"], &["outbox", "export"]];

/// Whether it was closed in order or its process was killed, which leaves a part of it in the WAL.
///
/// Negative controls: open with `Outbox::open` in `commands::look_into`; let the connection write the WAL back when it is closed.
#[tokio::test]
async fn looking_into_an_outbox_changes_no_octet_of_it() {
    for is_killed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let stage = still_stage(folder.path()).await;
        let data = stage.gateway_folder();
        if is_killed {
            let alive = folder.path().join("alive");
            std::fs::create_dir(&alive).unwrap();
            filled(&alive).unwrap();
            let mut outbox = open(&alive, OWNER).unwrap();
            store(&mut outbox, METER, 100, 110).unwrap();
            for name in ["outbox.db", "outbox.db-wal"] {
                std::fs::copy(alive.join(name), data.join(name)).unwrap();
            }
        } else {
            filled(&data).unwrap();
        }
        let before = files(&data).unwrap();
        assert_eq!(before.keys().any(|name| name.ends_with("-wal")), is_killed);
        for look in LOOKS {
            done(&stage, look);
            assert!(files(&data).unwrap() == before, "{look:?} has changed {:?}", files(&data).unwrap().keys());
        }
        let rows = REFUSED + UNSETTLED + UNSEALED + HELD + if is_killed { 10 } else { 0 };
        assert_eq!(done(&stage, &["outbox", "export"]).lines().count() as i64, rows);
    }
}

/// Negative control: leave `refused IS NOT NULL` out of `Outbox::resubmit`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_batch_that_is_submitted_again_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    stage.write_gateway_config(&stage.gateway_toml()).unwrap();
    filled(&stage.gateway_folder()).unwrap();
    let before = tables(&stage.gateway_folder()).unwrap();
    let hint = "hint: give it as `outbox inspect` prints it, like 00c0ffee00c0ffee/17";
    for no_batch in ["17", "x/1", "1/x"] {
        let stderr = failed(&stage, &["outbox", "resubmit", no_batch]);
        assert_eq!(stderr, format!("error: \"{no_batch}\" is no batch\n{hint}\n"));
    }
    for unknown in [batch(2), batch(3), "0/1".to_owned()] {
        let stderr = failed(&stage, &["outbox", "resubmit", &unknown]);
        assert_eq!(stderr, format!("error: there is no refused batch {unknown}\nhint: `outbox inspect` lists them\n"));
    }
    assert_eq!(tables(&stage.gateway_folder()).unwrap(), before);

    let said = done(&stage, &["outbox", "resubmit", &batch(1)]);
    let said = said.strip_prefix(&format!("{} is sealed anew as ", batch(1))).unwrap();
    let anew = said.strip_suffix(", and goes out when the gateway runs\n").unwrap();
    let all: Value = done(&stage, &["outbox", "inspect", "--json"]).parse().unwrap();
    let batches =
        all["batches"].as_array().unwrap().iter().map(|one| json!([one["batch"], one["readings"], one["refused"]]));
    let batches: Vec<Value> = batches.collect();
    let expected = [json!([anew, REFUSED, null]), json!([batch(2), UNSETTLED, null])];
    assert!(batches.len() == 2 && expected.iter().all(|one| batches.contains(one)), "{batches:?}");

    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let stderr = failed(&stage, &["outbox", "resubmit", &batch(1)]);
    assert!(
        stderr.starts_with("error: another gateway is running on ") && stderr.contains("\nhint: stop it"),
        "{stderr}"
    );
    let all = (REFUSED + UNSETTLED + UNSEALED) as usize;
    until_logged(&stage, all).await.unwrap();
    let log = in_the_log(&stage).await;
    let (mut values, meters): (Vec<_>, Vec<_>) = log.iter().map(|((meter, ..), value)| (value.clone(), meter)).unzip();
    values.sort_by_key(|value| value.trim_end_matches(" Wh").parse::<i64>().unwrap());
    assert_eq!(values, (0..all).map(|number| format!("{number} Wh")).collect::<Vec<_>>());
    assert!(meters.iter().all(|meter| *meter == METER), "held rows stay");
    until("receipts", CATCH_UP_TIMEOUT, async || Ok(outbox(&stage, "batches_unsettled").await == 0)).await.unwrap();
    assert_eq!(outbox(&stage, "rows_held").await, HELD as u64);
    stage.stop_gateway().unwrap();
}

// ----------------------------------------------------------------------------------------------------------------------------
// The outbox of a running gateway.

/// Identity and value, as a truth file has them.
fn exported(stage: &Stage) -> BTreeMap<Identity, String> {
    let of_row = |row: Value| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        let number = |key: &str| row[key].as_u64().unwrap();
        let identity =
            (text("meter"), text("code"), text("kind"), number("period_s"), text("captured_at"), number("nth"));
        (identity, format!("{} {}", text("value"), text("unit")))
    };
    objects(&done(stage, &["outbox", "export"])).into_iter().map(of_row).collect()
}

fn values(truth: &Truth) -> BTreeMap<Identity, String> {
    truth.iter().map(|(identity, captured)| (identity.clone(), captured.value.clone())).collect()
}

/// Negative control: open with `Outbox::open` in `commands::look_into` and seal there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_into_the_outbox_of_a_running_gateway_agrees_with_it_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    stage.meters_toml = format!("[[feed]]\nname = \"cad\"\nport = {}\n", stage.broker_port());
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    // Before it has heard from the cloud what time it is, nothing is sealed.
    let delivered = start_cad(&mut stage, 201, 2).unwrap();
    until_logged(&stage, 8).await.unwrap();
    stage.stop_simulator().unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    // From here on nothing is receipted.
    stage.stop_cloud().unwrap();
    let pushed = start_cad(&mut stage, 101, 10).unwrap();
    until("some readings", CATCH_UP_TIMEOUT, async || Ok(pushed.captured()?.len() >= 100)).await.unwrap();
    // While it stores and seals.
    for look in LOOKS {
        done(&stage, look);
    }
    // Every push is acknowledged, and so stored.
    stage.stop_simulator().unwrap();
    let captured = pushed.captured().unwrap();
    // Without receipts so many batches are sealed and no more.
    let mut before = BTreeMap::new();
    let is_still = async || {
        let now = tables(&stage.gateway_folder())?;
        let is_still = now == before && !now["batches"].is_empty();
        before = now;
        Ok(is_still)
    };
    until("nothing more is sealed", CATCH_UP_TIMEOUT, is_still).await.unwrap();
    let status = stage.gateway_status().await.unwrap();
    let looked: Value = done(&stage, &["outbox", "inspect", "--json"]).parse().unwrap();
    for key in ["rows_unsealed", "rows_held", "batches_unsettled", "batches_refused", "repeated", "level"] {
        assert_eq!(looked["usage"][key], status["outbox"][key], "{key}");
    }
    let in_batches: u64 =
        looked["batches"].as_array().unwrap().iter().map(|one| one["readings"].as_u64().unwrap()).sum();
    assert_eq!(in_batches + looked["usage"]["rows_unsealed"].as_u64().unwrap(), captured.len() as u64);
    assert!(done(&stage, &["outbox", "verify"]).ends_with(", 0 damaged\n"));
    assert_eq!(exported(&stage), values(&captured));
    assert_eq!(tables(&stage.gateway_folder()).unwrap(), before);
    // Killed, it leaves a WAL, from which the same is read; the next life delivers all of it once.
    stage.kill_gateway().unwrap();
    let before = files(&stage.gateway_folder()).unwrap();
    assert_eq!(exported(&stage), values(&captured));
    assert!(files(&stage.gateway_folder()).unwrap() == before);
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let mut all = delivered.captured().unwrap();
    all.extend(captured);
    everything_arrives(&stage, &all).await.unwrap();
    stage.stop_gateway().unwrap();
}

// ----------------------------------------------------------------------------------------------------------------------------
// What cannot be looked into.

const ON_AN_OUTBOX: [&[&str]; 5] = [
    &["outbox", "inspect"],
    &["outbox", "verify"],
    &["outbox", "export"],
    &["outbox", "resubmit", "00c0ffee00c0ffee/1"],
    &["outbox", "accept", "KFM:9"],
];

/// Negative control: take the lock before the look in `commands::resubmit`, which makes the folder.
#[tokio::test]
async fn where_there_is_no_outbox_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let stage = still_stage(folder.path()).await;
    std::fs::remove_dir(stage.gateway_folder()).unwrap();
    for arguments in ON_AN_OUTBOX {
        let expected = format!(
            "error: there is no outbox at {}\nhint: the gateway has not run with these settings\n",
            path_in(&stage.gateway_folder()).display()
        );
        assert_eq!(failed(&stage, arguments), expected, "{arguments:?}");
        assert!(!stage.gateway_folder().exists(), "{arguments:?}");
    }
}

/// Negative control: leave the hint out of `StartError::Outbox`.
#[tokio::test]
async fn an_outbox_that_is_not_ours_is_named_with_what_to_do() {
    let (another, newer, damaged) = (
        "the outbox belongs to gateway other-gateway, this is demo-gateway\n\
         hint: set [gateway] id back, or give this gateway a data_dir of its own\n",
        "the outbox was written by a newer version (99 instead of 2)\n\
         hint: run the newer version again; an older one cannot read its outbox\n",
        "the outbox is damaged: file is not a database\n\
         hint: start the gateway: it sets the file aside and saves what can be read\n",
    );
    for (words, owner) in [(another, "other-gateway"), (newer, OWNER), (damaged, OWNER)] {
        let folder = tempfile::tempdir().unwrap();
        let stage = still_stage(folder.path()).await;
        let path = path_in(&stage.gateway_folder());
        drop(open(&stage.gateway_folder(), owner).unwrap());
        if words == newer {
            Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        } else if words == damaged {
            std::fs::write(&path, "Dear diary, ".repeat(1_000)).unwrap();
        }
        let before = files(&stage.gateway_folder()).unwrap();
        for arguments in ON_AN_OUTBOX {
            assert_eq!(failed(&stage, arguments), format!("error: {}: {words}", path.display()), "{arguments:?}");
            assert!(files(&stage.gateway_folder()).unwrap() == before, "{arguments:?} has changed something");
        }
    }
}

/// Negative control: exit 2, as clap does by itself.
#[tokio::test]
async fn what_is_no_command_is_the_users_to_mend() {
    let folder = tempfile::tempdir().unwrap();
    let stage = still_stage(folder.path()).await;
    assert!(failed(&stage, &["outbox", "inspekt"]).contains("inspect"));
    let (code, stdout, _) = command(&stage, &["--help"]).unwrap();
    assert!(code == DONE && stdout.contains("check-config"), "{stdout}");
}

// ----------------------------------------------------------------------------------------------------------------------------
// Status, health, metrics.

#[tokio::test]
async fn status_of_a_gateway_that_does_not_run_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let stage = still_stage(folder.path()).await;
    let expected = format!(
        "error: no gateway answers at {}: Connection refused (os error 111)\nhint: is it running with these settings?\n",
        stage.gateway_address()
    );
    for arguments in [&["status"][..], &["status", "--json"]] {
        assert_eq!(failed(&stage, arguments), expected);
    }
}

/// Negative control: answer the last state but one in `InventoryKeeper::session_ended`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_each_meter_with_its_state_and_cause() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, "history_days = 0.5").unwrap();
    let mut one_is_gone = fleet.clone();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    one_is_gone.endpoints[1]["address"] = nowhere.to_string().into();
    stage.meters_toml = one_is_gone.toml().unwrap();
    let [well, gone] = [0, 1].map(|place| fleet.endpoints[place]["meter"].as_str().unwrap().replace(':', "-"));
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    stage.freeze_simulator().unwrap();
    let cause = format!("{nowhere} refuses connections: is the port right, and does the device take another client?");
    let states = async || {
        let status = stage.gateway_status().await?;
        let meters = status["meters"].as_array().cloned().unwrap_or_default();
        Ok(meters.iter().map(|meter| meter["state"].clone()).collect::<Vec<_>>() == ["ok", "silent"])
    };
    until("both states", CATCH_UP_TIMEOUT, states).await.unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();

    let status: Value = done(&stage, &["status", "--json"]).parse().unwrap();
    assert_eq!((&status["gateway"], &status["connected"]), (&json!(OWNER), &json!(true)));
    assert_eq!((&status["outbox"]["level"], &status["outbox"]["rows_unsealed"]), (&json!("free"), &json!(0)));
    let meters = status["meters"].as_array().unwrap();
    let told =
        |at: usize| json!([meters[at]["name"], meters[at]["protocol"], meters[at]["state"], meters[at]["cause"]]);
    assert_eq!(told(0), json!([well, "dlms-wrapper", "ok", ""]));
    assert_eq!(told(1), json!([gone, "dlms-wrapper", "silent", cause]));
    assert_eq!((&meters[0]["meter"], &meters[1]["meter"]), (&fleet.endpoints[0]["meter"], &Value::Null));
    assert!(meters[0]["last_read_at"].is_string() && meters[1]["last_read_at"].is_null(), "{meters:?}");

    let text = done(&stage, &["status"]);
    let lines: Vec<_> = text.lines().collect();
    let [gateway, uplink, outbox, heading, first, second] = lines.as_slice() else { panic!("{text}") };
    assert_eq!(*gateway, format!("gateway    {OWNER}"));
    assert_eq!(*uplink, "uplink     connected");
    assert_eq!(*outbox, "outbox     free: 0 rows not sealed, 0 held, 0 batches on their way, 0 refused");
    assert_eq!(heading.split_whitespace().collect::<Vec<_>>(), ["meter", "protocol", "state", "last", "read", "cause"]);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(first)[..3], [well, "dlms-wrapper".to_owned(), "ok".to_owned()]);
    assert_eq!(words(second)[..4], [gone, "dlms-wrapper".to_owned(), "silent".to_owned(), "never".to_owned()]);
    assert!(second.ends_with(&cause), "{second}");
    stage.stop_gateway().unwrap();
    assert!(failed(&stage, &["status"]).contains("no gateway answers"));
}

/// What `gateway/src/telemetry.rs` declares: kind, name, help.
fn declared() -> Vec<[String; 3]> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/src/telemetry.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let (_, declared) = source.split_once("\nmetrics! {\n").unwrap();
    let (declared, _) = declared.split_once("\n}\n").unwrap();
    let quoted = |line: &str| {
        let mut texts = line.split('"').skip(1).step_by(2).map(str::to_owned);
        [(); 3].map(|()| texts.next().unwrap())
    };
    declared.lines().map(quoted).collect()
}

/// Negative control: leave the `# TYPE` line out of `Metrics::render`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_shown_with_its_help_and_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    stage.start_gateway().unwrap();
    let connected = async || Ok(stage.gateway_status().await?["connected"] == true);
    until("connected", CATCH_UP_TIMEOUT, connected).await.unwrap();
    let (head, body) = http_answer(stage.gateway_address(), "/metrics").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("\r\ncontent-type: text/plain; version=0.0.4"), "{head}");
    let mut lines = body.lines();
    let mut shown = BTreeMap::new();
    for [kind, name, help] in declared() {
        assert_eq!(lines.next(), Some(format!("# HELP {name} {help}").as_str()));
        assert_eq!(lines.next(), Some(format!("# TYPE {name} {kind}").as_str()));
        let (shows, value) = lines.next().unwrap().split_once(' ').unwrap();
        assert_eq!((shows, name.ends_with("_total")), (name.as_str(), kind == "counter"));
        shown.insert(name, value.parse::<i64>().unwrap());
    }
    assert_eq!((lines.next(), shown.len() >= 35), (None, true));
    let values = ["gateway_uplink_connected", "gateway_mqtt_connects_total", "gateway_actor_deaths_total"];
    assert_eq!(values.map(|name| shown[name]), [1, 1, 0]);
    let (head, _) = http_answer(stage.gateway_address(), "/nothing").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    stage.stop_gateway().unwrap();
}

/// Another program holds the outbox for as long as it likes: nothing can be stored.
///
/// Negative control: leave the time-out out of `/healthz` (`gateway/src/http.rs`), and there is no answer at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_bad_while_the_outbox_does_not_answer_and_good_again_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    stage.meters_toml = format!("[[feed]]\nname = \"cad\"\nport = {}\n", stage.broker_port());
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let address = stage.gateway_address();
    let health = async |status: &str, text: &str| {
        let (head, body) = http_answer(address, "/healthz").await?;
        assert!(head.contains("\r\ncontent-type: text/plain\r\n"), "{head}");
        Ok(head.starts_with(&format!("HTTP/1.1 {status}")) && body == text)
    };
    until("health", CATCH_UP_TIMEOUT, async || health("200", "ok\n").await).await.unwrap();
    let pushed = start_cad(&mut stage, 101, 4).unwrap();
    until_logged(&stage, 20).await.unwrap();
    let other = Connection::open(path_in(&stage.gateway_folder())).unwrap();
    other.busy_timeout(CATCH_UP_TIMEOUT).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let is_bad = async || health("503", "the outbox does not answer within 2 s\n").await;
    until("bad health", CATCH_UP_TIMEOUT, is_bad).await.unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    until("health again", CATCH_UP_TIMEOUT, async || health("200", "ok\n").await).await.unwrap();
    stage.stop_simulator().unwrap();
    everything_arrives(&stage, &pushed.captured().unwrap()).await.unwrap();
    stage.stop_gateway().unwrap();
}
