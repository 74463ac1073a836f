//! Is a Glow device heard by a feed that says no more than its dialect?

use std::collections::BTreeSet;

use rumqttc::{AsyncClient, MqttOptions, QoS};
use tests::hostile::told;
use tests::system::{CATCH_UP_TIMEOUT, in_the_log, stage, until};

/// Shape of what a device publishes, with figures of our own.
const ELECTRICITY: &str = r#"{"electricitymeter":{"timestamp":"2026-06-24T13:02:29Z","energy":{"export":{"cumulative":0.412,"units":"kWh"},"import":{"cumulative":4711.563,"day":10.464,"units":"kWh","mpan":"---","supplier":"---"}},"power":{"value":0.623,"units":"kW"}}}"#;
const GAS: &str = r#"{"gasmeter":{"timestamp":"2026-06-30T13:53:28Z","energy":{"import":{"cumulative":2713.756,"day":2.591,"units":"kWh","cumulativevol":244.238,"cumulativevolunits":"m3","dayvol":2.591,"mprn":"---","supplier":"---"}}}}"#;

/// Negative control: give every feed the topic of the minimal dialect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_of_dialect_smets2_hears_its_devices_without_a_topic() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    stage.meters_toml = format!("[[feed]]\nname = \"glow\"\ndialect = \"smets2\"\nport = {}\n", stage.broker_port());
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let connected = async || Ok(told(&stage, &["mqtt connected"])?.len() >= 2);
    until("feed and uplink are connected", CATCH_UP_TIMEOUT, connected).await.unwrap();
    let (client, mut events) = AsyncClient::new(MqttOptions::new("glow", "127.0.0.1", stage.broker_port()), 10);
    // Ends with the test's runtime.
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    for (meter, payload) in [("electricitymeter", ELECTRICITY), ("gasmeter", GAS)] {
        let topic = format!("glow/0CA2F0000001/SENSOR/{meter}");
        client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    // The state of the device itself says nothing of a meter.
    client.publish("glow/0CA2F0000001/STATE", QoS::AtLeastOnce, false, "{}").await.unwrap();
    let found = async || Ok(in_the_log(&stage).await.len() >= 5);
    until("five readings in the log", CATCH_UP_TIMEOUT, found).await.unwrap();
    let log = in_the_log(&stage).await;
    let found: BTreeSet<(&str, &str)> = log.keys().map(|(meter, code, ..)| (meter.as_str(), code.as_str())).collect();
    let electricity = ["1-0:1.7.0", "1-0:1.8.0", "1-0:2.8.0"].map(|code| ("GLOW:0CA2F0000001:electricity", code));
    let gas = ["cad:gas.import.energy", "cad:gas.import.volume"].map(|code| ("GLOW:0CA2F0000001:gas", code));
    assert_eq!(found, electricity.into_iter().chain(gas).collect());
}
