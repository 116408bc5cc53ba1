//! Promise: with secure aggregation the model is the same to the bit, and the coordinator holds no site's sums; sites may
//! drop out, a killed coordinator goes on, and nobody opens a sum that gives a single site away.

use std::fs;

use sheaf_coordinator::run::event::Event;
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::{Study, features, table},
    operator::{phase, status},
    site::Rules,
};

const STAGES: [&str; 5] = ["sums.advertise", "sums.shares", "sums.input", "sums.vote", "sums.unmask"];

/// Which phases a run has asked, in order.
fn phases(cluster: &Cluster, run: &str) -> Vec<String> {
    let journal = cluster.hub().database.journal(run).unwrap();
    let asked = journal.into_iter().filter_map(|entry| match entry.event {
        Event::Decided { next: sheaf_coordinator::run::event::Next::Collect(phase) } => Some(phase.name),
        _ => None,
    });
    asked.collect()
}

async fn same_hash(study: &Study) {
    let cluster = Cluster::with_sites(Kind::Here, study, &study.deal(4)).await;
    cluster.operator.submit(&study.plan, "run").await;
    assert_eq!(cluster.operator.done("run").await, study.pooled_hash());
    let asked = phases(&cluster, "run");
    assert!(!asked.contains(&"sums".to_owned()), "nobody is asked for plain sums: {asked:?}");
    assert!(STAGES.iter().all(|stage| asked.contains(&(*stage).to_owned())), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn features_give_the_same_hash() {
    same_hash(&features(400, 10, 3, 71, "secure_aggregation = true")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standardised_table_gives_the_same_hash() {
    same_hash(&table(400, 72, "secure_aggregation = true")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_falls_silent_before_the_sum_is_not_in_it() {
    let study = features(500, 8, 3, 73, "secure_aggregation = true\nquorum = 3\ndeadline = '4s'");
    let sites = study.deal(5);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let (_raw, mut session) = crate::answers::surveyed(&cluster, &study, &sites[0]).await;
    session.task("sums.advertise").await;
    drop(session);
    assert_eq!(cluster.operator.done("run").await, study.hash_of_sites(&sites[1..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_goes_on_within_the_sum() {
    let study = features(400, 10, 3, 74, "secure_aggregation = true");
    let mut cluster = Cluster::with_sites(Kind::Process, &study, &study.deal(4)).await;
    let operator = cluster.operator.clone();
    operator.submit(&study.plan, "run").await;
    operator.until("run", "the sum has begun", |detail| phase(detail).starts_with("sums.")).await;
    cluster.down().await;
    cluster.up().await;
    assert_eq!(operator.done("run").await, study.pooled_hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sites_do_not_help_to_single_one_out() {
    let study = features(500, 8, 3, 75, "secure_aggregation = true\nquorum = 3\ndeadline = '10s'");
    let sites = study.deal(5);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites).await;
    let operator = &cluster.operator;
    operator.submit(&study.plan, "run").await;
    operator.done("run").await;
    operator.withdraw("run", &sites[0].name).await;
    let detail = operator.ended("run").await;
    assert_eq!(status(&detail), "failed");
    let reason = detail.summary.unwrap().reason;
    assert!(reason.contains("single them out"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_takes_part_with_its_pinned_peers_alone() {
    let study = features(400, 8, 3, 76, "secure_aggregation = true\ndeadline = '10s'");
    let sites = study.deal(4);
    let mut cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let site = cluster.enrol(&study, &sites[0], &Rules::default()).await;
    let pinned = format!("[policy]\npeers = {{ \"{}\" = \"{}\" }}\n", sites[1].name, "0".repeat(64));
    let config = fs::read_to_string(site.config_file()).unwrap().replace("[policy]\n", &pinned);
    fs::write(site.config_file(), config).unwrap();
    cluster.start_agent(&sites[0].name);
    cluster.operator.submit(&study.plan, "run").await;
    let detail = cluster.operator.ended("run").await;
    assert_eq!(status(&detail), "failed");
    let reason = detail.summary.unwrap().reason;
    assert!(reason.contains("[policy] peers") && reason.contains("sheaf-agent status"), "{reason}");
}

/// The values of a published model.
async fn weights(cluster: &Cluster, run: &str) -> Vec<f64> {
    let file = cluster.operator.report_file(run, "model.safetensors", cluster.folder()).await;
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut names = tensors.names();
    names.sort_unstable();
    let of = |name: &&str| tensors.tensor(name).unwrap().data().to_vec();
    names
        .iter()
        .flat_map(of)
        .collect::<Vec<u8>>()
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| f64::from_le_bytes(*b))
        .collect()
}

/// FedAvg's sums are on a grid of 2^-24: the models are equal to a millionth, and no site's update is at the coordinator.
#[tokio::test(flavor = "multi_thread")]
async fn rounds_of_averaging_give_the_same_model_to_a_millionth() {
    let plan = |run: &str| {
        format!(
            "[run]\nname = 'rounds'\nworkload = 'fedavg'\nmax_site_rows = 5000\n{run}\n[fedavg]\nhead = 'softmax'\n\
             learning_rate = 1.0\nrounds = 3\nbatch = 0\n[evaluate]\nlocal_baseline = false\n"
        )
    };
    let study = features(400, 10, 3, 77, "");
    let cluster = Cluster::with_sites(Kind::Here, &study, &study.deal(4)).await;
    cluster.operator.submit(&plan(""), "plain").await;
    cluster.operator.done("plain").await;
    cluster.operator.submit(&plan("secure_aggregation = true"), "masked").await;
    cluster.operator.done("masked").await;
    let asked = phases(&cluster, "masked");
    assert!(
        asked.contains(&"round-3.unmask".to_owned()) && !asked.contains(&"round-1".to_owned()),
        "{asked:?}"
    );
    let (plain, masked) = (weights(&cluster, "plain").await, weights(&cluster, "masked").await);
    assert_eq!(plain.len(), masked.len());
    let apart = plain.iter().zip(&masked).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart > 0.0 && apart < 1e-6, "{apart}");
    let report = cluster.operator.report_file("masked", "report.json", cluster.folder()).await;
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["rounds"][2]["rows"], 320, "the sites' rows are in the sum");
    assert!(report["rounds"][2]["loss"].is_null() && report["sites"][0]["rows"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_those_of_all_sites_together() {
    let run = |masked: bool| format!("secure_aggregation = {masked}");
    let study = table(400, 78, &run(false));
    let masked = table(400, 78, &run(true));
    let cluster = Cluster::with_sites(Kind::Here, &study, &study.deal(4)).await;
    let mut reports = Vec::new();
    for (name, study) in [("plain", &study), ("masked", &masked)] {
        cluster.operator.submit(&study.plan, name).await;
        cluster.operator.done(name).await;
        let text = cluster.operator.report_file(name, "report.json", cluster.folder()).await;
        reports.push(serde_json::from_slice::<serde_json::Value>(&text).unwrap());
    }
    let (plain, masked) = (&reports[0], &reports[1]);
    assert_eq!(plain["model"]["sha256"], masked["model"]["sha256"]);
    for figure in ["accuracy", "balanced_accuracy", "auc", "confusion", "rows"] {
        assert_eq!(plain["metrics"]["test"][figure], masked["metrics"]["test"][figure], "{figure}");
    }
    assert!(plain["sites"][0]["metrics"]["accuracy"].is_number());
    assert!(masked["sites"][0]["metrics"]["accuracy"].is_null() && masked["metrics"]["local"].is_null());
}
