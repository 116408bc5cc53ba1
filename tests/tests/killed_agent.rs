//! Promise: an agent may be killed at any moment; what it computed is not computed again. Asked to stop, it stops.

use std::time::{Duration, Instant};

use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::features,
    process::binary,
    proxy::{Fault, Proxy, Way},
    site::Rules,
};

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_an_upload_it_goes_on_and_computes_nothing_twice() {
    let study = features(200, 1200, 4, 81, "");
    let sites = study.deal(2);
    let mut cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let proxy = Proxy::before(cluster.port()).await;
    let rules = Rules { url: Some(proxy.url()), durable: true, ..Rules::default() };
    let name = &sites[0].name;
    cluster.enrol(&study, &sites[0], &rules).await;
    let mut agent = cluster.start_agent_process(name);
    cluster.operator.connected(name, true).await;
    proxy.plan(Way::Up, 1 << 20, Fault::Hold);
    cluster.operator.submit(&study.plan, "run").await;
    proxy.happened(1).await;
    let site = &cluster.sites[name];
    let pending = site.state().pending().unwrap();
    assert_eq!(pending.len(), 1, "the sums are on their way: {pending:?}");
    assert!(pending[0].key.starts_with("sums"));
    agent.kill().await;
    proxy.release();
    assert_eq!(sheaf_tests::operator::status(&cluster.operator.show("run").await.unwrap()), "running");

    let _agent = cluster.start_agent_process(name);
    assert_eq!(cluster.operator.done("run").await, study.pooled_hash());
    let releases = released(&site.config_file());
    assert_eq!(releases.len(), 3, "survey, sums, evaluation: {releases:?}");
    let sums: Vec<_> = releases.iter().filter(|task| **task == pending[0].key).collect();
    assert_eq!(sums.len(), 1, "the sums left once: {releases:?}");
}

/// The tasks of `sheaf-agent status --json`'s releases.
fn released(config: &std::path::Path) -> Vec<String> {
    let output = std::process::Command::new(binary("sheaf-agent"))
        .args(["status", "--json", "--releases", "1000", "--config"])
        .arg(config)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let releases = status["releases"].as_array().unwrap();
    releases.iter().map(|release| release["task"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_while_idle_it_stops_at_once_with_0() {
    let study = features(100, 4, 2, 82, "");
    let sites = study.deal(1);
    let mut cluster = Cluster::start(Kind::Here).await;
    let name = &sites[0].name;
    cluster.enrol(&study, &sites[0], &Rules::default()).await;
    let mut agent = cluster.start_agent_process(name);
    cluster.operator.connected(name, true).await;
    let began = Instant::now();
    agent.terminate();
    assert_eq!(agent.ended().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    cluster.operator.connected(name, false).await;
}
