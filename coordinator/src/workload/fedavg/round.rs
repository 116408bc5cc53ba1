//! What is asked in a round and after it, and what is made of the answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_data::{Survey, catalogue::Catalogue};
use sheaf_proto::{
    BlobId,
    afl::{Evaluation, RELEASE_METRICS, SumsSpec},
    fedavg::{
        BIAS, EvaluateSpec, Head, LoraSpec, Measured, Parameters, ParametersFile, RELEASE_UPDATES, RoundSpec,
        Step, Tensor, TextEvaluation, Update, UpdateError, WEIGHT,
    },
};
use sheaf_transport::{digest::sha256_hex, identity::SiteName};

use super::{
    FedavgOptions, HeadKind,
    average::{Average, check_shapes},
    check_text,
};
use crate::{
    error::Error,
    run::event::{Next, PhaseOutput, PhaseSpec},
    workload::{
        Answers, Context,
        afl::{self, SurveyOutcome, outcome},
        question,
    },
};

/// Bytes of JSON around the numbers of an answer.
const SLACK: u64 = 1 << 20;
/// An adapter whose size the first round does not know yet.
const ADAPTER_LIMIT: u64 = 256 << 20;
/// More training rows than any site has.
const MAX_ROWS: u64 = 1 << 40;

/// What the survey gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FedavgSurvey {
    /// How records become feature rows.
    pub(super) decided: SurveyOutcome,
    /// Training rows by class, by site, in the order of the classes.
    pub(super) sites: BTreeMap<SiteName, Vec<u64>>,
}

/// What a round gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RoundOutcome {
    /// From 1.
    pub(super) round: u32,
    /// The weighted mean.
    pub(super) parameters: BlobId,
    /// Weight and training loss of each site in it.
    pub(super) sites: BTreeMap<SiteName, SiteShare>,
    /// Rows of all sites, where only their sum is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) total: Option<u64>,
}

/// A site's part in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SiteShare {
    /// None where they are private.
    pub(super) rows: Option<u64>,
    /// None where it is private.
    pub(super) loss: Option<f64>,
}

impl RoundOutcome {
    pub(super) fn rows(&self) -> Option<u64> {
        self.total.or_else(|| self.sites.values().map(|share| share.rows).sum())
    }

    /// Mean of the sites' losses, by rows.
    pub(super) fn loss(&self) -> Option<f64> {
        let rows = self.rows()?;
        let weighted = |share: &SiteShare| Some(share.loss? * share.rows? as f64);
        let sum: f64 = self.sites.values().map(weighted).sum::<Option<f64>>()?;
        Some(sum / rows.max(1) as f64)
    }
}

/// What an evaluation of an adapter gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TextOutcome {
    pub(super) sites: BTreeMap<SiteName, TextEvaluation>,
}

/// The head as the sites are told.
fn head(context: &Context<'_>, options: &FedavgOptions, outputs: &[PhaseOutput]) -> Result<Head, Error> {
    let schema = context.plan.schema.clone();
    match options.head {
        HeadKind::Softmax => {
            let survey = survey_of(context, outputs)?;
            let SurveyOutcome { encoding, features, .. } = survey.decided;
            Ok(Head::Softmax(SumsSpec { schema, encoding, features, privacy: None }))
        }
        HeadKind::Lora => Ok(Head::Lora(LoraSpec {
            schema,
            model: options.model().to_owned(),
            model_sha256: Catalogue::known()?.model(options.model())?.sha256(),
            adapter: options
                .lora
                .clone()
                .ok_or_else(|| Error::bug("a checked plan for an adapter has no adapter"))?,
            max_tokens: options.max_tokens(),
        })),
    }
}

