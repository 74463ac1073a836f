use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocols::uplink::limits::RECEIPT_BYTES_MAX;
use protocols::uplink::{BatchId, Sha256};

use super::*;

const INCARNATION: u64 = 0xabcd;
const SEQS: u64 = 20;

fn gateway() -> GatewayId {
    GatewayId::new("gw-1").unwrap()
}

fn reference(seq: u64, floor: u64) -> BatchRef {
    BatchRef {
        id: BatchId { gateway: gateway(), incarnation: INCARNATION, seq },
        floor,
        sha256: Sha256([7; 32]),
        bytes: 100,
        uncompressed_bytes: 200,
        readings: 1,
        events: 0,
        first_at: UtcMillis(0),
        last_at: UtcMillis(0),
    }
}

fn status(last_sealed: u64, floor: u64, abandoned: SeqSet) -> Status {
    Status {
        gateway: gateway(),
        written_at: UtcMillis(5),
        software: "0.1.0".to_owned(),
        incarnations: vec![IncarnationStatus { incarnation: INCARNATION, last_sealed, floor, abandoned }],
        backlog_rows: 3,
        backlog_since: None,
        dropped: 0,
        repeated: 0,
        certificate: None,
    }
}

fn receipt(ledger: &GatewayLedger) -> Receipt {
    ledger.receipt(&gateway(), INCARNATION, &Answers::default(), UtcMillis(1))
}

/// What the worker does with a ref, without the payloads: `outcome` is what judging it would say.
fn take_ref(ledger: &mut GatewayLedger, reference: &BatchRef, outcome: &Outcome, landed: &BTreeSet<u64>) -> Verdict {
    if ledger.lookup(reference) == Verdict::Stale {
        return Verdict::Stale;
    }
    let at = UtcMillis(0);
    for seq in ledger.forgotten(INCARNATION, reference.floor).iter().filter(|seq| landed.contains(seq)) {
        ledger.apply(INCARNATION, seq);
    }
    ledger.hear_ref(reference, at);
    ledger.note_floor(INCARNATION, reference.floor);
    let verdict = ledger.lookup(reference);
    if verdict == Verdict::New {
        match outcome {
            Outcome::Apply => assert!(ledger.try_apply(INCARNATION, reference.id.seq)),
            Outcome::Refuse => assert!(ledger.refuse(INCARNATION, reference.id.seq, "broken")),
            Outcome::Resend => {}
        }
    }
    verdict
}

#[derive(Debug, Clone)]
enum Outcome {
    Apply,
    Refuse,
    Resend,
}

#[derive(Debug, Clone)]
enum Step {
    Ref {
        seq: u64,
        floor: u64,
        outcome: Outcome,
    },
    Status {
        last_sealed: u64,
        floor: u64,
        abandoned: Vec<u64>,
    },
    /// The ledger goes to the log and comes back.
    Restart,
    /// The cloud's log is gone; the landing area is not.
    Forget,
}

/// What one seq is, told naively.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Applied,
    RefusedOpen,
    RefusedPast,
    Lost,
    Abandoned,
}

#[derive(Debug, Default)]
struct Model {
    fates: BTreeMap<u64, Fate>,
    watermark: u64,
    last_sealed: u64,
}

impl Model {
    fn floor(&mut self, floor: u64, landed: &BTreeSet<u64>) {
        for seq in 1..floor {
            match self.fates.get(&seq) {
                None if seq > self.watermark => {
                    self.fates.insert(seq, if landed.contains(&seq) { Fate::Applied } else { Fate::Lost });
                }
                Some(Fate::RefusedOpen) => {
                    self.fates.insert(seq, Fate::RefusedPast);
                }
                _ => {}
            }
        }
        self.advance();
    }

    fn advance(&mut self) {
        while self.fates.get(&(self.watermark + 1)).is_some_and(|fate| *fate != Fate::RefusedOpen) {
            self.watermark += 1;
        }
    }

