//! The coordinator's part with a scripted language model and an encoder that counts letters.

mod secure;
mod task_models;

use std::{fmt::Write as _, sync::Arc};

use sheaf_data::Backbone;
use sheaf_proto::fdkt::Texts;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    home::Home,
    llm::{Llm, Prompt, config::LlmConfig, stub::Scripted},
    models::{LocalModels, Models, Tools},
    store::blobs::BlobStore,
};

const PLAN: &str = "[run]\nname = 'x'\nworkload = 'fdkt'\n[schema.declared]\nclasses = ['red_car', 'blue_boat']\ndim = 26\n\
    [schema.backbone]\nmodel = 'minilm-l6'\n[fdkt]\ncontrol = 'About: {label}'\nabout = 'Texts about vehicles'\n\
    lora = { rank = 4, alpha = 8, targets = ['q_proj'] }\n\
    tuning = { epochs = 1, batch = 8, learning_rate = 0.001 }\n\
    filter = { worst = 0.0, far = 0.0, near = 0.999 }\n\
    augment = { per_class = 3, spare = 2, demonstrations = 1, per_prompt = 2, min_words = 2, margin = 1.0 }\n";

struct Fakes(Arc<Scripted>);

impl LocalModels for Fakes {
    fn language(&self, _name: Option<&str>) -> Result<Arc<dyn Llm>, Error> {
        Ok(Arc::clone(&self.0) as Arc<dyn Llm>)
    }

    fn embed(
        &self,
        _encoder: &Backbone,
        texts: &[&str],
        _stop: &CancellationToken,
    ) -> Result<(usize, Vec<f32>), Error> {
        let letters = |text: &&str| {
            ('a'..='z')
                .map(move |letter| text.to_lowercase().matches(letter).count() as f32)
                .collect::<Vec<_>>()
        };
        Ok((26, texts.iter().flat_map(letters).collect()))
    }
}

struct World {
    folder: TempDir,
    plan: Plan,
    blobs: BlobStore,
    model: Arc<Scripted>,
    models: Models,
    stop: CancellationToken,
}

impl World {
    fn new(
        plan: &str,
        follows: bool,
        script: impl Fn(&Prompt, usize) -> String + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = Scripted::new(1, move |prompt, asked| Ok(script(prompt, asked)));
        let model = Arc::new(if follows { model } else { model.that_continues() });
        let home = Home::at(folder.path());
        Self {
            plan: Plan::parse(plan).unwrap(),
            blobs: BlobStore::open(&folder.path().join("blobs")).unwrap(),
            models: Models::new(&home, LlmConfig::default(), Arc::new(Fakes(Arc::clone(&model)))),
            model,
            stop: CancellationToken::new(),
            folder,
        }
    }

    fn pool(&self, sites: &[&[(&str, &str)]]) -> Pool {
        let blob = |texts: &&[(&str, &str)]| {
            let texts: Vec<Labelled> =
                texts.iter().map(|(text, label)| Labelled::new(*text, *label)).collect();
            self.blobs.put(&sheaf_text::to_lines(&texts).unwrap()).unwrap()
        };
        let name = |number| format!("site-{number}").parse().unwrap();
        Pool::Sites(sites.iter().enumerate().map(|(number, texts)| (name(number), blob(texts))).collect())
    }

    /// Refines on a thread that may block, as a driver does.
    fn refine(&self, pool: Option<&Pool>) -> Result<Refined, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let tools = Tools { models: &self.models, stop: &self.stop, tell: &|_, _, _| {} };
        refine(
            &Context {
                plan: &self.plan,
                blobs: &self.blobs,
                members: &[],
                run_id: "x-1",
                version: 1,
                authority: &[],
                tools: Some(&tools),
            },
            pool,
        )
    }

    fn texts(&self, refined: &Refined, texts: Texts) -> Vec<Labelled> {
        from_lines(&self.blobs.get(&refined.sets[&texts]).unwrap()).unwrap()
    }
}

const SITES: &[&[(&str, &str)]] = &[
    &[
        ("my red car is a rare racer", "red_car"),
        ("two words", "blue_boat"),
        ("a blue boat with a blue sail", "blue_boat"),
    ],
    &[("My red car is a  rare racer", "red_car"), ("the old red car carries our carrier", "red_car")],
];

/// Goes on with lists: good texts of the list's label, one that fits the other label, one copy of the demonstration.
fn lists(prompt: &Prompt, _asked: usize) -> String {
    let red = prompt.user.contains("red car");
    let number = prompt.sample;
    // A vote's candidates have a seed of their own.
    let round = (prompt.options.seed.unwrap_or_default() >> 32) as usize;
    let demonstration = prompt.user.lines().find_map(|line| line.strip_prefix("1. ")).unwrap_or("nothing");
    match (number, red) {
        (0, _) => format!(" {demonstration}\n3. and more"),
        (1, true) => " a bull bobbed about in the blue boat".to_owned(),
        (1, false) => " a car racer red carer".to_owned(),
        (_, true) => {
            format!(" car number {} ran a race\n\nIgnored", [" rac", " racer"][round].repeat(number as usize))
        }
        (_, false) => {
            format!(" boat number {} bobs about", [" bob", " bubble"][round].repeat(number as usize))
        }
    }
}

