//! The crate against PyTorch, transformers and peft: fixtures made by the scripts in `tests/reference`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, which the lint's own exception does not see"
)]

mod damaged;
mod extractors;
mod fixture;
mod sampling;
mod smollm2;
mod tiny_llama;
mod top_layers;
