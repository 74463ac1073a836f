mod clock_set_meanwhile;
mod datagrams;
mod parametrised_anew;
mod referencing;
pub(crate) mod room;
mod unreadable;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocols::cosem::profile_generic::selection::Selection;
use protocols::dlms::datetime::{ClockRules, DateTime};
use protocols::dlms::value::DataValue;
use protocols::metering::UtcMillis;
use protocols::uplink::{GatewayId, MeterEntry, MeterState};
use tokio::time::Instant;

use super::memory::{MeterMemory, OnDisk};
use super::session::{Order, SessionError, SessionParts, Visited, visit};
use super::talk::Talk;
use super::testing::{MeterBody, QUARTER_MS, SetClock, SharedBody, T0, TokioClock, serve_wrapper};
use crate::agenda::cursor::ProfileCursor;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::config::metering::MeterSettings;
use crate::inventory::InventoryKeeper;
use crate::link::Medium;
use crate::link::memory::MemoryMedium;
use crate::outbox::{Outbox, OutboxHandle, OutboxSettings};
use crate::telemetry::{Metric, Metrics};
use crate::trust::ClockTrust;

pub(crate) fn parts(clock: &SharedClock) -> (SessionParts, Arc<Mutex<Outbox>>) {
    let settings = OutboxSettings::new(GatewayId::new("gw-1").unwrap());
    let (outbox, shared) = OutboxHandle::inline(Outbox::in_memory(settings, Box::new(|| 1)).unwrap().0);
    let trust = ClockTrust::new(clock.clone(), 1);
    trust.on_cloud_time(clock.wall());
    let parts = SessionParts {
        outbox,
        clock: clock.clone(),
        trust,
        inventory: InventoryKeeper::default(),
        metrics: Metrics::default(),
        held: None,
    };
    (parts, shared)
}

pub(crate) fn meters(text: &str) -> Vec<Arc<MeterSettings>> {
    let text = format!("[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"localhost:4059\"\n{text}");
    let checked = Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap();
    checked.lines[0].meters.clone()
}

/// Label, nth and what it is, with how often it was stored.
pub(crate) type Stored = BTreeMap<(i64, u64, String), usize>;

