//! The models: a small Llama's logits, tuning steps and clipped gradients of each record, a small encoder's embeddings.
//! Small image networks are compared in the library's own tests (`extractor`).

use std::{collections::BTreeMap, ops::ControlFlow};

use burn::tensor::Device;
use sheaf_models::{
    Adapter, Compute, Extractor, ExtractorOptions, LanguageModel,
    slm::decode::Decoder,
    train::{Encoded, Example, TuneConfig, optimizer::Named, per_record::clipped_sum, tune},
};

use crate::{
    fixture::{folder, ids, json},
    parity,
};

fn on(device: &Device) -> Compute {
    let cpu = Compute::cpu();
    if *device == cpu.device {
        cpu
    } else {
        Compute { device: device.clone(), name: "accelerator".to_owned() }
    }
}

fn llama(device: &Device) -> (LanguageModel, Adapter) {
    let model = LanguageModel::load(&folder("tiny_llama"), &on(device)).expect("a good model");
    (model, Adapter::load(&folder("tiny_llama/adapter")).expect("a good adapter"))
}

fn flat(named: &Named) -> Vec<f32> {
    named.values().flat_map(|tensor| tensor.data.iter().copied()).collect()
}

#[test]
fn logits() {
    let sequences = json("tiny_llama/expected.json");
    let sequences: Vec<_> = sequences["sequences"].as_array().expect("a list").iter().map(ids).collect();
    parity("logits of a small Llama, at once and step by step", 1e-4, |device| {
        let (model, adapter) = llama(device);
        let lora = adapter.to_device(model.config(), model.device()).expect("they fit");
        let mut all = Vec::new();
        for sequence in &sequences {
            let mut decoder = Decoder::new(&model, Some(&lora), sequence.len()).expect("room");
            let prompt = sequence.len().div_ceil(2);
            all.extend(decoder.begin(&sequence[..prompt]).expect("logits"));
            for token in &sequence[prompt..] {
                all.extend(decoder.step(&[0], &[*token]).expect("logits"));
            }
        }
        all
    });
}

#[test]
fn lora_steps() {
    let texts =
        ["a card that is lost", "the bank is closed today", "where is my money", "open a new account"];
    let examples: Vec<_> = texts
        .iter()
        .map(|text| Example { prompt: (*text).to_owned(), response: text.chars().rev().collect() })
        .collect();
    let config = TuneConfig { epochs: 3.0, batch: 2, learning_rate: 1e-3, ..TuneConfig::default() };
    for recompute in [false, true] {
        let config = TuneConfig { recompute, ..config.clone() };
        parity("the losses of six LoRA steps", 1e-3, |device| {
            let (model, adapter) = llama(device);
            let mut losses = Vec::new();
            let mut watch = |step: &sheaf_models::train::Step| {
                losses.push(step.loss as f32);
                ControlFlow::Continue(())
            };
            tune(&model, &adapter, &examples, &config, &mut watch).expect("tuned");
            assert_eq!(losses.len(), 6);
            losses
        });
    }
}

#[test]
fn gradients_of_each_record() {
    let records: Vec<_> = json("tiny_llama/expected.json")["records"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|record| {
            let mut tokens = ids(&record["prompt_ids"]);
            let first_target = tokens.len();
            tokens.extend(ids(&record["response_ids"]));
            Encoded { tokens, first_target }
        })
        .collect();
    let records: Vec<&Encoded> = records.iter().collect();
    parity("the sum of each record's clipped gradient", 1e-3, |device| {
        let (model, adapter) = llama(device);
        flat(&clipped_sum(&model, &adapter, &records, 0.05).expect("gradients").sum)
    });
}

#[test]
fn embeddings() {
    let at = |role: &str, file: &str| (role.to_owned(), folder("tiny_bert").join(file));
    let files = BTreeMap::from([
        at("weights", "model.safetensors"),
        at("tokenizer", "tokenizer.json"),
        at("config", "config.json"),
    ]);
    let expected = json("tiny_bert/expected.json");
    let texts: Vec<_> = expected["texts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|text| text.as_str().expect("text"))
        .collect();
    parity("embeddings of a small encoder", 1e-4, |device| {
        let options = ExtractorOptions { max_tokens: 16, image_size: 0 };
        let encoder = Extractor::load("minilm-l6", &files, &options, &on(device)).expect("a good encoder");
        encoder.texts(&texts).expect("embeddings")
    });
}
