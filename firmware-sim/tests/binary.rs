//! The real binary: what it prints, pushes, writes down, and how it ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use protocols::cad::minimal;
use serde_json::Value;

fn sim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firmware-sim"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

fn output(arguments: &[&str]) -> Output {
    sim(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

/// A broker on a thread: acknowledges every publish and hands its topic and payload on. It hangs up once without an
/// acknowledgement, after `hang_up_after` publishes.
fn broker(hang_up_after: usize) -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        let mut until_hang_up = Some(hang_up_after);
        for stream in listener.incoming() {
            // The test is over when nobody listens any more.
            let Some(()) = serve(stream.unwrap(), &sender, &mut until_hang_up) else { return };
        }
    });
    (address, received)
}

fn serve(
    mut stream: TcpStream,
    sender: &mpsc::Sender<(String, Vec<u8>)>,
    until_hang_up: &mut Option<usize>,
) -> Option<()> {
    while let Some((kind, body)) = packet(&mut stream) {
        match kind >> 4 {
            1 => stream.write_all(&[0x20, 2, 0, 0]).unwrap(),
            3 => {
                let topic_end = 2 + (usize::from(body[0]) << 8 | usize::from(body[1]));
                let topic = text(&body[2..topic_end]);
                sender.send((topic, body[topic_end + 2..].to_vec())).ok()?;
                if let Some(left) = until_hang_up {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        *until_hang_up = None;
                        return Some(());
                    }
                }
                let acknowledgement = [0x40, 2, body[topic_end], body[topic_end + 1]];
                if stream.write_all(&acknowledgement).is_err() {
                    return Some(());
                }
            }
            12 => stream.write_all(&[0xd0, 0]).unwrap(),
            _ => return Some(()),
        }
    }
    Some(())
}

fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = || {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok().map(|()| byte[0])
    };
    let kind = byte()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let part = byte()?;
        length |= usize::from(part & 0x7f) << shift;
        shift += 7;
        if part & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((kind, body))
}

#[test]
fn what_a_fleet_pushes_is_what_its_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.jsonl");
    let (address, received) = broker(70);
    let run = output(&[
        "fleet",
        "--meters",
        "25",
        "--protocol",
        "cad",
        "--source",
        "uci",
        "--seed",
        "5",
        "--interval-ms",
        "50",
        "--start-at",
        "2026-01-01T12:00:00Z",
        "--fault",
        "duplicate=0.1",
        "--fault",
        "silence=0.1",
        "--fault",
        "slow-answers=0.1",
        "--pushes-max",
        "300",
        "--duration-s",
        "60",
        "--broker",
        &address,
        "--truth",
        truth.to_str().unwrap(),
        "--json",
    ]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let stdout = text(&run.stdout);
    let printed: Vec<Value> = stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(printed.len(), 26, "25 meters and a summary");
    assert_eq!(printed[0]["topic"], "meterpost/cad/SIM:000001/reading");
    assert_eq!(printed[0]["broker"], address);
    let summary = &printed[25]["summary"];
    assert_eq!((&summary["truth_lines"], &summary["messages_unacknowledged"]), (&600.into(), &0.into()));

    let mut delivered = BTreeSet::new();
    for (topic, payload) in received.try_iter() {
        let telegram = minimal::decode(&payload).unwrap();
        assert_eq!(minimal::meter_of_topic(&topic).as_ref(), Some(&telegram.meter));
        delivered.extend(telegram.readings.into_iter().map(|reading| {
            let (code, quantity) = (reading.code.to_string(), reading.quantity);
            let captured_at = reading.captured_at.to_string();
            (telegram.meter.to_string(), code, captured_at, u64::from(reading.nth), quantity.decimal())
        }));
    }
    let told = lines(&truth).into_iter().map(|line| {
        assert_eq!((line["protocol"].as_str(), line["quality"].as_str()), (Some("cad"), Some("good")));
        assert!(line["pushed_at"].is_i64());
        let field = |name: &str| line[name].as_str().unwrap().to_owned();
        (field("meter"), field("code"), field("captured_at"), line["nth"].as_u64().unwrap(), field("value"))
    });
    let told_all: Vec<_> = told.collect();
    let told_once: BTreeSet<_> = told_all.iter().cloned().collect();
    assert_eq!(told_all.len(), told_once.len(), "nothing is told twice");
    assert_eq!(told_once, delivered);
}

