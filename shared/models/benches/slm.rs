//! The language model's work, a task a process, as one JSON line: what `benches/peers` measures of PyTorch.
//!
//! `cargo bench -p sheaf-models --bench slm -- TASK GGUF` with TASK one of lora-step, lora-step-recompute, per-record,
//! prefill, decode, decode-32; per-record-30, per-record-8, per-record-4 and frozen-4 (adapters on so many topmost layers, short
//! records; a token is the unit); sample-32, sample-64, sample-128 (texts at once; a token that is written is the unit).

mod measure;

use std::path::Path;

use measure::{measure, report};
use sheaf_models::{
    Adapter, Compute, LanguageModel, LoraConfig,
    slm::{decode::Decoder, generate::Sampling},
    train::{
        Encoded, Frozen, TuneConfig,
        per_record::{clipped_sum, clipped_sum_from},
        supervised::Tuner,
    },
};

const BATCH: usize = 4;
const LENGTH: usize = 128;

fn records(count: usize) -> Vec<Encoded> {
    (0..count)
        .map(|r| {
            let tokens = (0..=LENGTH).map(|i| ((r * 7919 + i * 104_729) % 49_000 + 17) as u32).collect();
            Encoded { tokens, first_target: 1 }
        })
        .collect()
}

/// 128 records of 12 to 48 tokens, of which the first 8 are given.
fn short_records() -> Vec<Encoded> {
    let short = |(r, mut record): (usize, Encoded)| {
        record.tokens.truncate(12 + r * 31 % 37);
        record.first_target = 8;
        record
    };
    records(128).into_iter().enumerate().map(short).collect()
}

/// Clipped gradients of all short records, with the layers below the adapter run once, or running them.
fn top_layers(model: &LanguageModel, task: &str, layers: usize) {
    let records = short_records();
    let tokens: usize = records.iter().map(|record| record.tokens.len()).sum();
    let config = LoraConfig { rank: 4, alpha: 8.0, layers: Some(layers), ..LoraConfig::default() };
    let adapter = Adapter::new(model, &config, 1).expect("an adapter");
    let compute = || Frozen::compute(model, &config, &records, &|| false).expect("states");
    let times = if task.starts_with("frozen") {
        measure(|| drop(compute()))
    } else {
        let frozen = compute();
        let pieces = frozen.pieces((0..records.len()).collect(), 64);
        measure(|| {
            for piece in &pieces {
                clipped_sum_from(model, &adapter, &frozen, piece, 1e-3).expect("gradients");
            }
        })
    };
    report(task, times, tokens as f64);
}

/// Texts of 32 tokens after 8 prompts of 15, all at once.
fn sample(model: &LanguageModel, task: &str, count: usize) {
    let sampling =
        Sampling { max_tokens: 32, temperature: 1.0, top_k: 50, top_p: 0.9, ..Sampling::default() };
    let prompts: Vec<Vec<u32>> = records(8).into_iter().map(|record| record.tokens[..15].to_vec()).collect();
    let requests: Vec<_> =
        (0..count).map(|text| (prompts[text * prompts.len() / count].clone(), text as u64)).collect();
    let mut tokens = 0;
    let times = measure(|| {
        let texts = model.generate_each(None, &requests, &sampling, &|| false).expect("texts");
        tokens = texts.iter().map(|text| text.tokens.len()).sum();
    });
    report(task, times, tokens as f64);
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [task, path] = args.as_slice() else {
        eprintln!("usage: slm TASK GGUF; see the first lines of benches/slm.rs");
        return;
    };
    let model = LanguageModel::load(Path::new(path), &Compute::cpu()).expect("the model loads");
    let adapter = Adapter::new(&model, &LoraConfig::default(), 1).expect("an adapter");
    let prompt: Vec<u32> = records(1)[0].tokens[..LENGTH].to_vec();
    match task.as_str() {
        "lora-step" | "lora-step-recompute" => {
            let config = TuneConfig {
                epochs: 100.0,
                batch: BATCH,
                recompute: task != "lora-step",
                ..TuneConfig::default()
            };
            let records = records(BATCH);
            let mut tuner = Tuner::new(&model, &adapter, &records, &config).expect("a tuner");
            report(
                task,
                measure(|| {
                    tuner.step().expect("a step");
                }),
                1.0,
            );
        }
        "per-record" => {
            let records = records(BATCH);
            let records: Vec<&Encoded> = records.iter().collect();
            let work = || drop(clipped_sum(&model, &adapter, &records, 1e-3).expect("gradients"));
            report(task, measure(work), 1.0);
        }
        "prefill" => {
            let work = || {
                let mut decoder = Decoder::new(&model, None, LENGTH).expect("a decoder");
                decoder.begin(&prompt).expect("logits");
            };
            report(task, measure(work), 1.0);
        }
        "decode" => {
            let mut decoder = Decoder::new(&model, None, 8192).expect("a decoder");
            decoder.begin(&prompt).expect("logits");
            let work = || {
                for token in 100..116 {
                    decoder.step(&[0], &[token]).expect("logits");
                }
            };
            report(task, measure(work), 16.0);
        }
        "decode-32" => {
            let all: Vec<usize> = (0..32).collect();
            let mut decoder = Decoder::new(&model, None, 8192).expect("a decoder");
            decoder.begin(&prompt).expect("logits");
            decoder.fork(32);
            let work = || {
                for token in 100..108 {
                    decoder.step(&all, &[token; 32]).expect("logits");
                }
            };
            report(task, measure(work), 8.0 * 32.0);
        }
        "per-record-30" => top_layers(&model, task, 30),
        "per-record-8" => top_layers(&model, task, 8),
        "per-record-4" | "frozen-4" => top_layers(&model, task, 4),
        "sample-32" => sample(&model, task, 32),
        "sample-64" => sample(&model, task, 64),
        "sample-128" => sample(&model, task, 128),
        other => eprintln!("there is no task {other}"),
    }
}
