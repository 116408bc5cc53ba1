//! Promise: a run of RewardDS by real processes leaves what it says it leaves, brings every site the target, and costs no
//! site more than the plan allows, also where the coordinator is killed on the way.
//!
//! The models are small and random, and so is what they write: it is drawn hot, so that enough of it ends by itself.

use std::{collections::BTreeSet, fs, path::Path};

use sheaf_coordinator::{identity::authority::Authority, privacy::SignedStatement, report::RewardReport};
use sheaf_proto::{
    fedavg::{Parameters, ParametersFile},
    rewardds::Arm,
};
use sheaf_tests::{
    cluster::Cluster,
    journal::answers,
    models::{ENCODER, LANGUAGE, POSITIONS, lend},
    operator::status,
    site::Rules,
    texts::{DELTA, ROWS, SITES, enrolled, federation, rules},
};

use crate::privacy::report;

/// Of both proxies together.
const EPSILON: f64 = 8.0;
/// Of measuring, where the plan pays for it.
const MEASURING: f64 = 1.0;
/// The file of an adapter.
const ADAPTER: &str = "adapter_model.safetensors";
const LORA: &str = "lora = { rank = 2, alpha = 4, targets = ['q_proj', 'v_proj'], layers = 1 }";

fn allowed() -> Rules {
    rules(&["rewardds"], &["proxies", "metrics"])
}

/// A plan for the small models; `privacy` and `reward` are more keys of their sections.
fn plan(privacy: &str, reward: &str) -> String {
    let tuning = "tuning = { epochs = 2, batch = 4, learning_rate = 5e-3, seed = 1 }";
    let hot = "temperature = 10.0, top_p = 1.0";
    format!(
        "[run]\nname = 'rewarded'\nworkload = 'rewardds'\n\
         [privacy]\nepsilon = {EPSILON:?}\ndelta = {DELTA:?}\nunits = {ROWS}\nclip = 0.5\n{privacy}\n\
         [rewardds]\ncontrol = 'A note:'\narms = ['untuned', 'random', 'rgf', 'rgf-sor']\n\
         model = '{LANGUAGE}'\nencoder = '{ENCODER}'\nmax_tokens = 64\nanswer_tokens = 24\n\
         generator = {{ {LORA}, {tuning} }}\nreward = {{ {reward}, {tuning}, clip = 0.5 }}\n\
         queries = {{ count = 12, spare = 4.0, max_tokens = 48, min_words = 1, seed = 1, {hot} }}\n\
         filter = {{ candidates = 12, fold = 2, {hot} }}\n\
         refine = {{ rounds = 2, revisions = 4, feedback_tokens = 8, {hot} }}\n\
         target = {{ model = '{LANGUAGE}', {LORA}, epochs = 1, refine_epochs = 1, batch = 4 }}\n"
    )
}

fn parameters(bytes: &[u8]) -> Parameters {
    <Parameters as ParametersFile>::decode(bytes).unwrap()
}

async fn published(cluster: &Cluster, name: &str) -> Parameters {
    parameters(&cluster.operator.report_file("run", name, cluster.folder()).await)
}

fn at_site(folder: &Path, name: &str) -> Parameters {
    parameters(&fs::read(folder.join(name)).unwrap())
}

/// Whatever way a run has gone: the target is at every site, and what is published of a site is what it has sent.
async fn sites_have_the_target_and_the_report_their_proxies(cluster: &Cluster) {
    let target = published(cluster, ADAPTER).await;
    assert_eq!(target, published(cluster, &format!("target/rgf-sor/{ADAPTER}")).await);
    let mut generators = Vec::new();
    for (name, site) in &cluster.sites {
        let folder = site.kept("run");
        assert_eq!(at_site(&folder.join("target"), ADAPTER), target, "{name} has the target");
        let generator = published(cluster, &format!("proxies/{name}/generator/{ADAPTER}")).await;
        assert_eq!(at_site(&folder.join("generator"), ADAPTER), generator, "{name}");
        let reward = published(cluster, &format!("proxies/{name}/reward/reward.safetensors")).await;
        assert_eq!(at_site(&folder, "reward.safetensors"), reward, "{name}");
        generators.push(generator);
    }
    assert_ne!(generators[0], generators[1], "every site has its own");
}

/// What each site says under its signature that its answers have cost it.
async fn receipts_say(cluster: &Cluster, answers: usize, most: f64) {
    let authority = Authority::open(&cluster.home().ca()).unwrap();
    for name in SITES {
        let file = format!("proxies/{name}/receipt.json");
        let receipt = cluster.operator.report_file("run", &file, cluster.folder()).await;
        let receipt: Vec<SignedStatement> = serde_json::from_slice(&receipt).unwrap();
        assert_eq!(receipt.len(), answers, "{name}");
        for signed in &receipt {
            let said = signed.check(&name.parse().unwrap(), authority.certificate()).unwrap();
            let epsilon = said.epsilon_pld.get();
            assert!(epsilon > 0.0 && epsilon <= most, "{name} says {epsilon}");
        }
        let (spent, paid) = cluster.sites[name].spent();
        assert!(spent > 0.0 && spent <= most, "{name} has spent {spent}");
        assert_eq!(paid, answers, "{name} has paid for each of its answers, and once");
    }
}

