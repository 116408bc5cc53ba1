//! The text pipeline of workloads that work with synthetic data (FDKT, Li et al., arXiv 2405.14212;
//! RewardDS, Wang et al., EMNLP 2025, arXiv 2502.18517): what happens to texts before a language
//! model writes more of them, and to what it wrote.
//!
//! ```text
//!  private records ─► clean ─► Template::render ─► (tuning of a small model, elsewhere)
//!                                                          │ samples under control codes
//!  balance ── how many of each label ──────────────────────┤
//!                                                          ▼
//!  Template::strip ─► clean ─► overlap ─► cluster ─► filter ─► few_shot ─► drop_copies ─► table
//!                              RunIndex   k-means    keep lists  prompts     of copies      figures
//!                                                    or scores   and parsing
//!  answers to queries, scored ─► reward ── choose, keep the best, revise, pool ─► (tuning of the target, elsewhere)
//! ```
//!
//! Embeddings and log-likelihoods come in as numbers; prompts go out and answers come in as text. Nothing here calls a
//! model.
//!
//! What a language model writes is never trusted: every answer is parsed strictly on labels and indices, what cannot be
//! used is counted with its reason ([`Funnel`]), and an answer that cannot be read is an error for the caller to ask
//! again, never an empty result.
//!
//! The crate is pure: no input or output, no clock, no entropy of its own. The same input and seed give the same output
//! on every machine.

pub mod balance;
pub mod clean;
pub mod cluster;
mod error;
pub mod few_shot;
pub mod filter;
mod funnel;
mod labels;
pub mod overlap;
mod random;
mod record;
pub mod reward;
pub mod table;
mod template;
mod vectors;
pub mod words;

pub use error::TextError;
pub use funnel::{Funnel, Step};
pub use labels::Labels;
pub use record::{Labelled, from_lines, to_lines};
pub use template::Template;
pub use vectors::{UnitVectors, cosine};
