//! Whole runs in memory: models that answer by a script, sites whose proxies are small numbers.

mod checks;
mod fakes;
mod filtering;
mod hosted;
mod private;
mod refining;
mod shared;

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;
use sheaf_proto::{
    fedavg::{Parameters, ParametersFile as _},
    rewardds::{GeneratorSpec, Pairs, RewardSpec},
    secure::parse,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    home::Home,
    llm::{config::LlmConfig, stub::Scripted},
    models::Models,
    report::RewardReport,
    store::blobs::BlobStore,
};
use fakes::{Fake, Lent, improved};

/// 40 draws of queries, 4 candidates each; the fakes count on these.
const PLAN: &str = "[run]\nname = 'x'\nworkload = 'rewardds'\n[rewardds]\ncontrol = 'A question and its answer:'\n\
    max_tokens = 96\nanswer_tokens = 32\n\
    generator = { lora = { rank = 4, alpha = 8, targets = ['q_proj'] }, \
    tuning = { epochs = 1, batch = 8, learning_rate = 0.001 } }\n\
    reward = { form = 'embedding', tuning = { epochs = 4, batch = 16, learning_rate = 0.01 } }\n\
    queries = { count = 20, spare = 2.0 }\nfilter = { candidates = 4, fold = 4 }\n\
    refine = { rounds = 2, revisions = 3 }\n";
const TARGET: &str = "target = { holdout = 0.25, lora = { rank = 2, alpha = 4, targets = ['q_proj'] } }\n";

/// A plan with further keys of `[rewardds]`, or sections after it.
fn plan(more: &str) -> String {
    format!("{PLAN}{TARGET}{more}")
}

struct World {
    folder: TempDir,
    plan: Plan,
    blobs: BlobStore,
    fake: Arc<Fake>,
    llm: Arc<Scripted>,
    models: Models,
    members: Vec<SiteName>,
    authority: Vec<u8>,
}

impl World {
    fn new(plan: &str, sites: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let llm = Arc::new(Scripted::new(1, |prompt, _| Ok(improved(prompt))));
        let lent = Lent { fake: Arc::clone(&fake), llm: Arc::clone(&llm) };
        Self {
            plan: Plan::parse(plan).unwrap(),
            blobs: BlobStore::open(&folder.path().join("blobs")).unwrap(),
            models: Models::new(&Home::at(folder.path()), LlmConfig::default(), Arc::new(lent)),
            members: (0..sites).map(|n| format!("s{n}").parse().unwrap()).collect(),
            authority: Vec::new(),
            folder,
            fake,
            llm,
        }
    }

    fn context<'a>(&'a self, tools: Option<&'a Tools<'a>>) -> Context<'a> {
        Context {
            plan: &self.plan,
            blobs: &self.blobs,
            members: &self.members,
            run_id: "x-1",
            version: 1,
            authority: &self.authority,
            tools,
        }
    }

    /// As where an answer arrives: no members are known there.
    fn check(&self, phase: &PhaseSpec, site: &SiteName, answer: &[u8]) -> Result<(), Error> {
        let file = self.folder.path().join("answer");
        fs::write(&file, answer).unwrap();
        let context = Context { members: &[], ..self.context(None) };
        Rewardds.check_result(&context, phase, site, &file)
    }

    fn parameters(&self, blob: &BlobId) -> Parameters {
        Parameters::decode(&self.blobs.get(blob).unwrap()).unwrap()
    }
}

fn encoded(parameters: &Parameters) -> Vec<u8> {
    parameters.encode().unwrap()
}

/// The first number of parameters.
fn first(parameters: &Parameters) -> f32 {
    parameters.values().next().unwrap().data[0]
}

/// A proxy of site `n`: all its numbers are `1 + 2 n` more than those that it began with.
fn moved(world: &World, phase: &PhaseSpec, n: usize) -> Parameters {
    let mut parameters = world.parameters(&phase.inputs[0]);
    let values = parameters.values_mut().flat_map(|tensor| &mut tensor.data);
    values.for_each(|value| *value += (1 + 2 * n) as f32);
    parameters
}

/// What a site says of ten records.
fn said(spec: &EvaluateSpec) -> Evaluation {
    let figures = |arm: &Arm| (*arm, Figures { nll: 20.0, rouge_l: 5.0, ..Figures::default() });
    let pairs = Pairs { rows: 10.0, right: 7.0, by_pair: None };
    Evaluation { rows: 10.0, arms: spec.arms.iter().map(figures).collect(), pairs: Some(pairs) }
}

