use std::path::Path;

use protocols::dlms::server::ClientRole;
use tokio::net::TcpListener;

use super::*;
use crate::config::Config;
use crate::reading::clock_set::CLOCK_SET_LOG;
use crate::reading::testing::{MeterBody, SharedBody, T0, TokioClock, serve_wrapper};

const SET: &str = "clock_set = { set_above_s = 5, set_below_s = 600 }\n";

/// A meter behind a real socket for as many connections as come, and the settings of a gateway that has run.
pub(super) async fn site(folder: &Path, rest: &str) -> (SharedBody, Checked) {
    // Away from the ends of a quarter of an hour.
    let body = MeterBody::shared(&TokioClock::shared(T0.plus_ms(300_000)), "SIM0001", 1);
    body.lock().unwrap().setter = Some(ClientRole::Public);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = body.clone();
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            let (inside, mut relay) = tokio::io::duplex(4096);
            tokio::spawn(serve_wrapper(inside, 1, served.clone()));
            drop(tokio::io::copy_bidirectional(&mut outside, &mut relay).await);
        }
    });
    let text = format!(
        "[gateway]\nid = \"gw\"\ndata_dir = {folder:?}\n[cloud]\nport = 1\n[[line]]\nname = \"l\"\ntcp = \"{address}\"\n\
         [[meter]]\nname = \"m\"\nline = \"l\"\n{rest}"
    );
    let checked = Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    drop(run::open_outbox(&checked).unwrap());
    (body, checked)
}

/// Log, code and text of each, in the order of storing.
pub(super) fn events(checked: &Checked) -> Vec<(String, i64, String)> {
    let mut found = Vec::new();
    let each = |row: &serde_json::Value| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        found.push((text("log"), row["code"].as_i64().unwrap(), text("text")));
        Ok(())
    };
    crate::commands::look_into(checked).unwrap().export(each).unwrap();
    found
}