#[test]
fn a_model_that_only_goes_on_with_texts_gets_lists_and_its_texts_are_checked() {
    let world = World::new(PLAN, false, lists);
    let refined = world.refine(Some(&world.pool(SITES))).unwrap();
    assert_eq!(refined.judge, JudgeUse::default(), "scores decide");
    let synthetic = world.texts(&refined, Texts::Synthetic);
    assert_eq!(synthetic.len(), 3, "a repetition and a short text are dropped: {synthetic:?}");
    assert!(synthetic.iter().all(|text| ["red_car", "blue_boat"].contains(&text.label.as_str())));

    let fdkt = world.texts(&refined, Texts::Fdkt);
    assert_eq!(fdkt[..3], synthetic[..], "the sites' own come first");
    let written = &fdkt[3..];
    for class in ["red_car", "blue_boat"] {
        let of = written.iter().filter(|text| text.label == class).count();
        assert!((1..=3).contains(&of), "{class}: {written:?}");
    }
    assert!(written.iter().all(|text| !text.text.contains("Ignored") && !text.text.contains("bull")));
    let funnel = &refined.funnels[&Texts::Fdkt];
    let dropped: Vec<&str> =
        funnel.steps.iter().flat_map(|step| step.dropped.keys().map(String::as_str)).collect();
    assert!(dropped.contains(&"another label fits better"), "{funnel:?}");
    assert!(dropped.contains(&"copy of a demonstration"), "{funnel:?}");

    let llm = world.texts(&refined, Texts::Llm);
    assert!(llm.iter().all(|text| !synthetic.contains(text)) && !llm.is_empty());
    let lines = String::from_utf8(world.blobs.get(&refined.augmented).unwrap()).unwrap();
    assert_eq!(lines.lines().count(), written.len() + llm.len());
    let line: serde_json::Value = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|line: &serde_json::Value| line["set"] == "fdkt")
        .unwrap();
    assert_eq!(line["model"], "scripted");
    assert_eq!(line["demonstrations"].as_array().unwrap().len(), 1);
    assert_eq!(line["prompt"].as_str().unwrap().len(), 64);
    let head = refined.head.unwrap();
    assert_eq!((head.texts, head.rows), (Texts::Fdkt, fdkt.len() as u64));
}

/// Keeps the first of every cluster, or does not answer; writes samples in the layout that is asked for.
fn instructed(keep: &'static str) -> impl Fn(&Prompt, usize) -> String + Send + Sync {
    move |prompt, _| {
        if prompt.user.contains("\"keep\"") {
            return keep.to_owned();
        }
        let wanted = prompt.user.lines().filter_map(|line| line.split_once(". ").map(|(_, label)| label));
        let mut answer = String::new();
        for (at, label) in wanted.filter(|label| ["red car", "blue boat"].contains(label)).enumerate() {
            let word = if label == "red car" { "car race" } else { "boat bob blue" };
            let more = "ab".repeat(at + prompt.sample as usize);
            let number = at + 1;
            writeln!(answer, "### Sample {number}\nLabel: {label}\nText: {word} {more}").unwrap();
        }
        answer
    }
}

#[test]
fn a_model_that_follows_instructions_judges_clusters_and_fills_a_layout() {
    let world = World::new(PLAN, true, instructed("{\"keep\": [0]}"));
    let refined = world.refine(Some(&world.pool(SITES))).unwrap();
    assert_eq!((refined.judge.by_model, refined.judge.fallen_back), (refined.judge.clusters, 0));
    assert!(refined.judge.clusters > 0);
    assert!(refined.counts[&Texts::Fdkt] > refined.counts[&Texts::Synthetic], "{:?}", refined.counts);
    let used = refined.llm.unwrap();
    assert!(used.requests == 0 && used.model == "scripted", "a scripted model has no meter");
}

#[test]
fn a_judge_that_writes_rubbish_is_asked_again_and_then_scores_decide() {
    let world = World::new(PLAN, true, instructed("I would keep them all."));
    let refined = world.refine(Some(&world.pool(SITES))).unwrap();
    assert_eq!(refined.judge.by_model, 0);
    assert_eq!(refined.judge.fallen_back, refined.judge.clusters);
    assert_eq!(refined.counts[&Texts::Synthetic], 3, "no cluster is lost");
    let keeps = refined.judge.clusters * 3;
    assert!(world.model.asked() > keeps, "three answers a cluster");
}

