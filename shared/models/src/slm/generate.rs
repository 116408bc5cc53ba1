//! Sampling: temperature, top-k, top-p, repetition penalty, stop texts; one sequence or many at once.

use std::ops::ControlFlow;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{LanguageModel, decode::Decoder, draw::draw, tokenizer::Vocabulary};
use crate::{ModelError, lora::LoraWeights};

/// Tokens of prompts that are run at a time, padding included.
const PROMPT_TOKENS: usize = 1024;

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// Tokens to write at most.
    pub max_tokens: usize,
    /// 0 takes the likeliest token always.
    pub temperature: f64,
    /// Draw among so many likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Draw among the likeliest tokens that together have this probability (Holtzman et al. 2020, arXiv 1904.09751).
    pub top_p: f64,
    /// Logits of tokens seen before are divided by this when positive, multiplied when negative (Keskar et al. 2019,
    /// arXiv 1909.05858); 1 for none.
    pub repetition_penalty: f64,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Of the draw: the same seed gives the same text on the same machine.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            temperature: 0.7,
            top_k: 50,
            top_p: 0.95,
            repetition_penalty: 1.0,
            stop: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// # Errors
    /// [`ModelError::Config`] for a value outside its range.
    pub fn check(&self) -> Result<(), ModelError> {
        let refused = |option, reason: &str| Err(ModelError::Config { option, reason: reason.to_owned() });
        if self.max_tokens == 0 {
            return refused("max_tokens", "must be at least 1");
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refused("temperature", "must be 0 or more");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refused("top_p", "must be above 0 and at most 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return refused("repetition_penalty", "must be positive");
        }
        if self.stop.iter().any(String::is_empty) {
            return refused("stop", "an empty text would end every answer");
        }
        Ok(())
    }
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended it, or a stop text came.
    Stop,
    /// `max_tokens` were written, or the model has no more positions.
    Length,
    /// The caller wanted no more.
    Cancelled,
}

/// A written text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Without special tokens and stop texts.
    pub text: String,
    /// Tokens written, the ending one included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
}

/// One text that is asked for.
struct Request<'a> {
    prompt: &'a [u32],
    random: ChaCha8Rng,
}

/// Told of a text's number and what is certain of it; may break, which ends the text.
type Listener<'a> = &'a mut dyn FnMut(usize, &str) -> ControlFlow<()>;

/// One text that is being written.
struct Writer {
    seen: Vec<u32>,
    tokens: Vec<u32>,
    random: ChaCha8Rng,
    /// What has been handed out, in bytes of the decoded text.
    told: usize,
    finished: Option<(Finish, String)>,
}

