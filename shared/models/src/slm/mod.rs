//! Small language models of the Llama family: reading, running, training through LoRA.

pub mod backward;
pub mod chat;
pub mod config;
pub mod decode;
mod draw;
pub mod forward;
pub mod generate;
pub mod load;
pub mod tokenizer;

use burn::tensor::{Device, Tensor};

pub use config::LlamaConfig;

use crate::{
    lora::Module,
    slm::{chat::ChatTemplate, tokenizer::Vocabulary},
};

/// A loaded, frozen decoder. Weights are f32 on one device; cloning shares them.
#[derive(Clone)]
pub struct LanguageModel {
    pub(crate) config: LlamaConfig,
    pub(crate) device: Device,
    /// `[vocab, hidden]`
    pub(crate) embedding: Tensor<2>,
    pub(crate) blocks: Vec<Block>,
    /// `[hidden]`
    pub(crate) final_norm: Tensor<1>,
    /// `[vocab, hidden]`; the embedding where they are tied.
    pub(crate) output: Tensor<2>,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) chat: Option<ChatTemplate>,
}

/// One block's weights, each `[out, in]`.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) attention_norm: Tensor<1>,
    pub(crate) feed_forward_norm: Tensor<1>,
    /// In the order of [`Module::ALL`].
    pub(crate) linear: [Tensor<2>; 7],
}

impl Block {
    pub(crate) fn weight(&self, module: Module) -> &Tensor<2> {
        &self.linear[module as usize]
    }
}

impl LanguageModel {
    /// Sizes and constants.
    pub const fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Texts to tokens and back.
    pub const fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The chat template of the model's file, if it has one.
    pub const fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_ref()
    }

    /// Where the weights are.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Parameters, each counted once.
    pub fn parameters(&self) -> usize {
        let c = &self.config;
        let attention = c.hidden * (2 * c.query_width() + 2 * c.kv_width());
        let block = attention + 3 * c.hidden * c.intermediate + 2 * c.hidden;
        let tables = if c.tied { 1 } else { 2 };
        c.layers * block + tables * c.vocab * c.hidden + c.hidden
    }
}
