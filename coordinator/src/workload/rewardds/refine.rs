//! Self-optimizing refinement (spec S5): the target says what could be better, revises, and learns from revisions that the reward
//! accepts.

use std::{collections::BTreeMap, time::Instant};

use serde::{Deserialize, Serialize};
use sheaf_proto::{
    BlobId,
    rewardds::{Arm, Exchange, Step, Written},
};
use sheaf_text::reward::{Entry, Verdict, answer_prompt, choose, feedback_prompt, revision_prompt};

use super::{
    filter::{Held, Line, PoolState, TunedArm, of_tuned, parted, queries, report, sampled, tune, write},
    options::RewarddsOptions,
    proxies,
    sample::{Candidate, Draw, Judge, Query, seed},
    tools,
};
use crate::{
    error::Error,
    llm::{Finish, Prompt, Sampling},
    models::{
        Tools,
        adapted::{Ask, Drawing, Watch},
    },
    report::{LlmUse, RefinementSample},
    run::event::PhaseOutput,
    workload::{
        Context,
        afl::outcome,
        ask::{ask, use_of},
    },
};

/// Refinements that a report shows of each round.
const SHOWN: usize = 4;

/// What a round gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Refined {
    pub(super) round: u32,
    #[serde(flatten)]
    pub(super) tuned: TunedArm,
    pub(super) samples: Vec<RefinementSample>,
    pub(super) llm: Option<LlmUse>,
}

/// The newest tuning that refinement goes on from.
pub(super) fn newest(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Option<TunedArm>, Error> {
    let last = outputs.iter().rev().find_map(|output| match Step::parse(&output.name)? {
        Step::Refine(_) => Some(outcome::<Refined>(context.blobs, output).map(|refined| refined.tuned)),
        Step::Tune(Arm::Rgf) => Some(outcome::<TunedArm>(context.blobs, output)),
        _ => None,
    });
    last.transpose()
}

/// Who is asked to improve responses.
struct Target<'a> {
    options: &'a RewarddsOptions,
    adapter: Option<BlobId>,
    /// What stands before a hosted model's question.
    shots: Vec<(&'a str, &'a str)>,
    used: Option<LlmUse>,
}

impl Target<'_> {
    fn answers(
        &mut self,
        context: &Context<'_>,
        tools: &Tools<'_>,
        (what, how): (&str, Drawing),
        (asks, with_shots): (&[Ask], bool),
    ) -> Result<Vec<Written>, Error> {
        if let Some(target) = self.options.target()? {
            let adapter = self.adapter.as_ref().map(|blob| proxies::get(context, blob)).transpose()?;
            let tell = |done, of| (tools.tell)(what, done, of);
            let watch = Watch { stop: tools.stop, tell: &tell };
            return tools.models.adapted()?.answers(&target, adapter.as_ref(), asks, how, watch);
        }
        let (llm, began) = (tools.models.llm()?, Instant::now());
        let before = llm.totals();
        let prompt = |ask: &Ask| {
            let bare = self.shots.is_empty() || !with_shots;
            let user = if bare { ask.text.clone() } else { answer_prompt(&ask.text, &self.shots) };
            let options = Sampling {
                temperature: how.temperature,
                top_p: how.top_p,
                max_tokens: how.max_tokens as u32,
                seed: Some(ask.seed),
                ..Sampling::default()
            };
            Prompt { options, ..Prompt::new(user) }
        };
        let prompts: Vec<Prompt> = asks.iter().map(prompt).collect();
        let done = ask(tools, &*llm, what, &prompts)?;
        let used = use_of(&llm.name(), before, llm.totals(), began);
        self.used = Some(match self.used.take() {
            Some(sum) => together(sum, used),
            None => used,
        });
        let written = |completion: crate::llm::Completion| Written {
            text: completion.text.trim().to_owned(),
            ended: completion.finish == Finish::Stop,
        };
        Ok(done.into_iter().map(written).collect())
    }
}

/// What two uses of one model come to.
pub(super) fn together(a: LlmUse, b: LlmUse) -> LlmUse {
    LlmUse {
        model: b.model,
        requests: a.requests + b.requests,
        from_cache: a.from_cache + b.from_cache,
        prompt_tokens: a.prompt_tokens + b.prompt_tokens,
        completion_tokens: a.completion_tokens + b.completion_tokens,
        cost: a.cost.zip(b.cost).map(|(a, b)| a + b),
        seconds: a.seconds + b.seconds,
    }
}

