//! How far something is, on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::Write;
use std::time::Duration;

use tokio::time::Instant;

const REDRAWN_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(2);
const WIDTH: u64 = 30;

/// Where progress is told. Nobody is left to tell when it cannot be written.
pub struct Bar<'a> {
    out: &'a mut (dyn Write + Send),
    is_terminal: bool,
    told_at: Instant,
    is_drawn: bool,
}

impl<'a> Bar<'a> {
    pub fn new(out: &'a mut (dyn Write + Send), is_terminal: bool) -> Self {
        Self { out, is_terminal, told_at: Instant::now(), is_drawn: false }
    }

    /// `text` says what `done` of `of` means.
    pub(super) fn tell(&mut self, done: u64, of: u64, text: impl FnOnce() -> String) {
        let every = if self.is_terminal { REDRAWN_EVERY } else { LINE_EVERY };
        if self.told_at.elapsed() < every {
            return;
        }
        self.told_at = Instant::now();
        drop(if self.is_terminal {
            self.is_drawn = true;
            write!(self.out, "\r{} {}\x1b[K", drawn(done, of), text()).and_then(|()| self.out.flush())
        } else {
            writeln!(self.out, "{}", text())
        });
    }

    pub(super) fn say(&mut self, line: &str) {
        self.wipe();
        drop(writeln!(self.out, "{line}"));
    }

    /// Takes the bar away: what comes next begins a line.
    pub(super) fn wipe(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            drop(write!(self.out, "\r\x1b[K").and_then(|()| self.out.flush()));
        }
    }
}

fn drawn(done: u64, of: u64) -> String {
    let share = |of_all: u64| (u128::from(done.min(of)) * u128::from(of_all) / u128::from(of.max(1))) as usize;
    format!("[{:<2$}] {:>3}%", "#".repeat(share(WIDTH)), share(100), WIDTH as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_it_is_far() {
        assert_eq!(drawn(0, 0), format!("[{}]   0%", " ".repeat(30)));
        assert_eq!(drawn(1, 2), format!("[{}{}]  50%", "#".repeat(15), " ".repeat(15)));
        assert_eq!(drawn(u64::MAX, u64::MAX), format!("[{}] 100%", "#".repeat(30)));
        assert_eq!(drawn(9, 3), drawn(3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_gets_a_bar_and_a_file_gets_lines() {
        for is_terminal in [true, false] {
            let mut out = Vec::new();
            let mut bar = Bar::new(&mut out, is_terminal);
            for done in 0..100 {
                tokio::time::advance(Duration::from_millis(50)).await;
                bar.tell(done, 100, || format!("{done} of 100 files"));
            }
            bar.wipe();
            let text = String::from_utf8(out).unwrap();
            if is_terminal {
                assert!(text.contains("\r[####") && !text.contains('\n') && text.ends_with("\r\x1b[K"), "{text:?}");
                assert_eq!(text.matches("files").count(), 25, "{text:?}");
            } else {
                assert_eq!(text, "39 of 100 files\n79 of 100 files\n");
            }
        }
    }
}
