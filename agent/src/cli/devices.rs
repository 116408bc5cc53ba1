//! `sheaf-agent devices`

use crate::say;
use std::process::ExitCode;

use serde_json::json;
use sheaf_models::{
    DeviceChoice,
    device::{DeviceReport, Speed, survey},
};
use sheaf_sandbox::Sandbox;

use super::Cli;
use crate::{error::AgentError, task::rewardds::evaluate::LIMITS};

/// Arguments of `devices`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not measure how fast each device is; measuring takes a second or two a device.
    #[arg(long)]
    no_speed: bool,
}

pub(super) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, AgentError> {
    let mut reports = survey();
    if !args.no_speed {
        for report in &mut reports {
            measure(report);
        }
    }
    // What `auto` takes is opened by now, so that this asks nothing new of it.
    let auto = DeviceChoice::Auto.open()?;
    // As a task opens it, with the whole proof. What tools said may have several lines.
    let refused = Sandbox::open(LIMITS).err().map(|error| error.to_string().replace('\n', " "));
    if cli.json {
        let programs = json!({ "isolated": refused.is_none(), "reason": refused });
        Cli::print_json(&json!({
            "auto": auto.compute.name, "note": auto.note, "devices": reports, "programs": programs,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for report in &reports {
        let speed = report.speed.map(figures).unwrap_or_default();
        match &report.reason {
            None => say!("{:<10} {:<44} {speed}", report.device, report.what),
            Some(reason) => say!("{:<10} - {reason}", report.device),
        }
    }
    say!("\ndevice = \"auto\" takes {}", auto.compute.name);
    say!("programs: {}", refused.as_deref().unwrap_or("code that a model wrote can be isolated here"));
    Ok(ExitCode::SUCCESS)
}

/// A device that fails under load is one that cannot be used.
fn measure(report: &mut DeviceReport) {
    let Some(compute) = &report.compute else { return };
    match Speed::measure(compute) {
        Ok(speed) => report.speed = Some(speed),
        Err(error) => {
            report.reason = Some(error.to_string());
            report.compute = None;
        }
    }
}

fn figures(speed: Speed) -> String {
    format!("{:>8.0} GFLOP/s {:>6.0} GB/s", speed.gflops, speed.gbytes)
}
