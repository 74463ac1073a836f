//! A fleet at work: meters made and brought up to the start, personalities started, everything stopped in order.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocols::metering::UtcMillis;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::error;

use crate::clock::DAY_MS;
use crate::config::{Fleet, Start};
use crate::fleet::{DataError, MadeMeter, make};
use crate::pace::{Pace, wall_now};
use crate::speak::cad::{CadFeed, PUSHED, PUSHED_BY_PRODUCERS};
use crate::speak::lines::{Lines, Member, OpenError, Surroundings};
use crate::speak::publisher::{PublishQueue, Publisher};
use crate::speak::{Endpoint, Place, Protocol};
use crate::station::{Station, live_until};
use crate::steward::{Steward, Tally, Tended};
use crate::truth::Truth;

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the lines may take to finish what they are sending when the fleet stops.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// EMFILE on every platform that has ptys.
const TOO_MANY_OPEN_FILES: i32 = 24;

/// Why a fleet cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("the meters cannot be made")]
    Data(#[source] DataError),
    #[error("truth file {path} cannot be opened", path = path.display())]
    Truth {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Line(#[from] OpenError),
}

impl StartError {
    /// What may help, where it is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Line(error) if error.source.raw_os_error() == Some(TOO_MANY_OPEN_FILES) => {
                Some("raise the limit with ulimit -n, or set meters_per_line so that more meters share a line")
            }
            Self::Line(error) => match error.source.kind() {
                io::ErrorKind::AddrInUse => {
                    Some("another program has the port (`ss -ltnp` says which); set another, or 0 for any that is free")
                }
                io::ErrorKind::AddrNotAvailable => Some("listen on an address of this machine, such as 127.0.0.1"),
                io::ErrorKind::PermissionDenied => Some("ports below 1024 are for root: set a greater one"),
                _ => None,
            },
            _ => None,
        }
    }
}

/// When a run ends by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Until {
    /// By the wall clock.
    pub duration: Option<Duration>,
    /// After so many pushes, all of them acknowledged.
    pub pushes: Option<u64>,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Duration,
    Pushes,
    /// The truth file could not be written any more.
    TruthFailed,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub meters: usize,
    pub elapsed_ms: u64,
    /// Readings in the truth.
    pub truth_lines: u64,
    pub messages_acknowledged: u64,
    /// Refused by a full queue: no part of the truth.
    pub messages_dropped: u64,
    /// Published or not, but never acknowledged: no part of the truth.
    pub messages_unacknowledged: u64,
}

/// A fleet at work. Dropping it without [`Self::stop`] leaves its tasks to the runtime, which ends them when they notice.
pub struct RunningFleet {
    stations: Vec<Arc<Station>>,
    endpoints: Vec<Endpoint>,
    started: Instant,
    lines: Lines,
    stop_lines: watch::Sender<bool>,
    /// The steward's and the publisher's.
    stops: (watch::Sender<bool>, watch::Sender<bool>),
    steward: Option<JoinHandle<()>>,
    publisher: Option<JoinHandle<()>>,
    queue: Arc<PublishQueue>,
    tally: Arc<Tally>,
    truth: Arc<Truth>,
    pace: Arc<Pace>,
}

impl RunningFleet {
    /// Makes the meters, lets them live through their history, and starts their personalities.
    pub async fn start(fleet: Fleet, pushes_max: Option<u64>) -> Result<Self, StartError> {
        let truth = Arc::new(match &fleet.truth {
            Some(path) => Truth::append_to(path).map_err(|source| StartError::Truth { path: path.clone(), source })?,
            None => Truth::discarded(),
        });
        let (preparing, fleet) = (truth.clone(), Arc::new(fleet));
        let prepared = fleet.clone();
        let making = tokio::task::spawn_blocking(move || prepare(&prepared, &preparing));
        let (start_at, made) = making.await.expect("making meters does not panic").map_err(StartError::Data)?;
        let pace = Arc::new(Pace::starting(start_at, wall_now(), fleet.speed));
        let queue = Arc::new(PublishQueue::new(made.len(), fleet.queue_per_meter_max));
        let seats: Vec<(usize, u64)> = made.iter().map(|made| (made.group, made.seed)).collect();
        let tended: Vec<Tended> = made.into_iter().enumerate().map(|one| tend(&fleet, one, &pace, &truth)).collect();
        let (stop_lines, stopping) = watch::channel(false);
        let around = Surroundings { pace: pace.clone(), truth: truth.clone(), stopping };
        let (lines, endpoints) = open_lines(&fleet, &seats, &tended, &around).await?;
        let stations = tended.iter().map(|tended| tended.station.clone()).collect();
        let (stop_publisher, stopping) = watch::channel(false);
        let publisher = tended.iter().any(|tended| tended.feed.is_some()).then(|| {
            let publisher = Publisher::new(fleet.broker.clone(), queue.clone(), truth.clone(), stopping);
            tokio::spawn(publisher.run())
        });
        let steward = Steward::new(tended, pace.clone(), queue.clone(), pushes_max);
        let tally = steward.tally();
        let (stop_steward, stopping) = watch::channel(false);
        let steward = Some(tokio::spawn(steward.run(stopping)));
        let started = Instant::now();
        let stops = (stop_steward, stop_publisher);
        Ok(Self {
            stations,
            endpoints,
            started,
            lines,
            stop_lines,
            stops,
            steward,
            publisher,
            queue,
            tally,
            truth,
            pace,
        })
    }

    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Stops the meters' clocks: nothing is captured or pushed any more, everything captured can still be read.
    pub fn freeze(&self) {
        self.pace.freeze();
    }

