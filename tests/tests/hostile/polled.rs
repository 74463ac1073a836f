//! Do meters on M-Bus, and meters that are called by IEC 62056-21, keep the others from being read when they answer with nonsense,
//! without end, or for somebody else?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use demo::stage::Stage;
use protocols::iec62056_21::{Expectation, Message, OptionSelect, encode_block, encode_command};
use protocols::mbus::{ACK, Frame, Quirks, SecondaryAddress, control, maker_code};
use tests::hostile::{RSS_KB_MAX, listen, peak_rss_kb, state_of, told};
use tests::system::{CATCH_UP_TIMEOUT, Fleet, everything_arrives, in_the_log, metric, stage, start_groups, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A flood comes in pieces: the gateway shall be busy with it, and not the machine.
const FLOOD_EVERY: Duration = Duration::from_millis(1);
const FLOOD_OCTETS: usize = 4096;
/// Who hostile meters say they are. Nothing may be stored under it.
const HOSTILE_MAKER: &str = "BAD";

/// What a hostile meter must be found to be: its state, and what the cause says, one of these.
type Verdict = (&'static str, &'static [&'static str]);

/// Octets without end, until the gateway hangs up.
async fn flood(client: &mut TcpStream, octets: &[u8]) -> std::io::Result<()> {
    let piece = octets.repeat((FLOOD_OCTETS / octets.len()).max(1));
    loop {
        client.write_all(&piece).await?;
        tokio::time::sleep(FLOOD_EVERY).await;
    }
}

/// A line: what is not for a hostile meter goes to the real ones, and comes from them.
async fn pass_on(client: &mut TcpStream, meters: &mut TcpStream, begun: &[u8]) -> std::io::Result<()> {
    meters.write_all(begun).await?;
    tokio::io::copy_bidirectional(client, meters).await.map(|_| ())
}

/// Waits until each hostile meter was found to be what it is, and says so.
async fn each_is_named<R: std::fmt::Debug + Copy>(stage: &Stage, roles: &[R], verdict: impl Fn(R) -> Verdict) {
    for &role in roles {
        let (state, words) = verdict(role);
        let is_named = async || {
            let (found, cause) = state_of(stage, &format!("{role:?}")).await?;
            anyhow::ensure!(found != "ok", "{role:?} was taken");
            Ok(found == state && words.iter().any(|words| cause.contains(words)))
        };
        let named = until(&format!("{role:?} is {state}: {words:?}"), CATCH_UP_TIMEOUT, is_named).await;
        assert!(named.is_ok(), "{named:?}: {:?}", state_of(stage, &format!("{role:?}")).await);
        let warned = told(stage, &["WARN", &format!("meter={role:?}")]).unwrap();
        assert!(!warned.is_empty() || state == "wrong identity", "{role:?}");
    }
}

/// The honest meter of each line is read, and its state says so at the end of a session.
async fn are_well(stage: &Stage, lines: usize) {
    for line in 0..lines {
        let name = format!("good-{line}");
        let is_well = async || Ok(state_of(stage, &name).await? == ("ok".to_owned(), String::new()));
        until(&format!("{name} is well"), CATCH_UP_TIMEOUT, is_well).await.unwrap();
    }
}

/// Nothing of a hostile meter is anywhere, the gateway has not died of it, and is as small as ever.
async fn nothing_is_taken(stage: &Stage) {
    let log = in_the_log(stage).await;
    let taken: Vec<_> = log.keys().filter(|(meter, ..)| meter.to_uppercase().contains(HOSTILE_MAKER)).collect();
    assert!(taken.is_empty(), "{taken:?}");
    assert_eq!(metric(stage.gateway_address(), "gateway_actor_deaths_total").await.unwrap(), 0);
    let rss_kb = peak_rss_kb(stage).unwrap();
    assert!(rss_kb < RSS_KB_MAX, "{rss_kb} kB");
}

// ----------------------------------------------------------------------------------------------------------------------------
// M-Bus

/// How a meter on M-Bus misbehaves; the primary address says which does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnBus {
    /// Octets without end that are no frame.
    Garbage,
    /// Acknowledgements without end.
    Acknowledging,
    WrongChecksum,
    /// The two lengths of a frame differ.
    OtherLengths,
    /// A frame promises more octets than come.
    LongerThanItIs,
    /// There is always one more telegram.
    AlwaysMore,
    /// The same, and it is the same again.
    SameAgain,
    /// Answers under another primary address.
    OtherAddress,
    /// Is another than the meter that the settings name.
    OtherIdentity,
    /// A value is longer than the telegram.
    LyingValue,
    /// A record's header never ends.
    EndlessHeader,
    /// What it says cannot be opened.
    Enciphered,
    Silent,
}

const ON_BUS: [OnBus; 13] = [
    OnBus::Garbage,
    OnBus::Acknowledging,
    OnBus::WrongChecksum,
    OnBus::OtherLengths,
    OnBus::LongerThanItIs,
    OnBus::AlwaysMore,
    OnBus::SameAgain,
    OnBus::OtherAddress,
    OnBus::OtherIdentity,
    OnBus::LyingValue,
    OnBus::EndlessHeader,
    OnBus::Enciphered,
    OnBus::Silent,
];
/// Primary address of the first of them; those of the simulator begin at 1.
const FIRST_ON_BUS: u8 = 100;
const BUS_LINES: usize = 2;
/// Volume, four octets, litres.
const VOLUME: [u8; 2] = [0x04, 0x13];
const MORE_RECORDS_FOLLOW: u8 = 0x1f;
const LONG_HEADER: u8 = 0x72;

impl OnBus {
    fn verdict(self) -> Verdict {
        match self {
            Self::Garbage | Self::WrongChecksum | Self::OtherLengths | Self::LongerThanItIs => {
                ("silent", &["no sound answer after 3 attempts: a collision or a bad line"])
            }
            Self::Acknowledging | Self::Silent => ("silent", &["no answer after 3 attempts"]),
            Self::AlwaysMore => ("silent", &["more than 32 telegrams were refused"]),
            Self::SameAgain => ("silent", &["the meter sends the same telegram again and again"]),
            Self::OtherAddress => ("wrong identity", &["another meter answered: "]),
            Self::OtherIdentity => ("wrong identity", &["expected HYD:00000001:01:07, found BAD:"]),
            Self::LyingValue | Self::EndlessHeader => ("refusing", &["telegram 1 cannot be cut into records"]),
            Self::Enciphered => ("refusing", &["set encryption_key_file in its section"]),
        }
    }

    fn at(address: u8) -> Option<(usize, Self)> {
        let place = usize::from(address.checked_sub(FIRST_ON_BUS)?);
        ON_BUS.get(place).map(|role| (place, *role))
    }

    /// What it says to `asked`, the `nth` time; without end, when the gateway does not hang up.
    async fn answer(self, asked: Frame<'_>, nth: u32, client: &mut TcpStream) -> std::io::Result<()> {
        let Frame::Short { control: said, address } = asked else { return Ok(()) };
        if self == Self::Silent {
            return Ok(());
        }
        if said & !(control::FCB | control::FCV) != control::REQ_UD2 & !(control::FCB | control::FCV) {
            // A reset.
            return client.write_all(&[ACK]).await;
        }
        let volume = |litres: u32| [&VOLUME[..], &litres.to_le_bytes()].concat();
        let more = |litres: u32| [&volume(litres)[..], &[MORE_RECORDS_FOLLOW]].concat();
        let good = response(address, nth, [0, 0], &volume(1_000));
        let octets = match self {
            Self::Garbage => return flood(client, &[0xa5]).await,
            Self::Acknowledging => return flood(client, &[ACK]).await,
            Self::WrongChecksum => {
                let mut octets = good;
                let at = octets.len() - 2;
                octets[at] ^= 0xff;
                octets
            }
            Self::OtherLengths => {
                let mut octets = good;
                octets[2] ^= 0x20;
                octets
            }
            Self::LongerThanItIs => {
                let mut octets = good;
                (octets[1], octets[2]) = (0xff, 0xff);
                octets
            }
            Self::AlwaysMore => response(address, nth, [0, 0], &more(nth)),
            Self::SameAgain => response(address, nth, [0, 0], &more(7)),
            Self::OtherAddress => response(address - FIRST_ON_BUS, nth, [0, 0], &volume(1_000)),
            Self::OtherIdentity => good,
            // A text of 191 characters.
            Self::LyingValue => response(address, nth, [0, 0], &[0x0d, 0x13, 0xbf, b'x', b'x']),
            Self::EndlessHeader => response(address, nth, [0, 0], &[&[0x84], &[0x80; 200][..]].concat()),
            // One block by mode 5.
            Self::Enciphered => response(address, nth, [0x10, 0x05], &[0x5a; 16]),
            Self::Silent => return Ok(()),
        };
        client.write_all(&octets).await
    }
}

/// RSP_UD with a long header: address, access number, status, configuration field, records.
fn response(address: u8, access: u32, configuration: [u8; 2], records: &[u8]) -> Vec<u8> {
    let number = 90_000_000 + u32::from(address);
    let hostile = SecondaryAddress::of_number(number, maker_code(HOSTILE_MAKER).unwrap(), 1, 7);
    let data = [&hostile.to_octets()[..], &[access as u8, 0], &configuration, records].concat();
    let mut octets = Vec::new();
    let frame = Frame::Long { control: control::RSP_UD, address, ci: LONG_HEADER, data: &data };
    frame.encode(&mut octets).unwrap();
    octets
}

type Struck = Arc<[AtomicU64; ON_BUS.len()]>;

/// One connection is one meter's turn.
async fn serve_bus(mut client: TcpStream, real: SocketAddr, struck: Struck) -> std::io::Result<()> {
    use protocols::mbus::{Scan, scan};
    let (mut asked, mut octets, mut nth) = (Vec::new(), [0; 1024], 0);
    loop {
        let used = match scan(&asked, Quirks::default()) {
            Scan::NeedMore => {
                match client.read(&mut octets).await? {
                    0 => return Ok(()),
                    count => asked.extend(&octets[..count]),
                }
                continue;
            }
            Scan::Garbage { skip, error } => panic!("the gateway sent what is no frame: {error}, {skip} octets"),
            Scan::Frame { frame, used } => {
                let (Frame::Short { address, .. } | Frame::Long { address, .. }) = frame else { return Ok(()) };
                let Some((place, role)) = OnBus::at(address) else {
                    return pass_on(&mut client, &mut TcpStream::connect(real).await?, &asked).await;
                };
                struck[place].fetch_add(1, Ordering::Relaxed);
                role.answer(frame, nth, &mut client).await?;
                nth += 1;
                used
            }
        };
        asked.drain(..used);
    }
}

/// The present values of a meter have no time of their own, since the gateway stamps them: of them some must be there. Frozen ones are in
/// the truth once they were told.
async fn are_read(stage: &Stage, fleet: &Fleet, meters: &[String]) -> anyhow::Result<bool> {
    let log = in_the_log(stage).await;
    let mut lacking = fleet.captured()?;
    lacking.retain(|_, captured| !captured.reader_stamps);
    let is_told = lacking.len() >= 2 * meters.len();
    for (identity, value) in &log {
        let (meter, _, kind, ..) = identity;
        anyhow::ensure!(meters.contains(meter), "{identity:?} is of nobody that is to be read");
        if kind == "billing" {
            let captured = lacking.remove(identity).with_context(|| format!("{identity:?} was never frozen"))?;
            anyhow::ensure!(captured.value == *value, "{identity:?}: {value} instead of {captured:?}");
        }
    }
    // Each at three instants at least: the line goes on, and not only once.
    let is_read = |meter: &String| {
        let registers = log.keys().filter(|(of, _, kind, ..)| of == meter && kind == "register");
        registers.map(|(.., captured_at, _)| captured_at).collect::<BTreeSet<_>>().len() >= 3
    };
    Ok(is_told && lacking.is_empty() && meters.iter().all(is_read))
}

/// Controls, seen to fail: look at no length of an answer in telegrams (`telegrams_max` in `mbus/master/exchange.rs`); take what another
/// address says (`is_asked` there); wait for an answer as long as octets come (`give_up_at` in `mbus/master.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_meters_on_mbus_keep_nobody_on_it_from_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let group = format!(
        "[[meters]]\ncount = {BUS_LINES}\nfirst_number = 1\nprotocol = \"mbus\"\nmedium = \"heat\"\nbaud = 38400\nmeters_per_line = 1\n"
    );
    let fleet = start_groups(&mut stage, 1, BUS_LINES, "history_days = 70.0", &group).unwrap();
    let struck = Struck::default();
    let meter = |name: &str, line: usize, address: u8, serial: &str| {
        format!(
            "[[meter]]\nname = \"{name}\"\nline = \"bus-{line}\"\nprotocol = \"mbus\"\naddress = \"{address}\"\n\
             initial_baud = 38400\nclock_check = \"off\"\n{serial}[[meter.read]]\nsource = \"readout\"\nevery_s = 1\n"
        )
    };
    let mut meters = Vec::new();
    let per_line = ON_BUS.len().div_ceil(BUS_LINES);
    for (line, (endpoint, roles)) in fleet.endpoints.iter().zip(ON_BUS.chunks(per_line)).enumerate() {
        let real = endpoint["address"].as_str().unwrap().parse().unwrap();
        let struck = struck.clone();
        let host = listen(move |client| serve_bus(client, real, struck.clone())).await.unwrap();
        stage.meters_toml.extend([format!("[[line]]\nname = \"bus-{line}\"\ntcp = \"{host}\"\nbudget_s = 5\n")]);
        for role in roles {
            let place = ON_BUS.iter().position(|of| of == role).unwrap() as u8;
            let serial = if *role == OnBus::OtherIdentity { "serial = \"HYD:00000001:01:07\"\n" } else { "" };
            stage.meters_toml.push_str(&meter(&format!("{role:?}"), line, FIRST_ON_BUS + place, serial));
        }
        let identity = endpoint["identity"].as_str().unwrap().to_owned();
        let primary = endpoint["primary_address"].as_u64().unwrap() as u8;
        let serial = format!("serial = \"{identity}\"\n");
        stage.meters_toml.push_str(&meter(&format!("good-{line}"), line, primary, &serial));
        meters.push(identity);
    }
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    each_is_named(&stage, &ON_BUS, OnBus::verdict).await;
    assert!(struck.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{struck:?}");
    until("the others are read again and again", CATCH_UP_TIMEOUT, async || are_read(&stage, &fleet, &meters).await)
        .await
        .unwrap();
    are_well(&stage, BUS_LINES).await;
    let failed = metric(stage.gateway_address(), "gateway_meter_reads_failed_total").await.unwrap();
    // Of whom another was expected is read, and what it says is held back.
    assert!(failed >= ON_BUS.len() as u64 - 1, "{failed} sessions failed");
    nothing_is_taken(&stage).await;
}

// ----------------------------------------------------------------------------------------------------------------------------
// IEC 62056-21

/// How a meter that is called misbehaves; the device address says which does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Called {
    /// An identification that never ends.
    EndlessIdentification,
    /// A rate that does not exist.
    UnknownRate,
    /// A read-out that never ends.
    EndlessReadout,
    /// A read-out whose block check is wrong, however often it is sent.
    WrongCheck,
    /// The rate is an octet that is no character.
    RateOutOfRange,
    /// An answer that always goes on in the next block.
    EndlessBlocks,
    /// The same, and there is nothing in the blocks.
    EmptyBlocks,
    /// Every question is to be repeated.
    Repeating,
    /// Answers are those to other questions.
    OtherAnswer,
    /// Ends each session when it is asked something.
    Breaking,
    /// Octets without end that are no message.
    Garbage,
}

