//! Which responses the target learns from (spec S3, S4), by reward guided filtering and by what it is compared with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_proto::{BlobId, rewardds::Arm};
use sheaf_text::{
    UnitVectors,
    reward::{Choice, Entry, Histogram, Pool, Variety, at_random, best, choose, relevance, rouge_consensus},
    words::words,
};

use super::{
    options::RewarddsOptions,
    proxies,
    sample::{Candidate, Draw, Query, Sampled, seed},
    tools,
};
use crate::{
    error::Error,
    models::adapted::{TunedTarget, Watch},
    report::{PoolRound, Spread},
    run::event::PhaseOutput,
    workload::{Context, afl::outcome},
};

/// Bins of a histogram of scores.
const BINS: usize = 24;
/// Scores of a histogram, standard deviations of the first candidates.
const RANGE: [f64; 2] = [-4.0, 4.0];

/// What tuning the target as one arm does gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TunedArm {
    pub(super) arm: Arm,
    /// Its adapter; none of a hosted target.
    pub(super) adapter: Option<BlobId>,
    /// Examples that it learnt from.
    pub(super) examples: usize,
    pub(super) tokens: u64,
    pub(super) held: Vec<f64>,
    pub(super) pass: usize,
    /// Where refinement goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pool: Option<PoolState>,
}

/// The pool after a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PoolState {
    /// [`Held`].
    pub(super) state: BlobId,
    /// `pool/round-N.jsonl`: a [`Line`] a query.
    pub(super) lines: BlobId,
    pub(super) round: PoolRound,
}

/// What a round of refinement begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) pool: Pool,
    /// By query, the best and the worst of its newest responses.
    pub(super) choices: Vec<[Candidate; 2]>,
}

