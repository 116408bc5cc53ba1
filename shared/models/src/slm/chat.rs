//! Chat templates: the Jinja text that a model's file carries, which makes one prompt of a conversation.

use std::{path::Path, sync::Arc};

use minijinja::{Environment, Value, context, syntax::SyntaxConfig};
use serde::{Deserialize, Serialize};

use super::tokenizer::Vocabulary;
use crate::ModelError;

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// "system", "user" or "assistant".
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".to_owned(), content: content.into() }
    }

    /// What the model is told to be.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system".to_owned(), content: content.into() }
    }
}

/// A compiled template. Cloning shares it.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`ModelError::Format`] for what is no Jinja.
    pub fn new(source: &str) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        // As the templates' authors assume: `transformers` renders with both.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| refused(&e))?);
        // A template comes with a model from elsewhere: it may not run for ever.
        environment.set_fuel(Some(1_000_000));
        environment.add_template_owned("chat", source.to_owned()).map_err(|e| refused(&e))?;
        Ok(Self { environment: Arc::new(environment) })
    }

    /// The template of a folder as `transformers` saves it, if there is one.
    ///
    /// # Errors
    /// [`ModelError::Format`] for what is no Jinja.
    pub fn from_folder(folder: &Path) -> Result<Option<Self>, ModelError> {
        if let Ok(source) = std::fs::read_to_string(folder.join("chat_template.jinja")) {
            return Self::new(&source).map(Some);
        }
        let text = std::fs::read_to_string(folder.join("tokenizer_config.json")).unwrap_or_default();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        json["chat_template"].as_str().map(Self::new).transpose()
    }

    /// The prompt of a conversation, up to where the assistant speaks.
    ///
    /// # Errors
    /// [`ModelError::Format`] when the template refuses the conversation.
    pub fn render(&self, messages: &[Message]) -> Result<String, ModelError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        let template = self.environment.get_template("chat").map_err(|e| refused(&e))?;
        template
            .render(context! { messages, add_generation_prompt => true, bos_token => "", eos_token => "" })
            .map_err(|e| refused(&e))
    }
}

impl ChatTemplate {
    /// The prompt of a conversation as tokens. Marks such as `<|im_end|>` that stand in what was said are ordinary text:
    /// nobody can end a turn or speak as another by writing them.
    ///
    /// # Errors
    /// As [`Self::render`] and [`Vocabulary::encode`].
    pub fn encode(&self, messages: &[Message], vocabulary: &Vocabulary) -> Result<Vec<u32>, ModelError> {
        if !messages.iter().any(|message| vocabulary.has_marks(&message.content)) {
            return vocabulary.encode(&self.render(messages)?);
        }
        // Rendered with a stand-in for each content, which is then encoded apart.
        let stand_in = |index: usize| format!("\u{e000}{index}\u{e001}");
        let standing: Vec<Message> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| Message { role: message.role.clone(), content: stand_in(index) })
            .collect();
        let rendered = self.render(&standing)?;
        let (mut rest, mut tokens) = (rendered.as_str(), Vec::new());
        for (index, message) in messages.iter().enumerate() {
            // A template may leave a turn out.
            let Some((before, after)) = rest.split_once(&stand_in(index)) else { continue };
            tokens.extend(vocabulary.encode(before)?);
            tokens.extend(vocabulary.encode_plain(&message.content)?);
            rest = after;
        }
        tokens.extend(vocabulary.encode(rest)?);
        Ok(tokens)
    }
}

fn refused(error: &minijinja::Error) -> ModelError {
    ModelError::Format { file: "chat template".to_owned(), reason: error.to_string() }
}
