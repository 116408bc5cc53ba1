use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::error::SandboxError;
use crate::interpreter::Interpreter;
use crate::tools;

const JUDGE: &str = include_str!("judge.py");

/// Programs of the site's that run after its files are out of reach.
const INSIDE: [&str; 4] = ["umount", "chroot", "setpriv", "prlimit"];

/// Folders of the standard library that no solution needs, and the largest.
const LEFT_OUT: [&str; 12] = [
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "tkinter",
    "ensurepip",
    "pydoc_data",
    "sqlite3",
    "distutils",
];

/// Modules in C left out, by the first letters: the ways to call the C library, Python's own tests, and what brings large
/// libraries for screens, networks and stores.
const LEFT_OUT_MODULES: [&str; 12] = [
    "_ctypes", "_test", "_xx", "xx", "_tkinter", "_curses", "_ssl", "_sqlite3", "_dbm", "_gdbm", "nis",
    "readline",
];

/// All the files that a solution can see: a copy, so that no folder of the site's is ever shown, whatever lies in it.
///
/// ```text
///  <python's own paths>   program and standard library
///  libs/                  the shared libraries these need, flat
///  tools/                 the programs that take the last privileges away
///  judge.py
///  jail/                  where the image is shown once more
///  old/, proc/            where the site's files and processes lie until they are let go
/// ```
#[derive(Debug)]
pub(crate) struct Image {
    folder: TempDir,
}

impl Image {
    /// Copies what Python needs.
    pub(crate) fn build(python: &Interpreter) -> Result<Self, SandboxError> {
        let files = SandboxError::io("copying Python into the sandbox's image");
        let folder = tempfile::Builder::new().prefix("sheaf-sandbox-").tempdir().map_err(&files)?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).map_err(&files)?;
        let image = Self { folder };
        let mut programs = vec![python.program.clone()];
        image.add(&python.program, &python.program).map_err(&files)?;
        for library in &python.library {
            image.add_library(library, &mut programs).map_err(&files)?;
        }
        for name in INSIDE {
            let program = tools::find(name)?;
            image.add(&program, &Path::new("/tools").join(name)).map_err(&files)?;
            programs.push(program);
        }
        for (name, library) in shared_libraries(&programs)? {
            image.add(&library, &name).map_err(&files)?;
        }
        for empty in ["/jail", "/old", "/proc"] {
            image.folder_of(Path::new(empty)).map_err(&files)?;
        }
        image.write(Path::new("/judge.py"), JUDGE).map_err(&files)?;
        Ok(image)
    }

    /// Where it lies on the site's file system.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.path().join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A folder open to whatever user the solution runs as.
    fn folder_of(&self, path: &Path) -> io::Result<()> {
        let mut at = self.path().to_path_buf();
        for part in path.strip_prefix("/").unwrap_or(path) {
            at.push(part);
            if !at.is_dir() {
                fs::create_dir(&at)?;
                fs::set_permissions(&at, Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let to = self.inside(path);
        fs::write(&to, text)?;
        fs::set_permissions(&to, Permissions::from_mode(0o644))
    }

    /// A file with its time, by which Python tells whether its compiled form is current. Its mode is not copied: that of
    /// `umount` would make the copy set-uid for a moment, which a site may forbid.
    fn add(&self, from: &Path, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.folder_of(parent)?;
        }
        let (mut from, mut to) = (File::open(from)?, File::create(self.inside(path))?);
        io::copy(&mut from, &mut to)?;
        to.set_permissions(Permissions::from_mode(0o755))?;
        to.set_modified(from.metadata()?.modified()?)
    }

    fn add_library(&self, folder: &Path, modules: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !LEFT_OUT.contains(&name.as_str()) && !name.starts_with("config-") {
                self.add_library(&path, modules)?;
            }
            let wanted = match path.extension().and_then(OsStr::to_str) {
                Some("so") => !LEFT_OUT_MODULES.iter().any(|left_out| name.starts_with(left_out)),
                Some("pyc") => !name.contains(".opt-"),
                extension => extension == Some("py"),
            };
            if wanted && path.is_file() {
                self.add(&path, &path)?;
                if path.extension() == Some(OsStr::new("so")) {
                    modules.push(path);
                }
            }
        }
        Ok(())
    }
}

/// The shared libraries of programs and modules, by their place in the image. `ldd` names them as the loader looks for
/// them (`libz.so.1 => /usr/lib/libz.so.1 (0x...)`) and the loader itself by its path.
fn shared_libraries(programs: &[PathBuf]) -> Result<BTreeMap<PathBuf, PathBuf>, SandboxError> {
    let (listed, _) = tools::output(Command::new(tools::find("ldd")?).args(programs))?;
    let mut found = BTreeMap::new();
    for line in listed.lines().filter(|line| line.contains(" (0x")) {
        let line = line.split(" (0x").next().unwrap_or_default().trim();
        let (name, path) = line.split_once(" => ").unwrap_or((line, line));
        if path.starts_with('/') {
            // A name that is a path, such as the loader's, stays where it is.
            found.insert(Path::new("/libs").join(name), PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_contents_and_the_time_and_never_the_mode() {
        let image = Image { folder: tempfile::tempdir().unwrap() };
        let site = tempfile::tempdir().unwrap();
        let program = site.path().join("program");
        fs::write(&program, "contents").unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        File::options().write(true).open(&program).unwrap().set_modified(old).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o6711)).unwrap();
        image.add(&program, Path::new("/tools/program")).unwrap();
        let copy = image.path().join("tools/program");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "contents");
        let found = fs::metadata(&copy).unwrap();
        assert_eq!((found.permissions().mode() & 0o7777, found.modified().unwrap()), (0o755, old));
    }
}
