//! Are meters read under keys of every kind, and do their keys and calendars change without anything being lost?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use demo::meters::LOAD_PROFILE;
use demo::stage::Stage;
use tests::system::{
    CATCH_UP_TIMEOUT, Fleet, binaries, command, everything_arrives, stage, start_groups, until, until_logged,
};

/// Suite, ciphering, signing.
const KINDS: [(u8, &str, &str); 9] = [
    (0, "wrapped", "none"),
    (1, "wrapped", "inside"),
    (1, "one-pass", "none"),
    (1, "static-unified", "outside"),
    (2, "one-pass", "inside"),
    (2, "one-pass", "outside"),
    (2, "static-unified", "none"),
    (2, "wrapped", "none"),
    (1, "global", "inside"),
];

fn start(stage: &mut Stage, settings: &str, kinds: &[(u8, &str, &str)]) -> Fleet {
    let group = |(suite, ciphering, signing): &(u8, &str, &str)| {
        format!(
            "[[meters]]\nprotocol = \"dlms-tcp\"\nlisten = \"127.0.0.1:0\"\n{LOAD_PROFILE}\
             security = {{ suite = {suite}, ciphering = \"{ciphering}\", signing = \"{signing}\" }}\n"
        )
    };
    let groups: String = kinds.iter().map(group).collect();
    let mut fleet = start_groups(stage, 1, kinds.len(), settings, &groups).unwrap();
    // Its folder is where keys are put.
    fleet.password = stage.folder().join("meter-password").display().to_string();
    fleet
}

/// Controls, seen to fail: draw no key, or no ephemeral pair, in `Counters::prepare`; sign nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_under_keys_of_every_kind_and_with_signatures_arrives_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start(&mut stage, "speed = 1200.0\nhistory_days = 0.5", &KINDS);
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let all_are_read = async || {
        let status = stage.gateway_status().await?;
        let meters = status["meters"].as_array().cloned().unwrap_or_default();
        Ok(meters.iter().filter(|meter| meter["state"] == "ok").count() == KINDS.len())
    };
    until("all are read", CATCH_UP_TIMEOUT, all_are_read).await.unwrap();
    stage.freeze_simulator().unwrap();
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
    stage.stop_gateway().unwrap();
}

fn private_file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// One secured meter whose keys and calendar may be changed, and a gateway that has run.
async fn managed(folder: &Path) -> (Stage, String) {
    let mut stage = stage(folder).await.unwrap();
    let fleet = start(&mut stage, "history_days = 0.2", &[(0, "global", "none")]);
    let security = &fleet.endpoints[0]["security"];
    let password = private_file(folder, "management", security["management_password"].as_str().unwrap());
    let section = fleet.toml().unwrap().replace("clock_check = \"off\"\n", "");
    stage.meters_toml = format!(
        "{section}[meter.clock_set]\nset_above_s = 5\nset_below_s = 600\nclient = 2\nauthentication = {}\n\
         password_file = \"{}\"\n",
        security["management_authentication"],
        password.display()
    );
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 1).await.unwrap();
    stage.stop_gateway().unwrap();
    (stage, fleet.endpoints[0]["meter"].as_str().unwrap().replace(':', "-"))
}

fn is_read(stage: &Stage, name: &str) {
    let (code, stdout, stderr) = command(stage, &["read", name, "1-0:1.8.0"]).unwrap();
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("1-0:1.8.0"), "{stdout}");
}

/// Control, seen to fail: transfer a key before it is stored (`KeyChange`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meter_is_read_and_its_change_of_keys_finished_wherever_the_command_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut stage, name) = managed(folder.path()).await;
    let mut is_cut_short = 0;
    for (turn, killed_after_ms) in [0, 5, 10, 20, 40, 80, 120, 160, 240, 320].into_iter().enumerate() {
        let key = |what: &str, high: u8| {
            let path =
                private_file(stage.folder(), &format!("new-{what}"), &format!("{:02x}", high + turn as u8).repeat(16));
            path.display().to_string()
        };
        let (encryption, authentication, master) = (key("guek", 0x40), key("gak", 0x60), key("kek", 0x80));
        let arguments = [
            "keys",
            &name,
            "--encryption-key",
            &encryption,
            "--authentication-key",
            &authentication,
            "--key-encrypting-key",
            &master,
            "--yes",
        ];
        let mut changing = std::process::Command::new(binaries().unwrap().gateway)
            .args(arguments)
            .arg("--config")
            .arg(stage.gateway_config())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(killed_after_ms)).await;
        changing.kill().unwrap();
        changing.wait().unwrap();
        let files = ["encryption_key_file", "authentication_key_file", "key_encrypting_key_file"];
        let next = |file: &&str| stage.folder().join(format!("{name}.{file}.next")).exists();
        is_cut_short += u32::from(files.iter().any(next));
        is_read(&stage, &name);
        let (code, stdout, stderr) = command(&stage, &arguments).unwrap();
        assert!(code == Some(0) || stderr.contains("in force already"), "{turn}: {stdout}{stderr}");
        for (file, new) in files.into_iter().zip([&encryption, &authentication, &master]) {
            let path = stage.folder().join(format!("{name}.{file}"));
            let read = |path: &Path| std::fs::read_to_string(path).unwrap().trim().to_owned();
            assert_eq!(read(&path), read(Path::new(new)), "{turn}: {file}");
            assert!(!path.with_file_name(format!("{name}.{file}.next")).exists());
        }
        is_read(&stage, &name);
    }
    println!("{is_cut_short} were killed while a key was on its way");
    assert!(is_cut_short > 0);
    // The gateway goes on under the last of them.
    stage.start_gateway().unwrap();
    let is_ok = async || Ok(stage.gateway_status().await?["meters"][0]["state"] == "ok");
    until("it is read", CATCH_UP_TIMEOUT, is_ok).await.unwrap();
    stage.stop_gateway().unwrap();
}

/// Control, seen to fail: leave the calendar out of `may_write` of the simulator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_calendar_goes_from_a_file_into_a_meter_and_becomes_the_active_one() {
    let folder = tempfile::tempdir().unwrap();
    let (stage, name) = managed(folder.path()).await;
    let done = |arguments: &[&str]| {
        let (code, stdout, stderr) = command(&stage, arguments).unwrap();
        assert_eq!(code, Some(0), "{arguments:?}: {stdout}{stderr}");
        stdout
    };
    let printed = done(&["calendar", &name, "--only", "active"]);
    assert!(printed.starts_with("name = \"two rates\"\n"), "{printed}");
    let file = stage.folder().join("calendar.toml");
    std::fs::write(&file, printed.replace("two rates", "2027").replace("07:00", "06:30")).unwrap();
    let path = file.display().to_string();
    let text = done(&["calendar", &name, "--write", &path, "--activate", "now", "--yes"]);
    assert!(text.ends_with("active \"2027\", passive \"2027\", activation never\n"), "{text}");
    assert_eq!(done(&["calendar", &name, "--only", "active"]), std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, printed.replace("week = \"week\"", "week = \"none\"")).unwrap();
    let (code, _, stderr) = command(&stage, &["calendar", &name, "--write", &path, "--yes"]).unwrap();
    assert!(code == Some(1) && stderr.contains("is of week \"none\", which does not exist"), "{stderr}");
}
