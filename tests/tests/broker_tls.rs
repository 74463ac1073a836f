//! Who is heard through a broker with mutual TLS, what arrives when it forgets everything, and what is said of a certificate
//! that does not fit?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::time::Duration;

use cloud::mqtt::MqttError;
use demo::stage::{Stage, http_answer};
use gateway::mqtt::MqttEvent;
use tests::cluster::{Cluster, migrate};
use tests::services::certificates::Identity;
use tests::services::mosquitto::CLOUD;
use tests::services::{Authority, ClientFiles, Mosquitto, if_to_be_had};
use tests::system::{
    CATCH_UP_TIMEOUT, binaries, command, everything_arrives, in_the_log, metric, refused_start, start_dlms, until,
    until_logged,
};
use tls_client::{IdentityFiles, TlsFiles};

const LOAD: &str = "speed = 3000.0\nhistory_days = 0.5";
const GATEWAY: &str = "demo-gateway";

/// A broker, and who signs for it.
struct Tls {
    mosquitto: Mosquitto,
    authority: Authority,
}

impl Tls {
    /// `None` where there is no mosquitto.
    fn start(folder: &Path) -> Option<Self> {
        let authority = Authority::new("tests").unwrap();
        let mosquitto = if_to_be_had(Mosquitto::start(folder, &authority)).unwrap()?;
        Some(Self { mosquitto, authority })
    }

    /// Settings of a client whose certificate has this name.
    fn toml(&self, folder: &Path, name: &str) -> String {
        ClientFiles::write(folder, name, &self.authority, &self.authority.client(name).unwrap()).unwrap().toml()
    }

    /// Cloud and gateway have certificates of their own names.
    async fn stage(&self, folder: &Path) -> Stage {
        let port = self.mosquitto.address().port();
        let mut stage = Stage::at_broker(folder, binaries().unwrap(), port).await.unwrap();
        stage.mqtt_toml = self.toml(folder, CLOUD);
        stage.broker_toml = self.toml(folder, GATEWAY);
        stage
    }

    fn kill_and_forget(&mut self) {
        self.mosquitto.kill().unwrap();
        self.mosquitto.forget().unwrap();
        self.mosquitto.restart().unwrap();
    }
}

/// Both certificates are signed, and of one name: the broker lets either in, and throws out the other.
///
/// Control still to be seen: leave the fingerprint out of the gateway's status (`forwarder.rs`): only the outboxes are named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_certificates_of_one_name_are_an_alarm_that_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tls) = Tls::start(folder.path()) else { return };
    let mut stage = tls.stage(folder.path()).await;
    let mut second = stage.gateway_beside(GATEWAY).await.unwrap();
    second.broker_toml = tls.toml(&second.folder().join("gateway"), GATEWAY);
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    second.start_gateway().unwrap();
    let api = stage.cloud_address();
    let is_told = async || {
        let (_, body) = http_answer(api, "/v1/gateways").await?;
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        let alarm = answer["gateways"][0]["alarm"].as_str().unwrap_or_default().to_owned();
        Ok(alarm.starts_with("two gateways use this id: ") && alarm.matches("certificate ").count() == 2)
    };
    until("an alarm that names two certificates", CATCH_UP_TIMEOUT, is_told).await.unwrap();
    assert!(metric(api, "cloud_gateway_twins_total").await.unwrap() > 0);
}

/// The broker acknowledges what it drops, so that only the cloud shows it.
///
/// Negative control: `pattern write meterpost/v1/#` in the broker's list of who may what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_publishes_as_another_is_heard_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tls) = Tls::start(folder.path()) else { return };
    let mut stage = tls.stage(folder.path()).await;
    let mut impostor = stage.gateway_beside("second").await.unwrap();
    impostor.broker_toml = tls.toml(folder.path(), "third");
    let [own, forged] = [(1, 2), (101, 1)].map(|(first, count)| start_dlms(&mut stage, first, count, LOAD).unwrap());
    stage.meters_toml = own.toml().unwrap();
    impostor.meters_toml = forged.toml().unwrap();
    stage.start_cloud().unwrap();
    impostor.start_gateway().unwrap();
    stage.start_gateway().unwrap();
    let published = async || Ok(metric(impostor.gateway_address(), "gateway_refs_published_total").await? >= 3);
    until("the impostor publishes, and repeats", CATCH_UP_TIMEOUT, published).await.unwrap();
    // What was published before these has had its time.
    let known = in_the_log(&stage).await.len();
    until_logged(&stage, known + 60).await.unwrap();
    let log = in_the_log(&stage).await;
    let truth = forged.captured().unwrap();
    assert!(!truth.is_empty() && truth.keys().all(|identity| !log.contains_key(identity)), "it was heard");
    let audit = stage.audit_now().unwrap();
    assert_eq!(audit["gateways"], 1, "{audit}");

    // With a certificate of its own name it is heard, and had lost nothing.
    impostor.stop_gateway().unwrap();
    impostor.broker_toml = tls.toml(folder.path(), "second");
    impostor.start_gateway().unwrap();
    stage.freeze_simulator().unwrap();
    let mut truth = own.captured().unwrap();
    truth.extend(forged.captured().unwrap());
    let audit = everything_arrives(&stage, &truth).await.unwrap();
    println!("{audit}");
    assert_eq!(audit["gateways"], 2, "{audit}");
}

