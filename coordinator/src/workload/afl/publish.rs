//! The model with its card, and what is published of each site.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_analytic::{
    SumsShape, codec,
    metrics::{Confusion, ScoreHistogram},
};
use sheaf_proto::{
    afl::{Evaluation, WORKLOAD},
    model::ModelCard,
};
use sheaf_transport::identity::SiteName;

use super::{EvaluationOutcome, SumsOutcome, SurveyOutcome, secure};
use crate::{
    error::Error,
    report::{LocalScores, Scores, SiteMetrics},
    workload::{Context, Publication, SitePublication},
};

pub(super) fn publish(
    context: &Context<'_>,
    survey: &SurveyOutcome,
    sums: &SumsOutcome,
    evaluation: &EvaluationOutcome,
) -> Result<Publication, Error> {
    let classes = survey.encoding.classes.clone();
    let card = ModelCard {
        schema: 1,
        workload: WORKLOAD.to_owned(),
        sha256: sums.weight_sha256.clone(),
        classes: classes.clone(),
        lambda: sums.lambda,
        reading: context.plan.schema.clone(),
        encoding: survey.encoding.clone(),
        features: survey.features.clone(),
        rows: sums.rows,
        sites: sums.sites().map(SiteName::to_string).collect(),
    };
    let shape = SumsShape::of(&survey.features, classes.len());
    let mut sites = BTreeMap::new();
    for (site, blob) in &sums.contributions {
        let metrics = evaluation.sites.get(site).map(site_metrics).unwrap_or_default();
        if sums.rows.is_none() {
            let private = SitePublication { rows: None, class_counts: Vec::new(), metrics };
            sites.insert(site.clone(), private);
            continue;
        }
        // The sums were checked when they came and again when they were added.
        let head = context.blobs.head(blob, codec::header_len(&shape))?;
        let header = codec::header(&head, &shape).map_err(|e| Error::corrupt(e.to_string()))?;
        let published = SitePublication { rows: Some(header.rows), class_counts: header.counts, metrics };
        sites.insert(site.clone(), published);
    }
    for site in &sums.summed {
        let metrics = evaluation.sites.get(site).map(site_metrics).unwrap_or_default();
        sites.insert(site.clone(), secure::unseen(metrics));
    }
    let local: Vec<f64> = evaluation.sites.values().filter_map(|e| accuracy(e.local.as_ref())).collect();
    let auc = evaluation.scores.as_ref().and_then(ScoreHistogram::auc);
    Ok(Publication {
        model: sums.model,
        card: context.blobs.put(&serde_json::to_vec_pretty(&card)?)?,
        weight_sha256: sums.weight_sha256.clone(),
        dim: survey.features.output_dim(),
        test: evaluation
            .federated
            .as_ref()
            .filter(|confusion| confusion.rows() > 0)
            .map(|confusion| Scores::from_confusion(confusion, auc, &classes, "sites")),
        local: LocalScores::of(&local),
        classes,
        sites,
        backend: backends(evaluation),
        model_file: None,
        card_file: None,
        rounds: Vec::new(),
        files: BTreeMap::new(),
        transfer: None,
        reward: None,
    })
}

/// What the sites computed features on, as they say: each once. Without a pre-trained model it is the CPU.
pub(in crate::workload) fn backends(evaluation: &EvaluationOutcome) -> String {
    let names: BTreeSet<_> = evaluation.sites.values().filter_map(|e| e.backend.as_deref()).collect();
    if names.is_empty() { "cpu".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
}

pub(in crate::workload) fn accuracy(confusion: Option<&Confusion>) -> Option<f64> {
    confusion.and_then(Confusion::accuracy)
}

pub(in crate::workload) fn site_metrics(evaluation: &Evaluation) -> SiteMetrics {
    SiteMetrics {
        test_rows: evaluation.test_rows,
        accuracy: accuracy(evaluation.federated.as_ref()),
        balanced_accuracy: evaluation.federated.as_ref().and_then(Confusion::balanced_accuracy),
        local_accuracy: accuracy(evaluation.local.as_ref()),
    }
}
