use protocols::metering::{Code, Kind, ObisCode, Quality, Quantity, Unit};
use protocols::uplink::{ExpectedSeries, Inventory};

use super::*;
use crate::memory::MemoryStore;
use crate::store::{StoredReading, WriteTimestamp};

const BERLIN: &str = "Europe/Berlin";

fn day(text: &str) -> Day {
    text.parse().unwrap()
}

fn window(text: &str, zone: &str) -> Window {
    Window::of_day(day(text), &find_zone(zone).unwrap()).unwrap()
}

fn meter(name: &str) -> MeterId {
    MeterId::new(name).unwrap()
}

fn expected(kind: Kind, cadence_s: u32) -> ExpectedSeries {
    let period_s = if kind.has_period() { cadence_s } else { 0 };
    ExpectedSeries { code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)), kind, period_s, cadence_s }
}

fn entry(name: &str, state: MeterState, expected: Vec<ExpectedSeries>) -> MeterEntry {
    MeterEntry {
        name: name.to_owned(),
        meter: Some(meter(name)),
        metering_point: None,
        protocol: "dlms".to_owned(),
        expected,
        last_read_at: None,
        clock_offset_ms: None,
        state,
        cause: String::new(),
    }
}

fn put(store: &MemoryStore, name: &str, expected: &ExpectedSeries, instants: impl Iterator<Item = UtcMillis>) {
    for captured_at in instants {
        let series = Series {
            meter: meter(name),
            code: expected.code.clone(),
            kind: expected.kind,
            period_s: expected.period_s,
        };
        store.insert(StoredReading {
            series,
            captured_at,
            nth: 0,
            quantity: Quantity::new(1, 0, Unit::WATT_HOUR),
            quality: Quality::GOOD,
            gateway: GatewayId::new("gw-1").unwrap(),
            read_at: captured_at,
            occurred_at: None,
            written: WriteTimestamp(0),
        });
    }
}

fn put_inventory(store: &MemoryStore, gateway: &str, sealed_at: UtcMillis, meters: Vec<MeterEntry>) {
    let gateway = GatewayId::new(gateway).unwrap();
    store.inventories.lock().unwrap().insert(gateway, (sealed_at, Inventory { meters }));
}

/// Labels of every interval of the window: the ends, the last one at its end.
fn labels(window: Window, cadence_s: i64) -> impl Iterator<Item = UtcMillis> {
    let count = window.to.since(window.from) / (cadence_s * 1000);
    (1..=count).map(move |n| window.from.plus_ms(n * cadence_s * 1000))
}

async fn report(store: &MemoryStore, text: &str, zone: &str) -> CompletenessReport {
    let zone = find_zone(zone).unwrap();
    let now = Window::of_day(day(text), &zone).unwrap().to.plus_ms(3_600_000);
    completeness(store, day(text), &zone, now).await.unwrap()
}

#[test]
fn local_days_have_23_24_or_25_hours() {
    for (text, zone, hours, from) in [
        ("2026-03-29", BERLIN, 23.0, "2026-03-28T23:00:00Z"),
        ("2026-10-25", BERLIN, 25.0, "2026-10-24T22:00:00Z"),
        ("2026-06-01", BERLIN, 24.0, "2026-05-31T22:00:00Z"),
        ("2026-06-01", "UTC", 24.0, "2026-06-01T00:00:00Z"),
        // Half an hour of daylight saving.
        ("2026-04-05", "Australia/Lord_Howe", 24.5, "2026-04-04T13:00:00Z"),
        // Clocks go forward at midnight: the day begins at one o'clock.
        ("2026-04-24", "Africa/Cairo", 23.0, "2026-04-23T22:00:00Z"),
    ] {
        let window = window(text, zone);
        assert_eq!((window.hours(), window.from.to_string()), (hours, from.to_owned()), "{text} {zone}");
    }
    assert!(matches!(find_zone("Europe/Nowhere"), Err(CompletenessError::Zone { .. })));
}

#[tokio::test]
async fn a_day_of_any_length_is_complete_with_all_its_intervals() {
    for (text, count) in [("2026-03-29", 46), ("2026-10-25", 50), ("2026-06-01", 48)] {
        let store = MemoryStore::default();
        let half_hours = expected(Kind::Interval, 1800);
        let window = window(text, BERLIN);
        put_inventory(&store, "gw-1", window.to, vec![entry("A", MeterState::Ok, vec![half_hours.clone()])]);
        // The neighbours' readings must not stand in for missing ones.
        put(&store, "A", &half_hours, [window.from, window.to.plus_ms(1_800_000)].into_iter());
        put(&store, "A", &half_hours, labels(window, 1800));
        let full = report(&store, text, BERLIN).await;
        assert_eq!((full.expected(), full.held()), (count, count), "{full}");
        assert!(full.meets(100.0) && full.need_attention().count() == 0);
        assert_eq!(full.summary("yesterday"), "1 of 1 meter complete for yesterday");
        store.rows.lock().unwrap().retain(|_, row| row.captured_at != window.to);
        let lacking = report(&store, text, BERLIN).await;
        assert_eq!(lacking.held(), count - 1, "the interval that ends at midnight belongs to this day");
        assert!(!lacking.meets(100.0) && lacking.meets(97.0));
        let gap = lacking.meters[0].series[0].gaps[0];
        assert_eq!((gap.from, gap.to, gap.missing), (window.to.plus_ms(-1_800_000), window.to, 1));
    }
}

