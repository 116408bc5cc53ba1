//! CPU and wall seconds of a piece of work, and the process's peak memory, as the JSON line that `benches/peers/compare.py` reads.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

const REPEATS: usize = 5;

/// CPU seconds of the process.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// Medians of CPU and wall seconds, after one call to warm up.
pub(crate) fn measure(mut work: impl FnMut()) -> (f64, f64) {
    work();
    let mut times: Vec<(f64, f64)> = (0..REPEATS)
        .map(|_| {
            let (began, at) = (cpu(), Instant::now());
            work();
            (cpu() - began, at.elapsed().as_secs_f64())
        })
        .collect();
    let mut median = |key: fn(&(f64, f64)) -> f64| {
        times.sort_by(|a, b| key(a).total_cmp(&key(b)));
        key(&times[REPEATS / 2])
    };
    (median(|t| t.0), median(|t| t.1))
}

/// Peak resident memory in MB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

pub(crate) fn report(name: &str, (cpu, wall): (f64, f64), units: f64) {
    println!(
        "{{\"name\": \"{name}\", \"cpu_s\": {:.4}, \"wall_s\": {:.4}, \"rss_mb\": {:.0}}}",
        cpu / units,
        wall / units,
        peak()
    );
}