/// A revised response with what is said of it.
struct Revised {
    candidates: Vec<Candidate>,
    feedback: String,
}

pub(super) fn refine(context: &Context<'_>, outputs: &[PhaseOutput], round: u32) -> Result<Refined, Error> {
    let options = RewarddsOptions::of(context.plan)?;
    let tools = tools(context)?;
    let sampled = sampled(context, outputs)?;
    let queries = queries(context, &sampled)?;
    let before = newest(context, outputs)?.ok_or_else(|| Error::bug("refinement begins with the filter"))?;
    let state = before.pool.as_ref().ok_or_else(|| Error::bug("refinement begins with a pool"))?;
    let mut held: Held = context.blobs.document(&state.state)?;
    let pool = held.pool.clone();
    // The examples that a hosted model is shown are the best of what the rounds before have accepted.
    let mut shots: Vec<&Entry> =
        if options.target()?.is_some() { Vec::new() } else { pool.entries().iter().collect() };
    shots.sort_by(|a, b| b.score.total_cmp(&a.score));
    shots.truncate(options.refine.shots);
    let mut target = Target {
        options: &options,
        adapter: before.adapter,
        shots: shots.into_iter().map(|e| (queries[e.query].query.as_str(), e.response.as_str())).collect(),
        used: None,
    };
    // What is held out stays as it was: it measures every round alike.
    let (free, out) = parted(&queries);
    let mut revised = revise(context, tools, (&mut target, round), &queries, &held, &free)?;
    score(context, tools, &options, (outputs, &sampled.scales), &queries, &mut revised)?;

    let threshold = held.pool.threshold();
    let mut chosen = Vec::new();
    for (number, revised) in &revised {
        let scored: Vec<_> = revised.candidates.iter().map(|candidate| candidate.scored).collect();
        if let Some(choice) = choose(&scored, options.filter.alpha)? {
            chosen.push((*number, choice));
        }
    }
    let entry = |(number, choice): &(usize, sheaf_text::reward::Choice)| {
        let candidate = &revised[number].candidates[choice.chosen];
        Entry { query: *number, response: candidate.text.clone(), score: candidate.scored.score, round }
    };
    let fates = held.pool.grow(chosen.iter().map(entry).collect());
    let accepted = fates.iter().filter(|fate| **fate == Verdict::Accepted).count();

    let (mut lines, mut verdicts, mut samples) = (Vec::new(), BTreeMap::<String, usize>::new(), Vec::new());
    let apart = chosen.len().div_ceil(SHOWN).max(1);
    for (place, ((number, choice), fate)) in chosen.iter().zip(&fates).enumerate() {
        let (query, revised) = (&queries[*number].query, &revised[number]);
        let why = words(*fate);
        *verdicts.entry(why.to_owned()).or_default() += 1;
        let verdict = (*fate == Verdict::Accepted, why);
        let line = Line::of((round, query), (&revised.candidates, choice), verdict);
        let line = Line { feedback: Some(&revised.feedback), ..line };
        write(&mut lines, &line)?;
        let before = &mut held.choices[*number];
        if place % apart == 0 {
            samples.push(RefinementSample {
                round,
                query: query.clone(),
                chosen: before[0].text.clone(),
                rejected: before[1].text.clone(),
                feedback: revised.feedback.clone(),
                revision: line.chosen.text.clone(),
                scores: [before[0].scored.score, before[1].scored.score, line.chosen.scored.score],
                verdict: why.to_owned(),
            });
        }
        *before = line.ends();
    }
    let candidates: Vec<&Candidate> = revised.values().flat_map(|revised| &revised.candidates).collect();
    let of_round = report(round, threshold, accepted, verdicts, (&candidates, &held));

    let examples = held.pool.entries().iter();
    let examples: Vec<(String, String)> =
        examples.map(|entry| (queries[entry.query].query.clone(), entry.response.clone())).collect();
    let example = |number: usize| (queries[number].query.clone(), held.choices[number][0].text.clone());
    let out = out.into_iter().map(example).collect();
    let count = examples.len();
    let tuned =
        tune(context, &options, before.adapter.as_ref(), &(examples, out), options.target.refine_epochs)?;
    let pool = PoolState::put(context, &held, &lines, of_round)?;
    Ok(Refined { round, tuned: of_tuned(Arm::RgfSor, count, tuned, Some(pool)), samples, llm: target.used })
}

