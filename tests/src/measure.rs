//! Measuring for the benchmarks: CPU time, runs that alternate, rows of one table.
//!
//! Time is CPU time, since other work on the machine moves wall clocks and hardly moves CPU time. What is compared is measured
//! in turns, forwards and backwards, and the ratio is taken round by round: a machine that slows down slows both.

mod table;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

pub use table::{Reach, Row, note};

/// Rounds of every comparison.
pub const ROUNDS: usize = 9;

/// What this thread has spent.
pub fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

/// What this process has spent, all its threads together, those that have ended too.
pub fn own_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    let spent = clock_gettime(clock);
    // Neither part of a CPU time is negative.
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// What another process has spent. In steps of 10 ms.
pub fn process_cpu(pid: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, and may hold blanks.
    let (_, fields) = text.rsplit_once(')').context("a process without a name")?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (ticks.next().context("no user time")??, ticks.next().context("no system time")??);
    // USER_HZ is 100 on every Linux architecture that is still supported.
    Ok(Duration::from_millis((user + system) * 10))
}

/// Memory of a process that lies in RAM.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    pub bytes: u64,
    pub peak_bytes: u64,
}

pub fn resident(pid: u32) -> Result<Resident> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        let kilobytes: u64 = line.split_whitespace().nth(1).context("an empty line")?.parse()?;
        anyhow::Ok(kilobytes * 1024)
    };
    Ok(Resident { bytes: field("VmRSS:")?, peak_bytes: field("VmHWM:")? })
}

/// The figures of all rounds.
#[derive(Debug, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn new(figures: Vec<f64>) -> Result<Self> {
        ensure!(!figures.is_empty() && figures.iter().all(|figure| figure.is_finite()), "no figures: {figures:?}");
        Ok(Self(figures))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
    }

    pub fn least(&self) -> f64 {
        self.sorted()[0]
    }

    pub fn greatest(&self) -> f64 {
        self.sorted()[self.0.len() - 1]
    }

    /// Round by round.
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }

    /// Round by round.
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own - other).collect())
    }

    /// Round by round.
    pub fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own + other).collect())
    }

    pub fn map(&self, change: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|figure| change(*figure)).collect())
    }
}

/// A new folder on a real disk, beside what cargo builds: the folder for temporary files may lie in memory.
pub fn folder() -> Result<tempfile::TempDir> {
    let program = std::env::current_exe()?;
    let beside = program.parent().context("a program in no folder")?;
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(beside)?)
}

/// One of those that are compared: does its work once and answers with a figure of it.
pub type Contender<'a> = &'a mut dyn FnMut() -> Result<f64>;

/// Each contender once for warming up, then `rounds` times in turns: forwards in one round, backwards in the next.
pub fn alternate<const N: usize>(rounds: usize, mut contenders: [Contender<'_>; N]) -> Result<[Samples; N]> {
    let mut figures = [const { Vec::new() }; N];
    for contender in &mut contenders {
        contender()?;
    }
    for round in 0..rounds {
        for place in 0..N {
            let place = if round % 2 == 0 { place } else { N - 1 - place };
            figures[place].push(contenders[place]()?);
        }
    }
    let mut samples = figures.into_iter().map(Samples::new).collect::<Result<Vec<_>>>()?.into_iter();
    Ok(std::array::from_fn(|_| samples.next().expect("one for each contender")))
}

/// A part of a benchmark: its name and its work.
pub type Part<'a> = (&'a str, fn() -> Result<()>);

/// The entry of a benchmark: its parts by name, all of them when none is asked for. What cargo adds (`--bench`) is no name.
pub fn run_named(parts: &[Part<'_>]) -> Result<()> {
    for (name, run) in parts {
        if is_asked(name) {
            run().with_context(|| format!("the benchmark {name}"))?;
        }
    }
    Ok(())
}

/// Whether a part of a benchmark is to run.
pub fn is_asked(name: &str) -> bool {
    let mut asked = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).peekable();
    asked.peek().is_none() || asked.any(|asked| asked == name)
}

/// CPU seconds of this thread that `work` takes, done `times` times.
pub fn cpu_of(times: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let before = thread_cpu();
    for _ in 0..times {
        work()?;
    }
    Ok(thread_cpu().saturating_sub(before).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_take_turns_and_are_compared_round_by_round() {
        let (mut one, mut other) = (0.0, 0.0);
        let [ones, others] = alternate(
            3,
            [
                &mut || {
                    one += 1.0;
                    Ok(one * 6.0)
                },
                &mut || {
                    other += 1.0;
                    Ok(other * 2.0)
                },
            ],
        )
        .unwrap();
        // The first of each was for warming up.
        assert_eq!([ones.least(), ones.median(), ones.greatest()].map(|figure| figure as u64), [12, 18, 24]);
        assert_eq!(ones.over(&others).greatest() as u64, 3);
        assert_eq!(Samples::new(vec![4.0, 1.0]).unwrap().map(|figure| figure * 2.0).median() as u64, 5);
        assert!(Samples::new(vec![f64::NAN]).is_err());
    }

    #[test]
    fn work_takes_cpu_time_and_waiting_takes_none() {
        let spent = cpu_of(1, || {
            let begun = own_cpu();
            while own_cpu() < begun + Duration::from_millis(30) {}
            Ok(())
        });
        assert!(spent.unwrap() > 0.0);
        assert!(resident(std::process::id()).unwrap().peak_bytes > 0);
    }
}
