//! How the tuned target does on a site's test records (spec S7), and how good the proxies are (`evaluate/proxies.rs`).
//!
//! **Claim.** Under `[privacy]` the figures are as private as the ledger's `Event::Laplace` says, add/remove of one privacy unit
//! with all its *test* records.
//!
//! **Why it holds.** What is measured was made of noised proxies, so that no record is in it un-noised. Every figure of a test
//! record is between 0 and 1 (in thousandths), computed from it alone (`alone`: by itself, so that no other record has a part
//! in its rounding), and a unit of several weighs as one: together at most the number of figures, which the noise is measured
//! against ([`afl::private::Counting`]). All test records are measured then: a choice of some would depend on the others.
//!
//! **Test.** `evaluate/tests.rs`.

mod proxies;

use std::{collections::BTreeMap, time::Duration};

use sha2::{Digest as _, Sha256};
use sheaf_data::{Dataset, Source, Split};
use sheaf_models::{Adapter, LanguageModel, slm::generate::Sampling, train::Frozen};
use sheaf_proto::{
    fedavg::{Parameters, ParametersFile as _},
    privacy::PrivacySpec,
    rewardds::{Arm, EvaluateSpec, Evaluation, Exchange, Figures, MOST_NLL, Pairs, Target},
};
use sheaf_sandbox::{Limits, Outcome, Sandbox, SandboxError};
use sheaf_text::{
    overlap::{rouge_l, rouge_n},
    words::words,
};

pub use proxies::{likelihood_of, pairs_of};

use super::{
    super::{Assignment, Resources, afl, fedavg::lora, parse, to_json},
    generator, language,
};
use crate::{budget::Purse, egress::Made, error::AgentError, models};
use proxies::{exchanges, judged, share};

/// Of a program: the slowest of MBPP's own solutions takes 5 to 8 s.
pub(crate) const LIMITS: Limits =
    Limits { wall: Duration::from_secs(20), cpu_seconds: 12, memory_bytes: 512 << 20, processes: 2 };
/// What the target is worth, in the site's folder of the run: exact. As [`Evaluation`].
const WORTH: &str = "worth.json";
/// A whole in the counts that are noised.
const WHOLE: u64 = 1000;

/// What one arm's target makes of a test record.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    nll: f64,
    rouge: [f64; 3],
    words: f64,
    passed: Option<bool>,
}

/// A target that is measured.
pub struct Measuring<'a> {
    /// The target.
    pub target: &'a Target,
    /// Its frozen model.
    pub model: &'a LanguageModel,
    /// What it was tuned on, with its adapter; none for [`Arm::Untuned`].
    pub arms: &'a [(Arm, Option<Parameters>)],
    /// Each record by itself.
    pub alone: bool,
    /// Runs programs, where responses are some.
    pub sandbox: Option<&'a Sandbox>,
    /// Hears which arm is measured.
    pub tell: &'a dyn Fn(&str),
}

/// The test records of a data set that have a response: all of them, or the first so many of an order by their content.
pub fn test_rows(dataset: &Dataset, most: usize) -> Vec<usize> {
    let mut rows: Vec<usize> = dataset
        .rows(Split::Test)
        .into_iter()
        .filter(|row| generator::readable(dataset, *row).is_some())
        .collect();
    if most > 0 && rows.len() > most {
        rows.sort_by_cached_key(|row| Sha256::digest(dataset.text(*row).unwrap_or_default().as_bytes()));
        rows.truncate(most);
    }
    rows
}

