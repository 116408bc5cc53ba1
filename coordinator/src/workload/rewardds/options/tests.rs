use super::*;

const PLAN: &str = "[run]\nname = 'x'\nworkload = 'rewardds'\n[rewardds]\ncontrol = 'A question and its answer:'\n\
    generator = { lora = { rank = 4, alpha = 8, targets = ['q_proj'] }, \
    tuning = { epochs = 1, batch = 8, learning_rate = 0.001 } }\n\
    reward = { form = 'embedding', tuning = { epochs = 4, batch = 16, learning_rate = 0.01 } }\n\
    target = { lora = { rank = 2, alpha = 16, targets = ['v_proj'] } }\n";
const TARGET: &str = "target = { lora = { rank = 2, alpha = 16, targets = ['v_proj'] } }\n";
const LORA: &str = "lora = { rank = 3, alpha = 8, targets = ['q_proj'] }";
const PRIVACY: &str = "[privacy]\nepsilon = 8\ndelta = 1e-4\n";

/// The plan with another control code, as TOML writes it.
fn coded(control: &str) -> String {
    PLAN.replace("'A question and its answer:'", control)
}

/// The plan with a further key at the beginning of an inline table.
fn with(section: &str, key: &str) -> String {
    PLAN.replace(&format!("{section} = {{ "), &format!("{section} = {{ {key}, "))
}

fn of(plan: &str) -> RewarddsOptions {
    RewarddsOptions::of(&Plan::parse(plan).unwrap()).unwrap()
}

fn named(mistakes: &[(String, &str)]) {
    for (text, part) in mistakes {
        let error = Plan::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text:?} gave {error:?}");
    }
}

#[test]
fn mistakes_in_the_table_are_named() {
    assert!(Plan::parse(PLAN).is_ok());
    assert!(Plan::parse(&format!("{PLAN}{PRIVACY}units = 300\nclip = 1.0\n")).is_ok());
    named(&[
        (PLAN.replace("control = 'A question and its answer:'\n", ""), "control"),
        (coded("' '"), "control must be one line"),
        (coded("\"A question\\nand its answer:\""), "control must be one line"),
        (coded("'A question about {topic}:'"), "braces"),
        (coded("'A question about {label} and {topic}:'"), "braces"),
        (coded("'A question about {label}:'"), "schema.declared"),
        (format!("{PLAN}arms = ['rgf', 'untuned', 'rgf']\n"), "arms must name"),
        (format!("{PLAN}arms = []\n"), "arms must name"),
        (format!("{PLAN}arms = ['best']\n"), "`rgf-sor`"),
        (format!("{PLAN}colour = 1\n"), "colour"),
        (format!("{PLAN}proxies = 'mine'\n"), "`per-site`"),
        (format!("{PLAN}model = 'gpt-9'\n"), "model: asset gpt-9"),
        (format!("{PLAN}encoder = 'minilm-l7'\n"), "minilm-l7"),
        (format!("{PLAN}max_tokens = 15\nanswer_tokens = 4\n"), "max_tokens must be"),
        (format!("{PLAN}answer_tokens = 3\n"), "answer_tokens 4 to"),
        (format!("{PLAN}max_tokens = 128\nanswer_tokens = 121\n"), "more than answer_tokens"),
        (format!("{PLAN}{PRIVACY}units = 300\n"), "clip is needed"),
        (format!("{PLAN}{PRIVACY}clip = 1.0\n"), "units is needed"),
    ]);
    assert!(Plan::parse(&format!("{PLAN}max_tokens = 128\nanswer_tokens = 120\n")).is_ok());
}

