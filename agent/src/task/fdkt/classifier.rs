//! A language model as the task model: for each arm an adapter and a head on the last token's state learn classes of own records
//! and of texts. What they have learnt stays at the site; which classes they give to test records is counted.
//!
//! ```text
//! records, texts ──► Corpus: each different sequence once ──► Trainer: the frozen layers once ──► a classifier of each arm
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use sheaf_data::{Dataset, Encoding, Split};
use sheaf_models::{
    Adapter, LanguageModel, ModelError,
    train::{Case, Classifier, Encoded, Frozen, TuneConfig},
};
use sheaf_proto::fdkt::{Arm, ClassifierSpec, Labelled, Texts, TransferSpec};

use super::super::fedavg::lora;
use crate::error::AgentError;

/// The folder of the site's own classifier among what stays there.
const TASK_MODEL: &str = "task-model";

/// Classes that a model has given, by row of a data set.
pub type Given = BTreeMap<usize, usize>;

/// A text with its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The row of the data set, or the place in the set of texts.
    pub row: usize,
    /// The number of its sequence in the corpus.
    pub sequence: usize,
    /// The number of its class.
    pub class: usize,
}

/// Texts as token sequences. A text that is there twice, such as one in two sets, is one sequence.
pub struct Corpus<'a> {
    model: &'a LanguageModel,
    max_tokens: usize,
    sequences: Vec<Encoded>,
    numbers: HashMap<Vec<u32>, usize>,
}

impl<'a> Corpus<'a> {
    /// An empty one; longer texts are cut.
    pub fn new(model: &'a LanguageModel, max_tokens: usize) -> Self {
        Self { model, max_tokens, sequences: Vec::new(), numbers: HashMap::new() }
    }

    fn add(&mut self, text: &str) -> Result<usize, AgentError> {
        let encoded = match self.model.encode_text(text, self.max_tokens) {
            // That a record cannot be encoded is a private fact: it counts as one without words.
            Err(ModelError::Input(_)) => self.model.encode_text("", self.max_tokens)?,
            other => other?,
        };
        let next = self.sequences.len();
        let number = *self.numbers.entry(encoded.tokens.clone()).or_insert(next);
        if number == next {
            self.sequences.push(encoded);
        }
        Ok(number)
    }

    /// Adds a split of a data set of texts. Rows of a class that the encoding does not know are left out.
    ///
    /// # Errors
    /// [`AgentError::Data`] where the records are not texts.
    pub fn records(
        &mut self,
        records: &Dataset,
        split: Split,
        encoding: &Encoding,
    ) -> Result<Vec<Known>, AgentError> {
        let rows = records.rows(split);
        let mut known = Vec::new();
        for (row, label) in rows.iter().zip(encoding.labels(records, &rows)?) {
            let Some(class) = label else { continue };
            let text = records.text(*row).ok_or_else(|| {
                AgentError::Data("a language model is asked for, but the records are not texts".to_owned())
            })?;
            known.push(Known { row: *row, sequence: self.add(text)?, class: class as usize });
        }
        Ok(known)
    }

    /// Adds texts. Those of an unknown class are left out.
    ///
    /// # Errors
    /// [`AgentError::Task`] where the model cannot encode anything.
    pub fn texts(&mut self, texts: &[Labelled], classes: &[String]) -> Result<Vec<Known>, AgentError> {
        let numbers: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
        let mut known = Vec::new();
        for (row, Labelled { text, label }) in texts.iter().enumerate() {
            let Some(class) = numbers.get(label.as_str()) else { continue };
            known.push(Known { row, sequence: self.add(text)?, class: *class });
        }
        Ok(known)
    }
}

/// Trains classifiers on a corpus.
pub struct Trainer<'a> {
    model: &'a LanguageModel,
    records: Frozen<'a>,
    start: Adapter,
    config: TuneConfig,
    classes: usize,
}

