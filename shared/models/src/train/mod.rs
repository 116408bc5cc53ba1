//! Training through adapters: what a step sees, the optimiser, supervised tuning, preferences, per-record gradients.

pub mod checkpoint;
pub mod example;
pub mod optimizer;
pub mod per_record;
pub mod preference;
pub mod supervised;

pub use example::{Encoded, Example};
pub use optimizer::AdamW;
pub use supervised::{Nll, Step, TuneConfig, Tuned, evaluate, tune};
