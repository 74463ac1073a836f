//! A child process that is killed when its handle is dropped, and whose first words are waited for.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context;

/// A running program. Its standard error goes to a log file, its standard output line by line to [`Process::line`].
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
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
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot log to {}", log.display()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .envs(variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
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
        Ok(Self { name: name.to_owned(), child, lines })
    }

    /// The next line of standard output.
    pub fn line(&self, within: Duration) -> anyhow::Result<String> {
        self.lines
            .recv_timeout(within)
            .with_context(|| format!("{} said nothing within {within:?}; see its log", self.name))
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

/// A port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
