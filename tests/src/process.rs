//! The real binaries, as processes.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::{Child, ChildStdin, Command};

/// What a process finds in its environment beside what the test has.
pub type Variable = (&'static str, PathBuf);

/// A binary of the workspace, built beside the running test.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/<profile>/deps/<test>
    let profile = test.parent().and_then(Path::parent).expect("a test lies in target/<profile>/deps");
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not built. `cargo test --workspace` builds it; with -p sheaf-tests alone, run \
         `cargo build -p sheaf -p sheaf-agent` (and the same --release, if any) first",
        path.display()
    );
    path
}

/// Runs a binary to its end.
pub fn finished(name: &str, args: &[&str], environment: &[Variable]) -> std::process::Output {
    let environment = environment.iter().map(|(name, value)| (name, value));
    std::process::Command::new(binary(name)).args(args).envs(environment).output().unwrap()
}

/// A child that is killed when it is dropped, and ends by itself when the test is killed.
pub struct Process {
    child: Child,
    _stdin: ChildStdin,
}

impl Process {
    /// Starts a binary that knows `--until-stdin-ends`, logging into a file.
    pub fn start(name: &str, args: &[&str], log: &Path, environment: &[Variable]) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(binary(name))
            .args(args)
            .arg("--until-stdin-ends")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { _stdin: child.stdin.take().unwrap(), child }
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let id = self.child.id().expect("the process runs").to_string();
        // std has no signals of its own, and a crate for one call would be one more to keep.
        let sent = std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(sent.success(), "kill -TERM {id}: {sent}");
    }

    /// Waits for the end and gives the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        self.child.wait().await.unwrap().code()
    }
}