const CALLED: [Called; 11] = [
    Called::EndlessIdentification,
    Called::UnknownRate,
    Called::EndlessReadout,
    Called::WrongCheck,
    Called::RateOutOfRange,
    Called::EndlessBlocks,
    Called::EmptyBlocks,
    Called::Repeating,
    Called::OtherAnswer,
    Called::Breaking,
    Called::Garbage,
];
const CALLED_PER_LINE: usize = 2;
const CALLED_LINES: usize = CALLED.len().div_ceil(CALLED_PER_LINE);
/// The device address of the first of them; those of the simulator are its meters' numbers.
const FIRST_CALLED: usize = 90_000_000;
/// Over TCP a meter stays at the rate at which it is called; hostile ones offer no other.
const RATE: u32 = 19_200;
/// Of a meter whose maker's third letter is a small one.
const REACTION: Duration = Duration::from_millis(25);
const DATA_LINE: &[u8] = b"1.8.0(000666.000*kWh)\r\n";

impl Called {
    fn verdict(self) -> Verdict {
        const OUT_OF_TIME: &str = "the meter did not get done within its time";
        match self {
            // What stops it is the time of the line, or that nothing sound comes in all attempts.
            Self::EndlessIdentification | Self::EndlessReadout | Self::RateOutOfRange | Self::Garbage => {
                ("silent", &[OUT_OF_TIME, "no sound answer after 4 attempts"])
            }
            Self::UnknownRate => ("refusing", &["the meter does not offer Programming"]),
            Self::WrongCheck => ("silent", &["no sound answer after 4 attempts"]),
            Self::EndlessBlocks => ("silent", &["an answer of more than 262144 octets was refused"]),
            Self::EmptyBlocks | Self::OtherAnswer => ("silent", &[OUT_OF_TIME]),
            Self::Repeating => ("refusing", &["the meter does not say who it is"]),
            Self::Breaking => ("silent", &["the meter ended the session"]),
        }
    }

