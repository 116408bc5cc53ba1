//! Models that answer by a script: what a text is worth follows from the text, and who writes it from the proxy's first number.

use std::sync::{Arc, Mutex};

use sheaf_data::Backbone;
use sheaf_proto::{
    fedavg::{AdapterSpec, Parameters, Tensor},
    rewardds::{Exchange, Generator, RewardForm, Target, Written},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    llm::{Llm, Prompt, stub::Scripted},
    models::{
        LocalModels,
        adapted::{AdaptedModels, Ask, Drawing, TargetTuning, TunedTarget, Watch, Writer},
    },
};

/// Candidates of a query, as the plan of the tests has them.
const CANDIDATES: usize = 4;
/// Revisions of a response, as the plan of the tests has them.
const REVISIONS: usize = 3;

/// A tuning of the target.
pub(super) struct Lesson {
    /// First number of the adapter that it began with.
    pub(super) start: Option<f32>,
    pub(super) examples: Vec<(String, String)>,
    pub(super) held: Vec<(String, String)>,
    pub(super) epochs: usize,
}

/// Remembers what it was asked.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) queries: Mutex<Vec<Ask>>,
    /// Of candidate responses.
    pub(super) seeds: Mutex<Vec<u64>>,
    /// First number of the target's adapter, and the question.
    pub(super) asked: Mutex<Vec<(Option<f32>, String)>>,
    pub(super) lessons: Mutex<Vec<Lesson>>,
}

/// What the coordinator is lent.
pub(super) struct Lent {
    pub(super) fake: Arc<Fake>,
    pub(super) llm: Arc<Scripted>,
}

impl LocalModels for Lent {
    fn language(&self, _: Option<&str>) -> Result<Arc<dyn Llm>, Error> {
        Ok(Arc::clone(&self.llm) as Arc<dyn Llm>)
    }

    fn embed(&self, _: &Backbone, texts: &[&str], _: &CancellationToken) -> Result<(usize, Vec<f32>), Error> {
        let letters = |text: &&str| {
            ('a'..='z')
                .map(move |letter| text.to_lowercase().matches(letter).count() as f32)
                .collect::<Vec<_>>()
        };
        Ok((26, texts.iter().flat_map(letters).collect()))
    }

    fn adapted(&self) -> Result<Arc<dyn AdaptedModels>, Error> {
        Ok(Arc::clone(&self.fake) as Arc<dyn AdaptedModels>)
    }
}

