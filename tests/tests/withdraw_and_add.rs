//! Promise: after a withdrawal the model is the model of the others, as if the site had never taken part; a late
//! site taken in gives the model of all.

use std::time::{Duration, Instant};

use sheaf_coordinator::run::event::Event;
use sheaf_proto::BlobId;
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::{Study, features, table},
    site::Rules,
};

/// Blobs a site delivered to a run, ever.
fn delivered_by(cluster: &Cluster, run: &str, name: &str) -> Vec<BlobId> {
    let journal = cluster.hub().database.journal(run).unwrap();
    journal
        .into_iter()
        .filter_map(|entry| match entry.event {
            Event::Delivered { site, delivery, .. } if site.as_str() == name => Some(delivery.blob),
            _ => None,
        })
        .collect()
}

async fn gone(cluster: &Cluster, blobs: &[BlobId]) {
    let began = Instant::now();
    while blobs.iter().any(|blob| cluster.hub().blobs.contains(blob)) {
        assert!(began.elapsed() < Duration::from_secs(20), "a withdrawn answer is still held");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn withdraw_then_add(study: &Study) {
    let sites = study.deal(5);
    let (late, early) = sites.split_last().unwrap();
    let mut cluster = Cluster::with_sites(Kind::Here, study, early).await;
    let operator = cluster.operator.clone();
    operator.submit(&study.plan, "run").await;
    assert_eq!(operator.done("run").await, study.hash_of_sites(early), "without the late site");

    cluster.join(study, late, &Rules::default()).await;
    operator.add("run", &late.name).await;
    assert_eq!(operator.done("run").await, study.pooled_hash(), "with it");

    let leaving = &early[1].name;
    let theirs = delivered_by(&cluster, "run", leaving);
    assert!(theirs.len() >= 3, "survey, sums, evaluation: {theirs:?}");
    let others: Vec<_> = sites.iter().filter(|site| site.name != *leaving).collect();
    operator.withdraw("run", leaving).await;
    assert_eq!(operator.done("run").await, study.hash_of_sites(others), "after the withdrawal");
    gone(&cluster, &theirs).await;
    let detail = operator.show("run").await.unwrap();
    assert_eq!(detail.summary.unwrap().version, 3);
    let member = detail.members.iter().find(|m| m.site == *leaving).unwrap();
    assert_eq!(member.status, "withdrawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn features_by_adding_and_subtracting() {
    withdraw_then_add(&features(500, 10, 4, 41, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standardised_table_by_asking_again() {
    withdraw_then_add(&table(400, 42, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_comes_back() {
    let study = features(300, 8, 3, 43, "deadline = '20s'");
    let sites = study.deal(3);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites).await;
    let operator = &cluster.operator;
    operator.submit(&study.plan, "run").await;
    operator.done("run").await;
    operator.withdraw("run", &sites[0].name).await;
    assert_eq!(operator.done("run").await, study.hash_of_sites(&sites[1..]));
    gone(&cluster, &delivered_by(&cluster, "run", &sites[0].name)).await;
    // Its answers were deleted here and at the site: it is asked, and answers, anew.
    operator.add("run", &sites[0].name).await;
    assert_eq!(operator.done("run").await, study.pooled_hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_from_one_run_leaves_another_whole() {
    let study = features(300, 8, 3, 44, "");
    let sites = study.deal(4);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites).await;
    let operator = &cluster.operator;
    for run in ["one", "two"] {
        operator.submit(&study.plan, run).await;
        operator.done(run).await;
    }
    operator.withdraw("one", &sites[0].name).await;
    assert_eq!(operator.done("one").await, study.hash_of_sites(&sites[1..]));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The same answers were given to both runs; the second still needs them.
    for blob in delivered_by(&cluster, "two", &sites[0].name) {
        assert!(cluster.hub().blobs.contains(&blob), "an answer to run two went with run one");
    }
    operator.withdraw("two", &sites[1].name).await;
    let left: Vec<_> = sites.iter().filter(|s| s.name != sites[1].name).collect();
    assert_eq!(operator.done("two").await, study.hash_of_sites(left));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_held_gives_a_withdrawn_contribution_away() {
    let study = features(300, 8, 3, 45, "");
    let sites = study.deal(3);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites).await;
    let operator = &cluster.operator;
    operator.submit(&study.plan, "run").await;
    operator.done("run").await;
    let sums = merged(&cluster);
    operator.withdraw("run", &sites[0].name).await;
    operator.done("run").await;
    // The total with the site minus the total without it is the site's contribution.
    gone(&cluster, &[sums]).await;
}

/// The merged sums of the run's latest version.
fn merged(cluster: &Cluster) -> BlobId {
    let hub = cluster.hub();
    let run = hub.run("run").unwrap();
    let output = run.run().outputs.iter().find(|output| output.name == "sums").unwrap().output;
    let outcome: serde_json::Value = serde_json::from_slice(&hub.blobs.get(&output).unwrap()).unwrap();
    outcome["merged"].as_str().unwrap().parse().unwrap()
}
