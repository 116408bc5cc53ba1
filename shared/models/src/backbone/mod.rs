//! Frozen networks for images.

pub mod efficientnet;
