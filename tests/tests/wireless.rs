//! Do telegrams of wireless M-Bus arrive once each, however often they are heard, and does a meter with a wrong key keep nobody else?

use demo::meters::meter_toml;
use serde_json::json;
use tests::system::{CATCH_UP_TIMEOUT, Fleet, everything_arrives, metric, stage, start_groups, until, until_logged};

fn group(settings: &str) -> String {
    format!("[[meters]]\nprotocol = \"wmbus\"\ninterval_ms = 3000\n{settings}\n")
}

/// What is not received is lost by its nature: the simulator sends, and counts, only while the gateway is connected.
///
/// Controls, seen to fail: take what came twice; store what a meter without a section says; end the port at the first wrong key; take the time of the
/// port's first telegram for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_meters_send_by_radio_arrives_once_and_a_wrong_key_keeps_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let heard = [
        group("first_number = 1\nfaults = { duplicate = 0.9, wrong-crc = 0.05 }"),
        group("medium = \"heat\"\nencrypted = true\nfaults = { duplicate = 0.9 }"),
        group("medium = \"electricity\"\nencrypted = true\nreceiver = \"im871a\""),
    ];
    let settings = "speed = 60.0\nhistory_days = 70.0";
    let fleet = start_groups(&mut stage, 1, 3, settings, &heard.concat()).unwrap();
    let others = [group("first_number = 101\nencrypted = true"), group("medium = \"gas\"\nencrypted = true")];
    let others = start_groups(&mut stage, 101, 2, settings, &others.concat()).unwrap();
    // Keys lie beside it.
    let password = stage.folder().join("keys").display().to_string();
    let fleet = Fleet { password: password.clone(), ..fleet };
    let mut wrong = others.endpoints[0].clone();
    wrong["encryption_key"] = json!("00112233445566778899aabbccddeeff");
    let address = others.endpoints[1]["address"].as_str().unwrap();
    let nameless =
        format!("[[port]]\nname = \"attic\"\nprotocol = \"wmbus\"\nreceiver = \"rtl-wmbus\"\ntcp = \"{address}\"\n");
    stage.meters_toml = [fleet.toml().unwrap(), meter_toml(&wrong, &password, "").unwrap(), nameless].concat();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 40).await.unwrap();
    let counted = async |name: &str| metric(stage.gateway_address(), name).await;
    let is_refused = async || Ok(counted("gateway_telegrams_unverified_total").await? >= 3);
    until("a meter with a wrong key goes on being heard", CATCH_UP_TIMEOUT, is_refused).await.unwrap();
    assert!(counted("gateway_telegrams_repeated_total").await.unwrap() > 0);
    assert!(counted("gateway_telegrams_ignored_total").await.unwrap() > 1);
    // Its truth is complete then.
    stage.stop_simulator().unwrap();
    let truth = fleet.captured().unwrap();
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());

    let log = stage.gateway_log().unwrap();
    assert_eq!(log.matches("the key is wrong").count(), 1, "{log}");
    assert_eq!(log.matches("a meter is heard that no section names").count(), 1, "{log}");
    let identity = others.endpoints[1]["identity"].as_str().unwrap();
    let section =
        format!("protocol = \"wmbus\"\nport = \"attic\"\naddress = \"{identity}\"\nencryption_key_file = \"...\"\n");
    assert!(log.contains(&section), "{log}");
}
