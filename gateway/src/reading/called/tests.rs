use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use protocols::iec62056_21::{
    Baud, DeviceAddress, Framing, Identification, Input, Layout, LinesBuilder, MeterClock, MeterData, Output, Password,
    ProfileHeader, Server, ServerConfig, Stamp, StampForm,
};
use protocols::metering::{Quantity, Unit};
use protocols::uplink::{MeterEntry, MeterState};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;
use crate::config::Config;
use crate::config::metering::Addressing;
use crate::link::{ByteLink, Line, LinkLost, StreamLink};
use crate::outbox::Outbox;
use crate::reading::testing::{QUARTER_MS, SetClock, T0, TokioClock};
use crate::reading::tests::{parts, stored};
use crate::trust::ClockTrust;

/// What a meter has, under the hands of the test.
struct Body {
    clock: SharedClock,
    number: &'static str,
    offset_ms: i64,
    energy: i64,
    /// Ends of their periods.
    entries: Vec<(UtcMillis, i64)>,
    events: Vec<(UtcMillis, u8)>,
    tariff: &'static str,
    password: Option<&'static str>,
    refuses_ranges: bool,
    /// Entries that are printed so that nobody can read them.
    spoiled: Vec<UtcMillis>,
    /// The newest quarter of an hour stands in the read-out, too: the mean of its power.
    reads_out_profile: bool,
    shows_time: bool,
    /// What it says when it is asked for the date, once.
    first_date: Option<&'static str>,
    /// The gateway's clock, which is set right when the profile is asked for.
    sets_right: Option<Arc<SetClock>>,
    /// Data sets of the reads.
    asked: Vec<String>,
}

#[derive(Clone)]
struct SharedBody(Arc<Mutex<Body>>);

const CLOCK: MeterClock = MeterClock::UTC;

impl SharedBody {
    fn new(clock: &SharedClock, number: &'static str, days: i64) -> Self {
        let mut body = Body {
            clock: clock.clone(),
            number,
            offset_ms: 0,
            energy: 1_000,
            entries: Vec::new(),
            events: Vec::new(),
            tariff: "1",
            password: None,
            refuses_ranges: false,
            spoiled: Vec::new(),
            reads_out_profile: false,
            shows_time: true,
            first_date: None,
            sets_right: None,
            asked: Vec::new(),
        };
        body.capture(T0.plus_ms(-days * 86_400_000), T0);
        Self(Arc::new(Mutex::new(body)))
    }

    fn with<R>(&self, change: impl FnOnce(&mut Body) -> R) -> R {
        change(&mut self.0.lock().unwrap())
    }

    fn server(&self, config: impl FnOnce(&mut ServerConfig)) -> Server {
        let body = self.0.lock().unwrap();
        let model = "METERPOST".to_owned();
        let identification = Identification { manufacturer: "SIM".into(), baud: b'5', enhanced: vec![], model };
        let mut settings = ServerConfig::new(DeviceAddress::new(body.number).unwrap(), identification);
        settings.password_needed = body.password.is_some();
        config(&mut settings);
        Server::new(settings)
    }
}

impl Body {
    fn capture(&mut self, from: UtcMillis, to: UtcMillis) {
        let mut label = (from.0.div_euclid(QUARTER_MS) + 1) * QUARTER_MS;
        while label <= to.0 {
            self.energy += 1;
            self.entries.push((UtcMillis(label), self.energy));
            label += QUARTER_MS;
        }
    }

    fn now(&self) -> UtcMillis {
        self.clock.wall().plus_ms(self.offset_ms)
    }

    fn lines() -> LinesBuilder {
        LinesBuilder::new(CLOCK, StampForm::Zst13)
    }

    fn quantity(value: i64) -> Quantity {
        Quantity::new(value, 0, Unit::WATT_HOUR)
    }