#[test]
fn what_was_answered_is_not_asked_again_after_a_stop() {
    let stop = CancellationToken::new();
    let called = stop.clone();
    let stopping = move |prompt: &Prompt, asked: usize| {
        if asked >= 3 {
            called.cancel();
        }
        lists(prompt, asked)
    };
    let world = World { stop, ..World::new(PLAN, false, stopping) };
    let pool = world.pool(SITES);
    assert!(world.refine(Some(&pool)).unwrap_err().to_string().contains("sheaf run resume"));
    let before = world.model.asked();

    // Another process: the cache lies in the home.
    let models = Models::new(
        &Home::at(world.folder.path()),
        LlmConfig::default(),
        Arc::new(Fakes(Arc::clone(&world.model))),
    );
    let again = World { models, stop: CancellationToken::new(), ..world };
    let refined = again.refine(Some(&pool)).unwrap();
    let all = again.model.asked();
    let questions = 2 * 2 * 6; // two sets, two labels, six texts each
    assert!(all <= questions + 1, "{all} asked for {questions}, {before} before the stop");
    assert_eq!(again.refine(Some(&pool)).unwrap().sets, refined.sets, "the same texts");
    assert_eq!(again.model.asked(), all, "nothing is asked twice");
}

#[test]
fn an_ablation_without_the_sites_asks_them_nothing() {
    let world = World::new(&format!("{PLAN}arms = ['llm']\n"), false, lists);
    let refined = world.refine(None).unwrap();
    assert_eq!(refined.sets.keys().collect::<Vec<_>>(), [&Texts::Llm]);
    let world = World::new(&format!("{PLAN}arms = ['synthetic']\n"), false, lists);
    let refined = world.refine(Some(&world.pool(SITES))).unwrap();
    assert_eq!((refined.sets.len(), world.model.asked()), (1, 0));
    assert!(refined.llm.is_none());
}

#[test]
fn candidates_evolve_by_votes_and_become_the_sites_texts() {
    let plan = format!(
        "{PLAN}synthesiser = 'private-evolution'\nevolution = {{ rounds = 2, candidates = 3, keep = 1 }}\n"
    );
    let world = World::new(&plan, false, lists);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let tools = Tools { models: &world.models, stop: &world.stop, tell: &|_, _, _| {} };
    let context = Context {
        plan: &world.plan,
        blobs: &world.blobs,
        members: &[],
        run_id: "x-1",
        version: 1,
        authority: &[],
        tools: Some(&tools),
    };
    let phase = |next: Next| match next {
        Next::Collect(phase) => phase,
        Next::Publish => panic!("there is more to ask"),
    };
    let finished = |phase: &PhaseSpec, document: &[u8]| PhaseOutput {
        name: phase.name.clone(),
        key: phase.key.clone(),
        output: world.blobs.put(document).unwrap(),
        members: Vec::new(),
        round: false,
    };
    let mut outputs = Vec::new();
    let mut names = Vec::new();
    loop {
        let phase = phase(Fdkt.next(&context, &outputs).unwrap());
        names.push(phase.name.clone());
        let mut contributions = Vec::new();
        if let Some(candidates) = phase.inputs.first().filter(|_| phase.name.starts_with(VOTE)) {
            assert!(!phase.asks_nobody());
            let candidates = site_texts(&world.plan, &world.blobs.get(candidates).unwrap()).unwrap();
            // The last candidate of each label is everybody's.
            let last =
                |at: usize| candidates[at + 1..].iter().all(|other| other.label != candidates[at].label);
            let votes: Vec<i64> = (0..candidates.len()).map(|at| i64::from(last(at)) * 4096 - 9).collect();
            let answer = |votes: &[i64]| serde_json::to_vec(&serde_json::json!({"votes": votes})).unwrap();
            let file = world.folder.path().join("answer");
            let site = "site-0".parse().unwrap();
            fs::write(&file, answer(&votes[1..])).unwrap();
            assert!(Fdkt.check_result(&context, &phase, &site, &file).is_err(), "a vote is missing");
            fs::write(&file, answer(&votes)).unwrap();
            Fdkt.check_result(&context, &phase, &site, &file).unwrap();
            contributions.push((site, world.blobs.put(&answer(&votes)).unwrap()));
            if phase.name == "vote-2" {
                assert!(
                    candidates.len() > 2,
                    "one of each label stayed, and more were written: {candidates:?}"
                );
            }
        }
        if phase.name == TRANSFER {
            break;
        }
        let answers =
            Answers { phase: &phase, contributions: &contributions, outputs: &outputs, previous: None };
        let document = Fdkt.reduce(&context, &answers).unwrap();
        outputs.push(finished(&phase, &document));
    }
    assert_eq!(names, ["seed", "vote-1", "vote-2", "refine", "transfer"]);
    let refined: Refined = outcome(&world.blobs, outputs.last().unwrap()).unwrap();
    assert_eq!(refined.counts[&Texts::Synthetic], 2, "the best of each label");
    assert!(refined.counts[&Texts::Fdkt] > 2);
    assert_eq!(Fdkt.merged_blobs(&context, &outputs[1]).unwrap().len(), 1);
    let published = Fdkt.publish(&context, &outputs).unwrap();
    assert!(published.files.keys().all(|name| !name.starts_with("synthetic/")), "no site wrote a text");
}
