use std::path::Path;

use protocols::cosem::activity_calendar::{DayAction, DayProfile, Season, Week};
use protocols::cosem::script_table::ScriptReference;

use super::*;
use crate::commands::change::tests::{events, site};
use crate::reading::testing::SharedBody;

const WRITTEN: &str = "name = \"2027\"\nseason = [{ name = \"y\", start = \"*-01-01\", week = \"w\" }]\n\
                       week = [{ name = \"w\", days = [1, 1, 1, 1, 1, 2, 2] }]\n\
                       [[day]]\nid = 1\naction = [{ at = \"00:00\", script = \"0-0:10.0.100/2\" }, { at = \"06:00\", script = \"0-0:10.0.100/1\" }]\n\
                       [[day]]\nid = 2\naction = [{ at = \"00:00\", script = \"0-0:10.0.100/2\" }]\n";

fn old() -> Calendar {
    let script = ScriptReference { table: ObisCode::new(0, 0, 10, 0, 100, 255), selector: 1 };
    Calendar {
        name: b"2026".to_vec(),
        seasons: vec![Season { name: b"y".to_vec(), start: DateTime::UNSPECIFIED, week: b"w".to_vec() }],
        weeks: vec![Week { name: b"w".to_vec(), days: [1; 7] }],
        days: vec![DayProfile { day_id: 1, actions: vec![DayAction { start: Time([0; 4]), script }] }],
    }
}

async fn tariffed(folder: &Path) -> (SharedBody, Checked) {
    let (body, checked) = site(folder, "").await;
    {
        let mut body = body.lock().unwrap();
        (body.calendar.active, body.calendar.passive) = (old(), old());
    }
    std::fs::write(folder.join("2027.toml"), WRITTEN).unwrap();
    (body, checked)
}

/// What was printed, or the error.
async fn outcome(checked: &Checked, options: &CalendarOptions) -> Result<String, String> {
    let mut out = Vec::new();
    match calendar(checked, "m", options, &mut out).await {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(format!("{error:#}")),
    }
}

fn options(write: Option<PathBuf>, activate: Option<&str>) -> CalendarOptions {
    let (activate, object) = (activate.map(str::to_owned), "0-0:13.0.0".to_owned());
    CalendarOptions { write, activate, object, yes: true, ..CalendarOptions::default() }
}

/// Controls, seen to fail: write the passive calendar over the active one; forget the activation.
#[tokio::test]
async fn a_calendar_is_written_read_back_and_activated_at_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let (body, checked) = tariffed(folder.path()).await;
    let file = Some(folder.path().join("2027.toml"));
    let text = outcome(&checked, &options(file.clone(), Some("2099-01-01T00:00:00Z"))).await.unwrap();
    let at = "2099-01-01 00:00:00.00 deviation 0 status 00";
    for line in [
        "before                 active \"2026\", passive \"2026\", activation never\n".to_owned(),
        format!("after                  active \"2026\", passive \"2027\", activation {at}\n"),
    ] {
        assert!(text.contains(&line), "{line:?} is not in\n{text}");
    }
    let written = super::file::read(file.as_deref().unwrap()).unwrap();
    assert_eq!(body.lock().unwrap().calendar.passive, written);
    assert_eq!(std::mem::take(&mut body.lock().unwrap().calendar_writes), [9, 8, 7, 6, 10]);

    // What waits to be activated is stopped first: it would find half a calendar.
    let text = outcome(&checked, &options(file, Some("now"))).await.unwrap();
    assert!(text.ends_with("active \"2027\", passive \"2027\", activation never\n"), "{text}");
    assert_eq!(std::mem::take(&mut body.lock().unwrap().calendar_writes), [10, 9, 8, 7, 6]);
    assert_eq!(body.lock().unwrap().calendar.active, written);
    let text = outcome(&checked, &options(None, Some("2099-06-01T00:00:00"))).await.unwrap();
    assert!(text.ends_with("activation 2099-06-01 00:00:00.00 deviation * status ff\n"), "{text}");
    outcome(&checked, &options(None, Some("never"))).await.unwrap();
    assert_eq!(body.lock().unwrap().calendar.activate_passive_calendar_time, DateTime::UNSPECIFIED);
    let events = events(&checked);
    assert_eq!(events.iter().map(|(_, code, _)| *code).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1, 0, 1]);
    let first = format!(
        "about to write the passive calendar \"2027\" and activate the passive calendar at {at} by hand; before: "
    );
    assert!(events[0].2.starts_with(&first), "{}", events[0].2);
}

#[tokio::test]
async fn both_calendars_are_printed_and_each_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (_, checked) = tariffed(folder.path()).await;
    let show = async |only, json| {
        let options = CalendarOptions { only, json, ..options(None, None) };
        outcome(&checked, &options).await.unwrap()
    };
    let both = show(None, false).await;
    assert!(
        both.starts_with("activation = \"never\"\n") && both.contains("[active]\n") && both.contains("[[passive.day"),
        "{both}"
    );
    let json: serde_json::Value = show(None, true).await.parse().unwrap();
    assert_eq!((&json["active"]["name"], &json["passive"]["week"][0]["days"][6]), (&"2026".into(), &1.into()));
    let path = folder.path().join("printed.toml");
    std::fs::write(&path, show(Some(Which::Active), false).await).unwrap();
    assert_eq!(super::file::read(&path).unwrap(), old());
    // Whoever only looks leaves no event.
    assert!(events(&checked).is_empty());
}

#[tokio::test]
async fn a_calendar_that_is_taken_in_part_or_cannot_be_gone_by_is_not_activated() {
    let folder = tempfile::tempdir().unwrap();
    let (body, checked) = tariffed(folder.path()).await;
    let file = Some(folder.path().join("2027.toml"));
    let object = ActivityCalendar::LOGICAL_NAME;
    body.lock().unwrap().refused.insert((object, CALENDAR_NAME_ACTIVE));
    let error = outcome(&checked, &options(None, None)).await.unwrap_err();
    assert!(error.starts_with("m: attribute 2 of 0-0:13.0.0"), "{error}");
    body.lock().unwrap().refused.clear();

    body.lock().unwrap().setter = None;
    let error = outcome(&checked, &options(file.clone(), Some("now"))).await.unwrap_err();
    assert!(error.contains("m: attribute 9: ") && error.contains("\nhint: may this client write"), "{error}");
    assert!(!error.contains("in part"), "{error}");
    assert_eq!(body.lock().unwrap().calendar.active, old());

    body.lock().unwrap().calendar.passive.weeks.clear();
    let error = outcome(&checked, &options(None, Some("now"))).await.unwrap_err();
    assert!(
        error.contains("its passive calendar cannot be gone by: the calendar has no week\nhint: --write"),
        "{error}"
    );
    for (when, expected) in
        [("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z is over\nhint: "), ("soon", "\"soon\" is no time")]
    {
        let error = outcome(&checked, &options(file.clone(), Some(when))).await.unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    assert_eq!(events(&checked).iter().map(|(_, code, _)| *code).collect::<Vec<_>>(), [0, 2]);
}
