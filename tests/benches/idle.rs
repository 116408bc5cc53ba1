//! What the two programs cost when they have nothing to do: memory, CPU, and the time to show their help.
//!
//! `cargo build --release -p sheaf -p sheaf-agent && cargo bench -p sheaf-tests --bench idle`
#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has failed")]

mod measure;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::features,
    process::binary,
    site::Rules,
};

use measure::{children, cpu_of, mebibytes, median, spread};

const WATCHED: Duration = Duration::from_secs(10);
const HELPS: usize = 20;

fn help(name: &str) {
    let seconds: Vec<f64> = (0..HELPS)
        .map(|_| {
            let began = Instant::now();
            let status = Command::new(binary(name)).arg("--help").stdout(Stdio::null()).status().unwrap();
            assert!(status.success());
            1e3 * began.elapsed().as_secs_f64()
        })
        .collect();
    println!("{name} --help: {:.1} ms, median of {HELPS} ({})", median(seconds.clone()), spread(&seconds));
}

#[tokio::main]
async fn main() {
    measure::print_load();
    help("sheaf");
    help("sheaf-agent");
    let study = features(50, 16, 2, 1, "");
    let sites = study.deal(1);
    let mut cluster = Cluster::start(Kind::Process).await;
    cluster.enrol(&study, &sites[0], &Rules::default()).await;
    let _agent = cluster.start_agent_process(&sites[0].name);
    cluster.operator.connected(&sites[0].name, true).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pids = children();
    assert_eq!(pids.len(), 2, "the coordinator and the agent");
    let before: Vec<f64> = pids.iter().map(|pid| cpu_of(*pid)).collect();
    tokio::time::sleep(WATCHED).await;
    for ((name, pid), before) in ["sheaf serve", "sheaf-agent start"].iter().zip(pids).zip(before) {
        println!(
            "{name}: {:.1} MiB resident ({:.1} its own, {:.1} of files), {:.2} CPU s in {WATCHED:?}",
            mebibytes(pid, "VmRSS"),
            mebibytes(pid, "RssAnon"),
            mebibytes(pid, "RssFile"),
            cpu_of(pid) - before,
        );
    }
    measure::print_load();
}
