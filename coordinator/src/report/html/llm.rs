//! What a language model was used for, in a sentence.

use super::quantity::{count, duration, measured};
use crate::report::LlmUse;

/// The sentence as plain text, for [`super::markup::Escaped`].
pub(super) fn sentence(used: &LlmUse) -> String {
    let LlmUse { model, requests, from_cache, prompt_tokens, completion_tokens, cost, seconds } = used;
    let mut text = format!(
        "{model} answered {} requests ({} more came from the cache): {} tokens read, {} written, in {}.",
        count(*requests),
        count(*from_cache),
        count(*prompt_tokens),
        count(*completion_tokens),
        duration(*seconds)
    );
    if let Some(cost) = measured(*cost) {
        put!(text, " It cost {cost:.2}.");
    }
    text
}