/// What lies in the outbox.
pub(crate) fn stored(outbox: &Arc<Mutex<Outbox>>) -> Stored {
    let mut found = BTreeMap::new();
    let outbox = outbox.lock().unwrap();
    let each = |row: &serde_json::Value| {
        let at: UtcMillis = row["captured_at"].as_str().or(row["at"].as_str()).unwrap().parse().unwrap();
        let what = ["meter", "log", "code", "kind", "value", "unit", "text"].map(|key| match &row[key] {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        *found.entry((at.0, row["nth"].as_u64().unwrap_or(0), what.join(" "))).or_insert(0) += 1;
        Ok(())
    };
    outbox.export(each).unwrap();
    found
}

const METER: &str = "[[meter]]\nname = \"m\"\nline = \"l\"\n";

/// One session over a fresh connection, all sections due.
pub(crate) async fn session(
    parts: &SessionParts,
    meter: &MeterSettings,
    memory: &mut MeterMemory,
    body: &SharedBody,
) -> Result<Visited, SessionError> {
    session_within(parts, meter, memory, body, Duration::from_secs(120)).await
}

/// The same, of a meter that has so much time on its line.
async fn session_within(
    parts: &SessionParts,
    meter: &MeterSettings,
    memory: &mut MeterMemory,
    body: &SharedBody,
    budget: Duration,
) -> Result<Visited, SessionError> {
    enter(parts, meter);
    let (medium, mut opened) = MemoryMedium::new("memory", false);
    let mut link = medium.open().await.unwrap();
    let server = tokio::spawn(serve_wrapper(opened.recv().await.unwrap(), 1, body.clone()));
    let deadline = Instant::now() + budget;
    let mut talk = Talk::new(&mut *link, meter, 0, deadline).unwrap();
    if let Err(error) = talk.associate().await {
        talk.hang_up().await;
        return Err(error.into());
    }
    let due: Vec<usize> = (0..meter.reads.len()).collect();
    let order = Order { due: &due, yield_at: Duration::MAX, deadline };
    let visited = visit(parts, meter, memory, &mut talk, &order).await;
    match &visited {
        Err(SessionError::Talk(_)) => talk.hang_up().await,
        _ => talk.release().await.unwrap(),
    }
    drop(link);
    server.await.unwrap();
    visited
}

fn enter(parts: &SessionParts, meter: &MeterSettings) {
    parts.inventory.enter(MeterEntry {
        name: meter.name.to_string(),
        meter: None,
        metering_point: None,
        protocol: "dlms-wrapper".to_owned(),
        expected: Vec::new(),
        last_read_at: None,
        clock_offset_ms: None,
        state: MeterState::Unknown,
        cause: String::new(),
    });
}

fn entry(parts: &SessionParts) -> MeterEntry {
    parts.inventory.snapshot().1.meters.remove(0)
}

/// Every entry of the profile, as it has to lie in the outbox.
fn entries(body: &SharedBody) -> Vec<(i64, u64, String)> {
    let body = body.lock().unwrap();
    let mut counts = BTreeMap::new();
    let row = |(at, value): &(UtcMillis, u32)| {
        let nth = counts.entry(*at).and_modify(|nth| *nth += 1).or_insert(0_u64);
        (at.0, *nth, format!("{}  1-0:1.8.0 register {value} Wh ", body.name))
    };
    body.entries.iter().map(row).collect()
}

pub(crate) fn assert_complete(stored: &Stored, body: &SharedBody) {
    for entry in entries(body) {
        assert!(stored.contains_key(&entry), "{entry:?} of {} is not stored", stored.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_is_read_into_the_outbox() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 2);
    let mut memory = MeterMemory::new(meter.reads.len());
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    let rows = stored(&outbox);
    assert_complete(&rows, &body);
    // And the register, stamped by the gateway.
    assert_eq!(rows.len(), 2 * 96 + 1);
    let entry = entry(&parts);
    assert_eq!((entry.state, entry.meter.unwrap().as_str()), (MeterState::Ok, "SIM0001"));
    assert_eq!(entry.clock_offset_ms, Some(0));
    assert!(entry.expected.iter().any(|series| series.cadence_s == 900 && series.code.to_string() == "1-0:1.8.0"));
}

#[tokio::test(start_paused = true)]
async fn the_newest_day_comes_first_and_no_entry_is_stored_twice() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 10);
    let mut memory = MeterMemory::new(meter.reads.len());
    let visited = session(&parts, &meter, &mut memory, &body).await.unwrap();
    assert_eq!(visited.chunks, 39, "forty days, the newest of them live");
    let rows = stored(&outbox);
    assert_complete(&rows, &body);
    assert!(rows.values().all(|count| *count == 1));
    let ranges: Vec<UtcMillis> =
        body.lock().unwrap().asked.iter().map(|selection| from_of(selection.as_ref())).collect();
    assert!(ranges.is_sorted_by(|a, b| a > b), "newest first");
    // The next read asks for what is new, and a little below it.
    tokio::time::advance(Duration::from_secs(900)).await;
    let (from, to) = (T0, clock.wall());
    body.lock().unwrap().capture(from, to);
    body.lock().unwrap().asked.clear();
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    assert_complete(&stored(&outbox), &body);
    let asked = body.lock().unwrap().asked.iter().map(|selection| from_of(selection.as_ref())).collect::<Vec<_>>();
    assert_eq!(asked.len(), 1);
    assert!(T0.since(asked[0]) < 120_000, "asked from {}", asked[0]);
}

fn from_of(selection: Option<&Selection>) -> UtcMillis {
    let Some(Selection::Range(range)) = selection else { panic!("no range: {selection:?}") };
    let DataValue::OctetString(octets) = &range.from else { panic!("no date-time") };
    DateTime(octets.as_slice().try_into().unwrap()).to_utc(ClockRules::default()).unwrap().utc
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_read_back_after_a_restart() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    session(&parts, &meter, &mut MeterMemory::new(meter.reads.len()), &body).await.unwrap();
    tokio::time::advance(Duration::from_secs(5 * 86_400)).await;
    let now = clock.wall();
    body.lock().unwrap().capture(T0, now);
    // Nothing but the outbox survives.
    body.lock().unwrap().asked.clear();
    session(&parts, &meter, &mut MeterMemory::new(meter.reads.len()), &body).await.unwrap();
    assert_complete(&stored(&outbox), &body);
    assert_eq!(body.lock().unwrap().asked.len(), 6);
}

/// A row that is spoiled on its way is asked for again; one that the meter always sends so is kept as it came, and what lies round it
/// is read all the same.
///
/// Negative controls: without the second `read_rows` the row of the first half is lost; without `keep_unread` that of the second.
#[tokio::test(start_paused = true)]
async fn a_row_that_cannot_be_read_is_asked_for_again_and_then_kept_as_it_came() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    body.lock().unwrap().spoiled = 1;
    let mut memory = MeterMemory::new(meter.reads.len());
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    assert_complete(&stored(&outbox), &body);

    tokio::time::advance(Duration::from_secs(3_600)).await;
    {
        let mut body = body.lock().unwrap();
        let (before, now) = (body.entries.len(), body.now());
        body.capture(T0, now);
        assert_eq!(body.entries.len() - before, 4);
        body.spoiled = usize::MAX;
    }
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    let unread = parts.metrics.value(Metric::FieldProblems);
    assert!(unread > 0);
    let kept: Vec<_> = stored(&outbox).into_keys().filter(|(.., what)| what.contains("rows-unread")).collect();
    let last = body.lock().unwrap().entries.pop().unwrap();
    assert!(!kept.is_empty() && kept[0].2.contains("3 cells instead of 2"), "{kept:?}");
    assert_complete(&stored(&outbox), &body);
    // Its value is in the raw answer.
    let outbox = outbox.lock().unwrap();
    let mut raw = String::new();
    let each = |row: &serde_json::Value| {
        raw.push_str(row["raw"].as_str().unwrap_or_default());
        Ok(())
    };
    outbox.export(each).unwrap();
    assert!(raw.contains(&format!("06{:08x}", last.1)), "{raw}");
}

