//! Do messages that are nonsense keep a device's good ones from arriving, when they come under its own topic?

use std::time::Duration;

use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use tests::hostile::{RSS_KB_MAX, peak_rss_kb, state_of, told};
use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, metric, stage, start_cad, start_dlms, until, until_logged};

const ROUNDS: usize = 20;

/// A telegram of one reading, which has these fields.
fn reading(meter: &str, fields: &str) -> Vec<u8> {
    format!("{{\"meter\":\"{meter}\",\"captured_at\":\"2026-11-23T02:35:15Z\",\"readings\":[{{{fields}}}]}}")
        .into_bytes()
}

/// Telegrams of which nothing can be used.
fn useless(meter: &str) -> Vec<Vec<u8>> {
    let text = |text: &str| text.as_bytes().to_vec();
    let energy = "{\"code\":\"1-0:1.8.0\",\"value\":1,\"unit\":\"kWh\"}";
    vec![
        Vec::new(),
        vec![0xff, 0xfe, 0x00, 0xc3],
        text("null"),
        text("[]"),
        text("\"NaN\""),
        text(&format!("{{\"meter\":42,\"captured_at\":\"2026-11-23T02:35:15Z\",\"readings\":[{energy}]}}")),
        text(&format!("{{\"meter\":\"{meter}\",\"captured_at\":\"2026-11-23T02:35:15Z\",\"readings\":42}}")),
        // Deeper than any stack.
        text(&"[".repeat(60_000)),
        text(&format!("{{\"meter\":\"{meter}\",\"readings\":{}", "{\"x\":".repeat(10_000))),
        // Longer than is looked at, by one octet and by much; a broker passes both on.
        vec![b' '; 65_537],
        vec![b' '; 400_000],
        // More readings than a telegram may have.
        text(&format!(
            "{{\"meter\":\"{meter}\",\"captured_at\":\"2026-11-23T02:35:15Z\",\"readings\":[{}]}}",
            vec![energy; 1_200].join(",")
        )),
    ]
}

/// Telegrams of which one reading, their only one, cannot be used.
fn spoiled(meter: &str) -> Vec<Vec<u8>> {
    let value = |value: &str| reading(meter, &format!("\"code\":\"1-0:1.8.0\",\"unit\":\"kWh\",\"value\":{value}"));
    let values = ["NaN", "-Infinity", "true", "{}", "[1]", "\"abc\"", "\"\"", "1e999", "\"1e-999\"", "null"].map(value);
    let long = value(&"9".repeat(400));
    let others = [
        "\"code\":\"1-0:1.8.0\",\"value\":1,\"unit\":\"kvarh\"",
        "\"code\":\"1-0:1.8.0\",\"value\":1,\"unit\":7",
        "\"code\":\"1-0:1.8\",\"value\":1,\"unit\":\"kWh\"",
        "\"code\":[],\"value\":1,\"unit\":\"kWh\"",
        "\"code\":\"1-0:1.8.0\",\"value\":1,\"unit\":\"kWh\",\"kind\":\"interval\"",
        "\"code\":\"1-0:1.8.0\",\"value\":1,\"unit\":\"kWh\",\"nth\":256",
        "\"code\":\"1-0:1.8.0\",\"value\":1,\"unit\":\"kWh\",\"captured_at\":\"12026-11-23T02:35:15Z\"",
    ]
    .map(|fields| reading(meter, fields));
    values.into_iter().chain([long]).chain(others).collect()
}

/// A publisher, and its connection in a task of its own.
fn publisher(port: u16) -> AsyncClient {
    let mut options = MqttOptions::new("hostile", "127.0.0.1", port);
    options.set_max_packet_size(1024 * 1024, 1024 * 1024);
    let (client, mut events) = AsyncClient::new(options, 10);
    tokio::spawn(async move {
        // Ends with the test's runtime, or when the broker has hung up.
        while let Ok(event) = events.poll().await {
            if matches!(event, Event::Incoming(Incoming::Disconnect)) {
                return;
            }
        }
    });
    client
}

