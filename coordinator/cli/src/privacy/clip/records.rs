//! Public texts as records of a plan's own kind: what its sites tune on, but for whose they are.

use anyhow::Result;
use sheaf_agent::task::{fdkt, rewardds::language};
use sheaf_coordinator::{
    error::Error,
    run::plan::Plan,
    workload::{
        fdkt::FdktOptions,
        fedavg::{FedavgOptions, HeadKind},
        rewardds::RewarddsOptions,
    },
};
use sheaf_models::{
    LanguageModel,
    slm::generate::Sampling,
    train::{Encoded, Example},
};
use sheaf_proto::{
    fdkt::WORKLOAD as FDKT,
    fedavg::{AdapterSpec, WORKLOAD as FEDAVG},
    rewardds::{Exchange, Generator, WORKLOAD as REWARDDS, control, one_line},
};

/// Longest question of a dialogue that the model writes, tokens, where the plan has room for it.
const QUESTION: usize = 32;
/// Longest answer in one.
const ANSWER: usize = 96;

/// How the model is asked for a question where the plan has no control code.
const ASK: &str = "Ask me a question. Write only the question.";

/// The texts that records are made of.
pub(super) enum Texts {
    /// Somebody has published them.
    Public(Vec<String>),
    /// So many that the model writes itself.
    Own(usize),
}

impl Texts {
    const fn count(&self) -> usize {
        match self {
            Self::Public(texts) => texts.len(),
            Self::Own(count) => *count,
        }
    }
}

/// Who hears where long work is, and who may stop it.
pub(super) struct Watch<'a> {
    pub(super) tell: &'a dyn Fn(&str, u64, u64),
    pub(super) cancelled: &'a dyn Fn() -> bool,
}

/// What a plan's sites tune with noise.
pub(super) struct Tuned {
    /// The frozen model, by its name in the catalogue.
    pub(super) model: String,
    /// What is tuned.
    pub(super) adapter: AdapterSpec,
    /// Of the adapter's start.
    pub(super) seed: u64,
    /// Records a step, on average.
    pub(super) batch: usize,
    form: Form,
}

/// What a record is.
enum Form {
    /// A query and its response under a control code.
    Exchange { generator: Generator, controls: Vec<String> },
    /// A text under a control code.
    Labelled { controls: Vec<String>, max_tokens: usize },
    /// A question through the model's chat template, and its answer.
    Dialogue { max_tokens: usize },
}

impl Tuned {
    /// # Errors
    /// [`sheaf_coordinator::error::Class::Invalid`] for a plan that tunes no adapter at its sites.
    pub(super) fn of(plan: &Plan) -> Result<Self, Error> {
        match plan.run.workload.as_str() {
            REWARDDS => {
                let options = RewarddsOptions::of(plan)?;
                let generator = options.generator()?;
                return Ok(Self {
                    model: generator.model.clone(),
                    adapter: generator.adapter.clone(),
                    seed: options.generator.tuning.seed,
                    batch: options.generator.tuning.batch,
                    form: Form::Exchange { generator, controls: options.controls(plan) },
                });
            }
            FDKT => {
                let options = FdktOptions::of(plan)?;
                if options.sites_write()
                    && let (Some(adapter), Some(code), Some(tuning)) =
                        (&options.lora, &options.control, &options.tuning)
                {
                    let classes = plan.schema.declared.iter().flat_map(|declared| &declared.classes);
                    let controls = classes.map(|class| control(code, class)).collect();
                    return Ok(Self {
                        model: options.model.clone(),
                        adapter: adapter.clone(),
                        seed: tuning.seed,
                        batch: tuning.batch,
                        form: Form::Labelled { controls, max_tokens: options.max_tokens },
                    });
                }
            }
            FEDAVG => {
                let options = FedavgOptions::of(plan)?;
                if let (HeadKind::Lora, Some(adapter)) = (options.head, &options.lora) {
                    return Ok(Self {
                        model: options.model().to_owned(),
                        adapter: adapter.clone(),
                        seed: options.seed,
                        batch: options.batch,
                        form: Form::Dialogue { max_tokens: options.max_tokens() },
                    });
                }
            }
            _ => {}
        }
        Err(Error::invalid(format!(
            "\"{}\" has no clip to choose by gradients: plans have one that tune a language model's adapter at the sites, with \
             workload = \"rewardds\", \"fdkt\" with synthesiser = \"dp-lora\" and texts of the sites, or \"fedavg\" with head = \
             \"lora\"",
            plan.run.name
        )))
    }

    /// The texts as the plan's sites would encode them. What the model has left empty is left out.
    ///
    /// # Errors
    /// Cancelled; options that the model does not take.
    pub(super) fn records(
        &self,
        model: &LanguageModel,
        texts: &Texts,
        watch: &Watch<'_>,
    ) -> Result<Vec<Encoded>> {
        let mut records = match &self.form {
            Form::Exchange { generator, controls } => exchanges(model, (generator, controls), texts, watch)?,
            Form::Labelled { controls, max_tokens } => {
                labelled(model, (controls, *max_tokens), texts, watch)?
            }
            Form::Dialogue { max_tokens } => dialogues(model, *max_tokens, texts, watch)?,
        };
        records.retain(|record| record.targets() > 0);
        Ok(records)
    }
}