#[tokio::test]
async fn reads_with_jitter_are_complete_and_a_gap_is_told() {
    let store = MemoryStore::default();
    let window = window("2026-06-01", BERLIN);
    let (registers, instants) = (expected(Kind::Register, 900), expected(Kind::Instant, 10));
    let meters = vec![entry("A", MeterState::Ok, vec![registers.clone(), instants.clone()])];
    put_inventory(&store, "gw-1", window.to, meters);
    // Seven seconds late each, and up to four seconds about every ten.
    put(&store, "A", &registers, (0..96).map(|n| window.from.plus_ms(n * 900_000 + 7_000)));
    put(&store, "A", &instants, (0..8640).map(|n| window.from.plus_ms(n * 10_000 + (n * 7919) % 4_000)));
    let full = report(&store, "2026-06-01", BERLIN).await;
    assert_eq!((full.expected(), full.held()), (8736, 8736), "{full}");
    let (noon, one) = (window.from.plus_ms(12 * 3_600_000), window.from.plus_ms(13 * 3_600_000));
    store.rows.lock().unwrap().retain(|_, row| row.captured_at < noon || row.captured_at >= one);
    let lacking = report(&store, "2026-06-01", BERLIN).await;
    assert_eq!(lacking.meters[0].series.iter().map(|series| series.held).collect::<Vec<_>>(), [92, 8280], "{lacking}");
    assert!(lacking.meters[0].cause.as_ref().unwrap().contains("none from 2026-06-01T09:"), "{lacking}");
    assert_eq!(lacking.summary("yesterday"), "0 of 1 meter complete for yesterday, 1 needs attention");
}

#[tokio::test]
async fn missing_at_the_edges_of_the_day_is_seen() {
    let store = MemoryStore::default();
    let window = window("2026-06-01", "UTC");
    let registers = expected(Kind::Register, 900);
    put_inventory(&store, "gw-1", window.to, vec![entry("A", MeterState::Ok, vec![registers.clone()])]);
    put(&store, "A", &registers, (4..90).map(|n| window.from.plus_ms(n * 900_000 + 7_000)));
    let report = report(&store, "2026-06-01", "UTC").await;
    assert_eq!((report.expected(), report.held()), (96, 86), "{report}");
    assert_eq!(report.meters[0].series[0].gaps.iter().map(|gap| gap.missing).collect::<Vec<_>>(), [4, 6]);
}

/// Two readings a little early make a day of 95; the neighbours show that none is missing.
#[tokio::test]
async fn a_reading_that_slipped_into_the_neighbouring_day_is_not_missing() {
    let store = MemoryStore::default();
    let window = window("2026-06-01", "UTC");
    let registers = expected(Kind::Register, 900);
    put_inventory(&store, "gw-1", window.to, vec![entry("A", MeterState::Ok, vec![registers.clone()])]);
    let jitter = |n: i64| if n == 0 { -2_000 } else { 3_000 };
    put(&store, "A", &registers, (-3..99).map(|n| window.from.plus_ms(n * 900_000 + jitter(n))));
    assert_eq!(report(&store, "2026-06-01", "UTC").await.held(), 96);
    store.rows.lock().unwrap().retain(|_, row| row.captured_at != window.from.plus_ms(-2_000));
    assert_eq!(report(&store, "2026-06-01", "UTC").await.held(), 95, "now it is");
}

