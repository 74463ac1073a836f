use tokio::sync::mpsc;

use super::*;
use crate::config::Dialect;
use crate::reading::session::SessionParts;
use crate::reading::testing::{T0, TokioClock};
use crate::reading::tests::room::{deliver_all, fill, small_parts};
use crate::reading::tests::stored;

const TELEGRAM: &[u8] = br#"{"meter":"SIM:000001","captured_at":"2026-11-23T00:00:15Z","readings":[{"code":"1-0:1.8.0","kind":"register","value":12345.678,"unit":"kWh"},{"code":"1-0:1.7.0","kind":"instant","value":"0.951","unit":"kW"}]}"#;

fn feed_parts(session: &SessionParts) -> FeedParts {
    FeedParts {
        name: "cad".to_owned(),
        outbox: session.outbox.clone(),
        clock: session.clock.clone(),
        trust: session.trust.clone(),
        metrics: session.metrics.clone(),
    }
}

/// Control, seen to fail: everything taken whatever the level.
#[tokio::test(start_paused = true)]
async fn while_the_outbox_is_nearly_full_momentary_values_are_acknowledged_and_not_stored() {
    let clock = TokioClock::shared(T0);
    let (session, outbox) = small_parts(&clock);
    let deliver = |topic: &str| {
        let parts = feed_parts(&session);
        let (commands, mut answers) = mpsc::channel(4);
        let (sender, events) = mpsc::channel(4);
        let payload = bytes::Bytes::from_static(TELEGRAM);
        let message = MqttEvent::Message { epoch: 1, topic: topic.to_owned(), payload, retained: false, packet: 7 };
        sender.try_send(message).unwrap();
        let feed = CadFeed::new(Dialect::Minimal, 10, session.inventory.clone());
        async move {
            drop(sender);
            run(parts, feed, MqttLink { commands, events }).await;
            assert!(matches!(answers.recv().await, Some(MqttCommand::Acknowledge { epoch: 1, packet: 7 })));
        }
    };
    let ours = || {
        let rows = stored(&outbox).into_keys().filter(|(_, _, what)| what.starts_with("SIM:"));
        rows.map(|(_, _, what)| what.split(' ').nth(3).unwrap().to_owned()).collect::<Vec<_>>()
    };
    fill(&session.outbox, Level::Tight).await;
    deliver("t").await;
    assert_eq!((ours(), session.metrics.value(Metric::OptionalSkipped)), (vec!["register".to_owned()], 1));
    deliver_all(&session.outbox).await;
    deliver("t").await;
    assert_eq!(ours(), ["instant"], "the register says nothing new");
}

/// Negative controls: give up after the first try, and it is acknowledged and lost; leave the metric out.
#[tokio::test(start_paused = true)]
async fn a_message_that_a_full_outbox_does_not_take_is_tried_again_and_then_acknowledged() {
    let clock = TokioClock::shared(T0);
    let (session, outbox) = small_parts(&clock);
    fill(&session.outbox, Level::Full).await;
    let parts = feed_parts(&session);
    let (commands, mut answers) = mpsc::channel(4);
    let (sender, events) = mpsc::channel(4);
    // A register: momentary values are left out by now.
    let payload = br#"{"meter":"SIM:000001","captured_at":"2026-11-23T00:00:15Z","readings":[{"code":"1-0:1.8.0","value":1,"unit":"kWh"}]}"#;
    let payload = bytes::Bytes::from_static(payload);
    let message = MqttEvent::Message { epoch: 1, topic: "t".to_owned(), payload, retained: false, packet: 7 };
    sender.send(message).await.unwrap();
    let feed = CadFeed::new(Dialect::Minimal, 10, session.inventory.clone());
    let running = tokio::spawn(run(parts, feed, MqttLink { commands, events }));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let tried = session.metrics.value(Metric::StoreErrors);
    assert!((4..=6).contains(&tried), "once a second: {tried}");
    assert!(answers.try_recv().is_err(), "acknowledged before it was stored");
    let refused = session.outbox.store(one_row()).await.unwrap_err().to_string();
    assert!(refused.starts_with("the outbox is full"), "{refused}");
    deliver_all(&session.outbox).await;
    assert!(matches!(answers.recv().await, Some(MqttCommand::Acknowledge { epoch: 1, packet: 7 })));
    let rows = stored(&outbox).into_keys().filter(|(_, _, what)| what.starts_with("SIM:000001")).count();
    assert_eq!(rows, 1);
    drop(sender);
    running.await.unwrap();
}

/// Of a connection that delivers before it takes anything. Negative controls: send the acknowledgements of a store before the
/// next message is taken; keep those of a connection that is gone.
#[tokio::test(start_paused = true)]
async fn messages_are_taken_while_acknowledgements_wait() {
    let clock = TokioClock::shared(T0);
    let (session, _outbox) = small_parts(&clock);
    let parts = FeedParts {
        name: "cad".to_owned(),
        outbox: session.outbox.clone(),
        clock: clock.clone(),
        trust: session.trust.clone(),
        metrics: session.metrics.clone(),
    };
    let (commands, mut answers) = mpsc::channel(1);
    let (sender, events) = mpsc::channel(1);
    let feed = CadFeed::new(Dialect::Minimal, 10, session.inventory.clone());
    let running = tokio::spawn(run(parts, feed, MqttLink { commands, events }));
    let deliver = async |event: MqttEvent| {
        let delivered = tokio::time::timeout(Duration::from_secs(3600), sender.send(event)).await;
        delivered.expect("the feed takes nothing before its acknowledgements are taken").unwrap();
    };
    let message = |epoch, packet| {
        // Nothing to store, and acknowledged all the same.
        let payload = bytes::Bytes::from_static(b"no telegram");
        MqttEvent::Message { epoch, topic: "t".to_owned(), payload, retained: false, packet }
    };
    for packet in 1..=10 {
        deliver(message(1, packet)).await;
    }
    deliver(MqttEvent::Disconnected { reason: String::new() }).await;
    for packet in 1..=10 {
        deliver(message(2, packet)).await;
    }
    let mut acknowledged = Vec::new();
    while acknowledged.last() != Some(&(2, 10)) {
        let answer = tokio::time::timeout(Duration::from_secs(3600), answers.recv()).await.expect("not acknowledged");
        let Some(MqttCommand::Acknowledge { epoch, packet }) = answer else { panic!("{answer:?}") };
        acknowledged.push((epoch, packet));
    }
    drop(sender);
    running.await.unwrap();
    let on_its_way = acknowledged.iter().filter(|(epoch, _)| *epoch == 1).count();
    assert!(on_its_way <= 1, "{acknowledged:?}");
    let second: Vec<u16> = acknowledged.iter().filter(|(epoch, _)| *epoch == 2).map(|(_, packet)| *packet).collect();
    assert_eq!(second, (1..=10).collect::<Vec<u16>>());
}

/// An event, which needs room as a reading does.
fn one_row() -> StoreRequest {
    let event = protocols::metering::Event {
        meter: protocols::metering::MeterId::new("OTHER").unwrap(),
        log: "log".to_owned(),
        at: T0,
        nth: 0,
        code: 0,
        raw: Vec::new(),
        text: String::new(),
    };
    StoreRequest { events: vec![(event, T0)], ..StoreRequest::default() }
}
