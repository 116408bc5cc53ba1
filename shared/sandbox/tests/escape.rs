//! Nothing gets out of the sandbox. Each attempt is made outside too, where it must succeed: an attempt that could not
//! work anywhere would prove nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint's own exception does not see")]

mod common;

use std::env;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{outcome, sandbox, with_setup};
use sheaf_sandbox::{Outcome, Sandbox};

const ATTEMPTS: &str = r#"
import os, socket

def reads(path):
    try:
        return bool(os.listdir(path)) if os.path.isdir(path) else len(open(path, "rb").read()) > 0
    except OSError:
        return False

def writes(folders):
    for folder in folders:
        for attempt in (
            lambda path: open(path, "w").write("x"),
            lambda path: os.mkdir(path),
            lambda path: os.symlink("x", path),
            lambda path: os.mkfifo(path),
            lambda path: os.utime(os.path.dirname(path)),
            lambda path: os.chmod(os.path.dirname(path), 0o777),
        ):
            try:
                attempt(os.path.join(folder, "sheaf-%d-%d" % (os.getpid(), id(attempt))))
                return True
            except OSError:
                pass
    return False

def folders():
    return [folder for folder, _, _ in os.walk("/")]

def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return True
    except OSError:
        return False

def sockets():
    made = []
    for family in range(46):
        for kind in (1, 2, 3, 5):
            try:
                socket.socket(family, kind).close()
                made.append(family)
            except OSError:
                pass
    return bool(made)

def environment():
    return sorted(os.environ)

def hostname():
    return os.uname().nodename

def imports(name):
    try:
        __import__(name)
        return True
    except ImportError:
        return False

def runs(program):
    import subprocess
    try:
        return subprocess.run([program], capture_output=True).returncode == 0
    except OSError:
        return False
"#;

/// Whether an attempt succeeds without a sandbox.
fn succeeds_outside(attempt: &str) -> bool {
    let program = format!("{ATTEMPTS}\nassert {attempt}");
    Command::new("python3").args(["-S", "-c", &program]).env("SECRET", "x").status().unwrap().success()
}

fn only_outside(sandbox: &Sandbox, attempt: &str) {
    assert!(succeeds_outside(attempt), "{attempt} does not even work outside");
    let inside = outcome(sandbox, ATTEMPTS, &format!("assert ({attempt}) == False"));
    assert_eq!(inside, Outcome::Passed, "{attempt}");
}

#[test]
fn files_of_the_site_cannot_be_read() {
    let sandbox = sandbox();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("patients.csv");
    std::fs::write(&file, "secret").unwrap();
    for path in [file.to_str().unwrap(), folder.path().to_str().unwrap(), "/etc/passwd", "/proc/self/environ"]
    {
        only_outside(&sandbox, &format!("reads({path:?})"));
    }
    for path in ["/proc", "/sys", "/dev", "/tmp", "/etc", "/usr/bin/unshare"] {
        only_outside(&sandbox, &format!("reads({path:?})"));
    }
    let hidden = ["/root", "/home", "/var", "/old", "/jail", "/work", "/old/etc"];
    let none: Vec<_> = hidden.iter().map(|path| format!("assert not reads({path:?})")).collect();
    // Where Python itself lies in a home, that path has its folder and no more.
    let python = Command::new("python3").args(["-c", "import sys; print(sys.base_prefix)"]).output().unwrap();
    let python = String::from_utf8(python.stdout).unwrap();
    let none: Vec<_> = hidden
        .iter()
        .zip(&none)
        .filter(|(path, _)| !python.starts_with(*path))
        .map(|(_, test)| test.as_str())
        .collect();
    assert_eq!(with_setup(&sandbox, ATTEMPTS, "", &none), Outcome::Passed);
    let up = "import os\ndef up():\n  for _ in range(99): os.chdir('..')\n  return os.path.exists('jail/judge.py')";
    assert_eq!(outcome(&sandbox, up, "assert up() == False"), Outcome::Passed);
}

#[test]
fn nothing_can_be_written() {
    let sandbox = sandbox();
    let folder = tempfile::tempdir().unwrap();
    only_outside(&sandbox, &format!("writes([{:?}])", folder.path()));
    only_outside(&sandbox, "writes(['/tmp'])");
    assert_eq!(
        with_setup(&sandbox, ATTEMPTS, "", &["assert len(folders()) > 20", "assert not writes(folders())"]),
        Outcome::Passed
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "more than the attempt outside");
}

#[test]
fn the_network_is_out_of_reach() {
    let sandbox = sandbox();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    only_outside(&sandbox, &format!("connects({port})"));
    only_outside(&sandbox, "sockets()");
    listener.accept().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody else came");
}

#[test]
fn the_environment_is_empty() {
    let sandbox = sandbox();
    only_outside(&sandbox, "'SECRET' in environment()");
    only_outside(&sandbox, "hostname() != 'sandbox'");
    let known = "{'LD_LIBRARY_PATH', 'PYTHONHASHSEED', 'LC_CTYPE', 'PWD'}";
    assert_eq!(
        outcome(&sandbox, ATTEMPTS, &format!("assert set(environment()) <= {known}, environment()")),
        Outcome::Passed
    );
}

#[test]
fn there_is_nothing_to_break_out_with() {
    let sandbox = sandbox();
    for module in ["ctypes", "_ctypes"] {
        only_outside(&sandbox, &format!("imports({module:?})"));
    }
    only_outside(&sandbox, "runs('/bin/true')");
    only_outside(&sandbox, "runs('/usr/bin/env')");
    let privileges = r#"
import os
def privileged():
    deeds = [
        lambda: os.chroot("/"), lambda: os.nice(-5), lambda: os.setgroups([1]), lambda: os.setpriority(0, 0, -5),
        lambda: os.mknod("/x", 0o20666, os.makedev(1, 3)), lambda: os.sched_setscheduler(0, 1, os.sched_param(9)),
    ]
    if hasattr(os, "unshare"):
        deeds += [lambda: os.unshare(os.CLONE_NEWUSER), lambda: os.unshare(os.CLONE_NEWNS)]
    done = []
    for number, deed in enumerate(deeds):
        try:
            deed()
            done.append(number)
        except OSError:
            pass
    return done
def alone():
    import signal
    try:
        os.kill(1, signal.SIGKILL)
    except OSError:
        pass
    return os.getpid() < 50
"#;
    assert_eq!(
        with_setup(&sandbox, privileges, "", &["assert privileged() == []", "assert alone()"]),
        Outcome::Passed
    );
}

/// Root can be given a user id without a name, everybody else only a user namespace: where the tests run as root, they run
/// once more as somebody else.
#[test]
fn it_holds_for_an_ordinary_user_too() {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !root {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("escape");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let mut user = Command::new("setpriv");
    user.args(["--reuid=4242", "--regid=4242", "--clear-groups"]).arg(program).arg("--skip=ordinary_user");
    user.current_dir("/").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TMPDIR", folder.path());
    let output = user.env_remove("HOME").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
