//! Promise: the federated model is the model of all rows in one place, bit for bit, however the rows are spread
//! and whoever comes first.

use sheaf_data::{Partition, SiteRows};
use sheaf_proto::v1::Verdict;
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::{Study, features, table},
    random::Random,
    raw::RawSite,
    site::Rules,
};

async fn federated(study: &Study, sites: &[SiteRows]) -> String {
    let cluster = Cluster::with_sites(Kind::Here, study, sites).await;
    cluster.operator.submit(&study.plan, "run").await;
    cluster.operator.done("run").await
}

#[tokio::test(flavor = "multi_thread")]
async fn features_over_2_7_and_20_sites() {
    let study = features(600, 12, 4, 1, "");
    let pooled = study.pooled_hash();
    for sites in [2, 7, 20] {
        assert_eq!(federated(&study, &study.deal(sites)).await, pooled, "{sites} sites");
    }
    // The hash does depend on the rows.
    let fewer: Vec<_> = study.deal(7).into_iter().skip(1).collect();
    assert_ne!(study.hash_of_sites(&fewer), pooled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standardised_table_over_2_7_and_20_sites() {
    let study = table(500, 2, "");
    let pooled = study.pooled_hash();
    for sites in [2, 7, 20] {
        assert_eq!(federated(&study, &study.deal(sites)).await, pooled, "{sites} sites");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_that_see_few_classes() {
    let skewed = Partition::Dirichlet { sites: 7, alpha: 0.05, seed: 4, min_rows: 1 };
    for study in [features(600, 12, 4, 3, ""), table(500, 4, "")] {
        let sites = study.cut(&skewed);
        let sizes: Vec<_> = sites.iter().map(|site| site.rows.len()).collect();
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(most > &(3 * least), "the sites are to be uneven: {sizes:?}");
        assert_eq!(federated(&study, &sites).await, study.pooled_hash());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_that_come_in_any_order() {
    let study = table(300, 5, "");
    let sites = study.deal(6);
    let mut cluster = Cluster::start(Kind::Here).await;
    for site in &sites {
        cluster.enrol(&study, site, &Rules::default()).await;
    }
    let mut random = Random::new(11);
    for run in ["one", "two", "three"] {
        cluster.operator.submit(&study.plan, run).await;
        let mut order: Vec<_> = sites.iter().map(|site| site.name.clone()).collect();
        random.shuffle(&mut order);
        for name in &order {
            cluster.start_agent(name);
            // The survey is answered in this order.
            cluster.operator.connected(name, true).await;
        }
        assert_eq!(cluster.operator.done(run).await, study.pooled_hash(), "{order:?}");
        for name in &order {
            cluster.stop_agent(name).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_given_twice_counts_once_and_an_offer_made_twice_is_answered_once() {
    let study = features(300, 8, 3, 6, "");
    let sites = study.deal(3);
    let mut cluster = Cluster::start(Kind::Here).await;
    cluster.enrol(&study, &sites[0], &Rules::default()).await;
    cluster.join(&study, &sites[1], &Rules::default()).await;
    let raw = RawSite::enrol(&cluster, &sites[2].name).await;
    cluster.operator.submit(&study.plan, "run").await;

    let mut first = raw.session().await.unwrap();
    let task = first.task("survey").await;
    // The link breaks: the same task is offered again.
    let mut session = raw.session().await.unwrap();
    assert_eq!(session.task("survey").await, task, "same site, same task");

    let survey = crate::answers::survey(&raw, &task, &study.dataset.subset(&sites[2].rows)).await;
    let verdicts = [
        raw.answer(&task, &survey).await.unwrap().verdict(),
        raw.answer(&task, &survey).await.map_or(Verdict::Duplicate, |ack| ack.verdict()),
        raw.submit(&task, sheaf_transport::digest::blob_id(&survey)).await.unwrap().verdict(),
    ];
    assert_eq!(verdicts, [Verdict::Accepted, Verdict::Duplicate, Verdict::Duplicate]);

    cluster.start_agent(&sites[0].name);
    let task = session.task("sums").await;
    let sums = crate::answers::sums(&raw, &task, &study.dataset.subset(&sites[2].rows)).await;
    assert_eq!(raw.answer(&task, &sums).await.unwrap().verdict(), Verdict::Accepted);
    let again = raw.submit(&task, sheaf_transport::digest::blob_id(&sums)).await.unwrap();
    assert_eq!(again.verdict(), Verdict::Duplicate);
    crate::answers::decline(&mut session, "evaluate").await;
    assert_eq!(cluster.operator.done("run").await, study.pooled_hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_of_the_same_plan_at_once() {
    let study = features(300, 8, 3, 7, "");
    let cluster = Cluster::with_sites(Kind::Here, &study, &study.deal(6)).await;
    for round in 0..5 {
        let runs = [format!("a{round}"), format!("b{round}")];
        for run in &runs {
            cluster.operator.submit(&study.plan, run).await;
        }
        for run in &runs {
            assert_eq!(cluster.operator.done(run).await, study.pooled_hash(), "{run}");
        }
    }
}
