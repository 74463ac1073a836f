//! A gateway whose ledger has no room for more.

use super::*;

fn full_ledger() -> GatewayLedger {
    let mut ledger = GatewayLedger::default();
    fill(&mut ledger);
    ledger
}

/// Until there is no room for one more range: thousands are abandoned.
fn fill(ledger: &mut GatewayLedger) {
    const TOP: u64 = 1 << 62;
    let mut seqs = (1..).map(|n| TOP + 2 * n);
    for incarnation in 1..=30 {
        let abandoned = seqs.by_ref().take(1_000).collect();
        let said = IncarnationStatus { incarnation, last_sealed: u64::MAX, floor: 1, abandoned };
        ledger.hear_status(&status_of(1, vec![said]), T0);
    }
    // The rest of the room, range by range, the last of them of three bytes.
    assert!(seqs.take(2_000).any(|seq| !ledger.try_apply(31, seq)));
    assert!((32..50).any(|incarnation| !ledger.try_apply(incarnation, 2)));
}

/// Negative control: do not ask for room (`apply` instead of `try_apply` in `group::settle`): its ledger grows without end.
#[tokio::test]
async fn a_gateway_whose_ledger_is_full_waits_for_its_order_and_delays_nobody() {
    let world = World::new();
    commit_ledger(&world, &gateway(1), full_ledger().encode()).await;
    world.send(&batch(1, 3, 2), 1).await;
    let mut broken = batch(1, 1, 2);
    broken.id.incarnation += 1;
    broken.blocks[0].rows[0].mantissa += 1;
    world.send(&broken, 1).await;
    world.send(&batch(2, 1, 2), 1).await;
    let settled = || world.value(Metric::RefsLater) + world.value(Metric::RefsApplied);
    world.run_until(async || settled() >= 3).await;
    assert_eq!(world.batches().await, once(&["gw-2/1"]));
    for receipt in [world.receipt().await, world.receipt().await, world.receipt().await] {
        let expected = match (receipt.gateway == gateway(1), receipt.incarnation == INCARNATION) {
            (true, true) => vec![3],
            (true, false) => vec![1],
            (false, _) => Vec::new(),
        };
        assert_eq!(receipt.later.iter().collect::<Vec<_>>(), expected);
        assert!(receipt.refused.is_empty() && receipt.resend.is_empty());
    }
    // In their order they need no room.
    for seq in 1..=3 {
        world.send(&batch(1, seq, 2), 1).await;
    }
    world.run_to(Metric::RefsApplied, 4).await;
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-1/2", "gw-1/3", "gw-2/1"]));
    assert_eq!(world.receipt().await.applied_through, 3);
}

/// Negative control: begin no incarnation beyond the bound (`GatewayLedger::change`): what lies in the landing area is called lost.
#[tokio::test]
async fn what_has_landed_of_one_more_incarnation_than_are_remembered_is_applied() {
    let world = World::new();
    let mut ledger = GatewayLedger::default();
    let said = |incarnation| IncarnationStatus { incarnation, last_sealed: 0, floor: 1, abandoned: SeqSet::new() };
    ledger.hear_status(&status_of(1, (1..=8_192).map(said).collect()), T0);
    commit_ledger(&world, &gateway(1), ledger.encode()).await;
    world.upload(&batch(1, 1, 2)).await;
    world.send(&batch(1, 2, 2), 2).await;
    world.run_to(Metric::RefsApplied, 1).await;
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-1/2"]));
    assert_eq!(world.value(Metric::BatchesLost), 0);
}

/// A floor takes no room where it makes one range of several: what recovery had no room for would be lost by it.
///
/// Negative control: note a floor wherever it fits (`GatewayLedger::change_floor`).
#[test]
fn a_full_ledger_calls_nothing_lost_that_it_has_no_room_to_apply() {
    let mut ledger = GatewayLedger::default();
    ledger.hear_ref(&sealed(&batch(1, 2, 1), 2).0, T0);
    assert_eq!(ledger.note_floor(INCARNATION, 2).map(|lost| lost.len()), Some(1));
    fill(&mut ledger);
    assert!(!ledger.try_apply(INCARNATION, 4));
    assert_eq!(ledger.note_floor(INCARNATION, 6), None);
    assert!(ledger.try_apply(INCARNATION, 2), "in its order it needs no room");
    assert_eq!(ledger.note_floor(INCARNATION, 3), Some(SeqSet::new()), "and nothing is lost by it");
}
