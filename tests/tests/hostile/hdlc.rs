//! Do meters on an HDLC line that answer with nonsense, without end or not at all keep the others on it from being read?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocols::dlms::apdu::{CosemAttribute, DataAccessResult};
use protocols::dlms::server::{ObjectServer, ServerConfig, ServerSession};
use protocols::hdlc::control::{Control, Sequence};
use protocols::hdlc::frame::{Frame, Scan, scan};
use protocols::hdlc::{ClientAddress, HdlcAddress, HdlcConfig, HdlcServer};
use protocols::link::{Link, LinkInput, LinkOutput};
use tests::hostile::{RSS_KB_MAX, listen, peak_rss_kb, state_of};
use tests::system::{CATCH_UP_TIMEOUT, READS, everything_arrives, stage, start_hdlc_over_tcp, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How a meter misbehaves; the physical address says which does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Octets without end that are no frame.
    Garbage,
    /// Flags without end: a frame always seems to begin.
    Flags,
    /// A frame that promises more octets than come.
    WrongLength,
    /// Frames whose header check is wrong, and frames whose frame check is.
    WrongChecks,
    /// An answer that always goes on in the next frame.
    EndlessSegments,
    /// The same, without ever giving the turn back.
    NeverFinal,
    /// A value that always goes on in the next block; the association is a real one.
    EndlessBlocks,
    /// Not ready, for ever.
    NotReady,
    Silent,
}

const ROLES: [Role; 9] = [
    Role::Garbage,
    Role::Flags,
    Role::WrongLength,
    Role::WrongChecks,
    Role::EndlessSegments,
    Role::NeverFinal,
    Role::EndlessBlocks,
    Role::NotReady,
    Role::Silent,
];
/// Physical address of the first of them; those of the simulator begin at 16.
const FIRST: u16 = 100;

/// Frames that each of them was asked with.
type Struck = Arc<[AtomicU64; ROLES.len()]>;

fn role_at(address: HdlcAddress) -> Option<usize> {
    let place = usize::from(address.lower()?.checked_sub(FIRST)?);
    (place < ROLES.len()).then_some(place)
}

/// A meter without any object.
struct Nothing;

impl ObjectServer for Nothing {
    fn read(&mut self, _: CosemAttribute, _: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult> {
        Err(DataAccessResult::ObjectUndefined)
    }
}

/// One connection, which is one session with one meter: what a hostile one knows of it.
struct Hostile {
    sent: u8,
    blocks: u32,
    link: Option<HdlcServer>,
    session: ServerSession,
}

impl Hostile {
    fn new() -> Self {
        Self { sent: 0, blocks: 0, link: None, session: ServerSession::new(ServerConfig::default()) }
    }

    /// Answers one frame; without end, when the gateway does not hang up.
    async fn answer(&mut self, role: Role, asked: &Frame<'_>, client: &mut TcpStream) -> std::io::Result<()> {
        let is_snrm = asked.control() == Some(Control::Snrm);
        let receive = match asked.control() {
            Some(Control::Information { send, .. }) => send.plus(1),
            _ => Sequence::new(1),
        };
        match role {
            Role::Garbage => endless(client, &[0xa5; 4096]).await,
            Role::Flags => endless(client, &[0x7e; 4096]).await,
            Role::WrongLength => {
                let mut octets = written(asked, Control::Ua.encode(true), false, &[]);
                octets[1..3].copy_from_slice(&[0xa7, 0xff]);
                client.write_all(&octets).await
            }
            Role::WrongChecks => {
                let mut header = written(asked, Control::Ua.encode(true), false, &[0x81, 0x80, 0x00]);
                // Format, two octets of length and address each way, control.
                let at = header.len() - 1 - 2 - 3 - 2;
                header[at] ^= 0xff;
                let mut frame = written(asked, Control::Ua.encode(true), false, &[]);
                let at = frame.len() - 3;
                frame[at] ^= 0xff;
                client.write_all(&[header, frame].concat()).await
            }
            Role::Silent => Ok(()),
            _ if is_snrm && role != Role::EndlessBlocks => {
                client.write_all(&written(asked, Control::Ua.encode(true), false, &[])).await
            }
            Role::NotReady => {
                let control = Control::ReceiveNotReady { receive }.encode(true);
                client.write_all(&written(asked, control, false, &[])).await
            }
            Role::EndlessSegments => {
                let segment = self.segment(asked, receive, true);
                client.write_all(&segment).await
            }
            Role::NeverFinal => loop {
                let segment = self.segment(asked, receive, false);
                client.write_all(&segment).await?;
            },
            Role::EndlessBlocks => self.next_block(asked, client).await,
        }
    }

