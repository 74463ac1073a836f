use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const T0: i64 = 1_795_392_060_000;
const PERIOD_MS: i64 = 900_000;

/// A meter, a disk, and a gateway that may die at any moment.
struct World {
    /// Real time.
    now: i64,
    /// The meter's clock minus real time.
    offset_ms: i64,
    /// Label and a number of its own, in the order of capture; visible some seconds after the label.
    entries: Vec<(i64, usize)>,
    captured_to: i64,
    disk: std::collections::HashMap<String, i64>,
    stored: BTreeSet<usize>,
    /// The clock was set since the disk last heard of it.
    is_set: bool,
    /// What a living gateway holds in memory.
    memory: Option<(ProfileCursor, Option<i64>)>,
}

/// Where a session dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    None,
    BeforeStore,
    /// On the disk, but nobody was told.
    AfterStore,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: T0,
            offset_ms: 0,
            entries: Vec::new(),
            captured_to: T0 - 3 * DAY_MS,
            disk: std::collections::HashMap::new(),
            stored: BTreeSet::new(),
            is_set: false,
            memory: None,
        };
        world.capture();
        world
    }

    fn meter_now(&self) -> i64 {
        self.now + self.offset_ms
    }

    fn capture(&mut self) {
        let mut label = (self.captured_to.div_euclid(PERIOD_MS) + 1) * PERIOD_MS;
        while label <= self.meter_now() {
            self.entries.push((label, self.entries.len()));
            label += PERIOD_MS;
        }
        self.captured_to = self.meter_now();
    }

    fn advance(&mut self, ms: i64) {
        self.now += ms;
        self.capture();
    }

    /// Once between two sessions: set back and then further forward, a clock hides where it has been.
    fn set_clock(&mut self, by_ms: i64) {
        if std::mem::replace(&mut self.is_set, true) {
            return;
        }
        self.offset_ms += by_ms;
        self.captured_to = self.meter_now();
    }

    /// As a session of the gateway does it. `late_ms`: the newest entry is not visible for so long after its label.
    fn session(&mut self, backfill: bool, late_ms: i64, death: Death) {
        let rhythm = Rhythm::of(900);
        let meter_now = UtcMillis(self.meter_now());
        let offset = self.offset_ms.div_euclid(1000) * 1000;
        if backfill && has_leapt(self.known_offset(), offset) {
            return self.session(false, late_ms, death);
        }
        let (mut cursor, known_offset) = self.memory.take().unwrap_or_else(|| {
            let rows: Vec<Option<i64>> =
                ProfileCursor::keys("k").iter().map(|key| self.disk.get(key).copied()).collect();
            let cursor = ProfileCursor::from_rows(&rows).unwrap_or_else(|| ProfileCursor::start(meter_now, 5));
            (cursor, self.disk.get("offset").copied())
        });
        let set_back = rewound_by(known_offset, offset);
        if set_back.is_some() || cursor.is_ahead_of(meter_now) {
            cursor = cursor.rewound(set_back, meter_now);
        }
        let span = if backfill { cursor.backfill(rhythm) } else { Some(cursor.live(meter_now, rhythm)) };
        let mut next = cursor.clone();
        let mut read = Vec::new();
        if let Some(span) = span {
            let visible = |label: i64| label + late_ms <= meter_now.0 || label > meter_now.0;
            read =
                self.entries.iter().filter(|(label, _)| span.contains(UtcMillis(*label)) && visible(*label)).collect();
            let last = read.iter().map(|(label, _)| UtcMillis(*label)).max();
            next =
                if backfill { cursor.after_backfill(span) } else { cursor.after_live(span, last, meter_now, rhythm) };
        }
        if death == Death::BeforeStore {
            return;
        }
        self.is_set = false;
        self.stored.extend(read.iter().map(|(_, number)| *number));
        let noted = if set_back.is_some() || known_offset.is_none_or(|known| offset >= known + 1000) {
            Some(offset)
        } else {
            known_offset
        };
        self.disk.extend(next.writes(None, "k"));
        self.disk.extend(noted.map(|offset| ("offset".to_owned(), offset)));
        if death == Death::None {
            self.memory = Some((next, noted));
        }
    }

    fn known_offset(&self) -> Option<i64> {
        self.memory.as_ref().map_or_else(|| self.disk.get("offset").copied(), |(_, offset)| *offset)
    }

    fn settle(&mut self) {
        // What the newest entry needs to become visible, and the live reads that follow.
        self.advance(60_000);
        for _ in 0..3 {
            self.session(false, 0, Death::None);
        }
        while self.memory.as_ref().is_some_and(|(cursor, _)| !cursor.gaps().is_empty()) {
            self.session(true, 0, Death::None);
        }
    }

    fn missing(&self) -> Vec<(i64, usize)> {
        self.entries.iter().filter(|(_, number)| !self.stored.contains(number)).copied().collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Advance(i64),
    Live(i64, Death),
    Backfill(Death),
    Restart,
    SetClock(i64),
}