/// Negative control: without `forget_cursors` in `settle_leftovers`, or without the epoch in `load_cursors`, the entry stays lost.
#[tokio::test(start_paused = true)]
async fn a_row_that_the_disk_has_changed_is_read_again() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    let mut memory = MeterMemory::new(meter.reads.len());
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    {
        // Nothing of the rows is in memory.
        let mut held = outbox.lock().unwrap();
        let nothing =
            Outbox::in_memory(OutboxSettings::new(GatewayId::new("gw-1").unwrap()), Box::new(|| 1)).unwrap().0;
        *held = std::mem::replace(&mut *held, nothing).reopen(Box::new(|| 2)).unwrap().0;
        held.damage_row(7);
    }
    let limits = crate::outbox::SealLimits { rows_max: 50, now: clock.wall() };
    parts.outbox.seal(crate::outbox::Which::Backlog, limits, None).await.unwrap().unwrap();
    assert_eq!(parts.outbox.usage().await.unwrap().rows_damaged, 1);
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    assert_complete(&stored(&outbox), &body);
}

#[tokio::test(start_paused = true)]
async fn a_meter_without_ranges_is_read_by_entries_and_then_whole() {
    for refuses_entries in [false, true] {
        let clock = TokioClock::shared(T0);
        let (parts, outbox) = parts(&clock);
        let meter = meters(METER).remove(0);
        let body = MeterBody::shared(&clock, "SIM0001", 3);
        body.lock().unwrap().refuses_ranges = true;
        body.lock().unwrap().refuses_entries = refuses_entries;
        let mut memory = MeterMemory::new(meter.reads.len());
        session(&parts, &meter, &mut memory, &body).await.unwrap();
        assert_complete(&stored(&outbox), &body);
        assert_eq!(memory.backlog_at(), None, "one whole read settles all that is missing");
        let asked = |body: &SharedBody| body.lock().unwrap().asked.iter().map(Option::is_some).collect::<Vec<_>>();
        let expected = if refuses_entries { vec![false] } else { vec![true, false] };
        assert_eq!(asked(&body), expected);
        body.lock().unwrap().asked.clear();
        tokio::time::advance(Duration::from_secs(1_800)).await;
        let now = clock.wall();
        body.lock().unwrap().capture(T0, now);
        session(&parts, &meter, &mut memory, &body).await.unwrap();
        assert_complete(&stored(&outbox), &body);
        assert_eq!(asked(&body), [!refuses_entries], "the way that worked is remembered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_hides_no_entry() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    let mut memory = MeterMemory::new(meter.reads.len());
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    // Set back by three hours, and four hours later: the old labels are used a second time.
    body.lock().unwrap().offset_ms = -3 * 3_600_000;
    tokio::time::advance(Duration::from_secs(4 * 3_600)).await;
    let now = clock.wall();
    body.lock().unwrap().capture(T0.plus_ms(-3 * 3_600_000), now.plus_ms(-3 * 3_600_000));
    let state = session(&parts, &meter, &mut memory, &body).await.unwrap().state;
    assert_eq!(state, MeterState::ClockOff);
    let rows = stored(&outbox);
    assert!(rows.keys().any(|(_, nth, _)| *nth == 1));
    assert_complete(&rows, &body);
}

/// Negative control: without `doubted`, the entry of the dip is never read.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_and_then_forward_hides_no_entry() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    let mut memory = MeterMemory::new(meter.reads.len());
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    // For a moment it was three hours ago, and a quarter of an hour ended; what is seen is that it is five minutes ahead.
    tokio::time::advance(Duration::from_secs(900)).await;
    body.lock().unwrap().capture(T0.plus_ms(-3 * 3_600_000), T0.plus_ms(-3 * 3_600_000 + QUARTER_MS));
    body.lock().unwrap().offset_ms = 300_000;
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    let rows = stored(&outbox);
    assert!(rows.keys().any(|(_, nth, _)| *nth == 1));
    assert_complete(&rows, &body);
}

/// Negative control: compare the meter's clock with the system clock; a leap of decades leaves gaps of four hundred days that
/// hold nothing.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_thinks_it_is_1970_does_not_take_the_meters_clock_for_wrong() {
    let clock = TokioClock::shared(UtcMillis(7_000_000));
    let (parts, _) = parts(&clock);
    let parts = SessionParts { trust: ClockTrust::new(clock.clone(), 1), ..parts };
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&TokioClock::shared(T0), "SIM0001", 1);
    let mut memory = MeterMemory::new(meter.reads.len());
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    assert_eq!((entry(&parts).state, entry(&parts).clock_offset_ms), (MeterState::Ok, None));
    parts.trust.on_cloud_time(T0);
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    assert_eq!((entry(&parts).state, entry(&parts).clock_offset_ms), (MeterState::Ok, Some(0)));
    let profiles = memory.profiles.iter().filter_map(|profile| match &profile.cursor {
        OnDisk::At(cursor) => Some(cursor.gaps().len()),
        _ => None,
    });
    assert_eq!(profiles.sum::<usize>(), 0);
}

