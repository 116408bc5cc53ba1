use std::io;

/// Where a site reads what the sandbox takes: the machine, a systemd unit and a container each have their own.
const SEE: &str = "What else this takes, and how a unit or a container allows it, is in docs/operations.md under \
                   \"Programs that a model wrote\"";

/// What to look for where the system refused.
fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, Unsupported};
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem | Unsupported => SEE,
        _ => "Look for a full disk or a lack of processes, and try again",
    }
}

/// Why a program was not run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Isolation does not hold on this machine.
    #[error(
        "code that a model wrote cannot be isolated here: {why}. It takes Linux with user namespaces open to this user \
         (sysctl user.max_user_namespaces above 0), util-linux, mount, coreutils, libc-bin and python3. {see}",
        see = SEE
    )]
    Unavailable {
        /// What was tried and what came of it.
        why: String,
    },
    /// One run did not start, on a machine where others did.
    #[error("the sandbox did not start: {why}. Look for a lack of memory or processes, and try again")]
    Start {
        /// What the tools said.
        why: String,
    },
    /// Files or processes of the site's side failed.
    #[error("the sandbox failed while {what}: {source}. {advice}", advice = advice(.source))]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The tests cannot judge anything.
    #[error("the tests or their setup are not Python, or assert nothing. Correct the task")]
    Tests,
}

impl SandboxError {
    pub(crate) fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable { why: why.into() }
    }

    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_allowed_is_no_full_disk() {
        const EPERM: i32 = 1;
        const ENOSYS: i32 = 38;
        const ENOSPC: i32 = 28;
        let said = |code| SandboxError::io("trying")(io::Error::from_raw_os_error(code)).to_string();
        for code in [EPERM, ENOSYS] {
            assert!(
                said(code).contains("docs/operations.md") && !said(code).contains("disk"),
                "{}",
                said(code)
            );
        }
        assert!(said(ENOSPC).ends_with("Look for a full disk or a lack of processes, and try again"));
        assert!(
            SandboxError::unavailable("it failed").to_string().contains("here: it failed. It takes Linux")
        );
    }
}