    fn profile(&self, from: UtcMillis, to: UtcMillis) -> Vec<u8> {
        let rows: Vec<_> = self.entries.iter().filter(|(at, _)| (from..=to).contains(at)).collect();
        if rows.is_empty() {
            return b"P.01()".to_vec();
        }
        let (mut lines, channels) = (Self::lines(), [("1.8.0", Layout::ENERGY)]);
        // Behind a gap it begins anew.
        for rows in rows.chunk_by(|(before, _), (at, _)| at.since(*before) == QUARTER_MS) {
            let first = rows[0].0;
            let header = ProfileHeader { address: "P.01", first, status: 0, period_minutes: 15, channels: &channels };
            lines = lines.profile(&header, &[]).unwrap();
            for (at, value) in rows {
                let is_spoiled = self.spoiled.contains(at);
                let shown = if is_spoiled { "0.x".to_owned() } else { format!("{}.{:03}", value / 1000, value % 1000) };
                lines = lines.groups("", &[&shown]);
            }
        }
        lines.finish()
    }

    fn log(&self, from: UtcMillis, to: UtcMillis) -> Vec<u8> {
        let mut lines = Self::lines();
        for (at, code) in self.events.iter().filter(|(at, _)| (from..=to).contains(at)) {
            let stamp = if self.spoiled.contains(at) { "x".to_owned() } else { CLOCK.stamp(*at, StampForm::Zst13) };
            lines = lines.groups("P.98", &[&stamp, &format!("{code:02X}"), "", "0"]);
        }
        lines.finish()
    }
}

impl MeterData for SharedBody {
    fn read_out(&mut self, _: u8) -> Vec<u8> {
        let body = self.0.lock().unwrap();
        let lines = Body::lines().text("F.F", "00").text("0.0.0", body.number).clock(body.now());
        let lines = lines.quantity("1.8.0", Body::quantity(body.energy), Layout::ENERGY).unwrap();
        let power = Quantity::new(450, 0, Unit::WATT);
        let lines = lines.quantity("1.7.0", power, Layout::POWER).unwrap().text("96.14.0", body.tariff);
        let newest = body.entries.last().filter(|_| body.reads_out_profile);
        let Some((first, _)) = newest else { return lines.finish() };
        let channels = [("1.5.0", Layout::POWER)];
        let header =
            ProfileHeader { address: "P.01", first: *first, status: 0, period_minutes: 15, channels: &channels };
        lines.profile(&header, &[vec![Some(power)]]).unwrap().finish()
    }

    fn read(&mut self, request: &ReadRequest) -> Option<Vec<u8>> {
        let mut body = self.0.lock().unwrap();
        body.asked.push(format!("{}({})", request.address(), request.argument()));
        let all = (UtcMillis(0), UtcMillis::MAX);
        let (from, to) = match request.argument().split_once(';') {
            Some((from, to)) if !from.is_empty() => {
                if body.refuses_ranges {
                    return None;
                }
                let at = |text: &str| match CLOCK.resolve(text.as_bytes(), UtcMillis(0)) {
                    Some(Stamp::At(resolved)) => resolved.instant,
                    other => panic!("{text}: {other:?}"),
                };
                (at(from), at(to))
            }
            _ => all,
        };
        let stamp = CLOCK.stamp(body.now(), StampForm::Zst12);
        match request.address() {
            "0.0.0" => Some(format!("({})", body.number).into_bytes()),
            "0.9.1" => body.shows_time.then(|| format!("({})", &stamp[6..]).into_bytes()),
            "0.9.2" => Some(format!("({})", body.first_date.take().unwrap_or(&stamp[..6])).into_bytes()),
            "1.8.0" => {
                Some(Body::lines().quantity("1.8.0", Body::quantity(body.energy), Layout::ENERGY).unwrap().finish())
            }
            "P.01" => {
                body.sets_right.iter().for_each(|clock| clock.set(0));
                Some(body.profile(from, to))
            }
            "P.98" => Some(body.log(from, to)),
            _ => None,
        }
    }

    fn admits(&mut self, password: &Password) -> bool {
        let expected = self.0.lock().unwrap().password;
        expected.is_none_or(|expected| Password::plain(expected).as_ref() == Ok(password))
    }
}

