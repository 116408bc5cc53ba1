use std::path::PathBuf;
use std::process::Command;

use crate::error::SandboxError;
use crate::tools;

/// Prints the program and the folders of its standard library, whatever wrapper (pyenv, a virtual environment) `python3` is.
const ASK: &str = "
import os, sys
import ctypes, json, resource
print(os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable))
print('\\n'.join(os.path.realpath(path) for path in sys.path if os.path.isdir(path)))
";

/// The site's Python.
#[derive(Debug, Clone)]
pub(crate) struct Interpreter {
    /// The program itself.
    pub(crate) program: PathBuf,
    /// The standard library.
    pub(crate) library: Vec<PathBuf>,
}

impl Interpreter {
    /// Finds `python3`.
    pub(crate) fn find() -> Result<Self, SandboxError> {
        let python = tools::find("python3")?;
        let (answer, complaint) = tools::output(Command::new(&python).args(["-I", "-S", "-c", ASK]))?;
        let mut lines = answer.lines().map(PathBuf::from);
        match (lines.next(), lines.collect::<Vec<_>>()) {
            (Some(program), library) if program.is_absolute() && !library.is_empty() => {
                Ok(Self { program, library })
            }
            _ => Err(SandboxError::unavailable(format!(
                "{} lacks its standard library: {}",
                python.display(),
                complaint.trim()
            ))),
        }
    }
}
