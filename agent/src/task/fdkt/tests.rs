//! What is learnt from and what is written, on a small random Llama.

use sheaf_data::{AssetStore, Schema};
use sheaf_models::{Adapter, Compute, LoraConfig};
use sheaf_proto::{
    fdkt::{Sampling, Tuning},
    fedavg::AdapterSpec,
};

use super::*;

fn model() -> LanguageModel {
    let fixtures =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/tests/fixtures/tiny_llama");
    LanguageModel::load(&fixtures, &Compute::cpu()).unwrap()
}

fn spec() -> SynthesiseSpec {
    let schema: Schema = toml::from_str("[declared]\nclasses = ['a', 'b']\n").unwrap();
    let targets = vec!["q_proj".to_owned()];
    SynthesiseSpec {
        schema,
        model: "tiny".to_owned(),
        model_sha256: String::new(),
        adapter: AdapterSpec { rank: 2, alpha: 4.0, dropout: 0.0, targets, layers: None },
        control: "about {label}".to_owned(),
        max_tokens: 24,
        tuning: Tuning { epochs: 1, batch: 2, learning_rate: 1e-3, seed: 3 },
        sampling: Sampling { per_class: 40, max_tokens: 8, min_words: 1, ..Sampling::default() },
        privacy: None,
    }
}

#[test]
fn records_are_control_code_and_text_and_undeclared_classes_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let lines = [("1", "hello", "a"), ("1", "a longer text about nothing much at all", "b"), ("2", "x", "c")];
    let line = |(id, text, label): &(&str, &str, &str)| {
        format!("{{\"id\":\"{id}\",\"text\":\"{text}\",\"label\":\"{label}\"}}\n")
    };
    std::fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
    let source = Source::Text { path: Some(path), asset: None };
    let dataset = source.open(&Schema::default(), &AssetStore::new(folder.path().to_owned(), None)).unwrap();
    let (spec, model) = (spec(), model());
    let found = records(&spec, &dataset, "id", &model).unwrap();
    assert_eq!(found.iter().map(|(owner, _)| *owner).collect::<Vec<_>>(), [0, 0], "both of person 1");
    for (_, record) in &found {
        assert!(record.tokens.len() <= spec.max_tokens && record.targets() > 0);
    }
    let (short, long) = (&found[0].1, &found[1].1);
    let given = prompt(&model, "about a").unwrap();
    assert_eq!(short.tokens[..short.first_target], given, "what generation begins with");
    assert_eq!(long.tokens.len(), spec.max_tokens, "cut");
}

#[test]
fn every_class_gets_the_same_number_of_draws_and_no_text_twice() {
    let (spec, model) = (spec(), model());
    let config =
        LoraConfig { rank: 2, alpha: 4.0, targets: vec!["q_proj".to_owned()], ..LoraConfig::default() };
    let adapter = Adapter::new(&model, &config, 1).unwrap();
    let texts = write(&spec, &model, &adapter, &|_| {}, &|| false).unwrap();
    let of = |class: &str| texts.iter().filter(|text| text.label == class).count();
    assert!(of("a") > 20 && of("b") > 20 && of("a") <= 40 && of("b") <= 40, "{} {}", of("a"), of("b"));
    let different: BTreeSet<_> = texts.iter().map(|text| text.text.to_lowercase()).collect();
    assert_eq!(different.len(), texts.len());
    assert!(matches!(write(&spec, &model, &adapter, &|_| {}, &|| true), Err(AgentError::Cancelled)));
}

#[test]
fn a_text_without_a_word_is_never_sent() {
    let (mut spec, model) = (spec(), model());
    let config = LoraConfig { rank: 2, targets: vec!["q_proj".to_owned()], ..LoraConfig::default() };
    let adapter = Adapter::new(&model, &config, 1).unwrap();
    // One token each, drawn from all of them nearly alike: some are white space, some the end.
    spec.sampling =
        Sampling { per_class: 200, max_tokens: 1, temperature: 10.0, top_k: 0, top_p: 1.0, min_words: 0 };
    for min_words in 0..2 {
        spec.sampling.min_words = min_words;
        let texts = write(&spec, &model, &adapter, &|_| {}, &|| false).unwrap();
        assert!(!texts.is_empty() && texts.iter().all(|text| !text.text.trim().is_empty()), "{min_words}");
    }
}