/// Control codes for so many texts, in turn.
fn in_turn(controls: &[String], texts: &Texts) -> Vec<String> {
    controls.iter().cycle().take(texts.count()).cloned().collect()
}

fn exchanges(
    model: &LanguageModel,
    (generator, controls): (&Generator, &[String]),
    texts: &Texts,
    watch: &Watch<'_>,
) -> Result<Vec<Encoded>> {
    let codes = in_turn(controls, texts);
    let pairs: Vec<(String, String)> = match texts {
        Texts::Own(_) => {
            let most = generator.max_tokens.min(QUESTION + generator.answer_tokens);
            told(model, &codes, most, watch)?.iter().map(|text| parted(text)).collect()
        }
        Texts::Public(queries) => {
            queries.iter().cloned().zip(told(model, queries, generator.answer_tokens, watch)?).collect()
        }
    };
    let whole = codes.into_iter().zip(pairs);
    let whole = whole.filter(|(_, (query, response))| !query.is_empty() && !response.is_empty());
    let encoded = whole.map(|(control, (query, response))| {
        language::encoded(model, generator, &Exchange { control, query, response }, true)
    });
    Ok(encoded.collect::<Result<Vec<_>, _>>()?)
}

fn labelled(
    model: &LanguageModel,
    (controls, max_tokens): (&[String], usize),
    texts: &Texts,
    watch: &Watch<'_>,
) -> Result<Vec<Encoded>> {
    let codes = in_turn(controls, texts);
    let texts = match texts {
        Texts::Public(texts) => texts.clone(),
        Texts::Own(_) => told(model, &codes, max_tokens, watch)?.iter().map(|text| one_line(text)).collect(),
    };
    let pairs = codes.iter().zip(&texts).filter(|(_, text)| !text.is_empty());
    let encoded =
        pairs.map(|(code, text)| fdkt::encoded(model, &fdkt::prompt(model, code)?, text, max_tokens));
    Ok(encoded.collect::<Result<Vec<_>, _>>()?)
}

fn dialogues(
    model: &LanguageModel,
    max_tokens: usize,
    texts: &Texts,
    watch: &Watch<'_>,
) -> Result<Vec<Encoded>> {
    let questions = match texts {
        Texts::Public(texts) => texts.clone(),
        Texts::Own(count) => {
            let asked = vec![ASK.to_owned(); *count];
            let written = told(model, &asked, QUESTION.min(max_tokens / 4), watch)?;
            written.iter().map(|text| one_line(text)).collect()
        }
    };
    let answers = told(model, &questions, ANSWER.min(max_tokens / 2), watch)?;
    let pairs = questions.into_iter().zip(answers).filter(|(_, answer)| !answer.is_empty());
    let examples = pairs.map(|(prompt, response)| Example { prompt, response });
    let encoded = examples.map(|example| model.encode_example(&example, max_tokens));
    Ok(encoded.collect::<Result<Vec<_>, _>>()?)
}

/// What the un-tuned model says to these, asked through its chat template: what it goes on with after a control code is nothing at all
/// most of the time, as nobody has tuned it to.
fn told(
    model: &LanguageModel,
    asked: &[String],
    max_tokens: usize,
    watch: &Watch<'_>,
) -> Result<Vec<String>> {
    let how = Sampling { max_tokens: max_tokens.max(1), ..Sampling::default() };
    let mut all = Vec::with_capacity(asked.len());
    for batch in asked.chunks(language::BATCH) {
        (watch.tell)("writing texts to measure on", all.len() as u64, asked.len() as u64);
        let requests: Vec<(String, u64)> = batch.iter().cloned().zip(all.len() as u64..).collect();
        let written = language::answers(model, None, &requests, &how, watch.cancelled)?;
        all.extend(written.into_iter().map(|written| written.text));
    }
    Ok(all)
}

/// A text as a query and a response: behind its first line or sentence; of one without another in two halves.
fn parted(text: &str) -> (String, String) {
    let text = text.trim();
    let end = ["\n", ". ", "? ", "! "].iter().filter_map(|end| text.find(end).map(|at| at + 1)).min();
    let half = || text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    let (query, response) = text.split_at(end.unwrap_or_else(half));
    (query.trim().to_owned(), response.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_parted_behind_its_first_sentence_or_line() {
        let of = |text: &str| parted(text);
        let pair = |query: &str, response: &str| (query.to_owned(), response.to_owned());
        assert_eq!(of("Is it? It is. Yes."), pair("Is it?", "It is. Yes."));
        assert_eq!(of(" Question\n\nAnswer "), pair("Question", "Answer"));
        assert_eq!(of("äöü123"), pair("äöü", "123"));
        assert_eq!(of(""), pair("", ""));
    }
}
