//! Do meters that answer with nonsense, without end or not at all keep the others on their line from being read?

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tests::hostile::{RSS_KB_MAX, listen, peak_rss_kb};
use tests::system::{CATCH_UP_TIMEOUT, READS, everything_arrives, stage, start_dlms_line, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What answers at a wPort behind the one address.
const GARBAGE: u16 = 101;
const WRONG_LENGTH: u16 = 102;
const ENDLESS_BLOCKS: u16 = 103;
const SILENT: u16 = 104;
const HOSTILE: [u16; 4] = [GARBAGE, WRONG_LENGTH, ENDLESS_BLOCKS, SILENT];

type Struck = Arc<[AtomicU64; HOSTILE.len()]>;

/// A wrapper frame (IEC 62056-47): version, source, destination, length, APDU.
pub(super) async fn read_frame(stream: &mut TcpStream) -> std::io::Result<([u16; 2], Vec<u8>)> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let mut apdu = vec![0; word(6).into()];
    stream.read_exact(&mut apdu).await?;
    Ok(([word(2), word(4)], apdu))
}

pub(super) fn frame([source, destination]: [u16; 2], apdu: &[u8]) -> Vec<u8> {
    let header = [1, source, destination, apdu.len() as u16];
    header.iter().flat_map(|word| word.to_be_bytes()).chain(apdu.iter().copied()).collect()
}

/// The next block of a value that never ends (IEC 62056-5-3, Get-Response-With-Datablock, last-block false).
fn block(invoke_id: u8, number: u32) -> Vec<u8> {
    let mut apdu = vec![0xc4, 0x02, invoke_id, 0x00];
    apdu.extend(number.to_be_bytes());
    apdu.extend([0x00, 0x81, 200]);
    // An array that claims more elements than any meter has entries.
    apdu.extend([0x01, 0x83, 0xff, 0xff, 0xff]);
    apdu.resize(apdu.len() + 195, 0x00);
    apdu
}

/// Host of all meters: passes on to the real ones what is theirs, and plays the others.
async fn serve(mut client: TcpStream, real: SocketAddr, struck: Struck) -> std::io::Result<()> {
    let mut meters = TcpStream::connect(real).await?;
    let mut number = 0;
    loop {
        let ([from, to], apdu) = read_frame(&mut client).await?;
        if let Some(place) = HOSTILE.iter().position(|hostile| *hostile == to) {
            struck[place].fetch_add(1, Ordering::Relaxed);
        }
        match to {
            GARBAGE => loop {
                // Until the gateway hangs up.
                client.write_all(&[0xa5; 4096]).await?;
            },
            WRONG_LENGTH => {
                let mut answer = frame([to, from], &apdu);
                answer[6..8].copy_from_slice(&u16::MAX.to_be_bytes());
                client.write_all(&answer).await?;
            }
            SILENT => {}
            ENDLESS_BLOCKS if apdu.first() == Some(&0xc0) => {
                number = if apdu.get(1) == Some(&0x02) { number + 1 } else { 1 };
                let invoke_id = apdu.get(2).copied().unwrap_or_default();
                client.write_all(&frame([to, from], &block(invoke_id, number))).await?;
            }
            // Its association is that of a real meter.
            _ => {
                let behind = if to == ENDLESS_BLOCKS { 1 } else { to };
                meters.write_all(&frame([from, behind], &apdu)).await?;
                let (_, answer) = read_frame(&mut meters).await?;
                client.write_all(&frame([to, from], &answer)).await?;
            }
        }
    }
}

/// What it survives: a line without a budget for each meter, since a session bounds blocks and bytes by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_meters_keep_nobody_on_their_line_from_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms_line(&mut stage, 1, 3, 3, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let real = fleet.endpoints[0]["address"].as_str().unwrap().parse().unwrap();
    let struck = Struck::default();
    let host = {
        let struck = struck.clone();
        listen(move |client| serve(client, real, struck.clone())).await.unwrap()
    };
    let meter = |name: &str, serial: &str, server: u64| {
        format!(
            "[[meter]]\nname = \"{name}\"\nserial = \"{serial}\"\nline = \"host\"\nserver = {server}\nclient = 1\n\
             password_file = \"{}\"\nclock_check = \"off\"\n{READS}",
            fleet.password
        )
    };
    let hostile = HOSTILE.map(|server| meter(&format!("hostile-{server}"), &format!("BAD:{server}"), server.into()));
    let real = fleet.endpoints.iter().map(|endpoint| {
        let id = endpoint["meter"].as_str().unwrap();
        meter(&id.replace(':', "-"), id, endpoint["wport"].as_u64().unwrap())
    });
    let line = format!("[[line]]\nname = \"host\"\ntcp = \"{host}\"\nbudget_s = 2\n");
    stage.meters_toml = std::iter::once(line).chain(hostile).chain(real).collect();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let each = async || Ok(struck.iter().all(|count| count.load(Ordering::Relaxed) > 0));
    until("each of the hostile has been asked", CATCH_UP_TIMEOUT, each).await.unwrap();
    stage.freeze_simulator().unwrap();
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
    let rss_kb = peak_rss_kb(&stage).unwrap();
    println!("asked {struck:?} times, {rss_kb} kB at the most");
    assert!(rss_kb < RSS_KB_MAX, "{rss_kb} kB");
    assert!(
        struck[2].load(Ordering::Relaxed) > 100,
        "many blocks were taken before the gateway had enough: {struck:?}"
    );
}
