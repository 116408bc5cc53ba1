//! What a simulation compares a federated model with: the model of all rows in one place, and models of single
//! sites on a central test set. The same arithmetic as at the sites, without any of the network in between.

use anyhow::Result;
use sheaf_agent::task::afl::{measure, sums};
use sheaf_analytic::{metrics::ScoreHistogram, solve};
use sheaf_coordinator::{
    report::{LocalScores, Scores},
    run::plan::Plan,
    workload::afl::AflOptions,
};
use sheaf_data::{Dataset, Encoding, SiteRows, Split, survey};
use sheaf_proto::{afl::SumsSpec, model::ModelCard};

use crate::predict::Model;

fn never() -> bool {
    false
}

/// Trains on all training rows of one data set.
pub(crate) fn pooled(plan: &Plan, dataset: &Dataset) -> Result<Model> {
    let options = AflOptions::of(plan)?;
    let standardizes = options.standardizes(plan);
    let survey = survey(dataset, &plan.schema, standardizes)?;
    let encoding = Encoding::decide(&survey, &plan.schema, standardizes)?;
    let features = options.features(encoding.input_dim());
    let spec = SumsSpec { schema: plan.schema.clone(), encoding, features };
    let sums = sums(&spec, dataset, &never)?;
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
        rows: sums.rows(),
        sites: vec!["pooled".to_owned()],
    };
    Ok(Model { card, weights })
}

/// Measures a model on a data set's test rows; none without any.
pub(crate) fn score(model: &Model, dataset: &Dataset, measured_on: &str) -> Result<Option<Scores>> {
    if dataset.rows(Split::Test).is_empty() {
        return Ok(None);
    }
    let (confusion, histogram, _) = measure(&spec_of(&model.card), &model.weights, dataset, &never)?;
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
    let spec = spec_of(&federated.card);
    let test = dataset.rows(Split::Test);
    let chosen = sites.len().min(plan.evaluate.local_sites);
    let mut accuracies = Vec::new();
    for (index, site) in sites.iter().take(chosen).enumerate() {
        progress(index, chosen);
        let own = solve(&sums(&spec, &dataset.subset(&site.rows), &never)?, federated.card.lambda)?;
        let (confusion, ..) = measure(&spec, &own, &dataset.subset(&test), &never)?;
        accuracies.extend(confusion.accuracy());
    }
    let n = accuracies.len();
    Ok((n > 0)
        .then(|| LocalScores { mean_accuracy: accuracies.iter().sum::<f64>() / n as f64, sites_measured: n }))
}

fn spec_of(card: &ModelCard) -> SumsSpec {
    SumsSpec {
        schema: card.reading.clone(),
        encoding: card.encoding.clone(),
        features: card.features.clone(),
    }
}
