//! What a language model does with queries and responses, the same at a site and at the coordinator: fits texts into its limits,
//! writes, says how likely a text is.
//!
//! The generation proxy reads plain text, since a chat template would double the tokens of a short record:
//!
//! ```text
//! <end> control \n query \n response <end>
//! ```
//!
//! The untuned model and the target are asked through the model's chat template.

use sheaf_models::{
    Adapter, LanguageModel, LoraConfig, LoraWeights, ModelError,
    slm::{
        chat::Message,
        generate::{Finish, Sampling},
    },
    train::{Encoded, Frozen, supervised::response_log_p_from},
};
use sheaf_proto::{
    fedavg::{AdapterSpec, Parameters},
    rewardds::{Exchange, Generator, Target, Written, before_query, before_response, one_line},
};

use super::super::{fedavg::lora, parameters::named};
use crate::error::AgentError;

/// Texts written at a time.
pub const BATCH: usize = 64;

/// An adapter's options as the model reads them.
pub fn config(spec: &AdapterSpec) -> LoraConfig {
    lora::config(spec)
}

/// Parameters as an adapter.
pub fn adapter(spec: &AdapterSpec, parameters: &Parameters) -> Adapter {
    Adapter { config: lora::config(spec), tensors: named(parameters.clone()) }
}

/// The end of a text that has at most so many tokens: what a long context says last is nearest to its question.
///
/// # Errors
/// [`ModelError::Input`] for a text of more than 16 MiB.
pub fn fitted(model: &LanguageModel, text: &str, tokens: usize) -> Result<String, ModelError> {
    let mut text = text.to_owned();
    loop {
        let all = model.vocabulary().encode_plain(&text)?;
        let Some(over) = all.len().checked_sub(tokens).filter(|over| *over > 0) else { return Ok(text) };
        // What is left of a cut word may take more tokens than it had: it is looked at again, and shorter every time.
        let end = model.vocabulary().decode(&all[over..])?.trim_start_matches('\u{fffd}').trim().to_owned();
        let shorter = text.char_indices().nth(1).map_or("", |(second, _)| &text[second..]);
        text = if end.len() < text.len() { end } else { shorter.to_owned() };
    }
}

/// A response of at most so many tokens, and whether it ends by itself: a longer one is cut behind its last sentence that fits, or
/// in the middle of its first.
///
/// # Errors
/// [`ModelError::Input`] for a text of more than 16 MiB.
pub fn shortened(model: &LanguageModel, text: &str, tokens: usize) -> Result<Written, ModelError> {
    let text = text.trim().replace("\r\n", "\n");
    let all = model.vocabulary().encode_plain(&text)?;
    if all.len() <= tokens {
        return Ok(Written { text, ended: true });
    }
    let begin = model.vocabulary().decode(&all[..tokens])?;
    Ok(to_sentence(&begin))
}

/// Cuts a text behind its last sentence, where it has one.
pub fn to_sentence(text: &str) -> Written {
    let text = text.trim_end_matches('\u{fffd}').trim();
    if text.ends_with(['.', '?', '!']) {
        return Written { text: text.to_owned(), ended: true };
    }
    let end = [". ", "? ", "! "].iter().filter_map(|end| text.rfind(end)).max();
    match end {
        Some(end) => Written { text: text[..=end].to_owned(), ended: true },
        None => Written { text: text.to_owned(), ended: false },
    }
}

/// A query as the generation proxy reads it: one line, no longer than leaves room for a response.
///
/// # Errors
/// As [`fitted`].
pub fn query(
    model: &LanguageModel,
    generator: &Generator,
    control: &str,
    query: &str,
) -> Result<String, ModelError> {
    let before = model.vocabulary().encode_begun(&before_query(control))?.len();
    // The end of the query's line, and of the response.
    let room = generator.max_tokens.saturating_sub(before + generator.answer_tokens + 2).max(1);
    fitted(model, &one_line(query), room)
}

/// A record as the generation proxy learns it: what follows the control code. `learn_query` false: the response alone, as its
/// likelihood is measured.
///
/// # Errors
/// As [`fitted`].
pub fn encoded(
    model: &LanguageModel,
    generator: &Generator,
    exchange: &Exchange,
    learn_query: bool,
) -> Result<Encoded, ModelError> {
    let fitting = query(model, generator, &exchange.control, &exchange.query)?;
    let control = model.vocabulary().encode_begun(&before_query(&exchange.control))?;
    let mut tokens = model.vocabulary().encode_begun(&before_response(&exchange.control, &fitting))?;
    let first_target = if learn_query { control.len() } else { tokens.len() };
    let response = shortened(model, &exchange.response, generator.answer_tokens)?;
    tokens.extend(model.vocabulary().encode_plain(&response.text)?);
    if response.ended {
        tokens.extend(model.vocabulary().ends().first());
    }
    Ok(Encoded { tokens, first_target })
}

