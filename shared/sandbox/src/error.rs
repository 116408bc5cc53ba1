use std::io;

/// Why a program was not run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Isolation does not hold on this machine.
    #[error(
        "code that a model wrote cannot be isolated here: {why}. It takes Linux with user namespaces open to this user \
         (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, \
         kernel.apparmor_restrict_unprivileged_userns=0; in Docker a seccomp profile that lets `unshare` and `mount` \
         through), the packages util-linux, mount, coreutils, libc-bin and python3, and a temporary folder (TMPDIR) \
         that is not mounted noexec"
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
    #[error(
        "the sandbox failed while {what}: {source}. Look for a full disk or a lack of processes, and try again"
    )]
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
