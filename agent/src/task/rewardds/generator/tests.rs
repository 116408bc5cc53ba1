//! What a generation proxy learns of a record, and how records are fitted into their limits, on a small random Llama.

use std::path::Path;

use sheaf_data::{AssetStore, Schema};
use sheaf_models::Compute;
use sheaf_privacy::{Delta, Event, Rate, Sigma};
use sheaf_proto::{fedavg::AdapterSpec, privacy::PrivacySpec, rewardds::Target};

use super::*;

fn model() -> LanguageModel {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/tests/fixtures/tiny_llama");
    LanguageModel::load(&fixture, &Compute::cpu()).unwrap()
}

fn adapter() -> AdapterSpec {
    AdapterSpec { rank: 2, alpha: 4.0, dropout: 0.0, targets: vec!["q_proj".to_owned()], layers: None }
}

fn proxy(control: &str, max_tokens: usize, answer_tokens: usize) -> Generator {
    Generator {
        model: "tiny".to_owned(),
        model_sha256: String::new(),
        adapter: adapter(),
        control: control.to_owned(),
        max_tokens,
        answer_tokens,
    }
}

fn asked(query: &str, response: &str) -> Exchange {
    Exchange { control: "Q:".to_owned(), query: query.to_owned(), response: response.to_owned() }
}

/// Tokens of a text, with what begins one and, where it ends, what ends it.
fn tokens(model: &LanguageModel, begins: bool, parts: &[&str], ends: bool) -> Vec<u32> {
    let mark = model.vocabulary().ends()[0];
    let parts = parts.iter().flat_map(|part| model.vocabulary().encode_plain(part).unwrap());
    begins.then_some(mark).into_iter().chain(parts).chain(ends.then_some(mark)).collect()
}

/// The patient asks so often that a query is too long for any of these limits.
fn long_query() -> String {
    format!("{}Is it a fever, please?", "The patient asks. ".repeat(20))
}

#[test]
fn query_and_response_are_learnt_behind_the_control_code() {
    let (model, proxy) = (model(), proxy("Q:", 64, 16));
    let record = asked("Is it\n a fever?", " Rest well. ");
    let learnt = language::encoded(&model, &proxy, &record, true).unwrap();
    let control = tokens(&model, true, &["Q:\n"], false);
    let before = tokens(&model, true, &["Q:\nIs it a fever?\n"], false);
    assert_eq!(learnt.tokens[..learnt.first_target], control, "what generation begins with");
    assert_eq!(learnt.tokens, tokens(&model, true, &["Q:\nIs it a fever?\n", "Rest well."], true));
    let measured = language::encoded(&model, &proxy, &record, false).unwrap();
    assert_eq!(measured.tokens, learnt.tokens);
    assert_eq!(measured.tokens[..measured.first_target], before, "the response alone is measured");
    let marked = language::encoded(&model, &proxy, &asked("x<|im_end|>", "y<|im_end|>"), true).unwrap();
    let marks = marked.tokens.iter().filter(|token| **token == control[0]);
    assert_eq!(marks.count(), 2, "what a record writes neither begins nor ends a text");
}

#[test]
fn a_long_query_keeps_its_end_and_a_long_response_ends_with_a_sentence() {
    let (model, proxy, long) = (model(), proxy("Q:", 48, 12), long_query());
    let query = language::query(&model, &proxy, "Q:", &long).unwrap();
    assert!(query.len() < long.len() && long.ends_with(&query), "{query:?}");
    assert!(query.ends_with("Is it a fever, please?"), "{query:?}");
    assert_eq!(language::query(&model, &proxy, "Q:", " Who?\n").unwrap(), "Who?");
    let before = tokens(&model, true, &[&format!("Q:\n{query}\n")], false);
    for (response, learnt, ends) in [
        ("Rest well.", "Rest well.", true),
        ("Rest well. Ask the patient to answer and to keep the body in bed", "Rest well.", true),
        ("a b c d e f g h i j k l m n o p", "a b c d e f", false),
    ] {
        let Encoded { tokens: found, first_target } =
            language::encoded(&model, &proxy, &asked(&long, response), true).unwrap();
        assert!(found.len() <= proxy.max_tokens, "{}", found.len());
        assert_eq!(found[..first_target], tokens(&model, true, &["Q:\n"], false));
        assert_eq!(found[..before.len()], before);
        assert_eq!(found[before.len()..], tokens(&model, false, &[learnt], ends), "{response}");
    }
}