#[test]
fn mistakes_about_the_proxies_are_named() {
    let as_model = PLAN.replace("form = 'embedding'", "form = 'language-model'");
    assert!(Plan::parse(&as_model.replace("reward = { ", &format!("reward = {{ {LORA}, "))).is_ok());
    let poor = LORA.replace("rank = 3", "rank = 0");
    let shared = |section: &str, key: &str| format!("{}proxies = 'shared'\n", with(section, key));
    assert!(Plan::parse(&shared("generator", "rounds = 3")).is_ok());
    let secure = "workload = 'rewardds'\nsecure_aggregation = true\n";
    let secure = |plan: &str| plan.replace("workload = 'rewardds'\n", secure);
    assert!(Plan::parse(&secure(&shared("reward", "rounds = 3"))).is_ok());
    named(&[
        (with("generator", "rounds = 2"), "rounds are for proxies = \"shared\""),
        (with("reward", "rounds = 2"), "rounds are for proxies = \"shared\""),
        (shared("generator", "rounds = 0"), "generator.rounds"),
        (shared("reward", "rounds = 1001"), "reward.rounds"),
        (secure(PLAN), "secure_aggregation"),
        (PLAN.replace("epochs = 1,", "epochs = 0,"), "generator.tuning"),
        (PLAN.replace("batch = 8,", "batch = 0,"), "generator.tuning"),
        (PLAN.replace("learning_rate = 0.01 ", "learning_rate = 1.5 "), "reward.tuning"),
        (PLAN.replace("rank = 4", "rank = 0"), "generator: lora.rank"),
        (as_model.clone(), "reward.lora is missing"),
        (as_model.replace("reward = { ", &format!("reward = {{ {poor}, ")), "reward: lora.rank"),
        (with("reward", LORA), "reward.lora is for"),
        (PLAN.replace("form = 'embedding'", "form = 'words'"), "`language-model`"),
        (with("reward", "clip = 0.0"), "reward.clip"),
        (with("reward", "clip = inf"), "reward.clip"),
        (with("reward", "noise = 0.001"), "reward.noise"),
        (with("reward", "noise = 101.0"), "reward.noise"),
        (with("reward", "noise = nan"), "reward.noise"),
    ]);
}

#[test]
fn mistakes_about_texts_and_the_target_are_named() {
    let target = |text: &str| PLAN.replace(TARGET, text);
    assert!(Plan::parse(&target("arms = ['rgf', 'rgf-sor']\ntarget = { kind = 'hosted' }\n")).is_ok());
    named(&[
        (format!("{PLAN}queries = {{ count = 0 }}\n"), "queries.count"),
        (format!("{PLAN}queries = {{ spare = 0.5 }}\n"), "queries.spare"),
        (format!("{PLAN}queries = {{ max_tokens = 0 }}\n"), "queries.max_tokens"),
        (format!("{PLAN}queries = {{ near = 0.5 }}\n"), "queries.near"),
        (format!("{PLAN}queries = {{ top_p = 0.0 }}\n"), "queries.top_p"),
        (format!("{PLAN}filter = {{ candidates = 1 }}\n"), "filter.candidates"),
        (format!("{PLAN}filter = {{ alpha = 1.5 }}\n"), "filter.alpha"),
        (format!("{PLAN}filter = {{ fold = 0 }}\n"), "filter.fold"),
        (format!("{PLAN}filter = {{ temperature = 0.0 }}\n"), "filter.temperature"),
        (format!("{PLAN}filter = {{ keep = 3 }}\n"), "keep"),
        (format!("{PLAN}refine = {{ rounds = 0 }}\n"), "refine.rounds"),
        (format!("{PLAN}refine = {{ revisions = 0 }}\n"), "refine.revisions"),
        (format!("{PLAN}refine = {{ feedback_tokens = 0 }}\n"), "refine.feedback_tokens"),
        (format!("{PLAN}refine = {{ top_p = 1.5 }}\n"), "refine.top_p"),
        (target(""), "target"),
        (target("target = { }\n"), "target.lora is missing"),
        (PLAN.replace("rank = 2", "rank = 0"), "target: lora.rank"),
        (with("target", "epochs = 0"), "target.epochs"),
        (with("target", "refine_epochs = 0"), "target.refine_epochs"),
        (with("target", "batch = 0"), "target.batch"),
        (with("target", "learning_rate = 0.0"), "target.learning_rate"),
        (with("target", "holdout = 0.9"), "target.holdout"),
        (with("target", "model = 'gpt-9'"), "model: asset gpt-9"),
        (with("target", "kind = 'hosted'"), "target.lora"),
        (target("target = { kind = 'hosted', code = true }\n"), "target.code"),
        (target("target = { kind = 'hosted' }\n"), "\"untuned\" cannot be compared"),
        (target("arms = ['rgf', 'random']\ntarget = { kind = 'hosted' }\n"), "\"random\" cannot be compared"),
        (target("target = { kind = 'elsewhere' }\n"), "`hosted`"),
    ]);
}