impl Measuring<'_> {
    /// Figures of every arm on every record, in the order of both.
    fn rows(
        &self,
        dataset: &Dataset,
        rows: &[usize],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<Row>>, AgentError> {
        language::check_limits(self.model, self.target.max_tokens, self.target.answer_tokens)?;
        let config = lora::config(&self.target.adapter);
        let (mut questions, mut records, mut references) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let Some(record) = dataset.dialogue(*row) else { continue };
            let example = language::example(self.model, self.target, record.query, record.response);
            let (question, encoded) = example.map_err(language::failed)?;
            let reference = language::shortened(self.model, record.response, self.target.answer_tokens);
            references.push(words(&reference.map_err(language::failed)?.text));
            questions.push((question, 0));
            records.push(encoded);
        }
        let frozen = self.frozen(&config, &records, cancelled)?;
        let sampling = Sampling {
            max_tokens: self.target.answer_tokens,
            temperature: 0.0,
            top_k: 0,
            ..Sampling::default()
        };
        let mut all = vec![Vec::with_capacity(self.arms.len()); records.len()];
        for (number, (arm, parameters)) in self.arms.iter().enumerate() {
            (self.tell)(&format!(
                "measuring the target, {} of {}: {}",
                number + 1,
                self.arms.len(),
                arm.name()
            ));
            // A drawn adapter that was not tuned changes nothing.
            let adapter = match parameters {
                Some(parameters) => language::adapter(&self.target.adapter, parameters),
                None => Adapter::new(self.model, &config, 0).map_err(language::failed)?,
            };
            let lora =
                adapter.to_device(self.model.config(), self.model.device()).map_err(language::failed)?;
            let mut nll = Vec::with_capacity(records.len());
            for piece in &frozen {
                let found = language::mean_nll(self.model, &lora, piece, self.alone, cancelled);
                nll.extend(language::of_one(self.alone, found, || vec![f64::INFINITY])?);
            }
            let mut answers = Vec::with_capacity(questions.len());
            for batch in questions.chunks(if self.alone { 1 } else { questions.len().max(1) }) {
                let found = language::answers(self.model, Some(&lora), batch, &sampling, cancelled);
                answers.extend(language::of_one(self.alone, found, || vec![language::nothing()])?);
            }
            let answered = answers.iter().zip(&references).zip(nll).zip(rows).zip(&mut all);
            for ((((answer, reference), nll), row), into) in answered {
                // Where answers are programs, running them takes longer than writing them did.
                if cancelled() {
                    return Err(AgentError::Cancelled);
                }
                let said = words(&answer.text);
                let rouge =
                    [rouge_n(&said, reference, 1), rouge_n(&said, reference, 2), rouge_l(&said, reference)];
                let passed = self.passes(dataset, *row, &answer.text);
                into.push(Row { nll, rouge: rouge.map(|r| r.f1), words: said.len() as f64, passed });
            }
        }
        Ok(all)
    }

    /// What the layers below the adapter make of the records; of each by itself where that is asked for.
    fn frozen<'r>(
        &self,
        config: &sheaf_models::LoraConfig,
        records: &'r [sheaf_models::train::Encoded],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Frozen<'r>>, AgentError> {
        let pieces = records.chunks(if self.alone { 1 } else { records.len().max(1) });
        let compute = |piece| Frozen::compute(self.model, config, piece, cancelled).map_err(language::failed);
        pieces.map(compute).collect()
    }

    /// Whether a program passes the record's tests; none where responses are no programs.
    fn passes(&self, dataset: &Dataset, row: usize, answer: &str) -> Option<bool> {
        let sandbox = self.sandbox?;
        let Some(tests) = dataset.dialogue(row).and_then(|record| record.tests) else {
            return Some(false);
        };
        let run = || sandbox.run_tests(program(answer), &tests.setup, &tests.asserts);
        // A record's own tests may be no program; that it could not be started may pass. Neither may end the task: which record it
        // was would show.
        let outcome = match run() {
            Ok(outcome) => outcome,
            Err(SandboxError::Tests) => Outcome::Failed,
            Err(_) => run().unwrap_or(Outcome::Failed),
        };
        Some(outcome == Outcome::Passed)
    }

    /// Exact figures on these records.
    ///
    /// # Errors
    /// [`AgentError::Cancelled`], [`AgentError::Task`] for an adapter of another model or a sandbox that does not work.
    pub fn exact(
        &self,
        dataset: &Dataset,
        rows: &[usize],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<BTreeMap<Arm, Figures>, AgentError> {
        let mut figures: BTreeMap<Arm, Figures> = BTreeMap::new();
        for of_record in self.rows(dataset, rows, cancelled)? {
            for ((arm, _), row) in self.arms.iter().zip(of_record) {
                let zero = Figures {
                    rouge_1: Some(0.0),
                    rouge_2: Some(0.0),
                    words: Some(0.0),
                    passed: row.passed.map(|_| 0.0),
                    ..Figures::default()
                };
                let sum = figures.entry(*arm).or_insert(zero);
                // One without a token to predict is as unlikely as can be told.
                sum.nll += row.nll.min(1e3);
                sum.rouge_l += row.rouge[2];
                let more = |sum: &mut Option<f64>, value: f64| *sum = sum.map(|sum| sum + value);
                more(&mut sum.rouge_1, row.rouge[0]);
                more(&mut sum.rouge_2, row.rouge[1]);
                more(&mut sum.words, row.words);
                more(&mut sum.passed, f64::from(u8::from(row.passed == Some(true))));
            }
        }
        Ok(figures)
    }
}