/// Controls, seen to fail: take packets of 256 KiB at the most in `run.rs` (`FEED_PACKET_BYTES_MAX`), and the longest message ends the
/// connection again and again; leave a refused message unacknowledged in `feed::gather`, and the broker sends no more; say each
/// one (`Recurring::count`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_under_a_devices_topic_is_named_and_its_good_messages_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let others = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let feed = format!("[[feed]]\nname = \"cad\"\nport = {}\n", stage.broker_port());
    stage.meters_toml = format!("{feed}{}", others.toml().unwrap());
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    // By then the feed has subscribed.
    until_logged(&stage, 50).await.unwrap();
    let connected = async || Ok(told(&stage, &["mqtt connected"])?.len() >= 2);
    until("feed and uplink are connected", CATCH_UP_TIMEOUT, connected).await.unwrap();
    let fleet = start_cad(&mut stage, 101, 3).unwrap();
    let meter = fleet.endpoints[0]["meter"].as_str().unwrap().to_owned();
    let topic = fleet.endpoints[0]["topic"].as_str().unwrap().to_owned();
    let client = publisher(stage.broker_port());
    let (useless, spoiled) = (useless(&meter), spoiled(&meter));
    // What a device says elsewhere is none of ours.
    let elsewhere = reading(&meter, "\"code\":\"1-0:1.8.0\",\"value\":1,\"unit\":\"kWh\"");
    for _ in 0..ROUNDS {
        for payload in useless.iter().chain(&spoiled) {
            client.publish(&topic, QoS::AtLeastOnce, false, payload.clone()).await.unwrap();
        }
        let wrong = format!("meterpost/cad/{meter}/readings");
        client.publish(wrong, QoS::AtLeastOnce, false, elsewhere.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let counted = async || {
        let refused = metric(stage.gateway_address(), "gateway_telegrams_refused_total").await?;
        let problems = metric(stage.gateway_address(), "gateway_field_problems_total").await?;
        Ok(refused as usize >= ROUNDS * useless.len() && problems as usize >= ROUNDS * spoiled.len())
    };
    until("all of the nonsense is counted", CATCH_UP_TIMEOUT, counted).await.unwrap();
    until("the device is well", CATCH_UP_TIMEOUT, async || Ok(state_of(&stage, &meter).await?.0 == "ok"))
        .await
        .unwrap();
    // Messages that come after it, too.
    let known = tests::system::in_the_log(&stage).await.len();
    until_logged(&stage, known + 20).await.unwrap();
    stage.stop_last_simulator().unwrap();
    stage.freeze_simulator().unwrap();
    let mut truth = others.captured().unwrap();
    truth.extend(fleet.captured().unwrap());
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());
    let rss_kb = peak_rss_kb(&stage).unwrap();
    println!("{rss_kb} kB at the most");
    assert!(rss_kb < RSS_KB_MAX, "{rss_kb} kB");
    assert_eq!(told(&stage, &["mqtt connection lost"]).unwrap(), [""; 0], "no message ends a connection");
    // Each kind of it is told once.
    let warned = told(&stage, &["WARN", "feed=cad"]).unwrap();
    assert!(warned.iter().all(|line| line.contains("hint=")), "{warned:#?}");
    assert!(warned.len() < 20, "{} warnings: {warned:#?}", warned.len());
    for words in [
        "error=the payload is no JSON object of the expected shape",
        "error=the payload is no UTF-8 after byte 0",
        "error=field meter: a number where a string was expected",
        "error=a payload of 65537 bytes is longer than 65536",
        "error=field readings: 1200 readings are more than 1000",
        "error=readings[0].value: \"NaN\" is no decimal number",
        "error=readings[0].value: a boolean where a number or a string with a decimal was expected",
        "error=readings[0].unit: a value in varh where Wh is meant",
    ] {
        assert_eq!(warned.iter().filter(|line| line.contains(words)).count(), 1, "{words}: {warned:#?}");
    }
}
