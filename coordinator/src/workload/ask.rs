//! Asking the coordinator's language model for many answers while a workload merges.

use std::time::Instant;

use tokio::runtime::Handle;

use crate::{
    error::Error,
    llm::{Completion, Llm, LlmError, Prompt, Totals, complete_all, many::Progress},
    models::Tools,
    report::LlmUse,
};

/// Asks the language model all prompts, telling how far it is. Any answer that does not come ends the work: what has come is in
/// the cache, and `sheaf run resume` goes on there.
pub(super) fn ask(
    tools: &Tools<'_>,
    llm: &dyn Llm,
    what: &str,
    prompts: &[Prompt],
) -> Result<Vec<Completion>, Error> {
    let mut progress = |p: Progress| {
        (tools.tell)(what, p.done as u64, p.all as u64);
        if p.failed > 0 {
            tracing::warn!(failed = p.failed, "{what}: prompts without an answer");
        }
    };
    (tools.tell)(what, 0, prompts.len() as u64);
    let outcomes = Handle::current().block_on(complete_all(llm, prompts, &mut progress, tools.stop));
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let done: Result<Vec<Completion>, LlmError> = outcomes.into_iter().collect();
    done.map_err(|error| {
        Error::transient(format!(
            "{what}: {failed} of {} prompts have no answer; the first: {error}. What was answered is kept: `sheaf run resume` \
             goes on there",
            prompts.len()
        ))
    })
}

/// What the language model was used for between two counts.
pub(super) fn use_of(name: &str, before: Totals, after: Totals, began: Instant) -> LlmUse {
    LlmUse {
        model: name.to_owned(),
        requests: after.requests - before.requests,
        from_cache: after.cache_hits - before.cache_hits,
        prompt_tokens: after.prompt_tokens - before.prompt_tokens,
        completion_tokens: after.completion_tokens - before.completion_tokens,
        cost: after.cost.map(|cost| cost - before.cost.unwrap_or(0.0)),
        seconds: began.elapsed().as_secs_f64(),
    }
}
