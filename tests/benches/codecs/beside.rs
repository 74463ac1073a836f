//! Ours beside a peer at the same work, in turns: one row of the table.

use std::fmt::Debug;

use anyhow::{Result, ensure};
use tests::measure::{ROUNDS, Reach, Row, alternate, cpu_of};

/// What is wanted beside the peer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// At most so many times the peer's time.
    Time(f64),
    /// At least so many times the peer's speed.
    Speed(f64),
}

/// What both do, and how often.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) name: &'a str,
    pub(crate) peer: &'a str,
    /// What the times are of.
    pub(crate) piece: &'a str,
    /// How many of them one call does.
    pub(crate) pieces: usize,
    /// Calls of a round.
    pub(crate) times: usize,
    pub(crate) limit: Limit,
}

impl Work<'_> {
    /// Measures and prints. Both answer with what they have read, which has to be the same each time.
    pub(crate) fn measure<T: PartialEq + Debug>(
        &self,
        mut own: impl FnMut() -> Result<T>,
        mut peer: impl FnMut() -> Result<T>,
    ) -> Result<()> {
        let (expected, read) = (own()?, peer()?);
        ensure!(expected == read, "they do not read the same: {expected:?} and {read:?}");
        let checked = |read: T| {
            ensure!(read == expected, "{read:?} where {expected:?} was read before");
            Ok(())
        };
        let each = |seconds: f64| seconds / (self.times * self.pieces) as f64 * 1e6;
        let [own, peer] = alternate(
            ROUNDS,
            [&mut || cpu_of(self.times, || checked(own()?)).map(each), &mut || {
                cpu_of(self.times, || checked(peer()?)).map(each)
            }],
        )?;
        let (figures, unit, reach) = match self.limit {
            Limit::Time(limit) => (own.over(&peer), "x the peer's time", Reach::AtMost(limit)),
            Limit::Speed(limit) => (peer.over(&own), "x as fast as the peer", Reach::AtLeast(limit)),
        };
        let beside = format!("ours {:.2} µs, {} {:.2} µs a {}", own.median(), self.peer, peer.median(), self.piece);
        Ok(Row { work: self.name, figures: &figures, unit, reach, beside }.print()?)
    }
}
