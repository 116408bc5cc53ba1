//! Which samples are good enough to go on: by a language model's keep list for each cluster, or by scores.

mod judge;
mod keep;
mod score;

pub use judge::{ClusterJudge, ClusterReport, Next, Used, funnel_step};
pub use keep::{keep_prompt, keep_schema, parse_keep};
pub use score::{Bound, Criterion, Decision, Evidence, Measure, Scored, Scorer};
