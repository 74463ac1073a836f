use std::path::Path;

use protocols::dlms::security::{Key, Level, SecuritySuite};
use protocols::dlms::server::ClientRole;

use super::*;
use crate::commands::change::tests::{events, site};
use crate::commands::{ReadOptions, read};
use crate::config::metering::ClockSetSection;
use crate::config::security::{AuthenticationName, PolicyName};
use crate::reading::testing::SharedBody;
use crate::reading::testing::secured::{BodySecurity, Files};
use crate::run;

const NEW: [(&str, u8); 3] = [("new-encryption", 0x71), ("new-authentication", 0x72), ("new-master", 0x73)];
const FILES: [&str; 3] = ["encryption0", "authentication0", "master0"];

/// A meter whose keys may be changed by who reads it, its key files and new keys, and the settings.
async fn secured(folder: &Path, rest: &str) -> (SharedBody, Files, Checked) {
    let files = Files::new();
    for (name, octet) in NEW {
        files.write(name, &format!("{octet:02x}").repeat(16));
    }
    let suite = SecuritySuite::Suite0;
    let master = files.path("master0");
    let section = format!("{}key_encrypting_key_file = {master:?}\n{rest}", files.section("gmac", suite));
    let (body, checked) = site(folder, &section).await;
    {
        let mut body = body.lock().unwrap();
        body.security = Some(BodySecurity::new("gmac", suite, Level::AUTHENTICATED_ENCRYPTED));
        body.setter = Some(ClientRole::Reader);
    }
    (body, files, checked)
}

/// As they are read at the next start.
fn again(checked: &Checked) -> Checked {
    checked.config.clone().check().unwrap()
}

fn options(files: &Files, which: [bool; 3]) -> KeysOptions {
    let [encryption_key, authentication_key, key_encrypting_key] =
        [0, 1, 2].map(|place| which[place].then(|| files.path(NEW[place].0)));
    KeysOptions { encryption_key, authentication_key, key_encrypting_key, object: "0-0:43.0.0".to_owned(), yes: true }
}

/// What was printed, or the error.
async fn outcome(checked: &Checked, options: &KeysOptions) -> Result<String, String> {
    let mut out = Vec::new();
    match keys(&again(checked), "m", options, &mut out).await {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(error) => Err(format!("{error:#}")),
    }
}

async fn is_read(checked: &Checked) -> Result<(), String> {
    let options = ReadOptions { obis: vec!["1-0:1.8.0".to_owned()], ..ReadOptions::default() };
    let read = read(&again(checked), "m", &options, &mut Vec::new()).await;
    read.map_err(|error| format!("{error:#}"))
}

/// The octet that each key of the meter is made of.
fn of_meter(body: &SharedBody) -> [u8; 3] {
    let body = body.lock().unwrap();
    let config = &body.security.as_ref().unwrap().config;
    let keys = [&config.keys.unicast, &config.keys.authentication, &config.transport.key_encrypting];
    keys.map(|key| (0..=255).find(|octet| key.as_ref() == Some(&Key::from([*octet; 16]))).unwrap())
}

/// The same of the files, and whether one is about to change.
fn on_disk(files: &Files) -> ([u8; 3], bool) {
    let digits = FILES.map(|name| std::fs::read_to_string(files.path(name)).unwrap());
    let octets = digits.map(|digits| u8::from_str_radix(&digits[..2], 16).unwrap());
    (octets, FILES.iter().any(|name| files.path(&format!("{name}.next")).exists()))
}

#[tokio::test]
async fn all_keys_change_in_the_meter_and_in_the_files_and_none_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (body, files, checked) = secured(folder.path(), "").await;
    let text = outcome(&checked, &options(&files, [true; 3])).await.unwrap();
    let change = "change                 change keys: global unicast encryption, authentication, key-encrypting\n";
    assert!(text.contains(change) && text.ends_with("hold the new keys\n"), "{text}");
    assert_eq!(of_meter(&body), [0x71, 0x72, 0x73]);
    assert_eq!(on_disk(&files), ([0x71, 0x72, 0x73], false));
    is_read(&checked).await.unwrap();
    let events = events(&checked);
    assert_eq!(events.iter().map(|(_, code, _)| *code).collect::<Vec<_>>(), [0, 1]);
    let told = format!("{text}{events:?}");
    for digits in ["0101", "0202", "0707", "7171", "7272", "7373"] {
        assert!(!told.contains(digits), "{digits} in {told}");
    }
    // What is done is not done again.
    let error = outcome(&checked, &options(&files, [true; 3])).await.unwrap_err();
    assert!(
        error.starts_with("in force already: global unicast encryption, authentication, key-encrypting\nhint: --enc")
    );
}

