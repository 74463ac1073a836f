//! What does a gateway say that cannot start, and is what it refused as it was before?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::net::TcpListener;
use std::path::Path;

use demo::stage::Stage;
use rusqlite::Connection;
use tests::outbox_file::{OWNER, files, filled, open, path_in, store, tables};
use tests::system::{binaries, refused_start};

const IS_THE_USERS: Option<i32> = Some(1);

/// A stage on which nothing runs; its settings are written.
async fn empty_stage(folder: &Path) -> Stage {
    let stage = Stage::new(folder, binaries().unwrap()).await.unwrap();
    stage.write_gateway_config(&stage.gateway_toml()).unwrap();
    stage
}

/// The gateway refuses its outbox, in these words, and leaves the folder octet by octet as it was.
fn assert_refused(stage: &Stage, words: &str) {
    let folder = stage.gateway_folder();
    let before = files(&folder).unwrap();
    let expected = format!("{}: {words}\n", path_in(&folder).display());
    assert_eq!(refused_start(stage).unwrap(), (IS_THE_USERS, expected));
    assert!(files(&folder).unwrap() == before, "files were changed: {:?}", files(&folder).unwrap().keys());
}

/// Negative control: take the newer version for ours in `judge` (`outbox/core.rs`).
#[tokio::test]
async fn an_outbox_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let stage = empty_stage(folder.path()).await;
    filled(&stage.gateway_folder()).unwrap();
    let outbox = Connection::open(path_in(&stage.gateway_folder())).unwrap();
    outbox.pragma_update(None, "user_version", 99).unwrap();
    drop(outbox);
    let words = "the outbox was written by a newer version (99 instead of 2)\n\
                 hint: run the newer version again; an older one cannot read its outbox";
    assert_refused(&stage, words);
}

/// A killed gateway leaves a part of its outbox in the WAL, from where nobody but its own version may take it.
///
/// Negative control: let the connection write the WAL back when it is closed (`connect` in `outbox/core.rs`).
#[tokio::test]
async fn the_outbox_of_a_newer_gateway_that_was_killed_is_refused_with_its_wal() {
    let folder = tempfile::tempdir().unwrap();
    let stage = empty_stage(folder.path()).await;
    let alive = folder.path().join("alive");
    std::fs::create_dir(&alive).unwrap();
    let mut outbox = open(&alive, OWNER).unwrap();
    store(&mut outbox, "SIM:1", 0, 100).unwrap();
    Connection::open(path_in(&alive)).unwrap().pragma_update(None, "user_version", 99).unwrap();
    for name in ["outbox.db", "outbox.db-wal"] {
        std::fs::copy(alive.join(name), stage.gateway_folder().join(name)).unwrap();
    }
    assert!(std::fs::metadata(alive.join("outbox.db-wal")).unwrap().len() > 0);
    let words = "the outbox was written by a newer version (99 instead of 2)\n\
                 hint: run the newer version again; an older one cannot read its outbox";
    assert_refused(&stage, words);
}

/// Negative control: leave the comparison of owners out of `judge`.
#[tokio::test]
async fn an_outbox_of_another_gateway_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let stage = empty_stage(folder.path()).await;
    store(&mut open(&stage.gateway_folder(), "other-gateway").unwrap(), "SIM:1", 0, 10).unwrap();
    let words = "the outbox belongs to gateway other-gateway, this is demo-gateway\n\
                 hint: set [gateway] id back, or give this gateway a data_dir of its own";
    assert_refused(&stage, words);
}

