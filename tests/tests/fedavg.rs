//! Promise: a run of many rounds goes on at the round where its coordinator was killed, does without a site that
//! misses a round and takes it back in the next, and lets no update in that cannot be.

use sheaf_agent::task::fedavg::centralised;
use sheaf_coordinator::{
    run::event::{Event, Next},
    store::Database,
};
use sheaf_data::{Encoding, survey};
use sheaf_proto::{
    afl::SumsSpec,
    fedavg::{Measured, Optimizer, Parameters, ParametersFile, Training, Update},
    v1::{RunDetail, Task, Verdict},
};
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::{Study, features},
    operator::{delivered, status},
    raw::RawSite,
};

/// Feature vectors and a plan of rounds over them.
fn study(seed: u64, run: &str, fedavg: &str) -> Study {
    let plan = format!(
        "[run]\nname = 'rounds'\nworkload = 'fedavg'\n{run}\n[fedavg]\nhead = 'softmax'\nlearning_rate = 1.0\n{fedavg}\n"
    );
    Study { plan, ..features(400, 12, 3, seed, "") }
}

async fn report(cluster: &Cluster) -> serde_json::Value {
    let text = cluster.operator.report_file("run", "report.json", cluster.folder()).await;
    serde_json::from_slice(&text).unwrap()
}

fn names(list: &serde_json::Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_of_one_site_with_all_its_rows_are_training_in_one_place() {
    let study = study(61, "", "rounds = 6\nbatch = 0\nevaluate_every = 3");
    let sites = study.deal(1);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites).await;
    cluster.operator.submit(&study.plan, "run").await;
    let federated = cluster.operator.done("run").await;

    let schema = sheaf_data::Schema::default();
    let surveyed = survey(&study.dataset, &schema, false).unwrap();
    let encoding = Encoding::decide(&surveyed, &schema, false).unwrap();
    let plan = sheaf_coordinator::run::plan::Plan::parse(&study.plan).unwrap();
    let options = sheaf_coordinator::workload::fedavg::FedavgOptions::of(&plan).unwrap();
    let rows =
        SumsSpec { features: options.afl().features(encoding.input_dim()), schema, encoding, privacy: None };
    let training = Training {
        epochs: 6,
        batch: 0,
        learning_rate: 1.0,
        optimizer: Optimizer::Sgd,
        mu: 0.0,
        weight_decay: 0.0,
        seed: 0,
    };
    let alone = centralised(&rows, &study.dataset, &training, &|| false).unwrap();
    assert_eq!(federated, alone.sha256(), "to the bit");

    let report = report(&cluster).await;
    let rounds = report["rounds"].as_array().unwrap();
    let measured: Vec<bool> = rounds.iter().map(|round| round["accuracy"].is_number()).collect();
    assert_eq!(measured, [false, false, true, false, false, true]);
    let losses: Vec<f64> = rounds.iter().map(|round| round["loss"].as_f64().unwrap()).collect();
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    assert_eq!(report["model"]["equal_to_pooled"], serde_json::Value::Null);
    assert!(report["sites"][0]["metrics"]["local_accuracy"].as_f64().unwrap() > 0.5);
}

