use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sheaf_sandbox::{Limits, Outcome, Sandbox};

static OPEN: Mutex<Weak<Sandbox>> = Mutex::new(Weak::new());

/// Short limits, so that what runs to them ends soon.
pub(crate) const LIMITS: Limits =
    Limits { wall: Duration::from_secs(6), cpu_seconds: 2, memory_bytes: 256 << 20, processes: 2 };

/// One sandbox for all tests that run at a time. A machine without isolation fails them all, with the reason.
pub(crate) fn sandbox() -> Arc<Sandbox> {
    let mut open = OPEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    open.upgrade().unwrap_or_else(|| {
        let sandbox = Arc::new(Sandbox::open(LIMITS).unwrap_or_else(|error| panic!("{error}")));
        *open = Arc::downgrade(&sandbox);
        sandbox
    })
}

/// What becomes of a solution under one test.
pub(crate) fn outcome(sandbox: &Sandbox, solution: &str, test: &str) -> Outcome {
    with_setup(sandbox, solution, "", &[test])
}

/// What becomes of a solution.
pub(crate) fn with_setup(sandbox: &Sandbox, solution: &str, setup: &str, tests: &[&str]) -> Outcome {
    let tests: Vec<_> = tests.iter().map(|&test| test.to_owned()).collect();
    sandbox.run_tests(solution, setup, &tests).unwrap()
}
