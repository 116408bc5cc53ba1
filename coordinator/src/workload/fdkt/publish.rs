//! What a run leaves behind.

use std::collections::BTreeMap;

use sheaf_data::catalogue::Catalogue;
use sheaf_proto::{
    fdkt::{Arm, TaskModel, Transfer, WORKLOAD},
    model::ModelCard,
};
use sheaf_transport::{digest::sha256_hex, identity::SiteName};

use super::{
    Worth,
    options::{FdktOptions, classes, encoder},
    refine::{Contributions, Refined, declared},
};
use crate::{
    error::Error,
    report::{ArmReport, LocalScores, SiteMetrics, TransferReport},
    run::plan::Plan,
    workload::{Context, Publication, SitePublication},
};

/// What a run without any text leaves in place of a model.
const NO_MODEL: &str = "no-model.txt";

/// The sets in the order of their worth: the arm that the run is about is the last one there is. Under privacy nothing is said of
/// models that have learnt from records.
fn headline(plan: &Plan, refined: &Refined) -> Option<Arm> {
    let texts = refined.sets.keys().next_back()?;
    Some(if plan.privacy.is_some() { texts.alone() } else { texts.arm() })
}

pub(super) fn publication(
    context: &Context<'_>,
    contributions: Contributions,
    refined: &Refined,
    worth: &Worth,
) -> Result<Publication, Error> {
    let options = FdktOptions::of(context.plan)?;
    let classes = classes(context.plan).to_vec();
    let arms = arms(worth);
    let (task, main) = (options.first_task(), headline(context.plan, refined));
    let members: Vec<&SiteName> = contributions.keys().chain(context.members).collect();
    let site = |site: &SiteName| {
        let transfer = worth.sites.get(site);
        let accuracy = |arm| transfer.and_then(|transfer| transfer.accuracy(task, arm));
        let metrics = SiteMetrics {
            test_rows: transfer.map_or(0, |transfer| transfer.rows),
            accuracy: main.and_then(accuracy),
            balanced_accuracy: None,
            local_accuracy: accuracy(Arm::Local),
        };
        (site.clone(), SitePublication { rows: None, class_counts: Vec::new(), metrics })
    };
    let local: Vec<f64> =
        worth.sites.values().filter_map(|transfer| transfer.accuracy(task, Arm::Local)).collect();
    let sites: BTreeMap<_, _> = members.into_iter().map(site).collect();

    let (model, card, sha256, file) = if let Some(head) = &refined.head {
        let encoding = declared(context)?;
        let card = ModelCard {
            schema: 1,
            workload: WORKLOAD.to_owned(),
            sha256: head.sha256.clone(),
            classes: classes.clone(),
            lambda: options.lambda,
            reading: context.plan.schema.clone(),
            features: options.afl().features(encoding.input_dim()),
            encoding,
            rows: Some(head.rows),
            sites: sites.keys().map(ToString::to_string).collect(),
        };
        (head.model, context.blobs.put(&serde_json::to_vec_pretty(&card)?)?, head.sha256.clone(), None)
    } else {
        let text = b"This run made no texts, so there is no model of texts.\n";
        let blob = context.blobs.put(text)?;
        (blob, blob, sha256_hex(text), Some(NO_MODEL.to_owned()))
    };
    let mut files: BTreeMap<_, _> =
        contributions.iter().map(|(site, blob)| (format!("synthetic/{site}.jsonl"), *blob)).collect();
    files.extend(refined.sets.iter().map(|(texts, blob)| (format!("texts-{}.jsonl", texts.name()), *blob)));
    if options.augments() {
        files.insert("augmented.jsonl".to_owned(), refined.augmented);
    }
    Ok(Publication {
        model,
        card,
        card_file: file.as_ref().map(|_| NO_MODEL.to_owned()),
        model_file: file,
        weight_sha256: sha256,
        dim: declared(context)?.input_dim(),
        test: None,
        local: LocalScores::of(&local),
        sites,
        backend: "cpu".to_owned(),
        rounds: Vec::new(),
        files,
        transfer: Some(TransferReport {
            arms,
            names: names(context.plan, &options)?,
            counts: refined.counts.clone(),
            funnels: refined.funnels.clone(),
            judge: refined.judge.clone(),
            llm: refined.llm.clone(),
            samples: refined.samples.clone(),
            judged: None,
        }),
        reward: None,
        classes,
    })
}

/// What people call the task models of the plan.
fn names(plan: &Plan, options: &FdktOptions) -> Result<BTreeMap<TaskModel, String>, Error> {
    let catalogue = Catalogue::known()?;
    // A title goes on with what kind of file it is.
    let title = |model: &str| {
        let title = catalogue.model(model).ok().and_then(|asset| asset.title.split(',').next());
        title.unwrap_or(model).to_owned()
    };
    let name = |task: &TaskModel| {
        let name = match task {
            TaskModel::Analytic => format!("analytic head on {}", title(&encoder(plan)?.model)),
            TaskModel::LanguageModel => {
                format!("{} with a classification adapter", title(&options.model))
            }
        };
        Ok((*task, name))
    };
    options.task.iter().map(name).collect()
}

/// What was measured of every task model and arm, over all sites and, where it is known, at each.
fn arms(worth: &Worth) -> Vec<ArmReport> {
    let all = || TaskModel::ALL.into_iter().flat_map(|task| Arm::ALL.into_iter().map(move |arm| (task, arm)));
    if let Some(total) = &worth.total {
        let of = |(task, arm)| {
            let (rows, sites) = (total.rows, BTreeMap::new());
            total.accuracy(task, arm).map(|accuracy| ArmReport { task, arm, rows, accuracy, sites })
        };
        return all().filter_map(of).collect();
    }
    let of = |(task, arm): (TaskModel, Arm)| {
        let mut total = Transfer::default();
        let mut sites = BTreeMap::new();
        for (site, transfer) in &worth.sites {
            let Some(accuracy) = transfer.accuracy(task, arm) else { continue };
            total.add(transfer);
            sites.insert(site.to_string(), accuracy);
        }
        let rows = total.rows;
        total.accuracy(task, arm).map(|accuracy| ArmReport { task, arm, rows, accuracy, sites })
    };
    all().filter_map(of).collect()
}
