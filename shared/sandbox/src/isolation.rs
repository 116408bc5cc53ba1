use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::SandboxError;
use crate::filter;
use crate::image::Image;
use crate::interpreter::Interpreter;
use crate::limits::Limits;
use crate::tools;
use crate::verdict::{End, Verdict};

const SEAL: &str = include_str!("seal.py");
const SCRIPT: &str = include_str!("isolation.sh");

/// How much of what a run writes is read: a verdict, or the tools' complaint.
const READ: u64 = 4096;

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Who the solution is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// This process's own user, shut into a user namespace.
    Own,
    /// A user id of its own without a name, which only root can give. Root's own processes are never counted by the
    /// kernel, so that in root's name a limit on them would not hold.
    Nameless,
}

/// The command line that runs a judge and a solution apart from the site.
#[derive(Debug)]
pub(crate) struct Isolation {
    image: Image,
    python: Interpreter,
    setpriv: PathBuf,
    unshare: PathBuf,
    mount: PathBuf,
    pivot_root: PathBuf,
    filter: String,
    /// Who runs.
    pub(crate) account: Account,
    /// Whether system calls are refused. Off only to prove that the rest holds without.
    pub(crate) filtered: bool,
}

/// What came of one run.
#[derive(Debug)]
pub(crate) struct Run {
    /// What the judge said.
    pub(crate) verdict: Verdict,
    /// What was complained of.
    pub(crate) complaint: String,
}

impl Isolation {
    /// Finds the tools and makes the image.
    pub(crate) fn prepare() -> Result<Self, SandboxError> {
        let python = Interpreter::find()?;
        let filter = filter::program().ok_or_else(|| {
            SandboxError::unavailable("system calls can be refused on x86-64 and arm64 processors only")
        })?;
        Ok(Self {
            setpriv: tools::find("setpriv")?,
            unshare: tools::find("unshare")?,
            mount: tools::find("mount")?,
            pivot_root: tools::find("pivot_root")?,
            image: Image::build(&python)?,
            python,
            filter,
            account: Account::Own,
            filtered: true,
        })
    }

    /// Whether this process is root's, and so has the choice of accounts.
    pub(crate) fn is_root() -> bool {
        fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
    }

    /// Runs the tests against a solution.
    pub(crate) fn judge(
        &self,
        limits: &Limits,
        solution: &str,
        setup: &str,
        tests: &[String],
    ) -> Result<Run, SandboxError> {
        let files = SandboxError::io("handing over a solution");
        // A file, since a pipe to a process that does not read would block.
        let task = task_file(solution, setup, tests).map_err(&files)?;
        let mut child = self
            .command(limits)
            .stdin(task)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(SandboxError::io("starting setpriv"))?;
        let end = wait(&mut child, limits.wall).map_err(SandboxError::io("waiting for a solution"))?;
        // Every process of the namespace is gone or going, so that these end.
        let written = read(child.stdout.take()).map_err(&files)?;
        let complaint = read(child.stderr.take()).map_err(&files)?.trim().to_owned();
        match Verdict::read(&written, end) {
            Some(verdict) => Ok(Run { verdict, complaint }),
            None => Err(SandboxError::Start { why: complaint }),
        }
    }

    fn command(&self, limits: &Limits) -> Command {
        // In the user namespace the kernel counts `unshare` and the shell too; beside them run judge and solution.
        let beside = if self.account == Account::Own { 4 } else { 2 };
        let mut command = Command::new(&self.setpriv);
        command.env_clear().env("PYTHONHASHSEED", "0").current_dir("/");
        command.args(["--pdeathsig", "KILL"]).arg(&self.unshare);
        if self.account == Account::Own {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL"]);
        command.arg(&self.python.program).args(["-I", "-S", "-c", SEAL]);
        command.arg(if self.filtered { &self.filter } else { "" });
        command.args(["/bin/sh", "-c", SCRIPT, "sandbox"]);
        command.arg(self.image.path()).arg(&self.mount).arg(&self.pivot_root);
        command.args(["/tools/setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]);
        if self.account == Account::Nameless {
            let id = nameless();
            command.args([format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".to_owned()]);
        }
        command.args([
            "/tools/prlimit",
            "--core=0",
            "--fsize=0",
            "--nofile=64",
            "--memlock=0",
            "--msgqueue=0",
        ]);
        command.arg(format!("--as={}", limits.memory_bytes));
        // The signal at the first can be caught, the one at the second cannot.
        command.arg(format!("--cpu={}:{}", limits.cpu_seconds, limits.cpu_seconds + 1));
        command.arg(&self.python.program).args(["-s", "-S", "-B", "-X", "utf8", "/judge.py"]);
        command.arg((limits.processes + beside).to_string());
        command
    }
}

/// A user id that no other run has at the same time: the kernel counts processes by user.
fn nameless() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let run = NEXT.fetch_add(1, Ordering::Relaxed);
    0x4000_0000 | (std::process::id() << 8 & 0x3fff_ff00) | (run & 0xff)
}

/// Each part after a line with its length.
fn task_file(solution: &str, setup: &str, tests: &[String]) -> io::Result<File> {
    let count = tests.len().to_string();
    let mut file = tempfile::tempfile()?;
    for part in [solution, setup, &count].into_iter().chain(tests.iter().map(String::as_str)) {
        write!(file, "{}\n{part}", part.len())?;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Waits for the end, and makes one at the limit.
fn wait(child: &mut Child, limit: Duration) -> io::Result<End> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Exit(status.code().unwrap_or_default()));
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(End::Killed);
        }
        thread::sleep(LOOK);
    }
}

fn read(from: Option<impl Read>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(READ).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