pub(super) fn survey_of(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<FedavgSurvey, Error> {
    let survey = outputs.first().ok_or_else(|| Error::bug("a round before the survey"))?;
    outcome(context.blobs, survey)
}

/// The last round's parameters; before the first those that a head starts from, and none for an adapter, which
/// every site draws alike from the seed.
fn parameters(context: &Context<'_>, head: &Head, outputs: &[PhaseOutput]) -> Result<Option<BlobId>, Error> {
    if let Some(last) = outputs.iter().rfind(|output| holds_parameters(output)) {
        let outcome: RoundOutcome = outcome(context.blobs, last)?;
        return Ok(Some(outcome.parameters));
    }
    match head {
        Head::Softmax(rows) => {
            let zeros = shapes(rows).into_iter().map(|(name, shape)| {
                let data = vec![0.0; shape.iter().product()];
                (name, Tensor { shape, data })
            });
            let file = zeros.collect::<Parameters>().encode().map_err(defect)?;
            Ok(Some(context.blobs.put(&file)?))
        }
        Head::Lora(_) => Ok(None),
    }
}

/// Whether a finished phase has given parameters: a round, or the agreed start of a secure sum of adapters.
fn holds_parameters(output: &PhaseOutput) -> bool {
    matches!(Step::parse(&output.name), Some(Step::Start | Step::Round(_)))
}

/// Finished rounds; secure sums are condensed.
pub(super) fn finished(outputs: &[PhaseOutput]) -> impl Iterator<Item = &PhaseOutput> {
    outputs.iter().filter(|output| matches!(Step::parse(&output.name), Some(Step::Round(_))))
}

/// The parameters that the open round begins with.
pub(super) fn start_of(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<BlobId, Error> {
    let options = FedavgOptions::of(context.plan)?;
    let head = head(context, &options, outputs)?;
    parameters(context, &head, outputs)?.ok_or_else(|| Error::bug("a secure sum without its start"))
}

/// Asks for the adapter that every site draws alike from the plan's seed: how large a secure sum is follows from it.
pub(super) fn ask_start(context: &Context<'_>, options: &FedavgOptions) -> Result<Next, Error> {
    let head = head(context, options, &[])?;
    let spec = RoundSpec { round: 1, training: options.training(), max_rows: 0, privacy: None, head };
    let name = Step::Start.to_string();
    Ok(Next::Collect(question(context, &name, &spec, Vec::new(), RELEASE_UPDATES, ADAPTER_LIMIT)?))
}

/// The tensors of a softmax head.
fn shapes(rows: &SumsSpec) -> BTreeMap<String, Vec<usize>> {
    let (dim, classes) = (rows.features.output_dim() - 1, rows.encoding.classes.len());
    [(WEIGHT.to_owned(), vec![dim, classes]), (BIAS.to_owned(), vec![classes])].into()
}

pub(super) fn defect(error: UpdateError) -> Error {
    Error::bug(error.to_string())
}

/// Asks for a round.
pub(super) fn ask(
    context: &Context<'_>,
    options: &FedavgOptions,
    (outputs, all): (&[PhaseOutput], &[PhaseOutput]),
    round: u32,
) -> Result<Next, Error> {
    let head = head(context, options, outputs)?;
    let inputs: Vec<BlobId> = parameters(context, &head, outputs)?.into_iter().collect();
    let size = inputs.first().map_or(ADAPTER_LIMIT, BlobId::size);
    let name = Step::Round(round).to_string();
    let privacy = context.plan.privacy.as_ref().map(|privacy| privacy.round_spec(round));
    let run = &context.plan.run;
    let max_rows = if run.secure_aggregation { run.max_site_rows } else { 0 };
    let spec = RoundSpec { round, training: options.training(), max_rows, privacy, head };
    if run.secure_aggregation {
        let start = *inputs.first().ok_or_else(|| Error::bug("a secure sum without its start"))?;
        return super::secure::ask(context, &spec, start, draw(context.members, options, round), all);
    }
    let asked = question(context, &name, &spec, inputs, RELEASE_UPDATES, size + SLACK)?;
    Ok(Next::Collect(PhaseSpec { may_miss: true, sites: draw(context.members, options, round), ..asked }))
}

/// The sites of a round: those with the lowest hashes of seed, round and name. None stands for all.
fn draw(members: &[SiteName], options: &FedavgOptions, round: u32) -> Option<Vec<SiteName>> {
    if options.fraction >= 1.0 {
        return None;
    }
    let wanted = (options.fraction * members.len() as f64).ceil().max(1.0) as usize;
    let rank =
        |site: &SiteName| sha256_hex(format!("sheaf fedavg draw {} {round} {site}", options.seed).as_bytes());
    let mut ranked: Vec<_> = members.iter().map(|site| (rank(site), site)).collect();
    ranked.sort();
    let mut drawn: Vec<_> = ranked.into_iter().take(wanted).map(|(_, site)| site.clone()).collect();
    drawn.sort();
    Some(drawn)
}

/// Asks all members how well the last round's model does.
pub(super) fn ask_evaluation(
    context: &Context<'_>,
    options: &FedavgOptions,
    outputs: &[PhaseOutput],
) -> Result<Next, Error> {
    let head = head(context, options, outputs)?;
    let inputs: Vec<BlobId> = parameters(context, &head, outputs)?.into_iter().collect();
    let round = finished(outputs).count() as u32;
    let classes = match &head {
        Head::Softmax(rows) => rows.encoding.classes.len() as u64,
        Head::Lora(_) => 0,
    };
    let whole = options.local_epochs.saturating_mul(options.rounds as usize);
    let compared =
        context.plan.evaluate.local_baseline && round >= options.rounds && options.head == HeadKind::Softmax;
    let mut local = options.training();
    (local.epochs, local.mu) = (whole, 0.0);
    let name = Step::Evaluate(round).to_string();
    let spec = EvaluateSpec { round, local: compared.then_some(local), head };
    let most = 44 * classes * classes + 4 * SLACK;
    let asked = question(context, &name, &spec, inputs, RELEASE_METRICS, most)?;
    Ok(Next::Collect(PhaseSpec { defines_model: false, ..asked }))
}

/// Refuses an update that is not of the tensors that were asked for.
pub(super) fn check_update(context: &Context<'_>, phase: &PhaseSpec, update: &Update) -> Result<(), Error> {
    let spec: RoundSpec = context.blobs.document(&phase.spec)?;
    if spec.privacy.is_some() != update.measured.is_none() {
        return Err(Error::invalid("rows and loss must be there, and must not be there under [privacy]"));
    }
    if let Some(Measured { rows, .. }) = update.measured.filter(|measured| measured.rows > MAX_ROWS) {
        return Err(Error::invalid(format!("{rows} training rows cannot be")));
    }
    if let Some(start) = phase.inputs.first() {
        let start = <Parameters as ParametersFile>::decode(&context.blobs.get(start)?).map_err(defect)?;
        return check_shapes(&update.parameters, start.iter().map(|(name, t)| (name, t.shape.as_slice())));
    }
    // Before the first round of an adapter the sizes are known to the sites alone: pairs of rank r are asked for.
    let Head::Lora(lora) = &spec.head else {
        return Err(Error::bug("a round of a head without parameters to start from"));
    };
    if update.parameters.is_empty() {
        return Err(Error::invalid("the adapter has no tensors"));
    }
    for (name, tensor) in &update.parameters {
        let rank = match tensor.shape.as_slice() {
            [rank, _] if name.ends_with("lora_A.weight") => *rank,
            [_, rank] if name.ends_with("lora_B.weight") => *rank,
            _ => {
                return Err(Error::invalid(format!(
                    "tensor {name} {:?} is no part of an adapter",
                    tensor.shape
                )));
            }
        };
        if rank != lora.adapter.rank {
            return Err(Error::invalid(format!(
                "tensor {name} has rank {rank}, asked was {}",
                lora.adapter.rank
            )));
        }
    }
    Ok(())
}

/// Refuses figures that do not go with the question.
pub(super) fn check_evaluation(context: &Context<'_>, phase: &PhaseSpec, bytes: &[u8]) -> Result<(), Error> {
    let spec: EvaluateSpec = context.blobs.document(&phase.spec)?;
    let unreadable = |e: serde_json::Error| Error::invalid(e.to_string());
    match spec.head {
        Head::Softmax(rows) => {
            let evaluation: Evaluation = serde_json::from_slice(bytes).map_err(unreadable)?;
            afl::check_evaluation(&evaluation, rows.encoding.classes.len())
        }
        Head::Lora(_) => check_text(&serde_json::from_slice(bytes).map_err(unreadable)?),
    }
}

pub(super) fn reduce_survey(context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
    let decided = afl::reduce_survey(context, answers, &FedavgOptions::of(context.plan)?.afl())?;
    let mut sites = BTreeMap::new();
    for (site, blob) in answers.contributions {
        let survey: Survey = context.blobs.document(blob)?;
        let counts =
            decided.encoding.classes.iter().map(|class| survey.classes.get(class).copied().unwrap_or(0));
        sites.insert(site.clone(), counts.collect());
    }
    Ok(serde_json::to_vec(&FedavgSurvey { decided, sites })?)
}

/// The mean of all updates by their rows, in the order of site names, one in memory at a time.
pub(super) fn reduce(context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
    let spec: RoundSpec = context.blobs.document(&answers.phase.spec)?;
    let surveyed = match spec.head {
        Head::Softmax(_) => survey_of(context, answers.outputs)?.sites,
        Head::Lora(_) => BTreeMap::new(),
    };
    let mut average = Average::default();
    let mut sites = BTreeMap::new();
    for (site, blob) in answers.contributions {
        let of_site = |e: &dyn std::fmt::Display| {
            Error::invalid(format!(
                "the update of site {site} does not go with the others': {e}. Withdraw the site, or find out what it runs"
            ))
        };
        let update = Update::decode(&context.blobs.get(blob)?).map_err(|e| of_site(&e))?;
        // What a site says it has trained on weighs no more than what it said it holds.
        let held = surveyed.get(site).map_or(u64::MAX, |counts| counts.iter().sum::<u64>().max(1));
        let rows = update.measured.map(|measured| measured.rows.min(held));
        // Where the numbers of records are private, all sites weigh the same.
        average.add(&update.parameters, rows.unwrap_or(1)).map_err(|e| of_site(&e))?;
        sites.insert(site.clone(), SiteShare { rows, loss: update.measured.map(|measured| measured.loss) });
    }
    let mean = average.finish().ok_or_else(|| Error::bug("a round closed without an update"))?;
    let parameters = context.blobs.put(&mean.encode().map_err(defect)?)?;
    Ok(serde_json::to_vec(&RoundOutcome { round: spec.round, parameters, sites, total: None })?)
}

pub(super) fn reduce_evaluation(context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
    let spec: EvaluateSpec = context.blobs.document(&answers.phase.spec)?;
    match spec.head {
        Head::Softmax(_) => afl::reduce_evaluation(context, answers),
        Head::Lora(_) => {
            let mut sites = BTreeMap::new();
            for (site, blob) in answers.contributions {
                sites.insert(site.clone(), context.blobs.document(blob)?);
            }
            Ok(serde_json::to_vec(&TextOutcome { sites })?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::plan::Plan;

    #[test]
    fn the_draw_is_seeded_changes_by_round_and_reaches_everyone() {
        let plan = "[run]\nname='x'\nworkload='fedavg'\n[fedavg]\nhead='softmax'\nrounds=9\nlearning_rate=0.1\nfraction=0.3\n";
        let options = FedavgOptions::of(&Plan::parse(plan).unwrap()).unwrap();
        let members: Vec<SiteName> = (0..10).map(|n| format!("s{n}").parse().unwrap()).collect();
        let mut seen = std::collections::BTreeSet::new();
        for round in 1..=30 {
            let drawn = draw(&members, &options, round).unwrap();
            assert_eq!(drawn.len(), 3);
            assert_eq!(Some(&drawn), draw(&members, &options, round).as_ref());
            seen.extend(drawn);
        }
        assert_eq!(seen.len(), members.len());
        assert_eq!(draw(&members, &FedavgOptions { fraction: 1.0, ..options.clone() }, 1), None);
        assert_eq!(draw(&members[..1], &options, 1).unwrap().len(), 1);
    }
}
