//! The frozen networks, a task a process, as one JSON line: what `benches/peers` measures of PyTorch.
//!
//! `cargo bench -p sheaf-models --bench extractors -- TASK FILES` with TASK one of efficientnet-224, efficientnet-96 (seconds an
//! image; FILES is the .pth file) and minilm (seconds a batch of 32 texts of 64 tokens, tokenising them too; FILES is the folder).

mod measure;

use std::{collections::BTreeMap, hint::black_box, path::PathBuf};

use measure::{measure, report};
use sheaf_models::{Compute, Extractor, ExtractorOptions, Image};

fn load(model: &str, files: &[(&str, PathBuf)], options: ExtractorOptions) -> Extractor {
    let files: BTreeMap<_, _> = files.iter().map(|(role, path)| ((*role).to_owned(), path.clone())).collect();
    Extractor::load(model, &files, &options, &Compute::cpu()).expect("the model's files")
}

fn images(task: &str, weights: PathBuf, size: usize, count: usize) {
    let options = ExtractorOptions { image_size: size, max_tokens: 0 };
    let extractor = load("efficientnet-lite0", &[("weights", weights)], options);
    let rgb: Vec<u8> = (0..size * size * 3).map(|i| (i * 37 % 251) as u8).collect();
    let images = vec![Image { height: size, width: size, rgb: &rgb }; count];
    let work = || drop(black_box(extractor.images(&images).expect("good images")));
    report(task, measure(work), count as f64);
}

fn main() {
    // `cargo bench` adds a flag of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let [task, files] = args.as_slice() else {
        eprintln!("usage: extractors TASK FILES; see the first lines of benches/extractors.rs");
        return;
    };
    let files = PathBuf::from(files);
    match task.as_str() {
        "efficientnet-224" => images(task, files, 224, 32),
        "efficientnet-96" => images(task, files, 96, 32),
        "minilm" => {
            let files =
                [("weights", files.join("model.safetensors")), ("tokenizer", files.join("tokenizer.json"))];
            let extractor = load("minilm-l6", &files, ExtractorOptions { image_size: 0, max_tokens: 64 });
            let texts = vec!["cat ".repeat(62); 32];
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let work = || drop(black_box(extractor.texts(&texts).expect("good texts")));
            report(task, measure(work), 1.0);
        }
        other => eprintln!("there is no task {other}"),
    }
}
