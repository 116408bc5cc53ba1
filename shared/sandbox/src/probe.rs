use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::error::SandboxError;
use crate::isolation::{Account, Isolation};
use crate::limits::Limits;
use crate::verdict::Verdict;

/// A program that tries what no solution may do.
const PROGRAM: &str = include_str!("probe.py");

const LIMITS: Limits =
    Limits { wall: Duration::from_secs(20), cpu_seconds: 10, memory_bytes: 256 << 20, processes: 2 };

/// What is asserted of the program, with what it means if it does not hold.
type Checks = Vec<(&'static str, String)>;

/// The isolation, set to the account under which everything holds; else the reasons why none does.
pub(crate) fn prove(mut isolation: Isolation) -> Result<Isolation, SandboxError> {
    let accounts: &[Account] =
        if Isolation::is_root() { &[Account::Nameless, Account::Own] } else { &[Account::Own] };
    let mut reasons = Vec::new();
    for &account in accounts {
        isolation.account = account;
        match holds(&mut isolation) {
            Ok(()) => return Ok(isolation),
            Err(SandboxError::Unavailable { why }) => reasons.push(why),
            Err(error) => return Err(error),
        }
    }
    reasons.dedup();
    Err(SandboxError::Unavailable { why: reasons.join("; ") })
}

fn holds(isolation: &mut Isolation) -> Result<(), SandboxError> {
    let files = SandboxError::io("preparing to prove the sandbox");
    let folder = tempfile::tempdir().map_err(&files)?;
    let canary = folder.path().join("canary");
    fs::write(&canary, "canary").map_err(&files)?;
    let (listener, port) = listener().map_err(&files)?;
    let mut checks: Checks = vec![
        ("Python does not add", "assert add(2, 3) == 5".to_owned()),
        ("a file outside can be read", format!("assert not reads({:?})", canary.display().to_string())),
        ("a file of the system can be read", "assert not reads('/etc/passwd')".to_owned()),
        (
            "a folder can be written to",
            format!(
                "assert writes(['/', '/tmp', '/dev/shm', '/jail', '/libs', {:?}]) == []",
                folder.path().display().to_string()
            ),
        ),
        ("the network can be reached", format!("assert not connects({port})")),
        ("more processes can be started than the limit allows", "assert started(12) <= 2".to_owned()),
        ("more memory can be taken than the limit allows", format!("assert not takes({})", 1_u64 << 30)),
        ("it keeps privileges", "assert not privileged()".to_owned()),
    ];
    // First without the filter, so that nothing rests on the filter alone.
    isolation.filtered = false;
    check(isolation, &checks)?;
    isolation.filtered = true;
    checks.push(("system calls are not refused", "assert not socket_made()".to_owned()));
    check(isolation, &checks)?;
    drop(listener);
    ends_in_time(isolation)
}

/// A listener that this process, outside, does reach.
fn listener() -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    TcpStream::connect(address)?;
    Ok((listener, address.port()))
}

fn check(isolation: &Isolation, checks: &Checks) -> Result<(), SandboxError> {
    let tests: Vec<_> = checks.iter().map(|(_, test)| test.clone()).collect();
    let run = isolation.judge(&LIMITS, PROGRAM, "", &tests).map_err(refused)?;
    let account = isolation.account;
    match run.verdict {
        Verdict::Passed => Ok(()),
        Verdict::Failed(at) => {
            let what = checks.get(at).map_or("it fails", |(what, _)| what);
            Err(SandboxError::unavailable(format!("in a trial as {account:?}, {what} ({})", run.complaint)))
        }
        other => Err(SandboxError::unavailable(format!(
            "in a trial as {account:?}: {other:?} ({})",
            run.complaint
        ))),
    }
}

fn ends_in_time(isolation: &Isolation) -> Result<(), SandboxError> {
    let limits = Limits { wall: Duration::from_millis(500), ..LIMITS };
    let start = Instant::now();
    let run = isolation.judge(&limits, PROGRAM, "", &["assert sleep()".to_owned()]).map_err(refused)?;
    if run.verdict == Verdict::OutOfTime && start.elapsed() < limits.wall * 10 {
        return Ok(());
    }
    Err(SandboxError::unavailable("a program cannot be ended when its time is up"))
}

/// On a trial, a run that does not start means that isolation does not work here.
fn refused(error: SandboxError) -> SandboxError {
    match error {
        SandboxError::Start { why } => SandboxError::unavailable(why),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_trial_sees_a_machine_that_does_not_isolate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let (_listener, port) = listener().unwrap();
        let breaches = format!(
            "{PROGRAM}\nassert add(2, 3) == 5 and reads('/etc/passwd') and writes([{path:?}]) == [{path:?}]\n\
             assert connects({port}) and socket_made() and started(12) == 12 and takes(1 << 30)"
        );
        assert!(Command::new("python3").args(["-S", "-c", &breaches]).status().unwrap().success());
    }
}