    pub fn stations(&self) -> &[Arc<Station>] {
        &self.stations
    }

    /// Waits until the run has to end.
    pub async fn wait(&self, until: Until) -> Ended {
        loop {
            if self.truth.has_failed() {
                return Ended::TruthFailed;
            }
            if until.duration.is_some_and(|duration| self.started.elapsed() >= duration) {
                return Ended::Duration;
            }
            if self.tally.is_done() && self.queue.outstanding() == 0 {
                return Ended::Pushes;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Stops capturing and pushing, then waits a few seconds for the last acknowledgements.
    pub async fn stop(self) -> Summary {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.stop_lines.send_replace(true);
        for task in self.lines.tasks {
            let stop = task.abort_handle();
            match timeout(LAST_WORDS, task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => error!(%error, "a line ended badly"),
                Err(_) => stop.abort(),
            }
        }
        // The steward first: it hands out what slow devices still hold, and the publisher then waits for the last word on it.
        let (stop_steward, stop_publisher) = self.stops;
        for (stop, task) in [(stop_steward, self.steward), (stop_publisher, self.publisher)] {
            stop.send_replace(true);
            if let Some(task) = task
                && let Err(error) = task.await
            {
                error!(%error, "a task of the fleet ended badly");
            }
        }
        Summary {
            meters: self.stations.len(),
            elapsed_ms,
            truth_lines: self.truth.lines(),
            messages_acknowledged: self.queue.acknowledged(),
            messages_dropped: self.queue.dropped(),
            messages_unacknowledged: self.queue.outstanding(),
        }
    }
}

/// Makes the meters and lets them live through their history, up to the start.
fn prepare(fleet: &Fleet, truth: &Truth) -> Result<(UtcMillis, Vec<MadeMeter>), DataError> {
    let start_at = match fleet.start {
        Start::At(start_at) => start_at,
        Start::DaysBack(days) => wall_now().plus_ms(-((days * DAY_MS as f64) as i64)),
    };
    let mut made = make(fleet, start_at)?;
    for MadeMeter { meter, group, .. } in &mut made {
        live_until(meter, start_at, fleet.groups[*group].protocol, truth);
    }
    Ok((start_at, made))
}

fn tend(fleet: &Fleet, (index, made): (usize, MadeMeter), pace: &Arc<Pace>, truth: &Arc<Truth>) -> Tended {
    let MadeMeter { meter, seed, group } = made;
    let group = &fleet.groups[group];
    let feed = (group.protocol == Protocol::Cad).then(|| {
        let every_ms = group.push_every.world_ms(fleet.speed);
        let pushed = if group.solar_peak_w > 0 { PUSHED_BY_PRODUCERS.to_vec() } else { PUSHED.to_vec() };
        CadFeed::new((index, meter.id()), seed, pace.start_at(), every_ms, pushed, group.faults)
    });
    let station = Arc::new(Station::new(meter, group.protocol, pace.clone(), truth.clone()));
    Tended { station, feed }
}

/// Opens the lines of all groups, and says of each meter where it is.
async fn open_lines(
    fleet: &Fleet,
    seats: &[(usize, u64)],
    tended: &[Tended],
    around: &Surroundings,
) -> Result<(Lines, Vec<Endpoint>), OpenError> {
    let mut lines = Lines::default();
    // Meters stand in the order of their groups.
    for (index, group) in fleet.groups.iter().enumerate() {
        if let Some(settings) = &group.line {
            let of_group = seats.iter().zip(tended).filter(|((group, _), _)| *group == index);
            let members = of_group.map(|((_, seed), tended)| Member { station: tended.station.clone(), seed: *seed });
            lines.open(group, settings, members.collect(), around).await?;
        }
    }
    let mut on_lines = std::mem::take(&mut lines.places).into_iter();
    let endpoints = tended.iter().map(|tended| {
        let protocol = tended.station.protocol();
        let place = match &tended.feed {
            Some(feed) => {
                let broker = format!("{}:{}", fleet.broker.host, fleet.broker.port);
                Place::Topic { broker, topic: feed.topic().to_owned() }
            }
            None if protocol.has_line() => on_lines.next().expect("each meter with a line has a place on one"),
            None => Place::Nowhere {},
        };
        Endpoint { meter: tended.station.id().into(), protocol: protocol.name(), place }
    });
    let endpoints = endpoints.collect();
    Ok((lines, endpoints))
}
