//! One process of a service: started, waited for, paused, killed and started again with the same words.
//!
//! It must not outlive the test, however that ends. The kernel kills it when its parent dies (`setpriv --pdeathsig`); "parent"
//! there is the thread that started it, so all are started by one thread that never ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Missing;

const STEP: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How much of a log an error shows.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16_384;

/// By what one knows that a process serves.
#[derive(Debug, Clone)]
pub enum Ready {
    /// It takes connections.
    Port(SocketAddr),
    /// It logged this since it was started.
    Logged(&'static str),
    /// It answers a GET of this path with 200.
    Answers(SocketAddr, &'static str),
}

/// A process, running or not.
#[derive(Debug)]
pub struct Server {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    folder: PathBuf,
    log: PathBuf,
    ready: Ready,
    /// Length of the log when it was last started.
    logged_before: u64,
    child: Option<Child>,
}

impl Server {
    /// Not started yet. Runs in `folder`, where its log lies too.
    pub fn new(name: &str, program: &Path, folder: &Path, ready: Ready) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: Vec::new(),
            variables: Vec::new(),
            folder: folder.to_owned(),
            log: folder.join(format!("{name}.log")),
            ready,
            logged_before: 0,
            child: None,
        }
    }

    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Starts it, and returns at once.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot log to {}", self.log.display()))?;
        self.logged_before = log.metadata()?.len();
        let mut command = Command::new(setpriv()?);
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(spawn(command).with_context(|| format!("cannot start {}", self.name))?);
        Ok(())
    }

    /// Until it serves; else an error with the end of its log.
    pub fn wait_ready(&mut self, within: Duration) -> Result<()> {
        let mut waited = Duration::ZERO;
        while !self.is_ready()? {
            if !self.is_running() {
                bail!("{} ended; the end of its log:\n{}", self.name, tail(&self.log));
            }
            if waited >= within {
                bail!("{} did not serve within {within:?}; the end of its log:\n{}", self.name, tail(&self.log));
            }
            std::thread::sleep(STEP);
            waited += STEP;
        }
        Ok(())
    }

    fn is_ready(&self) -> Result<bool> {
        Ok(match &self.ready {
            Ready::Port(address) => TcpStream::connect_timeout(address, CONNECT_TIMEOUT).is_ok(),
            Ready::Logged(words) => self.logged()?.contains(words),
            Ready::Answers(address, path) => http_status(*address, path).is_some_and(|status| status == 200),
        })
    }

    /// What it logged since it was last started.
    pub fn logged(&self) -> Result<String> {
        let mut log = File::open(&self.log)?;
        log.seek(SeekFrom::Start(self.logged_before))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL, and waits until it is gone. One that does not run is left so.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for its own end; SIGKILL, and an error, when that takes longer than `within`.
    pub fn stop(&mut self, within: Duration) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        signal(child, Signal::TERM)?;
        let ended = wait(child, within)?;
        self.kill()?;
        ensure!(ended.is_some(), "{} did not stop within {within:?}", self.name);
        Ok(())
    }

    /// SIGSTOP: it keeps its memory, files and connections, and does nothing.
    pub fn pause(&self) -> Result<()> {
        signal(self.child.as_ref().with_context(|| format!("{} does not run", self.name))?, Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        signal(self.child.as_ref().with_context(|| format!("{} does not run", self.name))?, Signal::CONT)
    }

    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        drop(self.kill());
    }
}

/// Runs a program to its end in `folder`, and answers what it printed; an error with the end of it when it failed, or took longer
/// than `within` and was killed.
pub fn run(name: &str, command: &Command, folder: &Path, within: Duration) -> Result<String> {
    let log = folder.join(format!("{name}.log"));
    let file = File::create(&log).with_context(|| format!("cannot log to {}", log.display()))?;
    let mut watched = Command::new(setpriv()?);
    watched.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    watched.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(folder);
    watched.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = spawn(watched).with_context(|| format!("cannot start {name}"))?;
    match wait(&mut child, within)? {
        Some(status) if status.success() => Ok(String::from_utf8_lossy(&std::fs::read(&log)?).into_owned()),
        Some(status) => bail!("{name}: {status}\n{}", tail(&log)),
        None => {
            child.kill()?;
            child.wait()?;
            bail!("{name} took longer than {within:?}\n{}", tail(&log))
        }
    }
}

fn wait(child: &mut Child, within: Duration) -> Result<Option<ExitStatus>> {
    let mut waited = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if waited >= within {
            return Ok(None);
        }
        std::thread::sleep(STEP);
        waited += STEP;
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_child(child), signal)?)
}

/// From the thread that never ends.
fn spawn(command: Command) -> Result<Child> {
    type Request = (Command, Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                // Who asked waits for the answer.
                drop(answer.send(command.spawn()));
            }
        });
        Mutex::new(sender)
    });
    let (answer, started) = channel();
    let sender = starter.lock().unwrap_or_else(PoisonError::into_inner).clone();
    sender.send((command, answer)).map_err(|_| anyhow!("the thread that starts processes is gone"))?;
    Ok(started.recv().context("the thread that starts processes is gone")??)
}

fn setpriv() -> Result<PathBuf> {
    super::program("setpriv").ok_or_else(|| Missing::error("there is no setpriv", "apt-get install util-linux"))
}

/// The status of the answer to a GET.
fn http_status(address: SocketAddr, path: &str) -> Option<u16> {
    use std::io::Write as _;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
}

fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
