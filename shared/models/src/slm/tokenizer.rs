//! Texts to tokens and back: byte-level BPE through the `tokenizers` crate, from a GGUF file's own vocabulary and
//! merges or from a `tokenizer.json`.

use std::{path::Path, sync::Arc};

use tokenizers::{
    AddedToken, PreTokenizerWrapper, Tokenizer,
    models::bpe::BPE,
    pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence},
};

use crate::{
    ModelError,
    weights::gguf::{Gguf, Value},
};

/// Types of tokens in a GGUF file that stand for themselves in a text and are not made by merges.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// Longer texts are refused: the encoder takes many times a text's size of memory.
const MAX_TEXT: usize = 1 << 24;

/// A vocabulary with its rules. Cloning shares it.
#[derive(Clone)]
pub struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    /// The same, but for it marks such as `<|im_end|>` are ordinary text.
    plain: Arc<Tokenizer>,
    size: usize,
    /// Begins a text, where the model wants that.
    begin: Option<u32>,
    /// Ends a text or a turn.
    ends: Vec<u32>,
}

fn refused(reason: impl Into<String>) -> ModelError {
    ModelError::Format { file: "tokenizer".to_owned(), reason: reason.into() }
}

impl Vocabulary {
    /// From a GGUF file.
    ///
    /// # Errors
    /// [`ModelError::Format`] for missing or contradictory lists, [`ModelError::Unsupported`] for a kind of tokenizer
    /// other than byte-level BPE with GPT-2's or SmolLM's splitting.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let unsupported = |what: String| ModelError::Unsupported {
            what,
            reason: "byte-level BPE (\"gpt2\") with the splitting of \"gpt-2\", \"default\" or \"smollm\" is"
                .to_owned(),
        };
        match gguf.text("tokenizer.ggml.model") {
            Some("gpt2") => {}
            other => return Err(unsupported(format!("the tokenizer {other:?}"))),
        }
        let digits = match gguf.text("tokenizer.ggml.pre") {
            Some("smollm") => true,
            None | Some("gpt-2" | "default") => false,
            Some(other) => return Err(unsupported(format!("the splitting \"{other}\" of the tokenizer"))),
        };
        let texts = |key: &str| -> Result<Vec<String>, ModelError> {
            let list = gguf.list(key).ok_or_else(|| gguf.refused(format!("the key {key} is missing")))?;
            list.iter()
                .map(|value| match value {
                    Value::Text(text) => Ok(text.clone()),
                    _ => Err(gguf.refused(format!("{key} holds something else than texts"))),
                })
                .collect()
        };
        let tokens = texts("tokenizer.ggml.tokens")?;
        let merges = texts("tokenizer.ggml.merges")?
            .into_iter()
            .map(|merge| {
                merge
                    .split_once(' ')
                    .map(|(left, right)| (left.to_owned(), right.to_owned()))
                    .ok_or_else(|| gguf.refused(format!("the merge {merge:?} has not two parts")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let vocab: tokenizers::models::bpe::Vocab =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .build()
            .map_err(|e| refused(format!("vocabulary and merges contradict each other: {e}")))?;
        let mut tokenizer = Tokenizer::new(bpe);
        let bytes = ByteLevel::new(false, true, true);
        let split: PreTokenizerWrapper = if digits {
            Sequence::new(vec![Digits::new(true).into(), bytes.into()]).into()
        } else {
            bytes.into()
        };
        tokenizer.with_pre_tokenizer(Some(split));
        tokenizer.with_decoder(Some(bytes));
        let kinds = gguf.list("tokenizer.ggml.token_type").unwrap_or(&[]);
        let special: Vec<_> = tokens
            .iter()
            .zip(kinds)
            .filter(|(_, kind)| {
                let kind = match kind {
                    Value::Int(kind) => *kind as u64,
                    Value::Uint(kind) => *kind,
                    _ => 0,
                };
                kind == CONTROL || kind == USER_DEFINED
            })
            .map(|(token, _)| AddedToken::from(token.clone(), true))
            .collect();
        tokenizer.add_special_tokens(special).map_err(|e| refused(e.to_string()))?;
        let id =
            |key: &str| gguf.uint(key).ok().map(|id| id as u32).filter(|id| (*id as usize) < tokens.len());
        let adds_begin = matches!(gguf.get("tokenizer.ggml.add_bos_token"), Some(Value::Bool(true)));
        let mut ends: Vec<u32> = id("tokenizer.ggml.eos_token_id").into_iter().collect();
        ends.extend(tokenizer.token_to_id("<|endoftext|>"));
        Ok(Self {
            size: tokens.len(),
            begin: id("tokenizer.ggml.bos_token_id").filter(|_| adds_begin),
            ends,
            plain: Arc::new(without_marks(&tokenizer)),
            tokenizer: Arc::new(tokenizer),
        })
    }

    /// From `tokenizer.json` and, where they are, `generation_config.json` and `config.json`, in a folder.
    ///
    /// # Errors
    /// [`ModelError::Format`] for what is no such file.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path).map_err(|e| ModelError::Format {
            file: path.display().to_string(),
            reason: format!("not a tokenizer: {e}"),
        })?;
        let mut ends = Vec::new();
        for name in ["generation_config.json", "config.json"] {
            let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            match &json["eos_token_id"] {
                serde_json::Value::Array(ids) => {
                    ends.extend(ids.iter().filter_map(|id| id.as_u64().map(|id| id as u32)));
                }
                id => ends.extend(id.as_u64().map(|id| id as u32)),
            }
        }
        Ok(Self {
            size: tokenizer.get_vocab_size(true),
            begin: None, // `tokenizer.json` says so itself, in its post-processor
            ends,
            plain: Arc::new(without_marks(&tokenizer)),
            tokenizer: Arc::new(tokenizer),
        })
    }

    /// Tokens there are.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Tokens that end a text or a turn.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The id of a token by its exact text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Tokens of a text; marks such as `<|im_end|>` written out in it count as such. For texts from outside, see
    /// [`Self::encode_plain`].
    ///
    /// # Errors
    /// [`ModelError::Input`] for a text of more than 16 MiB.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let mut ids = Vec::new();
        ids.extend(self.begin);
        ids.extend(encode(&self.tokenizer, text, true)?);
        Ok(ids)
    }

    /// Tokens of a text in which no mark has a meaning: what a record or a user wrote cannot end a turn or begin one.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        encode(&self.plain, text, false)
    }

    /// The same behind the token that begins a text, which is the one that ends the text before it; without one where the model has
    /// none.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_begun(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let begin = self.ends.first().copied();
        Ok(begin.into_iter().chain(self.encode_plain(text)?).collect())
    }

    /// True when a text has a mark in it.
    pub fn has_marks(&self, text: &str) -> bool {
        self.tokenizer.get_added_vocabulary().get_vocab().keys().any(|mark| text.contains(mark.as_str()))
    }

    /// The text of tokens; special tokens are left out. Bytes that are no UTF-8 (half a character) become U+FFFD.
    ///
    /// # Errors
    /// [`ModelError::Format`] when the decoder fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, ModelError> {
        self.tokenizer.decode(tokens, true).map_err(|e| refused(format!("cannot decode: {e}")))
    }
}

fn without_marks(tokenizer: &Tokenizer) -> Tokenizer {
    let mut plain = tokenizer.clone();
    plain.set_encode_special_tokens(true);
    plain
}

fn encode(tokenizer: &Tokenizer, text: &str, whole: bool) -> Result<Vec<u32>, ModelError> {
    if text.len() > MAX_TEXT {
        return Err(ModelError::Input(format!(
            "a text of {} bytes is over the limit of {MAX_TEXT}; cut it into parts",
            text.len()
        )));
    }
    let encoding = tokenizer.encode_fast(text, whole).map_err(|e| refused(format!("cannot encode: {e}")))?;
    Ok(encoding.get_ids().to_vec())
}
