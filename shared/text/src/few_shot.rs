//! Few-shot prompts: demonstrations of every label, what to ask with them, and reading what comes back.

mod copies;
mod parse;
mod prompt;
mod queue;

pub use copies::{CopySpec, Fresh, drop_copies};
pub use parse::{Generated, parse_generated};
pub use prompt::{layout, prompt, unfinished_list};
pub use queue::Demonstrations;