/// Most programs number neither their databases nor the versions of these.
///
/// Negative controls: set the journal mode before `judge`; leave the count of tables out of it, and the tables of an outbox are
/// made in the file.
#[tokio::test]
async fn the_database_of_another_program_is_refused() {
    for application_id in [0, 0x4d50_0001] {
        let folder = tempfile::tempdir().unwrap();
        let stage = empty_stage(folder.path()).await;
        let theirs = Connection::open(path_in(&stage.gateway_folder())).unwrap();
        theirs.pragma_update(None, "application_id", application_id).unwrap();
        theirs.execute_batch("CREATE TABLE photos (name TEXT); INSERT INTO photos VALUES ('a cat')").unwrap();
        drop(theirs);
        let before = tables(&stage.gateway_folder()).unwrap();
        let words = format!(
            "the file is no outbox (application id {application_id:#x})\n\
             hint: it belongs to another program: move it away, or give this gateway a data_dir of its own"
        );
        assert_refused(&stage, &words);
        assert_eq!(tables(&stage.gateway_folder()).unwrap(), before);
    }
}

/// What is no database may be an outbox whose first page is gone: the gateway waits for nobody, and deletes nothing.
///
/// Negative control: overwrite the damaged file in `outbox/salvage.rs` instead of renaming it.
#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = empty_stage(folder.path()).await;
    let letter = "Dear diary, ".repeat(1_000).into_bytes();
    std::fs::write(path_in(&stage.gateway_folder()), &letter).unwrap();
    stage.start_gateway().unwrap();
    let found = files(&stage.gateway_folder()).unwrap();
    assert!(found.get("outbox.damaged-1").is_some_and(|aside| *aside == letter), "{:?}", found.keys());
    let log = stage.gateway_log().unwrap();
    let told = log.lines().find(|line| line.contains("ERROR") && line.contains("set_aside=")).unwrap();
    assert!(told.contains("outbox.damaged-1"), "{told}");
    stage.stop_gateway().unwrap();
}

/// Negative control: leave the hint out of `StartError::Listen`.
#[tokio::test]
async fn a_port_that_is_bound_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let stage = empty_stage(folder.path()).await;
    filled(&stage.gateway_folder()).unwrap();
    let before = files(&stage.gateway_folder()).unwrap();
    let address = stage.gateway_address();
    let _taken = TcpListener::bind(address).unwrap();
    let words = format!(
        "cannot listen on {address}: Address already in use (os error 98)\n\
         hint: another program has the port (`ss -ltnp` says which); choose another in [http] listen\n"
    );
    assert_eq!(refused_start(&stage).unwrap(), (IS_THE_USERS, words));
    assert!(files(&stage.gateway_folder()).unwrap() == before, "the outbox was touched");
}

/// Negative control: answer the lock that another one has in `run::lock`.
#[tokio::test]
async fn a_second_gateway_on_one_folder_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = empty_stage(folder.path()).await;
    filled(&stage.gateway_folder()).unwrap();
    stage.start_gateway().unwrap();
    let before = stage.gateway_status().await.unwrap();
    let words = format!(
        "another gateway is running on {}\nhint: stop it, or give this one a data_dir of its own\n",
        stage.gateway_folder().display()
    );
    assert_eq!(refused_start(&stage).unwrap(), (IS_THE_USERS, words));
    assert_eq!(stage.gateway_status().await.unwrap(), before);
    stage.stop_gateway().unwrap();
}

/// Negative control: leave the hint out of `StartError::DataDir`.
#[tokio::test]
async fn a_data_dir_that_cannot_be_made_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let stage = empty_stage(folder.path()).await;
    let in_the_way = folder.path().join("a-file");
    std::fs::write(&in_the_way, "not a folder").unwrap();
    let below = in_the_way.join("data");
    let toml = stage.gateway_toml();
    let toml = toml.replace(&format!("{:?}", stage.gateway_folder()), &format!("{below:?}"));
    stage.write_gateway_config(&toml).unwrap();
    let words = format!(
        "cannot use the data directory {}: Not a directory (os error 20)\n\
         hint: create it for the user that runs the gateway, or set [gateway] data_dir to a folder which that user may write to\n",
        below.display()
    );
    assert_eq!(refused_start(&stage).unwrap(), (IS_THE_USERS, words));
    assert_eq!(std::fs::read_to_string(&in_the_way).unwrap(), "not a folder");
}