/// A query in `pool/round-N.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Line<'a> {
    pub(super) round: u32,
    pub(super) query: &'a str,
    pub(super) chosen: &'a Candidate,
    pub(super) rejected: &'a Candidate,
    /// R of the chosen and of the rejected one.
    pub(super) ranks: [f64; 2],
    /// How many responses there were to choose from.
    pub(super) candidates: usize,
    pub(super) accepted: bool,
    pub(super) why: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) feedback: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// Of a choice among candidates, which was accepted or not, and why.
    pub(super) fn of(
        (round, query): (u32, &'a str),
        (candidates, choice): (&'a [Candidate], &Choice),
        (accepted, why): (bool, &'a str),
    ) -> Self {
        Self {
            round,
            query,
            chosen: &candidates[choice.chosen],
            rejected: &candidates[choice.rejected],
            ranks: [choice.ranks[choice.chosen], choice.ranks[choice.rejected]],
            candidates: candidates.len(),
            accepted,
            why,
            feedback: None,
        }
    }

    /// The best and the worst response, which the next round begins with.
    pub(super) fn ends(&self) -> [Candidate; 2] {
        [self.chosen.clone(), self.rejected.clone()]
    }
}

/// The numbers of the queries that are learnt from, and of those that are held out.
pub(super) fn parted(queries: &[Query]) -> (Vec<usize>, Vec<usize>) {
    (0..queries.len()).partition(|number| !queries[*number].held)
}

/// The best response to a query under some measure, and what it is worth there.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pick {
    candidate: usize,
    value: f64,
}

fn highest(values: &[f64]) -> Option<Pick> {
    let better = |best: Pick, (candidate, value): (usize, &f64)| {
        if *value > best.value { Pick { candidate, value: *value } } else { best }
    };
    let first = Pick { candidate: 0, value: *values.first()? };
    Some(values.iter().enumerate().fold(first, better))
}

/// Reward guided filtering of each query.
pub(super) fn choices(queries: &[Query], alpha: f64) -> Result<Vec<Choice>, Error> {
    let of = |query: &Query| {
        let scored: Vec<_> = query.candidates.iter().map(|candidate| candidate.scored).collect();
        choose(&scored, alpha)?.ok_or_else(|| Error::bug("a query without candidates"))
    };
    queries.iter().map(of).collect()
}

/// Each query's pick under an arm.
fn picks(
    context: &Context<'_>,
    options: &RewarddsOptions,
    arm: Arm,
    queries: &[Query],
) -> Result<Vec<Pick>, Error> {
    let texts = |query: &Query| query.candidates.iter().map(|c| words(&c.text)).collect::<Vec<_>>();
    let random = |number: usize| seed(options.queries.seed, Draw::Random, number);
    let values: Vec<Vec<f64>> = match arm {
        Arm::Unfiltered => queries.iter().map(|query| vec![0.0; query.candidates.len()]).collect(),
        Arm::Random => {
            // Which candidate, then which queries: one with more candidates is no likelier to be kept.
            let of_queries = at_random(queries.len(), random(queries.len()));
            let pick = |(number, (query, value)): (usize, (&Query, f64))| {
                let candidate = highest(&at_random(query.candidates.len(), random(number)))?.candidate;
                Some(Pick { candidate, value })
            };
            let picks = queries.iter().zip(of_queries).enumerate().map(pick).collect::<Option<_>>();
            return picks.ok_or_else(|| Error::bug("a query without candidates"));
        }
        Arm::Rouge => queries.iter().map(|query| rouge_consensus(&texts(query))).collect(),
        Arm::Embedding => nearest(context, options, queries)?,
        Arm::Perplexity => {
            let of = |query: &Query| query.candidates.iter().map(|c| -c.scored.perplexity).collect();
            queries.iter().map(of).collect()
        }
        Arm::Rgf => {
            let choices = choices(queries, options.filter.alpha)?;
            let of = |(query, choice): (&Query, &Choice)| Pick {
                candidate: choice.chosen,
                value: query.candidates[choice.chosen].scored.score,
            };
            return Ok(queries.iter().zip(&choices).map(of).collect());
        }
        Arm::Untuned | Arm::RgfSor | Arm::NonPrivate => {
            return Err(Error::bug(format!("{} is no filter", arm.name())));
        }
    };
    values
        .iter()
        .map(|values| highest(values).ok_or_else(|| Error::bug("a query without candidates")))
        .collect()
}

/// Cosines of each query with its responses.
fn nearest(
    context: &Context<'_>,
    options: &RewarddsOptions,
    queries: &[Query],
) -> Result<Vec<Vec<f64>>, Error> {
    let tools = tools(context)?;
    let mut texts: Vec<&str> = Vec::new();
    for query in queries {
        texts.push(&query.query);
        texts.extend(query.candidates.iter().map(|candidate| candidate.text.as_str()));
    }
    let (dim, values) = tools.models.embed(&options.encoder()?, &texts, tools.stop)?;
    let mut rest = values.as_slice();
    let mut nearest = Vec::with_capacity(queries.len());
    for query in queries {
        let (own, after) = rest.split_at(dim * (1 + query.candidates.len()));
        rest = after;
        let all = UnitVectors::new(own, dim)?;
        let responses = UnitVectors::new(&own[dim..], dim)?;
        nearest.push(relevance(all.row(0), &responses));
    }
    Ok(nearest)
}

/// The queries that the phase of sampling gave.
pub(super) fn queries(context: &Context<'_>, sampled: &Sampled) -> Result<Vec<Query>, Error> {
    context.blobs.document(&sampled.queries)
}

/// What the first phase of sampling gave.
pub(super) fn sampled(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Sampled, Error> {
    let output = outputs
        .iter()
        .find(|output| output.name == sheaf_proto::rewardds::Step::Sample.to_string())
        .ok_or_else(|| Error::bug("the target is tuned before anything was sampled"))?;
    outcome(context.blobs, output)
}

/// Examples of the target, and those that are held out.
pub(super) type Examples = (Vec<(String, String)>, Vec<(String, String)>);

/// Tunes the target, from an adapter on or from a drawn one; a hosted one is not tuned.
pub(super) fn tune(
    context: &Context<'_>,
    options: &RewarddsOptions,
    start: Option<&BlobId>,
    (examples, held): &Examples,
    epochs: usize,
) -> Result<Option<(BlobId, TunedTarget)>, Error> {
    let Some(target) = options.target()? else { return Ok(None) };
    let tools = tools(context)?;
    let start = start.map(|blob| proxies::get(context, blob)).transpose()?;
    let tell = |done, of| (tools.tell)("tuning the target", done, of);
    let watch = Watch { stop: tools.stop, tell: &tell };
    let how = options.tuning(epochs);
    let tuned = tools.models.adapted()?.tune(&target, start.as_ref(), examples, held, &how, watch)?;
    Ok(Some((proxies::put(context, &tuned.adapter)?, tuned)))
}

/// Tunes the target on what an arm keeps.
pub(super) fn tune_arm(context: &Context<'_>, outputs: &[PhaseOutput], arm: Arm) -> Result<TunedArm, Error> {
    let options = RewarddsOptions::of(context.plan)?;
    let queries = queries(context, &sampled(context, outputs)?)?;
    let picks = picks(context, &options, arm, &queries)?;
    let (free, out) = parted(&queries);
    let values: Vec<f64> = free.iter().map(|number| picks[*number].value).collect();
    let fold = options.filter.fold;
    let kept: Vec<usize> = match arm {
        Arm::Unfiltered => free.clone(),
        _ => best(&values, fold)?.into_iter().map(|place| free[place]).collect(),
    };
    let example = |number: &usize| {
        let query = &queries[*number];
        (query.query.clone(), query.candidates[picks[*number].candidate].text.clone())
    };
    let held = out.iter().map(example).collect();
    let examples: Vec<(String, String)> = kept.iter().map(example).collect();
    // As many tokens seen whatever is kept.
    let epochs =
        if arm == Arm::Unfiltered { options.target.epochs.div_ceil(fold) } else { options.target.epochs };
    let count = examples.len();
    let tuned = tune(context, &options, None, &(examples, held), epochs)?;
    let pool = (arm == Arm::Rgf).then(|| pool(context, &options, &queries, &kept)).transpose()?;
    Ok(of_tuned(arm, count, tuned, pool))
}

pub(super) fn of_tuned(
    arm: Arm,
    examples: usize,
    tuned: Option<(BlobId, TunedTarget)>,
    pool: Option<PoolState>,
) -> TunedArm {
    let (adapter, tuned) = tuned.unzip();
    let (held, pass, tokens) = tuned.map(|tuned| (tuned.held, tuned.pass, tuned.tokens)).unwrap_or_default();
    TunedArm { arm, adapter, examples, tokens, held, pass, pool }
}

/// The pool of the first round.
fn pool(
    context: &Context<'_>,
    options: &RewarddsOptions,
    queries: &[Query],
    kept: &[usize],
) -> Result<PoolState, Error> {
    let choices = choices(queries, options.filter.alpha)?;
    let entry = |number: &usize| {
        let chosen = &queries[*number].candidates[choices[*number].chosen];
        Entry { query: *number, response: chosen.text.clone(), score: chosen.scored.score, round: 1 }
    };
    let pool = Pool::new(kept.iter().map(entry).collect());
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    let (mut lines, mut ends) = (Vec::new(), Vec::new());
    for (number, (query, choice)) in queries.iter().zip(&choices).enumerate() {
        let accepted = kept.contains(&number);
        let why = match (accepted, query.held) {
            (true, _) => "among the best",
            (false, true) => "held out",
            (false, false) => "not among the best",
        };
        *verdicts.entry(why.to_owned()).or_default() += 1;
        let line = Line::of((1, &query.query), (&query.candidates, choice), (accepted, why));
        write(&mut lines, &line)?;
        ends.push(line.ends());
    }
    let held = Held { choices: ends, pool };
    let candidates: Vec<&Candidate> = queries.iter().flat_map(|query| &query.candidates).collect();
    let round = report(1, None, kept.len(), verdicts, (&candidates, &held));
    PoolState::put(context, &held, &lines, round)
}

impl PoolState {
    /// Stores what a round has left.
    pub(super) fn put(
        context: &Context<'_>,
        held: &Held,
        lines: &[u8],
        round: PoolRound,
    ) -> Result<Self, Error> {
        let state = context.blobs.put(&serde_json::to_vec(held)?)?;
        Ok(Self { state, lines: context.blobs.put(lines)?, round })
    }
}

pub(super) fn write(lines: &mut Vec<u8>, line: &Line<'_>) -> Result<(), Error> {
    serde_json::to_writer(&mut *lines, line)?;
    lines.push(b'\n');
    Ok(())
}

/// What a round is reported as.
pub(super) fn report(
    round: u32,
    threshold: Option<f64>,
    accepted: usize,
    verdicts: BTreeMap<String, usize>,
    (candidates, held): (&[&Candidate], &Held),
) -> PoolRound {
    let chosen: Vec<&Candidate> = held.choices.iter().map(|[chosen, _]| chosen).collect();
    let entries = held.pool.entries();
    let histogram = |scores: Vec<f64>| Histogram::of(&scores, RANGE[0], RANGE[1], BINS);
    let of = |all: &[&Candidate]| all.iter().map(|c| c.scored.score).collect::<Vec<_>>();
    let variety = |all: &[&Candidate]| Variety::of(all.iter().map(|c| c.text.as_str()));
    PoolRound {
        round,
        queries: held.choices.len(),
        accepted,
        pool: entries.len(),
        threshold,
        verdicts,
        scores: Spread {
            candidates: histogram(of(candidates)),
            chosen: histogram(of(&chosen)),
            pool: histogram(entries.iter().map(|entry| entry.score).collect()),
        },
        variety: Spread {
            candidates: variety(candidates),
            chosen: variety(&chosen),
            pool: Variety::of(entries.iter().map(|entry| entry.response.as_str())),
        },
    }
}
