//! Texts to token ids.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::ModelError;

/// A word of WordPiece is at most so many tokens: longer ones are one unknown token.
const WORD: usize = 128;

/// The tokenizer of `tokenizer.json` with a bound on the tokens of a text.
#[derive(Debug)]
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    max_tokens: usize,
}

impl Tokens {
    /// `max_tokens` 0 is what the file says (128 where it says nothing); the model bounds it by `positions`, and ids by
    /// `vocab`.
    pub(crate) fn load(
        path: &Path,
        max_tokens: usize,
        positions: usize,
        vocab: usize,
    ) -> Result<Self, ModelError> {
        let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
        Self::decode(&bytes, &path.display().to_string(), max_tokens, positions, vocab)
    }

    pub(crate) fn decode(
        bytes: &[u8],
        file: &str,
        max_tokens: usize,
        positions: usize,
        vocab: usize,
    ) -> Result<Self, ModelError> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| ModelError::Format {
            file: file.to_owned(),
            reason: format!("not a tokenizer.json ({error}); fetch it again"),
        })?;
        let own = tokenizer.get_truncation().map_or(128, |truncation| truncation.max_length);
        let max_tokens = if max_tokens == 0 { own.min(positions) } else { max_tokens };
        if !(3..=positions).contains(&max_tokens) {
            return Err(ModelError::Config {
                option: "max_tokens",
                reason: format!("{max_tokens} is outside 3 to {positions}, what the model has positions for"),
            });
        }
        if let Some((token, id)) = tokenizer.get_vocab(true).into_iter().find(|&(_, id)| id as usize >= vocab)
        {
            return Err(ModelError::Format {
                file: file.to_owned(),
                reason: format!(
                    "gives the id {id} to {token:?}, but the model has {vocab} words: it is the tokenizer of another model"
                ),
            });
        }
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| ModelError::Format { file: file.to_owned(), reason: error.to_string() })?;
        Ok(Self { tokenizer, max_tokens })
    }

    /// The ids of a text with their first and last special token, cut to `max_tokens`. Only as much of a long text is
    /// looked at as it takes.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let mut length = 1024 + 16 * self.max_tokens;
        loop {
            let head = head(text, length);
            let encoding = self
                .tokenizer
                .encode_fast(head, true)
                .map_err(|error| ModelError::Input(format!("a text cannot be cut into tokens: {error}")))?;
            let ids = encoding.get_ids();
            // The cut may have split a word, which changes the last tokens alone.
            if head.len() < text.len() && ids.len() < self.max_tokens + WORD {
                length *= 2;
                continue;
            }
            let Some(&last) = ids.last() else {
                return Err(ModelError::Input(
                    "the tokenizer gives no token, not even for the start".to_owned(),
                ));
            };
            let mut ids = ids.to_vec();
            if ids.len() > self.max_tokens {
                ids.truncate(self.max_tokens - 1);
                ids.push(last);
            }
            return Ok(ids);
        }
    }
}

/// The first `length` bytes or a few less, up to a character.
fn head(text: &str, length: usize) -> &str {
    &text[..text.floor_char_boundary(length)]
}
