//! Promise: what clip goes with a plan can be seen before anybody runs it and without a record: `sheaf privacy clip` says how long the
//! gradients of public texts are, in every workload that tunes an adapter with noise.

use std::{fs, path::Path};

use serde_json::Value;
use sheaf_tests::{
    models::{ENCODER, LANGUAGE, POSITIONS, WIDTH, lend},
    process::{Variable, finished},
};

const PRIVACY: &str = "[privacy]\nepsilon = 8.0\ndelta = 1e-3\nunits = 8\nclip = 0.5\n";
const LORA: &str = "lora = { rank = 2, alpha = 4, targets = ['q_proj', 'v_proj'], layers = 1 }";
const TUNING: &str = "tuning = { epochs = 2, batch = 4, learning_rate = 5e-3, seed = 1 }";

/// A plan of each such workload for the small models.
fn plans() -> [(&'static str, String); 3] {
    // What a random model writes is drawn hot, so that there is something in it.
    let hot = "temperature = 10.0, top_p = 1.0";
    let rewardds = format!(
        "[rewardds]\ncontrol = 'A note:'\nmodel = '{LANGUAGE}'\nencoder = '{ENCODER}'\nmax_tokens = 64\nanswer_tokens = 24\n\
         generator = {{ {LORA}, {TUNING} }}\nreward = {{ form = 'embedding', {TUNING} }}\n\
         queries = {{ max_tokens = 24, {hot} }}\nfilter = {{ {hot} }}\ntarget = {{ model = '{LANGUAGE}', {LORA} }}\n"
    );
    let fdkt = format!(
        "[schema.declared]\nclasses = ['fever', 'cough']\ndim = {WIDTH}\n\
         [schema.backbone]\nmodel = '{ENCODER}'\nmax_tokens = 48\n\
         [fdkt]\nabout = 'Notes'\ncontrol = 'A note about {{label}}:'\nmodel = '{LANGUAGE}'\nmax_tokens = 64\n\
         {LORA}\n{TUNING}\nsampling = {{ max_tokens = 24 }}\n"
    );
    let fedavg = format!(
        "[fedavg]\nhead = 'lora'\nmodel = '{LANGUAGE}'\nmax_tokens = 64\n{LORA}\nrounds = 1\nbatch = 4\nlearning_rate = 1e-3\n"
    );
    [("rewardds", rewardds), ("fdkt", fdkt), ("fedavg", fedavg)].map(|(workload, options)| {
        (workload, format!("[run]\nname = 'clipped'\nworkload = '{workload}'\n{PRIVACY}{options}"))
    })
}

fn said(plan: &Path, more: &[&str], models: &[Variable]) -> String {
    let args = [&["privacy", "clip", plan.to_str().unwrap()][..], more].concat();
    let output = finished("sheaf", &args, models);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn number(found: &Value, path: &str) -> f64 {
    found.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {found}"))
}

#[test]
fn the_lengths_of_gradients_are_measured_on_texts_that_are_public() {
    let folder = tempfile::tempdir().unwrap();
    let models = lend(&folder.path().join("models"), POSITIONS);
    let texts = folder.path().join("texts.txt");
    fs::write(&texts, "How long does a fever last?\n\nIs a cough worse at night?\nno more\n").unwrap();
    for (workload, text) in plans() {
        let plan = folder.path().join(format!("{workload}.toml"));
        fs::write(&plan, text).unwrap();
        let own: Value = serde_json::from_str(&said(&plan, &["--count", "8", "--json"], &models)).unwrap();
        let measured = number(&own, "/texts");
        assert!((1.0..=8.0).contains(&measured), "{workload}: {own}");
        let [low, median, high] = ["p10", "median", "p90"].map(|at| number(&own, &format!("/length/{at}")));
        assert!(0.0 < low && low <= median && median <= high, "{workload}: {own}");
        assert_eq!((number(&own, "/clip"), own["model"].as_str()), (0.5, Some(LANGUAGE)), "{workload}");
        assert!((number(&own, "/clip_over_median") * median - 0.5).abs() < 1e-9, "{workload}: {own}");
        assert!((number(&own, "/noise") - 0.5 * number(&own, "/sigma")).abs() < 1e-9, "{workload}: {own}");

        // A plan's clip is what is compared, and has no part in what is measured.
        let all = ["--texts", texts.to_str().unwrap(), "--count", "2", "--set", "privacy.clip=1e6", "--json"];
        let given: Value = serde_json::from_str(&said(&plan, &all, &models)).unwrap();
        assert!((1.0..=2.0).contains(&number(&given, "/texts")), "{workload}: {given}");
        assert_eq!(number(&given, "/longer_than_clip"), 0.0, "{workload}: {given}");
        assert!(given["advice"].as_str().unwrap().contains("times the median"), "{workload}: {given}");
    }
    let words = said(&folder.path().join("fdkt.toml"), &["--count", "4"], &models);
    assert!(words.contains(LANGUAGE) && words.contains("median") && words.contains("sigma"), "{words}");
}
