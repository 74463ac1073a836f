//! Batches that the gateway has settled and the ledger has forgotten: the log was restored from an older copy, or created
//! anew. What of them lies in the landing area is applied; what does not is lost, and the ledger says so.
//!
//! It may be much, so it is committed in groups of its own, before the record whose floor told of it is settled. Cut off in
//! between it goes on where it was: what is applied is forgotten no more.
//!
//! A status may name tens of thousands of incarnations, and all other gateways wait: however many they are, the landing area is
//! listed once and one line is logged.

use std::collections::{BTreeMap, HashMap};

use futures_util::StreamExt as _;
use protocols::metering::UtcMillis;
use protocols::uplink::{GatewayId, SeqSet};

use super::budget::Share;
use super::group::{Claim, Record, Said, Staged};
use super::{GROUP_ROWS_MAX, GatewayLedger, OPENINGS_AT_ONCE, Stop, Worker};
use crate::health::Part;
use crate::payloads::Landed;
use crate::payloads::open::Opening;
use crate::telemetry::Metric;

impl Worker {
    /// Per incarnation, the seqs that a record says are settled and of which the committed ledger knows nothing.
    pub(super) fn forgotten(&self, record: &Record) -> Vec<(u64, SeqSet)> {
        let unknown = GatewayLedger::default();
        let ledger = self.ledger(record.partition, &record.gateway).unwrap_or(&unknown);
        let forgotten: Vec<(u64, SeqSet)> = match &record.said {
            Said::Ref(reference) if reference.floor <= reference.id.seq => {
                vec![(reference.id.incarnation, ledger.forgotten(reference.id.incarnation, reference.floor))]
            }
            Said::Status(status) => ledger.all_forgotten_by_status(status, record.appended_at),
            Said::Ref(_) | Said::NewerRef { .. } | Said::NewerStatus { .. } | Said::Unreadable(_) => Vec::new(),
        };
        forgotten.into_iter().filter(|(_, seqs)| !seqs.is_empty()).collect()
    }

    pub(super) async fn recover(
        &mut self,
        partition: u32,
        gateway: &GatewayId,
        forgotten: Vec<(u64, SeqSet)>,
    ) -> Result<(), Stop> {
        let forgotten = by_incarnation(forgotten);
        let mut landed = self.find(gateway, &forgotten).await;
        // What a full ledger would not take is not fetched again and again.
        let mut ledger = self.ledger(partition, gateway).cloned().unwrap_or_default();
        landed.retain(|one| ledger.try_apply(one.key.batch.incarnation, one.key.batch.seq));
        let (incarnations, found) = (forgotten.len(), landed.len());
        let batches = forgotten.values().map(SeqSet::len).fold(0, u64::saturating_add);
        tracing::error!(%gateway, incarnations, batches, found, "the ledger has forgotten batches; applying those in the landing area");
        let mut landed = landed.into_iter().peekable();
        while landed.peek().is_some() && self.held.contains_key(&partition) {
            let mut share = Share::none();
            let mut group: Vec<Landed> = Vec::new();
            let mut rows = 0;
            while let Some(next) = landed.peek().filter(|_| group.len() < self.settings.group_records_max) {
                let claim = claim_of(next);
                let cost = claim.cost_bytes();
                rows += claim.rows();
                if share.is_none() {
                    share = self.services.budget.acquire(cost).await;
                } else if rows > GROUP_ROWS_MAX
                    || self.singled_out.keeps_apart(&claim, group.iter().map(claim_of))
                    || !self.services.budget.try_extend(&mut share, cost)
                {
                    break;
                }
                group.extend(landed.next());
            }
            self.recover_group(partition, gateway, &group, share).await?;
        }
        Ok(())
    }

    async fn recover_group(
        &mut self,
        partition: u32,
        gateway: &GatewayId,
        group: &[Landed],
        share: Share,
    ) -> Result<(), Stop> {
        let opened: Vec<_> = group.iter().map(|landed| self.open_landed(claim_of(landed), landed)).collect();
        let opened = futures_util::stream::iter(opened).buffer_unordered(OPENINGS_AT_ONCE);
        let mut openings: HashMap<Claim, Opening> = opened.collect().await;
        let singled_out = self.singled_out.overrule(&mut openings);
        let recovered: Vec<(Claim, UtcMillis)> = group.iter().map(|one| (claim_of(one), one.modified_at)).collect();
        loop {
            let Some(held) = self.held.get(&partition) else { return Ok(()) };
            let staged = Staged::of_recovered((partition, held), gateway, &recovered, &openings);
            let staged = Staged { singled_out: singled_out.clone(), ..staged };
            match self.upsert(&staged).await? {
                Ok(()) => return self.commit(staged, share).await,
                Err(refused) => openings.extend(refused),
            }
        }
    }

    async fn open_landed(&self, claim: Claim, landed: &Landed) -> (Claim, Opening) {
        let mut retry = self.retry(Part::Landing, Metric::LandingRetries);
        loop {
            match self.services.payloads.open_landed(landed, self.services.clock.now()).await {
                Ok(opening) => {
                    self.services.health.set(Part::Landing, true);
                    return (claim, opening);
                }
                Err(error) => retry.wait(&error).await,
            }
        }
    }

    async fn find(&self, gateway: &GatewayId, wanted: &BTreeMap<u64, SeqSet>) -> Vec<Landed> {
        let mut retry = self.retry(Part::Landing, Metric::LandingRetries);
        loop {
            match self.services.payloads.find_all(gateway, wanted).await {
                Ok(landed) => {
                    self.services.health.set(Part::Landing, true);
                    return landed;
                }
                Err(error) => retry.wait(&error).await,
            }
        }
    }
}

/// A status may name an incarnation twice.
fn by_incarnation(forgotten: Vec<(u64, SeqSet)>) -> BTreeMap<u64, SeqSet> {
    let mut all: BTreeMap<u64, SeqSet> = BTreeMap::new();
    for (incarnation, seqs) in forgotten {
        let of_it = all.entry(incarnation).or_default();
        for &(first, last) in seqs.ranges() {
            of_it.insert_range(first, last);
        }
    }
    all
}

fn claim_of(landed: &Landed) -> Claim {
    Claim::forgotten(landed.key.clone(), landed.bytes)
}
