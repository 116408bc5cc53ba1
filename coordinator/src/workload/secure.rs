//! Secure sums for any workload: five consecutive phases in which the coordinator learns the sum of the sites' vectors
//! and no vector of a site (docs/secure-aggregation.md).
//!
//! ```text
//! advertise ──► shares ──► input ──► vote ──► unmask ──► the sum
//!    all         those that answered the stage before
//! ```
//!
//! Every stage is a phase whose members may miss it. What a stage has led to is stored and named by its outcome; the next
//! stage's question holds that name, so that equal questions have equal histories and a replayed journal goes on with
//! the stage where it ends. The number of a round holds the run's version: after a withdrawal all keys are drawn anew.

mod stage;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_proto::{
    BlobId,
    secure::{SecurePhase, SecureSpec, following, parse, phase},
};
use sheaf_secagg::{MAX_SITES, Ring, SEALED_LEN, SecAggError, Stage, Terms, Wire};
use sheaf_transport::identity::SiteName;

use super::{Answers, Context, question};
use crate::{
    error::Error,
    run::{
        event::{Next, PhaseOutput, PhaseSpec},
        plan::Plan,
    },
};
use stage::Held;

/// Bytes of an answer around its numbers: keys, signatures, a certificate.
const SLACK: u64 = 64 << 10;
/// Versions of a run that can have secure sums.
const MAX_VERSION: u32 = 4_000;
/// Secure sums in one version of a run.
const MAX_ROUND: u32 = 9_999;
/// A sum over all sites goes no further.
pub const LARGEST_SUM: u64 = 1 << 62;
/// A site's noised numbers go no further: noise has no bound that is worth a narrower ring.
pub const NOISED: u64 = 1 << 50;

/// One secure sum of a workload.
pub struct SecureSum<'a, S> {
    /// The phase that it stands for; the stages' names begin with it.
    pub base: &'a str,
    /// What the workload would ask of a site in that phase.
    pub spec: &'a S,
    /// The kind of output that the vector is, for the sites' policies. All stages are of this kind, so that a site which
    /// would not let it out says so before anybody deals shares to it.
    pub release: &'a str,
    /// Elements of the vector.
    pub length: u64,
    /// Largest magnitude of an element at one site.
    pub max_abs: u64,
    /// Fewest sites that may begin.
    pub min_cohort: u32,
    /// Fewest sites in the sum; two thirds of those that begin are needed in any case.
    pub min_survivors: u32,
    /// Which sum of this version of the run, from 1: no two have the same number.
    pub round: u32,
    /// What a site needs to compute its vector, beside the specification: the first inputs
    /// of the stages that are about it, the first one and that of the vector.
    pub inputs: &'a [BlobId],
    /// Whom the first stage is asked of; every member when absent.
    pub sites: Option<Vec<SiteName>>,
}

/// How far a sum is.
#[derive(Debug, Clone, PartialEq)]
enum Progress {
    /// The next stage.
    Ask(PhaseSpec),
    /// It is open.
    Done(Opened),
}

/// An open sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Element by element over the sites.
    pub values: Vec<i64>,
    /// Whose vectors are in it, in ascending order.
    pub sites: Vec<SiteName>,
}

impl Wire for Opened {
    const NAME: &'static str = "an open sum";
}

/// What a stage gives; stored as the phase's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageOutcome {
    /// What the sum is about.
    terms: Terms,
    /// The coordinator's side of the protocol after the stage.
    state: BlobId,
    /// Keys and credentials of all that began.
    register: BlobId,
    /// What all sites get next, besides the register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    common: Option<BlobId>,
    /// What single sites get next.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    own: BTreeMap<SiteName, BlobId>,
    /// Whom the next stage is asked of: those that answered this one.
    answered: Vec<SiteName>,
    /// The sum, after the last stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opened: Option<BlobId>,
}

/// Refuses a plan under which a sum would be one site's.
///
/// # Errors
/// [`crate::error::Class::Invalid`].
pub fn check_plan(plan: &Plan) -> Result<(), Error> {
    let run = &plan.run;
    if !run.secure_aggregation {
        return Ok(());
    }
    if run.quorum.is_some_and(|quorum| quorum < 2) || run.sites.as_ref().is_some_and(|sites| sites.len() < 2)
    {
        return Err(Error::invalid(
            "[run] secure_aggregation needs at least 2 sites, in sites and in quorum: the sum of one site is its own",
        ));
    }
    if run.max_site_rows == 0 {
        return Err(Error::invalid("[run] max_site_rows must be at least 1"));
    }
    Ok(())
}