/// Meters that share a line: each hears everything, and what they say takes its time.
async fn serve(mut stream: DuplexStream, mut meters: Vec<(Server, SharedBody)>) {
    let origin = Instant::now();
    let mut buffer = [0; 1024];
    loop {
        let mut wake = None;
        for (server, _) in &mut meters {
            loop {
                match server.poll() {
                    Output::Send(octets) => {
                        for piece in octets.chunks(32) {
                            tokio::time::sleep(server.line().transmit_time(piece.len())).await;
                            if stream.write_all(piece).await.is_err() {
                                return;
                            }
                        }
                    }
                    Output::SetLine(_) | Output::Event(_) => {}
                    Output::WaitUntil(at) => {
                        wake = [wake, at].into_iter().flatten().min();
                        break;
                    }
                }
            }
        }
        let until = wake.map_or_else(|| Instant::now() + Duration::from_secs(3600), |at| origin + at);
        let received = tokio::time::timeout_at(until, stream.read(&mut buffer)).await;
        if let Ok(Ok(count)) = &received {
            // They have arrived when the last of them has.
            let fastest = meters.iter().map(|(server, _)| server.line()).max_by_key(|line| line.baud);
            tokio::time::sleep(fastest.map_or(Duration::ZERO, |line| line.transmit_time(*count))).await;
        }
        let input = match &received {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(count)) => Input::Received(&buffer[..*count]),
            Err(_) => Input::Tick,
        };
        for (server, body) in &mut meters {
            server.handle(origin.elapsed(), input, body);
        }
    }
}

/// Notes how the line is set.
struct NotedLink {
    link: StreamLink<DuplexStream>,
    set: Arc<Mutex<Vec<Option<Line>>>>,
}

#[async_trait]
impl ByteLink for NotedLink {
    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, LinkLost> {
        self.link.receive(into).await
    }

    async fn send(&mut self, octets: &[u8]) -> Result<(), LinkLost> {
        self.link.send(octets).await
    }

    fn clear_input(&mut self) -> Result<(), LinkLost> {
        self.link.clear_input()
    }

    fn set_line(&mut self, line: Option<Line>) -> Result<(), LinkLost> {
        self.set.lock().unwrap().push(line);
        Ok(())
    }
}

/// A gateway with one meter at the end of a line.
struct Site {
    parts: SessionParts,
    outbox: Arc<Mutex<Outbox>>,
    meter: Arc<MeterSettings>,
    memory: MeterMemory,
    link: NotedLink,
}

impl Site {
    /// `line` and `meter` are parts of their sections.
    fn new(line: &str, meter: &str, bodies: &[&SharedBody], config: impl Fn(&mut ServerConfig)) -> Self {
        let text = format!(
            "[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\n{line}[[meter]]\nname = \"m\"\nline = \"l\"\nprotocol = \"iec62056-21\"\n{meter}"
        );
        let checked = Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap();
        let meter = checked.lines[0].meters[0].clone();
        let (parts, outbox) = parts(&bodies[0].with(|body| body.clock.clone()));
        parts.inventory.enter(MeterEntry {
            name: "m".to_owned(),
            meter: None,
            metering_point: None,
            protocol: meter.protocol.name().to_owned(),
            expected: Vec::new(),
            last_read_at: None,
            clock_offset_ms: None,
            state: MeterState::Unknown,
            cause: String::new(),
        });
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let meters = bodies.iter().map(|body| (body.server(&config), (*body).clone())).collect();
        tokio::spawn(serve(theirs, meters));
        let link = NotedLink { link: StreamLink(ours), set: Arc::default() };
        Self { parts, outbox, memory: MeterMemory::new(meter.reads.len()), meter, link }
    }

    async fn visit(&mut self) -> Result<Visited, SessionError> {
        let Addressing::Iec62056_21(settings) = self.meter.addressing.clone() else { panic!("{:?}", self.meter) };
        let due: Vec<usize> = (0..self.meter.reads.len()).collect();
        let deadline = Instant::now() + Duration::from_secs(600);
        let order = Order { due: &due, yield_at: Duration::MAX, deadline };
        let mut call = Call::new(&mut self.link, &settings.client, deadline)?;
        let visited = visit(&self.parts, &self.meter, &settings, &mut self.memory, &mut call, &order).await;
        match &visited {
            Ok(_) => call.end().await?,
            Err(_) => call.hang_up().await,
        }
        visited
    }

    fn entry(&self) -> MeterEntry {
        self.parts.inventory.snapshot().1.meters.remove(0)
    }

