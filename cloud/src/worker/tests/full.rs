//! A gateway whose ledger has no room for more.

use super::*;

/// A ledger that has no room for one more range: thousands were abandoned.
fn full_ledger() -> GatewayLedger {
    const TOP: u64 = 1 << 62;
    let mut ledger = GatewayLedger::default();
    let mut seqs = (1..).map(|n| TOP + 2 * n);
    for incarnation in 1..=30 {
        let abandoned = seqs.by_ref().take(1_000).collect();
        let said = IncarnationStatus { incarnation, last_sealed: u64::MAX, floor: 1, abandoned };
        ledger.hear_status(&status_of(1, vec![said]), T0);
    }
    // The rest of the room, range by range, the last of them of three bytes.
    assert!(seqs.take(2_000).any(|seq| !ledger.try_apply(31, seq)));
    assert!((32..50).any(|incarnation| !ledger.try_apply(incarnation, 2)));
    ledger
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