    /// Whether it is read out; programming mode is for the others.
    fn is_read_out(self) -> bool {
        matches!(self, Self::EndlessIdentification | Self::EndlessReadout | Self::WrongCheck | Self::Garbage)
    }

    /// Makes `out` what it says to a message; without end, when the gateway does not hang up.
    async fn answer(self, said: &Message<'_>, last: &mut Vec<u8>, client: &mut TcpStream) -> std::io::Result<()> {
        let mut out = Vec::new();
        // What comes sooner is not heard.
        tokio::time::sleep(REACTION).await;
        match (said, self) {
            (Message::Request { .. }, Self::Garbage) => return flood(client, &[0x55]).await,
            (Message::Request { .. }, Self::EndlessIdentification) => {
                client.write_all(b"/BAd6").await?;
                return flood(client, b"A").await;
            }
            (Message::Request { .. }, Self::UnknownRate) => out.extend(b"/BAd9HOSTILE\r\n"),
            (Message::Request { .. }, Self::RateOutOfRange) => out.extend(b"/BAd\xffHOSTILE\r\n"),
            (Message::Request { .. }, _) => out.extend(b"/BAd6HOSTILE\r\n"),
            (Message::OptionSelect(OptionSelect { mode: b'1', .. }), _) => {
                encode_command(&mut out, b'P', b'0', Some(b"()"));
            }
            (Message::OptionSelect(_), Self::EndlessReadout) => {
                client.write_all(&[0x02]).await?;
                return flood(client, DATA_LINE).await;
            }
            (Message::OptionSelect(_), _) => {
                encode_block(&mut out, &[DATA_LINE, b"!\r\n"].concat(), true);
                *out.last_mut().unwrap() ^= 1;
            }
            (Message::Repeat, _) => out.clone_from(last),
            (Message::Command(command), _) if command.kind == b'P' => out.push(0x06),
            (Message::Command(command), Self::Breaking) if command.kind == b'R' => {
                encode_command(&mut out, b'B', b'0', None);
            }
            (Message::Command(command), Self::Repeating) if command.kind == b'R' => out.push(0x15),
            (Message::Command(command), Self::OtherAnswer) if command.kind == b'R' => {
                encode_block(&mut out, b"9.9.9(000666)", true);
            }
            (Message::Command(_) | Message::Acknowledge, Self::EndlessBlocks) => {
                // Without an address: to what was asked.
                encode_block(&mut out, &b"(000666.000*kWh)\r\n".repeat(400), false);
            }
            (Message::Command(_) | Message::Acknowledge, Self::EmptyBlocks) => encode_block(&mut out, b"", false),
            _ => {}
        }
        last.clone_from(&out);
        client.write_all(&out).await
    }
}

