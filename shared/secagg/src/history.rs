//! What a site remembers across rounds and runs. It must be saved with the state of a round and never rolled back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cohort::Cohort;
use crate::error::SecAggError;
use crate::identity::SiteId;
use crate::terms::Terms;

/// What is summed, as the site's caller defines it: a digest over the data set's content and over what is computed
/// from it. Two sums with the same subject can be subtracted from one another.
pub type Subject = [u8; 32];

/// The memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Rounds begun, `(run, round)`.
    begun: BTreeSet<(String, u32)>,
    /// First half of the SHA-256 of mask keys seen in rosters.
    keys: BTreeSet<[u8; 16]>,
    /// Cohorts this site helped to open, by subject; pairs, so that every format can hold it.
    cohorts: Vec<(Subject, Vec<BTreeSet<SiteId>>)>,
}

impl History {
    /// Marks a round as begun, once.
    pub(crate) fn begin(&mut self, terms: &Terms) -> Result<(), SecAggError> {
        if self.begun.insert((terms.run.clone(), terms.round)) {
            Ok(())
        } else {
            Err(SecAggError::BegunBefore { round: terms.round })
        }
    }

    /// Remembers the keys of a roster, and refuses one seen before: in an earlier round its secret may have been
    /// recovered, as is done for a site that drops out.
    pub(crate) fn take_keys(&mut self, cohort: &Cohort) -> Result<(), SecAggError> {
        let fingerprints: BTreeMap<[u8; 16], &SiteId> =
            cohort.keys().map(|(site, key)| (short(key), site)).collect();
        if let Some(site) =
            fingerprints.iter().find_map(|(key, site)| self.keys.contains(key).then_some(*site))
        {
            return Err(SecAggError::ReusedKey { site: site.clone() });
        }
        self.keys.extend(fingerprints.into_keys());
        Ok(())
    }

    /// Refuses a cohort that differs from an earlier one over the same subject by 1 to `needed - 1` sites. Pairs are
    /// compared; combinations of three and more sums are not.
    pub(crate) fn check_difference(
        &self,
        subject: &Subject,
        cohort: &BTreeSet<SiteId>,
        needed: usize,
    ) -> Result<(), SecAggError> {
        let earlier = self.cohorts.iter().filter(|(s, _)| s == subject).flat_map(|(_, cohorts)| cohorts);
        let least = earlier.map(|old| old.symmetric_difference(cohort).count()).filter(|&n| n > 0).min();
        match least {
            Some(differ) if differ < needed => Err(SecAggError::Differencing { differ, needed }),
            _ => Ok(()),
        }
    }

    /// Remembers a cohort whose sum this site helps to open.
    pub(crate) fn opened(&mut self, subject: &Subject, cohort: BTreeSet<SiteId>) {
        match self.cohorts.iter_mut().find(|(s, _)| s == subject) {
            Some((_, cohorts)) if cohorts.contains(&cohort) => {}
            Some((_, cohorts)) => cohorts.push(cohort),
            None => self.cohorts.push((*subject, vec![cohort])),
        }
    }
}

fn short(key: &[u8; 32]) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(key).into();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}
