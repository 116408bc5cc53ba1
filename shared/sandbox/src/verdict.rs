use serde::{Deserialize, Serialize};

/// What became of a solution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every test holds.
    Passed,
    /// A test does not hold, or the solution raised, left or crashed.
    Failed,
    /// The solution or a test took longer than the limits allow.
    OutOfTime,
    /// The solution asked for more memory than the limits allow, where Python could still say so; else it failed.
    OutOfMemory,
}

/// The shell's word for a judge that the kernel ended for its CPU time (128 and SIGXCPU): the tests took it.
const OVER_CPU_TIME: i32 = 128 + 24;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this status.
    Exit(i32),
    /// Its time was up.
    Killed,
}

/// The judge's last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// With the place of the test.
    Failed(usize),
    OutOfTime,
    OutOfMemory,
    /// The tests themselves cannot be used.
    Broken,
}

impl Verdict {
    /// Reads what the judge wrote, to the letter. Nothing where it did not even start.
    pub(crate) fn read(written: &str, end: End) -> Option<Self> {
        if end == End::Killed {
            return Some(Self::OutOfTime);
        }
        let verdict = match written.strip_prefix("ready\n")? {
            "passed\n" => Self::Passed,
            "memory\n" => Self::OutOfMemory,
            "broken\n" => Self::Broken,
            "time\n" => Self::OutOfTime,
            "" if end == End::Exit(OVER_CPU_TIME) => Self::OutOfTime,
            other => Self::Failed(
                other.trim().strip_prefix("failed ").and_then(|at| at.parse().ok()).unwrap_or_default(),
            ),
        };
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_words_in_time_are_a_pass() {
        let pass = Some(Verdict::Passed);
        let exit = End::Exit(0);
        assert_eq!(Verdict::read("ready\npassed\n", exit), pass);
        let others =
            ["passed\n", "ready\npassed", "ready\npassed\npassed\n", "ready\nready\npassed\n", "ready\n", ""];
        for written in others {
            assert_ne!(Verdict::read(written, exit), pass, "{written:?}");
        }
        assert_eq!(Verdict::read("ready\npassed\n", End::Killed), Some(Verdict::OutOfTime));
        assert_eq!(Verdict::read("ready\n", End::Exit(OVER_CPU_TIME)), Some(Verdict::OutOfTime));
        assert_eq!(Verdict::read("ready\nfailed 2\n", exit), Some(Verdict::Failed(2)));
        assert_eq!(Verdict::read("", exit), None);
    }
}