/// The sandbox that programs run in, where responses are some.
///
/// # Errors
/// [`AgentError::Task`] where this machine has none that holds: programs are not run without it.
pub fn sandbox(target: &Target) -> Result<Option<Sandbox>, AgentError> {
    let open = || Sandbox::open(LIMITS).map_err(|e| AgentError::Task(e.to_string()));
    target.code.then(open).transpose()
}

/// The program in an answer: what stands between fences, where it has some.
fn program(answer: &str) -> &str {
    let Some((_, fenced)) = answer.split_once("```") else { return answer };
    let fenced = fenced.split_once("```").map_or(fenced, |(inside, _)| inside);
    // The language's name stands behind the opening fence.
    match fenced.split_once('\n') {
        Some((name, program)) if name.trim().chars().all(char::is_alphanumeric) => program,
        _ => fenced,
    }
}

/// Answers the phase.
pub(super) fn evaluate(
    assignment: &Assignment,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Evaluation, Made), AgentError> {
    let spec: EvaluateSpec = parse(&assignment.spec)?;
    let (arms, proxies) = inputs(&spec, &assignment.inputs)?;
    let purse = spec.privacy.as_ref().map(|privacy| priced(privacy, resources)).transpose()?;
    let dataset = source.open(&spec.schema, resources.assets)?;
    dataset.dialogues(&[])?;
    let made = Made::OfRows(dataset.rows(Split::Train).len() as u64);
    let rows = test_rows(&dataset, if purse.is_some() { 0 } else { spec.records });
    if purse.is_none() && (rows.len() as u64) < assignment.min_rows.max(1) {
        return Ok((Evaluation::default(), made));
    }
    models::check_hash(&spec.target.model, Some(&spec.target.model_sha256))?;
    let model = models::language(&spec.target.model, resources)?;
    let sandbox = sandbox(&spec.target)?;
    let quiet = purse.is_some();
    let tell = |what: &str| {
        // How long each takes tells how many records there are.
        if !quiet {
            resources.tell(what);
        }
    };
    let measuring = Measuring {
        target: &spec.target,
        model: &model,
        arms: &arms,
        alone: quiet,
        sandbox: sandbox.as_ref(),
        tell: &tell,
    };
    let reward = spec.reward.as_ref().zip(proxies.as_ref());
    let (Some(privacy), Some(purse)) = (&spec.privacy, purse) else {
        let arms = measuring.exact(&dataset, &rows, cancelled)?;
        let pairs = reward.map(|(measured, (reward, generator))| {
            let of = (&dataset, rows.as_slice(), &spec.schema);
            pairs_of(measured, (reward, generator), of, resources, cancelled)
        });
        let exact = Evaluation { rows: rows.len() as f64, arms, pairs: pairs.transpose()? };
        resources.keep(WORTH, &to_json(&exact)?)?;
        return Ok((exact, made));
    };
    let judged = reward.map(|(measured, (reward, generator))| {
        let (rows, all): (Vec<usize>, Vec<Exchange>) =
            exchanges(measured, &spec.schema, &dataset, &rows).into_iter().unzip();
        let judged = judged(measured, (reward, generator), &all, true, resources, cancelled)?;
        Ok::<BTreeMap<usize, [Option<bool>; 3]>, AgentError>(rows.into_iter().zip(judged).collect())
    });
    let counted = Counted {
        rows: rows.iter().copied().zip(measuring.rows(&dataset, &rows, cancelled)?).collect(),
        pairs: judged.transpose()?,
        arms: arms.iter().map(|(arm, _)| *arm).collect(),
        code: spec.target.code,
    };
    resources.keep(WORTH, &to_json(&counted.evaluation(&counted.of(&rows)))?)?;
    counted.noised(privacy, &dataset, purse)
}

