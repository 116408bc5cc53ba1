//! Answers that must be JSON of a known shape, from models that sometimes write something else.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Completion, Finish, Format, Llm, LlmError, Prompt};

/// Characters of a bad answer that are kept for the error.
const EXCERPT: usize = 300;

/// No usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StructuredError {
    /// The model gave no answer at all.
    #[error(transparent)]
    Llm(#[from] LlmError),
    /// It answered each time, never as it was asked to.
    #[error(
        "the language model did not write the JSON it was asked for in {attempts} attempts; the last one: {why}; it wrote: \
         {answer}"
    )]
    Unusable {
        /// How often it was asked.
        attempts: u32,
        /// What was wrong with the last answer.
        why: String,
        /// How the last answer begins.
        answer: String,
    },
}

/// Asks for a JSON object that fits a JSON schema and reads it as a `T`. An answer that is not one is asked for again
/// with what was wrong about it, up to `attempts` times in all; 0 is taken as 1.
///
/// The prompt should say in words what is wanted: not every model is held to the schema. Hosted ones often take schemas
/// only where every object has `additionalProperties: false` and requires all its properties. Whether a value fits the
/// schema beyond what `T` holds it to is for `T` to check.
///
/// # Errors
/// [`StructuredError::Unusable`] after the last attempt, so that the caller can fall back;
/// [`StructuredError::Llm`] as soon as the model gives no answer.
pub async fn structured<T: DeserializeOwned>(
    llm: &(impl Llm + ?Sized),
    prompt: &Prompt,
    schema: &Value,
    attempts: u32,
) -> Result<T, StructuredError> {
    let attempts = attempts.max(1);
    let mut question = prompt.clone();
    question.options.format = Format::Json(schema.clone());
    let mut attempt = 1;
    loop {
        let completion = llm.complete(&question).await?;
        let why = match parse(&completion) {
            Ok(value) => return Ok(value),
            Err(why) => why,
        };
        tracing::debug!(attempt, "an answer of the language model is not usable: {why}");
        if attempt == attempts {
            let answer = completion.text.chars().take(EXCERPT).collect();
            return Err(StructuredError::Unusable { attempts, why, answer });
        }
        question.user = format!(
            "{}\n\nAn earlier answer was not accepted: {why}. Answer with one JSON object that fits this JSON schema, and \
             with nothing else:\n{schema}",
            prompt.user
        );
        question.sample = prompt.clone().again(attempt).sample;
        attempt += 1;
    }
}

/// A single JSON object, bare or within one fence marked as JSON; what stands around it is refused, since a model that
/// talks beside its answer may have meant another one.
fn parse<T: DeserializeOwned>(completion: &Completion) -> Result<T, String> {
    let text = completion.text.trim();
    let inner = match text.strip_prefix("```json") {
        Some(rest) => rest
            .strip_suffix("```")
            .filter(|inner| inner.starts_with(['\n', '\r']))
            .map(str::trim)
            .ok_or("a fence must hold the whole answer"),
        None => Ok(text),
    };
    let parsed = inner.map_err(str::to_owned).and_then(|inner| {
        if !inner.starts_with('{') {
            return Err("it is not a JSON object".to_owned());
        }
        serde_json::from_str(inner).map_err(|e| e.to_string())
    });
    parsed.map_err(|why| match completion.finish {
        Finish::Length => format!("it was cut at the largest number of tokens ({why})"),
        _ => why,
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::llm::{ATTEMPT, Usage, stub::Scripted};

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Label {
        label: String,
    }

    fn parsed(text: &str) -> Result<Label, String> {
        parse(&Completion { text: text.to_owned(), usage: Usage::default(), finish: Finish::Stop })
    }

    fn schema() -> Value {
        json!({"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"],
            "additionalProperties": false})
    }

    #[test]
    fn an_object_alone_or_in_one_fence_is_accepted() {
        let label = Label { label: "a".to_owned() };
        for text in [
            r#"{"label": "a"}"#,
            "\n {\"label\":\n\"a\"}\n",
            "```json\n{\"label\": \"a\"}\n```",
            "  ```json\r\n{\"label\": \"a\"}```\n",
        ] {
            assert_eq!(parsed(text).as_ref(), Ok(&label), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "a",
            "[1]",
            "null",
            "{\"label\": \"a\"} I hope this helps!",
            "Here you are: {\"label\": \"a\"}",
            "{\"label\": \"a\"}{\"label\": \"b\"}",
            "{\"label\": \"a\"",
            "{\"label\": 1}",
            "{}",
            "{\"label\": \"a\", \"more\": 1}",
            "```json\n{\"label\": \"a\"}\n``` I hope this helps!",
            "```\n{\"label\": \"a\"}\n```",
            "```json5\n{\"label\": \"a\"}\n```",
            "```json\n{\"label\": \"a\"}",
            "```json\n{\"label\": \"a\"}\n```\n```json\n{\"label\": \"b\"}\n```",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_bad_answer_is_asked_for_again_with_what_was_wrong() {
        let model = Scripted::new(1, |_, at| Ok(["no", "{\"label\": \"a\"}"][at].to_owned()));
        let mut prompt = Prompt::new("which?");
        prompt.sample = 7;
        let label: Label = structured(&model, &prompt, &schema(), 3).await.unwrap();
        assert_eq!(label.label, "a");
        let asked = model.prompts();
        assert_eq!(asked.len(), 2);
        assert_eq!((asked[0].user.as_str(), asked[0].sample), ("which?", 7));
        assert_eq!(asked[0].options.format, Format::Json(schema()));
        assert!(
            asked[1].user.starts_with("which?\n") && asked[1].user.contains("not a JSON object"),
            "{asked:?}"
        );
        assert_eq!(asked[1].sample, 7 + ATTEMPT);
    }

    #[tokio::test]
    async fn bad_answers_to_the_end_are_an_error_that_says_so() {
        let model = Scripted::new(1, |_, at| Ok(format!("{{\"label\": {at}}}")));
        let error = structured::<Label>(&model, &Prompt::new("which?"), &schema(), 3).await.unwrap_err();
        let StructuredError::Unusable { attempts, why, answer } = error else { panic!("{error}") };
        assert_eq!((attempts, model.asked(), answer.as_str()), (3, 3, "{\"label\": 2}"));
        assert!(why.contains("expected a string"), "{why}");
    }

    #[tokio::test]
    async fn no_answer_is_not_a_bad_answer() {
        let model = Scripted::new(1, |_, _| Err(LlmError::transient("away")));
        let error = structured::<Label>(&model, &Prompt::new("x"), &schema(), 3).await.unwrap_err();
        assert_eq!((error, model.asked()), (StructuredError::Llm(LlmError::transient("away")), 1));
    }

    #[test]
    fn a_cut_answer_is_named_as_one() {
        let completion =
            Completion { text: "{\"label\": \"".to_owned(), usage: Usage::default(), finish: Finish::Length };
        assert!(parse::<Label>(&completion).unwrap_err().contains("cut"));
    }
}