/// What became of a revision, in words.
const fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accepted => "accepted",
        Verdict::BelowThreshold => "below the pool's least reward",
        Verdict::Duplicate => "in the pool already",
    }
}

/// Feedback on each query's best and worst response, then revisions of the best. A query whose revisions are all cut has none.
fn revise(
    context: &Context<'_>,
    tools: &Tools<'_>,
    (target, round): (&mut Target<'_>, u32),
    queries: &[Query],
    held: &Held,
    free: &[usize],
) -> Result<BTreeMap<usize, Revised>, Error> {
    let options = target.options;
    let drawn = options.queries.seed;
    let question = |number: &usize| {
        let [chosen, rejected] = &held.choices[*number];
        let text = feedback_prompt(&queries[*number].query, &chosen.text, &rejected.text);
        Ask { text, seed: seed(drawn, Draw::Feedback(round), *number) }
    };
    // Of two equal ones there is nothing to say.
    let differ = |number: &usize| held.choices[*number][0].text != held.choices[*number][1].text;
    let asks: Vec<Ask> = free.iter().filter(|number| differ(number)).map(question).collect();
    let how = options.drawing_revisions(options.refine.feedback_tokens);
    let what = format!("round {round}: writing feedback");
    let mut said = target.answers(context, tools, (&what, how), (&asks, false))?.into_iter();
    let nothing = || Written { text: String::new(), ended: true };
    let mut of = |number: &usize| differ(number).then(|| said.next()).flatten().unwrap_or_else(nothing);
    let feedback: Vec<Written> = free.iter().map(&mut of).collect();
    let mut asks = Vec::new();
    for (number, feedback) in free.iter().zip(&feedback) {
        let text = revision_prompt(&queries[*number].query, &held.choices[*number][0].text, &feedback.text);
        let copies = options.refine.revisions;
        asks.extend((0..copies).map(|copy| Ask {
            text: text.clone(),
            seed: seed(drawn, Draw::Revisions(round), number * copies + copy),
        }));
    }
    let how = options.drawing_revisions(options.answer_tokens);
    let what = format!("round {round}: revising responses");
    let revisions = target.answers(context, tools, (&what, how), (&asks, true))?;
    let mut all = BTreeMap::new();
    for ((number, feedback), written) in
        free.iter().zip(feedback).zip(revisions.chunks(options.refine.revisions))
    {
        let mut texts: Vec<&str> = Vec::new();
        for text in written.iter().filter(|written| written.ended && !written.text.is_empty()) {
            if !texts.contains(&text.text.as_str()) {
                texts.push(&text.text);
            }
        }
        let candidates: Vec<Candidate> = texts.into_iter().map(Candidate::unscored).collect();
        if !candidates.is_empty() {
            all.insert(*number, Revised { candidates, feedback: feedback.text });
        }
    }
    Ok(all)
}

/// Scores revisions as the first candidates were.
fn score(
    context: &Context<'_>,
    tools: &Tools<'_>,
    options: &RewarddsOptions,
    (outputs, scales): (&[PhaseOutput], &[[f64; 2]]),
    queries: &[Query],
    revised: &mut BTreeMap<usize, Revised>,
) -> Result<(), Error> {
    let pairs = proxies::finished(context, outputs)?;
    let models = tools.models.adapted()?;
    let judge = Judge { options, models: &*models, pairs: &pairs };
    let of = |(number, revised): (&usize, &Revised)| queries[*number].exchanges(&revised.candidates);
    let responses: Vec<(usize, Exchange)> = revised.iter().flat_map(of).collect();
    let (scored, _) = judge.judge(tools, Some(scales), &responses)?;
    let candidates = revised.values_mut().flat_map(|revised| &mut revised.candidates);
    candidates.zip(scored).for_each(|(candidate, scored)| candidate.scored = scored);
    Ok(())
}
