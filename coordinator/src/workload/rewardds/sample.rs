//! Queries and candidate responses by the generation proxies, rewarded by the reward proxies (spec S1, S2, the scores of S3).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sheaf_proto::{
    BlobId,
    rewardds::{Exchange, RewardForm},
};
use sheaf_text::{
    Funnel, Step,
    overlap::near_duplicates_by_minhash,
    reward::Scored,
    words::{fold, words},
};

use super::{
    options::RewarddsOptions,
    proxies::{self, Pair},
    tools,
};
use crate::{
    error::Error,
    models::{
        Tools,
        adapted::{AdaptedModels, Ask, Watch},
    },
    run::event::PhaseOutput,
    workload::Context,
};

/// Words of an n-gram that near-duplicates are found by.
const NGRAM: usize = 3;

/// What the phase gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sampled {
    /// [`Query`]s, a JSON list.
    pub(super) queries: BlobId,
    pub(super) funnel: Funnel,
    /// Mean and standard deviation of each reward proxy over the candidates: what its scores are measured in from here on.
    pub(super) scales: Vec<[f64; 2]>,
}

/// A query with its candidates, at least one.
#[expect(clippy::struct_field_names, reason = "the files call a query's text so")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Query {
    pub(super) control: String,
    pub(super) query: String,
    /// Whose generation proxy wrote it, by its place among the proxies.
    pub(super) writer: usize,
    /// Not learnt from: chooses the pass.
    pub(super) held: bool,
    pub(super) candidates: Vec<Candidate>,
}

/// A response with what the proxies say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Candidate {
    pub(super) text: String,
    #[serde(flatten)]
    pub(super) scored: Scored,
}

impl Candidate {
    /// One that nothing is said of yet.
    pub(super) fn unscored(text: &str) -> Self {
        Self { text: text.to_owned(), scored: Scored { score: 0.0, perplexity: 0.0 } }
    }
}

impl Query {
    /// Responses to it as exchanges, each with the query's writer.
    pub(super) fn exchanges(&self, responses: &[Candidate]) -> Vec<(usize, Exchange)> {
        let of = |candidate: &Candidate| {
            let (control, query) = (self.control.clone(), self.query.clone());
            (self.writer, Exchange { control, query, response: candidate.text.clone() })
        };
        responses.iter().map(of).collect()
    }
}

/// What scores responses from first to last.
pub(super) struct Judge<'a> {
    pub(super) options: &'a RewarddsOptions,
    pub(super) models: &'a dyn AdaptedModels,
    pub(super) pairs: &'a [Pair],
}

impl Judge<'_> {
    /// Every reward proxy's scores of responses to queries.
    fn raw(&self, tools: &Tools<'_>, what: &str, texts: &[(&str, &str)]) -> Result<Vec<Vec<f64>>, Error> {
        let (generator, form): (_, RewardForm) = (self.options.generator()?, self.options.reward()?);
        let mut all = Vec::new();
        for pair in self.pairs {
            let tell = |done, of| (tools.tell)(what, done, of);
            let watch = Watch { stop: tools.stop, tell: &tell };
            all.push(self.models.rewards(&generator, (&form, &pair.reward), texts, watch)?);
        }
        Ok(all)
    }

    /// Rewards: the mean over the proxies of their scores in their own scales.
    fn rewards(scales: &[[f64; 2]], raw: &[Vec<f64>]) -> Vec<f64> {
        let count = raw.first().map_or(0, Vec::len);
        let one = |at: usize| {
            let of = |(scores, [mean, spread]): (&Vec<f64>, &[f64; 2])| (scores[at] - mean) / spread;
            raw.iter().zip(scales).map(of).sum::<f64>() / raw.len().max(1) as f64
        };
        (0..count).map(one).collect()
    }

    /// What the proxies say of responses: the reward of all of them, and the perplexity under the query's writer.
    pub(super) fn judge(
        &self,
        tools: &Tools<'_>,
        scales: Option<&[[f64; 2]]>,
        responses: &[(usize, Exchange)],
    ) -> Result<(Vec<Scored>, Vec<[f64; 2]>), Error> {
        let texts: Vec<(&str, &str)> =
            responses.iter().map(|(_, e)| (e.query.as_str(), e.response.as_str())).collect();
        let raw = self.raw(tools, "rewarding responses", &texts)?;
        let scales = scales.map_or_else(|| raw.iter().map(|scores| scale(scores)).collect(), <[_]>::to_vec);
        let rewards = Self::rewards(&scales, &raw);
        let mut perplexities = vec![f64::INFINITY; responses.len()];
        let generator = self.options.generator()?;
        for (number, pair) in self.pairs.iter().enumerate() {
            let own: Vec<usize> = (0..responses.len()).filter(|at| responses[*at].0 == number).collect();
            let exchanges: Vec<Exchange> = own.iter().map(|at| responses[*at].1.clone()).collect();
            let tell = |done, of| (tools.tell)("finding how likely responses are", done, of);
            let watch = Watch { stop: tools.stop, tell: &tell };
            let found = self.models.perplexities((&generator, &pair.generator), &exchanges, watch)?;
            own.into_iter().zip(found).for_each(|(at, perplexity)| perplexities[at] = perplexity);
        }
        let scored = rewards.into_iter().zip(perplexities);
        Ok((scored.map(|(score, perplexity)| Scored { score, perplexity }).collect(), scales))
    }
}

