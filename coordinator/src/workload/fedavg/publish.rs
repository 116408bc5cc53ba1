//! The model of the last round and the figures of all of them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use sheaf_analytic::{
    Weights,
    metrics::{Confusion, ScoreHistogram},
};
use sheaf_proto::{
    fedavg::{BIAS, Parameters, ParametersFile, Step, WEIGHT, WORKLOAD},
    model::{ModelCard, write_model},
};
use sheaf_transport::identity::SiteName;

use super::{
    FedavgOptions, HeadKind,
    round::{RoundOutcome, TextOutcome, finished, survey_of},
    step,
};
use crate::{
    error::Error,
    report::{LocalScores, Scores, SiteMetrics},
    run::event::PhaseOutput,
    workload::{
        Context, Publication, RoundPublication, SitePublication,
        adapter::{self, CONFIG_FILE, WEIGHTS_FILE, weight_sha256},
        afl::{EvaluationOutcome, accuracy, backends, outcome, site_metrics},
    },
};

/// All rounds, with what the evaluations after them gave.
fn rounds(
    context: &Context<'_>,
    outputs: &[PhaseOutput],
    head: HeadKind,
) -> Result<(Vec<RoundPublication>, Option<RoundOutcome>), Error> {
    let (mut rounds, mut last) = (Vec::<RoundPublication>::new(), None);
    for output in outputs {
        match step(&output.name)? {
            Step::Survey | Step::Start => {}
            Step::Round(_) => {
                let round: RoundOutcome = outcome(context.blobs, output)?;
                rounds.push(RoundPublication {
                    round: round.round,
                    key: output.key.clone(),
                    parameters: round.parameters,
                    rows: round.rows(),
                    loss: round.loss(),
                    sites: round.sites.keys().cloned().collect(),
                    accuracy: None,
                    test_loss: None,
                });
                last = Some(round);
            }
            Step::Evaluate(_) => {
                let Some(round) = rounds.last_mut() else { continue };
                match head {
                    HeadKind::Softmax => {
                        let evaluation: EvaluationOutcome = outcome(context.blobs, output)?;
                        round.accuracy = accuracy(evaluation.federated.as_ref());
                    }
                    HeadKind::Lora => {
                        let evaluation: TextOutcome = outcome(context.blobs, output)?;
                        let tokens: u64 = evaluation.sites.values().map(|site| site.tokens).sum();
                        let nll: f64 = evaluation.sites.values().map(|site| site.nll).sum();
                        round.test_loss = (tokens > 0).then(|| nll / tokens as f64);
                    }
                }
            }
        }
    }
    Ok((rounds, last))
}

