//! Files that are truncated, damaged, of another kind or of another model: an error that says so, never a panic.

use std::{fs, path::Path};

use proptest::prelude::*;
use sheaf_models::{Adapter, Compute, LanguageModel, ModelError, weights::gguf::Gguf};

use crate::fixture::folder;

fn load(path: &Path) -> Result<LanguageModel, ModelError> {
    LanguageModel::load(path, &Compute::cpu())
}

/// A copy of the tiny model's folder with one file changed.
fn changed(file: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<LanguageModel, ModelError> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(folder("tiny_llama").join(name), copy.path().join(name)).unwrap();
    }
    let path = copy.path().join(file);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    load(copy.path())
}

fn replaced(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains(from), "{from}");
    *bytes = text.replace(from, to).into_bytes();
}

fn says(result: Result<LanguageModel, ModelError>, parts: &[&str]) {
    let error = result.err().expect("it is refused").to_string();
    assert!(parts.iter().all(|part| error.contains(part)), "{error:?} does not say {parts:?}");
}

#[test]
fn a_gguf_file_that_ends_early_is_refused_wherever_it_ends() {
    let whole = fs::read(folder("tiny_llama/model.gguf")).unwrap();
    let path = tempfile::tempdir().unwrap().keep().join("cut.gguf");
    for length in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(load(&path).is_err(), "{length} of {} bytes were enough", whole.len());
    }
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    says(load(&path), &["cut.gguf", "truncated", "fetch it again"]);
    fs::write(&path, b"<html>not found</html>").unwrap();
    says(load(&path), &["not a GGUF file"]);
    says(load(Path::new("nowhere.gguf")), &["nowhere.gguf"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_gguf_bytes_cause_a_panic(at in 0_usize..12_000, byte: u8, more in 0_usize..8) {
        let mut bytes = fs::read(folder("tiny_llama/model.gguf")).unwrap();
        for offset in 0..=more {
            let at = (at + offset) % bytes.len();
            bytes[at] = byte;
        }
        let path = tempfile::tempdir().unwrap().keep().join("changed.gguf");
        fs::write(&path, bytes).unwrap();
        if let Ok(gguf) = Gguf::open(&path) {
            let names: Vec<String> = gguf.tensor_names().map(str::to_owned).collect();
            for name in names {
                let _ = gguf.tensor(&name, &[320, 32]);
            }
        }
        let _ = load(&path);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn another_architecture_is_refused_by_name() {
    says(
        changed("config.json", |b| replaced(b, "\"llama\"", "\"mamba\"")),
        &["mamba", "not supported", "Llama"],
    );
    says(changed("config.json", |b| replaced(b, "\"silu\"", "\"gelu\"")), &["gelu", "not supported"]);
    says(
        changed("config.json", |b| replaced(b, "\"attention_bias\": false", "\"attention_bias\": true")),
        &["biases"],
    );
    says(changed("config.json", |b| replaced(b, "\"default\"", "\"yarn\"")), &["yarn", "not supported"]);
    says(changed("config.json", |b| b.truncate(20)), &["config.json"]);
    says(
        changed("config.json", |b| replaced(b, "\"hidden_size\": 32", "\"hidden_size\": 0")),
        &["hidden size 0"],
    );
    says(
        changed("config.json", |b| replaced(b, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3")),
        &["4 heads"],
    );
}

#[test]
fn weights_and_tokenizer_of_another_model_are_refused() {
    says(
        changed("config.json", |b| replaced(b, "\"intermediate_size\": 64", "\"intermediate_size\": 96")),
        &["gate_proj", "[64, 32]", "[96, 32]"],
    );
    says(
        changed("config.json", |b| replaced(b, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")),
        &["layers.2", "missing"],
    );
    says(
        changed("config.json", |b| replaced(b, "\"vocab_size\": 320", "\"vocab_size\": 300")),
        &["320 tokens", "300"],
    );
    says(changed("tokenizer.json", |b| b.truncate(100)), &["tokenizer.json", "not a tokenizer"]);
    says(changed("model.safetensors", |b| b.truncate(50_000)), &["model.safetensors", "not a whole"]);
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    let nan = |bytes: &mut Vec<u8>| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    says(changed("model.safetensors", nan), &["NaN", "damaged"]);
}

#[test]
fn texts_and_tokens_that_cannot_be_are_refused() {
    let model = load(&folder("tiny_llama")).unwrap();
    let long = "fever ".repeat(200_000);
    let tokens = model.vocabulary().encode(&long).unwrap();
    assert!(tokens.len() > 256);
    let mut decoder = sheaf_models::slm::decode::Decoder::new(&model, None, 256).unwrap();
    let error = decoder.begin(&tokens).unwrap_err().to_string();
    assert!(error.contains("more than the 256"), "{error}");
    assert!(decoder.begin(&[]).is_err());
    assert!(decoder.begin(&[999]).unwrap_err().to_string().contains("vocabulary"));
    assert!(model.vocabulary().encode(&"x".repeat((1 << 24) + 1)).is_err());
}

#[test]
fn adapters_of_another_kind_are_refused() {
    let copy = tempfile::tempdir().unwrap();
    let from = folder("tiny_llama/adapter");
    fs::copy(from.join("adapter_model.safetensors"), copy.path().join("adapter_model.safetensors")).unwrap();
    let text = fs::read_to_string(from.join("adapter_config.json")).unwrap();
    for (change, part) in [
        (text.replace("\"use_dora\": false", "\"use_dora\": true"), "use_dora"),
        (text.replace("\"LORA\"", "\"IA3\""), "peft_type"),
        (text.replace("\"q_proj\"", "\"c_attn\""), "c_attn"),
        (text.replace("\"layers_to_transform\": null", "\"layers_to_transform\": [0, 2]"), "[0,2]"),
        (
            text.replace("\"layers_to_transform\": null", "\"layers_to_transform\": \"all\""),
            "layers_to_transform",
        ),
        ("{".to_owned(), "not an adapter"),
    ] {
        assert_ne!(change, text, "{part}");
        fs::write(copy.path().join("adapter_config.json"), change).unwrap();
        let error = Adapter::load(copy.path()).unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} does not say {part}");
    }
}
