use std::time::Duration;

/// How much of the machine one run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time by the clock, for everything.
    pub wall: Duration,
    /// CPU time, each process its own.
    pub cpu_seconds: u64,
    /// Address space, each process its own. All processes of a run (the judge, the solution and those it starts) together
    /// can use `processes + 2` times this.
    pub memory_bytes: u64,
    /// Processes and threads that a solution may start.
    pub processes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { wall: Duration::from_secs(10), cpu_seconds: 5, memory_bytes: 512 << 20, processes: 2 }
    }
}
