//! Private Evolution (Xie et al. 2024, arXiv 2403.01749) as the source of the sites' texts: the language model writes candidates of
//! every label, every private record votes with noise for the nearest one of its own label, the best of each label stay, the
//! model writes more like them, and so on. No site trains anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_proto::{
    BlobId,
    afl::{RELEASE_STATISTICS, SumsSpec},
    fdkt::{Labelled, SEED, VOTE, VoteSpec, Votes},
};
use sheaf_text::to_lines;
use sheaf_transport::identity::SiteName;

use super::{
    ANSWER_LIMIT, ask_nobody,
    augment::{Shown, augment},
    meaning::{Meaning, embed, renamed},
    options::{AugmentOptions, FdktOptions, classes, encoder, labels},
    refine::declared,
    secure, site_texts,
};
use crate::{
    error::Error,
    run::event::{Next, PhaseOutput, PhaseSpec},
    workload::{Answers, Context, afl::outcome, question, secure::condensed},
};

/// Candidates, after so many votes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Population {
    /// One [`Labelled`] a line, under the classes' names.
    pub(super) candidates: BlobId,
    /// Votes so far.
    pub(super) round: u32,
    /// Whose votes the last ones were, where they came as one secure sum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) voters: Vec<SiteName>,
}

/// Whether an output is a population.
pub(super) fn is_of(output: &PhaseOutput) -> bool {
    output.name == SEED || output.name.starts_with(VOTE)
}

/// Nobody is asked for the first candidates.
pub(super) fn ask_seed(context: &Context<'_>, options: &FdktOptions) -> Result<Next, Error> {
    let spec = serde_json::json!({
        "about": options.about, "ask": options.ask, "augment": options.augment, "evolution": options.evolution,
        "classes": classes(context.plan),
    });
    ask_nobody(context, SEED, &spec, Vec::new())
}

/// The next vote, or the next stage of it; none after the last one. `last` is the newest of the finished phases, `all` are these
/// with the stages of secure sums.
pub(super) fn ask_vote(
    context: &Context<'_>,
    options: &FdktOptions,
    last: &PhaseOutput,
    all: &[PhaseOutput],
) -> Result<Option<Next>, Error> {
    let population: Population = outcome(context.blobs, last)?;
    if population.round >= options.evolution.rounds {
        return Ok(None);
    }
    let encoding = declared(context)?;
    let features = options.afl().features(encoding.input_dim());
    let privacy = context.plan.privacy.as_ref().map(crate::privacy::Privacy::model_spec);
    let sums = SumsSpec { schema: context.plan.schema.clone(), encoding, features, privacy };
    let left = u64::from(options.evolution.rounds - population.round);
    let spec = VoteSpec { sums, left };
    if context.plan.run.secure_aggregation {
        let candidates = candidates(context, &population.candidates)?.len();
        return secure::ask_vote(context, &spec, (&population, candidates), all).map(Some);
    }
    let name = format!("{VOTE}{}", population.round + 1);
    let inputs = vec![population.candidates];
    Ok(Some(Next::Collect(question(context, &name, &spec, inputs, RELEASE_STATISTICS, ANSWER_LIMIT)?)))
}

/// Refuses votes that do not fit the candidates.
pub(super) fn check(context: &Context<'_>, phase: &PhaseSpec, answer: &[u8]) -> Result<(), Error> {
    let votes: Votes = serde_json::from_slice(answer)?;
    let blob = phase.inputs.first().ok_or_else(|| Error::bug("a vote has candidates"))?;
    let candidates = candidates(context, blob)?.len();
    if votes.votes.len() == candidates {
        return Ok(());
    }
    Err(Error::invalid(format!("{} votes for {candidates} candidates", votes.votes.len())))
}

fn candidates(context: &Context<'_>, blob: &BlobId) -> Result<Vec<Labelled>, Error> {
    site_texts(context.plan, &context.blobs.get(blob)?)
}

/// The first candidates: written from the labels alone.
pub(super) fn seed(context: &Context<'_>) -> Result<Population, Error> {
    let options = FdktOptions::of(context.plan)?;
    let first = write(context, &options, &[], options.evolution.candidates, 0)?;
    if first.is_empty() {
        return Err(Error::transient(
            "the language model wrote no usable candidate; change [fdkt] ask or augment, or take another model",
        ));
    }
    store(context, &first, 0)
}

