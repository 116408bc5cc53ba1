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