#[tokio::test]
async fn the_cause_is_the_meters_state_before_anything_else() {
    let store = MemoryStore::default();
    let window = window("2026-06-01", "UTC");
    let half_hours = || vec![expected(Kind::Interval, 1800)];
    let silent = MeterEntry { last_read_at: Some(UtcMillis(0)), ..entry("A", MeterState::Silent, half_hours()) };
    let never = entry("B", MeterState::Silent, half_hours());
    let wrong =
        MeterEntry { cause: "expected C, found X".to_owned(), ..entry("C", MeterState::WrongIdentity, half_hours()) };
    let clock = MeterEntry { clock_offset_ms: Some(-95_000), ..entry("D", MeterState::ClockOff, half_hours()) };
    let refusing = MeterEntry { cause: "1-0:99.1.0".to_owned(), ..entry("E", MeterState::Refusing, half_hours()) };
    let ok = entry("F", MeterState::Ok, half_hours());
    let unknown = MeterEntry { meter: None, ..entry("G", MeterState::Unknown, Vec::new()) };
    put_inventory(&store, "gw-1", window.to, vec![silent, never, wrong, clock, refusing, ok, unknown]);
    put_inventory(&store, "gw-2", UtcMillis(0), vec![entry("H", MeterState::Ok, half_hours())]);
    put(&store, "D", &half_hours()[0], labels(window, 1800));
    let report = report(&store, "2026-06-01", "UTC").await;
    let cause = |name: &str| {
        let meter = report.meters.iter().find(|meter| meter.name == name).unwrap();
        (meter.is_complete, meter.cause.clone().unwrap_or_default())
    };
    assert_eq!(cause("A"), (false, "silent since 1970-01-01T00:00:00Z".to_owned()));
    assert_eq!(cause("B"), (false, "never answered".to_owned()));
    assert_eq!(cause("C"), (false, "wrong identity: expected C, found X".to_owned()));
    assert_eq!(cause("D"), (true, "clock off by -95 s".to_owned()));
    assert_eq!(cause("E"), (false, "refuses an object: 1-0:99.1.0".to_owned()));
    assert!(cause("F").1.starts_with("1-0:1.8.0 interval: 0 of 48 readings, none from"));
    assert_eq!(cause("G"), (false, "never identified".to_owned()));
    assert_eq!(cause("H"), (false, "gateway gw-2 not heard of since 1970-01-01T00:00:00Z".to_owned()));
    assert_eq!(report.summary("yesterday"), "1 of 8 meters complete for yesterday, 8 need attention");
}

#[tokio::test]
async fn a_meter_that_moved_counts_once_and_a_day_not_over_counts_so_far() {
    let store = MemoryStore::default();
    let window = window("2026-06-01", "UTC");
    let half_hours = expected(Kind::Interval, 1800);
    put_inventory(&store, "gw-1", window.to, vec![entry("A", MeterState::Silent, vec![half_hours.clone()])]);
    put_inventory(&store, "gw-2", window.from, vec![entry("A", MeterState::Ok, vec![half_hours.clone()])]);
    put(&store, "A", &half_hours, labels(window, 1800).take(20));
    let zone = find_zone("UTC").unwrap();
    let now = window.from.plus_ms(10 * 3_600_000);
    let report = completeness(&store, day("2026-06-01"), &zone, now).await.unwrap();
    assert_eq!((report.meters.len(), report.expected(), report.held()), (1, 20, 20), "{report}");
    assert!(!report.day_is_over && report.meters[0].cause.is_none());
    let args = CompletenessArgs { day: day("2026-06-01"), tz: "UTC".to_owned(), target: 100.0, json: true };
    let mut out = Vec::new();
    assert_eq!(run(&args, &store, now, &mut out).await.unwrap(), 0);
    assert_eq!(run(&args, &store, window.to, &mut out).await.unwrap(), 1);
    assert!(
        String::from_utf8(out).unwrap().lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
}

/// Control: round what is due until the present as in a whole day.
#[tokio::test]
async fn what_is_not_due_yet_is_not_expected() {
    let store = MemoryStore::default();
    let window = window("2026-06-01", "UTC");
    let (half_hours, daily) = (expected(Kind::Interval, 1800), expected(Kind::Interval, 86_400));
    put_inventory(&store, "gw-1", window.from, vec![entry("A", MeterState::Ok, vec![half_hours.clone(), daily])]);
    put(&store, "A", &half_hours, labels(window, 1800).take(20));
    let zone = find_zone("UTC").unwrap();
    for (minutes, due) in [(10 * 60, 20), (10 * 60 + 16, 20), (18 * 60 + 16, 36)] {
        let now = window.from.plus_ms(minutes * 60_000);
        let report = completeness(&store, day("2026-06-01"), &zone, now).await.unwrap();
        assert_eq!((report.expected(), report.held()), (due, 20), "after {minutes} minutes: {report}");
    }
}

/// Control, seen to fail: no age in `is_seen`.
#[tokio::test]
async fn a_gateway_that_is_long_silent_sees_nothing() {
    let window = window("2026-06-01", "UTC");
    let half_hours = expected(Kind::Interval, 1800);
    let now = window.to.plus_ms(3_600_000);
    for (age_h, state, seen_by) in [
        (35, MeterState::Ok, 2),
        (37, MeterState::Ok, 1),
        (1, MeterState::Silent, 1),
        (1, MeterState::WrongIdentity, 2),
    ] {
        let store = MemoryStore::default();
        put_inventory(&store, "gw-1", now, vec![entry("A", MeterState::Ok, vec![half_hours.clone()])]);
        put_inventory(
            &store,
            "gw-2",
            now.plus_ms(-age_h * 3_600_000),
            vec![entry("A", state, vec![half_hours.clone()])],
        );
        put(&store, "A", &half_hours, labels(window, 1800));
        let report = report(&store, "2026-06-01", "UTC").await;
        assert_eq!(report.meters.len(), 1);
        assert_eq!(report.meters[0].seen_by.len(), seen_by, "{age_h} h, {state:?}");
        assert_eq!(report.need_attention().count(), usize::from(seen_by == 2));
    }
}