    /// The periods of what lies in the outbox as values of this kind, with how many of each.
    fn periods_of(&self, kind: &str) -> Vec<(u64, usize)> {
        let mut found = std::collections::BTreeMap::new();
        let each = |row: &serde_json::Value| {
            if row["kind"].as_str() == Some(kind) {
                *found.entry(row["period_s"].as_u64().unwrap()).or_insert(0) += 1;
            }
            Ok(())
        };
        self.outbox.lock().unwrap().export(each).unwrap();
        found.into_iter().collect()
    }

    /// What lies in the outbox of a code or log, as instants after [`T0`] in seconds.
    fn of(&self, what: &str) -> Vec<i64> {
        let rows = stored(&self.outbox).into_keys().filter(|(_, _, text)| text.contains(what));
        rows.map(|(at, _, _)| UtcMillis(at).since(T0) / 1000).collect()
    }
}

const SERIAL: &str = "serial = \"/dev/x\"\n";
const TCP: &str = "tcp = \"meter:1\"\n";
const AT_9600: &str = "initial_baud = 9600\n";

fn at_9600(config: &mut ServerConfig) {
    config.initial_baud = Baud::B9600;
}

/// Control, seen to fail: the line not set back.
#[tokio::test(start_paused = true)]
async fn a_meter_is_read_out_at_the_rate_that_it_offers() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 0);
    let mut site = Site::new(SERIAL, "address = \"12345678\"\n", &[&body], |_| {});
    site.visit().await.unwrap();
    let line = |baud| Some(Line { baud, framing: Framing::SevenEven });
    let set = site.link.set.lock().unwrap().clone();
    assert_eq!(set, [line(Baud::B300), line(Baud::B9600), None]);
    let entry = site.entry();
    assert_eq!(
        (entry.state, entry.meter.unwrap().as_str(), &*entry.protocol),
        (MeterState::Ok, "SIM:12345678", "iec62056-21")
    );
    let rows = stored(&site.outbox);
    assert!(rows.keys().any(|(_, _, what)| what == "SIM:12345678  1-0:1.8.0 register 1000 Wh "), "{rows:?}");
    assert!(rows.keys().any(|(_, _, what)| what == "SIM:12345678  1-0:1.7.0 instant 450 W "), "{rows:?}");
    assert_eq!((rows.len(), site.of("0-0:97.97.0").len(), site.of("0-0:96.14.0").len()), (4, 1, 1));
    tokio::time::advance(Duration::from_secs(900)).await;
    body.with(|body| body.tariff = "2");
    site.visit().await.unwrap();
    assert_eq!((site.of("1-0:1.8.0").len(), site.of("0-0:97.97.0").len(), site.of("0-0:96.14.0").len()), (2, 1, 2));
}

const PROFILE: &str = "[[meter.read]]\nsource = \"profile\"\nbackfill_days = 3\n[[meter.read]]\nsource = \"registers\"\ncodes = [\"1-0:1.8.0\"]\n\
     [[meter.read]]\nsource = \"events\"\nbackfill_days = 3\n";

fn password_file(folder: &tempfile::TempDir, text: &str) -> String {
    let path = folder.path().join("password");
    std::fs::write(&path, text).unwrap();
    format!("password_file = {path:?}\n")
}

