//! Promise: a run waits as long as its plan says, goes on with enough sites, names those that are missing and why,
//! and can be started again.

use std::time::{Duration, Instant};

use sheaf_proto::v1::Verdict;
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::{features, table},
    operator::{member, status},
    proxy::{Fault, Proxy, Way},
    raw::RawSite,
    site::Rules,
};
use sheaf_transport::digest::blob_id;

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_site_is_dropped_at_the_deadline_and_its_late_answer_told_so() {
    let study = features(300, 8, 3, 51, "quorum = 2\ndeadline = '3s'");
    let sites = study.deal(3);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let silent = RawSite::enrol(&cluster, &sites[0].name).await;
    let mut session = silent.session().await.unwrap();
    cluster.operator.submit(&study.plan, "run").await;
    let task = session.task("survey").await;
    assert_eq!(cluster.operator.done("run").await, study.hash_of_sites(&sites[1..]));
    let detail = cluster.operator.show("run").await.unwrap();
    let (how, why) = member(&detail, &sites[0].name);
    assert_eq!(how, "dropped");
    assert!(why.contains("survey") && why.contains("deadline"), "{why}");
    let ack = silent.submit(&task, blob_id(b"too late")).await.unwrap();
    assert_eq!(ack.verdict(), Verdict::Late);
    assert!(ack.reason.contains("went on without"), "{}", ack.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_falls_silent_after_the_survey_leaves_no_trace_in_the_model() {
    // The encoding of a table depends on every survey: it must be decided anew without the lost site.
    let study = table(300, 52, "quorum = 2\ndeadline = '3s'");
    let sites = study.deal(3);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let (_raw, mut session) = crate::answers::surveyed(&cluster, &study, &sites[0]).await;
    session.task("sums").await;
    drop(session);
    assert_eq!(cluster.operator.done("run").await, study.hash_of_sites(&sites[1..]));
    let detail = cluster.operator.show("run").await.unwrap();
    assert_eq!(member(&detail, &sites[0].name).0, "dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_quorum_the_run_fails_with_names_and_goes_on_when_they_are_back() {
    let study = features(300, 8, 3, 53, "deadline = '3s'");
    let sites = study.deal(3);
    let mut cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    cluster.enrol(&study, &sites[0], &Rules::default()).await;
    let operator = cluster.operator.clone();
    operator.submit(&study.plan, "run").await;
    let detail = operator.ended("run").await;
    assert_eq!(status(&detail), "failed");
    let reason = detail.summary.unwrap().reason;
    for part in [sites[0].name.as_str(), "survey", "2 of 3", "3 are needed", "resume"] {
        assert!(reason.contains(part), "no {part:?} in {reason:?}");
    }
    cluster.start_agent(&sites[0].name);
    operator.connected(&sites[0].name, true).await;
    operator.resume("run").await;
    assert_eq!(operator.done("run").await, study.pooled_hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_dropped_while_its_answer_is_on_the_way_can_be_taken_in_again() {
    let study = features(300, 600, 3, 54, "quorum = 2\ndeadline = '4s'");
    let sites = study.deal(3);
    let name = &sites[0].name;
    let mut cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let proxy = Proxy::before(cluster.port()).await;
    let rules = Rules { url: Some(proxy.url()), ..Rules::default() };
    cluster.join(&study, &sites[0], &rules).await;
    let operator = cluster.operator.clone();
    operator.connected(name, true).await;
    // Only the sums are so large: they stick on their way.
    proxy.plan(Way::Up, 100_000, Fault::Hold);
    operator.submit(&study.plan, "run").await;
    assert_eq!(operator.done("run").await, study.hash_of_sites(&sites[1..]));
    assert_eq!(proxy.faults(), 1);
    let detail = operator.show("run").await.unwrap();
    let (how, why) = member(&detail, name);
    assert_eq!(how, "dropped");
    assert!(why.contains("sums"), "{why}");
    let site = cluster.sites[name].clone();
    assert_eq!(site.state().pending().unwrap().len(), 1);

    // The late answer is turned away and leaves the outbox.
    proxy.release();
    let began = Instant::now();
    while !site.state().pending().unwrap().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(40), "the late answer finds no end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let detail = operator.show("run").await.unwrap();
    assert_eq!(detail.summary.unwrap().version, 1, "a late answer changes nothing");
    // Taken in, the site gives it again.
    operator.connected(name, true).await;
    operator.add("run", name).await;
    assert_eq!(operator.done("run").await, study.pooled_hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_says_no_is_named_with_its_reason() {
    let study = features(300, 8, 3, 55, "quorum = 2");
    let sites = study.deal(4);
    let mut cluster = Cluster::with_sites(Kind::Here, &study, &sites[2..]).await;
    let shy = Rules { min_cohort: 10, ..Rules::default() };
    let strict = Rules { min_rows: 1000, ..Rules::default() };
    cluster.join(&study, &sites[0], &shy).await;
    cluster.join(&study, &sites[1], &strict).await;
    cluster.operator.submit(&study.plan, "run").await;
    assert_eq!(cluster.operator.done("run").await, study.hash_of_sites(&sites[2..]));
    let detail = cluster.operator.show("run").await.unwrap();
    let (how, why) = member(&detail, &sites[0].name);
    assert_eq!(how, "declined");
    assert!(why.contains("at least 10"), "{why}");
    let (how, why) = member(&detail, &sites[1].name);
    assert_eq!(how, "declined");
    assert!(why.contains("1000 training rows"), "{why}");
    // What was denied was not written down as having left.
    assert!(cluster.sites[&sites[1].name].releases().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_computed_before_a_person_says_yes() {
    let study = features(300, 8, 3, 56, "");
    let sites = study.deal(2);
    let mut cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let ask = Rules { approve: "ask", ..Rules::default() };
    cluster.join(&study, &sites[0], &ask).await;
    let operator = cluster.operator.clone();
    operator.connected(&sites[0].name, true).await;
    operator.submit(&study.plan, "run").await;
    operator
        .until("run", "waiting for approval", |detail| {
            detail.members.iter().any(|m| m.site == sites[0].name && m.task == "awaiting approval")
        })
        .await;
    // Longer than the agent's own poll for an approval.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let site = &cluster.sites[&sites[0].name];
    assert!(site.releases().is_empty(), "nothing has left");
    let waiting = site.state().approval_requests().unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].run_id.as_str(), waiting[0].dataset.as_str()), ("run", "data"));
    assert_eq!(status(&operator.show("run").await.unwrap()), "running");
    site.state().decide("run", true).unwrap();
    assert_eq!(operator.done("run").await, study.pooled_hash());
    assert_eq!(site.releases().len(), 3, "one yes is for the whole run");

    // Another run is another question, to which the answer may be no.
    operator.submit(&study.plan, "again").await;
    operator
        .until("again", "waiting for approval", |detail| {
            detail.members.iter().any(|m| m.task == "awaiting approval")
        })
        .await;
    site.state().decide("again", false).unwrap();
    let detail = operator.ended("again").await;
    assert_eq!(status(&detail), "failed", "without a quorum in the plan all are needed");
    let (how, why) = member(&detail, &sites[0].name);
    assert_eq!(how, "declined");
    assert!(why.contains("said no"), "{why}");
    assert_eq!(site.releases().len(), 3, "nothing left for the second run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_the_policy_does_not_name_is_declined_before_anything_is_read() {
    let study = features(120, 4, 2, 71, "");
    let sites = study.deal(2);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites).await;
    let plan = format!("{}[schema.backbone]\nmodel = 'minilm-l6'\n", study.plan);
    cluster.operator.submit(&plan, "run").await;
    let detail = cluster.operator.ended("run").await;
    assert_eq!(status(&detail), "failed", "without a quorum in the plan all are needed");
    // The first refusal ends the run, so the other site may not have been heard.
    let members: Vec<_> = sites.iter().map(|site| member(&detail, &site.name)).collect();
    let refused = members.iter().find(|(how, _)| *how == "declined").expect("one declined");
    assert!(refused.1.contains("minilm-l6"), "{}", refused.1);
    assert!(sites.iter().all(|site| cluster.sites[&site.name].releases().is_empty()), "nothing has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_run_can_be_started_again() {
    let study = features(300, 8, 3, 57, "");
    let sites = study.deal(3);
    let mut cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    cluster.enrol(&study, &sites[0], &Rules::default()).await;
    let operator = cluster.operator.clone();
    operator.submit(&study.plan, "run").await;
    operator
        .until("run", "waiting for the last site", |detail| {
            detail.phases.first().is_some_and(|phase| phase.delivered == 2)
        })
        .await;
    operator.abort("run").await;
    assert_eq!(status(&operator.show("run").await.unwrap()), "aborted");
    let again = operator.rpc.clone().abort_run(sheaf_proto::v1::RunRef { run_id: "run".to_owned() }).await;
    assert_eq!(again.unwrap_err().code(), tonic::Code::FailedPrecondition);
    cluster.start_agent(&sites[0].name);
    operator.connected(&sites[0].name, true).await;
    assert_eq!(status(&operator.show("run").await.unwrap()), "aborted", "it stays so");
    operator.resume("run").await;
    assert_eq!(operator.done("run").await, study.pooled_hash());
    // The two that had answered the survey were not asked for it again.
    for site in &sites[1..] {
        let releases = cluster.sites[&site.name].releases();
        assert!(releases.values().all(|n| *n == 1), "{releases:?}");
    }
}