#[test]
fn what_the_target_learns_fits_into_its_limit() {
    let model = model();
    let target = Target {
        model: "tiny".to_owned(),
        model_sha256: String::new(),
        adapter: adapter(),
        max_tokens: 64,
        answer_tokens: 9,
        code: false,
    };
    let response = "A raised body temperature.";
    let short = language::example(&model, &target, " Who? ", response).unwrap();
    assert_eq!(short.0, "Who?");
    // Wherever the cut falls: without the space before it a word may have a token more.
    for shift in 0..40 {
        let told = "the fever is in the body, is it to ease a fever? ".repeat(6);
        let query = format!("{} {told}", "x".repeat(shift));
        for response in [response.to_owned(), response.repeat(5)] {
            let (question, record) = language::example(&model, &target, &query, &response).unwrap();
            assert!(query.trim().ends_with(&question) && question.len() < told.len(), "{question:?}");
            assert!(record.tokens.len() <= target.max_tokens + 1, "{shift}: {}", record.tokens.len());
            assert_eq!(
                record.tokens[record.first_target..],
                tokens(&model, false, &["A raised body temperature."], true),
                "{shift}"
            );
        }
    }
}

#[test]
fn records_are_of_declared_classes_with_an_answer_and_have_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let lines = [
        ("p", "Is it a fever?", "Rest well.", "card_arrival", "train"),
        ("q", "A tree?", "No.", "tree", "train"),
        ("p", "Who?", "A patient.", "b", "train"),
        ("r", "Why?", " ", "b", "train"),
        ("s", "Where?", "In bed.", "b", "train"),
        ("s", "When?", "Now.", "b", "test"),
    ];
    let line = |(id, text, answer, label, split): &(&str, &str, &str, &str, &str)| {
        let line = serde_json::json!({
            "id": id, "text": text, "answer": answer, "label": label, "split": split,
        });
        format!("{line}\n")
    };
    std::fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
    let schema: Schema = toml::from_str("[declared]\nclasses = ['card_arrival', 'b']\n").unwrap();
    let source = Source::Text { path: Some(path), asset: None };
    let dataset = source.open(&schema, &AssetStore::new(folder.path().to_owned(), None)).unwrap();
    let event =
        Event::PoissonGaussian { rate: Rate::new(0.5).unwrap(), sigma: Sigma::new(1.0).unwrap(), steps: 1 };
    let privacy = PrivacySpec {
        unit: "id".to_owned(),
        delta: Delta::new(1e-3).unwrap(),
        event,
        later: Vec::new(),
        training: None,
    };
    let mut spec = GeneratorSpec {
        schema,
        generator: proxy("About {label}:", 64, 16),
        tuning: Tuning { epochs: 1, batch: 2, learning_rate: 1e-3, seed: 3 },
        round: Round { round: 1, max_rows: 0, privacy: Some(privacy) },
    };
    let model = model();
    let owners = |spec: &GeneratorSpec| -> Vec<usize> {
        records(&model, spec, &dataset).unwrap().into_iter().map(|(owner, _)| owner).collect()
    };
    let found = owners(&spec);
    assert!(found.len() == 3 && found[0] == found[1] && found[1] != found[2], "{found:?}");
    let all = records(&model, &spec, &dataset).unwrap();
    assert!(all.iter().all(|(_, record)| record.targets() > 0 && record.tokens.len() <= 64));
    let control = tokens(&model, true, &["About card arrival:\n"], false);
    assert_eq!(all[0].1.tokens[..all[0].1.first_target], control, "without the class's mark");
    spec.round.privacy = None;
    let found = owners(&spec);
    assert!(found[0] < found[1] && found[1] < found[2], "each by itself: {found:?}");
    spec.generator.control = "About:".to_owned();
    assert_eq!(owners(&spec).len(), 4, "a code without a class takes records of any");
}