/// Control, seen to fail: the cursor not moved.
#[tokio::test(start_paused = true)]
async fn a_profile_is_read_back_in_programming_mode_and_goes_on_where_it_was_left() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 4);
    body.with(|body| {
        body.password = Some("0123");
        body.events = vec![(T0.plus_ms(-60_000), 0x80)];
    });
    let folder = tempfile::tempdir().unwrap();
    let meter = format!("{AT_9600}{}{PROFILE}", password_file(&folder, "0123\n"));
    let mut site = Site::new(TCP, &meter, &[&body], at_9600);
    let visited = site.visit().await.unwrap();
    assert_eq!((visited.state, visited.chunks >= 2), (MeterState::Ok, true), "{}", site.entry().cause);
    let expected = |days: i64| {
        body.with(|body| {
            let labels = body.entries.iter().map(|(at, _)| at.since(T0) / 1000);
            labels.filter(|label| *label > -days * 86_400).collect::<Vec<_>>()
        })
    };
    // Two rows of the register, stamped by the gateway.
    let in_profile = |site: &Site| {
        let mut all = site.of("1-0:1.8.0 register");
        all.retain(|at| (at - 840).rem_euclid(900) == 0);
        all
    };
    let wanted = expected(3);
    let found = in_profile(&site);
    assert!(wanted.iter().all(|label| found.contains(label)), "{} of {}", found.len(), wanted.len());
    assert_eq!(site.of("1-0:99.98.0"), [-60]);
    assert_eq!(site.entry().clock_offset_ms.map(|ms| ms.abs() <= 1_000), Some(true));
    assert!(
        site.link.set.lock().unwrap().iter().flatten().all(|line| line.baud == Baud::B9600),
        "nobody can change it"
    );

    tokio::time::advance(Duration::from_secs(900)).await;
    let now = clock.wall();
    body.with(|body| {
        body.capture(T0, now);
        body.asked.clear();
    });
    site.visit().await.unwrap();
    let asked = body.with(|body| body.asked.clone());
    let ranges: Vec<_> = asked.iter().filter(|asked| asked.starts_with("P.01")).collect();
    assert_eq!(ranges.len(), 1, "{asked:?}");
    let wanted = expected(3);
    let found = in_profile(&site);
    assert!(wanted.iter().all(|label| found.contains(label)), "{} of {}", found.len(), wanted.len());
}

/// The settings call a value of a period what the decoder calls a register: 1-0:1.8.0.
///
/// Negative control: take the period from the rows of each answer; the one that comes twice has none then, and the one behind a gap the
/// double.
#[tokio::test(start_paused = true)]
async fn all_rows_of_a_profile_are_of_one_series_however_many_an_answer_has() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 2);
    let reads = "[[meter.read]]\nkind = \"interval\"\nbackfill_days = 1\n";
    let mut site = Site::new(TCP, &format!("{AT_9600}{reads}"), &[&body], at_9600);
    site.visit().await.unwrap();
    assert_eq!(site.periods_of("interval"), [(900, 96)]);
    // Nothing new: the last row comes again. Then one behind a gap.
    tokio::time::advance(Duration::from_secs(60)).await;
    site.visit().await.unwrap();
    tokio::time::advance(Duration::from_secs(1_740)).await;
    body.with(|body| body.capture(T0.plus_ms(QUARTER_MS), T0.plus_ms(2 * QUARTER_MS)));
    site.visit().await.unwrap();
    assert_eq!(body.with(|body| body.entries.len()), 2 * 96 + 1);
    assert_eq!(site.periods_of("interval"), [(900, 97)]);
}

/// Control, seen to fail: no pause after the read-out.
#[tokio::test(start_paused = true)]
async fn a_meter_is_read_out_and_then_asked_in_programming_mode() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 2);
    let reads = "[[meter.read]]\nsource = \"readout\"\n[[meter.read]]\nbackfill_days = 1\n";
    let mut site = Site::new(SERIAL, reads, &[&body], |_| {});
    site.visit().await.unwrap();
    assert_eq!(site.of("1-0:1.7.0").len(), 1);
    assert_eq!(site.of("1-0:1.8.0 register").iter().filter(|at| **at < 0).count(), 96);
}

/// A read-out at 300 baud takes a while, and the profile is read behind it.
///
/// Negative control: leave out `stamp_by` in `flush`, or in `take`; the values are dated two hours early.
#[tokio::test(start_paused = true)]
async fn what_was_read_out_before_the_clock_was_set_right_is_dated_by_the_right_time() {
    let right = TokioClock::shared(T0);
    let clock = SetClock::shared(&right, -2 * 3_600_000);
    let body = SharedBody::new(&right, "12345678", 2);
    body.with(|body| body.sets_right = Some(clock.clone()));
    let reads = "[[meter.read]]\nsource = \"readout\"\n[[meter.read]]\nbackfill_days = 1\n";
    let mut site = Site::new(SERIAL, reads, &[&body], |_| {});
    site.parts.clock = clock.clone();
    site.parts.trust = ClockTrust::new(clock.clone(), 1);
    site.parts.trust.on_cloud_time(right.wall());
    site.visit().await.unwrap();
    assert_eq!(clock.off_ms(), 0, "it was set meanwhile");
    let (power, over_s) = (site.of("1-0:1.7.0"), right.wall().since(T0) / 1000);
    assert!(power.len() == 1 && (0..=over_s).contains(&power[0]), "{power:?} within {over_s} s");
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_knows_no_ranges_is_asked_for_everything() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 2);
    body.with(|body| body.refuses_ranges = true);
    let mut site = Site::new(TCP, &format!("{AT_9600}[[meter.read]]\nbackfill_days = 3\n"), &[&body], at_9600);
    site.visit().await.unwrap();
    let found = site.of("1-0:1.8.0 register");
    assert_eq!(found.len(), body.with(|body| body.entries.len()));
    assert_eq!(body.with(|body| body.asked.last().cloned()).as_deref(), Some("P.01(;)"));
}