/// The system clock is set back an hour while the uplink is gone. What the gateway stamps then waits, and gets its true instant with
/// the cloud's next word.
///
/// Negative control: keep the offset as it was at the cloud's last word; the value is dated an hour early.
#[tokio::test(start_paused = true)]
async fn what_is_stamped_by_a_clock_that_was_set_waits_for_the_cloud() {
    let true_clock = TokioClock::shared(T0);
    let stepped = SetClock::shared(&true_clock, 0);
    let clock: SharedClock = stepped.clone();
    let (parts, outbox) = parts(&clock);
    let reads = "[[meter.read]]\nsource = \"registers\"\ncodes = [\"1-0:1.8.0\"]\n";
    let meter = meters(&format!("{METER}{reads}")).remove(0);
    let body = MeterBody::shared(&true_clock, "SIM0001", 0);
    let mut memory = MeterMemory::new(meter.reads.len());
    tokio::time::advance(Duration::from_secs(60)).await;
    stepped.set(-3_600_000);
    let read_from = true_clock.wall();
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    let usage = parts.outbox.usage().await.unwrap();
    assert_eq!((usage.rows_unsealed, usage.rows_held), (0, 1), "{usage:?}");
    let read_by = true_clock.wall();
    tokio::time::advance(Duration::from_secs(600)).await;
    let cloud = true_clock.wall();
    let origin = parts.trust.on_cloud_time(cloud);
    assert_eq!(parts.outbox.resolve_clock(parts.trust.boot(), origin, cloud).await.unwrap(), 1);
    let (at, ..) = stored(&outbox).into_keys().next().unwrap();
    assert!((read_from..=read_by).contains(&UtcMillis(at)), "{}", UtcMillis(at));
}

