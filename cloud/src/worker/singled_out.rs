//! Batches that the log does not take. It refuses a commit as a whole: then the batches of it are committed one by one, and the one
//! that is refused alone is set aside, like one that the store refuses, and no other. Its readings are in the store by then; whoever
//! asks why finds it in quarantine.
//!
//! What is remembered here is so for speed only: without it a commit is refused once more, and the same is found again.

use std::collections::HashMap;

use super::Worker;
use super::group::Claim;
use super::opened::Openings;
use crate::payloads::open::Opening;

/// Beyond this all of it is forgotten.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct SingledOut(HashMap<Claim, Found>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// It was one of several in a commit that was refused: it goes alone.
    Suspect,
    /// It was alone in one, and why that was refused.
    Refused(String),
}

impl SingledOut {
    /// Whether `one` must not be in a group with `others`.
    pub(super) fn keeps_apart(&self, one: &Claim, mut others: impl Iterator<Item = Claim>) -> bool {
        !self.0.is_empty()
            && others.any(|other| other != *one && (self.0.contains_key(one) || self.0.contains_key(&other)))
    }

    /// Takes over what was in a commit that was refused; the one batch that must be set aside, if it is found.
    fn add(&mut self, claims: Vec<Claim>, reason: &str) -> Option<Claim> {
        if self.0.len() > REMEMBERED_MAX {
            self.0.clear();
        }
        if let [claim] = claims.as_slice() {
            self.0.insert(claim.clone(), Found::Refused(reason.to_owned()));
            return Some(claim.clone());
        }
        for claim in claims {
            self.0.entry(claim).or_insert(Found::Suspect);
        }
        None
    }

    /// Refuses among the payloads of a group those that the log refuses. Answers which of them were singled out.
    pub(super) fn overrule(&self, openings: &mut Openings) -> Vec<Claim> {
        let mut singled_out = Vec::new();
        for (claim, found) in &self.0 {
            let Some(opening) = openings.get_mut(claim) else { continue };
            singled_out.push(claim.clone());
            if let (Found::Refused(reason), true) = (found, matches!(opening, Opening::Batch(_))) {
                *opening = Opening::Refused(reason.clone());
            }
        }
        singled_out
    }

    /// They are committed.
    pub(super) fn forget(&mut self, claims: &[Claim]) {
        for claim in claims {
            self.0.remove(claim);
        }
    }
}

impl Worker {
    pub(super) async fn single_out(&mut self, claims: Vec<Claim>, reason: &str) {
        if let Some(claim) = self.singled_out.add(claims, reason) {
            tracing::error!(batch = %claim.key.batch, error = reason, "the log refuses a batch");
            self.quarantine(&claim, reason).await;
        }
    }
}
