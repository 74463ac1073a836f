//! Cases of `append_ref` and of the worker group.

use std::collections::BTreeMap;

use protocols::metering::UtcMillis;
use protocols::uplink::GatewayId;

use super::Logs;
use super::samples::{T0, gateway};
use crate::log::{EventLog, RefConsumer, RefEvent, Uplinked};

/// What a consumer delivers until `count` records came, per partition: offset, append time, gateway, content.
pub(super) async fn records(
    consumer: &mut Box<dyn RefConsumer>,
    count: usize,
) -> Vec<(u32, u64, UtcMillis, GatewayId, Uplinked)> {
    let mut records = Vec::new();
    while records.len() < count {
        if let RefEvent::Record { partition, offset, appended_at, gateway, uplinked } = consumer.next().await.unwrap() {
            records.push((partition, offset, appended_at, gateway, uplinked));
        }
    }
    records
}

/// Fails when offsets are allocated per process, or a status is delivered as a ref.
pub async fn refs_come_back_in_order_as_they_were_appended(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let log = subject.log();
    let mut sent: BTreeMap<GatewayId, Vec<(UtcMillis, Uplinked)>> = BTreeMap::new();
    for number in 0..40u8 {
        let gateway = gateway(&format!("gw-{}", number % 7));
        let at = T0.plus_ms(i64::from(number));
        let content = vec![number; usize::from(number)];
        let uplinked = if number % 3 == 0 { Uplinked::Status(content) } else { Uplinked::Ref(content) };
        log.append_ref(&gateway, uplinked.clone(), at).await.unwrap();
        sent.entry(gateway).or_default().push((at, uplinked));
    }
    let mut consumer = log.consume_refs().await.unwrap();
    let delivered = records(&mut consumer, 40).await;
    if subject.stamps_refs() {
        let first = sent.values_mut().flatten();
        first.for_each(|(at, _)| *at = T0);
        assert!(delivered.iter().all(|record| record.2 > UtcMillis(1_700_000_000_000)), "stamped");
    }

    let mut partition_of = BTreeMap::new();
    let mut last_offset = BTreeMap::new();
    let mut received: BTreeMap<GatewayId, Vec<(UtcMillis, Uplinked)>> = BTreeMap::new();
    for (partition, offset, at, gateway, uplinked) in &delivered {
        assert_eq!(*partition_of.entry(gateway.clone()).or_insert(*partition), *partition, "one partition a gateway");
        assert!(last_offset.insert(*partition, *offset).is_none_or(|last| last < *offset), "offsets ascend");
        let at = if subject.stamps_refs() { T0 } else { *at };
        received.entry(gateway.clone()).or_default().push((at, uplinked.clone()));
    }
    assert_eq!(received, sent);
    check_read_refs(&*log, &delivered).await;
}

/// `read_refs` shows what a consumer is given.
async fn check_read_refs(log: &dyn EventLog, delivered: &[(u32, u64, UtcMillis, GatewayId, Uplinked)]) {
    let ends = log.ends(crate::log::Topic::Refs).await.unwrap();
    for partition in 0..log.partitions() {
        let of_partition = delivered.iter().filter(|record| record.0 == partition);
        let wanted: Vec<_> =
            of_partition.map(|(_, offset, at, gw, up)| (*offset, *at, gw.clone(), up.clone())).collect();
        assert!(wanted.iter().all(|record| record.0 < ends[partition as usize]), "records lie before the end");
        let mut read = Vec::new();
        let mut from = 0;
        loop {
            let page = log.read_refs(partition, from, u64::MAX, 3).await.unwrap();
            let Some(last) = page.last() else { break };
            from = last.0 + 1;
            read.extend(page);
        }
        assert_eq!(read, wanted);
    }
}

/// Fails when callers that share a transaction do not each get their own record and answer.
pub async fn refs_appended_at_once_all_arrive(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let log = subject.log();
    let appends = (0..200u8).map(|number| {
        let log = &log;
        async move {
            let gateway = gateway(&format!("gw-{}", number % 20));
            log.append_ref(&gateway, Uplinked::Ref(vec![number]), T0).await
        }
    });
    for result in futures_util::future::join_all(appends).await {
        result.unwrap();
    }
    let mut consumer = log.consume_refs().await.unwrap();
    let mut numbers: Vec<u8> = Vec::new();
    for (.., uplinked) in records(&mut consumer, 200).await {
        let Uplinked::Ref(content) = uplinked else { panic!("no status was appended") };
        numbers.extend(content);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<u8>>());
}

/// Fails (hangs) when an append does not wake who waits.
pub async fn a_consumer_that_waits_is_woken(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let (log, appender) = (subject.log(), subject.another().await);
    let mut consumer = log.consume_refs().await.unwrap();
    for number in 0..5u8 {
        let gateway = gateway(&format!("gw-{number}"));
        let append = async {
            // Lets the consumer begin to wait first.
            futures_util::future::poll_immediate(std::future::pending::<()>()).await;
            tokio::task::yield_now().await;
            appender.append_ref(&gateway, Uplinked::Ref(vec![number]), T0).await.unwrap();
        };
        let (delivered, ()) = futures_util::future::join(records(&mut consumer, 1), append).await;
        assert_eq!(delivered[0].4, Uplinked::Ref(vec![number]));
    }
}

/// Fails when `next` takes a record out before it can hand it over.
pub async fn giving_up_waiting_loses_nothing(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let log = subject.log();
    let mut consumer = log.consume_refs().await.unwrap();
    let mut received = Vec::new();
    for number in 0..30u8 {
        log.append_ref(&gateway("gw-1"), Uplinked::Ref(vec![number]), T0).await.unwrap();
        // Polled once, and dropped unless it is ready.
        if let Some(Ok(RefEvent::Record { uplinked, .. })) = futures_util::future::poll_immediate(consumer.next()).await
        {
            received.push(uplinked);
        }
    }
    let rest = records(&mut consumer, 30 - received.len()).await;
    received.extend(rest.into_iter().map(|record| record.4));
    assert_eq!(received, (0..30).map(|number| Uplinked::Ref(vec![number])).collect::<Vec<_>>());
}