fn phases(detail: &RunDetail) -> usize {
    detail.phases.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_killed_twice_goes_on_at_the_round_it_was_in() {
    const ROUNDS: usize = 24;
    let study = study(62, "", "rounds = 24\nbatch = 16\nlocal_epochs = 2\nmu = 0.01\nevaluate_every = 24");
    let mut cluster = Cluster::with_sites(Kind::Process, &study, &study.deal(4)).await;
    cluster.operator.submit(&study.plan, "calm").await;
    let calm = cluster.operator.done("calm").await;
    cluster.operator.submit(&study.plan, "run").await;
    for until in [6, 15] {
        let detail = cluster
            .operator
            .until("run", "in its rounds", |detail| phases(detail) >= until && delivered(detail) > 0);
        assert_eq!(status(&detail.await), "running", "killed in the middle");
        cluster.down().await;
        cluster.up().await;
    }
    assert_eq!(cluster.operator.done("run").await, calm, "the same model as without a kill");
    cluster.down().await;
    let journal = Database::open(&cluster.home().database()).unwrap().journal("run").unwrap();
    let mut decided = Vec::new();
    for entry in &journal {
        match &entry.event {
            Event::Decided { next: Next::Collect(phase) } if phase.may_miss => {
                decided.push(phase.name.clone());
            }
            Event::Declined { site, reason } => panic!("{site} declined: {reason}"),
            Event::DeadlinePassed { key } => panic!("the deadline of {key} passed"),
            _ => {}
        }
    }
    let expected: Vec<_> = (1..=ROUNDS).map(|round| format!("round-{round}")).collect();
    assert_eq!(decided, expected, "every round once, in order");
}

/// Answers a round with the parameters it began with.
async fn unchanged(site: &RawSite, task: &Task) -> Update {
    let parameters = Parameters::decode(&site.fetch(task.inputs.first()).await).unwrap();
    Update { parameters, measured: Some(Measured { rows: 100, loss: 1.0 }) }
}

async fn answer(site: &RawSite, task: &Task, update: &Update) {
    let ack = site.answer(task, &update.encode().unwrap()).await.unwrap();
    assert_eq!(ack.verdict(), Verdict::Accepted, "{}", ack.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_away_for_a_round_is_named_and_back_in_the_next() {
    let study = study(63, "quorum = 2\ndeadline = '3s'", "rounds = 3\nevaluate_every = 3");
    let sites = study.deal(3);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let (raw, mut session) = crate::answers::surveyed(&cluster, &study, &sites[0]).await;
    let task = session.task("round-1").await;
    answer(&raw, &task, &unchanged(&raw, &task).await).await;
    let silent = session.task("round-2").await;
    let task = session.task("round-3").await;
    let late = raw.answer(&silent, &unchanged(&raw, &task).await.encode().unwrap()).await;
    assert!(late.map_or(true, |ack| ack.verdict() == Verdict::Late), "that round is over");
    answer(&raw, &task, &unchanged(&raw, &task).await).await;
    crate::answers::decline(&mut session, "evaluate-3").await;
    cluster.operator.done("run").await;

    let report = report(&cluster).await;
    let all: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
    assert_eq!(names(&report["rounds"][0]["sites"]), all);
    assert_eq!(names(&report["rounds"][1]["sites"]), all[1..]);
    assert_eq!(names(&report["rounds"][2]["sites"]), all, "back");
    assert_eq!(report["rounds"][1]["missed"][0]["site"], all[0]);
    let reason = report["rounds"][1]["missed"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("round-2") && reason.contains("deadline"), "{reason}");
    assert!(report["sites"].as_array().unwrap().iter().all(|site| site["status"] == "in"));
    let page = cluster.operator.report_file("run", "report.html", cluster.folder()).await;
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("Accuracy by round") && page.contains("2 of 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_cannot_be_is_refused_and_a_right_one_taken_after_it() {
    type Change = fn(&mut Update);
    let study = study(64, "", "rounds = 2");
    let sites = study.deal(2);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let (raw, mut session) = crate::answers::surveyed(&cluster, &study, &sites[0]).await;
    let hostile: [[(&str, Change); 3]; 2] = [
        [
            ("NaN", |u| u.parameters.get_mut("weight").unwrap().data[5] = f32::NAN),
            ("inf", |u| u.parameters.get_mut("bias").unwrap().data[0] = f32::INFINITY),
            ("shape", |u| {
                let tensor = u.parameters.get_mut("weight").unwrap();
                tensor.shape.reverse();
            }),
        ],
        [
            ("missing", |u| drop(u.parameters.remove("bias"))),
            ("row count", |u| u.measured.as_mut().unwrap().rows = 0),
            ("training rows", |u| u.measured.as_mut().unwrap().rows = u64::MAX),
        ],
    ];
    for (round, hostile) in hostile.iter().enumerate() {
        let name = format!("round-{}", round + 1);
        let task = session.task(&name).await;
        let good = unchanged(&raw, &task).await;
        for (part, change) in hostile {
            let mut bad = good.clone();
            change(&mut bad);
            let ack = raw.answer(&task, &bad.encode().unwrap()).await.unwrap();
            assert_eq!(ack.verdict(), Verdict::Refused, "{part}");
            assert!(ack.reason.contains(&name) && ack.reason.contains(part), "{part}: {}", ack.reason);
        }
        answer(&raw, &task, &good).await;
        crate::answers::decline(&mut session, &format!("evaluate-{}", round + 1)).await;
    }
    cluster.operator.done("run").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_site_is_trained_out_by_going_through_all_rounds_again() {
    let study = study(65, "", "rounds = 3\nfraction = 0.5\nevaluate_every = 3\noptimizer = 'adamw'");
    let sites = study.deal(4);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites).await;
    cluster.operator.submit(&study.plan, "run").await;
    let first = cluster.operator.done("run").await;
    let drawn = report(&cluster).await;
    for round in drawn["rounds"].as_array().unwrap() {
        assert_eq!(
            (round["asked"].as_u64(), names(&round["sites"]).len()),
            (Some(2), 2),
            "half of the sites"
        );
    }
    let gone = names(&drawn["rounds"][0]["sites"])[0].to_owned();
    cluster.operator.withdraw("run", &gone).await;
    cluster.operator.until("run", "in version 2", |detail| status(detail) == "done").await;
    let second = cluster.operator.done("run").await;
    assert_ne!(first, second);
    let after = report(&cluster).await;
    assert_eq!(after["run"]["version"], 2);
    for round in after["rounds"].as_array().unwrap() {
        assert!(!names(&round["sites"]).contains(&gone.as_str()));
    }
    let add = sheaf_proto::v1::RunSite { run_id: "run".to_owned(), site: gone };
    let refused = cluster.operator.rpc.clone().add_site(add).await.unwrap_err();
    assert!(refused.message().contains("rounds of this run are over"), "{}", refused.message());
}