#[test]
fn refinement_begins_with_the_filter_whatever_the_arms_are() {
    let filters = |arms: &str| {
        let options = of(&format!("{PLAN}arms = {arms}\n"));
        (options.filters(), options.refines())
    };
    let filtering: Vec<Arm> = Arm::ALL.into_iter().filter(|arm| arm.is_filter()).collect();
    assert_eq!((of(PLAN).filters(), filtering.len()), (filtering, 6), "all of them when nothing is said");
    assert_eq!(filters("['rgf-sor']"), (vec![Arm::Rgf], true));
    assert_eq!(filters("['rgf-sor', 'random']"), (vec![Arm::Random, Arm::Rgf], true));
    assert_eq!(filters("['rgf', 'unfiltered']"), (vec![Arm::Unfiltered, Arm::Rgf], false));
    assert_eq!(filters("['untuned', 'non-private']"), (Vec::new(), false));
}

#[test]
fn a_control_code_is_said_of_every_class() {
    let declared = "[schema.declared]\nclasses = ['card_arrival', 'top-up']\n[rewardds]\n";
    let controls = |text: String| {
        let plan = Plan::parse(&text).unwrap();
        RewarddsOptions::of(&plan).unwrap().controls(&plan)
    };
    let labelled = coded("'A question about {label}:'").replace("[rewardds]\n", declared);
    assert_eq!(controls(labelled), ["A question about card arrival:", "A question about top up:"]);
    assert_eq!(controls(PLAN.replace("[rewardds]\n", declared)), ["A question and its answer:"]);
    assert_eq!(controls(PLAN.to_owned()), ["A question and its answer:"]);
}

#[test]
fn both_proxies_are_in_the_schedule() {
    let text = with("generator", "rounds = 3")
        .replace("reward = { ", "reward = { rounds = 2, clip = 0.5, noise = 2.0, ");
    let schedule = of(&format!("{text}proxies = 'shared'\n")).schedule();
    let generator = Rounds { batch: 8, epochs: 1, rounds: 3 };
    let reward = Rounds { batch: 16, epochs: 4, rounds: 2 };
    assert_eq!(schedule, Schedule::Proxies { generator, reward, clip: 0.5, noise: 2.0 });
    let Schedule::Proxies { generator, reward, clip, noise } = of(PLAN).schedule() else {
        panic!("not of both")
    };
    assert_eq!((generator.rounds, reward.rounds, clip, noise), (1, 1, 1.0, 1.0));
}

#[test]
fn models_are_pinned_and_drawn_as_the_plan_says() {
    let options =
        of(&format!("{PLAN}max_tokens = 300\nanswer_tokens = 40\nrefine = {{ temperature = 0.5 }}\n"));
    let (generator, target) = (options.generator().unwrap(), options.target().unwrap().unwrap());
    assert_eq!((generator.model.as_str(), generator.model_sha256.len()), ("smollm2-135m", 64));
    assert_eq!((generator.adapter.rank, target.adapter.rank), (4, 2));
    assert_eq!((target.max_tokens, target.answer_tokens), (300, 40));
    let RewardForm::Embedding { encoder } = options.reward().unwrap() else { panic!("another form") };
    assert_eq!((encoder.model.as_str(), encoder.sha256.map(|hash| hash.len())), ("minilm-l6", Some(64)));
    assert_eq!(encoder.max_tokens, 256, "the encoder reads no further");
    let drawing = |temperature, top_p, max_tokens| Drawing { temperature, top_p, max_tokens };
    assert_eq!(options.drawing_queries(), drawing(1.0, 0.7, 64));
    assert_eq!(options.drawing_candidates(), drawing(1.0, 0.7, 40));
    assert_eq!(options.drawing_revisions(9), drawing(0.5, 0.9, 9));
    let hosted = "arms = ['rgf-sor']\ntarget = { kind = 'hosted' }\n";
    assert_eq!(of(&PLAN.replace(TARGET, hosted)).target().unwrap(), None);
}
