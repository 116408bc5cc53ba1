//! What a simulation compares a federated model with: the model of all rows in one place, and models of single
//! sites on a central test set. The same arithmetic as at the sites, without any of the network in between.

use anyhow::{Context as _, Result};
use sheaf_agent::task::{afl, fedavg};
use sheaf_analytic::{
    Sums, SumsShape, Weights, codec,
    metrics::{Confusion, ScoreHistogram},
    solve,
};
use sheaf_coordinator::{
    report::{Comparison, LocalScores, Scores},
    run::plan::Plan,
    workload::{
        afl::AflOptions,
        fedavg::{FedavgOptions, HeadKind},
    },
};
use sheaf_data::{Dataset, Encoding, SiteRows, Split, survey};
use sheaf_proto::{
    afl::SumsSpec,
    fedavg::{BIAS, Parameters, ParametersFile, Training, WEIGHT, WORKLOAD as FEDAVG},
    model::ModelCard,
};

use crate::predict::Model;

fn never() -> bool {
    false
}

/// Measures weights as the workload that made them does.
fn measure(
    card: &ModelCard,
    weights: &Weights,
    dataset: &Dataset,
) -> Result<(Confusion, Option<ScoreHistogram>)> {
    let spec = spec_of(card);
    let (confusion, histogram, _) = if card.workload == FEDAVG {
        fedavg::measure(&spec, weights, dataset, &never)?
    } else {
        afl::measure(&spec, weights, dataset, &never)?
    };
    Ok((confusion, histogram))
}

/// As many passes over the rows as all rounds make, without the pull to a common model.
fn whole(options: &FedavgOptions) -> Training {
    let mut training = options.training();
    training.epochs = training.epochs.saturating_mul(options.rounds as usize);
    training.mu = 0.0;
    training
}

/// The head trained on all training rows in one place, for as many passes as the federated one.
pub(crate) fn pooled_head(plan: &Plan, federated: &Model, dataset: &Dataset) -> Result<Model> {
    let training = whole(&FedavgOptions::of(plan)?);
    let weights = fedavg::centralised(&spec_of(&federated.card), dataset, &training, &never)?;
    let card =
        ModelCard { sha256: weights.sha256(), sites: vec!["pooled".to_owned()], ..federated.card.clone() };
    Ok(Model { card, weights })
}

/// What AFL makes of the same feature rows, and what its sites send for it.
pub(crate) fn afl_on_the_same_rows(
    plan: &Plan,
    federated: &Model,
    dataset: &Dataset,
    sites: &[SiteRows],
) -> Result<Option<Comparison>> {
    let options = FedavgOptions::of(plan)?;
    if options.head != HeadKind::Softmax
        || !options.compares_with_afl()
        || dataset.rows(Split::Test).is_empty()
    {
        return Ok(None);
    }
    let spec = spec_of(&federated.card);
    let shape = SumsShape::of(&spec.features, spec.encoding.classes.len());
    let mut total = Sums::zero(shape.dim, shape.classes, shape.bits);
    let mut bytes_up = 0;
    for site in sites {
        let sums = afl::sums(&spec, &dataset.subset(&site.rows), &never)?;
        bytes_up += codec::encode(&sums).len() as u64;
        total.add(&sums)?;
    }
    let weights = solve(&total, options.afl().lambda)?;
    let (confusion, ..) = afl::measure(&spec, &weights, dataset, &never)?;
    Ok(confusion.accuracy().map(|accuracy| Comparison {
        name: "AFL, one round".to_owned(),
        accuracy,
        bytes_up,
    }))
}

/// Accuracy of a round's parameters on the data set's test rows.
pub(crate) fn round_accuracy(federated: &Model, parameters: &[u8], dataset: &Dataset) -> Result<Option<f64>> {
    let parameters = <Parameters as ParametersFile>::decode(parameters)?;
    let mut values = Vec::new();
    for name in [WEIGHT, BIAS] {
        let tensor =
            parameters.get(name).with_context(|| format!("a round's parameters have no tensor {name}"))?;
        values.extend(tensor.data.iter().map(|value| f64::from(*value)));
    }
    let weights = Weights::new(federated.weights.dim, federated.weights.classes, values)?;
    Ok(measure(&federated.card, &weights, dataset)?.0.accuracy())
}

/// Trains on all training rows of one data set.
pub(crate) fn pooled(plan: &Plan, dataset: &Dataset) -> Result<Model> {
    let options = AflOptions::of(plan)?;
    let encoding = if let Some(encoding) = Encoding::declared(&plan.schema)? {
        encoding
    } else {
        let standardizes = options.standardizes(plan);
        let survey = survey(dataset, &plan.schema, standardizes)?;
        Encoding::decide(&survey, &plan.schema, standardizes)?
    };
    let features = options.features(encoding.input_dim());
    let spec = SumsSpec { schema: plan.schema.clone(), encoding, features, privacy: None };
    let sums = afl::sums(&spec, dataset, &never)?;
    let weights = solve(&sums, options.lambda)?;
    let card = ModelCard {
        schema: 1,
        workload: plan.run.workload.clone(),
        sha256: weights.sha256(),
        classes: spec.encoding.classes.clone(),
        lambda: options.lambda,
        reading: spec.schema,
        encoding: spec.encoding,
        features: spec.features,
        rows: Some(sums.rows()),
        sites: vec!["pooled".to_owned()],
    };
    Ok(Model { card, weights })
}

/// Measures a model on a data set's test rows; none without any.
pub(crate) fn score(model: &Model, dataset: &Dataset, measured_on: &str) -> Result<Option<Scores>> {
    if dataset.rows(Split::Test).is_empty() {
        return Ok(None);
    }
    let (confusion, histogram) = measure(&model.card, &model.weights, dataset)?;
    let auc = histogram.as_ref().and_then(ScoreHistogram::auc);
    Ok(Some(Scores::from_confusion(&confusion, auc, &model.card.classes, measured_on)))
}

/// Accuracy of models of single sites on the data set's test rows: of all sites, or of the first so many of the
/// partition's order, which does not depend on the data.
pub(crate) fn locals(
    federated: &Model,
    plan: &Plan,
    dataset: &Dataset,
    sites: &[SiteRows],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Option<LocalScores>> {
    if !plan.evaluate.local_baseline || dataset.rows(Split::Test).is_empty() {
        return Ok(None);
    }
    let card = &federated.card;
    let test = dataset.rows(Split::Test);
    let chosen = sites.len().min(plan.evaluate.local_sites);
    let mut accuracies = Vec::new();
    for (index, site) in sites.iter().take(chosen).enumerate() {
        progress(index, chosen);
        let own = alone(plan, card, &dataset.subset(&site.rows))?;
        let (confusion, _) = measure(card, &own, &dataset.subset(&test))?;
        accuracies.extend(confusion.accuracy());
    }
    Ok(LocalScores::of(&accuracies))
}

/// The model that a site's own rows give.
fn alone(plan: &Plan, card: &ModelCard, dataset: &Dataset) -> Result<Weights> {
    let spec = spec_of(card);
    Ok(if card.workload == FEDAVG {
        fedavg::centralised(&spec, dataset, &whole(&FedavgOptions::of(plan)?), &never)?
    } else {
        // Not the card's lambda: one that noise asked for is too large for exact sums.
        solve(&afl::sums(&spec, dataset, &never)?, AflOptions::of(plan)?.lambda)?
    })
}

fn spec_of(card: &ModelCard) -> SumsSpec {
    SumsSpec {
        schema: card.reading.clone(),
        encoding: card.encoding.clone(),
        features: card.features.clone(),
        privacy: None,
    }
}
