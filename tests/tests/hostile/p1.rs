//! Does a P1 port that says nonsense, without end or with a wrong CRC, go on as soon as it says something good?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use protocols::metering::{Quantity, Unit, UtcMillis};
use protocols::p1::{Builder, Layout, LocalTime, Scan, scan};
use tests::hostile::{RSS_KB_MAX, listen, peak_rss_kb, state_of, told};
use tests::system::{
    CATCH_UP_TIMEOUT, everything_arrives, metric, stage, start_dlms, start_p1_over_tcp, until, until_logged,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Far more than a gateway may keep of it.
const NONSENSE_OCTETS: usize = 64 * 1024 * 1024;
const BAD_EVERY: Duration = Duration::from_millis(50);

/// What the port does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    /// Octets without a line end, then a telegram of lines without end, then telegrams with a wrong CRC, and nothing else.
    Hostile,
    /// What the real meter says, each telegram after a copy with a wrong CRC and before some noise.
    Mixed,
}

/// The same telegram with another CRC.
fn spoiled(telegram: &[u8]) -> Vec<u8> {
    let mut spoiled = telegram.to_vec();
    let digit = telegram.iter().rposition(|&octet| octet == b'!').unwrap() + 1;
    spoiled[digit] = if spoiled[digit] == b'0' { b'1' } else { b'0' };
    spoiled
}

fn telegram(at: UtcMillis) -> Vec<u8> {
    Builder::new("SIM5METERPOST", LocalTime::CET)
        .text("1-3:0.2.8", "50")
        .stamp("0-0:1.0.0", at)
        .hex("0-0:96.1.1", "SIM0001")
        .quantity("1-0:1.8.1", Quantity::new(1_000, 0, Unit::WATT_HOUR), Layout::ENERGY)
        .unwrap()
        .finish()
}

async fn be_hostile(client: &mut TcpStream, phase: &mut watch::Receiver<Phase>) -> std::io::Result<()> {
    let garbage = vec![0x55; 64 * 1024];
    for _ in 0..NONSENSE_OCTETS / garbage.len() {
        client.write_all(&garbage).await?;
    }
    client.write_all(b"/SIM5METERPOST\r\n\r\n").await?;
    let lines = b"1-0:1.8.1(000001.000*kWh)\r\n".repeat(2_500);
    for _ in 0..NONSENSE_OCTETS / lines.len() {
        client.write_all(&lines).await?;
    }
    let mut second = 0;
    while *phase.borrow_and_update() == Phase::Hostile {
        client.write_all(&spoiled(&telegram(UtcMillis(1_795_392_000_000 + second * 1000)))).await?;
        second += 1;
        // Whoever is told to stop does so at once.
        drop(tokio::time::timeout(BAD_EVERY, phase.changed()).await);
    }
    Ok(())
}

async fn serve(mut client: TcpStream, real: SocketAddr, mut phase: watch::Receiver<Phase>) -> std::io::Result<()> {
    be_hostile(&mut client, &mut phase).await?;
    // From here on telegrams count: the simulator captures nothing while nobody is connected.
    let mut meter = TcpStream::connect(real).await?;
    let (mut heard, mut octets) = (Vec::new(), [0; 4096]);
    loop {
        match meter.read(&mut octets).await? {
            // The simulator was stopped: silence, until the gateway hangs up.
            0 => return client.read(&mut octets).await.map(|_| ()),
            count => heard.extend(&octets[..count]),
        }
        loop {
            let used = match scan(&heard) {
                Scan::NeedMore => break,
                Scan::Garbage { skip, .. } => skip,
                Scan::Telegram { used, .. } => {
                    let noise = [0xa5; 500];
                    client.write_all(&[&*spoiled(&heard[..used]), &heard[..used], &noise].concat()).await?;
                    used
                }
            };
            heard.drain(..used);
        }
    }
}

/// Controls, seen to fail: never find a telegram too long (`too_long_or_need_more` in `p1/frame.rs`), and nothing is heard behind the
/// endless one; leave the CRC out of what `P1Port::silent` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_p1_port_is_named_and_its_good_telegrams_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let others = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let fleet = start_p1_over_tcp(&mut stage, 101).unwrap();
    let real = fleet.endpoints[0]["address"].as_str().unwrap().parse().unwrap();
    let (set_phase, phase) = watch::channel(Phase::Hostile);
    let port = listen(move |client| serve(client, real, phase.clone())).await.unwrap();
    stage.meters_toml = format!(
        "{}[[port]]\nname = \"p1\"\ntcp = \"{port}\"\nevery_s = 1\nregisters_every_s = 1\nclock_check = \"off\"\nsilent_after_s = 5\n",
        others.toml().unwrap()
    );
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    // Others are read meanwhile.
    until_logged(&stage, 100).await.unwrap();
    let is_named = async || {
        let (state, cause) = state_of(&stage, "p1").await?;
        Ok(state == "silent" && cause.contains("CRC") && cause.contains("accept_invalid_crc = true"))
    };
    until("the port's state names the CRC and what to do", CATCH_UP_TIMEOUT, is_named).await.unwrap();
    let is_counted = async || Ok(metric(stage.gateway_address(), "gateway_telegrams_crc_invalid_total").await? >= 100);
    until("a hundred telegrams are refused for their CRC", CATCH_UP_TIMEOUT, is_counted).await.unwrap();
    assert_eq!(metric(stage.gateway_address(), "gateway_telegrams_total").await.unwrap(), 0);
    set_phase.send(Phase::Mixed).unwrap();
    let is_well = async || Ok(state_of(&stage, "p1").await? == ("ok".to_owned(), String::new()));
    until("the port is well again", CATCH_UP_TIMEOUT, is_well).await.unwrap();
    let is_read = async || Ok(metric(stage.gateway_address(), "gateway_telegrams_total").await? >= 10);
    until("ten good telegrams among the bad ones", CATCH_UP_TIMEOUT, is_read).await.unwrap();
    stage.stop_last_simulator().unwrap();
    stage.freeze_simulator().unwrap();
    let mut truth = others.captured().unwrap();
    truth.extend(fleet.captured().unwrap());
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());
    let rss_kb = peak_rss_kb(&stage).unwrap();
    println!("{rss_kb} kB at the most");
    assert!(rss_kb < RSS_KB_MAX, "{rss_kb} kB");
    // Each trouble is told once, and not for each of the hundreds of telegrams.
    let warned = told(&stage, &["WARN", "port=p1"]).unwrap();
    assert!(warned.len() < 8, "{warned:#?}");
    let of_crc = warned.iter().filter(|line| line.contains("crc") && line.contains("hint=")).count();
    assert_eq!(of_crc, 1, "{warned:#?}");
    let too_long = warned.iter().filter(|line| line.contains("did not end within 8192 octets")).count();
    assert_eq!(too_long, 1, "{warned:#?}");
}
