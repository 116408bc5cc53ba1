//! Promise: under `[privacy]` every site pays from its own ledger before anything leaves, says under its signature what it
//! paid, and takes part in nothing that its cap or its rules do not cover.

use std::fs;

use sheaf_agent::budget;
use sheaf_coordinator::report::Report;
use sheaf_privacy::ledger::Standing;
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::{Study, private_table, table},
    operator::{member, status},
    site::Rules,
};

const DELTA: f64 = 1e-3;
const RUN: &str = "[privacy]\nepsilon = 2.0\ndelta = 1e-3\nevaluate = 1.0\n";

/// Sites with a cap; their rules let nothing out without noise.
async fn cluster(study: &Study, sites: usize, cap: f64) -> Cluster {
    let mut cluster = Cluster::start(Kind::Here).await;
    let rules = Rules { require_dp: true, ..Rules::default() };
    for rows in study.deal(sites) {
        cluster.enrol(study, &rows, &rules).await.cap(cap, DELTA, "row");
        cluster.start_agent(&rows.name);
    }
    cluster
}

/// The report of a run that is done.
pub(crate) async fn report(cluster: &Cluster, run: &str) -> Report {
    let text = cluster.operator.report_file(run, "report.json", cluster.folder()).await;
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_has_every_site_s_signed_spending() {
    let study = private_table(300, 81, "", RUN);
    let cluster = cluster(&study, 3, 5.0).await;
    cluster.operator.submit(&study.plan, "run").await;
    cluster.operator.done("run").await;
    let report = report(&cluster, "run").await;
    let privacy = report.privacy.unwrap();
    assert_eq!((privacy.epsilon, privacy.evaluate, privacy.unit.as_str()), (2.0, Some(1.0), "row"));
    for site in &report.sites {
        assert_eq!((site.rows, site.class_counts.len()), (None, 0), "numbers of records are private");
        assert_eq!(site.seconds, 0.0, "so is the time that work on them takes");
        let spent = site.privacy.clone().unwrap();
        assert!(spent.epsilon > 2.0 && spent.epsilon <= 3.0, "model and figures: {}", spent.epsilon);
        assert!(spent.epsilon_replace_one >= spent.epsilon && spent.cap == 5.0);
        let name = site.name.parse().unwrap();
        let authority = cluster.hub().desk.authority.certificate();
        let statement = spent.statement.check(&name, authority).unwrap();
        assert_eq!(statement.events.len(), 2);
        let mut forged = spent.statement.clone();
        forged.text = forged.text.replace("\"cap\":5.0", "\"cap\":6.0");
        assert!(forged.check(&name, authority).is_err(), "another figure than the site signed");
        let other: sheaf_transport::identity::SiteName = "somebody-else".parse().unwrap();
        assert!(spent.statement.check(&other, authority).is_err());
        // The site's own book says the same.
        let book = budget::read(&cluster.sites[&site.name].config().home).unwrap().unwrap();
        assert_eq!(book.head.counter, spent.ledger_entries);
        assert!(book.pages[0].charges.iter().all(|charge| matches!(charge.standing, Standing::Settled(1))));
    }
    let page = String::from_utf8(cluster.operator.report_file("run", "report.html", cluster.folder()).await);
    let page = page.unwrap();
    assert!(page.contains("<h2>Privacy</h2>") && page.contains("may cost epsilon 2 at delta 0.001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_over_the_cap_is_declined_with_the_numbers_until_the_site_raises_it() {
    let study = private_table(300, 82, "", RUN);
    let cluster = cluster(&study, 2, 3.5).await;
    let operator = &cluster.operator;
    operator.submit(&study.plan, "one").await;
    operator.done("one").await;
    operator.submit(&study.plan, "two").await;
    let detail = operator.ended("two").await;
    assert_eq!(status(&detail), "failed");
    let reason = detail.summary.unwrap().reason;
    assert!(reason.contains("of 3.5000 is spent") && reason.contains("would fit"), "{reason}");
    for site in cluster.sites.values() {
        site.cap(12.0, DELTA, "row");
    }
    operator.resume("two").await;
    operator.done("two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_answers_are_declined_by_a_site_that_asks_for_noise() {
    let study = table(200, 83, "");
    let cluster = cluster(&study, 2, 5.0).await;
    cluster.operator.submit(&study.plan, "run").await;
    let detail = cluster.operator.ended("run").await;
    assert_eq!(status(&detail), "failed");
    let reason = detail.summary.unwrap().reason;
    assert!(reason.contains("require_dp"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cap_or_for_another_unit_nothing_is_spent() {
    let study = private_table(300, 84, "quorum = 1", RUN);
    let mut cluster = Cluster::start(Kind::Here).await;
    let sites = study.deal(3);
    for (rows, unit) in sites.iter().zip([Some("row"), Some("ward"), None]) {
        let site = cluster.enrol(&study, rows, &Rules::default()).await;
        if let Some(unit) = unit {
            site.cap(5.0, DELTA, unit);
        }
        cluster.start_agent(&rows.name);
    }
    cluster.operator.submit(&study.plan, "run").await;
    cluster.operator.done("run").await;
    let detail = cluster.operator.ended("run").await;
    for (rows, part) in sites.iter().zip(["", "'ward'", "ledger cap"]) {
        let (_, reason) = member(&detail, &rows.name);
        assert!(reason.contains(part), "{reason}");
    }
    let spent = |site: &str| budget::read(&cluster.sites[site].config().home).unwrap().unwrap().pages;
    assert!(spent(&sites[1].name)[0].charges.is_empty() && spent(&sites[2].name).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_put_back_to_an_older_copy_spends_nothing() {
    let study = private_table(200, 85, "", RUN);
    let mut cluster = cluster(&study, 2, 50.0).await;
    let name = cluster.sites.keys().next().unwrap().clone();
    let home = cluster.sites[&name].config().home;
    cluster.stop_agent(&name).await;
    let files = ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"];
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        for file in files {
            drop(fs::remove_file(to.join(file)));
            if from.join(file).exists() {
                fs::copy(from.join(file), to.join(file)).unwrap();
            }
        }
    };
    let old = cluster.folder().join("old");
    fs::create_dir(&old).unwrap();
    copy(&home, &old);
    cluster.start_agent(&name);
    cluster.operator.submit(&study.plan, "one").await;
    cluster.operator.done("one").await;
    cluster.stop_agent(&name).await;
    copy(&old, &home);
    cluster.start_agent(&name);
    cluster.operator.connected(&name, true).await;
    cluster.operator.submit(&study.plan, "two").await;
    let detail = cluster.operator.ended("two").await;
    let (_, reason) = member(&detail, &name);
    assert!(reason.contains("older copy"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_and_masks_go_together() {
    let study = private_table(600, 86, "secure_aggregation = true", RUN);
    let cluster = cluster(&study, 4, 5.0).await;
    cluster.operator.submit(&study.plan, "run").await;
    cluster.operator.done("run").await;
    let report = report(&cluster, "run").await;
    let phases: Vec<_> = report.timing.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert!(phases.contains(&"sums.unmask") && !phases.contains(&"sums"), "{phases:?}");
    assert!(report.sites.iter().all(|site| site.privacy.as_ref().is_some_and(|spent| spent.epsilon > 2.0)));
    let accuracy = report.metrics.test.unwrap().accuracy;
    assert!(accuracy > 0.55, "the model learnt something: {accuracy}");
}