/// What site `n` answers.
fn answer(world: &World, phase: &PhaseSpec, n: usize) -> Vec<u8> {
    match step(&phase.name).unwrap() {
        Step::Generator(_) | Step::Reward(_) => encoded(&moved(world, phase, n)),
        Step::Evaluate => {
            let spec: EvaluateSpec = world.blobs.document(&phase.spec).unwrap();
            serde_json::to_vec(&said(&spec)).unwrap()
        }
        Step::Deliver => b"{}".to_vec(),
        other => panic!("{other} asks no site"),
    }
}

/// How a run went.
struct Ran {
    phases: Vec<PhaseSpec>,
    outputs: Vec<PhaseOutput>,
    contributions: BTreeMap<String, Vec<(SiteName, BlobId)>>,
    published: Publication,
    world: World,
}

impl Ran {
    fn names(&self) -> Vec<&str> {
        self.phases.iter().map(|phase| phase.name.as_str()).collect()
    }

    fn phase(&self, name: &str) -> &PhaseSpec {
        self.phases.iter().find(|phase| phase.name == name).unwrap()
    }

    fn spec<T: serde::de::DeserializeOwned>(&self, name: &str) -> T {
        self.world.blobs.document(&self.phase(name).spec).unwrap()
    }

    fn gave<T: serde::de::DeserializeOwned>(&self, name: &str) -> T {
        let output = self.outputs.iter().find(|output| output.name == name).unwrap();
        outcome(&self.world.blobs, output).unwrap()
    }

    /// The answer of site `n`, of those that answered.
    fn answer(&self, name: &str, n: usize) -> BlobId {
        self.contributions[name][n].1
    }

    fn tuned(&self, arm: Arm) -> TunedArm {
        self.gave(&Step::Tune(arm).to_string())
    }

    fn queries(&self) -> Vec<sample::Query> {
        let sampled: Sampled = self.gave("sample");
        self.world.blobs.document(&sampled.queries).unwrap()
    }

    fn pool(&self, tuned: &TunedArm) -> filter::Held {
        self.world.blobs.document(&tuned.pool.as_ref().unwrap().state).unwrap()
    }

    /// What the mean of a round is.
    fn mean(&self, name: &str) -> BlobId {
        let tuned: Value = self.gave(name);
        serde_json::from_value(tuned["shared"].clone()).unwrap()
    }