/// Queries from control codes, each with a seed of its own.
///
/// # Errors
/// [`ModelError::Stopped`] when cancelled; options that the model does not take.
pub fn queries(
    model: &LanguageModel,
    lora: &LoraWeights,
    requests: &[(String, u64)],
    sampling: &Sampling,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Written>, ModelError> {
    let begun = requests
        .iter()
        .map(|(control, seed)| Ok((model.vocabulary().encode_begun(&before_query(control))?, *seed)));
    let begun = begun.collect::<Result<Vec<_>, ModelError>>()?;
    let sampling = Sampling { stop: vec!["\n".to_owned()], ..sampling.clone() };
    write(model, Some(lora), &begun, &sampling, cancelled)
}

/// Responses of the generation proxy, each with a seed of its own; the response of an exchange is not looked at.
///
/// # Errors
/// As [`queries`].
pub fn responses(
    model: &LanguageModel,
    lora: &LoraWeights,
    generator: &Generator,
    requests: &[(Exchange, u64)],
    sampling: &Sampling,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Written>, ModelError> {
    let begun = requests.iter().map(|(exchange, seed)| {
        let fitting = query(model, generator, &exchange.control, &exchange.query)?;
        Ok((model.vocabulary().encode_begun(&before_response(&exchange.control, &fitting))?, *seed))
    });
    let begun = begun.collect::<Result<Vec<_>, ModelError>>()?;
    write(model, Some(lora), &begun, sampling, cancelled)
}

/// Answers to questions through the model's chat template, each with a seed of its own. A question that does not fit into the
/// model loses its beginning.
///
/// # Errors
/// As [`queries`].
pub fn answers(
    model: &LanguageModel,
    lora: Option<&LoraWeights>,
    questions: &[(String, u64)],
    sampling: &Sampling,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Written>, ModelError> {
    let begun =
        questions.iter().map(|(question, seed)| Ok((within(model, question, sampling.max_tokens)?, *seed)));
    write(model, lora, &begun.collect::<Result<Vec<_>, ModelError>>()?, sampling, cancelled)
}

/// How the target is asked, and what it should answer.
///
/// # Errors
/// As [`fitted`].
pub fn example(
    model: &LanguageModel,
    target: &Target,
    query: &str,
    response: &str,
) -> Result<(String, Encoded), ModelError> {
    let overhead = asked(model, "")?.len();
    let room = target.max_tokens.saturating_sub(target.answer_tokens + overhead + 1).max(1);
    let question = fitted(model, query.trim(), room)?;
    let mut tokens = asked(model, &question)?;
    let first_target = tokens.len();
    let response = shortened(model, response, target.answer_tokens)?;
    tokens.extend(model.vocabulary().encode_plain(&response.text)?);
    if response.ended {
        tokens.extend(model.vocabulary().ends().first());
    }
    Ok((question, Encoded { tokens, first_target }))
}

/// A question as the model is asked it, with room for an answer of so many tokens, or in half of its positions where the answer would
/// leave less. A longer one is cut at its beginning: what is to be done stands at a prompt's end, and of a query the end is kept
/// everywhere ([`fitted`]).
fn within(model: &LanguageModel, question: &str, answer: usize) -> Result<Vec<u32>, ModelError> {
    let tokens = asked(model, question)?;
    let most = model.config().max_positions;
    let room = most.saturating_sub(answer).max(most / 2);
    if tokens.len() <= room {
        return Ok(tokens);
    }
    let template = asked(model, "")?.len();
    asked(model, &fitted(model, question, room.saturating_sub(template).max(1))?)
}

fn asked(model: &LanguageModel, question: &str) -> Result<Vec<u32>, ModelError> {
    match model.chat() {
        Some(chat) => chat.encode(&[Message::user(question)], model.vocabulary()),
        None => model.vocabulary().encode_begun(&format!("{question}\n")),
    }
}

fn write(
    model: &LanguageModel,
    lora: Option<&LoraWeights>,
    begun: &[(Vec<u32>, u64)],
    sampling: &Sampling,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Written>, ModelError> {
    let mut written = Vec::with_capacity(begun.len());
    for batch in begun.chunks(BATCH) {
        let texts = model.generate_each(lora, batch, sampling, cancelled)?;
        written.extend(
            texts.into_iter().map(|text| Written {
                text: text.text.trim().to_owned(),
                ended: text.finish == Finish::Stop,
            }),
        );
    }
    Ok(written)
}

/// The mean negative log-likelihood of each record's targets, nats a token; of one without targets infinite. With `alone` no
/// record has a part in another's rounding.
///
/// # Errors
/// [`ModelError::Stopped`] when cancelled.
pub fn mean_nll(
    model: &LanguageModel,
    lora: &LoraWeights,
    records: &Frozen<'_>,
    alone: bool,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<f64>, ModelError> {
    let all: Vec<usize> = (0..records.len()).collect();
    let mut sums = Vec::with_capacity(all.len());
    for rows in all.chunks(if alone { 1 } else { all.len().max(1) }) {
        sums.extend(response_log_p_from(model, lora, records, rows, cancelled)?);
    }
    let mean = |sum: &sheaf_models::train::Nll| -sum.sum / sum.tokens as f64;
    Ok(sums.iter().map(|sum| if sum.tokens == 0 { f64::INFINITY } else { mean(sum) }).collect())
}

/// What a record that was computed by itself gives where the model fails at it: the worst, since that the task failed would tell
/// that such a record is there. Where records are computed together, without noise, it is a failure.
pub(super) fn of_one<T>(
    alone: bool,
    found: Result<T, ModelError>,
    worst: impl FnOnce() -> T,
) -> Result<T, AgentError> {
    match found {
        Err(ModelError::Stopped) => Err(AgentError::Cancelled),
        Err(_) if alone => Ok(worst()),
        other => other.map_err(failed),
    }
}

/// An answer that says nothing.
pub(super) const fn nothing() -> Written {
    Written { text: String::new(), ended: true }
}

/// Refuses limits under which a long record would not fit into the model, before a record is read: that a task failed for one would
/// tell that it is there.
pub(super) fn check_limits(model: &LanguageModel, tokens: usize, answer: usize) -> Result<(), AgentError> {
    let most = model.config().max_positions;
    let template = asked(model, "").map_err(failed)?.len();
    if tokens.saturating_add(answer).saturating_add(template) <= most {
        return Ok(());
    }
    Err(AgentError::Task(format!(
        "records of {tokens} tokens and answers of {answer} do not fit into a model of {most} positions"
    )))
}

/// What a model's failure is to a task.
pub(super) fn failed(error: ModelError) -> AgentError {
    match error {
        ModelError::Stopped => AgentError::Cancelled,
        ModelError::Input(problem) => AgentError::Data(problem),
        other => AgentError::Task(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sheaf_models::Compute;

    use super::*;

    fn model() -> LanguageModel {
        let fixtures =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/tests/fixtures/tiny_llama");
        LanguageModel::load(&fixtures, &Compute::cpu()).unwrap()
    }

    #[test]
    fn a_question_that_does_not_fit_loses_its_beginning() {
        let (model, task) = (model(), "### Task\nSay what could be better.");
        let most = model.config().max_positions;
        let long = format!("{}\n\n{task}\n", "Is it a fever? ".repeat(most));
        assert!(asked(&model, &long).unwrap().len() > most);
        // With little room left, half of the positions are the question's.
        for (answer, room) in [(24, most - 24), (most, most / 2), (10 * most, most / 2)] {
            let prompt = within(&model, &long, answer).unwrap();
            assert!(prompt.len() <= room, "{} tokens in {room}", prompt.len());
            assert!(model.vocabulary().decode(&prompt).unwrap().contains(task), "{answer}");
        }
        assert_eq!(
            within(&model, task, 24).unwrap(),
            asked(&model, task).unwrap(),
            "what fits stays as it is"
        );
        let sampling = Sampling { max_tokens: 4, ..Sampling::default() };
        assert_eq!(answers(&model, None, &[(long, 1)], &sampling, &|| false).unwrap().len(), 1);
    }

    #[test]
    fn a_cut_text_ends_with_a_sentence_where_it_has_one() {
        let whole = |text: &str| Written { text: text.to_owned(), ended: true };
        assert_eq!(to_sentence("It helps. Take two a d"), whole("It helps."));
        assert_eq!(to_sentence("It helps. Does it? Ye"), whole("It helps. Does it?"));
        assert_eq!(to_sentence("It helps."), whole("It helps."));
        assert_eq!(
            to_sentence("It costs 3.5 a d"),
            Written { text: "It costs 3.5 a d".to_owned(), ended: false }
        );
    }
}
