//! Training through adapters: what a step sees, what stays frozen, the optimiser, supervised tuning, classes,
//! preferences, per-record gradients.

pub mod checkpoint;
pub mod classify;
pub mod example;
pub mod frozen;
pub mod optimizer;
pub mod per_record;
pub mod preference;
pub mod reward;
pub mod supervised;

pub use classify::{Case, Classifier};
pub use example::{Encoded, Example};
pub use frozen::Frozen;
pub use optimizer::AdamW;
pub use reward::RewardModel;
pub use supervised::{Nll, Step, TuneConfig, Tuned, evaluate, tune};
