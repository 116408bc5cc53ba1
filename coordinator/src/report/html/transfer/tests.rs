use std::collections::BTreeMap;

use super::*;
use crate::{
    report::{ArmReport, JudgedClassifiers, NearCopies},
    workload::fdkt::JudgeUse,
};

fn report(tasks: &[TaskModel]) -> TransferReport {
    let arm = |task, arm, accuracy| ArmReport { task, arm, rows: 40, accuracy, sites: BTreeMap::new() };
    let mut arms = Vec::new();
    for task in tasks {
        let more = if *task == TaskModel::Analytic { 0.0 } else { 0.1 };
        arms.push(arm(*task, Arm::Local, 0.5 + more));
        arms.push(arm(*task, Arm::Fdkt, 0.7 + more));
    }
    TransferReport {
        arms,
        names: BTreeMap::from([
            (TaskModel::Analytic, "analytic head on MiniLM".to_owned()),
            (TaskModel::LanguageModel, "SmolLM2 <tuned>".to_owned()),
        ]),
        counts: BTreeMap::from([(Texts::Fdkt, 12)]),
        funnels: BTreeMap::new(),
        judge: JudgeUse::default(),
        llm: None,
        samples: Vec::new(),
        judged: None,
    }
}

fn page(report: &TransferReport) -> String {
    let mut out = String::new();
    write(&mut out, report);
    out
}

#[test]
fn each_task_model_has_a_table_that_names_it() {
    let both = page(&report(&TaskModel::ALL));
    let (first, second) = both.split_once("Task model: SmolLM2 &lt;tuned&gt;").unwrap();
    assert!(first.contains("Task model: analytic head on MiniLM"));
    assert!(first.contains(">70.0%<") && !first.contains(">80.0%<"), "{first}");
    assert!(second.contains(">80.0%<") && !second.contains(">70.0%<"), "{second}");
    assert_eq!(both.matches("<caption>").count(), 2);
    let one = page(&report(&[TaskModel::LanguageModel]));
    assert!(!one.contains("MiniLM") && one.matches("<caption>").count() == 1);
    assert!(page(&report(&[])).contains("was not measured"));
}

#[test]
fn exact_figures_stand_beside_their_model_s_and_the_top_speaks_of_the_first() {
    let mut report = report(&TaskModel::ALL);
    let judged = Judged {
        rows: 40,
        arms: BTreeMap::from([(Arm::Local, 0.41), (Arm::Fdkt, 0.61)]),
        pooled: 0.81,
        language_model: Some(JudgedClassifiers { arms: BTreeMap::from([(Arm::Local, 0.43)]), pooled: 0.83 }),
        near_copies: NearCopies { texts: 0, longest_run: 0, words: 20, found: 0 },
        canaries: Some(Canaries { planted: 10, words: 4, found: 1, longest_run: 4 }),
    };
    report.judged = Some(judged);
    let page = page(&report);
    let (first, second) = page.split_once("Task model: SmolLM2").unwrap();
    for (of, there, not) in
        [(first, ["41.0", "81.0"], ["43.0", "83.0"]), (second, ["43.0", "83.0"], ["41.0", "81.0"])]
    {
        assert!(
            there.iter().all(|figure| of.contains(figure)) && !not.iter().any(|figure| of.contains(figure))
        );
    }
    assert!(page.contains("<strong>1</strong> of the secrets stands in a text that left a site"), "{page}");
    let values = tiles(&report).map(|(_, _, value, _)| value);
    assert!(
        values[0].contains("61.0") && values[1].contains("41.0") && values[2].contains("81.0"),
        "{values:?}"
    );
}

#[test]
fn under_privacy_the_top_speaks_of_texts_alone_and_of_no_site_s_own_model() {
    let mut report = report(&[TaskModel::Analytic]);
    report.arms.retain(|arm| arm.arm == Arm::Fdkt);
    report.arms[0].arm = Arm::FdktAlone;
    let [best, own, _] = tiles(&report).map(|(_, _, value, words)| (value, words));
    assert!(best.0.contains("70.0") && best.1.contains("texts alone"), "{best:?}");
    assert!(own.1.contains("stays at the sites"), "{own:?}");
    assert!(page(&report).contains("nothing is said of models"));
}

#[test]
fn an_older_report_is_one_of_the_analytic_head() {
    let mut json = serde_json::to_value(report(&[TaskModel::Analytic])).unwrap();
    json.as_object_mut().unwrap().remove("names");
    for arm in json["arms"].as_array_mut().unwrap() {
        arm.as_object_mut().unwrap().remove("task");
    }
    let old: TransferReport = serde_json::from_value(json).unwrap();
    assert_eq!(old.said(TaskModel::Analytic, Arm::Fdkt), Some(0.7));
    assert!(page(&old).contains("Task model: analytic head on an encoder"));
}