/// Negative control: subscribe on the first connection only (`gateway/src/mqtt/connection.rs`): receipts no longer arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_tls_that_forgets_everything_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut tls) = Tls::start(folder.path()) else { return };
    let mut stage = tls.stage(folder.path()).await;
    let fleet = start_dlms(&mut stage, 1, 3, LOAD).unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 100).await.unwrap();
    for _ in 0..2 {
        tls.kill_and_forget();
        let known = in_the_log(&stage).await.len();
        until_logged(&stage, known + 30).await.unwrap();
    }
    stage.freeze_simulator().unwrap();
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
}

/// Refs that instances have settled, whatever became of them.
async fn settled(stage: &Stage) -> u64 {
    let mut settled = 0;
    for number in 0..2 {
        settled += metric(stage.instance_address(number), "cloud_refs_total").await.unwrap();
    }
    settled
}

/// Negative control: leave `share_group` out: each ref is settled twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_share_a_subscription_of_a_broker_that_forgets_everything() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut tls) = Tls::start(folder.path()) else { return };
    let Some(cluster) = if_to_be_had(Cluster::start(&folder.path().join("services"), 1)).unwrap() else { return };
    let mut stage = tls.stage(folder.path()).await;
    stage.mqtt_toml.push_str("share_group = \"cloud\"\n");
    stage.engines_toml = cluster.engines("shared").toml().unwrap();
    let fleet = start_dlms(&mut stage, 1, 3, LOAD).unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.write_cloud_config(0).unwrap();
    migrate(&stage).unwrap();
    stage.start_instance(0).unwrap();
    stage.start_instance(1).unwrap();
    stage.start_gateway().unwrap();
    let some_are_settled = async || Ok(settled(&stage).await >= 20);
    until("refs are settled", CATCH_UP_TIMEOUT, some_are_settled).await.unwrap();
    let settled = settled(&stage).await;
    let published = metric(stage.gateway_address(), "gateway_refs_published_total").await.unwrap();
    println!("{published} refs were published, repetitions included, and {settled} settled");
    assert!(settled <= published, "{settled} of {published}");

    tls.kill_and_forget();
    let known = in_the_log(&stage).await.len();
    until_logged(&stage, known + 30).await.unwrap();
    // Each of them can do it alone: what the broker gave to the dead one comes again.
    for number in [1, 0] {
        stage.kill_instance(number).unwrap();
        let known = in_the_log(&stage).await.len();
        until_logged(&stage, known + 30).await.unwrap();
        stage.start_instance(number).unwrap();
    }
    stage.freeze_simulator().unwrap();
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
}

// ----------------------------------------------------------------------------------------------------------------------------
// What is said of certificates that do not fit.

/// What the cloud and a gateway make of the broker at this port, and the cloud's hint.
async fn told(port: u16, tls: Option<TlsFiles>) -> [String; 3] {
    let settings = cloud::mqtt::MqttSettings {
        host: "127.0.0.1".to_owned(),
        port,
        client_id: "told".to_owned(),
        login: None,
        tls: tls.clone(),
        keep_alive: Duration::from_secs(5),
        packet_bytes_max: 1 << 20,
    };
    let (mut connection, _client) = cloud::mqtt::Connection::open(&settings, "in", Vec::new()).unwrap();
    let error: MqttError = connection.next().await.unwrap_err();
    let mut link = gateway::mqtt::connection::spawn(gateway::mqtt::connection::MqttSettings {
        host: settings.host,
        port,
        tls,
        client_id: GATEWAY.to_owned(),
        keep_alive: settings.keep_alive,
        persistent_session: false,
        subscriptions: Vec::new(),
        last_will: None,
        packet_bytes_max: 1 << 20,
        payload_bytes_max: 1 << 20,
        seed: 1,
    });
    let Some(MqttEvent::Disconnected { reason }) = link.events.recv().await else { panic!("it was let in") };
    [error.to_string(), reason, error.hint().unwrap_or_default().to_owned()]
}