fn priced(privacy: &PrivacySpec, resources: &Resources<'_>) -> Result<Purse, AgentError> {
    let purse = resources.purse()?;
    purse.check(privacy.event.count())?;
    Ok(purse)
}

/// Adapters by arm, and the proxies where they are to be measured.
type Inputs = (Vec<(Arm, Option<Parameters>)>, Option<(Parameters, Parameters)>);

fn inputs(spec: &EvaluateSpec, inputs: &[Vec<u8>]) -> Result<Inputs, AgentError> {
    let mut inputs = inputs.iter();
    let mut next = || {
        let input = inputs.next().ok_or_else(|| {
            AgentError::Task("the evaluation came with fewer parameters than it names".to_owned())
        })?;
        Parameters::decode(input).map_err(|e| AgentError::Task(format!("parameters cannot be read: {e}")))
    };
    let mut arms = Vec::new();
    for arm in &spec.arms {
        arms.push((*arm, if *arm == Arm::Untuned { None } else { Some(next()?) }));
    }
    let proxies = if spec.reward.is_some() { Some((next()?, next()?)) } else { None };
    Ok((arms, proxies))
}

/// Figures of test records on the grid that noise is drawn on.
struct Counted {
    rows: BTreeMap<usize, Vec<Row>>,
    pairs: Option<BTreeMap<usize, [Option<bool>; 3]>>,
    arms: Vec<Arm>,
    code: bool,
}

impl Counted {
    /// Figures of each arm.
    const fn each(&self) -> usize {
        if self.code { 3 } else { 2 }
    }

    /// How many figures a record has, each a whole at most.
    fn figures(&self) -> usize {
        1 + self.arms.len() * self.each() + if self.pairs.is_some() { 2 } else { 0 }
    }

    fn of(&self, rows: &[usize]) -> Vec<u64> {
        let part = |share: f64| {
            if share.is_finite() { (share.clamp(0.0, 1.0) * WHOLE as f64).round() as u64 } else { WHOLE }
        };
        let mut counts = vec![0; self.figures()];
        for row in rows {
            let Some(arms) = self.rows.get(row) else { continue };
            let mut of_row = vec![WHOLE];
            for arm in arms {
                of_row.extend([part(arm.nll / MOST_NLL), part(arm.rouge[2])]);
                if self.code {
                    of_row.push(if arm.passed == Some(true) { WHOLE } else { 0 });
                }
            }
            if let Some(pairs) = &self.pairs {
                let share = pairs.get(row).copied().and_then(share);
                of_row.extend([if share.is_some() { WHOLE } else { 0 }, part(share.unwrap_or(0.0))]);
            }
            counts.iter_mut().zip(of_row).for_each(|(sum, value)| *sum += value);
        }
        counts
    }

    fn noised(
        &self,
        privacy: &PrivacySpec,
        dataset: &Dataset,
        purse: Purse,
    ) -> Result<(Evaluation, Made), AgentError> {
        let of = |rows: &[usize]| Ok(self.of(rows));
        let counting = afl::private::Counting { of: &of, most: self.figures() * WHOLE as usize };
        let (counts, made) = afl::private::noised_counts(privacy, &counting, dataset, purse)?;
        Ok((self.evaluation(&counts), made))
    }

    fn evaluation(&self, counts: &[u64]) -> Evaluation {
        let mut shares = counts.iter().map(|count| *count as f64 / WHOLE as f64);
        let mut next = || shares.next().unwrap_or(0.0);
        let rows = next();
        let mut arms = BTreeMap::new();
        for arm in &self.arms {
            let (nll, rouge_l) = (next() * MOST_NLL, next());
            let passed = self.code.then(&mut next);
            arms.insert(*arm, Figures { nll, rouge_l, passed, ..Figures::default() });
        }
        let pairs = self.pairs.is_some().then(|| Pairs { rows: next(), right: next(), by_pair: None });
        Evaluation { rows, arms, pairs }
    }
}

#[cfg(test)]
mod tests;
