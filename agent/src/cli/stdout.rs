//! Standard output that may end early: `sheaf-agent status | head -1` is not a failure.

use std::{
    fmt,
    io::{self, Write as _},
};

/// Prints a line. A reader that has seen enough, or a full disk behind a redirection, ends the output and not the
/// command, whose work is done by then; its exit code tells how that went.
pub fn line(text: fmt::Arguments<'_>) {
    drop(writeln!(io::stdout(), "{text}"));
}

/// `println!` for commands whose output people pipe into other commands.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::stdout::line(format_args!($($text)*)) };
}
