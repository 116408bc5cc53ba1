//! Which blobs go when a site is withdrawn: its answers, and whatever its answers are merged in. Blobs are named by
//! content, so one that another run holds too stays for that run.

use std::collections::BTreeSet;

use sheaf_proto::BlobId;

use super::{
    event::{Event, PhaseOutput},
    machine::{Membership, Run},
    plan::Plan,
};
use crate::{
    error::Error,
    store::{Database, blobs::BlobStore},
    workload::{self, Context, Workload},
};

/// Blobs of a run that hold something of its withdrawn sites and of nobody who still needs them.
pub(super) fn doomed(
    database: &Database,
    blobs: &BlobStore,
    workload: &dyn Workload,
    run_id: &str,
    plan: &Plan,
) -> Result<Vec<BlobId>, Error> {
    let journal = database.journal(run_id)?;
    let run = Run::replay(&journal)?;
    let (members, version) = (&[], run.version);
    let context = Context { plan, blobs, members, run_id, version, authority: &[], tools: None };
    let mut gone = BTreeSet::new();
    // The archive holds the last output under each key only; the journal names every one there ever was.
    for end in 0..journal.len() {
        if let Event::Reduced { .. } = &journal[end].event {
            let then = Run::replay(&journal[..=end])?;
            if let Some(output) = then.outputs.last().filter(|output| holds_withdrawn(output, &run)) {
                gone.insert(output.output);
                gone.extend(workload.merged_blobs(&context, output)?);
            }
        }
        if let Event::Delivered { site, delivery, .. } = &journal[end].event
            && run.members.get(site) == Some(&Membership::Withdrawn)
        {
            gone.insert(delivery.blob);
        }
    }
    let mut kept = held(&run, workload, &context)?;
    for record in database.runs()?.into_iter().filter(|record| record.id != run_id) {
        // It was checked when it came, and what is held does not depend on its noise.
        let (plan, _) = Plan::read(&record.plan_toml)?;
        let other = Run::replay(&database.journal(&record.id)?)?;
        kept.extend(held(
            &other,
            workload::named(&plan.run.workload)?,
            &Context {
                plan: &plan,
                blobs,
                members: &[],
                run_id: &record.id,
                version: other.version,
                authority: &[],
                tools: None,
            },
        )?);
    }
    Ok(gone.difference(&kept).copied().collect())
}

fn holds_withdrawn(output: &PhaseOutput, run: &Run) -> bool {
    output.members.iter().any(|site| run.members.get(site) == Some(&Membership::Withdrawn))
}

/// What a run needs to go on from where it is.
fn held(run: &Run, workload: &dyn Workload, context: &Context<'_>) -> Result<BTreeSet<BlobId>, Error> {
    let mut held: BTreeSet<BlobId> =
        run.deliveries.values().flat_map(|answers| answers.values().map(|delivery| delivery.blob)).collect();
    for output in
        run.outputs.iter().chain(run.archive.values()).filter(|output| !holds_withdrawn(output, run))
    {
        held.insert(output.output);
        held.extend(workload.merged_blobs(context, output)?);
    }
    held.extend(run.publications.values());
    Ok(held)
}
