use tokio::sync::mpsc;

use super::*;
use crate::config::Dialect;
use crate::reading::testing::{T0, TokioClock};
use crate::reading::tests::room::{deliver_all, fill, small_parts};
use crate::reading::tests::stored;

const TELEGRAM: &[u8] = br#"{"meter":"SIM:000001","captured_at":"2026-11-23T00:00:15Z","readings":[{"code":"1-0:1.8.0","kind":"register","value":12345.678,"unit":"kWh"},{"code":"1-0:1.7.0","kind":"instant","value":"0.951","unit":"kW"}]}"#;

/// Control, seen to fail: everything taken whatever the level.
#[tokio::test(start_paused = true)]
async fn while_the_outbox_is_nearly_full_momentary_values_are_acknowledged_and_not_stored() {
    let clock = TokioClock::shared(T0);
    let (session, outbox) = small_parts(&clock);
    let deliver = |topic: &str| {
        let parts = FeedParts {
            name: "cad".to_owned(),
            outbox: session.outbox.clone(),
            clock: clock.clone(),
            trust: session.trust.clone(),
            metrics: session.metrics.clone(),
        };
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