impl LanguageModel {
    /// Writes one text after `prompt`, handing out pieces as they are decided.
    ///
    /// # Errors
    /// [`ModelError::Config`] for options, [`ModelError::Input`] for an empty or over-long prompt.
    pub fn generate(
        &self,
        adapter: Option<&LoraWeights>,
        prompt: &[u32],
        sampling: &Sampling,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation, ModelError> {
        let requests = vec![Request { prompt, random: ChaCha8Rng::seed_from_u64(sampling.seed) }];
        let mut all =
            self.write(adapter, requests, sampling, Some(&mut |_, text| on_text(text)), &|| false)?;
        all.pop().ok_or_else(|| ModelError::Input("nothing was to be generated".to_owned()))
    }

    /// Writes `copies` texts for each prompt, all at once: a step over many sequences reads the weights once. Texts come
    /// in the order of the prompts, each prompt's copies together.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_batch(
        &self,
        adapter: Option<&LoraWeights>,
        prompts: &[Vec<u32>],
        copies: usize,
        sampling: &Sampling,
    ) -> Result<Vec<Generation>, ModelError> {
        let texts = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, copies));
        let request = |(stream, prompt)| {
            let mut random = ChaCha8Rng::seed_from_u64(sampling.seed);
            random.set_stream(stream);
            Request { prompt, random }
        };
        let requests = (0..).zip(texts.map(Vec::as_slice)).map(request).collect();
        self.write(adapter, requests, sampling, None, &|| false)
    }

    /// Writes a text for each prompt, all at once, drawn from a seed of its own (`sampling.seed` is not looked at): but for the
    /// rounding of sums a text does not depend on which others are written beside it. Equal prompts that stand in a row are run
    /// once. `cancelled` is asked at every token.
    ///
    /// # Errors
    /// As [`Self::generate`]; [`ModelError::Stopped`] when cancelled.
    pub fn generate_each(
        &self,
        adapter: Option<&LoraWeights>,
        requests: &[(Vec<u32>, u64)],
        sampling: &Sampling,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Generation>, ModelError> {
        let each = requests
            .iter()
            .map(|(prompt, seed)| Request { prompt, random: ChaCha8Rng::seed_from_u64(*seed) })
            .collect();
        self.write(adapter, each, sampling, None, cancelled)
    }

    fn write(
        &self,
        adapter: Option<&LoraWeights>,
        requests: Vec<Request<'_>>,
        sampling: &Sampling,
        mut on_text: Option<Listener<'_>>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Generation>, ModelError> {
        sampling.check()?;
        let longest = requests.iter().map(|request| request.prompt.len()).max().unwrap_or(0);
        let positions = longest.saturating_add(sampling.max_tokens).min(self.config.max_positions);
        let mut decoder = Decoder::new(self, adapter, positions)?;
        let runs = requests.chunk_by(|a, b| a.prompt == b.prompt);
        let prompts: Vec<(&[u32], usize)> = runs.map(|run| (run[0].prompt, run.len())).collect();
        let mut writers: Vec<Writer> = requests.into_iter().map(Writer::new).collect();
        let (vocabulary, vocab) = (&self.vocabulary, self.config.vocab);
        let advance = |rows: Vec<(&mut Writer, &[f32])>| {
            rows.into_par_iter().try_for_each(|(writer, row)| writer.advance(vocabulary, row, sampling))
        };
        let (mut rest, mut begun) = (prompts.as_slice(), 0);
        while !rest.is_empty() {
            stop_if(cancelled)?;
            let (now, later) = rest.split_at(side_by_side(rest));
            let logits = decoder.begin_all(now)?;
            let rows = logits.chunks_exact(vocab).zip(now);
            let rows = rows.flat_map(|(row, (_, copies))| std::iter::repeat_n(row, *copies));
            advance(writers[begun..].iter_mut().zip(rows).collect())?;
            begun += now.iter().map(|(_, copies)| copies).sum::<usize>();
            rest = later;
        }
        loop {
            for writer in writers.iter_mut().filter(|writer| writer.is_open()) {
                if writer.seen.len() >= positions {
                    writer.finish(vocabulary, Finish::Length)?;
                }
            }
            if let Some(on_text) = &mut on_text {
                self.tell(&mut writers, sampling, *on_text)?;
            }
            let open: Vec<usize> = (0..writers.len()).filter(|index| writers[*index].is_open()).collect();
            if open.is_empty() {
                break;
            }
            stop_if(cancelled)?;
            let last: Vec<u32> =
                open.iter().filter_map(|index| writers[*index].seen.last().copied()).collect();
            let logits = decoder.step(&open, &last)?;
            let writing = writers.iter_mut().filter(|writer| writer.is_open());
            advance(writing.zip(logits.chunks_exact(vocab)).collect())?;
        }
        let done = writers.into_iter().map(|writer| {
            let (finish, text) = writer.finished.unwrap_or((Finish::Length, String::new()));
            Generation { text, tokens: writer.tokens, finish }
        });
        Ok(done.collect())
    }

    /// Hands out what is certain of each text: no half characters, and nothing that could yet be a stop text.
    fn tell(
        &self,
        writers: &mut [Writer],
        sampling: &Sampling,
        on_text: Listener<'_>,
    ) -> Result<(), ModelError> {
        for (index, writer) in writers.iter_mut().enumerate() {
            let (text, certain) = if let Some((_, text)) = &writer.finished {
                (text.clone(), text.len())
            } else {
                let text = self.vocabulary.decode(&writer.tokens)?;
                let certain = certain_length(&text, &sampling.stop);
                (text, certain)
            };
            if let Some(piece) = text.get(writer.told..certain).filter(|piece| !piece.is_empty()) {
                writer.told = certain;
                if on_text(index, piece).is_break() && writer.finished.is_none() {
                    writer.finish(&self.vocabulary, Finish::Cancelled)?;
                }
            }
        }
        Ok(())
    }
}

