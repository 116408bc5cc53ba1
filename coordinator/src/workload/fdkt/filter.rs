//! Which of the sites' texts go on (spec steps 6 and 7): a language model's keep list for each cluster, or scores.

use serde::{Deserialize, Serialize};
use sheaf_text::{
    Labelled, Step, UnitVectors,
    cluster::{MAX_ITERATIONS, default_clusters, k_means},
    filter::{
        Bound, ClusterJudge, ClusterReport, Criterion, Evidence, Measure, Next, Scored, Scorer, Used,
        funnel_step, keep_prompt, keep_schema,
    },
};

use super::{
    meaning::Meaning,
    options::{FdktOptions, FilterOptions, Judge},
};
use crate::{
    error::Error,
    llm::{Format, Llm, Prompt, Sampling},
    models::Tools,
    workload::ask::ask,
};

/// Tokens of a keep list beside three for each member.
const LIST_TOKENS: u32 = 32;

/// Who filtered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeUse {
    /// Clusters of similar texts.
    pub clusters: usize,
    /// Those that the language model decided on.
    pub by_model: usize,
    /// Those that it was asked about and gave no readable answer for.
    pub fallen_back: usize,
}

/// What is left of the sites' texts.
pub(super) struct Filtered {
    /// Places of those that go on.
    pub(super) kept: Vec<usize>,
    pub(super) steps: Vec<Step>,
    pub(super) judge: JudgeUse,
}

/// Filters texts; `labels` are the places of theirs, `vectors` what they say.
pub(super) fn filter(
    tools: &Tools<'_>,
    options: &FdktOptions,
    texts: &[Labelled],
    labels: &[usize],
    vectors: &UnitVectors,
    meaning: &Meaning,
) -> Result<Filtered, Error> {
    if texts.is_empty() {
        return Ok(Filtered { kept: Vec::new(), steps: Vec::new(), judge: JudgeUse::default() });
    }
    let scored = scores(&options.filter, labels, vectors, meaning)?;
    let asks = match options.filter.judge {
        Judge::Scores => None,
        Judge::Llm => Some(tools.models.llm()?),
        Judge::Auto => match tools.models.llm() {
            Ok(llm) => Some(llm).filter(Llm::follows_instructions),
            Err(error) => {
                tracing::warn!("no language model judges the sites' texts, scores do: {error}");
                None
            }
        },
    };
    let Some(llm) = asks else {
        let kept = (0..texts.len()).filter(|place| scored.decisions[*place].is_kept()).collect();
        return Ok(Filtered { kept, steps: scored.steps, judge: JudgeUse::default() });
    };
    let reports = judged(tools, &*llm, options, texts, vectors, &scored)?;
    let mut kept: Vec<usize> = reports.iter().flat_map(|report| report.kept.iter().copied()).collect();
    kept.sort_unstable();
    let by_model = reports.iter().filter(|report| matches!(report.used, Used::Model { .. })).count();
    let judge = JudgeUse { clusters: reports.len(), by_model, fallen_back: reports.len() - by_model };
    Ok(Filtered { kept, steps: vec![funnel_step(&reports)], judge })
}

/// How texts do by their label's likelihood, their distance to its middle, and their likeness to earlier ones.
fn scores(
    options: &FilterOptions,
    labels: &[usize],
    vectors: &UnitVectors,
    meaning: &Meaning,
) -> Result<Scored, Error> {
    let fits = |(place, label): (usize, &usize)| meaning.log_p(vectors.row(place))[*label];
    let log_likelihood: Vec<f64> = labels.iter().enumerate().map(fits).collect();
    let criterion = |measure, bound| Criterion { measure, bound };
    let scorer = Scorer::new(vec![
        criterion(Measure::LabelLikelihood, Bound::Quantile(options.worst)),
        criterion(Measure::CentroidDistance, Bound::Quantile(options.far)),
        criterion(Measure::NearDuplicate, Bound::Threshold(options.near)),
    ]);
    let evidence = Evidence { labels, log_likelihood: Some(&log_likelihood), embeddings: Some(vectors) };
    Ok(scorer?.score(&evidence)?)
}

/// A report of each cluster: every one has a judge, and one whose answers cannot be read has the scores.
fn judged(
    tools: &Tools<'_>,
    llm: &dyn Llm,
    options: &FdktOptions,
    texts: &[Labelled],
    vectors: &UnitVectors,
    scored: &Scored,
) -> Result<Vec<ClusterReport>, Error> {
    let clusters = k_means(vectors, default_clusters(texts.len()), MAX_ITERATIONS, options.augment.seed);
    let members = clusters?.members();
    let judge = |(cluster, members)| ClusterJudge::new(cluster, members, options.filter.attempts);
    let mut open: Vec<ClusterJudge> = members.into_iter().enumerate().map(judge).collect();
    let mut reports = Vec::new();
    for attempt in 0..options.filter.attempts {
        let prompts = open.iter().map(|judge| keep(judge, texts, attempt)).collect::<Result<Vec<_>, _>>()?;
        let answers = ask(tools, llm, "filtering the sites' texts", &prompts)?;
        let mut again = Vec::new();
        for (mut judge, answer) in open.into_iter().zip(answers) {
            match judge.answer(&answer.text) {
                Next::Decided(report) => reports.push(report),
                Next::AskAgain(_) => again.push(judge),
                Next::FallBack(_) => reports.push(judge.fall_back(scored)?),
            }
        }
        open = again;
    }
    Ok(reports)
}

fn keep(judge: &ClusterJudge, texts: &[Labelled], attempt: u32) -> Result<Prompt, Error> {
    let members: Vec<&Labelled> = judge.members().iter().map(|place| &texts[*place]).collect();
    let question = keep_prompt(&members)?;
    let options = Sampling {
        temperature: 0.0,
        max_tokens: LIST_TOKENS + 4 * members.len() as u32,
        seed: Some(0),
        format: Format::Json(keep_schema(members.len())),
        ..Sampling::default()
    };
    Ok(Prompt { options, ..Prompt::new(question) }.again(attempt))
}
