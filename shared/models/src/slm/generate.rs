//! Sampling: temperature, top-k, top-p, repetition penalty, stop texts; one sequence or many at once.

use std::ops::ControlFlow;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{LanguageModel, decode::Decoder};
use crate::{ModelError, kernels, lora::LoraWeights};

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
        let mut all = self.write(adapter, &[(prompt, 1)], sampling, &mut |_, text| on_text(text))?;
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
        let prompts: Vec<_> = prompts.iter().map(|prompt| (prompt.as_slice(), copies)).collect();
        self.write(adapter, &prompts, sampling, &mut |_, _| ControlFlow::Continue(()))
    }

    fn write(
        &self,
        adapter: Option<&LoraWeights>,
        prompts: &[(&[u32], usize)],
        sampling: &Sampling,
        on_text: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<Vec<Generation>, ModelError> {
        sampling.check()?;
        let longest = prompts.iter().map(|(prompt, _)| prompt.len()).max().unwrap_or(0);
        let positions = longest.saturating_add(sampling.max_tokens).min(self.config.max_positions);
        let mut decoder = Decoder::new(self, adapter, positions)?;
        let mut writers = Vec::new();
        for (prompt, copies) in prompts {
            let logits = decoder.begin(prompt)?;
            decoder.fork(*copies);
            for _ in 0..*copies {
                let mut random = ChaCha8Rng::seed_from_u64(sampling.seed);
                random.set_stream(writers.len() as u64);
                let mut writer =
                    Writer { seen: prompt.to_vec(), tokens: Vec::new(), random, told: 0, finished: None };
                writer.advance(self, &mut logits.clone(), sampling)?;
                writers.push(writer);
            }
        }
        self.tell(&mut writers, sampling, on_text)?;
        loop {
            let open: Vec<usize> =
                (0..writers.len()).filter(|index| writers[*index].finished.is_none()).collect();
            if open.is_empty() {
                break;
            }
            let full = open.iter().copied().filter(|index| writers[*index].seen.len() >= positions);
            let full: Vec<usize> = full.collect();
            if !full.is_empty() {
                for index in full {
                    writers[index].finish(self, Finish::Length)?;
                }
                continue;
            }
            let last: Vec<u32> =
                open.iter().filter_map(|index| writers[*index].seen.last().copied()).collect();
            let mut logits = decoder.step(&open, &last)?;
            for (index, logits) in open.iter().zip(logits.chunks_exact_mut(self.config.vocab)) {
                writers[*index].advance(self, logits, sampling)?;
            }
            self.tell(&mut writers, sampling, on_text)?;
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
        on_text: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
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
                    writer.finish(self, Finish::Cancelled)?;
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

impl Writer {
    /// Draws the next token and looks whether the text has ended.
    fn advance(
        &mut self,
        model: &LanguageModel,
        logits: &mut [f32],
        sampling: &Sampling,
    ) -> Result<(), ModelError> {
        let token = draw(logits, &self.seen, sampling, &mut self.random)?;
        self.tokens.push(token);
        self.seen.push(token);
        if model.vocabulary.ends().contains(&token) {
            return self.finish(model, Finish::Stop);
        }
        if !sampling.stop.is_empty() {
            let text = model.vocabulary.decode(&self.tokens)?;
            let first = sampling.stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
            if let Some(at) = first {
                self.finished = Some((Finish::Stop, text[..at].to_owned()));
                return Ok(());
            }
        }
        if self.tokens.len() >= sampling.max_tokens {
            return self.finish(model, Finish::Length);
        }
        Ok(())
    }

    fn finish(&mut self, model: &LanguageModel, finish: Finish) -> Result<(), ModelError> {
        self.finished = Some((finish, model.vocabulary.decode(&self.tokens)?));
        Ok(())
    }
}

/// Draws one token from logits, which are changed on the way.
fn draw(
    logits: &mut [f32],
    seen: &[u32],
    sampling: &Sampling,
    random: &mut impl Rng,
) -> Result<u32, ModelError> {
    if sampling.repetition_penalty != 1.0 {
        let penalty = sampling.repetition_penalty as f32;
        let mut seen: Vec<u32> = seen.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            let logit = &mut logits[token as usize];
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err(ModelError::Diverged(
            "the model's output is not a number; its weights are damaged".to_owned(),
        ));
    }
    let best = |logits: &[f32]| {
        let mut best = 0;
        for (token, logit) in logits.iter().enumerate() {
            if *logit > logits[best] {
                best = token;
            }
        }
        best as u32
    };
    if sampling.temperature == 0.0 {
        return Ok(best(logits));
    }
    let descending = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let mut candidates: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
    let count = if sampling.top_k == 0 { candidates.len() } else { sampling.top_k.min(candidates.len()) };
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, descending);
        candidates.truncate(count);
    }
    candidates.sort_unstable_by(descending);
    let mut p: Vec<f32> = candidates.iter().map(|(logit, _)| *logit).collect();
    kernels::softmax(&mut p, (1.0 / sampling.temperature) as f32);
    let mut mass = 0.0;
    let kept = p.iter().position(|p| {
        mass += f64::from(*p);
        mass >= sampling.top_p
    });
    let kept = kept.map_or(p.len(), |last| last + 1);
    let total: f64 = p[..kept].iter().map(|p| f64::from(*p)).sum();
    let mut at = random.random::<f64>() * total;
    for (p, (_, token)) in p[..kept].iter().zip(&candidates) {
        at -= f64::from(*p);
        if at <= 0.0 {
            return Ok(*token);
        }
    }
    Ok(candidates[kept - 1].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(logits: &[f32], seen: &[u32], sampling: &Sampling) -> Vec<u32> {
        let mut random = ChaCha8Rng::seed_from_u64(sampling.seed);
        (0..500).map(|_| draw(&mut logits.to_vec(), seen, sampling, &mut random).unwrap()).collect()
    }

    #[test]
    fn options_narrow_the_draw() {
        let logits = [1.0, 3.0, 2.0, -1.0];
        let plain = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, ..Sampling::default() };
        let all = drawn(&logits, &[], &plain);
        assert!((0..4).all(|token| all.contains(&token)));
        // p = 0.09, 0.66, 0.24, 0.01
        let share = all.iter().filter(|token| **token == 1).count() as f64 / 500.0;
        assert!((0.58..0.74).contains(&share), "{share}");
        let greedy = Sampling { temperature: 0.0, ..plain.clone() };
        assert!(drawn(&logits, &[], &greedy).iter().all(|token| *token == 1));
        let two = Sampling { top_k: 2, ..plain.clone() };
        assert!(drawn(&logits, &[], &two).iter().all(|token| [1, 2].contains(token)));
        let half = Sampling { top_p: 0.5, ..plain.clone() };
        assert!(drawn(&logits, &[], &half).iter().all(|token| *token == 1));
        let penalty = Sampling { repetition_penalty: 10.0, temperature: 0.0, ..plain.clone() };
        assert!(drawn(&logits, &[1, 1], &penalty).iter().all(|token| *token == 2));
        assert_eq!(drawn(&logits, &[], &plain), all, "a seed repeats the draw");
        assert!(draw(&mut [f32::NAN, 0.0], &[], &plain, &mut ChaCha8Rng::seed_from_u64(1)).is_err());
    }

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
