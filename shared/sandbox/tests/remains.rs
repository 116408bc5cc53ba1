//! Nothing stays behind: no process, mount or file. Alone in its binary, since it counts what there is.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint's own exception does not see")]

mod common;

use std::env;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMITS, outcome, sandbox};
use sheaf_sandbox::{Outcome, Sandbox, SandboxError};

/// Processes of any sandbox, by their command line.
fn processes() -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("/judge.py") {
            found.push(line);
        }
    }
    found
}

fn none_left(when: &str) {
    let start = Instant::now();
    while !processes().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(2), "{when}, there remain {:?}", processes());
        thread::sleep(Duration::from_millis(10));
    }
}

fn images() -> usize {
    let folder = fs::read_dir(env::temp_dir()).unwrap().flatten();
    folder.filter(|entry| entry.file_name().to_string_lossy().starts_with("sheaf-sandbox-")).count()
}

fn this_test(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).stdout(Stdio::null());
    command
}

#[test]
fn nothing_remains() {
    let (mounts, before) = (fs::read_to_string("/proc/self/mountinfo").unwrap(), images());
    let sandbox = sandbox();

    let bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass";
    assert_eq!(outcome(&sandbox, bomb, "assert f(1) == 2"), Outcome::OutOfTime);
    none_left("after a fork bomb");

    let started = "
import os, threading, time
def started(make):
    count = 0
    try:
        while count < 50:
            make()
            count += 1
    except (OSError, RuntimeError):
        pass
    return count
def fork():
    if os.fork() == 0:
        time.sleep(1000)
def threads(): return started(lambda: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start())
def forks(): return started(fork)";
    for count in ["assert threads() == 2", "assert forks() == 2"] {
        assert_eq!(outcome(&sandbox, started, count), Outcome::Passed, "{count}");
        none_left("after children that sleep");
    }
    let daemon = "
import os, signal, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        while True: time.sleep(1)
    return 2";
    assert_eq!(outcome(&sandbox, daemon, "assert f(1) == 2"), Outcome::Passed);
    none_left("after a daemon");

    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(outcome(&sandbox, "def f(x): return x + 1", "assert f(1) == 2"), Outcome::Passed);
    }
    println!("{} ms a run", start.elapsed().as_millis() / 100);
    none_left("after 100 runs");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    drop(sandbox);
    assert_eq!(images(), before, "an image remains");

    // The site's process is killed in the middle of a run.
    let temporary = tempfile::tempdir().unwrap();
    let mut agent = this_test("runs_for_ever").env("TMPDIR", temporary.path()).spawn().unwrap();
    let start = Instant::now();
    while processes().iter().filter(|line| !line.contains("sandbox ")).count() < 2 {
        assert!(
            start.elapsed() < Duration::from_secs(30) && agent.try_wait().unwrap().is_none(),
            "it never ran"
        );
        thread::sleep(Duration::from_millis(10));
    }
    agent.kill().unwrap();
    agent.wait().unwrap();
    none_left("after the agent was killed");
}

#[test]
#[ignore = "started and killed by nothing_remains"]
fn runs_for_ever() {
    let sandbox = Sandbox::open(common::LIMITS).unwrap();
    loop {
        sandbox.run_tests("import time\ntime.sleep(1000)", "", &["assert 1".to_owned()]).unwrap();
    }
}

#[test]
fn a_machine_that_cannot_isolate_is_refused() {
    // Inside, this is root without any right to make user namespaces or to be another user.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]).arg(env::current_exe().unwrap());
    inside.args(["--exact", "is_refused", "--ignored"]);
    let output = inside.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "run where nothing can be isolated by a_machine_that_cannot_isolate_is_refused"]
fn is_refused() {
    let refused = Sandbox::open(LIMITS);
    let Err(SandboxError::Unavailable { why }) = &refused else { panic!("{refused:?}") };
    assert!(!why.is_empty());
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("user.max_user_namespaces") && message.contains("util-linux"), "{message}");
    println!("{message}");
}
