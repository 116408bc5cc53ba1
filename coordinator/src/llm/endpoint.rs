//! A language model behind the chat-completions protocol of OpenAI: llama.cpp's servers, vLLM, Ollama, hosted models.
//!
//! TLS is 1.3 by ring, with Mozilla's root certificates built in: the binary stands alone and trusts the same servers on
//! every machine and in a container that has no store of certificates. Redirects are not followed, since they would take
//! the key elsewhere.

mod address;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::sync::Semaphore;

use super::{
    Completion, Format, Llm, LlmError, Prompt, Totals,
    key::ApiKey,
    totals::{Meter, Price},
};
use crate::error::Error;
use address::Address;
use transport::{Response, Transport};
use wire::{Answer, Dialect};

/// First wait between attempts; each is twice the one before, with up to as much again drawn at random.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait that the number of attempts alone leads to.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A server that asks for more than this has a quota for the day rather than a busy minute: the caller decides.
const MOST_PATIENCE: Duration = Duration::from_secs(600);
/// Characters of a server's message that are passed on.
const MESSAGE: usize = 500;

/// Which server, which model, and how it is asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://host[:port]/v1`: what stands before `/chat/completions`.
    pub base_url: String,
    /// The model's name on that server.
    pub model: String,
    /// Sent as `Authorization: Bearer`, where the server wants one.
    pub key: Option<ApiKey>,
    /// How long one attempt may take, from sending to the last byte of the answer.
    pub timeout: Duration,
    /// Most requests on their way at once, at least 1. A prompt that waits to be asked again counts as one.
    pub concurrency: usize,
    /// Attempts at one prompt in all, at least 1.
    pub attempts: usize,
    /// Whether plain HTTP may leave this machine.
    pub allow_plaintext: bool,
    /// Whether the model does what it is asked.
    pub follows_instructions: bool,
    /// What tokens cost, where that is to be counted.
    pub price: Option<Price>,
}

impl Settings {
    /// Checks what can be checked without sending anything.
    pub(super) fn check(&self) -> Result<Address, Error> {
        if self.concurrency == 0 || self.concurrency > Semaphore::MAX_PERMITS {
            return Err(Error::invalid("[llm] concurrency: at least one request must be allowed at once"));
        }
        if self.attempts == 0 {
            return Err(Error::invalid("[llm] attempts: a prompt must be asked at least once"));
        }
        Address::parse(&self.base_url, self.allow_plaintext)
    }
}

/// A model on a server.
#[derive(Debug)]
pub struct Endpoint {
    settings: Settings,
    address: Address,
    authorization: Option<HeaderValue>,
    transport: Transport,
    permits: Semaphore,
    meter: Meter,
    first_wait: Duration,
    /// The server has refused `json_schema` and taken `json_object`.
    plain_json: AtomicBool,
    /// It has been said that the server does not count.
    told_uncounted: AtomicBool,
}

/// A failed attempt.
struct Failure {
    error: LlmError,
    /// What the server answered, if it did.
    status: Option<StatusCode>,
}

impl From<LlmError> for Failure {
    fn from(error: LlmError) -> Self {
        Self { error, status: None }
    }
}