#[test]
fn lines_tell_where_they_are_and_how_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("fleet.toml");
    let link = folder.path().join("p1");
    std::fs::write(
        &config,
        format!(
            "seed = 4\n[[meters]]\ncount = 2\nprotocol = \"dlms-tcp\"\n[[meters]]\ncount = 2\nprotocol = \"dlms-hdlc\"\n\
             [[meters]]\nprotocol = \"p1\"\nline = \"pty\"\npath = {link:?}\ngas = true\n"
        ),
    )
    .unwrap();
    let arguments = ["fleet", "--config", config.to_str().unwrap(), "--duration-s", "0"];
    let run = output(&[&arguments[..], &["--json"]].concat());
    assert!(run.status.success(), "{}", text(&run.stderr));
    let printed: Vec<Value> = text(&run.stdout).lines().map(|line| line.parse().unwrap()).collect();
    let password = printed[0]["password"].as_str().unwrap();
    assert_eq!(password.len(), 12);
    assert_ne!(printed[0]["password"], printed[1]["password"]);
    assert_ne!(printed[0]["address"], printed[1]["address"]);
    assert_eq!(
        (&printed[0]["wport"], &printed[0]["client"], &printed[0]["public_client"]),
        (&1.into(), &1.into(), &16.into())
    );
    assert_eq!(printed[2]["address"], printed[3]["address"]);
    assert_eq!((&printed[2]["hdlc_address"], &printed[3]["hdlc_address"]), (&16.into(), &17.into()));
    assert_eq!((printed[4]["path"].as_str(), &printed[4]["gas_meter"]), (link.to_str(), &"SIM-GAS:000005".into()));
    assert!(!text(&run.stderr).contains(password), "passwords are in no log");
    let table = text(&output(&arguments).stdout);
    assert!(table.contains("hdlc 17 client 1 password ") && table.contains(password), "{table}");
    // A port that is taken is the user's affair.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = output(&["meter", "--protocol", "dlms-tcp", "--listen", &address]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains(&format!("line {address} cannot be opened")), "{}", text(&run.stderr));
}

#[test]
fn the_same_seed_captures_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, seed: &str| {
        let truth = folder.path().join(name);
        let run = output(&[
            "fleet",
            "--meters",
            "5",
            "--protocol",
            "none",
            "--seed",
            seed,
            "--zone",
            "CET",
            "--drift-ppm-max",
            "100",
            "--start-at",
            "2026-03-30T00:00:00Z",
            "--history-days",
            "3",
            "--fault",
            "clock-jump=1",
            "--fault",
            "power-failure=1",
            "--truth",
            truth.to_str().unwrap(),
            "--duration-s",
            "0",
        ]);
        assert!(run.status.success(), "{}", text(&run.stderr));
        std::fs::read(truth).unwrap()
    };
    let first = run("a", "1");
    assert!(first.len() > 100_000, "{} bytes", first.len());
    assert_eq!(first, run("b", "1"));
    assert_ne!(first, run("c", "2"));
}

#[test]
fn a_terminated_fleet_ends_well_and_its_truth_is_readable_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.jsonl");
    let mut child = sim(&[
        "meter",
        "--protocol",
        "none",
        "--number",
        "77",
        "--speed",
        "3600",
        "--days-back",
        "2",
        "--history-days",
        "1",
        "--truth",
        truth.to_str().unwrap(),
        "--json",
    ])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"meter\":\"SIM:000077\",\"protocol\":\"none\"}\n");
    let history = lines(&truth).len();
    assert!(history >= 2 * 96, "a day of quarter-hours: {history} lines");
    assert!(child.try_wait().unwrap().is_none(), "it runs until it is told to stop");
    let killed = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().unwrap();
    assert!(killed.success());
    assert!(child.wait().unwrap().success());
    line.clear();
    stdout.read_line(&mut line).unwrap();
    let summary: Value = line.parse().unwrap();
    assert_eq!(summary["summary"]["truth_lines"], lines(&truth).len());
}

#[test]
fn wrong_input_ends_with_one_and_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("fleet.toml");
    std::fs::write(&config, "[[meters]]\nprotocol = \"cad\"\nintervall_ms = 5\n").unwrap();
    let config = config.to_str().unwrap();
    for arguments in [&["check-config", "--config", config][..], &["fleet", "--config", config]] {
        let run = output(arguments);
        assert_eq!(run.status.code(), Some(1));
        assert!(run.stdout.is_empty());
        let stderr = text(&run.stderr);
        assert!(stderr.contains("error: ") && stderr.contains("hint: did you mean \"interval_ms\"?"), "{stderr}");
    }
    assert_eq!(output(&["fleet"]).status.code(), Some(1));
    assert_eq!(output(&["--help"]).status.code(), Some(0));
    let lost = output(&["meter", "--protocol", "none", "--truth", "/nonexistent/truth.jsonl"]);
    assert_eq!(lost.status.code(), Some(1));
}

/// Negative control: answer no hint for `AddrInUse` in `StartError::hint`.
#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = output(&["meter", "--protocol", "dlms-tcp", "--listen", &address]);
    assert_eq!(run.status.code(), Some(1));
    let (stderr, expected) = (text(&run.stderr), format!("error: line {address} cannot be opened: "));
    assert!(stderr.contains(&expected) && stderr.contains("hint: another program has the port"), "{stderr}");
}

#[test]
fn a_truth_that_cannot_be_written_ends_the_run_with_two() {
    if !Path::new("/dev/full").exists() {
        // To stderr itself: what a test that passes prints by macro is not shown.
        return std::io::stderr().write_all(b"skipped: no /dev/full\n").unwrap();
    }
    let run = output(&["meter", "--protocol", "none", "--truth", "/dev/full", "--duration-s", "30"]);
    assert_eq!(run.status.code(), Some(2), "{}", text(&run.stderr));
}

#[test]
fn the_example_fleet_file_is_valid() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/fleet.toml");
    let run = output(&["check-config", "--config", example.to_str().unwrap()]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(text(&run.stdout).contains("queue_per_meter_max = 1000"), "defaults are shown");
}