/// Every site that was in any round, with its rows in the last one it was in.
fn takers(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<BTreeMap<SiteName, Option<u64>>, Error> {
    let mut takers = BTreeMap::new();
    for output in finished(outputs) {
        let round: RoundOutcome = outcome(context.blobs, output)?;
        takers.extend(round.sites.into_iter().map(|(site, share)| (site, share.rows)));
    }
    Ok(takers)
}

/// What an evaluation gave; nothing where the newest phase is none.
fn figures<T: Default + DeserializeOwned>(context: &Context<'_>, newest: &PhaseOutput) -> Result<T, Error> {
    match step(&newest.name)? {
        Step::Evaluate(_) => outcome(context.blobs, newest),
        _ => Ok(T::default()),
    }
}

pub(super) fn publish(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Publication, Error> {
    let options = FedavgOptions::of(context.plan)?;
    let (rounds, last) = rounds(context, outputs, options.head)?;
    let last = last.ok_or_else(|| Error::bug("fedavg publishes after a round"))?;
    let newest = outputs.last().ok_or_else(|| Error::bug("fedavg publishes after a phase"))?;
    let takers = takers(context, outputs)?;
    let mut publication = match options.head {
        HeadKind::Softmax => softmax(context, outputs, &last, &takers, &figures(context, newest)?)?,
        HeadKind::Lora => of_adapter(context, &options, &last, &takers, &figures(context, newest)?)?,
    };
    publication.rounds = rounds;
    Ok(publication)
}

fn softmax(
    context: &Context<'_>,
    outputs: &[PhaseOutput],
    last: &RoundOutcome,
    takers: &BTreeMap<SiteName, Option<u64>>,
    evaluation: &EvaluationOutcome,
) -> Result<Publication, Error> {
    let survey = survey_of(context, outputs)?;
    let (encoding, features) = (survey.decided.encoding, survey.decided.features);
    let classes = encoding.classes.clone();
    let parameters = <Parameters as ParametersFile>::decode(&context.blobs.get(&last.parameters)?)
        .map_err(|e| Error::corrupt(e.to_string()))?;
    let values = [WEIGHT, BIAS].into_iter().filter_map(|name| parameters.get(name));
    let values: Vec<f64> = values.flat_map(|tensor| tensor.data.iter().map(|v| f64::from(*v))).collect();
    let weights = Weights::new(features.output_dim(), classes.len(), values)
        .map_err(|e| Error::corrupt(e.to_string()))?;
    let model = write_model(&weights, &features).map_err(|e| Error::bug(e.to_string()))?;
    let card = ModelCard {
        schema: 1,
        workload: WORKLOAD.to_owned(),
        sha256: weights.sha256(),
        classes: classes.clone(),
        lambda: 0.0,
        reading: context.plan.schema.clone(),
        encoding,
        features: features.clone(),
        rows: takers.values().copied().sum(),
        sites: takers.keys().map(ToString::to_string).collect(),
    };
    let sites = takers.iter().map(|(site, rows)| {
        let published = SitePublication {
            rows: *rows,
            class_counts: survey.sites.get(site).cloned().unwrap_or_default(),
            metrics: evaluation.sites.get(site).map(site_metrics).unwrap_or_default(),
        };
        (site.clone(), published)
    });
    let local: Vec<f64> = evaluation.sites.values().filter_map(|e| accuracy(e.local.as_ref())).collect();
    let auc = evaluation.scores.as_ref().and_then(ScoreHistogram::auc);
    let measured = |confusion: &&Confusion| confusion.rows() > 0;
    Ok(Publication {
        model: context.blobs.put(&model)?,
        card: context.blobs.put(&serde_json::to_vec_pretty(&card)?)?,
        weight_sha256: weights.sha256(),
        dim: features.output_dim(),
        test: evaluation
            .federated
            .as_ref()
            .filter(measured)
            .map(|confusion| Scores::from_confusion(confusion, auc, &classes, "sites")),
        local: LocalScores::of(&local),
        sites: sites.collect(),
        classes,
        backend: backends(evaluation),
        model_file: None,
        card_file: None,
        rounds: Vec::new(),
        files: BTreeMap::new(),
        transfer: None,
        reward: None,
    })
}

fn of_adapter(
    context: &Context<'_>,
    options: &FedavgOptions,
    last: &RoundOutcome,
    takers: &BTreeMap<SiteName, Option<u64>>,
    evaluation: &TextOutcome,
) -> Result<Publication, Error> {
    let file = context.blobs.get(&last.parameters)?;
    let parameters =
        <Parameters as ParametersFile>::decode(&file).map_err(|e| Error::corrupt(e.to_string()))?;
    let sites = takers.iter().map(|(site, rows)| {
        let metrics = evaluation.sites.get(site).map_or_else(SiteMetrics::default, |e| SiteMetrics {
            test_rows: e.test_rows,
            ..SiteMetrics::default()
        });
        (site.clone(), SitePublication { rows: *rows, class_counts: Vec::new(), metrics })
    });
    let config = adapter::config(options.model(), options.lora.as_ref(), &parameters);
    Ok(Publication {
        model: last.parameters,
        card: context.blobs.put(&serde_json::to_vec_pretty(&config)?)?,
        model_file: Some(WEIGHTS_FILE.to_owned()),
        card_file: Some(CONFIG_FILE.to_owned()),
        weight_sha256: weight_sha256(&parameters),
        dim: parameters.values().map(|tensor| tensor.data.len()).sum(),
        sites: sites.collect(),
        backend: "cpu".to_owned(),
        classes: Vec::new(),
        test: None,
        local: None,
        rounds: Vec::new(),
        files: BTreeMap::new(),
        transfer: None,
        reward: None,
    })
}