/// Negative control: leave the period of the profile to what the section calls a register.
#[tokio::test(start_paused = true)]
async fn a_mean_that_is_read_out_has_a_period_only_where_its_kind_has_one() {
    for (kind, name, period_s) in [("", "average", 900), ("kind = \"register\"\n", "register", 0)] {
        let clock = TokioClock::shared(T0);
        let body = SharedBody::new(&clock, "12345678", 1);
        body.with(|body| body.reads_out_profile = true);
        let reads = format!("[[meter.read]]\nsource = \"readout\"\ncodes = [\"1-0:1.5.0\"]\n{kind}");
        let mut site = Site::new(SERIAL, &reads, &[&body], |_| {});
        site.visit().await.unwrap();
        assert_eq!((site.of("1-0:1.5.0"), site.periods_of(name)), (vec![-60], vec![(period_s, 1)]), "{name}");
        let expected: Vec<_> = site.entry().expected.iter().map(|series| series.period_s).collect();
        assert_eq!(u64::from(expected[0]), period_s);
    }
}

/// Negative controls: keep what cannot be read each time; know rows by their octets alone, of which the third is like the first.
#[tokio::test(start_paused = true)]
async fn lines_that_cannot_be_read_are_kept_once_while_the_ring_moves() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 2);
    body.with(|body| {
        body.refuses_ranges = true;
        body.events = vec![(T0.plus_ms(-125_000), 0x40), (T0.plus_ms(-65_000), 0x80)];
        body.spoiled = vec![body.entries[90].0, T0.plus_ms(-65_000)];
    });
    let reads = "[[meter.read]]\nbackfill_days = 3\n[[meter.read]]\nsource = \"events\"\nbackfill_days = 3\n";
    let mut site = Site::new(TCP, &format!("{AT_9600}{reads}"), &[&body], at_9600);
    let kept = |site: &Site| {
        ["rows-unread 1-0:99.1.0", "rows-unread 0-0:99.98.0"].map(|log| {
            let rows = stored(&site.outbox);
            rows.iter().filter(|((.., what), _)| what.contains(log)).map(|(_, times)| times).sum::<usize>()
        })
    };
    site.visit().await.unwrap();
    assert_eq!(kept(&site), [1, 1]);
    // A quarter of an hour passes: the oldest row makes room, and the begin of the ring moves.
    let pass = async || {
        let from = clock.wall();
        tokio::time::advance(Duration::from_secs(900)).await;
        let to = clock.wall();
        body.with(|body| {
            body.capture(from, to);
            body.entries.remove(0);
        });
    };
    pass().await;
    site.visit().await.unwrap();
    assert_eq!(kept(&site), [1, 1]);
    // One goes, and one comes that looks the same; another entry of the log.
    pass().await;
    body.with(|body| {
        let newest = body.entries.last().unwrap().0;
        body.spoiled = vec![newest, T0.plus_ms(-65_000), T0.plus_ms(-35_000)];
        body.entries.drain(..100);
        body.events.push((T0.plus_ms(-35_000), 0x20));
    });
    site.visit().await.unwrap();
    assert_eq!(kept(&site), [2, 2]);
}