/// Negative control: record after the deed only.
#[tokio::test]
async fn a_breaker_is_switched_and_both_states_are_shown_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let (body, checked) = site(folder.path(), "").await;
    let mut out = Vec::new();
    switch(&checked, "m", SwitchTo::Disconnect, true, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    for line in [
        "identity               SIM0001\n",
        "before                 output_state true, control_state connected\n",
        "after                  output_state false, control_state disconnected\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(!body.lock().unwrap().is_connected);
    switch(&checked, "m", SwitchTo::Connect, true, &mut Vec::new()).await.unwrap();
    assert!(body.lock().unwrap().is_connected);
    body.lock().unwrap().setter = None;
    let refused = switch(&checked, "m", SwitchTo::Disconnect, true, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(refused.starts_with("m: meter refused: read-write denied; after: output_state true"), "{refused}");
    let events = events(&checked);
    assert!(events.iter().all(|(log, ..)| log == COMMAND_LOG));
    assert_eq!(events.iter().map(|(_, code, _)| *code).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 2]);
    let before = "about to disconnect the supply by hand; before: output_state true, control_state connected";
    assert_eq!(events[0].2, before);
    assert!(events[5].2.starts_with("disconnect the supply by hand: meter refused"), "{}", events[5].2);

    // Beside a running gateway nothing is done, and nothing in another meter.
    let running = run::lock(&checked).unwrap();
    let error = switch(&checked, "m", SwitchTo::Disconnect, true, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.starts_with("m: the gateway runs\nhint: stop the gateway first"), "{error}");
    drop(running);
    let (body, checked) = site(&folder.path().join("other"), "serial = \"SIM0002\"\n").await;
    let error = switch(&checked, "m", SwitchTo::Disconnect, true, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.starts_with("m: expected SIM0002, found SIM0001\nhint: "), "{error}");
    assert!(body.lock().unwrap().is_connected && self::events(&checked).is_empty());
}

#[tokio::test]
async fn an_attribute_is_written_and_both_values_are_shown_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let (body, checked) = site(folder.path(), "").await;
    let options = |object: &str, class: u16, value: &str| WriteOptions {
        class,
        object: object.to_owned(),
        value: value.to_owned(),
        yes: true,
    };
    let mut out = Vec::new();
    let time = options("0-0:1.0.0", 8, "date-time:2026-11-23T00:10:00Z");
    write(&checked, "m", &time, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("before                 2026-11-2") && text.contains("after                  2026-11-23 01:10:0"),
        "{text}"
    );
    assert_eq!(body.lock().unwrap().clock_sets.len(), 1);
    let events = events(&checked);
    assert_eq!(events.iter().map(|(_, code, _)| *code).collect::<Vec<_>>(), [0, 1]);
    assert!(
        events[1].2.starts_with("set 0-0:1.0.0 attribute 2 of class 8 to 2026-11-23 00:10:00.00"),
        "{}",
        events[1].2
    );
    for (options, expected) in [
        (options("0-0:40.0.0/7", 15, "octet-string:00"), "objects of class 15 hold passwords"),
        (options("0-0:25.4.0/3", 45, "octet-string:00"), "objects of class 45 hold passwords"),
        (options("0-0:1.0.0", 8, "long:70000"), "\"70000\" is no long"),
        (options("clock", 8, "long:1"), "is no code"),
        (options("0-0:94.31.0", 1, "long:1"), "meter refused: "),
    ] {
        let error = write(&checked, "m", &options, &mut Vec::new()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// By hand the clock is set as often as somebody wants it, by the other rules all the same.
#[tokio::test]
async fn a_clock_is_shown_and_set_by_hand_under_the_same_rules() {
    let folder = tempfile::tempdir().unwrap();
    let (body, checked) = site(folder.path(), SET).await;
    let mut out = Vec::new();
    // This system's clock is not the meter's, and no cloud tells the time.
    clock(&checked, "m", false, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("the cloud's clock      not known: cannot reach the cloud"), "{text}");
    let error = clock(&checked, "m", true, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.starts_with("m: nothing was set: "), "{error}");
    assert!(body.lock().unwrap().clock_sets.is_empty());

    let meters_clock = body.lock().unwrap().clock.clone();
    let mut site = Site::of(&checked, "m").unwrap();
    let trust = ClockTrust::new(meters_clock.clone(), 1);
    (site.parts.clock, site.parts.trust) = (meters_clock.clone(), trust.clone());
    let meter = site.meter.clone();
    body.lock().unwrap().offset_ms = 60_000;
    let mut out = Vec::new();
    let looked = site.look_at_clock().await.unwrap();
    assert!((59_000..61_000).contains(&looked.offset.ms), "{looked:?}");
    assert_eq!(site.advice(&looked), "nothing: this system's clock and the cloud's do not agree to 2 s");
    let error = site.set_clock(&meter, &mut out).await.unwrap_err().to_string();
    assert!(error.contains("do not agree to 2 s"), "{error}");
    trust.on_cloud_time(meters_clock.wall());
    assert_eq!(site.advice(&looked), "it may be set now");
    for sets in 1..=2 {
        body.lock().unwrap().offset_ms = 60_000;
        site.set_clock(&meter, &mut out).await.unwrap();
        let body = body.lock().unwrap();
        assert!(body.clock_sets.len() == sets && body.offset_ms.abs() < 1_000, "{}", body.offset_ms);
    }
    body.lock().unwrap().offset_ms = 500_000;
    let error = site.set_clock(&meter, &mut out).await.unwrap_err().to_string();
    assert!(error.contains("nothing was set: nothing for "), "over the end of an interval: {error}");
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("set                    ")).count(), 2, "{text}");
    drop(site);
    let events = events(&checked);
    assert_eq!(events.iter().map(|(log, code, _)| (&**log, *code)).collect::<Vec<_>>(), [(CLOCK_SET_LOG, 1); 2]);

    let (_, checked) = self::site(&folder.path().join("other"), "").await;
    let error = clock(&checked, "m", true, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.starts_with("m has no [meter.clock_set]\nhint: "), "{error}");
    let mut out = Vec::new();
    clock(&checked, "m", false, &mut out).await.unwrap();
    assert!(String::from_utf8(out).unwrap().ends_with("nothing: there is no [meter.clock_set]\n"));
}
