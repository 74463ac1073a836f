//! A child process that is killed when its handle is dropped, and whose first words are waited for.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};

/// A running program. Its standard error goes to a log file, its standard output line by line to [`Process::line`].
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; the log is appended to, so that restarts show in one file.
    pub fn start(name: &str, program: &Path, arguments: &[&str], log: &Path) -> anyhow::Result<Self> {
        Self::start_in(name, program, arguments, log, &[])
    }

    /// The same, with variables added to its environment.
    pub fn start_in(
        name: &str,
        program: &Path,
        arguments: &[&str],
        log: &Path,
        variables: &[(OsString, OsString)],
    ) -> anyhow::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot log to {}", log.display()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .envs(variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("the child has no standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name: name.to_owned(), child, lines, log: log.to_owned() })
    }

    /// The next line of standard output; else an error with what it logged last.
    pub fn line(&self, within: Duration) -> anyhow::Result<String> {
        self.lines.recv_timeout(within).map_err(|error| {
            let said = match error {
                RecvTimeoutError::Timeout => format!("said nothing within {within:?}"),
                RecvTimeoutError::Disconnected => "ended and said nothing more".to_owned(),
            };
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines = log.lines().collect::<Vec<_>>();
            let last = lines[lines.len().saturating_sub(10)..].join("\n");
            anyhow!("{} {said}; the end of its log:\n{last}", self.name)
        })
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for its own end; SIGKILL, and an error, when that takes longer than `within`.
    pub fn stop(mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while waited < within {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(step);
            waited += step;
        }
        self.child.kill()?;
        self.child.wait()?;
        anyhow::bail!("{} did not stop within {within:?}", self.name)
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port that was free a moment ago, and that nobody is given who asks the system for any port: until it is listened at,
/// and while its listener is killed and started again, connections and listeners of others take ports all the time.
pub fn free_port() -> anyhow::Result<u16> {
    const FIRST: u16 = 10_000;
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let handed_out = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = handed_out.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768_u16);
    if end < FIRST + 1_000 {
        return Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port());
    }
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in FIRST..end {
        // Several programs at once: each begins elsewhere.
        let port = next.unwrap_or_else(|| FIRST + (RandomState::new().hash_one(()) % u64::from(end - FIRST)) as u16);
        *next = Some(if port + 1 < end { port + 1 } else { FIRST });
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port from {FIRST} to {end} is free")
}
