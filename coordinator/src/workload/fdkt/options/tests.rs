use super::*;

const PLAN: &str = "[run]\nname = 'x'\nworkload = 'fdkt'\n[schema.declared]\nclasses = ['a', 'b_c']\ndim = 384\n\
    [schema.backbone]\nmodel = 'minilm-l6'\n[fdkt]\ncontrol = 'About: {label}'\nabout = 'Questions'\n\
    lora = { rank = 4, alpha = 8, targets = ['q_proj'] }\n\
    tuning = { epochs = 1, batch = 8, learning_rate = 0.001 }\n";
const PRIVACY: &str = "[privacy]\nepsilon = 8\ndelta = 1e-4\nunits = 300\n";

#[test]
fn mistakes_are_named() {
    assert!(Plan::parse(PLAN).is_ok());
    for (text, part) in [
        (PLAN.replace("control = 'About: {label}'\n", ""), "control"),
        (format!("{PLAN}evolution = {{ keep = 20 }}\n"), "evolution"),
        (PLAN.replace("{label}", "label"), "control"),
        (PLAN.replace("{label}", "{label} {domain}"), "braces"),
        (PLAN.replace("epochs = 1", "epochs = 0"), "tuning"),
        (PLAN.replace("rank = 4", "rank = 0"), "lora"),
        (PLAN.replace("'Questions'", "' '"), "about"),
        (format!("{PLAN}ask = 'Write something.'\n"), "ask"),
        (PLAN.replace("'b_c'", "'A'"), "classes"),
        (PLAN.replace("[schema.declared]\nclasses = ['a', 'b_c']\ndim = 384\n", ""), "schema.declared"),
        (
            PLAN.replace("workload = 'fdkt'\n", "workload = 'fdkt'\nsecure_aggregation = true\n"),
            "private-evolution",
        ),
        (format!("{PLAN}sampling = {{ per_class = 0 }}\n"), "per_class"),
        (format!("{PLAN}filter = {{ worst = 1.0 }}\n"), "filter"),
        (format!("{PLAN}filter = {{ judge = 'me' }}\n"), "`scores`"),
        (format!("{PLAN}augment = {{ spare = 0.5 }}\n"), "augment.spare"),
        (format!("{PLAN}augment = {{ top_p = 0.0 }}\n"), "augment.top_p"),
        (format!("{PLAN}arms = ['best']\n"), "`fdkt`"),
        (format!("{PLAN}colour = 1\n"), "colour"),
        (format!("{PLAN}task = []\n"), "task must name"),
        (format!("{PLAN}task = ['analytic', 'analytic']\n"), "task must name"),
        (format!("{PLAN}task = ['llm']\n"), "`language-model`"),
        (format!("{PLAN}classifier = {{ epochs = 0 }}\n"), "classifier.epochs"),
        (format!("{PLAN}classifier = {{ batch = 5000 }}\n"), "classifier.batch"),
        (format!("{PLAN}classifier = {{ learning_rate = 0.0 }}\n"), "classifier.learning_rate"),
        (format!("{PLAN}classifier = {{ max_tokens = 3 }}\n"), "classifier.max_tokens"),
        (format!("{PLAN}classifier = {{ weight = 3 }}\n"), "weight"),
        (
            format!("{PLAN}classifier = {{ lora = {{ rank = 0, alpha = 1, targets = ['q_proj'] }} }}\n"),
            "classifier.lora.rank",
        ),
        (format!("{PLAN}model = 'minilm-l7'\ntask = ['language-model']\n"), "model: "),
        (format!("{PLAN}{PRIVACY}"), "clip"),
        (format!("{PLAN}arms = ['llm']\n{PRIVACY}clip = 1.0\n"), "nothing is spent"),
    ] {
        let error = Plan::parse(&text).unwrap_err().to_string();
        assert!(error.contains(part), "{text:?} gave {error:?}");
    }
}

#[test]
fn an_ablation_leaves_work_out() {
    let of = |arms: &str| {
        FdktOptions::of(&Plan::parse(&format!("{PLAN}arms = {arms}\n")).unwrap())
            .map(|options| (options.synthesises(), options.augments()))
            .unwrap()
    };
    assert_eq!(of("[]"), (false, false));
    assert_eq!(of("['synthetic']"), (true, false));
    assert_eq!(of("['llm']"), (false, true));
    assert_eq!(of("['fdkt']"), (true, true));
    assert_eq!(of("['synthetic']\nsynthesiser = 'private-evolution'"), (true, true));
}

#[test]
fn a_classifier_is_there_where_the_task_asks_for_one() {
    let of = |more: &str| FdktOptions::of(&Plan::parse(&format!("{PLAN}{more}")).unwrap()).unwrap();
    assert_eq!(of("").task, [TaskModel::Analytic]);
    assert_eq!(
        of("classifier = { epochs = 3 }\n").classifier().unwrap(),
        None,
        "a table alone asks for nothing"
    );
    let both = of("task = ['language-model', 'analytic']\nclassifier = { epochs = 3, seed = 9 }\n");
    assert_eq!(both.first_task(), TaskModel::Analytic);
    let classifier = both.classifier().unwrap().unwrap();
    assert_eq!(
        (classifier.tuning.epochs, classifier.tuning.seed, classifier.adapter.layers),
        (3, 9, Some(4))
    );
    assert_eq!((classifier.model.as_str(), classifier.model_sha256.len()), ("smollm2-135m", 64));
    assert_eq!(of("task = ['language-model']\n").first_task(), TaskModel::LanguageModel);
}
