//! The same parts as the gateway's, in one loop: MQTT in, decoding, inserting with FULL, acknowledging. No actors, no outbox, no
//! batches. A process of its own, as the gateway is.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use protocols::cad::smets2::{self, Topic};
use protocols::metering::{Code, MeterId};
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Publish, QoS};
use rusqlite::{Connection, Statement, params};

use super::super::outbox::{BARE_INSERT, bare_table};

/// Two rows each: the group that the gateway's feed makes.
const GROUP_MESSAGES: usize = 500;

pub(crate) fn run(port: u16, folder: &Path) -> Result<()> {
    let mut connection = Connection::open(folder.join("bare.db"))?;
    bare_table(&connection)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut options = MqttOptions::new("loop", "127.0.0.1", port);
        options.set_manual_acks(true);
        options.set_clean_session(false);
        options.set_keep_alive(Duration::from_secs(60));
        let (client, mut event_loop) = AsyncClient::new(options, 2 * GROUP_MESSAGES);
        client.subscribe(smets2::TOPIC_FILTER, QoS::AtLeastOnce).await?;
        let mut series = HashMap::new();
        let mut next_id = 1;
        loop {
            let Some(group) = gather(&mut event_loop).await else { return Ok(()) };
            let transaction = connection.transaction()?;
            {
                let mut insert = transaction.prepare_cached(BARE_INSERT)?;
                for publish in &group {
                    insert_message(publish, &mut insert, &mut series, &mut next_id)?;
                }
            }
            transaction.commit()?;
            for publish in &group {
                client.try_ack(publish)?;
            }
        }
    })
}

/// `None` when the broker is gone.
async fn gather(event_loop: &mut EventLoop) -> Option<Vec<Publish>> {
    let mut group = Vec::with_capacity(GROUP_MESSAGES);
    while group.len() < GROUP_MESSAGES {
        if let Event::Incoming(Incoming::Publish(publish)) = event_loop.poll().await.ok()? {
            group.push(publish);
        }
    }
    Some(group)
}

fn insert_message(
    publish: &Publish,
    insert: &mut Statement<'_>,
    series: &mut HashMap<(MeterId, Code), i64>,
    next_id: &mut i64,
) -> Result<()> {
    let topic = Topic::parse(&publish.topic).context("no topic of a CAD")?;
    let telegram = smets2::decode(topic, &publish.payload)?.context("no readings")?;
    for reading in telegram.readings {
        let next_series = series.len() as i64 + 1;
        let series = *series.entry((telegram.meter.clone(), reading.code)).or_insert(next_series);
        let (none, body): (Option<i64>, Option<Vec<u8>>) = (None, None);
        insert.execute(params![
            *next_id,
            series,
            reading.captured_at.0,
            reading.nth,
            reading.quantity.mantissa,
            reading.quantity.scaler,
            reading.quantity.unit.0,
            reading.quality.0,
            reading.captured_at.0,
            reading.occurred_at.map(|at| at.0),
            none,
            2,
            body,
            reading.quantity.mantissa & 0xffff_ffff,
        ])?;
        *next_id += 1;
    }
    Ok(())
}
