//! The actors: they translate, call and send; decisions are elsewhere.
//!
//! Intake, worker and receipts are one pipeline: when one of them ends, all are stopped, and the supervisor starts the next
//! generation from the last commit. A lost broker ends nothing: connections are made anew within their actor.

pub mod archive_keeper;
pub mod archiver;
pub mod intake;
pub mod lag_watcher;
pub mod landing_sweeper;
pub mod log_pruner;
pub mod partition_worker;
pub mod receipts;
pub mod supervisor;

use actix::prelude::*;

/// Ends an actor; what it had under way is dropped, which is safe at any point.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// A part of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PipelinePart {
    Intake,
    Worker,
    Receipts,
}

impl PipelinePart {
    pub const ALL: [Self; 3] = [Self::Intake, Self::Worker, Self::Receipts];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Worker => "worker",
            Self::Receipts => "receipts",
        }
    }
}

/// A part of the pipeline has ended, for whatever reason.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct PartStopped {
    pub part: PipelinePart,
    pub generation: u64,
    pub panicked: bool,
}

/// Whom a part of the pipeline reports to, and as which one.
#[derive(Clone)]
pub struct Report {
    pub part: PipelinePart,
    pub generation: u64,
    pub to: Recipient<PartStopped>,
}

impl Report {
    /// For `Actor::stopped`, which runs for a panic too.
    #[expect(clippy::disallowed_methods, reason = "a death must be told whatever else waits; at most one a part")]
    pub(crate) fn stopped(&self) {
        let panicked = std::thread::panicking();
        self.to.do_send(PartStopped { part: self.part, generation: self.generation, panicked });
    }
}

#[cfg(test)]
mod tests;
