//! The models of a coordinator's own process: an encoder of texts, and the embedded language model behind [`Llm`].

mod adapted;

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use sheaf_agent::{features, models, task::Resources};
use sheaf_coordinator::{
    error::Error,
    llm::{Completion, Finish, Form, Llm, LlmError, Prompt, Totals, Usage, totals::Meter},
    models::{LocalModels, adapted::AdaptedModels},
};
use sheaf_data::{AssetStore, Backbone, catalogue::Catalogue};
use sheaf_models::{
    DeviceChoice, LanguageModel, ModelError,
    slm::{
        chat::Message,
        generate::{self, Sampling},
    },
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The embedded language model where none is named.
pub(crate) const DEFAULT: &str = "smollm2-135m";
/// Texts written at once.
const BATCH: usize = 64;
/// How long a batch waits for more prompts.
const GATHER: Duration = Duration::from_millis(20);

/// Where models are, and what they are computed on.
#[derive(Clone)]
struct Local {
    assets: Arc<AssetStore>,
    cache: PathBuf,
    device: DeviceChoice,
}

/// Models on this machine.
pub(crate) struct BuiltIn(Local);

impl BuiltIn {
    pub(crate) fn new(assets: AssetStore) -> Self {
        let cache = assets.cache().to_owned();
        Self(Local { assets: Arc::new(assets), cache, device: DeviceChoice::Auto })
    }
}

impl LocalModels for BuiltIn {
    fn language(&self, name: Option<&str>) -> Result<Arc<dyn Llm>, Error> {
        let name = name.unwrap_or(DEFAULT);
        let invalid = |e: &dyn std::fmt::Display| Error::invalid(format!("[llm] model: {e}"));
        let catalogue = Catalogue::known().map_err(|e| invalid(&e))?;
        let sha256 = catalogue.model(name).map_err(|e| invalid(&e))?.sha256();
        let Local { assets, cache, device } = self.0.clone();
        let model = name.to_owned();
        let load = move || {
            models::language(&model, &Resources::new(&assets, &cache, None, device))
                .map_err(|e| e.to_string())
        };
        Ok(Arc::new(Embedded::start(format!("{name} ({})", &sha256[..12]), Box::new(load))))
    }

    fn embed(
        &self,
        encoder: &Backbone,
        texts: &[&str],
        stop: &CancellationToken,
    ) -> Result<(usize, Vec<f32>), Error> {
        let resources = Resources::new(&self.0.assets, &self.0.cache, None, self.0.device);
        features::embed(texts, encoder, &resources, &|| stop.is_cancelled())
            .map_err(|e| Error::invalid(format!("encoder {}: {e}", encoder.model)))
    }

    fn adapted(&self) -> Result<Arc<dyn AdaptedModels>, Error> {
        Ok(Arc::new(adapted::WithAdapters(self.0.clone())))
    }
}

type Load = Box<dyn FnOnce() -> Result<Arc<LanguageModel>, String> + Send>;

/// A prompt on its way to the thread that writes.
struct Request {
    prompt: Prompt,
    answer: oneshot::Sender<Result<Completion, LlmError>>,
}

/// A language model of this process. It is loaded at the first prompt, and writes for many prompts at once.
struct Embedded {
    name: String,
    requests: mpsc::Sender<Request>,
    meter: Meter,
}

impl Embedded {
    fn start(name: String, load: Load) -> Self {
        let (sender, receiver) = mpsc::channel();
        // It ends when the last sender is dropped.
        std::thread::spawn(move || serve(load, &receiver));
        Self { name, requests: sender, meter: Meter::default() }
    }
}

#[tonic::async_trait]
impl Llm for Embedded {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn concurrency(&self) -> usize {
        2 * BATCH
    }

    fn follows_instructions(&self) -> bool {
        false
    }

    fn totals(&self) -> Totals {
        self.meter.totals(None)
    }

    async fn complete(&self, prompt: &Prompt) -> Result<Completion, LlmError> {
        prompt.check()?;
        let (answer, answered) = oneshot::channel();
        let gone = || LlmError::Refused { what: "the embedded language model has ended".to_owned() };
        self.meter.request();
        let request = Request { prompt: prompt.clone(), answer };
        self.requests.send(request).map_err(|_| gone())?;
        let completion = answered.await.map_err(|_| gone())??;
        self.meter.used(completion.usage);
        Ok(completion)
    }
}

/// Answers prompts in batches until nobody can ask any more.
fn serve(load: Load, requests: &mpsc::Receiver<Request>) {
    let Ok(first) = requests.recv() else { return };
    let model = load();
    let mut waiting = vec![first];
    loop {
        while waiting.len() < BATCH
            && let Ok(request) = requests.recv_timeout(GATHER)
        {
            waiting.push(request);
        }
        waiting.retain(|request| !request.answer.is_closed());
        if let Some(first) = waiting.first() {
            // One batch has one way of drawing.
            let how = drawing(&first.prompt);
            let (batch, others): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|request| drawing(&request.prompt) == how);
            waiting = others;
            answer(&model, &how, batch);
        }
        if waiting.is_empty() {
            match requests.recv() {
                Ok(request) => waiting.push(request),
                Err(_) => return,
            }
        }
    }
}

