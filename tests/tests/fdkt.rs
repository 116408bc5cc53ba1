//! Promise: a run of FDKT by real processes, whose coordinator writes with a language model of its own process, ends with
//! texts that name their classes, a model of them, and no site's budget passed.
//!
//! The models are small and random, and so is what they write: no text is dropped for what it says.

use sheaf_proto::fdkt::{Labelled, Texts};
use sheaf_tests::{
    cluster::Cluster,
    models::{ENCODER, LANGUAGE, WIDTH},
    texts::{CLASSES, DELTA, ROWS, SITES, federation, rules},
};

use crate::privacy::report;

/// Of the texts that a site writes.
const EPSILON: f64 = 8.0;
/// Of what is said of the models on a site's test records.
const MEASURING: f64 = 1.0;

fn plan() -> String {
    format!(
        "[run]\nname = 'texts'\nworkload = 'fdkt'\n\
         [schema.declared]\nclasses = {CLASSES:?}\ndim = {WIDTH}\n\
         [schema.backbone]\nmodel = '{ENCODER}'\nmax_tokens = 48\n\
         [privacy]\nepsilon = {EPSILON:?}\ndelta = {DELTA:?}\nunits = {ROWS}\nclip = 0.5\nevaluate = {MEASURING:?}\n\
         [fdkt]\nabout = 'Notes'\ncontrol = 'A note about {{label}}:'\nmodel = '{LANGUAGE}'\nmax_tokens = 64\n\
         lora = {{ rank = 2, alpha = 4, targets = ['q_proj', 'v_proj'], layers = 1 }}\n\
         tuning = {{ epochs = 2, batch = 4, learning_rate = 5e-3, seed = 1 }}\n\
         sampling = {{ per_class = 6, max_tokens = 32, min_words = 2 }}\n\
         filter = {{ worst = 0.0, far = 0.0, near = 1.0 }}\n\
         augment = {{ per_class = 4, spare = 2.0, demonstrations = 2, max_tokens = 24, min_words = 1, margin = 100.0 }}\n"
    )
}

async fn texts(cluster: &Cluster, file: &str) -> Vec<Labelled> {
    let lines = cluster.operator.report_file("run", file, cluster.folder()).await;
    let lines = String::from_utf8(lines).unwrap();
    let texts: Vec<Labelled> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(texts.iter().all(|text| CLASSES.contains(&text.label.as_str())), "{file}: {texts:?}");
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_write_under_noise_the_coordinator_writes_after_them_and_sites_say_what_it_is_worth() {
    let (cluster, _agents) = federation(&rules(&["fdkt"], &["synthetic", "metrics"])).await;
    cluster.operator.submit(&plan(), "run").await;
    // Each is a wait of its own.
    for phase in ["refine", "transfer"] {
        cluster.operator.begun("run", phase).await;
    }
    cluster.operator.done("run").await;

    let report = report(&cluster, "run").await;
    assert_eq!(report.privacy.as_ref().map(|privacy| privacy.epsilon), Some(EPSILON));
    let transfer = report.transfer.unwrap();
    let files: Vec<String> =
        cluster.operator.report_files("run").await.into_iter().map(|file| file.name).collect();
    for name in SITES {
        let written = texts(&cluster, &format!("synthetic/{name}.jsonl")).await;
        assert!(!written.is_empty() && written.len() <= 6 * CLASSES.len(), "{name}: {}", written.len());
        assert!(files.contains(&format!("synthetic/{name}.receipt.json")), "{files:?}");
        let site = &cluster.sites[name];
        let (spent, paid) = site.spent();
        assert!(spent > 0.0 && spent <= EPSILON + MEASURING, "{name} has spent {spent}");
        assert_eq!(paid, 2, "{name} has paid for its texts and its figures, each once");
        assert!(site.kept("run").join("generator/adapter_model.safetensors").exists(), "{name}");
        assert!(site.kept("run").join("worth.json").exists(), "{name}");
    }
    for set in Texts::ALL {
        let texts = texts(&cluster, &format!("texts-{}.jsonl", set.name())).await;
        assert!(!texts.is_empty(), "{}", set.name());
        assert_eq!(transfer.counts[&set], texts.len(), "{}", set.name());
    }
    let llm = transfer.llm.unwrap();
    assert!(llm.model.contains(LANGUAGE) && llm.requests > 0, "{llm:?}");
    assert_eq!(transfer.judge.by_model, 0, "a small model writes and does not judge");
    // Noise may leave no record to say anything of.
    assert!(report.timing.phases.iter().any(|phase| phase.name == "transfer"), "the sites have measured");
    assert!(transfer.arms.iter().all(|arm| !arm.arm.reads_records()), "of models without a record alone");
}