/// One connection is one meter's turn, which begins with a call.
async fn serve_called(mut client: TcpStream, real: SocketAddr, struck: CalledStruck) -> std::io::Result<()> {
    use protocols::iec62056_21::{Scan, scan};
    let (mut heard, mut octets, mut last) = (Vec::new(), [0; 1024], Vec::new());
    let (mut hostile, mut is_selecting) = (None, false);
    loop {
        let expectation = Expectation { option_select: is_selecting, block_octets_max: 4096 };
        let used = match scan(&heard, expectation) {
            Scan::NeedMore => {
                match client.read(&mut octets).await? {
                    0 => return Ok(()),
                    count => heard.extend(&octets[..count]),
                }
                continue;
            }
            // A farewell that was cut, or what a flood has brought forth.
            Scan::Garbage { skip, .. } => skip,
            Scan::Message { message, used } => {
                if let Message::Request { address } = message {
                    let number: usize = std::str::from_utf8(address).unwrap().parse().unwrap();
                    let place = number.checked_sub(FIRST_CALLED);
                    let Some(place) = place else {
                        return pass_on(&mut client, &mut TcpStream::connect(real).await?, &heard).await;
                    };
                    struck[place].fetch_add(1, Ordering::Relaxed);
                    hostile = Some(CALLED[place]);
                }
                is_selecting = matches!(message, Message::Request { .. });
                if let Some(role) = hostile {
                    role.answer(&message, &mut last, &mut client).await?;
                }
                used
            }
        };
        heard.drain(..used);
    }
}