/// Control, seen to fail: `is_wrong_password` without the call.
#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_told_and_not_tried_again_and_again() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 1);
    body.with(|body| body.password = Some("0123"));
    let folder = tempfile::tempdir().unwrap();
    let meter = format!("{AT_9600}{}{PROFILE}", password_file(&folder, "9999\n"));
    let mut site = Site::new(TCP, &meter, &[&body], at_9600);
    let error = site.visit().await.unwrap_err();
    assert!(error.is_wrong_password(), "{}", error.text());
    assert_eq!(error.state(), Some(MeterState::Refusing));
    assert!(error.text().ends_with("is password_file of its section right?"), "{}", error.text());
    assert!(stored(&site.outbox).is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_expected_is_held_and_any_name_of_the_meter_will_do() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 0);
    let mut site = Site::new(TCP, &format!("{AT_9600}serial = \"SIM:1\"\n"), &[&body], at_9600);
    assert_eq!(site.visit().await.unwrap().state, MeterState::WrongIdentity);
    assert_eq!(site.entry().cause, "expected SIM:1, found SIM:12345678");
    let mut site = Site::new(TCP, &format!("{AT_9600}serial = \"SIM:12345678\"\n"), &[&body], at_9600);
    assert_eq!(site.visit().await.unwrap().state, MeterState::Ok);
}

/// Control, seen to fail: the address left out of the call, with which both answer at once.
#[tokio::test(start_paused = true)]
async fn of_several_meters_on_a_line_the_one_that_is_called_answers() {
    let clock = TokioClock::shared(T0);
    let (one, other) = (SharedBody::new(&clock, "11111111", 0), SharedBody::new(&clock, "22222222", 0));
    let mut site = Site::new(SERIAL, "address = \"22222222\"\n", &[&one, &other], |_| {});
    site.visit().await.unwrap();
    assert_eq!(site.entry().meter.unwrap().as_str(), "SIM:22222222");
    let mut nobody = Site::new(SERIAL, "address = \"33333333\"\n", &[&one, &other], |_| {});
    let error = nobody.visit().await.unwrap_err();
    assert_eq!(error.state(), Some(MeterState::Silent), "{}", error.text());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_hands_over_parity_is_read_too() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 0);
    let line = format!("{SERIAL}masked_parity = true\n");
    let mut site = Site::new(&line, "", &[&body], |config| config.masked_parity = true);
    site.visit().await.unwrap();
    let set = site.link.set.lock().unwrap().clone();
    assert!(set.iter().flatten().all(|line| line.framing == Framing::EightNone), "{set:?}");
    assert_eq!(site.of("1-0:1.8.0").len(), 1);
}

#[test]
fn the_first_hour_of_a_day_is_seen() {
    for (content, is_past) in [
        ("(235959)", false),
        ("(000001)", true),
        ("(0.9.1)", false),
        ("0.9.1(2:00:59:10)", true),
        ("0.9.1(120000)", false),
    ] {
        assert_eq!(is_past_midnight(content.as_bytes()), is_past, "{content}");
    }
}

/// Control, seen to fail: the date that was asked for first.
#[tokio::test(start_paused = true)]
async fn midnight_between_date_and_time_is_no_leap_of_the_clock() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 1);
    body.with(|body| body.first_date = Some("261122"));
    let mut site = Site::new(TCP, &format!("{AT_9600}{PROFILE}"), &[&body], at_9600);
    site.visit().await.unwrap();
    assert_eq!(site.entry().clock_offset_ms.map(|ms| ms.abs() <= 1_000), Some(true), "{:?}", site.entry());
}

/// Control, seen to fail: rows settled by the gateway's clock.
#[tokio::test(start_paused = true)]
async fn rows_of_a_meter_that_is_behind_and_shows_no_time_are_waited_for() {
    let clock = TokioClock::shared(T0);
    let body = SharedBody::new(&clock, "12345678", 0);
    let behind = -40 * QUARTER_MS;
    body.with(|body| {
        body.shows_time = false;
        body.capture(T0.plus_ms(2 * behind), T0.plus_ms(behind));
    });
    let mut site = Site::new(TCP, &format!("{AT_9600}{PROFILE}"), &[&body], at_9600);
    site.visit().await.unwrap();
    tokio::time::advance(Duration::from_secs(900)).await;
    body.with(|body| body.capture(T0.plus_ms(behind), T0.plus_ms(behind + QUARTER_MS)));
    site.visit().await.unwrap();
    let last = body.with(|body| body.entries.last().unwrap().0.since(T0) / 1000);
    assert!(site.of("1-0:1.8.0 register").contains(&last), "{last}: {:?}", site.of("1-0:1.8.0 register"));
}
