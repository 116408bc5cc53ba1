//! `sheaf-agent`: the daemon and the site's command line.

use std::process::ExitCode;

use clap::Parser as _;
use sheaf_agent::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
