//! Evaluation in integers, so that it sums exactly over sites.

mod confusion;
mod score_histogram;

pub use confusion::{ClassMetrics, Confusion};
pub use score_histogram::ScoreHistogram;