impl<'a> Trainer<'a> {
    /// Computes what the layers below the adapter make of the whole corpus.
    ///
    /// # Errors
    /// [`AgentError::Task`] for options that do not fit the model, [`AgentError::Cancelled`].
    pub fn new(
        corpus: &'a Corpus<'a>,
        spec: &ClassifierSpec,
        classes: usize,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, AgentError> {
        let (model, adapter) = (corpus.model, lora::config(&spec.adapter));
        let config = TuneConfig {
            epochs: spec.tuning.epochs as f64,
            batch: spec.tuning.batch,
            max_tokens: spec.max_tokens,
            learning_rate: spec.tuning.learning_rate,
            seed: spec.tuning.seed,
            ..TuneConfig::default()
        };
        config.check()?;
        let start = Adapter::new(model, &adapter, spec.tuning.seed)?;
        let records = Frozen::compute(model, &adapter, &corpus.sequences, cancelled)?;
        Ok(Self { model, records, start, config, classes })
    }

    /// A classifier of records, each of which weighs `weight` texts, and of texts. All begin with the same adapter.
    ///
    /// # Errors
    /// [`AgentError::Task`] where the training diverges, [`AgentError::Cancelled`].
    pub fn train(
        &self,
        (own, weight): (&[Known], u32),
        texts: &[Known],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Classifier, AgentError> {
        let case =
            |weight: f64| move |known: &Known| Case { record: known.sequence, class: known.class, weight };
        let cases: Vec<Case> =
            own.iter().map(case(f64::from(weight))).chain(texts.iter().map(case(1.0))).collect();
        let of = (cases.as_slice(), self.classes);
        Ok(Classifier::train(self.model, &self.start, &self.records, of, &self.config, cancelled)?)
    }

    /// The classes that a classifier gives, by row.
    ///
    /// # Errors
    /// [`AgentError::Cancelled`].
    pub fn given(
        &self,
        classifier: &Classifier,
        test: &[Known],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Given, AgentError> {
        let sequences: Vec<usize> = test.iter().map(|known| known.sequence).collect();
        let classes = classifier.classes(self.model, &self.records, &sequences, cancelled)?;
        Ok(test.iter().map(|known| known.row).zip(classes).collect())
    }
}

/// Test records as a classifier reads them: each alone, since what stands beside a record in a batch changes the rounding of its
/// scores, and no record may have a part in another's.
struct Tests<'a> {
    known: Vec<Known>,
    /// By number of sequence.
    frozen: Vec<Frozen<'a>>,
}

impl<'a> Tests<'a> {
    fn new(
        corpus: &'a Corpus<'a>,
        known: Vec<Known>,
        spec: &ClassifierSpec,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, AgentError> {
        let adapter = lora::config(&spec.adapter);
        let alone =
            |sequence| Frozen::compute(corpus.model, &adapter, std::slice::from_ref(sequence), cancelled);
        let frozen = corpus.sequences.iter().map(alone).collect::<Result<_, _>>()?;
        Ok(Self { known, frozen })
    }

    fn given(
        &self,
        model: &LanguageModel,
        classifier: &Classifier,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Given, AgentError> {
        let mut classes = Vec::new();
        for sequence in &self.frozen {
            classes.extend(classifier.classes(model, sequence, &[0], cancelled)?);
        }
        let of = |known: &Known| Some((known.row, *classes.get(known.sequence)?));
        Ok(self.known.iter().filter_map(of).collect())
    }
}

/// What classifiers are made for at a site.
pub(super) struct Job<'a> {
    pub(super) spec: &'a TransferSpec,
    pub(super) how: &'a ClassifierSpec,
    pub(super) model: &'a LanguageModel,
    /// The sets of the specification, in its order.
    pub(super) texts: &'a [Vec<Labelled>],
    /// Hears how many are trained.
    pub(super) tell: &'a dyn Fn(&str),
    /// Gives a folder of this name for what stays at the site.
    pub(super) keep: &'a dyn Fn(&str) -> Result<Option<PathBuf>, AgentError>,
}

/// What the classifiers of a site's arms give to its test records: first those of texts alone, which know nothing of its records.
/// Under privacy a classifier of records that cannot be trained is left out, and the site's log says why: an answer that fails
/// would say something of them.
///
/// # Errors
/// As for [`Corpus`] and [`Trainer`].
pub(super) fn given(
    job: &Job<'_>,
    records: &Dataset,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Arm, Given)>, AgentError> {
    let Job { spec, how, model, .. } = *job;
    let most = model.config().max_positions;
    if how.max_tokens > most {
        return Err(AgentError::Task(format!(
            "the classifier is to read {} tokens, {} reads {most} at most",
            how.max_tokens, how.model
        )));
    }
    (job.tell)("reading records and texts with the language model");
    let mut corpus = Corpus::new(model, how.max_tokens);
    let known = corpus.records(records, Split::Test, &spec.sums.encoding)?;
    let tests = Tests::new(&corpus, known, how, cancelled)?;
    let mut all = of_texts(job, &tests, cancelled)?;
    match with_records(job, records, &tests, cancelled) {
        Ok(more) => all.extend(more),
        Err(AgentError::Cancelled) => return Err(AgentError::Cancelled),
        Err(error) if spec.sums.privacy.is_some() => {
            tracing::warn!("no classifier of this site's own records: {error}");
        }
        Err(error) => return Err(error),
    }
    Ok(all)
}

/// Numbers of the sets' texts in a corpus.
fn sets(job: &Job<'_>, corpus: &mut Corpus<'_>) -> Result<BTreeMap<Texts, Vec<Known>>, AgentError> {
    let mut sets = BTreeMap::new();
    for (name, texts) in job.spec.texts.iter().zip(job.texts) {
        sets.insert(*name, corpus.texts(texts, &job.spec.sums.encoding.classes)?);
    }
    Ok(sets)
}

/// In a corpus of their own, though the texts are computed once more for the other arms: in one batch with records they would be
/// rounded as the records have it, and what is counted must know nothing of these.
fn of_texts(
    job: &Job<'_>,
    tests: &Tests<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Arm, Given)>, AgentError> {
    let Job { spec, how, model, .. } = *job;
    let mut corpus = Corpus::new(model, how.max_tokens);
    let sets = sets(job, &mut corpus)?;
    let trainer = Trainer::new(&corpus, how, spec.sums.encoding.classes.len(), cancelled)?;
    let mut all = Vec::new();
    for (number, (name, texts)) in sets.iter().enumerate() {
        (job.tell)(&format!("training classifiers of texts, {number} of {}", sets.len()));
        let classifier = trainer.train((&[], spec.weight), texts, cancelled)?;
        all.push((name.alone(), tests.given(model, &classifier, cancelled)?));
    }
    Ok(all)
}

fn with_records(
    job: &Job<'_>,
    records: &Dataset,
    tests: &Tests<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Arm, Given)>, AgentError> {
    let Job { spec, how, model, .. } = *job;
    let mut corpus = Corpus::new(model, how.max_tokens);
    let own = corpus.records(records, Split::Train, &spec.sums.encoding)?;
    let sets = sets(job, &mut corpus)?;
    let trainer = Trainer::new(&corpus, how, spec.sums.encoding.classes.len(), cancelled)?;
    let arms: Vec<Arm> = std::iter::once(Arm::Local).chain(sets.keys().map(|texts| texts.arm())).collect();
    let mut all = Vec::new();
    for (number, arm) in arms.iter().enumerate() {
        (job.tell)(&format!("training classifiers of records, {number} of {}", arms.len()));
        let texts = arm.texts().and_then(|texts| sets.get(&texts)).map(Vec::as_slice).unwrap_or_default();
        let classifier = trainer.train((&own, spec.weight), texts, cancelled)?;
        all.push((*arm, tests.given(model, &classifier, cancelled)?));
        // The site's own task model: of its records and of the most texts there are.
        if Some(arm) == arms.last()
            && let Some(folder) = (job.keep)(TASK_MODEL)?
        {
            classifier.save(&folder, &how.model)?;
        }
    }
    Ok(all)
}