/// Whoever is killed after any step, or inside of one that talks to the meter, leaves a meter that the next read reads, and a change
/// that the same command finishes.
///
/// Controls, seen to fail: transfer a key before it is stored; put it into its file when the transfer is answered, without a trial; let
/// `turn` keep the key.
#[tokio::test]
async fn whoever_is_killed_after_any_step_leaves_a_meter_that_is_read_and_a_change_that_can_be_finished() {
    for lost_answers in [0, 1] {
        let mut is_whole = false;
        for killed_after in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let (body, files, checked) = secured(folder.path(), "").await;
            body.lock().unwrap().security.as_mut().unwrap().lost_answers = lost_answers;
            let options = options(&files, [true; 3]);
            let mut changing = Changing::of(&checked, "m", &options).await.unwrap();
            let mut is_over = false;
            for _ in 0..killed_after {
                is_over |= changing.step().await.unwrap().is_some();
            }
            drop(changing);
            is_read(&checked).await.unwrap_or_else(|error| panic!("after {killed_after}: {error}"));
            match outcome(&checked, &options).await {
                Ok(_) => {}
                Err(error) => assert!(error.starts_with("in force already"), "after {killed_after}: {error}"),
            }
            assert_eq!(of_meter(&body), [0x71, 0x72, 0x73], "after {killed_after}");
            assert_eq!(on_disk(&files), ([0x71, 0x72, 0x73], false), "after {killed_after}");
            is_read(&checked).await.unwrap();
            if is_over {
                is_whole = killed_after >= 12;
                break;
            }
        }
        assert!(is_whole, "fewer steps than three keys take");
    }
}

/// The answer to a transfer is lost, and the process dies before it can ask: with or without more keys to change, the one that is under
/// way is settled first.
#[tokio::test]
async fn a_change_that_was_cut_short_is_finished_without_naming_its_files_again() {
    let folder = tempfile::tempdir().unwrap();
    let (body, files, checked) = secured(folder.path(), "").await;
    let mut changing = Changing::of(&checked, "m", &options(&files, [true, false, false])).await.unwrap();
    for _ in 0..2 {
        changing.step().await.unwrap();
    }
    drop(changing);
    assert_eq!((of_meter(&body)[0], on_disk(&files)), (0x71, ([1, 2, 7], true)));
    // Nothing else is done to such a meter.
    let (now, mut out) = (again(&checked), Vec::new());
    let refused = crate::commands::switch(&now, "m", crate::commands::SwitchTo::Connect, true, &mut out);
    let error = refused.await.unwrap_err().to_string();
    assert!(error.starts_with("m: a change of its keys was cut short\nhint: `meterpost-gateway keys m`"), "{error}");
    let text = outcome(&checked, &options(&files, [false; 3])).await.unwrap();
    assert!(text.contains("change                 finish the change of its global unicast encryption key\n"), "{text}");
    assert_eq!((of_meter(&body), on_disk(&files)), ([0x71, 2, 7], ([0x71, 2, 7], false)));
    // A transfer that never arrived: the old key stays until the new one is known to be taken.
    files.write("authentication0.next", &"72".repeat(16));
    is_read(&checked).await.unwrap();
    outcome(&checked, &options(&files, [false; 3])).await.unwrap();
    assert_eq!((of_meter(&body), on_disk(&files)), ([0x71, 0x72, 7], ([0x71, 0x72, 7], false)));
}

#[tokio::test]
async fn a_meter_that_refuses_keeps_its_key_and_one_that_has_neither_leaves_both_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (body, files, checked) = secured(folder.path(), "").await;
    body.lock().unwrap().security.as_mut().unwrap().refuses = Some(GlobalKey::Authentication);
    let error = outcome(&checked, &options(&files, [true, true, false])).await.unwrap_err();
    assert!(
        error.starts_with("m: the meter does not take the new authentication key; the old one is in force\nhint: may")
    );
    assert_eq!((of_meter(&body), on_disk(&files)), ([0x71, 2, 7], ([0x71, 2, 7], false)));
    is_read(&checked).await.unwrap();

    let mut changing = Changing::of(&again(&checked), "m", &options(&files, [false, false, true])).await.unwrap();
    for _ in 0..2 {
        changing.step().await.unwrap();
    }
    // Somebody else has given it a third one.
    body.lock().unwrap().security.as_mut().unwrap().config.transport.key_encrypting = Some(Key::from([0x79; 16]));
    while changing.step().await.unwrap().is_none() {}
    assert_eq!(changing.step().await.unwrap(), Some(KeyChangeStep::Neither(GlobalKey::KeyEncrypting)));
    drop(changing);
    assert_eq!(on_disk(&files), ([0x71, 2, 7], true));
    let error = outcome(&checked, &options(&files, [false; 3])).await.unwrap_err();
    assert!(error.contains("under neither the old nor the new key-encrypting key; both are kept, in "), "{error}");
    let events = events(&checked);
    assert_eq!(events.iter().map(|(_, code, _)| *code).collect::<Vec<_>>(), [0, 2, 0, 2]);
}

