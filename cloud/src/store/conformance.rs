//! What every [`ReadingStore`] must do, as cases that any implementation runs.
//!
//! A case knows the trait alone. It panics where the store is wrong. What follows a case's name says what to break to see it
//! fail.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

mod outcomes;
mod queries;
mod writes;

use std::sync::Arc;

use async_trait::async_trait;
use protocols::metering::UtcMillis;
use protocols::uplink::{Batch, Inventory, MeterEntry, MeterState};

pub use self::outcomes::{
    a_part_written_and_then_all_of_it_is_as_if_once, a_store_that_takes_nothing_recovers_by_itself,
    an_inventory_beyond_the_bound_is_left_out_and_its_rows_are_kept,
    what_no_store_can_hold_is_refused_and_changes_nothing, what_was_written_survives_every_process,
};
pub use self::queries::{
    a_day_of_a_meter_is_complete_and_in_order, a_range_is_read_in_pages, events_of_a_meter_come_in_order,
    ranges_held_end_where_a_step_is_missing, the_last_reading_never_moves_back, the_newest_inventory_stays,
};
pub use self::writes::{
    a_repeat_changes_nothing, columns_of_equal_writes_are_decided_each_by_its_bytes, extreme_values_come_back,
    the_later_seal_wins_in_any_order,
};
use super::{ReadingStore, StoreBatch};

/// One store under test.
#[async_trait]
pub trait StoreSubject: Send + Sync {
    fn store(&self) -> Arc<dyn ReadingStore>;
    /// Ends every process that uses the store and opens it again. Nobody holds it any more.
    async fn reopen(&mut self);
    /// Makes every write fail, or lets it work again. False: this subject does not know how.
    async fn obstruct(&mut self, _obstructed: bool) -> bool {
        false
    }
}

/// Makes empty stores.
#[async_trait]
pub trait Stores: Send + Sync {
    async fn fresh(&self) -> Box<dyn StoreSubject>;
}

/// Every case, one after the other.
pub async fn run_all(stores: &dyn Stores) {
    a_repeat_changes_nothing(stores).await;
    the_later_seal_wins_in_any_order(stores).await;
    columns_of_equal_writes_are_decided_each_by_its_bytes(stores).await;
    extreme_values_come_back(stores).await;

    a_day_of_a_meter_is_complete_and_in_order(stores).await;
    a_range_is_read_in_pages(stores).await;
    ranges_held_end_where_a_step_is_missing(stores).await;
    events_of_a_meter_come_in_order(stores).await;
    the_last_reading_never_moves_back(stores).await;
    the_newest_inventory_stays(stores).await;

    what_no_store_can_hold_is_refused_and_changes_nothing(stores).await;
    an_inventory_beyond_the_bound_is_left_out_and_its_rows_are_kept(stores).await;
    a_part_written_and_then_all_of_it_is_as_if_once(stores).await;
    a_store_that_takes_nothing_recovers_by_itself(stores).await;
    what_was_written_survives_every_process(stores).await;
}

/// So many meters, each with 1 KiB of text that takes three quarters of it sealed.
pub(crate) fn noisy_inventory(meters: usize) -> Inventory {
    // A linear congruential generator (Knuth, MMIX): the same in every run.
    let mut state = 42_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + (state >> 58) as u8)
    };
    let entry = |number: usize| MeterEntry {
        name: number.to_string(),
        meter: None,
        metering_point: Some((0..1_024).map(|_| noise()).collect()),
        protocol: "dlms".to_owned(),
        expected: Vec::new(),
        last_read_at: None,
        clock_offset_ms: None,
        state: MeterState::Unknown,
        cause: String::new(),
    };
    Inventory { meters: (0..meters).map(entry).collect() }
}

/// As the worker writes it when the gateway's clock was right.
pub(crate) fn stored(batch: &Arc<Batch>) -> StoreBatch {
    StoreBatch { batch: Arc::clone(batch), sealed_effective: batch.sealed_at }
}

fn sealed(batch: &Arc<Batch>, at: UtcMillis) -> StoreBatch {
    StoreBatch { batch: Arc::clone(batch), sealed_effective: at }
}
