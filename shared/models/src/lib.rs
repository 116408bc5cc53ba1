//! Neural networks of Sheaf, on burn: frozen backbones, sentence encoders, a small language model that trains.
//!
//! The crate knows no other crate of Sheaf: it takes files, numbers and options and gives numbers back.

mod adapter;
pub mod backbone;
pub mod device;
pub mod encoder;
mod error;
mod extractor;
pub mod heads;
pub mod image;
mod inference;
mod kernels;
pub mod lora;
pub mod loss;
mod ops;
pub mod slm;
pub mod train;
pub mod weights;

pub use adapter::Adapter;
pub use device::{Compute, DeviceChoice};
pub use error::ModelError;
pub use extractor::{Extractor, ExtractorOptions};
pub use image::Image;
pub use lora::{LoraConfig, LoraWeights};
pub use slm::LanguageModel;