    fn segment(&mut self, asked: &Frame<'_>, receive: Sequence, is_final: bool) -> Vec<u8> {
        let control = Control::Information { send: Sequence::new(self.sent), receive }.encode(is_final);
        self.sent = self.sent.wrapping_add(1);
        let mut information = [0x09; 120];
        information[..3].copy_from_slice(&[0xe6, 0xe7, 0x00]);
        written(asked, control, true, &information)
    }

    async fn next_block(&mut self, asked: &Frame<'_>, client: &mut TcpStream) -> std::io::Result<()> {
        let config = HdlcConfig::new(ClientAddress::PUBLIC, asked.destination);
        let link = self.link.get_or_insert_with(|| HdlcServer::new(config));
        let mut octets = Vec::new();
        asked.encode(&mut octets);
        link.handle(Duration::ZERO, LinkInput::Received(&octets)).unwrap();
        loop {
            match link.poll() {
                LinkOutput::Send(octets) => client.write_all(&octets).await?,
                LinkOutput::Apdu(apdu) if apdu.first() == Some(&0xc0) => {
                    self.blocks += 1;
                    // Get-Response-With-Datablock, last-block false, and an array of more elements than any meter has.
                    let mut block = vec![0xc4, 0x02, apdu[2], 0x00];
                    block.extend(self.blocks.to_be_bytes());
                    block.extend([0x00, 0x81, 200, 0x01, 0x83, 0xff, 0xff, 0xff]);
                    block.resize(block.len() + 195, 0x00);
                    link.send(Duration::ZERO, &block).unwrap();
                }
                LinkOutput::Apdu(apdu) => {
                    if let Some(answer) = self.session.answer(&apdu, &mut Nothing) {
                        link.send(Duration::ZERO, &answer).unwrap();
                    }
                }
                LinkOutput::Connected | LinkOutput::Disconnected => {}
                LinkOutput::WaitUntil(_) => return Ok(()),
            }
        }
    }
}

async fn endless(client: &mut TcpStream, octets: &[u8]) -> std::io::Result<()> {
    loop {
        client.write_all(octets).await?;
    }
}

/// A frame back to whoever sent `asked`.
fn written(asked: &Frame<'_>, control: u8, segmented: bool, information: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (destination, source) = (asked.source, asked.destination);
    Frame { segmented, destination, source, control, information }.encode(&mut out);
    out
}

/// The line: passes on to the real meters what is theirs, and plays the others.
async fn serve(mut client: TcpStream, real: SocketAddr, struck: Struck) -> std::io::Result<()> {
    let mut meters = TcpStream::connect(real).await?;
    let mut hostile = Hostile::new();
    let (mut asked, mut octets, mut answers) = (Vec::new(), [0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            count = client.read(&mut octets) => match count? {
                0 => return Ok(()),
                count => asked.extend(&octets[..count]),
            },
            count = meters.read(&mut answers) => match count? {
                0 => return Ok(()),
                count => client.write_all(&answers[..count]).await?,
            },
        }
        loop {
            let used = match scan(&asked) {
                Scan::NeedMore => break,
                Scan::Garbage { skip, error } => panic!("the gateway sent what is no frame: {error}, {skip} octets"),
                Scan::Frame { frame, used } => {
                    if let Some(place) = role_at(frame.destination) {
                        struck[place].fetch_add(1, Ordering::Relaxed);
                        hostile.answer(ROLES[place], &frame, &mut client).await?;
                    } else {
                        let mut octets = Vec::new();
                        frame.encode(&mut octets);
                        meters.write_all(&octets).await?;
                    }
                    used
                }
            };
            asked.drain(..used);
            // The flag that may open another frame.
            if asked == [0x7e] {
                asked.clear();
            }
        }
    }
}

/// Controls, seen to fail: leave the deadline out of `Talk::next_event`, and whoever never stops talking has the line for ever; leave
/// the length out of `Reassembly::accept` (`hdlc/transfer.rs`), and an answer grows until the meter's time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_meters_on_an_hdlc_line_keep_nobody_on_it_from_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_hdlc_over_tcp(&mut stage, 1, 3, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let real = fleet.endpoints[0]["address"].as_str().unwrap().parse().unwrap();
    let struck = Struck::default();
    let line = {
        let struck = struck.clone();
        listen(move |client| serve(client, real, struck.clone())).await.unwrap()
    };
    let meter = |name: &str, physical: u64, rest: &str| {
        format!(
            "[[meter]]\nname = \"{name}\"\nline = \"rs485\"\nprotocol = \"dlms-hdlc\"\nphysical = {physical}\n\
             clock_check = \"off\"\n{rest}{READS}"
        )
    };
    let hostile = ROLES.iter().zip(FIRST..).map(|(role, at)| meter(&format!("{role:?}"), at.into(), ""));
    let real = fleet.endpoints.iter().map(|endpoint| {
        let id = endpoint["meter"].as_str().unwrap();
        let rest = format!("serial = \"{id}\"\nclient = 1\npassword_file = \"{}\"\n", fleet.password);
        meter(&id.replace(':', "-"), endpoint["hdlc_address"].as_u64().unwrap(), &rest)
    });
    let section = format!("[[line]]\nname = \"rs485\"\ntcp = \"{line}\"\nbudget_s = 2\n");
    stage.meters_toml = std::iter::once(section).chain(hostile).chain(real).collect();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let asked = async || Ok(struck.iter().all(|count| count.load(Ordering::Relaxed) > 0));
    until("each of the hostile has been asked", CATCH_UP_TIMEOUT, asked).await.unwrap();
    stage.freeze_simulator().unwrap();
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
    let rss_kb = peak_rss_kb(&stage).unwrap();
    println!("asked {struck:?} times, {rss_kb} kB at the most");
    assert!(rss_kb < RSS_KB_MAX, "{rss_kb} kB");
    for (place, role) in ROLES.iter().enumerate() {
        let (state, cause) = state_of(&stage, &format!("{role:?}")).await.unwrap();
        println!("{role:?}: {state}, {cause}");
        assert!(state == "silent" && !cause.is_empty(), "{role:?}: {state}, {cause}");
        // Those that go on for ever meet a bound of their own, which 8 MiB of blocks need not reach within the line's budget.
        let out_of_time = "the meter did not get done within its time";
        let too_long = "an APDU of more than 65535 octets was refused";
        let is_bounded = match role {
            Role::EndlessSegments | Role::NeverFinal => cause.contains(too_long),
            Role::EndlessBlocks => cause.contains(out_of_time) || cause.contains("is longer than 8388608 octets"),
            _ => cause.contains(out_of_time),
        };
        assert!(is_bounded, "{role:?}: {cause}");
        if matches!(role, Role::EndlessSegments | Role::EndlessBlocks) {
            let count = struck[place].load(Ordering::Relaxed);
            assert!(count > 100, "much was taken of {role:?} before the gateway had enough: {count}");
        }
    }
}