fn death() -> impl Strategy<Value = Death> {
    prop_oneof![4 => Just(Death::None), 1 => Just(Death::BeforeStore), 1 => Just(Death::AfterStore)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_000..3 * HOUR_MS).prop_map(Step::Advance),
        1 => (HOUR_MS..9 * DAY_MS).prop_map(Step::Advance),
        6 => (0_i64..20_000, death()).prop_map(|(late, death)| Step::Live(late, death)),
        4 => death().prop_map(Step::Backfill),
        1 => Just(Step::Restart),
        1 => (-5 * HOUR_MS..5 * HOUR_MS).prop_map(Step::SetClock),
        1 => (-7_000_i64..7_000).prop_map(Step::SetClock),
        1 => prop_oneof![Just(700 * DAY_MS), Just(-700 * DAY_MS)].prop_map(Step::SetClock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    // Control, seen to fail: moving `head` to the meter's time.
    #[test]
    fn every_entry_is_stored_whatever_dies_when(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        world.session(false, 0, Death::None);
        for step in steps {
            match step {
                Step::Advance(ms) => world.advance(ms),
                Step::Live(late, death) => world.session(false, late, death),
                Step::Backfill(death) => world.session(true, 0, death),
                Step::Restart => world.memory = None,
                Step::SetClock(by) => world.set_clock(by),
            }
        }
        world.settle();
        let missing = world.missing();
        prop_assert!(missing.is_empty(), "{missing:?} of {}", world.entries.len());
    }
}

#[test]
fn the_newest_chunk_comes_first_and_the_rest_is_a_gap() {
    let now = UtcMillis(T0);
    let rhythm = Rhythm::of(900);
    let cursor = ProfileCursor::start(now, 40);
    let span = cursor.live(now, rhythm);
    assert_eq!(span, Span::new(now.plus_ms(1 - DAY_MS), now.plus_ms(1)));
    let last = UtcMillis(T0 - 60_000);
    let mut cursor = cursor.after_live(span, Some(last), now, rhythm);
    assert_eq!(cursor.head(), last.plus_ms(1));
    let mut ends = Vec::new();
    while let Some(span) = cursor.backfill(rhythm) {
        ends.push(span.to);
        cursor = cursor.after_backfill(span);
    }
    assert_eq!(ends.len(), 39);
    assert!(ends.is_sorted_by(|a, b| a > b));
    assert_eq!(cursor.head(), last.plus_ms(1), "backfill does not move the head");
}

#[test]
fn an_entry_that_is_late_is_waited_for() {
    let rhythm = Rhythm::of(900);
    let now = UtcMillis(T0 - T0 % PERIOD_MS);
    let cursor = ProfileCursor { head: now.plus_ms(1 - PERIOD_MS), gaps: Vec::new(), unasked_below: None };
    let next = cursor.after_live(cursor.live(now, rhythm), None, now, rhythm);
    assert_eq!(next, cursor, "the meter's time alone moves nothing");
    let much_later = now.plus_ms(3 * HOUR_MS);
    let next = cursor.after_live(cursor.live(much_later, rhythm), None, much_later, rhythm);
    assert_eq!(next.head(), much_later.plus_ms(-HOUR_MS));
}

#[test]
fn a_leap_of_years_leaves_both_ends_to_be_read() {
    let rhythm = Rhythm::of(900);
    let cursor = ProfileCursor { head: UtcMillis(946_684_800_000), gaps: Vec::new(), unasked_below: None };
    let now = UtcMillis(T0);
    let next = cursor.after_live(cursor.live(now, rhythm), None, now, rhythm);
    let [old, new] = next.gaps() else { panic!("{:?}", next.gaps()) };
    assert_eq!((old.from.0, old.to.since(old.from)), (946_684_790_000, 40 * DAY_MS));
    assert_eq!((new.to.since(new.from), new.to), (400 * DAY_MS, now.plus_ms(1 - DAY_MS)));
}

#[test]
fn only_what_changed_is_written() {
    let rhythm = Rhythm::of(900);
    let now = UtcMillis(T0);
    let before = ProfileCursor::start(now, 3);
    let after = before.after_live(before.live(now, rhythm), Some(now), now, rhythm);
    let writes = after.writes(Some(&before), "k");
    assert_eq!(writes.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["k head", "k gap0 from", "k gap0 to"]);
    let rows: Vec<Option<i64>> = ProfileCursor::keys("k")
        .iter()
        .map(|key| after.writes(None, "k").iter().find(|(of, _)| of == key).map(|(_, value)| *value))
        .collect();
    assert_eq!(ProfileCursor::from_rows(&rows), Some(after));
    assert_eq!(ProfileCursor::from_rows(&vec![None; rows.len()]), None);
}

/// What the cloud may hold: every grid label that the bits choose, and the ranges that it would name.
fn held_spans(first: i64, bits: &[bool]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (number, _) in (0..).zip(bits).filter(|(_, held)| **held) {
        let label = first + number * PERIOD_MS;
        match spans.last_mut() {
            Some(span) if span.to.0 + PERIOD_MS == label + 1 => span.to = UtcMillis(label + 1),
            _ => spans.push(Span::new(UtcMillis(label), UtcMillis(label + 1))),
        }
    }
    spans
}

proptest! {
    // Control, seen to fail: `tidy` dropping the oldest gap in place of joining two.
    #[test]
    fn only_what_is_held_is_skipped(bits in prop::collection::vec(any::<bool>(), 480), runs in 1_usize..40) {
        // Long and short ranges.
        let bits: Vec<bool> = (0..480).map(|n| bits[n / runs]).collect();
        let rhythm = Rhythm::of(900);
        let now = UtcMillis(T0);
        let start = ProfileCursor::start(now, 6);
        let cursor = start.after_live(start.live(now, rhythm), Some(UtcMillis(T0 - 60_000)), now, rhythm);
        let first = T0 - 60_000 - 560 * PERIOD_MS;
        let answered = cursor.after_answer(&held_spans(first, &bits));
        prop_assert!(answered.gaps().len() <= GAPS_MAX && answered.unasked().is_none());
        for (number, held) in (0..).zip(&bits) {
            let label = UtcMillis(first + number * PERIOD_MS);
            let missing = |cursor: &ProfileCursor| cursor.gaps().iter().any(|gap| gap.contains(label));
            prop_assert!(*held || missing(&answered) == missing(&cursor), "{label} is skipped");
        }
        // Nothing is read that is held, as long as there is room to say so.
        let held = |label: &UtcMillis| bits[((label.0 - first) / PERIOD_MS) as usize];
        let ranges = held_spans(first, &bits).len();
        if ranges < GAPS_MAX {
            let mut labels = (0..480).map(|number| UtcMillis(first + number * PERIOD_MS)).filter(held);
            prop_assert!(!labels.any(|label| answered.gaps().iter().any(|gap| gap.contains(label))));
        }
    }
}

#[test]
fn what_the_cloud_may_be_asked_for_survives_a_restart_and_ends_with_a_clock_that_is_set_back() {
    let rhythm = Rhythm::of(900);
    let now = UtcMillis(T0);
    let start = ProfileCursor::start(now, 5);
    let cursor = start.after_live(start.live(now, rhythm), Some(now), now, rhythm);
    let asked = cursor.unasked().unwrap();
    assert_eq!((asked.from, asked.to), (now.plus_ms(1 - 5 * DAY_MS), now.plus_ms(1)));
    let rows: Vec<Option<i64>> = cursor.writes(None, "k").into_iter().map(|(_, value)| Some(value)).collect();
    assert_eq!(ProfileCursor::from_rows(&rows), Some(cursor.clone()));
    // The rows of a version that did not ask.
    assert_eq!(ProfileCursor::from_rows(&rows[..rows.len() - 1]).unwrap().unasked(), None);
    assert_eq!(cursor.rewound(Some(60_000), now).unasked(), None);
    assert_eq!(cursor.rewound(Some(60_000), now).after_answer(&[asked]), cursor.rewound(Some(60_000), now));
    // An outage later on is none of its business.
    let later = now.plus_ms(5 * DAY_MS);
    let after_outage = cursor.after_answer(&[asked]);
    assert!(after_outage.gaps().is_empty());
    let after_outage = after_outage.after_live(after_outage.live(later, rhythm), Some(later), later, rhythm);
    assert_eq!((after_outage.gaps().len(), after_outage.unasked()), (1, None));
    let unanswered = cursor.after_live(cursor.live(later, rhythm), Some(later), later, rhythm);
    let all = Span::new(UtcMillis(0), later);
    assert_eq!(unanswered.after_answer(&[all]).gaps().first().unwrap().from, now.plus_ms(1));
}