impl Endpoint {
    /// Prepares the access; nothing is sent yet.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] names the setting that cannot be.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let transport = Transport::new(settings.timeout)?;
        Self::over(settings, transport)
    }

    fn over(settings: Settings, transport: Transport) -> Result<Self, Error> {
        Ok(Self {
            address: settings.check()?,
            authorization: settings.key.as_ref().map(ApiKey::header).transpose()?,
            transport,
            permits: Semaphore::new(settings.concurrency),
            meter: Meter::default(),
            first_wait: FIRST_WAIT,
            plain_json: AtomicBool::new(false),
            told_uncounted: AtomicBool::new(false),
            settings,
        })
    }

    /// Asks until there is an answer, the server refuses for good, or the attempts are used up.
    async fn ask(&self, prompt: &Prompt) -> Result<Completion, LlmError> {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(self.first_wait)
            .with_max_delay(LONGEST_WAIT)
            .with_factor(2.0)
            .with_jitter()
            .with_max_times(self.settings.attempts.saturating_sub(1))
            .build();
        let mut attempt = 1;
        loop {
            let (what, retry_after) = match self.in_either_dialect(prompt).await {
                Err(LlmError::Transient { what, retry_after }) => (what, retry_after),
                settled => return settled,
            };
            let wait = waits.next().filter(|_| retry_after.is_none_or(|asked| asked <= MOST_PATIENCE));
            let Some(wait) = wait else {
                let what = format!("{what} (attempt {attempt} of {})", self.settings.attempts);
                return Err(LlmError::Transient { what, retry_after });
            };
            // On top of what the server asks for, so that those it sent away do not come back in one instant.
            let wait = wait + retry_after.unwrap_or_default();
            tracing::debug!(attempt, ?wait, "asking the language model again: {what}");
            self.meter.retry();
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// One attempt. A server that does not know `json_schema` is asked in the older way, from then on at once.
    async fn in_either_dialect(&self, prompt: &Prompt) -> Result<Completion, LlmError> {
        if self.plain_json.load(Relaxed) {
            return self.attempt(prompt, Dialect::Object).await.map_err(|failure| failure.error);
        }
        let first = match self.attempt(prompt, Dialect::Schema).await {
            Ok(completion) => return Ok(completion),
            Err(failure) => failure,
        };
        let of_form = match first.status {
            Some(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY) => true,
            // `llama_cpp.server` calls a question of a form that it does not know an error of its own, and names the field.
            Some(StatusCode::INTERNAL_SERVER_ERROR) => first.error.to_string().contains("response_format"),
            _ => false,
        };
        if of_form && matches!(prompt.options.format, Format::Json(_)) {
            match self.attempt(prompt, Dialect::Object).await {
                Ok(completion) => {
                    if !self.plain_json.swap(true, Relaxed) {
                        let at = &self.address.base;
                        tracing::info!(
                            "{at} takes no json_schema: JSON is asked for by json_object from now on"
                        );
                    }
                    return Ok(completion);
                }
                Err(second) if second.error.is_transient() => return Err(second.error),
                // Both are refused: the first refusal speaks of what was meant.
                Err(_) => {}
            }
        }
        Err(first.error)
    }

    async fn attempt(&self, prompt: &Prompt, dialect: Dialect) -> Result<Completion, Failure> {
        let body = wire::request(&self.settings.model, prompt, dialect)
            .map_err(|e| LlmError::Refused { what: format!("a prompt cannot be written as JSON: {e}") })?;
        self.meter.request();
        let sent = self.transport.post(&self.address, self.authorization.as_ref(), Bytes::from(body));
        let response = sent.await.map_err(|error| self.clean(error))?;
        if response.status != StatusCode::OK {
            return Err(self.refusal(&response));
        }
        let at = &self.address.base;
        match wire::answer(&response.body) {
            Answer::Completed(completion, counted) => {
                if !counted && !self.told_uncounted.swap(true, Relaxed) {
                    tracing::warn!(
                        "{at} does not say how many tokens it used: totals and costs leave them out"
                    );
                }
                self.meter.used(completion.usage);
                Ok(completion)
            }
            Answer::Declined(words, usage) => {
                self.meter.used(usage);
                let what = format!("the model at {at} declined to answer: {}", self.brief(&words));
                Err(LlmError::Refused { what }.into())
            }
            Answer::Rubbish(why) => {
                let start = self.brief(&String::from_utf8_lossy(&response.body));
                let what =
                    format!("{at}: {why}; base_url must lead to an OpenAI-compatible API. It says: {start}");
                Err(self.clean(LlmError::Rubbish { what }).into())
            }
        }
    }

    /// What a status other than 200 means.
    fn refusal(&self, response: &Response) -> Failure {
        let (at, status) = (&self.address.base, response.status);
        let message = self.brief(&wire::message(&response.body));
        let transient = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY
            );
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; check key_file in [llm]",
            StatusCode::NOT_FOUND => "; check model and base_url in [llm], which mostly ends in /v1",
            _ if status.is_redirection() => {
                "; redirects are not followed: set base_url in [llm] to where the API is"
            }
            _ => "",
        };
        let what = format!("{at} answered {}: {message}{hint}", status.as_u16());
        let error = if transient {
            LlmError::Transient { what, retry_after: response.retry_after }
        } else {
            LlmError::Refused { what }
        };
        Failure { error, status: Some(status) }
    }

    /// Somebody else's words: without the key, on one line, not too long.
    fn brief(&self, text: &str) -> String {
        let text = self.scrub(text.to_owned());
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "");
        if line.is_empty() {
            "(nothing)".clone_into(&mut line);
        }
        match line.char_indices().nth(MESSAGE) {
            Some((at, _)) => format!("{}…", &line[..at]),
            None => line,
        }
    }

    fn scrub(&self, text: String) -> String {
        match &self.settings.key {
            Some(key) => key.scrub(&text),
            None => text,
        }
    }

    fn clean(&self, error: LlmError) -> LlmError {
        match error {
            LlmError::Transient { what, retry_after } => {
                LlmError::Transient { what: self.scrub(what), retry_after }
            }
            LlmError::Refused { what } => LlmError::Refused { what: self.scrub(what) },
            LlmError::Rubbish { what } => LlmError::Rubbish { what: self.scrub(what) },
            LlmError::Cancelled => LlmError::Cancelled,
        }
    }
}

#[tonic::async_trait]
impl Llm for Endpoint {
    /// The model and its server: the same name on another server may be another model, or another quantisation of it.
    fn name(&self) -> String {
        format!("{} at {}", self.settings.model, self.address.base)
    }

    fn concurrency(&self) -> usize {
        self.settings.concurrency
    }

    fn follows_instructions(&self) -> bool {
        self.settings.follows_instructions
    }

    fn totals(&self) -> Totals {
        self.meter.totals(self.settings.price)
    }

    async fn complete(&self, prompt: &Prompt) -> Result<Completion, LlmError> {
        prompt.check()?;
        // Held while waiting too: a server that sends one prompt away should not get another in its place.
        let _permit = self.permits.acquire().await.map_err(|_| LlmError::Cancelled)?;
        self.ask(prompt).await
    }
}
