//! Heads on top of frozen representations: scores of sequences by a language model (rewards, classes), and small networks
//! on sentence embeddings.

pub mod embedding;
pub mod sequence;
