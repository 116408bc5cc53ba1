//! What a site looks at before it signs a set and before it opens one.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{Dealt, Masked};
use crate::cohort::Cohort;
use crate::error::{SecAggError, Stage};
use crate::graph::Member;
use crate::identity::{SiteId, Verifier};
use crate::message::UnmaskRequest;

/// The sites at some positions.
pub(super) fn names(cohort: &Cohort, members: &[Member]) -> BTreeSet<SiteId> {
    members.iter().map(|&member| cohort.site(member).clone()).collect()
}

/// Whether the site may sign: it is in the set, the set is large enough, and no neighbour is in it that this site put no
/// mask in for.
pub(super) fn check_uploads(
    Dealt { cohort, me, .. }: &Dealt,
    masked: &Masked,
    members: &[Member],
) -> Result<(), SecAggError> {
    let stage = Stage::Consistency;
    cohort.check_uploaded(stage, members)?;
    let refuse = |site: &SiteId, reason: &str| {
        Err(SecAggError::Message { stage, site: site.clone(), reason: reason.to_owned() })
    };
    if members.binary_search(me).is_err() {
        return refuse(
            cohort.site(*me),
            "its own upload is not in the set; it must not help to open a sum without it",
        );
    }
    let deals = |member: &Member| masked.held.iter().any(|held| held.of == *member);
    let neighbours = || members.iter().filter(|&&member| cohort.graph().adjacent(*me, member));
    if let Some(stranger) = neighbours().find(|member| !deals(member)) {
        return refuse(cohort.site(*stranger), "it is said to have uploaded, but its shares never came");
    }
    // Below this the self-mask cannot be opened; and no part of the ring can be cut off, see the graph's text.
    let (got, needed) = (neighbours().count() + 1, cohort.graph().share_threshold());
    if got < needed { Err(SecAggError::TooFew { stage, got, needed }) } else { Ok(()) }
}

/// Whether enough members of the set have signed it.
pub(super) fn check_votes(
    cohort: &Cohort,
    UnmaskRequest { members, votes }: &UnmaskRequest,
    verifier: &impl Verifier,
) -> Result<(), SecAggError> {
    let stage = Stage::Unmask;
    let statement = cohort.uploaded_statement(members);
    let mut voters = BTreeSet::new();
    for (voter, _) in votes {
        cohort.check(stage, *voter)?;
        let site = cohort.site(*voter);
        if members.binary_search(voter).is_err() || !voters.insert(*voter) {
            let reason = "it votes twice, or without having uploaded".to_owned();
            return Err(SecAggError::Message { stage, site: site.clone(), reason });
        }
    }
    let is_false = |(voter, signature): &&(Member, Vec<u8>)| {
        !verifier.verify(cohort.site(*voter), statement.bytes(), signature)
    };
    if let Some((voter, _)) = votes.par_iter().find_any(is_false) {
        return Err(SecAggError::Signature { stage, site: cohort.site(*voter).clone() });
    }
    let (got, needed) = (voters.len(), cohort.survivors());
    if got < needed { Err(SecAggError::TooFew { stage, got, needed }) } else { Ok(()) }
}