/// How many of the sites that are asked must be in a sum: what the plan says of a phase, scaled where only some are asked,
/// and never a single one.
pub fn needed(context: &Context<'_>, asked: usize) -> u32 {
    let all = context.members.len().max(1);
    let quorum = context.plan.run.quorum.map_or(asked, |quorum| (quorum.min(all) * asked).div_ceil(all));
    quorum.max(2) as u32
}

/// Room for one of so many sites in a sum.
pub fn room(sites: usize) -> u64 {
    LARGEST_SUM / sites.max(1) as u64
}

/// The finished phases with every secure sum as one of them, named as the phase that it stands for.
pub fn condensed(outputs: &[PhaseOutput]) -> Vec<PhaseOutput> {
    let of = |output: &PhaseOutput| match parse(&output.name) {
        None => Some(output.clone()),
        Some((base, Stage::Unmask)) => Some(PhaseOutput { name: base.to_owned(), ..output.clone() }),
        Some(_) => None,
    };
    outputs.iter().filter_map(of).collect()
}

impl<S: Serialize> SecureSum<'_, S> {
    /// The next stage, or the sum; `outputs` are all finished phases, in order.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for a sum that cannot be: too few sites, values that do not fit in 64 bits.
    fn next(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Progress, Error> {
        let last = outputs.iter().rev().find_map(|output| match parse(&output.name) {
            Some((base, stage)) if base == self.base => Some((output, stage)),
            _ => None,
        });
        let Some((output, stage)) = last else {
            return self.ask(context, Stage::Advertise, self.terms(context)?, None);
        };
        let outcome = outcome(context, output)?;
        match following(stage) {
            Some(next) => self.ask(context, next, outcome.terms.clone(), Some(&outcome)),
            None => outcome
                .opened(context)?
                .map(Progress::Done)
                .ok_or_else(|| Error::bug(format!("phase {} has opened nothing", output.name))),
        }
    }

    /// The next stage, for a workload that knows the sum not to be open.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn collect(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Next, Error> {
        match self.next(context, outputs)? {
            Progress::Ask(phase) => Ok(Next::Collect(phase)),
            Progress::Done(_) => Err(Error::bug(format!("{} is open and is asked for again", self.base))),
        }
    }

    fn terms(&self, context: &Context<'_>) -> Result<Terms, Error> {
        let sites = self.sites.as_ref().map_or(context.members.len(), Vec::len);
        let ring = Ring::holding(self.max_abs, sites).map_err(refused)?;
        let plan = context.plan.sha256();
        let mut digest = [0; 32];
        hex::decode_to_slice(&plan, &mut digest).map_err(|e| Error::bug(e.to_string()))?;
        let terms = Terms {
            run: context.run_id.to_owned(),
            round: self.number(context.version, ring)?,
            plan: digest,
            length: self.length,
            ring,
            min_cohort: self.min_cohort,
            min_survivors: self.min_survivors,
        };
        terms.validate().map_err(refused)?;
        Ok(terms)
    }

    /// The protocol's number of the round: version, sum, ring width, three groups of decimal digits. The width is in it
    /// since it follows from the members, who may be more after a resumption: other terms need another number, for a
    /// site begins a number once.
    fn number(&self, version: u32, ring: Ring) -> Result<u32, Error> {
        if version > MAX_VERSION || self.round > MAX_ROUND {
            return Err(Error::invalid(format!(
                "secure aggregation counts to version {MAX_VERSION} and sum {MAX_ROUND} of a run, this is {version} and {}; \
                 submit a new run",
                self.round
            )));
        }
        Ok(version * 1_000_000 + self.round * 100 + ring.bits())
    }

    fn ask(
        &self,
        context: &Context<'_>,
        stage: Stage,
        terms: Terms,
        before: Option<&StageOutcome>,
    ) -> Result<Progress, Error> {
        let shared: Vec<BlobId> = match (stage, before) {
            (Stage::ShareKeys, Some(before)) => vec![before.register],
            (Stage::Unmask, Some(before)) => before.common.into_iter().chain([before.register]).collect(),
            (Stage::Advertise | Stage::MaskedInput, _) => self.inputs.to_vec(),
            (_, before) => before.and_then(|before| before.common).into_iter().collect(),
        };
        let limit = limit(stage, &terms);
        let secure = SecureSpec { terms, stage, state: before.map(|before| before.state) };
        let asked = question(
            context,
            &phase(self.base, stage),
            &SecurePhase { secure, spec: self.spec },
            shared,
            self.release,
            limit,
        )?;
        let own = before.map(|before| &before.own).into_iter().flatten();
        Ok(Progress::Ask(PhaseSpec {
            may_miss: true,
            sites: before.map_or_else(|| self.sites.clone(), |before| Some(before.answered.clone())),
            site_inputs: own.map(|(site, blob)| (site.clone(), vec![*blob])).collect(),
            ..asked
        }))
    }
}

