//! A group whose payloads are fetched and decoded. That goes on by itself: the group after the one that is being stored is
//! opened meanwhile.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use protocols::uplink::BatchRef;

use super::budget::Share;
use super::group::{Claim, Record};
use super::retry::Retry;
use super::task::Task;
use super::{OPENINGS_AT_ONCE, Services};
use crate::health::Part;
use crate::payloads::open::Opening;

pub(super) type Openings = HashMap<Claim, Opening>;

pub(super) struct Opened {
    pub(super) records: Vec<Record>,
    pub(super) share: Share,
    pub(super) openings: Task<Openings>,
}

impl Opened {
    /// `claims`: what is to be opened for the records.
    pub(super) fn start(
        records: Vec<Record>,
        share: Share,
        claims: HashMap<Claim, BatchRef>,
        services: Services,
        retry: impl Fn() -> Retry + Send + 'static,
    ) -> Self {
        let openings = Task::start(async move {
            if claims.is_empty() {
                return Openings::new();
            }
            let opening = |(claim, reference)| open(&services, retry(), claim, reference);
            let openings: Vec<_> = claims.into_iter().map(opening).collect();
            let openings = futures_util::stream::iter(openings).buffer_unordered(OPENINGS_AT_ONCE).collect().await;
            services.health.set(Part::Landing, true);
            openings
        });
        Self { records, share, openings }
    }
}

async fn open(services: &Services, mut retry: Retry, claim: Claim, reference: BatchRef) -> (Claim, Opening) {
    loop {
        match services.payloads.open(&reference, services.clock.now()).await {
            Ok(opening) => return (claim, opening),
            Err(error) => retry.wait(&error).await,
        }
    }
}
