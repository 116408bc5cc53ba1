//! The softmax head on the feature rows of AFL.

use sheaf_analytic::{
    Featurizer, Weights,
    metrics::{Confusion, ScoreHistogram},
};
use sheaf_data::{Dataset, Split};
use sheaf_models::{
    ModelError,
    heads::softmax::{Head, HeadTraining, Rows, Rule, TrainedHead},
};
use sheaf_proto::{
    afl::{Evaluation, SumsSpec},
    fedavg::{
        BIAS, EvaluateSpec, Measured, Optimizer, Parameters, ParametersFile, RoundSpec, Tensor, Training,
        Update, WEIGHT,
    },
};

use crate::{egress::Made, error::AgentError, task::afl};

/// Rows encoded at a time.
const BLOCK: usize = 1024;

/// All training rows as the head takes them, `[rows, D]`; the constant is the head's own.
struct Features {
    values: Vec<f32>,
    labels: Vec<u32>,
}

/// The integers that AFL sums are below 2^24: nothing is lost in f32.
fn features(
    spec: &SumsSpec,
    dataset: &Dataset,
    cancelled: &dyn Fn() -> bool,
) -> Result<Features, AgentError> {
    let featurizer = Featurizer::new(&spec.features)?;
    let (width, unit) = (spec.features.output_dim(), 1.0 / f64::from(1_u32 << spec.features.bits));
    let rows = dataset.rows(Split::Train);
    let mut values = Vec::with_capacity(rows.len() * (width - 1));
    let mut labels = Vec::with_capacity(rows.len());
    for block in rows.chunks(BLOCK) {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        let inputs = spec.encoding.inputs(dataset, block)?;
        let quantised = featurizer.quantise(&inputs, block.len())?;
        for row in quantised.chunks_exact(width) {
            values.extend(row.iter().take(width - 1).map(|q| (q * unit) as f32));
        }
        for label in spec.encoding.labels(dataset, block)? {
            labels.push(label.ok_or_else(|| {
                AgentError::Data(
                    "a training row has a class that the survey did not count: the data have changed, or this site \
                     came when the classes were settled"
                        .to_owned(),
                )
            })?);
        }
    }
    Ok(Features { values, labels })
}

fn fit(
    start: &Head,
    features: &Features,
    training: &Training,
    seed: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<TrainedHead, AgentError> {
    let options = HeadTraining {
        epochs: training.epochs,
        batch: training.batch,
        learning_rate: training.learning_rate as f32,
        rule: match training.optimizer {
            Optimizer::Sgd => Rule::Sgd { momentum: 0.0 },
            Optimizer::Momentum => Rule::Sgd { momentum: 0.9 },
            Optimizer::AdamW => Rule::AdamW,
        },
        weight_decay: training.weight_decay as f32,
        proximal: training.mu as f32,
        seed,
    };
    let rows = Rows { features: &features.values, labels: &features.labels };
    start.train(rows, &options, cancelled).map_err(|e| match e {
        ModelError::Stopped => AgentError::Cancelled,
        ModelError::Input(problem) => AgentError::Data(problem),
        other => AgentError::Task(other.to_string()),
    })
}

fn zeros(spec: &SumsSpec) -> Head {
    Head::zeros(spec.features.output_dim() - 1, spec.encoding.classes.len())
}

/// The head of a parameter file.
fn read(spec: &SumsSpec, bytes: &[u8]) -> Result<Head, AgentError> {
    let bad = |reason: String| AgentError::Task(format!("the parameters cannot be used: {reason}"));
    let mut parameters = <Parameters as ParametersFile>::decode(bytes).map_err(|e| bad(e.to_string()))?;
    let empty = zeros(spec);
    let mut take = |name: &str, shape: &[usize]| {
        parameters
            .remove(name)
            .filter(|tensor| tensor.shape == shape)
            .map(|tensor| tensor.data)
            .ok_or_else(|| bad(format!("tensor {name} {shape:?} is not there")))
    };
    let weight = take(WEIGHT, &[empty.dim, empty.classes])?;
    let bias = take(BIAS, &[empty.classes])?;
    Ok(Head { weight, bias, ..empty })
}

fn weights(head: &Head) -> Result<Weights, AgentError> {
    let values = head.weight.iter().chain(&head.bias).map(|value| f64::from(*value)).collect();
    Ok(Weights::new(head.dim + 1, head.classes, values)?)
}

/// One round: from the parameters given, on all training rows of the site.
pub(super) fn train(
    spec: &RoundSpec,
    rows: &SumsSpec,
    input: Option<&[u8]>,
    dataset: &Dataset,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Update, Made), AgentError> {
    let start = input.ok_or_else(|| AgentError::Task("the round came without parameters".to_owned()))?;
    let start = read(rows, start)?;
    let features = features(rows, dataset, cancelled)?;
    // Another order in every round, whatever the records are.
    let seed = spec.training.seed.wrapping_add(u64::from(spec.round) << 32);
    let TrainedHead { head, loss } = fit(&start, &features, &spec.training, seed, cancelled)?;
    let tensor = |shape: Vec<usize>, data: Vec<f32>| Tensor { shape, data };
    let parameters = [
        (WEIGHT.to_owned(), tensor(vec![head.dim, head.classes], head.weight)),
        (BIAS.to_owned(), tensor(vec![head.classes], head.bias)),
    ];
    let rows = features.labels.len() as u64;
    let update = Update { parameters: parameters.into(), measured: Some(Measured { rows, loss }) };
    Ok((update, Made::OfRows(rows)))
}

/// A head trained on a data set alone, from zero: what a site would have by itself, or all rows in one place.
pub fn centralised(
    rows: &SumsSpec,
    dataset: &Dataset,
    training: &Training,
    cancelled: &dyn Fn() -> bool,
) -> Result<Weights, AgentError> {
    let features = features(rows, dataset, cancelled)?;
    weights(&fit(&zeros(rows), &features, training, training.seed, cancelled)?.head)
}

/// Measures a head: as AFL's models are, with probabilities for scores.
pub fn measure(
    rows: &SumsSpec,
    weights: &Weights,
    dataset: &Dataset,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Confusion, Option<ScoreHistogram>, u64), AgentError> {
    afl::measure_with(rows, weights, (dataset, &dataset.rows(Split::Test)), soften, cancelled)
}

/// Scores become probabilities, which fit the histogram's range; their order stays.
fn soften(scores: &mut [f64]) {
    let largest = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
    scores.iter_mut().for_each(|score| *score = (*score - largest).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

pub(super) fn evaluate(
    spec: &EvaluateSpec,
    rows: &SumsSpec,
    input: &[u8],
    dataset: &Dataset,
    min_rows: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Evaluation, AgentError> {
    let weights = weights(&read(rows, input)?)?;
    let own = || match &spec.local {
        Some(training) if !dataset.rows(Split::Train).is_empty() => {
            centralised(rows, dataset, training, cancelled).map(Some)
        }
        _ => Ok(None),
    };
    let measured = |weights: &Weights| measure(rows, weights, dataset, cancelled);
    afl::compare(dataset, min_rows, &weights, own, measured)
}