    fn step(&mut self, step: &Step, landed: &BTreeSet<u64>) {
        match step {
            Step::Ref { seq, floor, outcome } if floor <= seq => {
                self.last_sealed = self.last_sealed.max(*seq);
                self.floor(*floor, landed);
                if !matches!(self.fates.get(seq), None | Some(Fate::Lost | Fate::Abandoned)) {
                    return;
                }
                match outcome {
                    Outcome::Apply => drop(self.fates.insert(*seq, Fate::Applied)),
                    Outcome::Refuse => drop(self.fates.insert(*seq, Fate::RefusedOpen)),
                    Outcome::Resend => {}
                }
                self.advance();
            }
            Step::Status { last_sealed, floor, abandoned } => {
                self.last_sealed = self.last_sealed.max(*last_sealed);
                for seq in abandoned.iter().filter(|seq| **seq <= self.last_sealed) {
                    if matches!(self.fates.get(seq), None | Some(Fate::Lost)) {
                        self.fates.insert(*seq, Fate::Abandoned);
                    }
                }
                self.advance();
                self.floor((*floor).min(last_sealed + 1), landed);
            }
            Step::Forget => *self = Self::default(),
            Step::Ref { .. } | Step::Restart => {}
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let seq = || 1..=SEQS;
    let outcome = prop_oneof![4 => Just(Outcome::Apply), 1 => Just(Outcome::Refuse), 1 => Just(Outcome::Resend)];
    prop_oneof![
        // Mostly as gateways do it: the floor is not far behind the seq.
        12 => (seq(), 0u64..6, outcome.clone())
            .prop_map(|(seq, behind, outcome)| Step::Ref { seq, floor: seq.saturating_sub(behind).max(1), outcome }),
        3 => (seq(), seq(), outcome).prop_map(|(seq, floor, outcome)| Step::Ref { seq, floor, outcome }),
        3 => (seq(), seq(), proptest::collection::vec(seq(), 0..3))
            .prop_map(|(last_sealed, floor, abandoned)| Step::Status { last_sealed, floor, abandoned }),
        3 => Just(Step::Restart),
        1 => Just(Step::Forget),
    ]
}

/// The same with nothing listed.
fn without_lists(ledger: &GatewayLedger) -> GatewayLedger {
    let mut bare = ledger.clone();
    for incarnation in bare.incarnations.values_mut() {
        let Incarnation { watermark, last_sealed, floor, last_heard_at, .. } = *incarnation;
        *incarnation = Incarnation { watermark, last_sealed, floor, last_heard_at, ..Incarnation::default() };
    }
    bare
}

proptest! {
    #[test]
    fn it_says_what_a_list_of_every_seq_says(
        steps in proptest::collection::vec(step(), 1..60),
        landed in proptest::collection::btree_set(1..=SEQS, 0..6),
    ) {
        let (mut ledger, mut model) = (GatewayLedger::default(), Model::default());
        for step in &steps {
            match step {
                Step::Ref { seq, floor, outcome } => {
                    take_ref(&mut ledger, &reference(*seq, *floor), outcome, &landed);
                }
                Step::Status { last_sealed, floor, abandoned } => {
                    let status = status(*last_sealed, *floor, abandoned.iter().copied().collect());
                    for seq in ledger.forgotten_by_status(&status.incarnations[0]).iter() {
                        // What is recovered from the landing area was applied before the status is taken over.
                        if landed.contains(&seq) {
                            ledger.apply(INCARNATION, seq);
                        }
                    }
                    ledger.hear_status(&status, UtcMillis(0));
                    ledger.note_status_floors(&status);
                }
                Step::Restart => ledger = GatewayLedger::decode(&ledger.encode()).unwrap(),
                Step::Forget => ledger = GatewayLedger::default(),
            }
            model.step(step, &landed);

            let receipt = receipt(&ledger);
            prop_assert_eq!(receipt.applied_through, model.watermark, "after {:?}", step);
            for seq in 1..=SEQS + 1 {
                let fate = model.fates.get(&seq).copied();
                let expected = match fate {
                    None | Some(Fate::Lost | Fate::Abandoned) => Verdict::New,
                    Some(Fate::Applied) => Verdict::Applied,
                    Some(Fate::RefusedOpen) => Verdict::Refused("broken".to_owned()),
                    Some(Fate::RefusedPast) => Verdict::Refused(REFUSED_BEFORE.to_owned()),
                };
                prop_assert_eq!(ledger.lookup(&reference(seq, 1)), expected, "seq {} after {:?}", seq, step);
                // Only of what the gateway itself has settled may the cumulative part say more than is true.
                let covered = matches!(fate, Some(Fate::Abandoned | Fate::RefusedPast)) && seq <= model.watermark;
                prop_assert_eq!(receipt.says_applied(seq), fate == Some(Fate::Applied) || covered, "seq {}", seq);
                prop_assert_eq!(receipt.lost.contains(seq), fate == Some(Fate::Lost));
            }
            let listed = ledger.encode().len() - without_lists(&ledger).encode().len();
            prop_assert_eq!(ledger.room(), room::LISTS_BYTES_MAX as isize - listed as isize);
            let applied = model.fates.values().filter(|fate| **fate == Fate::Applied).count();
            prop_assert_eq!(ledger.incarnation(INCARNATION).map_or(0, Incarnation::applied_count), applied as u64);
        }
    }

    #[test]
    fn foreign_bytes_are_never_taken_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(GatewayLedger::decode(&bytes).is_err());
    }
}

fn none_landed() -> BTreeSet<u64> {
    BTreeSet::new()
}

#[test]
fn two_copies_of_a_ref_apply_once() {
    let mut ledger = GatewayLedger::default();
    assert_eq!(take_ref(&mut ledger, &reference(1, 1), &Outcome::Apply, &none_landed()), Verdict::New);
    assert_eq!(take_ref(&mut ledger, &reference(1, 1), &Outcome::Apply, &none_landed()), Verdict::Applied);
}

#[test]
fn a_refusal_is_repeated_until_the_floor_has_passed_it_and_holds_the_watermark_until_then() {
    let mut ledger = GatewayLedger::default();
    take_ref(&mut ledger, &reference(1, 1), &Outcome::Refuse, &none_landed());
    take_ref(&mut ledger, &reference(2, 1), &Outcome::Apply, &none_landed());
    let before = receipt(&ledger);
    assert_eq!((before.applied_through, before.refused.len()), (0, 1));
    assert!(before.says_applied(2) && !before.says_applied(1));
    take_ref(&mut ledger, &reference(3, 3), &Outcome::Apply, &none_landed());
    let after = receipt(&ledger);
    assert_eq!((after.applied_through, after.refused.len()), (3, 0));
    assert_eq!(ledger.incarnation(INCARNATION).unwrap().refused().len(), 1, "and it still counts as refused");
}

#[test]
fn a_gateway_restored_from_a_copy_hears_again_that_a_batch_was_refused() {
    let mut ledger = GatewayLedger::default();
    take_ref(&mut ledger, &reference(1, 1), &Outcome::Refuse, &none_landed());
    take_ref(&mut ledger, &reference(2, 2), &Outcome::Apply, &none_landed());
    let verdict = take_ref(&mut ledger, &reference(1, 1), &Outcome::Apply, &none_landed());
    assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
    let answers = Answers { asked: [1].into_iter().collect(), ..Answers::default() };
    let receipt = ledger.receipt(&gateway(), INCARNATION, &answers, UtcMillis(1));
    assert!(!receipt.says_applied(1), "else it would delete readings that were never applied");
}

#[test]
fn what_the_cloud_forgot_is_lost_unless_it_lies_in_the_landing_area_and_a_ref_for_it_heals_it() {
    let mut ledger = GatewayLedger::default();
    take_ref(&mut ledger, &reference(5, 4), &Outcome::Apply, &[2].into_iter().collect());
    let said = receipt(&ledger);
    assert_eq!((said.applied_through, said.lost.ranges()), (3, &[(1, 1), (3, 3)][..]));
    assert!(said.says_applied(2) && !said.says_applied(3));
    assert_eq!(take_ref(&mut ledger, &reference(3, 3), &Outcome::Apply, &none_landed()), Verdict::New);
    assert!(receipt(&ledger).says_applied(3));
    // Without anything forgotten the same floor loses nothing.
    let mut whole = GatewayLedger::default();
    for seq in 1..=3 {
        take_ref(&mut whole, &reference(seq, 1), &Outcome::Apply, &none_landed());
    }
    take_ref(&mut whole, &reference(5, 4), &Outcome::Apply, &none_landed());
    assert!(receipt(&whole).lost.is_empty());
}

#[test]
fn abandoned_seqs_settle_and_one_that_was_counted_lost_is_abandoned_instead() {
    let mut ledger = GatewayLedger::default();
    take_ref(&mut ledger, &reference(3, 3), &Outcome::Apply, &none_landed());
    assert_eq!(receipt(&ledger).lost.ranges(), [(1, 2)]);
    let status = status(4, 5, [2, 4].into_iter().collect());
    ledger.hear_status(&status, UtcMillis(9));
    assert!(ledger.note_status_floors(&status).is_empty());
    let said = receipt(&ledger);
    assert_eq!((said.applied_through, said.lost.ranges()), (4, &[(1, 1)][..]));
    assert_eq!(ledger.status().unwrap().backlog_rows, 3);
}

#[test]
fn a_status_settles_nothing_beyond_what_it_sealed() {
    let mut ledger = GatewayLedger::default();
    let status = status(2, 1_000, [5, 900].into_iter().collect());
    ledger.hear_status(&status, UtcMillis(0));
    assert_eq!(ledger.note_status_floors(&status), [(INCARNATION, [1, 2].into_iter().collect())]);
    assert_eq!(receipt(&ledger).applied_through, 2);
}

/// Negative controls: forget by age in `hear_ref`, too; judge by the clock of the newest status alone (`hear_status`).
#[test]
fn an_incarnation_is_forgotten_400_days_after_it_was_last_heard_of_by_a_status_without_it() {
    let mut ledger = GatewayLedger::default();
    let day = |n: i64| UtcMillis(n * 86_400_000);
    ledger.hear_ref(&reference(1, 1), day(0));
    ledger.apply(INCARNATION, 1);
    let mut other = reference(1, 1);
    other.id.incarnation = 2;
    let mut status_of_other = status(1, 2, SeqSet::new());
    status_of_other.incarnations[0].incarnation = 2;
    // A ref names one incarnation and says nothing of the others.
    ledger.hear_ref(&other, day(4_000));
    assert!(ledger.incarnation(INCARNATION).is_some());
    // A status that still names it keeps it: else all of it would look lost.
    let mut kept = ledger.clone();
    kept.hear_status(&status(1, 2, SeqSet::new()), day(401));
    kept.hear_status(&status_of_other, day(402));
    assert!(kept.incarnation(INCARNATION).is_some());
    // The second of these is dated by a clock that is years ahead.
    for at in [399, 4_000] {
        ledger.hear_status(&status_of_other, day(at));
        assert!(ledger.incarnation(INCARNATION).is_some(), "{at}");
    }
    ledger.hear_status(&status_of_other, day(401));
    assert!(ledger.incarnation(INCARNATION).is_none() && ledger.incarnation(2).is_some());
}

#[test]
fn incarnations_are_bounded() {
    let mut ledger = GatewayLedger::default();
    for incarnation in 0..=INCARNATIONS_MAX as u64 {
        let mut reference = reference(1, 1);
        reference.id.incarnation = incarnation;
        ledger.hear_ref(&reference, UtcMillis(incarnation as i64));
    }
    assert_eq!(ledger.incarnations().count(), INCARNATIONS_MAX);
    assert!(ledger.incarnation(0).is_none() && ledger.incarnation(1).is_some(), "the oldest went");
    // Nor does one go that was just heard, whatever the clock said: what is applied of it would be applied again.
    ledger.hear_ref(&reference(1, 1), UtcMillis(-1));
    assert!(ledger.incarnation(INCARNATION).is_some() && ledger.incarnation(1).is_none());
    // What is in the landing area takes the place of the oldest, as its ref will: else it would be called lost by that.
    assert!(ledger.try_apply(0, 1) && ledger.try_apply(1, 1));
    assert!(ledger.incarnation(0).is_some() && ledger.incarnation(1).is_some() && ledger.incarnation(2).is_none());
    assert_eq!(ledger.incarnations().count(), INCARNATIONS_MAX);
}

/// Negative control: look for all that the status names (`GatewayLedger::kept_of`).
#[test]
fn of_a_status_that_names_too_many_incarnations_those_are_looked_for_that_are_kept() {
    let at = UtcMillis(1 << 41);
    let said = |incarnation| IncarnationStatus { incarnation, last_sealed: 1, floor: 2, abandoned: SeqSet::new() };
    let named = (0..INCARNATIONS_MAX as u64 + 100).map(said).collect();
    let named = Status { incarnations: named, ..status(1, 1, SeqSet::new()) };
    let mut ledger = GatewayLedger::default();
    // One that nobody names, and one that was heard of since by the log's clock.
    for (incarnation, heard_at) in [(1 << 40, at), (7, at.plus_ms(1))] {
        let mut reference = reference(1, 1);
        reference.id.incarnation = incarnation;
        ledger.hear_ref(&reference, heard_at);
    }
    let forgotten = ledger.all_forgotten_by_status(&named, at);
    ledger.hear_status(&named, at);
    let kept: Vec<u64> = ledger.incarnations().map(|(incarnation, _)| incarnation).collect();
    assert_eq!(forgotten.into_iter().map(|(incarnation, _)| incarnation).collect::<Vec<_>>(), kept);
    assert!(kept.len() == INCARNATIONS_MAX && kept.contains(&7) && !kept.contains(&8));
}

/// As many incarnations as there may be, each number as great as it gets, and whatever makes the ledger larger until nothing more
/// of it is taken.
///
/// Negative control: take every change (`GatewayLedger::change`).
#[test]
fn the_largest_ledger_that_a_gateway_can_bring_about_is_within_its_bound() {
    const TOP: u64 = 1 << 62;
    const STEP: u64 = 1_000;
    let mut ledger = GatewayLedger::default();
    let heard_at = UtcMillis(1 << 41);
    let says = |incarnations: Vec<IncarnationStatus>, certificate: u8| Status {
        written_at: heard_at.plus_ms(i64::from(certificate)),
        software: "ä".repeat(500),
        incarnations,
        backlog_rows: u64::MAX,
        backlog_since: Some(heard_at),
        dropped: u64::MAX,
        repeated: u64::MAX,
        certificate: Some(Sha256([certificate; 32])),
        ..status(1, 1, SeqSet::new())
    };
    let said = |n: u64, abandoned: SeqSet| IncarnationStatus {
        incarnation: TOP + n,
        last_sealed: 2 * TOP,
        floor: TOP,
        abandoned,
    };
    let all = says((0..INCARNATIONS_MAX as u64).map(|n| said(n, SeqSet::new())).collect(), 0);
    ledger.hear_status(&all, heard_at);
    assert_eq!(ledger.note_status_floors(&all).len(), INCARNATIONS_MAX, "all before it is lost");
    // Each one more range of twice nine bytes.
    let mut abandoned = 0;
    for n in 0..40u64 {
        let gaps = (1..=STEP).map(|k| TOP + 2 * (n * STEP + k)).collect();
        ledger.hear_status(&says(vec![said(0, gaps)], n as u8), heard_at);
        let noted = ledger.incarnation(TOP).unwrap().abandoned().len();
        assert!(noted == abandoned || noted == abandoned + STEP, "{noted} after {abandoned}");
        abandoned = noted;
    }
    let refused = (1..=3_000u64).take_while(|n| ledger.refuse(TOP + 1, TOP + n, &"x".repeat(500))).count();
    let applied = (1..=3_000u64).take_while(|n| ledger.try_apply(TOP + 2, TOP + 2 * n)).count();
    assert!(
        (15 * STEP..30 * STEP).contains(&abandoned) && refused > 10 && applied < 15,
        "{abandoned} {refused} {applied}"
    );

    let bytes = ledger.encode();
    assert!(bytes.len() <= LEDGER_BYTES_MAX, "{} bytes", bytes.len());
    assert!(bytes.len() > LEDGER_BYTES_MAX - 4_096, "{} bytes are not the largest", bytes.len());
    assert_eq!(GatewayLedger::decode(&bytes).as_ref(), Ok(&ledger));
    // What has no room changes nothing.
    let full = ledger.clone();
    assert!(!ledger.try_apply(TOP + 3, 2 * TOP) && !ledger.refuse(TOP + 3, TOP + 9, "longer than what is left"));
    assert_eq!(ledger.note_floor(TOP, 2 * TOP), None);
    assert_eq!(ledger, full);
    // What comes in its order needs none.
    assert!((0..100).all(|n| ledger.try_apply(TOP + 3, TOP + n)));
    assert_eq!(ledger.incarnation(TOP + 3).unwrap().watermark(), TOP + 99);
}

#[test]
fn the_worst_receipt_still_fits_a_packet_and_never_covers_what_it_cannot_list() {
    let mut ledger = GatewayLedger::default();
    let top = 1u64 << 62;
    let far = |n: u64| top + n * 2;
    ledger.hear_ref(&reference(far(5_000), 1), UtcMillis(0));
    let entry = ledger.incarnations.get_mut(&INCARNATION).unwrap();
    entry.watermark = far(1_999) + 1;
    for n in 0..2_000 {
        entry.lost.insert(far(n));
    }
    for n in 2_000..4_000 {
        entry.applied.insert(far(n) + 1);
    }
    for n in 4_000..4_200 {
        entry.refuse(far(n), &"ä".repeat(500));
    }
    let asked: SeqSet = (4_100..4_110).map(far).chain([far(3_999) + 1]).collect();
    let resend = (4_300..4_900).map(far).collect();
    let later = (5_000..5_900).map(far).collect();
    let answers = Answers { asked: asked.clone(), resend, later };
    let receipt = ledger.receipt(&gateway(), INCARNATION, &answers, UtcMillis(i64::MAX));
    let bytes = receipt.encode();
    assert!(bytes.len() <= RECEIPT_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(Receipt::decode(&bytes).as_ref(), Ok(&receipt));
    assert!((0..2_000).all(|n| !receipt.says_applied(far(n))));
    assert!(receipt.says_applied(far(3_999) + 1), "what was asked is listed first");
    for seq in (4_100..4_110).map(far) {
        assert!(receipt.refused.iter().any(|refused| refused.seq == seq));
    }
}

#[test]
fn a_receipt_asks_for_nothing_that_is_settled() {
    let mut ledger = GatewayLedger::default();
    take_ref(&mut ledger, &reference(1, 1), &Outcome::Apply, &none_landed());
    let both: SeqSet = [1, 2].into_iter().collect();
    let answers = Answers { asked: both.clone(), resend: both, later: SeqSet::new() };
    let receipt = ledger.receipt(&gateway(), INCARNATION, &answers, UtcMillis(1));
    assert_eq!(receipt.resend.ranges(), [(2, 2)]);
    assert!(receipt.says_applied(1));
}

#[test]
fn a_ledger_of_a_newer_program_is_told_apart_from_damage() {
    assert_eq!(GatewayLedger::decode(&[0x83, 0x03, 0x80, 0xf6]), Err(LedgerError::Newer { version: 3 }));
    assert!(matches!(GatewayLedger::decode(&[0x83, 0x00, 0x80, 0xf6]), Err(LedgerError::Malformed(_))));
    assert_eq!(GatewayLedger::decode(&[0x83, 0x01, 0x80, 0xf6]), Ok(GatewayLedger::default()));
}