async fn reward_of(cluster: &Cluster) -> RewardReport {
    let report = report(cluster, "run").await;
    for site in &report.sites {
        assert_eq!(site.rows, None, "numbers of records are private");
        let (said, spent) = (site.privacy.as_ref().unwrap().epsilon, cluster.sites[&site.name].spent().0);
        assert!((said - spent).abs() < 1e-9, "the site's own book says {spent}, the report {said}");
    }
    report.reward.unwrap()
}

async fn pool(cluster: &Cluster, round: u32) -> Vec<serde_json::Value> {
    let file = format!("pool/round-{round}.jsonl");
    let text = cluster.operator.report_file("run", &file, cluster.folder()).await;
    let text = String::from_utf8(text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sites_get_the_target_and_the_run_leaves_proxies_receipts_pools_and_figures() {
    let (cluster, _agents) = federation(&allowed()).await;
    let plan = plan(&format!("evaluate = {MEASURING:?}"), &format!("form = 'language-model', {LORA}"));
    cluster.operator.submit(&plan, "run").await;
    // Each is a wait of its own.
    for phase in ["sample", "evaluate"] {
        cluster.operator.begun("run", phase).await;
    }
    cluster.operator.done("run").await;
    sites_have_the_target_and_the_report_their_proxies(&cluster).await;
    receipts_say(&cluster, 3, EPSILON + MEASURING).await;

    let reward = reward_of(&cluster).await;
    let owners: Vec<&str> = reward.proxies.iter().map(|proxy| proxy.owner.as_str()).collect();
    assert_eq!(owners, SITES);
    let arms: Vec<Arm> = reward.arms.iter().map(|arm| arm.arm).collect();
    assert_eq!(arms, [Arm::Untuned, Arm::Random, Arm::Rgf, Arm::RgfSor]);
    assert!(reward.rows.is_some() && reward.pairs.is_some(), "the sites have measured");
    assert_eq!(reward.rounds.iter().map(|round| round.round).collect::<Vec<_>>(), [1, 2]);
    let first = pool(&cluster, 1).await;
    let accepted = first.iter().filter(|line| line["accepted"] == true).count();
    assert_eq!((first.len(), accepted), (reward.rounds[0].queries, reward.rounds[0].accepted));
    assert!(accepted > 0, "{first:?}");
    assert!(pool(&cluster, 2).await.len() <= first.len());
    for site in cluster.sites.values() {
        let worth = fs::read(site.kept("run").join("worth.json")).unwrap();
        let worth: serde_json::Value = serde_json::from_slice(&worth).unwrap();
        assert_eq!(worth["rows"], 3.0, "exact, for the site alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_killed_between_the_proxies_and_in_its_own_work_goes_on_and_no_site_pays_twice() {
    let (mut cluster, _agents) = federation(&allowed()).await;
    cluster.operator.submit(&plan("", "form = 'embedding'"), "run").await;
    for phase in ["reward-1", "sample"] {
        cluster.operator.begun("run", phase).await;
        cluster.down().await;
        cluster.up().await;
    }
    cluster.operator.done("run").await;
    sites_have_the_target_and_the_report_their_proxies(&cluster).await;
    receipts_say(&cluster, 2, EPSILON).await;
    let reward = reward_of(&cluster).await;
    assert!(reward.rows.is_none(), "nobody was paid for measuring");
    assert!(!pool(&cluster, 1).await.is_empty());

    cluster.down().await;
    let answers = answers(cluster.home(), "run");
    assert!(answers.values().all(|sites| sites.len() == SITES.len()), "{answers:?}");
    let asked: BTreeSet<&str> = answers.keys().map(|key| key.rsplit_once('-').unwrap().0).collect();
    assert_eq!(asked, BTreeSet::from(["deliver", "generator-1", "reward-1"]));
    assert_eq!(answers.len(), asked.len(), "no question is asked in two ways");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_knows_the_model_by_other_bytes_takes_no_part_and_pays_nothing() {
    let cluster = enrolled(&allowed()).await;
    let other = lend(&cluster.folder().join("other-models"), POSITIONS + 1);
    let [north, south] = SITES;
    let _agents = [cluster.start_agent_process(north), cluster.start_agent_process_in(south, &other)];
    cluster.operator.submit(&plan("", "form = 'embedding'"), "run").await;
    let detail = cluster.operator.ended("run").await;
    assert_eq!(status(&detail), "failed");
    let reason = detail.summary.unwrap().reason;
    assert!(reason.contains(LANGUAGE) && reason.contains("SHA-256"), "{reason}");
    assert_eq!(cluster.sites[south].spent().1, 0);
}
