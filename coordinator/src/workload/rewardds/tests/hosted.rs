//! A target on a server: its weights stay, examples stand in front of its questions.

use super::*;

#[test]
fn a_hosted_target_learns_nothing_and_gets_examples() {
    let hosted = "arms = ['rgf', 'rgf-sor']\ntarget = { kind = 'hosted', holdout = 0.25 }\n";
    let ran = run(&format!("{PLAN}{hosted}"));
    let names = ["start", "generator-1", "reward-1", "sample", "tune-rgf", "refine-2"];
    assert_eq!(ran.names(), names, "sites cannot measure what they do not have");
    assert!(ran.world.fake.lessons.lock().unwrap().is_empty(), "no weights are tuned");
    assert!(ran.world.fake.asked.lock().unwrap().is_empty(), "no model of this process answers");
    let (filtered, refined): (TunedArm, Refined) = (ran.tuned(Arm::Rgf), ran.gave("refine-2"));
    assert_eq!((filtered.adapter, refined.tuned.adapter), (None, None));
    assert_eq!((filtered.examples, refined.tuned.examples), (4, 18), "all revisions are long");

    // Feedback on 14 responses, three revisions of each; before these stand the three best of the pool.
    let (queries, old) = (ran.queries(), ran.pool(&filtered));
    let shown = |entry: &sheaf_text::reward::Entry| {
        format!("### Question\n{}\n\n### Answer\n{}\n\n", queries[entry.query].query, entry.response)
    };
    let mut best: Vec<_> = old.pool.entries().iter().collect();
    best.sort_by(|a, b| b.score.total_cmp(&a.score));
    let shots: String = best[..3].iter().map(|entry| shown(entry)).collect();
    let prompts = ran.world.llm.prompts();
    assert_eq!(prompts.len(), 14 + 14 * 3);
    let (feedback, revisions): (Vec<_>, Vec<_>) =
        prompts.iter().partition(|prompt| prompt.options.max_tokens == 48);
    for prompt in &feedback {
        assert!(prompt.user.starts_with("Below are a question"), "no example: {}", prompt.user);
    }
    for prompt in &revisions {
        let (before, after) = prompt.user.split_once(&shots).expect("examples stand before the question");
        assert!(before.starts_with("Answer the last question"), "{before}");
        assert!(after.starts_with("### Question\nBelow are a question"), "{after}");
        assert!(after.ends_with("### Answer\n"), "{after}");
        let asked = queries.iter().filter(|query| after.contains(&query.query)).collect::<Vec<_>>();
        assert!(matches!(asked.as_slice(), [query] if !query.held), "{after}");
    }
    let seeds: BTreeSet<u64> = prompts.iter().filter_map(|prompt| prompt.options.seed).collect();
    assert_eq!(seeds.len(), prompts.len());
    let tokens = |longest: u32| prompts.iter().filter(|prompt| prompt.options.max_tokens == longest).count();
    assert_eq!((tokens(48), tokens(32)), (14, 42));
    let lines = ran.lines(&ran.published.files["pool/round-2.jsonl"]);
    assert!(lines.iter().all(|line| line["feedback"] == "Say more." && line["candidates"] == 3), "trimmed");

    // What is left of the run are the pool's examples.
    let published = &ran.published;
    assert_eq!(published.model_file.as_deref(), Some("examples.jsonl"));
    assert_eq!(published.model, published.card);
    assert!(!published.files.keys().any(|name| name.starts_with("target/")));
    assert!(published.files.contains_key("proxies/s1/generator/adapter_model.safetensors"));
    let examples = ran.lines(&published.model);
    let pool = ran.pool(&refined.tuned).pool;
    assert_eq!(examples.len(), 18);
    for (line, entry) in examples.iter().zip(pool.entries()) {
        assert_eq!(line["query"], queries[entry.query].query.as_str());
        assert_eq!(line["response"], entry.response.as_str());
        assert_eq!(line["reward"], entry.score);
    }
    let report = ran.report();
    assert!(report.target.contains("hosted"), "{}", report.target);
    assert_eq!(report.llm.as_ref().unwrap().model, "scripted");
    assert_eq!((report.rows, report.figures(Arm::Rgf)), (None, None));
}
