//! What one round of a federation costs: CPU seconds, wall seconds and memory from the submission of a run to its
//! published model, of all processes together. Enrolment, the writing of records and the first connections come before.
//!
//! `cargo build --release -p sheaf -p sheaf-agent && cargo bench -p sheaf-tests --bench round`
//! `SHEAF_BENCH_REPEATS` (5) changes it. The coordinator is `sheaf serve`; the agents are tasks of one process, or
//! processes where the line says so.
#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has failed")]

mod measure;

use std::time::Duration;

use sheaf_coordinator::report::Report;
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::{Study, features},
    process::Process,
    site::Rules,
};
use tokio::time::sleep;

use measure::{children, cpu, cpu_of, mebibytes, median, once_more, reset_peak, setting, spread, timed};

/// A federation to measure.
struct Shape {
    name: &'static str,
    sites: usize,
    dim: usize,
    rows_a_site: usize,
    classes: usize,
    processes: bool,
}

const SHAPES: [Shape; 2] = [
    Shape { name: "100 sites x 1 MB", sites: 100, dim: 896, rows_a_site: 20, classes: 10, processes: false },
    Shape {
        name: "2 agent processes x 16 MB",
        sites: 2,
        dim: 3072,
        rows_a_site: 500,
        classes: 100,
        processes: true,
    },
];

/// The columns of a measurement, in the order in which they are printed by [`one`].
const COLUMNS: [&str; 11] = [
    "wall s, submission to model",
    "wall s, sums: offered to last answer",
    "CPU s, all processes",
    "CPU s, coordinator",
    "MiB peak, all processes",
    "MiB peak above idle, all processes",
    "MiB peak, coordinator",
    "MB sent a site",
    "wall s, survey",
    "wall s, evaluation",
    "wall s in the coordinator between phases",
];

fn study(shape: &Shape) -> Study {
    let mut study = features(shape.sites * shape.rows_a_site, shape.dim, shape.classes, 11, "");
    // Peers do not train a second model at every site either.
    study.plan.push_str("[evaluate]\nlocal_baseline = false\n");
    study
}

/// One round of a fresh federation.
async fn one(shape: &Shape) {
    let study = study(shape);
    let mut cluster = Cluster::start(Kind::Process).await;
    let sites = study.deal(shape.sites);
    let mut agents: Vec<Process> = Vec::new();
    for site in &sites {
        cluster.enrol(&study, site, &Rules::default()).await;
        if shape.processes {
            agents.push(cluster.start_agent_process(&site.name));
        } else {
            cluster.start_agent(&site.name);
        }
    }
    while cluster.operator.sites().await.iter().any(|site| !site.connected) {
        sleep(Duration::from_millis(20)).await;
    }
    let pids = children();
    assert_eq!(pids.len(), 1 + agents.len(), "the coordinator and the agents, no others");
    let coordinator = pids[0]; // the first that was started
    let plan = study.plan.clone();
    drop(study); // the records are on the disk now
    sleep(Duration::from_millis(500)).await;
    let all = || pids.iter().copied().chain([std::process::id()]);
    let others = || pids.iter().map(|pid| cpu_of(*pid)).sum::<f64>();
    all().for_each(reset_peak);
    let idle: f64 = all().map(|pid| mebibytes(pid, "VmRSS")).sum();
    let (before, others_before, coordinator_before) = (cpu(), others(), cpu_of(coordinator));
    let (_, [wall, _]) = timed(async {
        cluster.operator.submit(&plan, "bench").await;
        cluster.operator.done("bench").await
    })
    .await;
    let cpu = cpu() - before + others() - others_before;
    let coordinator_cpu = cpu_of(coordinator) - coordinator_before;
    let peak: f64 = all().map(|pid| mebibytes(pid, "VmHWM")).sum();
    let text = cluster.operator.report_file("bench", "report.json", cluster.folder()).await;
    let report: Report = serde_json::from_slice(&text).unwrap();
    let phase = |name: &str| {
        let phases = &report.timing.phases;
        phases.iter().find(|p| p.name == name).map_or(0.0, |p| p.seconds)
    };
    let in_phases: f64 = report.timing.phases.iter().map(|p| p.seconds).sum();
    let sent: u64 = report.sites.iter().map(|site| site.bytes_up).sum();
    let figures = [
        wall,
        phase("sums"),
        cpu,
        coordinator_cpu,
        peak,
        peak - idle,
        mebibytes(coordinator, "VmHWM"),
        sent as f64 / 1e6 / shape.sites as f64,
        phase("survey"),
        phase("evaluate"),
        report.timing.total_s - in_phases,
    ];
    println!("{}", figures.map(|f| f.to_string()).join(" "));
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, index] = arguments.as_slice()
        && word == "one"
    {
        return one(&SHAPES[index.parse::<usize>().unwrap()]).await;
    }
    let repeats = setting("SHEAF_BENCH_REPEATS", 5);
    measure::print_load();
    let mut measured = SHAPES.map(|_| Vec::new());
    for _ in 0..repeats {
        for (index, measured) in measured.iter_mut().enumerate() {
            measured.push(once_more(&["one", &index.to_string()]));
        }
    }
    for (shape, measured) in SHAPES.iter().zip(&measured) {
        println!("\n{}, median of {repeats} (least to greatest)", shape.name);
        for (column, name) in COLUMNS.iter().enumerate() {
            let figures: Vec<f64> = measured.iter().map(|one| one[column]).collect();
            println!("  {name:<42} {:>9.3}  ({})", median(figures.clone()), spread(&figures));
        }
    }
    measure::print_load();
}
