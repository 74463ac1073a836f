use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::*;

/// A cloud of which the tests know what it holds, and what it was asked.
#[derive(Default)]
pub(crate) struct TestCloud {
    /// By series as text: instants, on the grid or beside it.
    pub(crate) held: Mutex<BTreeMap<String, BTreeSet<UtcMillis>>>,
    pub(crate) asked: Mutex<Vec<(String, HeldGrid)>>,
    pub(crate) unreachable: Mutex<bool>,
    /// How long an answer takes.
    pub(crate) latency: Mutex<Duration>,
}

#[async_trait]
impl HeldRanges for TestCloud {
    async fn ranges_held(&self, series: &Series, grid: &HeldGrid) -> Result<Vec<(UtcMillis, UtcMillis)>, UploadError> {
        let latency = *self.latency.lock().unwrap();
        tokio::time::sleep(latency).await;
        self.asked.lock().unwrap().push((series.to_string(), *grid));
        if *self.unreachable.lock().unwrap() {
            return Err(UploadError::Unreachable { host: "cloud".to_owned(), port: 1, cause: "as told".to_owned() });
        }
        let step_ms = i64::from(grid.step_s) * 1000;
        let held = self.held.lock().unwrap();
        let mut ranges: Vec<(UtcMillis, UtcMillis)> = Vec::new();
        for at in held.get(&series.to_string()).into_iter().flatten() {
            if !(grid.from..=grid.to).contains(at) || at.since(grid.from) % step_ms != 0 {
                continue;
            }
            match ranges.last_mut() {
                Some((_, last)) if at.since(*last) == step_ms => *last = *at,
                _ => ranges.push((*at, *at)),
            }
        }
        Ok(ranges)
    }
}

const STEP_MS: i64 = 900_000;

fn at(step: i64) -> UtcMillis {
    UtcMillis(1_795_392_000_000 + step * STEP_MS)
}

fn question(series: &[&str], margin_ms: i64) -> Question {
    let grid = HeldGrid { from: at(0), to: at(100), step_s: 900 };
    Question { series: series.iter().map(|series| series.parse().unwrap()).collect(), grid, margin_ms, label_lag_ms: 0 }
}

const IMPORT: &str = "KFM:1 1-0:1.8.0 register";
const EXPORT: &str = "KFM:1 1-0:2.8.0 register";

/// Control, seen to fail: the answer of the last series alone.
#[tokio::test(start_paused = true)]
async fn held_is_what_every_series_holds() {
    let cloud = Arc::new(TestCloud::default());
    let hold = |series: &str, steps: &[std::ops::RangeInclusive<i64>]| {
        let instants = steps.iter().cloned().flatten().map(at).collect();
        cloud.held.lock().unwrap().insert(series.to_owned(), instants);
    };
    hold(IMPORT, &[0..=40, 50..=100]);
    hold(EXPORT, &[20..=60, 70..=100]);
    let asker = HeldAsker::new(cloud.clone());
    let ask = |question| asker.ask(question);
    let spans = |ranges: &[(i64, i64)], margin_ms: i64| {
        ranges.iter().map(|(first, last)| Span::new(at(*first), at(*last).plus_ms(1 - margin_ms))).collect::<Vec<_>>()
    };
    let both = ask(question(&[IMPORT, EXPORT], 0)).await.unwrap().unwrap();
    assert_eq!(both, spans(&[(20, 40), (50, 60), (70, 100)], 0));
    let with_margin = ask(question(&[IMPORT, EXPORT], 12 * STEP_MS)).await.unwrap().unwrap();
    assert_eq!(with_margin, spans(&[(20, 40), (70, 100)], 12 * STEP_MS));
    // A column that was never delivered: nothing is held, and nobody is asked in vain.
    cloud.asked.lock().unwrap().clear();
    assert_eq!(ask(question(&["KFM:1 1-0:3.8.0 register", IMPORT], 0)).await.unwrap().unwrap(), []);
    assert_eq!(cloud.asked.lock().unwrap().len(), 1);
    assert_eq!(ask(question(&[], 0)).await.unwrap().unwrap(), []);
    *cloud.unreachable.lock().unwrap() = true;
    assert!(ask(question(&[IMPORT], 0)).await.unwrap().is_err());
}

/// Controls, seen to fail: no time-out; questions that go on when nobody waits.
#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_an_error_and_a_question_can_be_withdrawn() {
    let cloud = Arc::new(TestCloud::default());
    *cloud.latency.lock().unwrap() = Duration::from_secs(3_600);
    let asker = HeldAsker::new(cloud.clone());
    let answer = asker.ask(question(&[IMPORT], 0)).await.unwrap();
    assert!(matches!(answer, Err(UploadError::TimedOut(_))), "{answer:?}");
    // More than may be asked at once, and all of them under way.
    let withdrawn: Vec<_> = (0..100).map(|_| asker.ask(question(&[IMPORT], 0))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(withdrawn);
    *cloud.latency.lock().unwrap() = Duration::ZERO;
    let next = tokio::time::timeout(Duration::from_secs(1), asker.ask(question(&[IMPORT], 0)));
    assert_eq!(next.await.unwrap().unwrap().unwrap(), []);
    assert_eq!(cloud.asked.lock().unwrap().len(), 1);
}

#[test]
fn an_answer_out_of_order_names_no_more_than_it_says() {
    let range = |first, last| (at(first), at(last));
    let asked = [range(0, 100)];
    assert_eq!(
        in_both(&asked, &[range(50, 60), range(-5, 10), range(55, 200), range(9, 3)]),
        [range(0, 10), range(50, 60), range(55, 100)]
    );
}