type CalledStruck = Arc<[AtomicU64; CALLED.len()]>;

/// Controls, seen to fail: leave the time out of `Wire::check_time` (`reading/wire.rs`), and a meter that never ends has the line for
/// ever; leave the length out of `collect` (`iec62056_21/client/exchange.rs`); take answers to other questions (`is_asked_for`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_meters_that_are_called_keep_nobody_on_their_line_from_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let password = folder.path().join("meter-password").display().to_string();
    std::fs::write(&password, "reader").unwrap();
    let group = format!(
        "[[meters]]\ncount = {CALLED_LINES}\nfirst_number = 1\nprotocol = \"iec62056-21\"\ninitial_baud = {RATE}\nbaud = {RATE}\n\
         meters_per_line = 1\npassword_file = \"{password}\"\n\
         profile = {{ capture_period_s = 900, columns = [\"import-register\", \"import-interval\"] }}\n"
    );
    let fleet = start_groups(&mut stage, 1, CALLED_LINES, "history_days = 0.25", &group).unwrap();
    let struck = CalledStruck::default();
    let meter = |name: &str, line: usize, address: &str, rest: &str, is_read_out: bool| {
        let source = if is_read_out { "readout" } else { "profile" };
        let kinds = if is_read_out { "" } else { "kinds = { \"1-0:1.29.0\" = \"interval\" }\n" };
        format!(
            "[[meter]]\nname = \"{name}\"\nline = \"loop-{line}\"\nprotocol = \"iec62056-21\"\naddress = \"{address}\"\n\
             initial_baud = {RATE}\npassword_file = \"{password}\"\nclock_check = \"off\"\n{rest}\
             [[meter.read]]\nsource = \"{source}\"\nevery_s = 1\n{kinds}"
        )
    };
    for (line, (endpoint, roles)) in fleet.endpoints.iter().zip(CALLED.chunks(CALLED_PER_LINE)).enumerate() {
        let real = endpoint["address"].as_str().unwrap().parse().unwrap();
        let of_line = struck.clone();
        let host = listen(move |client| serve_called(client, real, of_line.clone())).await.unwrap();
        stage.meters_toml.extend([format!("[[line]]\nname = \"loop-{line}\"\ntcp = \"{host}\"\nbudget_s = 8\n")]);
        for role in roles {
            let place = CALLED.iter().position(|of| of == role).unwrap();
            let address = (FIRST_CALLED + place).to_string();
            stage.meters_toml.push_str(&meter(&format!("{role:?}"), line, &address, "", role.is_read_out()));
        }
        let id = endpoint["meter"].as_str().unwrap();
        let serial = format!("serial = \"{id}\"\n");
        let address = endpoint["device_address"].as_str().unwrap();
        stage.meters_toml.push_str(&meter(&format!("good-{line}"), line, address, &serial, false));
    }
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    each_is_named(&stage, &CALLED, Called::verdict).await;
    assert!(struck.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{struck:?}");
    let failed = metric(stage.gateway_address(), "gateway_meter_reads_failed_total").await.unwrap();
    assert!(failed >= CALLED.len() as u64, "{failed} sessions failed");
    stage.freeze_simulator().unwrap();
    // All that the others have captured, and nothing else.
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
    are_well(&stage, CALLED_LINES).await;
    nothing_is_taken(&stage).await;
}
