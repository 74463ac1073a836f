//! Starts lines and ports, and follows the settings while the gateway runs.
//!
//! A serial port has a thread of its own, since some of its calls block; connections share one thread for each core. A line hears
//! of changes through its plan and takes them over between two sessions; a line that is new is started, one that is gone ends
//! after its session.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use super::random_u64;
use crate::actors::line::{Line, LineParts, MediumFactory};
use crate::actors::port::{Port, PortParts};
use crate::actors::supervisor::{Adopt, Dismiss, Factory, Supervisor};
use crate::config::metering::{LinePlan, MediumSettings, PortSettings};
use crate::link;
use crate::reading::session::SessionParts;

/// Connections that are open at once, over all lines: well below the descriptors that a process gets.
const CONNECTIONS_MAX: usize = 256;
/// The supervisor answers at once; if it does not, the gateway has other troubles.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);

struct RunningLine {
    /// Unique: a line that comes back under its old name is another child.
    child: String,
    plan: watch::Sender<Arc<LinePlan>>,
    /// Of a serial port.
    own_thread: Option<Arbiter>,
}

struct RunningPort {
    child: String,
    settings: Arc<PortSettings>,
    /// Dropped to end it.
    keeps_running: watch::Sender<()>,
    own_thread: Option<Arbiter>,
}

pub(super) struct Lines {
    session: Arc<SessionParts>,
    supervisor: Addr<Supervisor>,
    gate: Arc<Semaphore>,
    medium: MediumFactory,
    shared_threads: Vec<Arbiter>,
    started: usize,
    running: HashMap<Arc<str>, RunningLine>,
    ports: HashMap<Arc<str>, RunningPort>,
}

impl Lines {
    pub(super) fn new(session: SessionParts, supervisor: Addr<Supervisor>) -> Self {
        Self {
            session: Arc::new(session),
            supervisor,
            gate: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            medium: Arc::new(link::medium),
            shared_threads: Vec::new(),
            started: 0,
            running: HashMap::new(),
            ports: HashMap::new(),
        }
    }

    /// Makes what runs what the settings say.
    pub(super) async fn follow(&mut self, plans: &[LinePlan], ports: &[Arc<PortSettings>]) {
        self.forget_meters(plans);
        let wanted: HashSet<&str> = plans.iter().map(|plan| &*plan.line.name).collect();
        let gone: Vec<Arc<str>> = self.running.keys().filter(|name| !wanted.contains(&***name)).cloned().collect();
        for name in gone {
            if let Some(RunningLine { child, plan, own_thread }) = self.running.remove(&name) {
                info!(line = %name, "the line ends after its session");
                self.dismiss(child).await;
                drop(plan);
                stop_when_idle(own_thread);
            }
        }
        self.follow_ports(ports).await;
        for plan in plans {
            match self.running.get(&plan.line.name) {
                Some(running) if **running.plan.borrow() == *plan => {}
                Some(running) => drop(running.plan.send(Arc::new(plan.clone()))),
                None => self.start_line(plan).await,
            }
        }
    }

    /// Takes those out of the inventory that are gone, or other than before; the latter enter it again.
    fn forget_meters(&self, plans: &[LinePlan]) {
        let mut wanted = HashMap::new();
        for plan in plans {
            wanted.extend(plan.meters.iter().map(|meter| (&*meter.name, (&*plan.line.name, meter))));
        }
        for (line, running) in &self.running {
            for meter in &running.plan.borrow().meters {
                if wanted.get(&*meter.name) != Some(&(&**line, meter)) {
                    self.session.inventory.remove(&meter.name);
                }
            }
        }
    }

    async fn start_line(&mut self, plan: &LinePlan) {
        let (sender, receiver) = watch::channel(Arc::new(plan.clone()));
        let (thread, own_thread) = self.thread_for(&plan.line.medium);
        let parts = LineParts {
            session: self.session.clone(),
            medium: self.medium.clone(),
            gate: self.gate.clone(),
            seed: random_u64(),
        };
        let factory: Factory = Box::new(move |notice| {
            let (parts, receiver) = (parts.clone(), receiver.clone());
            // A thread that is gone drops the notice, which tells the supervisor.
            thread.spawn_fn(move || drop(Line::new(parts, receiver, notice).start()));
        });
        let child = self.adopt("line", &plan.line.name, factory).await;
        self.running.insert(plan.line.name.clone(), RunningLine { child, plan: sender, own_thread });
    }

    async fn follow_ports(&mut self, ports: &[Arc<PortSettings>]) {
        let is_wanted = |running: &RunningPort| ports.contains(&running.settings);
        let gone: Vec<Arc<str>> =
            self.ports.iter().filter(|(_, running)| !is_wanted(running)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            if let Some(RunningPort { child, own_thread, keeps_running, settings }) = self.ports.remove(&name) {
                info!(port = %name, "the port ends");
                self.dismiss(child).await;
                self.session.inventory.remove(&name);
                for meter in &settings.radio.meters {
                    self.session.inventory.remove(&meter.name);
                }
                drop(keeps_running);
                stop_when_idle(own_thread);
            }
        }
        for settings in ports {
            if !self.ports.contains_key(&settings.name) {
                self.start_port(settings).await;
            }
        }
    }

    async fn start_port(&mut self, settings: &Arc<PortSettings>) {
        let (sender, receiver) = watch::channel(());
        let (thread, own_thread) = self.thread_for(&settings.medium);
        let parts = PortParts { session: self.session.clone(), medium: self.medium.clone(), seed: random_u64() };
        let port = settings.clone();
        let factory: Factory = Box::new(move |notice| {
            let (parts, port, receiver) = (parts.clone(), port.clone(), receiver.clone());
            thread.spawn_fn(move || drop(Port::new(parts, port, receiver, notice).start()));
        });
        let child = self.adopt("port", &settings.name, factory).await;
        let running = RunningPort { child, settings: settings.clone(), keeps_running: sender, own_thread };
        self.ports.insert(settings.name.clone(), running);
    }

    fn thread_for(&mut self, medium: &MediumSettings) -> (ArbiterHandle, Option<Arbiter>) {
        if matches!(medium, MediumSettings::Serial { .. }) {
            let own = Arbiter::new();
            return (own.handle(), Some(own));
        }
        if self.shared_threads.is_empty() {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            self.shared_threads = (0..cores).map(|_| Arbiter::new()).collect();
        }
        (self.shared_threads[self.started % self.shared_threads.len()].handle(), None)
    }

    async fn adopt(&mut self, what: &str, name: &str, factory: Factory) -> String {
        self.started += 1;
        let child = format!("{what} {name} #{}", self.started);
        let adopt = Adopt { name: child.clone(), factory };
        if self.supervisor.send(adopt).timeout(ADOPT_TIMEOUT).await.is_err() {
            warn!(%child, "could not be started");
        }
        child
    }

    async fn dismiss(&self, name: String) {
        if self.supervisor.send(Dismiss { name }).timeout(ADOPT_TIMEOUT).await.is_err() {
            warn!("the supervisor does not answer");
        }
    }
}

/// The thread of a line that is gone goes too, but not before the session that is under way.
fn stop_when_idle(thread: Option<Arbiter>) {
    if let Some(thread) = thread {
        actix::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3600 + 120)).await;
            thread.stop();
        });
    }
}
