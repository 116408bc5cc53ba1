//! Heads on top of frozen representations: scores of sequences by a language model (rewards, classes), small networks
//! on sentence embeddings, softmax regression on features.

pub mod embedding;
pub mod sequence;
pub mod softmax;
