//! CPU seconds (user and system, all threads) of the frozen networks; the best of several runs.
//!
//! `RAYON_NUM_THREADS=2 cargo bench -p sheaf-models --bench extractors -- EFFICIENTNET.pth MINILM_FOLDER`. The figures to
//! stand beside are printed by `tests/reference`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;

use rustix::time::{ClockId, clock_gettime};
use sheaf_models::{Compute, Extractor, ExtractorOptions, Image};

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn best(mut work: impl FnMut()) -> f64 {
    let mut run = || {
        let start = cpu_seconds();
        work();
        cpu_seconds() - start
    };
    run();
    (0..9).map(|_| run()).fold(f64::INFINITY, f64::min)
}

fn load(model: &str, files: &[(&str, PathBuf)], options: ExtractorOptions) -> Extractor {
    let files: BTreeMap<_, _> = files.iter().map(|(role, path)| ((*role).to_owned(), path.clone())).collect();
    Extractor::load(model, &files, &options, &Compute::cpu()).expect("the model's files")
}

fn main() {
    // `cargo bench` adds a flag of its own.
    let paths: Vec<PathBuf> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    let [weights, minilm] = paths.as_slice() else {
        println!("skipped: name the .pth file of EfficientNet-Lite0 and the folder of MiniLM-L6");
        return;
    };
    for (size, n) in [(224, 8), (96, 32)] {
        let options = ExtractorOptions { image_size: size, max_tokens: 0 };
        let extractor = load("efficientnet-lite0", &[("weights", weights.clone())], options);
        let rgb: Vec<u8> = (0..size * size * 3).map(|i| (i * 37 % 251) as u8).collect();
        let images = vec![Image { height: size, width: size, rgb: &rgb }; n];
        let seconds = best(|| drop(black_box(extractor.images(&images).expect("good images"))));
        println!("efficientnet-lite0 {size:>4} px, batch {n}: {:>8.2} ms an image", seconds * 1e3 / n as f64);
    }
    let files = [("weights", minilm.join("model.safetensors")), ("tokenizer", minilm.join("tokenizer.json"))];
    let extractor = load("minilm-l6", &files, ExtractorOptions { image_size: 0, max_tokens: 64 });
    let texts = vec!["cat ".repeat(62); 32];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let seconds = best(|| drop(black_box(extractor.texts(&texts).expect("good texts"))));
    println!("minilm-l6 length 64, batch 32, with tokenising: {seconds:>8.4} s");
}
