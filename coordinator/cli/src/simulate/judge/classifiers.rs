//! Exact figures of the language model as the task model. Training is most of a run's work, so what the sites have said without
//! noise is taken as it is, and texts alone, which are the same everywhere, are learnt from once.

use std::collections::BTreeMap;

use anyhow::Result;
use sheaf_agent::{
    models,
    task::{
        Resources,
        fdkt::{
            classifier::{Corpus, Given, Known, Trainer},
            transfer,
        },
    },
};
use sheaf_coordinator::report::{ArmReport, JudgedClassifiers};
use sheaf_data::{Dataset, Split};
use sheaf_proto::fdkt::{Arm, ClassifierSpec, Labelled, TaskModel, Texts, Transfer, TransferSpec};

use super::{Prepared, shares};

/// A site's records as the language model reads them.
struct Site {
    records: Dataset,
    own: Vec<Known>,
    test: Vec<Known>,
}

/// What the sites' classifiers and a classifier of all records do on the sites' test records. `written` are the sets of texts of
/// the specification, `known` the exact figures there are already. Fails when cancelled.
pub(super) fn judge(
    (spec, how): (&TransferSpec, &ClassifierSpec),
    prepared: &Prepared,
    written: &[Vec<Labelled>],
    known: BTreeMap<Arm, f64>,
    resources: &Resources<'_>,
    tell: &mut dyn FnMut(&str, u64, u64),
    cancelled: &dyn Fn() -> bool,
) -> Result<JudgedClassifiers> {
    let (encoding, classes) = (&spec.sums.encoding, spec.sums.encoding.classes.as_slice());
    let model = models::language(&how.model, resources)?;
    let arms = spec.arms();
    let said = arms.iter().all(|arm| known.contains_key(arm));
    tell("reading all records with the language model, to measure exactly", 0, 0);
    let mut corpus = Corpus::new(&model, how.max_tokens);
    let mut sites = Vec::new();
    for site in &prepared.sites {
        let records = prepared.site_data(site);
        let own = corpus.records(&records, Split::Train, encoding)?;
        let test = corpus.records(&records, Split::Test, encoding)?;
        sites.push(Site { records, own, test });
    }
    let mut sets: BTreeMap<Texts, Vec<Known>> = BTreeMap::new();
    for (texts, written) in spec.texts.iter().zip(written).filter(|_| !said) {
        sets.insert(*texts, corpus.texts(written, classes)?);
    }
    let trainer = Trainer::new(&corpus, how, classes.len(), cancelled)?;
    let (own, alone): (Vec<Arm>, Vec<Arm>) =
        arms.into_iter().filter(|_| !said).partition(|arm| arm.reads_records());
    let all = (1 + alone.len() + own.len() * sites.len()) as u64;
    let mut done = 0;
    let mut train = |own: &[Known], arm: Arm| {
        tell("training classifiers with all records at hand, to measure exactly", done, all);
        done += 1;
        let texts = arm.texts().and_then(|texts| sets.get(&texts)).map(Vec::as_slice).unwrap_or_default();
        trainer.train((own, spec.weight), texts, cancelled)
    };
    let everything: Vec<Known> = sites.iter().flat_map(|site| site.own.clone()).collect();
    let pooled = train(&everything, Arm::Local)?;
    let mut of_texts = Vec::new();
    for arm in alone {
        of_texts.push((arm, train(&[], arm)?));
    }
    let (mut bound, mut total) = (Transfer::default(), Transfer::default());
    for site in &sites {
        let mut given: Vec<(Arm, Given)> = Vec::new();
        for (arm, classifier) in &of_texts {
            given.push((*arm, trainer.given(classifier, &site.test, cancelled)?));
        }
        for arm in &own {
            let classifier = train(&site.own, *arm)?;
            given.push((*arm, trainer.given(&classifier, &site.test, cancelled)?));
        }
        total.add(&transfer::measured_given(&spec.sums, given, &site.records)?);
        let given = vec![(Arm::Local, trainer.given(&pooled, &site.test, cancelled)?)];
        bound.add(&transfer::measured_given(&spec.sums, given, &site.records)?);
    }
    let task = TaskModel::LanguageModel;
    let arms = if said { known } else { shares(&total, task) };
    Ok(JudgedClassifiers { arms, pooled: bound.accuracy(task, Arm::Local).unwrap_or(0.0) })
}

/// The sites' figures where they are exact: without noise, and of all test records there are.
pub(super) fn exact(said: &[ArmReport], noised: bool, rows: u64) -> BTreeMap<Arm, f64> {
    let of = |report: &&ArmReport| report.task == TaskModel::LanguageModel && report.rows == rows && !noised;
    said.iter().filter(of).map(|report| (report.arm, report.accuracy)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_sites_are_taken_where_they_are_exact_and_of_all_records() {
        let report = |task, arm, rows| ArmReport { task, arm, rows, accuracy: 0.5, sites: BTreeMap::new() };
        let said = [
            report(TaskModel::Analytic, Arm::Local, 40),
            report(TaskModel::LanguageModel, Arm::Local, 40),
            report(TaskModel::LanguageModel, Arm::Fdkt, 39),
        ];
        assert_eq!(exact(&said, false, 40), BTreeMap::from([(Arm::Local, 0.5)]));
        assert!(exact(&said, true, 40).is_empty(), "noised ones are not");
    }
}
