//! What a site asks of any round, whatever the coordinator's plan says.

use serde::{Deserialize, Serialize};

use crate::error::SecAggError;
use crate::terms::Terms;

/// A site's own lower limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SitePolicy {
    /// Fewest sites that may begin. Never below 2: with one there is nothing to hide in.
    pub min_cohort: u32,
    /// Fewest sites in a sum. Never below 2.
    pub min_survivors: u32,
    /// Two cohorts over the same subject must be equal or differ by this many sites at least.
    pub min_difference: u32,
}

impl Default for SitePolicy {
    /// Three sites, since the sum of two tells each the other's vector; cohorts that differ by three.
    fn default() -> Self {
        Self { min_cohort: 3, min_survivors: 3, min_difference: 3 }
    }
}

impl SitePolicy {
    /// Refuses a plan that protects less.
    pub fn check(&self, terms: &Terms) -> Result<(), SecAggError> {
        terms.validate()?;
        let limits = [
            ("min_cohort", terms.min_cohort, self.min_cohort.max(2)),
            ("min_survivors", terms.min_survivors, self.min_survivors.max(2)),
        ];
        match limits.into_iter().find(|(_, plan, policy)| plan < policy) {
            Some((field, plan, policy)) => Err(SecAggError::Policy { field, plan, policy }),
            None => Ok(()),
        }
    }
}
