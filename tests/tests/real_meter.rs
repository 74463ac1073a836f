//! The system in front of meters that are really there: whatever stands in the settings file that `METERPOST_METER` names, sections of
//! lines, meters, ports and feeds. Without it, meters of the simulator stand in, so that this runs at all.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use demo::stage::Stage;
use tests::hostile::state_of;
use tests::system::{CATCH_UP_TIMEOUT, command, in_the_log, stage, start_dlms, start_p1_over_tcp, until};

/// A meter on a slow line with forty days of a profile takes its time. `METERPOST_METER_WAIT_S` sets another.
const WAIT: Duration = Duration::from_secs(600);
const KILLS: usize = 3;

/// The sections, how long a meter may take, and whether it is a real one.
fn sections(stage: &mut Stage) -> (String, Duration, bool) {
    let Some(path) = std::env::var_os("METERPOST_METER") else {
        let mut toml = start_dlms(stage, 1, 2, "speed = 600.0\nhistory_days = 0.5").unwrap().toml().unwrap();
        toml += &demo::meters::meter_toml(&start_p1_over_tcp(stage, 101).unwrap().endpoints[0], "", "").unwrap();
        return (toml, CATCH_UP_TIMEOUT, false);
    };
    let wait = std::env::var("METERPOST_METER_WAIT_S").ok().and_then(|seconds| seconds.parse().ok());
    (std::fs::read_to_string(path).unwrap(), wait.map_or(WAIT, Duration::from_secs), true)
}

/// Names of the sections of one kind.
fn names(toml: &str, kind: &str) -> Vec<String> {
    let table: toml::Table = toml.parse().unwrap();
    let sections = table.get(kind).and_then(toml::Value::as_array).into_iter().flatten();
    sections.filter_map(|section| Some(section.get("name")?.as_str()?.to_owned())).collect()
}

/// Negative control: a section for a meter that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meters_that_are_really_there_are_read_and_nothing_is_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let (toml, wait, is_real) = sections(&mut stage);
    let (meters, ports) = (names(&toml, "meter"), names(&toml, "port"));
    assert!(!meters.is_empty() || !ports.is_empty(), "there is no [[meter]] and no [[port]]");
    stage.meters_toml = toml;
    stage.start_cloud().unwrap();
    for life in 0..=KILLS {
        stage.start_gateway().unwrap();
        let are_read = async || {
            for name in meters.iter().chain(&ports) {
                let (state, cause) = state_of(&stage, name).await?;
                // The simulator's clocks are ahead.
                if !(state == "ok" || state == "clock-off") {
                    println!("{name}: {state} {cause}");
                    return Ok(false);
                }
            }
            Ok(true)
        };
        until("all meters are read", wait, are_read).await.unwrap();
        if life < KILLS {
            stage.kill_gateway().unwrap();
        }
    }
    if !is_real {
        stage.freeze_simulator().unwrap();
    }
    stage.stop_gateway().unwrap();
    for name in &meters {
        let (code, said, error) = command(&stage, &["read", name]).unwrap();
        println!("{said}");
        assert_eq!(code, Some(0), "{name}: {error}");
    }
    // What waits in the outbox goes on its way.
    stage.start_gateway().unwrap();
    stage.wait_until_forwarded(wait).await.unwrap();
    stage.stop_gateway().unwrap();
    let audit = stage.audit(CATCH_UP_TIMEOUT).await.unwrap();
    println!("{audit}");
    assert_eq!((&audit["lost"], &audit["doubled"], &audit["pending"]), (&0.into(), &0.into(), &0.into()), "{audit}");
    let held: BTreeSet<String> = in_the_log(&stage).await.into_keys().map(|(meter, ..)| meter).collect();
    assert!(held.len() >= meters.len() + ports.len(), "readings of {held:?} only");
}
