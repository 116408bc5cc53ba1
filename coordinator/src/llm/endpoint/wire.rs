//! The chat-completions protocol: bodies of requests, answers and errors.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::llm::{Completion, Finish, Form, Format, Prompt, Usage};

/// Asks a server that only answers to go on with a text.
const GO_ON: &str = "Continue the user's text from where it ends, in its style. Write the continuation alone: repeat nothing of \
                     the text, and say nothing about it.";

/// How a server wants to be told of a JSON schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `json_schema`: OpenAI, vLLM, Ollama, llama.cpp's own server.
    Schema,
    /// `json_object` with a schema beside it: `llama_cpp.server`, which refuses the other.
    Object,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    temperature: f64,
    top_p: f64,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    stream: bool,
}

/// The body of a request.
pub(super) fn request(model: &str, prompt: &Prompt, dialect: Dialect) -> Result<Vec<u8>, serde_json::Error> {
    let goes_on = (prompt.form == Form::Continue).then_some(GO_ON);
    let system = prompt.system.as_deref().or(goes_on).into_iter();
    let system = system.map(|content| Message { role: "system", content });
    let user = Message { role: "user", content: &prompt.user };
    let options = &prompt.options;
    serde_json::to_vec(&Request {
        model,
        messages: system.chain([user]).collect(),
        temperature: options.temperature,
        top_p: options.top_p,
        max_tokens: options.max_tokens,
        // 31 bits: what every server takes.
        seed: prompt.seed().map(|seed| seed & 0x7fff_ffff),
        stop: options.stop.as_deref(),
        response_format: match (&options.format, dialect) {
            (Format::Text, _) => None,
            (Format::Json(schema), Dialect::Schema) => Some(json!({
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": true},
            })),
            (Format::Json(schema), Dialect::Object) => Some(json!({"type": "json_object", "schema": schema})),
        },
        stream: false,
    })
}

#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
    usage: Option<ReplyUsage>,
}

#[derive(Deserialize)]
struct Choice {
    message: ReplyMessage,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct ReplyMessage {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct ReplyUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// What a whole answer turns out to be.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// A completion, and whether the server counted its tokens.
    Completed(Completion, bool),
    /// The model would not, in its words.
    Declined(String, Usage),
    /// Not an answer of this protocol, and why.
    Rubbish(String),
}

/// Reads the body of an answer with status 200.
pub(super) fn answer(body: &[u8]) -> Answer {
    let reply: Reply = match serde_json::from_slice(body) {
        Ok(reply) => reply,
        Err(e) => return Answer::Rubbish(format!("its answer is not a chat completion ({e})")),
    };
    let counted = reply.usage.is_some();
    let usage = reply.usage.map_or_else(Usage::default, |usage| Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
    });
    let Some(choice) = reply.choices.into_iter().next() else {
        return Answer::Rubbish("its answer holds no choices".to_owned());
    };
    let finish = match choice.finish_reason.as_deref() {
        Some("stop") => Finish::Stop,
        Some("length") => Finish::Length,
        other => Finish::Other(other.unwrap_or("none given").to_owned()),
    };
    match (choice.message.content, choice.message.refusal) {
        (Some(text), _) => Answer::Completed(Completion { text, usage, finish }, counted),
        (None, Some(refusal)) => Answer::Declined(refusal, usage),
        // All tokens went into thoughts that the server keeps to itself.
        (None, None) if finish == Finish::Length => {
            Answer::Completed(Completion { text: String::new(), usage, finish }, counted)
        }
        (None, None) => Answer::Rubbish("its answer holds no text".to_owned()),
    }
}

/// The message in the body of an error: the protocol's place for it, those that servers use instead, or the body itself.
pub(super) fn message(body: &[u8]) -> String {
    let value = serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
    let places = ["/error/message", "/error", "/message", "/detail"];
    let found = places.iter().filter_map(|place| value.pointer(place)).find(|found| !found.is_null());
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::from_utf8_lossy(body).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(prompt: &Prompt, dialect: Dialect) -> Value {
        serde_json::from_slice(&request("m", prompt, dialect).unwrap()).unwrap()
    }

    #[test]
    fn a_request_says_what_the_prompt_says() {
        let mut prompt = Prompt::new("why?");
        assert_eq!(
            body(&prompt, Dialect::Schema),
            json!({"model": "m", "messages": [{"role": "user", "content": "why?"}], "temperature": 1.0, "top_p": 1.0,
                "max_tokens": 1024, "stream": false})
        );
        prompt.system = Some("be brief".to_owned());
        prompt.options.temperature = 0.7;
        prompt.options.seed = Some(u64::MAX);
        prompt.options.format = Format::Json(json!({"type": "object"}));
        let value = body(&prompt, Dialect::Schema);
        assert_eq!(value["messages"][0], json!({"role": "system", "content": "be brief"}));
        assert_eq!((&value["temperature"], &value["seed"]), (&json!(0.7), &json!(0x7fff_ffff)));
        assert_eq!(value["response_format"]["json_schema"]["schema"], json!({"type": "object"}));
        let value = body(&prompt, Dialect::Object);
        assert_eq!(value["response_format"], json!({"type": "json_object", "schema": {"type": "object"}}));
    }

    #[test]
    fn answers_are_told_apart() {
        let read = |value: Value| answer(value.to_string().as_bytes());
        let choice = |content: Value, finish: &str| json!([{"message": {"content": content}, "finish_reason": finish}]);
        let done = read(json!({"choices": choice(json!("hi"), "stop"), "usage": {"prompt_tokens": 3}}));
        let usage = Usage { prompt_tokens: 3, completion_tokens: 0 };
        assert_eq!(
            done,
            Answer::Completed(Completion { text: "hi".to_owned(), usage, finish: Finish::Stop }, true)
        );
        let cut = read(json!({"choices": choice(Value::Null, "length")}));
        assert!(
            matches!(cut, Answer::Completed(Completion { finish: Finish::Length, .. }, false)),
            "{cut:?}"
        );
        let other = read(json!({"choices": choice(json!(""), "content_filter")}));
        assert!(
            matches!(other, Answer::Completed(Completion { finish: Finish::Other(_), .. }, _)),
            "{other:?}"
        );
        let declined = read(json!({"choices": [{"message": {"content": null, "refusal": "no"}}]}));
        assert_eq!(declined, Answer::Declined("no".to_owned(), Usage::default()));
        for rubbish in
            [json!({}), json!({"choices": []}), json!({"choices": choice(Value::Null, "stop")}), json!(3)]
        {
            assert!(matches!(read(rubbish.clone()), Answer::Rubbish(_)), "{rubbish}");
        }
    }

    #[test]
    fn errors_are_found_where_servers_put_them() {
        for body in [
            r#"{"error": {"message": "no", "type": "x"}}"#,
            r#"{"error": "no"}"#,
            r#"{"message": "no"}"#,
            r#"{"detail": "no"}"#,
            "no",
        ] {
            assert_eq!(message(body.as_bytes()), "no");
        }
        assert_eq!(message(br#"{"detail": [{"loc": 1}]}"#), r#"[{"loc":1}]"#);
    }
}
