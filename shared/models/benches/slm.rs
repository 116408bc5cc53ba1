//! The language model's work, a task a process, as one JSON line: what `benches/peers` measures of PyTorch.
//!
//! `cargo bench -p sheaf-models --bench slm -- TASK GGUF` with TASK one of lora-step, lora-step-recompute, per-record,
//! prefill, decode, decode-32.

mod measure;

use std::path::Path;

use measure::{measure, report};
use sheaf_models::{
    Adapter, Compute, LanguageModel, LoraConfig,
    slm::decode::Decoder,
    train::{Encoded, TuneConfig, per_record::clipped_sum, supervised::Tuner},
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
        other => eprintln!("there is no task {other}"),
    }
}
