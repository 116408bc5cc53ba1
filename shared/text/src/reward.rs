//! Choosing among several answers to each query by a reward, and what to do with the choice (RewardDS, Wang et al., EMNLP
//! 2025, arXiv 2502.18517).
//!
//! ```text
//!  score and perplexity of each candidate ─► choose ─► chosen, rejected of each query
//!                                                        │ score of chosen
//!                                                        ▼
//!                                  best 1/8 of the queries ─► Pool ─► (tuning of the target, elsewhere)
//!                                                              ▲             │
//!    re-scored, choose, Pool::grow ── revision_prompt ◄── feedback_prompt ◄──┘
//! ```
//!
//! [`rouge_consensus`], [`relevance`] and [`at_random`] are the naive filters that this is compared with. [`Variety`] and
//! [`Histogram`] show reward hacking: answers that please the proxy because they are long or say what fits everywhere.

mod naive;
mod pool;
mod prompt;
mod rank;
mod statistics;

pub use naive::{at_random, relevance, rouge_consensus};
pub use pool::{Entry, Pool, Verdict};
pub use prompt::{answer_prompt, feedback_prompt, revision_prompt};
pub use rank::{Choice, Scored, best, choose};
pub use statistics::{Histogram, Variety};