#[tokio::test(start_paused = true)]
async fn another_meter_than_expected_is_held_under_its_own_name() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(&format!("{METER}serial = \"SIM0002\"\n")).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    let mut memory = MeterMemory::new(meter.reads.len());
    let state = session(&parts, &meter, &mut memory, &body).await.unwrap().state;
    assert_eq!(state, MeterState::WrongIdentity);
    assert_eq!(entry(&parts).cause, "expected SIM0002, found SIM0001");
    let usage = outbox.lock().unwrap().usage().unwrap();
    assert_eq!((usage.rows_unsealed, usage.rows_held), (0, 97));
    // The right one has a cursor of its own: all of it is read.
    body.lock().unwrap().name = "SIM0002".to_owned();
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    assert_complete(&stored(&outbox), &body);
    assert_eq!(outbox.lock().unwrap().usage().unwrap().rows_unsealed, 97);
    assert_eq!(entry(&parts).state, MeterState::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_refused_object_is_named_and_the_others_are_read() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let reads = "[[meter.read]]\nsource = \"registers\"\ncodes = [\"1-0:2.8.0\", \"1-0:1.8.0\"]\n\
                 [[meter.read]]\nsource = \"instants\"\ncodes = [\"1-0:1.7.0\"]\n";
    let meter = meters(&format!("{METER}{reads}")).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    let mut memory = MeterMemory::new(meter.reads.len());
    let state = session(&parts, &meter, &mut memory, &body).await.unwrap().state;
    assert_eq!(state, MeterState::Refusing);
    assert!(entry(&parts).cause.starts_with("1-0:2.8.0: meter refused"), "{}", entry(&parts).cause);
    let rows = stored(&outbox);
    let whats: Vec<&str> = rows.keys().map(|(_, _, what)| what.as_str()).collect();
    // The power is an extended register, which the code does not say.
    assert_eq!(whats, ["SIM0001  1-0:1.7.0 instant 230e1 W ", "SIM0001  1-0:1.8.0 register 1096 Wh "]);
    let version = parts.inventory.version();
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    assert_eq!(parts.inventory.version(), version, "a standing trouble is no news");
}

#[tokio::test(start_paused = true)]
async fn event_logs_become_events() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(&format!("{METER}[[meter.read]]\nsource = \"events\"\n")).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    body.lock().unwrap().events = vec![(T0.plus_ms(-7_200_000), 1), (T0.plus_ms(-3_600_000), 2)];
    let mut memory = MeterMemory::new(meter.reads.len());
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    let rows = stored(&outbox);
    let expected = [(T0.0 - 7_200_000, 1), (T0.0 - 3_600_000, 2)]
        .map(|(at, code)| ((at, 0, format!("SIM0001 0-0:99.98.0 {code}    ")), 1));
    assert_eq!(rows, BTreeMap::from(expected));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_a_refusal_and_its_file_is_named() {
    let clock = TokioClock::shared(T0);
    let (parts, _) = parts(&clock);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    body.lock().unwrap().password = Some("right");
    for (password, works) in [("wrong\n", false), ("right\n", true)] {
        std::fs::write(&path, password).unwrap();
        let meter = meters(&format!("{METER}password_file = {path:?}\n")).remove(0);
        assert!(!format!("{meter:?}").contains(password.trim()));
        let outcome = session(&parts, &meter, &mut MeterMemory::new(meter.reads.len()), &body).await;
        match outcome {
            Ok(_) => assert!(works),
            Err(error) => {
                assert!(!works && error.is_wrong_password(), "{error:?}");
                assert_eq!(error.state(), Some(MeterState::Refusing));
                assert!(error.text().ends_with(": is password_file of its section right?"), "{}", error.text());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_moves_no_cursor() {
    let clock = TokioClock::shared(T0);
    let settings = OutboxSettings { bytes_max: 160 * 1024, ..OutboxSettings::new(GatewayId::new("gw-1").unwrap()) };
    let (handle, outbox) = OutboxHandle::inline(Outbox::in_memory(settings, Box::new(|| 1)).unwrap().0);
    let parts = SessionParts { outbox: handle, ..parts(&clock).0 };
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 60);
    let mut memory = MeterMemory::new(meter.reads.len());
    let error = session(&parts, &meter, &mut memory, &body).await.unwrap_err();
    assert!(error.is_storage() && error.state().is_none(), "{error}");
    assert_eq!(parts.metrics.value(Metric::StoreErrors), 1);
    assert!(error.text().starts_with("the outbox did not take it: the outbox is full: "), "{}", error.text());
    // What is on the disk agrees with its cursor: each entry is there, or in a gap.
    let before = stored(&outbox);
    let keys = ProfileCursor::keys("SIM0001 1-0:99.1.0");
    let rows: Vec<_> = keys.iter().map(|key| outbox.lock().unwrap().cursor(key).unwrap()).collect();
    let cursor = ProfileCursor::from_rows(&rows).unwrap();
    let floor = T0.0 - 40 * 86_400_000;
    for entry in entries(&body).into_iter().filter(|(at, _, _)| *at > floor) {
        assert_ne!(before.contains_key(&entry), cursor.gaps().iter().any(|gap| gap.contains(UtcMillis(entry.0))));
    }
}
