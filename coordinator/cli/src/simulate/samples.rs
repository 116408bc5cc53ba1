//! What a tuned language model writes where the frozen one wrote something else.

use std::path::Path;

use anyhow::{Context as _, Result};
use sheaf_agent::{models, task::Resources};
use sheaf_coordinator::{report::TextSample, run::plan::Plan};
use sheaf_data::{AssetStore, Dataset, Split};
use sheaf_models::{
    Adapter, LanguageModel, LoraWeights,
    slm::{chat::Message, generate::Sampling},
};

use super::{DEVICE, language_model, workspace};

/// Prompts shown.
const PROMPTS: usize = 4;
/// Tokens written after each.
const TOKENS: usize = 64;

/// Texts after the first test records of different sites, without and with the adapter in `out`; none for a plan of
/// another kind. Fails when cancelled.
pub(super) fn write(
    assets: &AssetStore,
    plan: &Plan,
    dataset: &Dataset,
    out: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<TextSample>> {
    let Some(name) = language_model(plan) else {
        return Ok(Vec::new());
    };
    let records = dataset.dialogues(&dataset.rows(Split::Test))?;
    let apart = records.len().div_ceil(PROMPTS).max(1);
    let records: Vec<_> = records.into_iter().step_by(apart).collect();
    let cache = workspace::cache(assets);
    let model = models::language(&name, &Resources::new(assets, &cache, None, DEVICE))?;
    let adapter = Adapter::load(out).with_context(|| format!("the adapter in {}", out.display()))?;
    let lora = adapter.to_device(model.config(), model.device())?;
    // Nothing is drawn, so that the seeds do not count.
    let prompt = |(prompt, _): &(&str, &str)| Ok((encode(&model, prompt)?, 0));
    let prompts = records.iter().map(prompt).collect::<Result<Vec<_>>>()?;
    let before = texts(&model, None, &prompts, cancelled)?;
    let after = texts(&model, Some(&lora), &prompts, cancelled)?;
    let written = before.into_iter().zip(after);
    let sample = |((prompt, reference), (before, after)): (&(&str, &str), (String, String))| TextSample {
        prompt: (*prompt).to_owned(),
        reference: shortened(reference),
        before,
        after,
    };
    Ok(records.iter().zip(written).map(sample).collect())
}

fn encode(model: &LanguageModel, prompt: &str) -> Result<Vec<u32>> {
    match model.chat() {
        Some(chat) => Ok(chat.encode(&[Message::user(prompt)], model.vocabulary())?),
        None => Ok(model.vocabulary().encode(prompt)?),
    }
}

fn texts(
    model: &LanguageModel,
    lora: Option<&LoraWeights>,
    prompts: &[(Vec<u32>, u64)],
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<String>> {
    let sampling = Sampling { max_tokens: TOKENS, temperature: 0.0, ..Sampling::default() };
    let written = model.generate_each(lora, prompts, &sampling, cancelled)?;
    Ok(written.into_iter().map(|text| text.text).collect())
}

/// About as much of a text as the models write.
fn shortened(text: &str) -> String {
    const CHARACTERS: usize = 5 * TOKENS;
    let mut short: String = text.chars().take(CHARACTERS).collect();
    if short.len() < text.len() {
        short.push_str(" ...");
    }
    short
}
