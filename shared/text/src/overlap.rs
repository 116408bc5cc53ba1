//! Measures of how much texts share: runs, n-grams, near-duplicates, ROUGE, diversity. All on [`words`](crate::words::words).

mod distinct;
mod near;
mod ngram;
mod rouge;
mod run;

pub use distinct::distinct;
pub use near::{MIN_JACCARD, near_any_of, near_duplicates_by_cosine, near_duplicates_by_minhash};
pub use ngram::{NGrams, containment, jaccard, overlap};
pub use rouge::{Rouge, rouge_l, rouge_n};
pub use run::{Run, RunIndex, longest_run};