/// How a prompt's answer is drawn, but for its seed.
fn drawing(prompt: &Prompt) -> Sampling {
    Sampling {
        max_tokens: prompt.options.max_tokens as usize,
        temperature: prompt.options.temperature,
        top_p: prompt.options.top_p,
        stop: prompt.options.stop.iter().cloned().collect(),
        ..Sampling::default()
    }
}

fn answer(model: &Result<Arc<LanguageModel>, String>, how: &Sampling, batch: Vec<Request>) {
    let model = match model {
        Ok(model) => model,
        Err(problem) => {
            let refused = || LlmError::Refused { what: format!("the embedded language model: {problem}") };
            return batch.into_iter().for_each(|request| drop(request.answer.send(Err(refused()))));
        }
    };
    let mut requests = Vec::with_capacity(batch.len());
    let mut asked = Vec::with_capacity(batch.len());
    for request in batch {
        match tokens(model, &request.prompt) {
            Ok(tokens) => {
                requests.push((tokens, request.prompt.seed().unwrap_or_default()));
                asked.push(request);
            }
            Err(error) => drop(request.answer.send(Err(refused(&error)))),
        }
    }
    let unwanted = || asked.iter().all(|request| request.answer.is_closed());
    match model.generate_each(None, &requests, how, &unwanted) {
        Ok(texts) => {
            for ((request, (prompt, _)), text) in asked.into_iter().zip(&requests).zip(texts) {
                drop(request.answer.send(Ok(completion(prompt.len(), text))));
            }
        }
        Err(error) => asked.into_iter().for_each(|request| drop(request.answer.send(Err(refused(&error))))),
    }
}

fn refused(error: &ModelError) -> LlmError {
    match error {
        ModelError::Stopped => LlmError::Cancelled,
        other => LlmError::Refused { what: format!("the embedded language model: {other}") },
    }
}

fn tokens(model: &LanguageModel, prompt: &Prompt) -> Result<Vec<u32>, ModelError> {
    let vocabulary = model.vocabulary();
    if let (Form::Ask, Some(chat)) = (prompt.form, model.chat()) {
        let system = prompt.system.as_deref().map(Message::system);
        let messages: Vec<_> = system.into_iter().chain([Message::user(&prompt.user)]).collect();
        return chat.encode(&messages, vocabulary);
    }
    // What a base model is given begins a text.
    vocabulary.encode_begun(&prompt.user)
}

fn completion(prompt_tokens: usize, text: generate::Generation) -> Completion {
    let finish = match text.finish {
        generate::Finish::Stop => Finish::Stop,
        generate::Finish::Length => Finish::Length,
        generate::Finish::Cancelled => Finish::Other("cancelled".to_owned()),
    };
    let usage = Usage { prompt_tokens: prompt_tokens as u64, completion_tokens: text.tokens.len() as u64 };
    Completion { text: text.text, usage, finish }
}