/// How much of a text can be shown: not a character that may be incomplete, not the beginning of a stop text.
fn certain_length(text: &str, stop: &[String]) -> usize {
    let whole = text.trim_end_matches('\u{fffd}').len();
    let held = stop.iter().filter_map(|stop| {
        (1..=stop.len().min(whole))
            .filter(|length| text.as_bytes()[..whole].ends_with(&stop.as_bytes()[..*length]))
            .max()
    });
    let mut certain = whole - held.max().unwrap_or(0);
    while !text.is_char_boundary(certain) {
        certain -= 1;
    }
    certain
}

/// # Errors
/// [`ModelError::Stopped`] when cancelled.
fn stop_if(cancelled: &dyn Fn() -> bool) -> Result<(), ModelError> {
    if cancelled() { Err(ModelError::Stopped) } else { Ok(()) }
}

/// How many of the next prompts are run at once; at least one.
fn side_by_side(prompts: &[(&[u32], usize)]) -> usize {
    let mut longest = 0;
    let fits = |(before, (prompt, _)): &(usize, &(&[u32], usize))| {
        longest = longest.max(prompt.len());
        (before + 1) * longest <= PROMPT_TOKENS
    };
    prompts.iter().enumerate().take_while(fits).count().max(1)
}

impl Writer {
    fn new(request: Request<'_>) -> Self {
        let Request { prompt, random } = request;
        Self { seen: prompt.to_vec(), tokens: Vec::new(), random, told: 0, finished: None }
    }

    const fn is_open(&self) -> bool {
        self.finished.is_none()
    }

    /// Draws the next token and looks whether the text has ended.
    fn advance(
        &mut self,
        vocabulary: &Vocabulary,
        logits: &[f32],
        sampling: &Sampling,
    ) -> Result<(), ModelError> {
        let token = draw(logits, &self.seen, sampling, &mut self.random)?;
        self.tokens.push(token);
        self.seen.push(token);
        if vocabulary.ends().contains(&token) {
            return self.finish(vocabulary, Finish::Stop);
        }
        if !sampling.stop.is_empty() {
            let text = vocabulary.decode(&self.tokens)?;
            let first = sampling.stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
            if let Some(at) = first {
                self.finished = Some((Finish::Stop, text[..at].to_owned()));
                return Ok(());
            }
        }
        if self.tokens.len() >= sampling.max_tokens {
            return self.finish(vocabulary, Finish::Length);
        }
        Ok(())
    }

    fn finish(&mut self, vocabulary: &Vocabulary, finish: Finish) -> Result<(), ModelError> {
        self.finished = Some((finish, vocabulary.decode(&self.tokens)?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_uncertain_is_shown() {
        let stop = vec!["END".to_owned()];
        assert_eq!(certain_length("abc", &stop), 3);
        assert_eq!(certain_length("abcE", &stop), 3);
        assert_eq!(certain_length("abcEN", &stop), 3);
        assert_eq!(certain_length("abcENT", &stop), 6);
        assert_eq!(certain_length("ab\u{fffd}", &[]), 2);
    }
}