/// Negative controls: without `trouble` nothing of it is said; let rustls take any certificate of the broker: it lets us in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_told_once_and_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tls) = Tls::start(folder.path()) else { return };
    let (ours, stranger) = (&tls.authority, Authority::new("stranger").unwrap());
    let beside = |name: &str, identity: &Identity| {
        let home = folder.path().join(name);
        std::fs::create_dir(&home).unwrap();
        Mosquitto::start_as(&home, ours, identity).unwrap()
    };
    let expired = beside("expired", &ours.expired_server().unwrap());
    let elsewhere = beside("elsewhere", &ours.server_called("broker.example").unwrap());
    let good = ours.client(GATEWAY).unwrap();
    let port = |mosquitto: &Mosquitto| mosquitto.address().port();
    let (here, of_stranger) = (port(&tls.mosquitto), stranger.client(GATEWAY).unwrap());
    let old = ours.expired_client(GATEWAY).unwrap();
    let cases = [
        (here, &stranger, Some(&good), "the broker's certificate is signed by nobody in ca_file"),
        (port(&expired), ours, Some(&good), "the broker's certificate has expired"),
        (port(&elsewhere), ours, Some(&good), "the broker's certificate is for somebody else"),
        (here, ours, Some(&of_stranger), "the broker refuses our certificate: UnknownCA"),
        (here, ours, Some(&old), "the broker refuses our certificate: it has expired"),
        (here, ours, None, "the broker asks for a certificate, and got none"),
    ];
    // A broker that refuses may be gone before its word is read.
    let gone = "the broker closed the connection as soon as it had our certificate";
    for (number, (port, believed, identity, expected)) in cases.into_iter().enumerate() {
        let files =
            ClientFiles::write(folder.path(), &number.to_string(), believed, identity.unwrap_or(&good)).unwrap();
        let identity_files = identity.map(|_| IdentityFiles { cert: files.cert, key: files.key });
        let [at_cloud, at_gateway, hint] = told(port, Some(TlsFiles { ca: files.ca, identity: identity_files })).await;
        println!("{at_cloud}\n  hint: {hint}");
        for said in [at_cloud, at_gateway] {
            let is_refused = expected.starts_with("the broker refuses") || expected.starts_with("the broker asks");
            assert!(said.starts_with(expected) || (is_refused && said == gone), "{expected}: {said}");
        }
        assert!(!hint.is_empty(), "{expected}");
    }
    let [at_cloud, at_gateway, hint] = told(here, None).await;
    assert_eq!(at_cloud, "the broker closed the connection before it had said anything");
    assert_eq!(at_cloud, at_gateway);
    assert!(hint.contains("set ca_file"), "{hint}");
}

/// What the programs themselves say: at the start of a key, and in their logs of a broker that refuses a certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_tell_what_is_wrong_and_never_a_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let Some(tls) = Tls::start(folder.path()) else { return };
    let mut stage = tls.stage(folder.path()).await;
    let stranger = Authority::new("stranger").unwrap();
    let identity = stranger.client(GATEWAY).unwrap();
    let files = ClientFiles::write(folder.path(), "refused", &tls.authority, &identity).unwrap();
    (stage.broker_toml, stage.mqtt_toml) = (files.toml(), files.toml());
    let secret = identity.key.lines().nth(1).unwrap();

    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    stage.write_gateway_config(&stage.gateway_toml()).unwrap();
    stage.write_cloud_config(0).unwrap();
    let key = files.key.display();
    let words = format!(
        "{key} cannot be used for TLS: its mode is 644: others than its owner may use the key\nhint: chmod 600 {key}\n"
    );
    assert_eq!(refused_start(&stage).unwrap(), (Some(1), format!("broker: {words}")));
    assert_eq!(command(&stage, &["check-config"]).unwrap().0, Some(1));
    let output = stage.cloud_command(&["check-config"]).unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), format!("error: {words}")));

    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let logs = || anyhow::Ok([stage.cloud_log()?, stage.gateway_log()?]);
    let is_told = async || Ok(logs()?.iter().all(|log| log.contains("hint=\"cert_file must be signed by")));
    until("both say so", CATCH_UP_TIMEOUT, is_told).await.unwrap();
    assert!(logs().unwrap().iter().all(|log| !log.contains(secret)), "a key is in a log");
    let (head, body) = http_answer(stage.cloud_address(), "/readyz").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && body.contains("intake"), "{head}\n{body}");
}
