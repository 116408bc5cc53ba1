//! CPU seconds (user and system, all threads) of the analytic kernels; the best of several runs.
//!
//! `RAYON_NUM_THREADS=2 cargo bench -p sheaf-analytic`. The figures to stand beside are printed by `benches/peer.py`.

use std::hint::black_box;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use sheaf_analytic::{
    FeatureMap, FeatureSpec, Featurizer, GramAccumulator, Normalize, Sums, SumsShape, codec, scores, solve,
};

const ROWS: usize = 8192;
const CLASSES: usize = 100;

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Runs `work` five times; returns its last result and the least CPU time.
fn best<T>(mut work: impl FnMut() -> T) -> (T, f64) {
    let mut run = || {
        let start = cpu_seconds();
        let result = black_box(work());
        (result, cpu_seconds() - start)
    };
    let (mut result, mut least) = run();
    for _ in 1..5 {
        let (next, seconds) = run();
        (result, least) = (next, least.min(seconds));
    }
    (result, least)
}

fn line(name: &str, dim: usize, seconds: f64, note: &str) {
    println!("{name:<28} {dim:>5} {seconds:>9.4}  {note}");
}

/// ReLU-like features: half of them zero, as a backbone's last layer gives.
fn features(dim: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(dim as u64);
    let mut uniform = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    (0..ROWS * dim).map(|_| (2.0 * uniform() - 1.0).max(0.0)).collect()
}

fn gigabytes(sums: &Sums, seconds: f64) -> String {
    let bytes = 8 * (sums.gram().len() + sums.cross().len());
    format!("{:.2} GB/s of i64", bytes as f64 / seconds / 1e9)
}

fn measure(dim: usize) {
    let spec = FeatureSpec {
        input_dim: dim,
        map: FeatureMap::Identity,
        normalize: Normalize::L2,
        bits: 14,
        bias: false,
    };
    let map = Featurizer::new(&spec).expect("a valid specification");
    let x = features(dim);
    let (q, seconds) = best(|| map.quantise(&x, ROWS).expect("finite rows"));
    line("quantise", dim, seconds, "8192 rows, L2");

    let shape = SumsShape::of(&spec, CLASSES);
    let labels: Vec<u32> = (0..ROWS as u32).map(|i| i % CLASSES as u32).collect();
    let gram = |rows: usize| {
        let mut sums = GramAccumulator::new(dim, CLASSES, 14, shape.max_abs).expect("a valid shape");
        for (q, labels) in q.chunks(rows * dim).zip(labels.chunks(rows)) {
            sums.push(q, labels).expect("quantised rows");
        }
        sums.finish()
    };
    let (sums, seconds) = best(|| gram(ROWS));
    line("gram + cross", dim, seconds, "8192 rows at once");
    let (_, seconds) = best(|| gram(50));
    line("gram + cross", dim, seconds, "8192 rows, 50 a push");

    let one = |columns: usize| {
        let cross = (0..dim).flat_map(|d| sums.cross()[d * CLASSES..][..columns].to_vec()).collect();
        let counts = vec![0; columns];
        let shape = SumsShape { classes: columns, ..shape };
        Sums::from_parts(&shape, ROWS as u64, counts, sums.gram().to_vec(), cross).expect("matching lengths")
    };
    let single = one(1);
    let (_, factor) = best(|| solve(&single, 0.1).expect("positive definite"));
    line("cholesky, 1 right side", dim, factor, "conversion included");
    let (weights, seconds) = best(|| solve(&sums, 0.1).expect("positive definite"));
    line("cholesky + solve", dim, seconds, &format!("100 right sides; 99 more cost {:.4}", seconds - factor));
    let (_, seconds) = best(|| scores(&q, ROWS, &weights, 14).expect("matching rows"));
    line("scores", dim, seconds, "8192 rows, 100 classes");

    let (bytes, seconds) = best(|| codec::encode(&sums));
    let raw = 8 * (sums.gram().len() + sums.cross().len());
    let size = format!(
        "{}; {:.2} of raw, {} bytes",
        gigabytes(&sums, seconds),
        bytes.len() as f64 / raw as f64,
        bytes.len()
    );
    line("encode", dim, seconds, &size);
    let (_, seconds) = best(|| codec::check(&bytes, &shape).expect("good bytes"));
    line("check", dim, seconds, &gigabytes(&sums, seconds));
    let (_, seconds) = best(|| codec::decode(&bytes, &shape).expect("good bytes"));
    line("decode", dim, seconds, &gigabytes(&sums, seconds));
    let mut total = Sums::zero(dim, CLASSES, 14);
    let ((), seconds) = best(|| codec::decode_add(&bytes, &mut total, shape.max_abs).expect("good bytes"));
    line("decode_add (merge)", dim, seconds, &gigabytes(&sums, seconds));
    let ((), seconds) = best(|| total.add(&sums).expect("the same shape"));
    line("add (merge, decoded)", dim, seconds, &gigabytes(&sums, seconds));
}

/// A whole aggregation: K sites' sums at D = 512, C = 100, merged from the wire and solved.
fn aggregate(sites: usize) {
    let (dim, shape) = (512, SumsShape { dim: 512, classes: CLASSES, bits: 14, max_abs: 1 << 14 });
    let labels: Vec<u32> = (0..ROWS as u32).map(|i| i % CLASSES as u32).collect();
    let x = features(dim);
    let spec = FeatureSpec {
        input_dim: dim,
        map: FeatureMap::Identity,
        normalize: Normalize::L2,
        bits: 14,
        bias: false,
    };
    let q = Featurizer::new(&spec).and_then(|map| map.quantise(&x, ROWS)).expect("finite rows");
    // Ten different uploads are enough: the time to merge one does not depend on which it is.
    let uploads: Vec<Vec<u8>> = (0..10)
        .map(|k| {
            let mut sums = GramAccumulator::new(dim, CLASSES, 14, shape.max_abs).expect("a valid shape");
            sums.push(&q[k * 100 * dim..][..100 * dim], &labels[k * 100..][..100]).expect("quantised rows");
            codec::encode(&sums.finish())
        })
        .collect();
    let (_, seconds) = best(|| {
        let mut total = Sums::zero(dim, CLASSES, 14);
        for bytes in uploads.iter().cycle().take(sites) {
            codec::decode_add(bytes, &mut total, shape.max_abs).expect("good bytes");
        }
        solve(&total, 1.0).expect("positive definite")
    });
    line(&format!("K = {sites}: merge + solve"), dim, seconds, "from encoded uploads, checked");
}

fn main() {
    println!("{:<28} {:>5} {:>9}", "kernel", "D", "CPU s");
    measure(1280);
    measure(2048);
    aggregate(100);
    aggregate(1000);
}
