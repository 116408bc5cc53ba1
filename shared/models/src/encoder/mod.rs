//! Frozen networks for text.

pub mod minilm;
