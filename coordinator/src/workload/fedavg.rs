//! FedAvg (McMahan et al. 2017) with FedProx (Li et al. 2020) as an option: rounds of local training and weighted
//! averaging, of a softmax head on the feature rows of AFL or of a LoRA adapter of a language model.
//!
//! Every round is a phase whose members may miss it; its question holds the last parameters, so that each round has
//! a key of its own and a replayed journal goes on at the round where it ends (docs/fedavg.md).

pub(super) mod average;
mod options;
mod publish;
mod round;
mod secure;

use std::{fs, path::Path};

use sheaf_proto::{
    BlobId,
    fedavg::{Step, TextEvaluation, Update, WORKLOAD},
};

use sheaf_transport::identity::SiteName;

pub(super) use options::check_adapter;
pub use options::{FedavgOptions, HeadKind};

use super::{Answers, Context, Publication, Workload, afl, secure::condensed};
use crate::{
    error::Error,
    privacy::Schedule,
    run::{
        event::{Next, PhaseOutput, PhaseSpec},
        plan::Plan,
    },
};

/// The workload.
pub struct Fedavg;

impl Workload for Fedavg {
    fn schedule(&self, plan: &Plan) -> Result<Schedule, Error> {
        FedavgOptions::of(plan)?.schedule()
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), Error> {
        secure::check_plan(plan)?;
        if plan.privacy.as_ref().is_some_and(|privacy| privacy.metrics.is_some()) {
            return Err(Error::invalid(
                "[privacy] evaluate is for workload = \"afl\": losses of texts have no noised form here. Measure the adapter on \
                 public texts with `sheaf lm`",
            ));
        }
        FedavgOptions::of(plan).map(|_| ())
    }

    fn next(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Next, Error> {
        let options = FedavgOptions::of(context.plan)?;
        let (all, outputs) = (outputs, condensed(outputs));
        let outputs = outputs.as_slice();
        let done = round::finished(outputs).count() as u32;
        let Some(last) = outputs.last() else {
            return match options.head {
                HeadKind::Softmax => afl::ask_survey(context, &options.afl()),
                HeadKind::Lora if context.plan.run.secure_aggregation && all.is_empty() => {
                    round::ask_start(context, &options)
                }
                HeadKind::Lora => round::ask(context, &options, (outputs, all), 1),
            };
        };
        match step(&last.name)? {
            Step::Survey | Step::Start => round::ask(context, &options, (outputs, all), 1),
            Step::Round(_) if options.is_measured(done) && measures(context.plan) => {
                round::ask_evaluation(context, &options, outputs)
            }
            Step::Round(_) | Step::Evaluate(_) if done >= options.rounds => Ok(Next::Publish),
            Step::Round(_) | Step::Evaluate(_) => round::ask(context, &options, (outputs, all), done + 1),
        }
    }

    fn check_result(
        &self,
        context: &Context<'_>,
        phase: &PhaseSpec,
        site: &SiteName,
        answer: &Path,
    ) -> Result<(), Error> {
        if secure::is_stage(&phase.name) {
            return super::secure::check_result(context, phase, site, &fs::read(answer)?);
        }
        let bytes = fs::read(answer)?;
        let refused = |e: &dyn std::fmt::Display| Error::invalid(format!("phase {}: {e}", phase.name));
        match step(&phase.name)? {
            Step::Survey => afl::check_survey(&bytes).map_err(|e| refused(&e)),
            Step::Start => secure::check_start(&bytes).map_err(|e| refused(&e)),
            Step::Round(_) => {
                let update = Update::decode(&bytes).map_err(|e| refused(&e))?;
                round::check_update(context, phase, &update).map_err(|e| refused(&e))
            }
            Step::Evaluate(_) => round::check_evaluation(context, phase, &bytes).map_err(|e| refused(&e)),
        }
    }

    fn reduce(&self, context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
        if secure::is_stage(&answers.phase.name) {
            let outputs = condensed(answers.outputs);
            return secure::reduce(context, answers, round::start_of(context, &outputs)?);
        }
        match step(&answers.phase.name)? {
            Step::Start => secure::agreed(answers),
            Step::Survey => round::reduce_survey(context, answers),
            Step::Round(_) => round::reduce(context, answers),
            Step::Evaluate(_) => round::reduce_evaluation(context, answers),
        }
    }

    fn merged_blobs(&self, context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
        if secure::is_stage(&output.name) {
            let mut merged = crate::workload::secure::merged_blobs(context, output)?;
            if let [whole] = condensed(std::slice::from_ref(output)).as_slice()
                && context.blobs.contains(&whole.output)
            {
                merged.push(afl::outcome::<round::RoundOutcome>(context.blobs, whole)?.parameters);
            }
            return Ok(merged);
        }
        if output.round && context.blobs.contains(&output.output) {
            let outcome: round::RoundOutcome = afl::outcome(context.blobs, output)?;
            return Ok(vec![outcome.parameters]);
        }
        Ok(Vec::new())
    }

    fn publish(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Publication, Error> {
        publish::publish(context, &condensed(outputs))
    }
}

/// Whether the sites measure the model: their figures would be exact, and each site's.
fn measures(plan: &Plan) -> bool {
    plan.privacy.is_none() && !plan.run.secure_aggregation
}

fn step(name: &str) -> Result<Step, Error> {
    Step::parse(name).ok_or_else(|| Error::bug(format!("{WORKLOAD} has no phase `{name}`")))
}

/// Refuses figures that cannot be.
fn check_text(evaluation: &TextEvaluation) -> Result<(), Error> {
    if !evaluation.nll.is_finite() || evaluation.nll < 0.0 {
        return Err(Error::invalid("the negative log-likelihood must be a number of at least 0"));
    }
    if (evaluation.test_rows == 0) != (evaluation.tokens == 0) {
        return Err(Error::invalid("test rows without tokens, or tokens without test rows"));
    }
    Ok(())
}