/// What the sites' single votes leave.
pub(super) fn evolve(context: &Context<'_>, answers: &Answers<'_>) -> Result<Population, Error> {
    let mut total = Vec::new();
    for (_, blob) in answers.contributions {
        let votes: Votes = context.blobs.document(blob)?;
        total.resize(votes.votes.len(), 0_i64);
        total.iter_mut().zip(votes.votes).for_each(|(sum, votes)| *sum = sum.saturating_add(votes));
    }
    grow(context, answers.outputs, &total, Vec::new())
}

/// What the sum of all votes leaves of the candidates, and, unless it was the last, more like it. `outputs` are the finished
/// phases, the stages of secure sums among them.
pub(super) fn grow(
    context: &Context<'_>,
    outputs: &[PhaseOutput],
    total: &[i64],
    voters: Vec<SiteName>,
) -> Result<Population, Error> {
    let options = FdktOptions::of(context.plan)?;
    let before = condensed(outputs).into_iter().rfind(is_of);
    let before = before.ok_or_else(|| Error::bug("a vote has candidates"))?;
    let before: Population = outcome(context.blobs, &before)?;
    let candidates = candidates(context, &before.candidates)?;
    if total.len() != candidates.len() {
        return Err(Error::bug(format!("{} votes for {} candidates", total.len(), candidates.len())));
    }
    let mut next = best(candidates, total, options.evolution.keep);
    let round = before.round + 1;
    if round < options.evolution.rounds {
        let room = options.evolution.candidates - options.evolution.keep;
        if room > 0 {
            next.extend(write(context, &options, &next.clone(), room, round)?);
        }
    }
    Ok(Population { voters, ..store(context, &next, round)? })
}

/// Of each label the candidates with the most votes, in their order; without votes there is nothing to tell them apart, and as
/// many of the first ones stay.
fn best(candidates: Vec<Labelled>, votes: &[i64], keep: usize) -> Vec<Labelled> {
    let mut of_label: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        of_label.entry(&candidate.label).or_default().push(at);
    }
    let mut kept: Vec<usize> = Vec::new();
    for mut places in of_label.into_values() {
        places.sort_by(|a, b| votes[*b].cmp(&votes[*a]).then(a.cmp(b)));
        kept.extend(places.into_iter().take(keep));
    }
    kept.sort_unstable();
    kept.into_iter().map(|at| candidates[at].clone()).collect()
}

/// Writes up to `per_class` texts of each label after `shown` ones, both under the classes' names.
fn write(
    context: &Context<'_>,
    options: &FdktOptions,
    shown: &[Labelled],
    per_class: usize,
    round: u32,
) -> Result<Vec<Labelled>, Error> {
    let tools =
        context.tools.ok_or_else(|| Error::bug("candidates are written without the coordinator's tools"))?;
    let (labels, encoder) = (labels(context.plan)?, encoder(context.plan)?);
    let classes = classes(context.plan);
    let spoken = renamed(shown, classes, labels.names())?;
    let names: Vec<&str> = labels.names().iter().map(String::as_str).collect();
    let meaning = Meaning::new(&embed(tools, encoder, &names)?, &[]);
    let texts: Vec<&str> = spoken.iter().map(|text| text.text.as_str()).collect();
    let vectors = embed(tools, encoder, &texts)?;
    // Another draw in every round.
    let seed = options.augment.seed.wrapping_add(u64::from(round) << 32);
    let options = FdktOptions {
        augment: AugmentOptions { per_class, seed, ..options.augment.clone() },
        ..options.clone()
    };
    let what = format!("writing candidates for vote {}", round + 1);
    let llm = tools.models.llm()?;
    let shown = Shown { texts: &spoken, vectors: &vectors };
    let written = augment(tools, &*llm, (&options, &labels, encoder), shown, &meaning, &what)?;
    renamed(&written.texts, labels.names(), classes)
}

fn store(context: &Context<'_>, candidates: &[Labelled], round: u32) -> Result<Population, Error> {
    let lines = to_lines(candidates)?;
    Ok(Population { candidates: context.blobs.put(&lines)?, round, voters: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_voted_of_each_label_stay_in_their_order() {
        let candidates: Vec<Labelled> = [("1", "a"), ("2", "a"), ("3", "b"), ("4", "a")]
            .map(|(text, label)| Labelled::new(text, label))
            .into();
        let kept = best(candidates, &[5, -3, -9, 7], 2);
        let texts: Vec<&str> = kept.iter().map(|text| text.text.as_str()).collect();
        assert_eq!(texts, ["1", "3", "4"]);
    }
}
