//! What the benches share: CPU seconds (user and system, all threads), peak memory, medians. Linux only, since the
//! figures of other processes come from /proc.
#![allow(dead_code, reason = "every bench uses its part")]

use std::{fs, process::Command, time::Instant};

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};

/// CPU seconds of this process.
pub(crate) fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold blanks; the state comes first after it.
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// CPU seconds of another process so far, to a hundredth.
pub(crate) fn cpu_of(pid: u32) -> f64 {
    let fields = stat(pid).expect("the process runs");
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / clock_ticks_per_second() as f64
}

/// The processes that this one has started.
pub(crate) fn children() -> Vec<u32> {
    let parent = std::process::id().to_string();
    let mut found: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|fields| fields[1] == parent))
        .collect();
    found.sort_unstable();
    found
}

/// A line of /proc/PID/status such as `VmHWM` (peak) or `VmRSS` (now), MiB.
pub(crate) fn mebibytes(pid: u32, line: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .expect("the line is there");
    kib.trim().parse::<f64>().unwrap() / 1024.0
}

/// Lets the peak of a process begin again at what it holds now.
pub(crate) fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// The middle one.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The least and the greatest.
pub(crate) fn spread(figures: &[f64]) -> String {
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{least:.3} to {greatest:.3}")
}

/// A number from the environment, so that a bench can be made longer or shorter.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// What else the machine does: a figure measured on a busy one is no figure.
pub(crate) fn print_load() {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load: Vec<_> = load.split(' ').take(3).collect();
    println!("{cores} cores; load average {}", load.join(" "));
}

/// The last line that this bench prints when it is started again for one measurement, in a process without a past.
pub(crate) fn once_more(arguments: &[&str]) -> Vec<f64> {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{arguments:?}: {}: {text}", done.status);
    let line = text.lines().last().unwrap_or_default();
    line.split(' ').map(|word| word.parse().unwrap()).collect()
}

/// Wall and CPU seconds of this process while `work` runs.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, [f64; 2]) {
    let (began, cpu_before) = (Instant::now(), cpu());
    let result = work.await;
    (result, [began.elapsed().as_secs_f64(), cpu() - cpu_before])
}