/// Mean and standard deviation; a spread of 1 where there is none.
fn scale(scores: &[f64]) -> [f64; 2] {
    let count = scores.len().max(1) as f64;
    let mean = scores.iter().sum::<f64>() / count;
    let spread = (scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count).sqrt();
    [mean, if spread > 0.0 && spread.is_finite() { spread } else { 1.0 }]
}

/// What a seed is for: draws of one kind share no stream with those of another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Draw {
    Queries,
    Candidates,
    Random,
    Feedback(u32),
    Revisions(u32),
}

/// Another seed for each draw of a kind.
pub(super) fn seed(of: u64, kind: Draw, number: usize) -> u64 {
    let kind = match kind {
        Draw::Queries => 1,
        Draw::Candidates => 2,
        Draw::Random => 3,
        Draw::Feedback(round) => (u64::from(round) << 8) | 4,
        Draw::Revisions(round) => (u64::from(round) << 8) | 5,
    };
    mix(mix(of ^ mix(kind)).wrapping_add(number as u64))
}

/// SplitMix64: seeds that lie near each other would give like draws on some generators.
const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) fn sample(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Sampled, Error> {
    let options = RewarddsOptions::of(context.plan)?;
    let tools = tools(context)?;
    let models = tools.models.adapted()?;
    let pairs = proxies::finished(context, outputs)?;
    let judge = Judge { options: &options, models: &*models, pairs: &pairs };
    let mut funnel = Funnel::default();
    let mut queries = queries(context, &judge, tools, &mut funnel)?;
    candidates(&judge, tools, &mut queries, &mut funnel)?;
    if queries.is_empty() {
        return Err(Error::invalid(
            "the generation proxies wrote no query with a response that ends by itself; tune them longer, allow more \
             answer_tokens, or ask for more queries",
        ));
    }
    let responses: Vec<(usize, Exchange)> =
        queries.iter().flat_map(|query| query.exchanges(&query.candidates)).collect();
    let (scored, scales) = judge.judge(tools, None, &responses)?;
    let mut scored = scored.into_iter();
    for candidate in queries.iter_mut().flat_map(|query| &mut query.candidates) {
        candidate.scored = scored.next().ok_or_else(|| Error::bug("a candidate has no score"))?;
    }
    hold(&mut queries, options.target.holdout);
    Ok(Sampled { queries: context.blobs.put(&serde_json::to_vec(&queries)?)?, funnel, scales })
}

/// Every so many-th query is held out: they come in the order of their draws, which is by nothing that they say.
fn hold(queries: &mut [Query], share: f64) {
    for (number, query) in queries.iter_mut().enumerate() {
        query.held = ((number + 1) as f64 * share).floor() > (number as f64 * share).floor();
    }
}

/// Draws queries, evenly by proxy and control code, and drops those that will not do.
fn queries(
    context: &Context<'_>,
    judge: &Judge<'_>,
    tools: &Tools<'_>,
    funnel: &mut Funnel,
) -> Result<Vec<Query>, Error> {
    let (options, how) = (judge.options, &judge.options.queries);
    let (writers, controls) = (judge.pairs.len(), options.controls(context.plan));
    let draws = (how.count as f64 * how.spare).ceil() as usize;
    let generator = options.generator()?;
    let mut drawn: Vec<(usize, Query)> = Vec::with_capacity(draws);
    let mut step = Step::new("queries", draws);
    for (writer, pair) in judge.pairs.iter().enumerate() {
        let numbers: Vec<usize> = (0..draws).filter(|number| number % writers == writer).collect();
        let ask = |number: &usize| Ask {
            text: controls[number / writers % controls.len()].clone(),
            seed: seed(how.seed, Draw::Queries, *number),
        };
        let asks: Vec<Ask> = numbers.iter().map(ask).collect();
        let tell = |done, of| (tools.tell)("writing queries", done, of);
        let watch = Watch { stop: tools.stop, tell: &tell };
        let proxy = (&generator, &pair.generator);
        let written = judge.models.queries(proxy, &asks, options.drawing_queries(), watch)?;
        for ((number, ask), written) in numbers.into_iter().zip(asks).zip(written) {
            if !written.ended {
                step.drop_one("not ended");
            } else if words(&written.text).len() < how.min_words {
                step.drop_one("too short");
            } else {
                let query = Query {
                    control: ask.text,
                    query: written.text,
                    writer,
                    held: false,
                    candidates: Vec::new(),
                };
                drawn.push((number, query));
            }
        }
    }
    funnel.push(step);
    drawn.sort_by_key(|(number, _)| *number);
    let drawn: Vec<Query> = drawn.into_iter().map(|(_, query)| query).collect();

    let mut step = Step::new("different queries", drawn.len());
    let all: Vec<Vec<String>> = drawn.iter().map(|query| words(&query.query)).collect();
    let near = near_duplicates_by_minhash(&all, NGRAM, how.near, how.seed)?;
    let (mut seen, mut kept) = (BTreeSet::new(), Vec::new());
    for (query, near) in drawn.into_iter().zip(near) {
        if !seen.insert(fold(&query.query)) {
            step.drop_one("duplicate");
        } else if near.is_some() {
            step.drop_one("near-duplicate");
        } else if kept.len() >= how.count {
            step.drop_one("enough");
        } else {
            kept.push(query);
        }
    }
    funnel.push(step);
    Ok(kept)
}

/// Draws candidate responses to each query, and drops those that will not do and queries that are left without any.
fn candidates(
    judge: &Judge<'_>,
    tools: &Tools<'_>,
    queries: &mut Vec<Query>,
    funnel: &mut Funnel,
) -> Result<(), Error> {
    let (options, how) = (judge.options, &judge.options.filter);
    let generator = options.generator()?;
    let mut step = Step::new("responses", queries.len() * how.candidates);
    for (writer, pair) in judge.pairs.iter().enumerate() {
        let mut asks = Vec::new();
        for (number, query) in queries.iter().enumerate().filter(|(_, query)| query.writer == writer) {
            let (control, text) = (query.control.clone(), query.query.clone());
            let exchange = Exchange { control, query: text, response: String::new() };
            let of =
                |copy: usize| seed(options.queries.seed, Draw::Candidates, number * how.candidates + copy);
            asks.extend((0..how.candidates).map(|copy| (number, (exchange.clone(), of(copy)))));
        }
        let (numbers, asks): (Vec<usize>, Vec<(Exchange, u64)>) = asks.into_iter().unzip();
        let tell = |done, of| (tools.tell)("writing candidate responses", done, of);
        let watch = Watch { stop: tools.stop, tell: &tell };
        let proxy = (&generator, &pair.generator);
        let written = judge.models.responses(proxy, &asks, options.drawing_candidates(), watch)?;
        for (number, written) in numbers.into_iter().zip(written) {
            let query = &mut queries[number];
            let folded = fold(&written.text);
            if !written.ended {
                step.drop_one("not ended");
            } else if folded.is_empty() {
                step.drop_one("empty");
            } else if query.candidates.iter().any(|candidate| fold(&candidate.text) == folded) {
                step.drop_one("duplicate");
            } else {
                query.candidates.push(Candidate::unscored(&written.text));
            }
        }
    }
    funnel.push(step);
    let mut step = Step::new("queries with responses", queries.len());
    queries.retain(|query| {
        let some = !query.candidates.is_empty();
        if !some {
            step.drop_one("no response");
        }
        some
    });
    funnel.push(step);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_of_several_proxies_are_averaged_in_their_own_scales() {
        let raw = vec![vec![0.0, 2.0, 4.0], vec![100.0, 100.0, 400.0]];
        let scales: Vec<[f64; 2]> = raw.iter().map(|scores| scale(scores)).collect();
        let rewards = Judge::rewards(&scales, &raw);
        assert!((rewards.iter().sum::<f64>()).abs() < 1e-12);
        assert!(rewards[0] < rewards[1] && rewards[1] < rewards[2]);
        // One proxy alone keeps its order whatever its scale.
        assert_eq!(scale(&[3.0, 3.0]), [3.0, 1.0]);
        assert_eq!(Judge::rewards(&[[1.0, 2.0]], &[vec![1.0, 5.0]]), [0.0, 2.0]);
    }

    #[test]
    fn the_held_share_is_spread_evenly() {
        let query = Query {
            control: String::new(),
            query: String::new(),
            writer: 0,
            held: false,
            candidates: Vec::new(),
        };
        let mut queries = vec![query; 100];
        hold(&mut queries, 0.1);
        assert_eq!(queries.iter().filter(|query| query.held).count(), 10);
        assert!(queries.chunks(10).all(|ten| ten.iter().filter(|query| query.held).count() <= 2));
        hold(&mut queries, 0.0);
        assert!(queries.iter().all(|query| !query.held));
    }
}
