//! How results, tables, progress and failures reach a person or a machine.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sheaf_coordinator::error::{Class, Error};
use tonic::Code;

/// A run that ended without a model: exit code 5.
#[derive(Debug)]
pub(crate) struct RunEnded(pub(crate) String);

impl std::fmt::Display for RunEnded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RunEnded {}

/// Ctrl-C: exit code 130.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) String);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Prints a value for a machine.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}

/// A table with a head; the columns named in `right` are aligned right.
pub(crate) fn table(head: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().map(|h| (*h).to_owned()));
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Progress: a bar on a terminal, a plain line for every step otherwise.
pub(crate) struct Steps {
    bar: Option<ProgressBar>,
    last: String,
    quiet: bool,
}

impl Steps {
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = (!quiet && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, last: String::new(), quiet }
    }

    /// Says what is being done now, with how far it is of how much (0 of 0: not countable).
    pub(crate) fn at(&mut self, what: &str, done: u64, of: u64, bytes: bool) {
        match &self.bar {
            Some(bar) => {
                let template = match (of, bytes) {
                    (0, _) => "{spinner} {msg}",
                    (_, true) => "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {eta}",
                    (_, false) => "{spinner} {msg} [{bar:30}] {pos}/{len}",
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_length(of.max(1));
                bar.set_position(done);
                bar.set_message(what.to_owned());
            }
            None if !self.quiet && self.last != what => {
                eprintln!("{what}");
                what.clone_into(&mut self.last);
            }
            None => {}
        }
    }

    /// A line that stays.
    pub(crate) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None if !self.quiet => eprintln!("{line}"),
            None => {}
        }
    }

    pub(crate) fn done(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// A share as a percentage, or a dash.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.filter(|s| s.is_finite()).map_or_else(|| "-".to_owned(), |s| format!("{:.1} %", s * 100.0))
}

/// Prints a failure and gives the exit code that means it.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS; // the reader, `head` say, has seen enough
    }
    eprintln!("error: {}", sentence(error));
    ExitCode::from(exit_code(error))
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    let kind = cause
        .downcast_ref::<io::Error>()
        .map(io::Error::kind)
        .or_else(|| cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind));
    kind == Some(io::ErrorKind::BrokenPipe)
}

/// What happened, from the outside in; of a gRPC status only its message, which was written for people.
fn sentence(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let status = cause.downcast_ref::<tonic::Status>();
        let part = status.map_or_else(|| cause.to_string(), |status| status.message().to_owned());
        // Many errors repeat their source in their own text.
        if !parts.iter().any(|said| said.contains(&part)) {
            parts.push(part);
        }
        if status.is_some() {
            break;
        }
    }
    parts.join(": ")
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<RunEnded>() {
        return 5;
    }
    if error.is::<Interrupted>() {
        return 130;
    }
    if error.is::<sheaf_data::DataError>() {
        return 3;
    }
    if let Some(error) = error.downcast_ref::<Error>() {
        return match error.class {
            Class::Invalid | Class::Corrupt => 3,
            Class::Denied | Class::NotFound | Class::Conflict => 4,
            _ => 1,
        };
    }
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        return match status.code() {
            Code::InvalidArgument => 3,
            Code::PermissionDenied | Code::Unauthenticated | Code::NotFound | Code::FailedPrecondition => 4,
            _ => 1,
        };
    }
    1
}
