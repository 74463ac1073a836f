//! What every [`EventLog`] must do, as cases that any implementation runs.
//!
//! A case knows the trait alone: no files, no number of partitions, no offsets without gaps, no promise of which member of
//! the group gets which partition. It panics where the log is wrong. What follows a case's name says what to break to see it
//! fail.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

mod archive;
mod commits;
mod crashes;
mod faults;
mod reading;
mod refs;
pub(crate) mod samples;
mod worker;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};

pub use self::archive::{
    a_recorded_cut_is_taken_over, a_replaced_archiver_is_fenced, another_cut_waits_for_the_recorded_one,
    archived_ends_are_those_of_ended_cuts, ending_a_cut_again_changes_nothing,
};
pub use self::commits::{
    a_commit_moves_everything_at_once, a_log_that_takes_nothing_recovers_by_itself,
    a_member_that_lost_its_partitions_cannot_take_them_back, a_partition_taken_over_in_mid_commit_is_all_or_nothing,
    a_stale_owner_is_fenced_and_nothing_is_written, an_empty_commit_is_no_error,
    the_ledger_keeps_the_newest_record_of_each_gateway, what_was_committed_survives_every_process,
};
pub use self::crashes::{
    a_crash_between_any_two_steps_loses_and_doubles_nothing, a_disturbed_log_loses_and_doubles_nothing,
    refs_repeated_and_out_of_order_are_applied_once, two_copies_of_a_ref_in_one_group_commit_are_applied_once,
};
pub use self::faults::{Fault, Faults, FaultyLog, FaultyStore};
pub use self::reading::{pages_of_any_size_give_every_record_once, ranges_begin_and_end_inside_a_batch};
pub use self::refs::{
    a_consumer_that_waits_is_woken, giving_up_waiting_loses_nothing, refs_appended_at_once_all_arrive,
    refs_come_back_in_order_as_they_were_appended,
};
use super::EventLog;
use crate::store::conformance::Stores;

/// One log under test.
#[async_trait]
pub trait LogSubject: Send + Sync {
    /// The log as this process sees it.
    fn log(&self) -> Arc<dyn EventLog>;
    /// The same log as another process sees it, where the log is one that processes can share.
    async fn another(&self) -> Arc<dyn EventLog> {
        self.log()
    }
    /// Ends every process that uses the log and opens it again. Nobody holds it any more.
    async fn reopen(&mut self);
    /// Whether members of a group keep what they hold until they leave, or the group gives them up: then nobody takes it from
    /// one that is there.
    fn members_keep(&self) -> bool {
        false
    }
    /// Where members keep what they hold: the archiver of [`Self::log`] leaves its group.
    async fn leave_archive(&self) {}
    /// Whether the log stamps refs by a clock of its own.
    fn stamps_refs(&self) -> bool {
        false
    }
    /// Makes every write fail, or lets it work again. False: this subject does not know how.
    async fn obstruct(&mut self, _obstructed: bool) -> bool {
        false
    }
}

/// Makes empty logs.
#[async_trait]
pub trait Logs: Send + Sync {
    /// How many systems that have nothing in common may run at the same time.
    fn runs_at_once(&self) -> usize {
        1
    }
    /// Of many runs that differ in the call that fails, one in so many: where each takes seconds.
    fn runs_one_in(&self) -> usize {
        1
    }
    async fn fresh(&self) -> Box<dyn LogSubject>;
}

/// Every case, as many at once as the logs can do. `stores` is for the cases in which a worker writes both.
pub async fn run_all(logs: &dyn Logs, stores: &dyn Stores) {
    let cases: [BoxFuture<'_, ()>; 22] = [
        // First, since it takes longest.
        a_crash_between_any_two_steps_loses_and_doubles_nothing(logs, stores).boxed(),
        two_copies_of_a_ref_in_one_group_commit_are_applied_once(logs, stores).boxed(),
        refs_repeated_and_out_of_order_are_applied_once(logs, stores).boxed(),
        refs_come_back_in_order_as_they_were_appended(logs).boxed(),
        refs_appended_at_once_all_arrive(logs).boxed(),
        a_consumer_that_waits_is_woken(logs).boxed(),
        giving_up_waiting_loses_nothing(logs).boxed(),
        a_commit_moves_everything_at_once(logs).boxed(),
        an_empty_commit_is_no_error(logs).boxed(),
        the_ledger_keeps_the_newest_record_of_each_gateway(logs).boxed(),
        a_stale_owner_is_fenced_and_nothing_is_written(logs).boxed(),
        a_partition_taken_over_in_mid_commit_is_all_or_nothing(logs).boxed(),
        a_member_that_lost_its_partitions_cannot_take_them_back(logs).boxed(),
        what_was_committed_survives_every_process(logs).boxed(),
        a_log_that_takes_nothing_recovers_by_itself(logs).boxed(),
        pages_of_any_size_give_every_record_once(logs).boxed(),
        ranges_begin_and_end_inside_a_batch(logs).boxed(),
        a_recorded_cut_is_taken_over(logs).boxed(),
        a_replaced_archiver_is_fenced(logs).boxed(),
        ending_a_cut_again_changes_nothing(logs).boxed(),
        another_cut_waits_for_the_recorded_one(logs).boxed(),
        archived_ends_are_those_of_ended_cuts(logs).boxed(),
    ];
    futures_util::stream::iter(cases).buffer_unordered(logs.runs_at_once()).collect::<()>().await;
}
