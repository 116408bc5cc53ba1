//! Sites train one task model or two: what they are asked, and what a report says of it.

use sheaf_proto::fdkt::{Arm, TaskModel};

use super::*;
use crate::report::TransferReport;

fn output(world: &World, name: &str, document: &[u8]) -> PhaseOutput {
    PhaseOutput {
        name: name.to_owned(),
        key: name.to_owned(),
        output: world.blobs.put(document).unwrap(),
        members: Vec::new(),
        round: false,
    }
}

/// Asks what the texts are worth, answers for two sites, publishes.
fn measured(more: &str, answers: [&str; 2]) -> (TransferSpec, TransferReport, Publication) {
    let world = World::new(&format!("{PLAN}arms = ['synthetic']\n{more}"), false, lists);
    let refined = world.refine(Some(&world.pool(SITES))).unwrap();
    let context = Context {
        plan: &world.plan,
        blobs: &world.blobs,
        members: &[],
        run_id: "x-1",
        version: 1,
        authority: &[],
        tools: None,
    };
    let pool = serde_json::to_vec(&world.pool(SITES)).unwrap();
    let refined = serde_json::to_vec(&refined).unwrap();
    let mut outputs = vec![output(&world, SYNTHESISE, &pool), output(&world, REFINE, &refined)];
    let Next::Collect(phase) = Fdkt.next(&context, &outputs).unwrap() else { panic!("it is measured") };
    let spec: TransferSpec = serde_json::from_slice(&world.blobs.get(&phase.spec).unwrap()).unwrap();
    let mut contributions = Vec::new();
    for (number, answer) in answers.iter().enumerate() {
        let site: SiteName = format!("site-{number}").parse().unwrap();
        let file = world.folder.path().join("answer");
        fs::write(&file, answer).unwrap();
        Fdkt.check_result(&context, &phase, &site, &file).unwrap();
        contributions.push((site, world.blobs.put(answer.as_bytes()).unwrap()));
    }
    let answers = Answers { phase: &phase, contributions: &contributions, outputs: &outputs, previous: None };
    let worth = Fdkt.reduce(&context, &answers).unwrap();
    outputs.push(output(&world, TRANSFER, &worth));
    let published = Fdkt.publish(&context, &outputs).unwrap();
    (spec, published.transfer.clone().unwrap(), published)
}

#[test]
fn without_a_word_of_it_sites_train_the_analytic_head_alone() {
    let answer = r#"{"rows":10,"correct":{"analytic":{"local":6,"synthetic":8}}}"#;
    let (spec, report, published) = measured("", [answer, answer]);
    assert_eq!((spec.task, spec.classifier), (vec![TaskModel::Analytic], None));
    assert_eq!(report.tasks(), [TaskModel::Analytic]);
    assert_eq!(report.name(TaskModel::Analytic), "analytic head on all-MiniLM-L6-v2");
    let site = &published.sites[&"site-0".parse().unwrap()];
    assert_eq!((site.metrics.accuracy, site.metrics.local_accuracy), (Some(0.8), Some(0.6)));
}

#[test]
fn both_task_models_are_asked_for_and_told_apart() {
    let more = "task = ['analytic', 'language-model']\nclassifier = { epochs = 3, seed = 5 }\n";
    let one = r#"{"rows":10,"correct":{"analytic":{"local":6,"synthetic":8},
        "language-model":{"local":5,"synthetic":9}}}"#;
    let other = r#"{"rows":30,"correct":{"analytic":{"local":18,"synthetic":27},
        "language-model":{"local":30,"synthetic":30}}}"#;
    let (spec, report, published) = measured(more, [one, other]);
    assert_eq!(spec.task, TaskModel::ALL);
    let classifier = spec.classifier.unwrap();
    assert_eq!((classifier.tuning.epochs, classifier.tuning.seed), (3, 5));
    assert_eq!((classifier.model.as_str(), classifier.model_sha256.len()), ("smollm2-135m", 64));
    assert_eq!(report.tasks(), TaskModel::ALL);
    assert_eq!(report.name(TaskModel::LanguageModel), "SmolLM2-135M-Instruct with a classification adapter");
    let said = |task, arm| report.said(task, arm).unwrap();
    assert!((said(TaskModel::Analytic, Arm::Synthetic) - 35.0 / 40.0).abs() < 1e-12);
    assert!((said(TaskModel::LanguageModel, Arm::Local) - 35.0 / 40.0).abs() < 1e-12);
    assert_eq!(report.said(TaskModel::LanguageModel, Arm::Fdkt), None);
    let site = &published.sites[&"site-0".parse().unwrap()];
    assert_eq!(site.metrics.accuracy, Some(0.8), "a site's own figures are those of the analytic head");
}

#[test]
fn a_plan_may_ask_for_the_language_model_alone() {
    let answer = r#"{"rows":10,"correct":{"language-model":{"local":5,"synthetic":9}}}"#;
    let (spec, report, published) = measured("task = ['language-model']\n", [answer, answer]);
    assert_eq!(spec.task, [TaskModel::LanguageModel]);
    assert_eq!(report.tasks(), [TaskModel::LanguageModel]);
    let site = &published.sites[&"site-0".parse().unwrap()];
    assert_eq!((site.metrics.accuracy, site.metrics.local_accuracy), (Some(0.9), Some(0.5)));
}
