//! Runs Python that a language model wrote and says whether it passes its tests: pass@1 of code workloads, at the sites
//! that hold the data.
//!
//! Nothing such a program does may reach the site. What keeps it apart, from the outside in:
//!
//! ```text
//!  setpriv    dies with the thread that runs it
//!  unshare    own user, mount, network, pid, ipc and uts namespaces; killed as one when the time is up
//!  seal.py    no socket, no shared memory, no tracing, no kernel keys, no io_uring, ... (seccomp)
//!  the image  a read-only copy of Python and its standard library is all there is: no /proc, /dev, /tmp, /home, /etc
//!  setpriv    no capability, no way to get one
//!  prlimit    bounds on memory, CPU time, open files; no file may be written; no core
//!  judge.py   two processes: the tests run in one that the solution cannot touch, the solution in the other
//! ```
//!
//! [`Sandbox::open`] tries each of these for real and refuses where one does not hold: there is no lesser mode.
//!
//! A solution passes by giving the right answers and by nothing else. Leaving early, patching built-ins, raising,
//! printing or returning objects that are equal to everything does not count: the tests compare plain values in a
//! process of their own, and the solution sees the arguments it is called with, never the tests.
//!
//! What is left:
//! - A flaw of the kernel. The system calls that had most of them are switched off, the rest are not.
//! - A solution that knows its tests, from the prompt or by heart, can answer them from a table.
//! - Within its limits a solution may burn CPU time and memory: of every process as much as [`Limits`] says.
//! - The kernel's version, the processor and the clock are visible.
//! - The tests are the judge. Tests that are not trusted are contained like a solution, but their verdict is theirs.
//! - A class that the tests take from the solution's imports (`Counter(...)`) is made by the solution, which so sees what
//!   it is made from.
//! - A site's process that is killed leaves the image in the temporary folder, and no process.
//!
//! What differs from `exec` of solution and tests in one process, which is how the figure is often taken: a function
//! that changes its argument in place changes a copy; an object of the solution's own class is never equal to anything;
//! only the standard library can be imported; `if __name__ == "__main__"` does not run. The 974 reference solutions of MBPP
//! all pass, one of them (0123) with more CPU time than the default: it takes 5 to 8 seconds.
//!
//! A run costs about a tenth of a second, most of it two starts of Python. Runs may go on at the same time.

mod error;
mod filter;
mod image;
mod interpreter;
mod isolation;
mod limits;
mod probe;
mod tools;
mod verdict;

pub use error::SandboxError;
pub use limits::Limits;
pub use verdict::Outcome;

use isolation::Isolation;
use verdict::Verdict;

/// A place to run programs that are not trusted. Holds a copy of Python (30 to 80 MB) under the temporary folder, which
/// goes when this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    isolation: Isolation,
    limits: Limits,
}

impl Sandbox {
    /// Makes the image and proves that it isolates: a file outside cannot be read, nothing can be written, a listener
    /// on 127.0.0.1 cannot be reached, the limits hold and Python runs. Refuses otherwise. Takes a few seconds.
    pub fn open(limits: Limits) -> Result<Self, SandboxError> {
        let isolation = probe::prove(Isolation::prepare()?)?;
        Ok(Self { isolation, limits })
    }

    /// Runs the tests (`assert` lines) against the solution, after the setup that makes their fixtures. Blocks, for at
    /// most the wall time of the limits.
    pub fn run_tests(&self, solution: &str, setup: &str, tests: &[String]) -> Result<Outcome, SandboxError> {
        match self.isolation.judge(&self.limits, solution, setup, tests)?.verdict {
            Verdict::Passed => Ok(Outcome::Passed),
            Verdict::Failed(_) => Ok(Outcome::Failed),
            Verdict::OutOfTime => Ok(Outcome::OutOfTime),
            Verdict::OutOfMemory => Ok(Outcome::OutOfMemory),
            Verdict::Broken => Err(SandboxError::Tests),
        }
    }
}