    fn lines(&self, blob: &BlobId) -> Vec<Value> {
        let lines = String::from_utf8(self.world.blobs.get(blob).unwrap()).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn report(&self) -> &RewardReport {
        self.published.reward.as_ref().unwrap()
    }
}

/// Sites: what the `n`-th answers to a phase, if anything.
type Sites<'a> = dyn FnMut(&World, &PhaseSpec, usize) -> Option<Vec<u8>> + 'a;

/// Goes from the first phase to the publication.
fn go(world: World, sites: &mut Sites<'_>) -> Ran {
    // Merging blocks on a thread of a runtime, as a driver does.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let stop = CancellationToken::new();
    let (mut phases, mut outputs) = (Vec::<PhaseSpec>::new(), Vec::<PhaseOutput>::new());
    let mut contributions = BTreeMap::new();
    let published = {
        let tools = Tools { models: &world.models, stop: &stop, tell: &|_, _, _| {} };
        // Models are for merging alone.
        let (context, merging) = (world.context(None), world.context(Some(&tools)));
        while let Next::Collect(phase) = Rewardds.next(&context, &outputs).unwrap() {
            assert!(phases.iter().all(|before| before.key != phase.key), "{} is asked twice", phase.name);
            let again = Rewardds.next(&context, &outputs).unwrap();
            assert_eq!(again, Next::Collect(phase.clone()), "the same outputs ask the same");
            let mut answers = Vec::new();
            for (n, site) in world.members.iter().enumerate().filter(|(_, site)| phase.asks(site)) {
                let Some(answer) = sites(&world, &phase, n) else { continue };
                assert!(answer.len() as u64 <= phase.max_result_bytes, "{}", phase.name);
                world.check(&phase, site, &answer).unwrap();
                answers.push((site.clone(), world.blobs.put(&answer).unwrap()));
            }
            let reduce = |contributions: &[(SiteName, BlobId)]| {
                let answers = Answers { phase: &phase, contributions, outputs: &outputs, previous: None };
                Rewardds.reduce(&merging, &answers).unwrap()
            };
            let document = reduce(&answers);
            if answers.len() > 1 && parse(&phase.name).is_none() {
                let reversed: Vec<_> = answers.iter().rev().cloned().collect();
                assert_eq!(reduce(&reversed), document, "{} in another order", phase.name);
            }
            outputs.push(PhaseOutput {
                name: phase.name.clone(),
                key: phase.key.clone(),
                output: world.blobs.put(&document).unwrap(),
                members: answers.iter().map(|(site, _)| site.clone()).collect(),
                round: phase.may_miss,
            });
            contributions.insert(phase.name.clone(), answers);
            phases.push(phase);
        }
        for output in &outputs {
            let merged = Rewardds.merged_blobs(&context, output).unwrap();
            assert!(merged.iter().all(|blob| world.blobs.contains(blob)), "{}", output.name);
        }
        Rewardds.publish(&context, &outputs).unwrap()
    };
    Ran { phases, outputs, contributions, published, world }
}

/// A run of two sites that answer everything.
fn run(plan: &str) -> Ran {
    go(World::new(plan, 2), &mut |world, phase, n| Some(answer(world, phase, n)))
}

/// The arms that the target is measured as, in the order of reading.
const ARMS: [Arm; 8] = [
    Arm::Untuned,
    Arm::Unfiltered,
    Arm::Random,
    Arm::Rouge,
    Arm::Embedding,
    Arm::Perplexity,
    Arm::Rgf,
    Arm::RgfSor,
];

#[test]
fn a_run_goes_from_drawn_proxies_to_a_measured_target() {
    let ran = run(&plan(""));
    let arms = ["unfiltered", "random", "rouge", "embedding", "perplexity", "rgf"];
    let tunes = arms.map(|arm| format!("tune-{arm}"));
    let before = ["start", "generator-1", "reward-1", "sample"];
    let all =
        before.into_iter().chain(tunes.iter().map(String::as_str)).chain(["refine-2", "evaluate", "deliver"]);
    assert_eq!(ran.names(), all.collect::<Vec<_>>());
    let of_sites = ["generator-1", "reward-1", "evaluate", "deliver"];
    for phase in &ran.phases {
        assert_eq!(phase.asks_nobody(), !of_sites.contains(&phase.name.as_str()), "{}", phase.name);
        assert_eq!(
            phase.defines_model,
            !["evaluate", "deliver"].contains(&phase.name.as_str()),
            "{}",
            phase.name
        );
        assert!(!phase.may_miss, "{}", phase.name);
    }
    let releases = |name: &str| ran.phase(name).releases.clone();
    assert_eq!(of_sites.map(releases), [["proxies"], ["proxies"], ["metrics"], ["proxies"]]);

    // Both proxies begin where they were drawn, and a site's reward is told by the answers of its own generator.
    let start: proxies::Start = ran.gave("start");
    assert_eq!(ran.phase("generator-1").inputs, [start.generator]);
    let generator: GeneratorSpec = ran.spec("generator-1");
    assert!(generator.round.privacy.is_none() && generator.generator.answer_tokens == 32);
    let reward: RewardSpec = ran.spec("reward-1");
    assert!(reward.round.privacy.is_none() && !reward.alone);
    for (n, site) in ran.world.members.iter().enumerate() {
        let inputs: Vec<BlobId> = ran.phase("reward-1").inputs_of(site).copied().collect();
        assert_eq!(inputs, [start.reward, ran.answer("generator-1", n)], "{site}");
    }
    assert_ne!(ran.answer("generator-1", 0), ran.answer("generator-1", 1));

    // What is measured: adapters in the order of the arms, then the site's own reward and generator.
    let spec: EvaluateSpec = ran.spec("evaluate");
    assert_eq!(spec.arms, ARMS);
    assert!(spec.reward.is_some() && spec.privacy.is_none() && spec.records == 100);
    let refined: Refined = ran.gave("refine-2");
    let tuned = ARMS[1..7].iter().map(|arm| ran.tuned(*arm).adapter.unwrap());
    let adapters: Vec<BlobId> = tuned.chain(refined.tuned.adapter).collect();
    assert_eq!(adapters.len(), 7);
    for (n, site) in ran.world.members.iter().enumerate() {
        let inputs: Vec<BlobId> = ran.phase("evaluate").inputs_of(site).copied().collect();
        let proxies = [ran.answer("reward-1", n), ran.answer("generator-1", n)];
        assert_eq!(inputs, [adapters.as_slice(), &proxies].concat(), "{site}");
    }
}

#[test]
fn a_run_leaves_the_target_the_proxies_and_the_pools() {
    let ran = run(&plan(""));
    let files = &ran.published.files;
    for (n, site) in ran.world.members.iter().enumerate() {
        let folder = format!("proxies/{site}");
        assert_eq!(
            files[&format!("{folder}/generator/adapter_model.safetensors")],
            ran.answer("generator-1", n)
        );
        assert_eq!(files[&format!("{folder}/reward/reward.safetensors")], ran.answer("reward-1", n));
        let form: Value = ran.world.blobs.document(&files[&format!("{folder}/reward/reward.json")]).unwrap();
        assert_eq!(form["form"], "embedding");
        let config = &files[&format!("{folder}/generator/adapter_config.json")];
        let config: Value = ran.world.blobs.document(config).unwrap();
        assert_eq!(config["r"], 4);
        assert_eq!(config["lora_alpha"], 8.0);
    }
    for arm in &ARMS[1..] {
        let file = |name: &str| files.get(&format!("target/{}/{name}", arm.name()));
        assert!(file("adapter_config.json").is_some(), "{arm:?}");
        let first = first(&ran.world.parameters(file("adapter_model.safetensors").unwrap()));
        let report = ran.report().arms.iter().find(|report| report.arm == *arm).unwrap();
        assert_eq!(Some(first as usize), report.examples, "{arm:?}");
    }
    assert!(!files.keys().any(|name| name.contains("untuned") || name.contains("non-private")));
    assert_eq!(ran.published.model, files["target/rgf-sor/adapter_model.safetensors"]);
    assert_eq!(ran.published.model_file.as_deref(), Some("adapter_model.safetensors"));
    assert_eq!(ran.published.dim, 4, "numbers of the adapter");

    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let documented = ["round", "query", "chosen", "rejected", "ranks", "candidates", "accepted", "why"];
    for (round, more) in [(1, None), (2, Some("feedback"))] {
        let lines = ran.lines(&files[&format!("pool/round-{round}.jsonl")]);
        assert!(!lines.is_empty());
        for line in lines {
            let names: Vec<&str> = documented.into_iter().chain(more).collect();
            assert_eq!(keys(&line), set(&names));
            assert_eq!(line["round"], round);
            assert_eq!(keys(&line["chosen"]), set(&["text", "score", "perplexity"]));
            assert_eq!(keys(&line["rejected"]), keys(&line["chosen"]));
            assert!(line["ranks"][0].as_f64().unwrap() >= line["ranks"][1].as_f64().unwrap());
        }
    }

    let report = ran.report();
    assert_eq!(report.arms.iter().map(|report| report.arm).collect::<Vec<_>>(), ARMS);
    assert_eq!((report.rows, report.accuracy()), (Some(20.0), Some(0.7)));
    let figures = report.figures(Arm::RgfSor).unwrap();
    assert_eq!((figures.nll, figures.rouge_l, figures.words), (2.0, 0.5, None));
    let owners: Vec<&str> = report.proxies.iter().map(|proxy| proxy.owner.as_str()).collect();
    assert_eq!(owners, ["s0", "s1"]);
    assert_eq!(report.proxies[0].generator_bytes, ran.answer("generator-1", 0).size());
    assert!(report.llm.is_none(), "no hosted model was asked");
    assert_eq!(ran.published.sites.len(), 2);
    assert!(ran.published.sites.values().all(|site| site.metrics.test_rows == 10));
}

#[test]
fn the_same_plan_and_answers_give_the_same_run_to_the_bit() {
    let (one, other) = (run(&plan("")), run(&plan("")));
    assert_eq!(one.phases, other.phases);
    assert_eq!(one.outputs, other.outputs);
    assert_eq!(one.published, other.published);
}

#[test]
fn another_answer_of_a_site_makes_other_phases_of_what_follows() {
    let text = plan("arms = ['rgf']\n");
    let one = run(&text);
    let other = go(World::new(&text, 2), &mut |world, phase, n| {
        let further = usize::from(phase.name == "reward-1");
        Some(answer(world, phase, n + further))
    });
    // What is measured are adapters, and both rewards may have chosen the same.
    let asked = one
        .phases
        .iter()
        .zip(&other.phases)
        .filter(|(one, _)| !["evaluate", "deliver"].contains(&one.name.as_str()));
    for (one, other) in asked {
        let follows = !["start", "generator-1", "reward-1"].contains(&one.name.as_str());
        assert_eq!(one.key != other.key, follows, "{}", one.name);
    }
}