/// The largest answer to a stage, bytes.
fn limit(stage: Stage, terms: &Terms) -> u64 {
    SLACK
        + match stage {
            Stage::Advertise | Stage::Consistency => 0,
            // Neighbours are no more than sites, shares a site no more than two a neighbour and its own.
            Stage::ShareKeys => MAX_SITES as u64 * (SEALED_LEN as u64 + 8),
            Stage::MaskedInput => terms.ring.packed_len(terms.length),
            Stage::Unmask => 2 * MAX_SITES as u64 * 40,
        }
}

/// Refuses an answer that cannot be: takes it into a copy of the state that the stage began with.
///
/// # Errors
/// [`crate::error::Class::Invalid`] with what is wrong about the answer.
pub fn check_result(
    context: &Context<'_>,
    phase: &PhaseSpec,
    site: &SiteName,
    answer: &[u8],
) -> Result<(), Error> {
    let secure = spec(context, phase)?;
    Held::before(context, &secure)?.take(context, secure.stage, site, answer)
}

/// Takes all answers and closes the stage.
///
/// # Errors
/// [`crate::error::Class::Invalid`] when too few sites have answered, or shares are false: nothing is revealed then.
pub fn reduce(context: &Context<'_>, answers: &Answers<'_>) -> Result<StageOutcome, Error> {
    let secure = spec(context, answers.phase)?;
    let mut held = Held::before(context, &secure)?;
    for (site, blob) in answers.contributions {
        held.take(context, secure.stage, site, &context.blobs.get(blob)?)?;
    }
    let answered: Vec<SiteName> = answers.contributions.iter().map(|(site, _)| site.clone()).collect();
    held.close(context, secure, answered)
}

impl StageOutcome {
    /// Fewest sites whose vectors may be in the sum.
    pub const fn least(&self) -> u32 {
        self.terms.min_survivors
    }

    /// The sum, after the last stage.
    ///
    /// # Errors
    /// Its blob cannot be read.
    pub fn opened(&self, context: &Context<'_>) -> Result<Option<Opened>, Error> {
        let read = |blob: &BlobId| {
            Opened::from_bytes(&context.blobs.get(blob)?).map_err(|e| Error::corrupt(e.to_string()))
        };
        self.opened.as_ref().map(read).transpose()
    }
}

/// Blobs besides the output itself in which members' answers are: they go when one of the members is withdrawn.
///
/// # Errors
/// The output cannot be read.
pub fn merged_blobs(context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
    if parse(&output.name).is_none() || !context.blobs.contains(&output.output) {
        return Ok(Vec::new());
    }
    let StageOutcome { state, register, common, own, opened, .. } = context.blobs.document(&output.output)?;
    Ok([state, register].into_iter().chain(common).chain(own.into_values()).chain(opened).collect())
}

fn outcome(context: &Context<'_>, output: &PhaseOutput) -> Result<StageOutcome, Error> {
    context.blobs.document(&output.output)
}

fn spec(context: &Context<'_>, phase: &PhaseSpec) -> Result<SecureSpec, Error> {
    #[derive(Deserialize)]
    struct Stage {
        secure: SecureSpec,
    }
    let Stage { secure } = context.blobs.document(&phase.spec)?;
    Ok(secure)
}

/// What to say of a total that cannot be; `what` was summed.
pub fn false_total(what: &str, error: impl std::fmt::Display) -> Error {
    Error::invalid(format!(
        "the total of the sites' {what} cannot be: {error}. One of the sites sent a false vector, and secure aggregation hides \
         which; find out with a run without it, or withdraw sites"
    ))
}

fn refused(error: SecAggError) -> Error {
    Error::invalid(format!("secure aggregation: {error}"))
}