/// FNV-1a.
fn digest(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

fn one(name: &str, data: Vec<f32>) -> Parameters {
    [(name.to_owned(), Tensor { shape: vec![data.len()], data })].into()
}

fn first(parameters: &Parameters) -> f32 {
    parameters.values().next().unwrap().data[0]
}

/// What all queries of a proxy begin with.
fn mark(proxy: &Parameters) -> String {
    format!("w{}q", first(proxy) as u32)
}

/// Candidate responses to a query: of 3 to 11 words, no two equally long.
fn response(query: &str, copy: usize) -> String {
    let more = 1 + (digest(query) % 9 + 4 * copy as u64) % 9;
    let about = query.split(' ').next().unwrap();
    let more = (0..more).map(|number| format!(" more{number}")).collect::<Vec<_>>().concat();
    format!("answer{copy} {about}{more}")
}

/// What every proxy finds.
pub(super) fn perplexity(text: &str) -> f64 {
    2.0 + (digest(text) % 17) as f64
}

/// Longer is better; by how much is the proxy's first number.
fn score(proxy: &Parameters, text: &str) -> f64 {
    f64::from(first(proxy)) * text.split(' ').count() as f64 + (digest(text) % 5) as f64 / 10.0
}

/// What the hosted model answers: revisions longer than any candidate.
pub(super) fn improved(prompt: &Prompt) -> String {
    if !prompt.user.contains("### Feedback") {
        return " Say more.\n".to_owned();
    }
    format!("revised {}{}", prompt.options.seed.unwrap(), " longer".repeat(30))
}

impl AdaptedModels for Fake {
    fn first_adapter(&self, _: &str, _: &AdapterSpec, _: u64) -> Result<Parameters, Error> {
        Ok(one("adapter", vec![0.0, 0.0]))
    }

    fn first_reward(&self, _: &Generator, _: &RewardForm, _: u64) -> Result<Parameters, Error> {
        Ok(one("w", vec![0.0]))
    }

    /// Of eight, one that was cut, one too short, one that is another in capitals, one that differs from another in its last word.
    fn queries(
        &self,
        (_, proxy): Writer<'_>,
        asks: &[Ask],
        _: Drawing,
        _: Watch<'_>,
    ) -> Result<Vec<Written>, Error> {
        self.queries.lock().unwrap().extend(asks.iter().cloned());
        let mark = mark(proxy);
        let words = |at: usize| (0..12).map(|word| format!("{mark}{at}t{word}")).collect::<Vec<_>>();
        let text = |at: usize| match at % 8 {
            5 => "too short".to_owned(),
            6 => words(at - 2).join(" ").to_uppercase(),
            7 => format!("{} other", words(at - 7)[..11].join(" ")),
            _ => words(at).join(" "),
        };
        Ok((0..asks.len()).map(|at| Written { text: text(at), ended: at % 8 != 3 }).collect())
    }

    /// The sixth of seven queries gets none that ended; of the others the last candidate is cut, empty or the first in capitals.
    fn responses(
        &self,
        (_, proxy): Writer<'_>,
        asks: &[(Exchange, u64)],
        _: Drawing,
        _: Watch<'_>,
    ) -> Result<Vec<Written>, Error> {
        self.seeds.lock().unwrap().extend(asks.iter().map(|(_, seed)| *seed));
        let mark = mark(proxy);
        let write = |(at, (exchange, _)): (usize, &(Exchange, u64))| {
            assert!(exchange.query.starts_with(&mark), "who wrote a query answers it: {}", exchange.query);
            let (query, copy) = (at / CANDIDATES, at % CANDIDATES);
            let good = response(&exchange.query, copy);
            match (query % 7, copy, query % 3) {
                (5, ..) | (_, 3, 0) => Written { text: good, ended: false },
                (_, 3, 1) => Written { text: String::new(), ended: true },
                (_, 3, _) => Written { text: response(&exchange.query, 0).to_uppercase(), ended: true },
                _ => Written { text: good, ended: true },
            }
        };
        Ok(asks.iter().enumerate().map(write).collect())
    }

    fn perplexities(
        &self,
        (_, proxy): Writer<'_>,
        exchanges: &[Exchange],
        _: Watch<'_>,
    ) -> Result<Vec<f64>, Error> {
        let mark = mark(proxy);
        let of = |exchange: &Exchange| {
            assert!(exchange.query.starts_with(&mark), "who wrote a query is asked: {}", exchange.query);
            perplexity(&exchange.response)
        };
        Ok(exchanges.iter().map(of).collect())
    }

    fn rewards(
        &self,
        _: &Generator,
        (_, proxy): (&RewardForm, &Parameters),
        pairs: &[(&str, &str)],
        _: Watch<'_>,
    ) -> Result<Vec<f64>, Error> {
        Ok(pairs.iter().map(|(_, response)| score(proxy, response)).collect())
    }

    /// Revisions of every other response are longer than any candidate, of the others shorter; of one in five all are cut.
    fn answers(
        &self,
        _: &Target,
        adapter: Option<&Parameters>,
        asks: &[Ask],
        _: Drawing,
        _: Watch<'_>,
    ) -> Result<Vec<Written>, Error> {
        let asked = asks.iter().map(|ask| (adapter.map(first), ask.text.clone()));
        self.asked.lock().unwrap().extend(asked);
        let write = |(at, ask): (usize, &Ask)| {
            if !ask.text.contains("### Feedback") {
                return Written { text: format!("say more in {at}"), ended: true };
            }
            let (query, copy) = (at / REVISIONS, at % REVISIONS);
            let more = if query % 2 == 0 { 30 + copy } else { 0 };
            let text = format!("revised{copy}{}", " longer".repeat(more));
            Written { text, ended: copy != 2 && query % 5 != 4 }
        };
        Ok(asks.iter().enumerate().map(write).collect())
    }

    /// The adapter begins with the number of examples; the rest tells one tuning from another.
    fn tune(
        &self,
        _: &Target,
        start: Option<&Parameters>,
        examples: &[(String, String)],
        held: &[(String, String)],
        how: &TargetTuning,
        _: Watch<'_>,
    ) -> Result<TunedTarget, Error> {
        let lines = examples.iter().map(|(query, response)| format!("{query}\n{response}\n"));
        let all = lines.collect::<Vec<_>>().concat();
        let start = start.map(first);
        let numbers = [examples.len() as f32, start.unwrap_or(-1.0), how.epochs as f32];
        let data = numbers.into_iter().chain([(digest(&all) % 65_536) as f32]).collect();
        let lesson = Lesson { start, examples: examples.to_vec(), held: held.to_vec(), epochs: how.epochs };
        self.lessons.lock().unwrap().push(lesson);
        let tokens = (how.epochs * all.split_whitespace().count()) as u64;
        Ok(TunedTarget { adapter: one("adapter", data), held: vec![3.0, 2.0], pass: 1, tokens })
    }
}