/// Controls, seen to fail: leave out `check_file`, the comparison with keys in force, `ensure_tried`, `is_apart`.
#[tokio::test]
async fn what_cannot_be_a_change_is_refused_before_anything_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (body, files, checked) = secured(folder.path(), "").await;
    let none = options(&files, [false; 3]);
    let with = |path: &str| KeysOptions { encryption_key: Some(files.path(path)), ..none.clone() };
    files.write("short", "71");
    for (options, expected) in [
        (none.clone(), "nothing is to be changed\nhint: --encryption-key"),
        (with("encryption0"), "in force already: global unicast encryption\nhint: "),
        (
            with("master0"),
            "--encryption-key: the new global unicast encryption key is the key-encrypting key\nhint: each",
        ),
        (
            KeysOptions { authentication_key: Some(files.path(NEW[0].0)), ..with(NEW[0].0) },
            "--authentication-key: the new authentication key is the global unicast encryption key",
        ),
        (with("short"), "it holds 2 digits\nhint: 32 hexadecimal digits"),
        (KeysOptions { object: "setup".to_owned(), ..with(NEW[0].0) }, "setup"),
    ] {
        let error = outcome(&checked, &options).await.unwrap_err();
        assert!(error.contains(expected) && !error.contains("7171"), "{error} instead of {expected}");
    }
    let running = run::lock(&checked).unwrap();
    let error = outcome(&checked, &with(NEW[0].0)).await.unwrap_err();
    assert!(error.starts_with("m: the gateway runs\nhint: stop the gateway first"), "{error}");
    drop(running);

    let target = files.path("elsewhere");
    std::fs::rename(files.path("encryption0"), &target).unwrap();
    std::os::unix::fs::symlink(&target, files.path("encryption0")).unwrap();
    let error = outcome(&checked, &with(NEW[0].0)).await.unwrap_err();
    assert!(error.contains("is a symbolic link, and its file is about to be another\nhint: name the file"), "{error}");
    std::fs::rename(&target, files.path("encryption0")).unwrap();

    let mut shared = checked.config.clone();
    let second =
        crate::config::metering::MeterSection { name: "other".to_owned(), server: 2, ..shared.meter[0].clone() };
    shared.meter.push(second);
    let error = keys(&shared.check().unwrap(), "m", &with(NEW[0].0), &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.contains("holds a key of other, too\nhint: give each meter files of its own"), "{error}");

    let mut untried = checked.config.clone();
    untried.meter[0].authentication = Some(AuthenticationName::Sha256);
    untried.meter[0].password_file = Some(files.path("password"));
    untried.meter[0].security_policy = Some(PolicyName::Encrypted);
    let authentication = KeysOptions { authentication_key: Some(files.path(NEW[1].0)), ..none.clone() };
    let error = keys(&untried.check().unwrap(), "m", &authentication, &mut Vec::new()).await.unwrap_err().to_string();
    let expected =
        "nothing is said under the authentication key: nobody could tell whether it arrived\nhint: security_p";
    assert!(error.starts_with(expected), "{error}");

    let mut apart = checked.config.clone();
    apart.meter[0].clock_set = Some(ClockSetSection {
        set_above_s: Some(5),
        set_below_s: Some(600),
        encryption_key_file: Some(files.path("encryption0")),
        ..ClockSetSection::default()
    });
    let error = keys(&apart.check().unwrap(), "m", &with(NEW[0].0), &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.starts_with("m: [meter.clock_set] names key files of its own\nhint: keys that both"), "{error}");

    let mut without = checked.config.clone();
    without.meter[0].key_encrypting_key_file = None;
    let error = keys(&without.check().unwrap(), "m", &with(NEW[0].0), &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.starts_with("m: new keys are sent under the key-encrypting key\nhint: set key_enc"), "{error}");
    assert_eq!((of_meter(&body), on_disk(&files)), ([1, 2, 7], ([1, 2, 7], false)));
    assert!(events(&checked).is_empty());
}
