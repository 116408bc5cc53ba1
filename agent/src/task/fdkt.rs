//! FDKT at the site: tune a generator on the site's texts, write texts with it, learn from the texts of all sites (spec:
//! `sheaf_proto::fdkt`).

pub mod classifier;
mod secure;
pub mod transfer;
mod votes;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use sha2::{Digest as _, Sha256};
use sheaf_data::{Dataset, Source, Split};
use sheaf_models::{LanguageModel, slm::generate, train::Encoded};
use sheaf_proto::{
    afl::{RELEASE_METRICS, RELEASE_STATISTICS},
    fdkt::{
        LABEL, Labelled, RELEASE_SYNTHETIC, SYNTHESISE, SynthesiseSpec, TRANSFER, TransferSpec, VOTE, spoken,
    },
    fedavg::{Head, LoraSpec, Optimizer, RoundSpec, Training},
};
use sheaf_text::to_lines;

use super::{Assignment, Resources, Workload, afl::Afl, fedavg::lora, parse, to_json};
use crate::{
    egress::{Answer, Made, Private},
    error::AgentError,
    models,
};

/// The folder of the generator's adapter among what stays at the site.
const GENERATOR: &str = "generator";
/// Texts written at a time.
const BATCH: usize = 64;

/// The workload.
pub struct Fdkt;

impl Workload for Fdkt {
    fn columns(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError> {
        Afl.columns(assignment)
    }

    fn models(&self, assignment: &Assignment) -> Result<Vec<String>, AgentError> {
        let mut named = Afl.models(assignment)?;
        // A stage of a secure sum runs what its sum is of.
        let phase = base(&assignment.phase);
        match phase {
            SYNTHESISE => named.push(parse::<SynthesiseSpec>(&assignment.spec)?.model),
            TRANSFER => {
                let spec: TransferSpec = parse(&assignment.spec)?;
                named.extend(spec.classifier.map(|classifier| classifier.model));
            }
            _ => {}
        }
        Ok(named)
    }

    fn perform(
        &self,
        assignment: &Assignment,
        source: &Source,
        resources: &Resources<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Answer, AgentError> {
        if let Some(stage) = secure::stage(&assignment.phase) {
            return secure::perform(assignment, stage, source, resources, cancelled);
        }
        let began = Instant::now();
        let (kind, bytes, made) = match assignment.phase.as_str() {
            SYNTHESISE => {
                let (bytes, made) = synthesise(&parse(&assignment.spec)?, source, resources, cancelled)?;
                (RELEASE_SYNTHETIC, bytes, made)
            }
            TRANSFER => {
                let (transfer, made) = transfer::transfer(assignment, source, resources, cancelled)?;
                (RELEASE_METRICS, to_json(&transfer)?, made)
            }
            phase if phase.starts_with(VOTE) => {
                let (votes, made) = votes::vote(assignment, source, resources, cancelled)?;
                (RELEASE_STATISTICS, to_json(&votes)?, made)
            }
            other => {
                return Err(AgentError::Task(format!("fdkt has no phase \"{other}\"; a newer version may")));
            }
        };
        Ok(Answer { kind, bytes: Private::new(bytes), seconds: made.seconds(began), made })
    }
}

/// The phase that a stage of a secure sum belongs to, or the phase itself.
fn base(phase: &str) -> &str {
    sheaf_proto::secure::parse(phase).map_or(phase, |(base, _)| base)
}

/// The control code before a text of a class.
fn control(spec: &SynthesiseSpec, label: &str) -> String {
    spec.control.replace(LABEL, &spoken(label))
}

/// The tokens before a text of a class: an end of text, the control code, a new line. No chat template: its system prompt would
/// double the tokens of a short record.
///
/// # Errors
/// [`AgentError::Task`] for a control code of more than 16 MiB.
pub fn prompt(model: &LanguageModel, control: &str) -> Result<Vec<u32>, AgentError> {
    Ok(model.vocabulary().encode_begun(&format!("{control}\n"))?)
}

/// A text behind such a prompt, as the generator learns it; a longer one is cut.
///
/// # Errors
/// [`AgentError::Task`] for a text of more than 16 MiB.
pub fn encoded(
    model: &LanguageModel,
    prompt: &[u32],
    text: &str,
    max_tokens: usize,
) -> Result<Encoded, AgentError> {
    let text = model.vocabulary().encode_plain(text)?;
    let end = model.vocabulary().ends().first().copied();
    let mut tokens: Vec<u32> = prompt.iter().copied().chain(text).chain(end).collect();
    tokens.truncate(max_tokens);
    Ok(Encoded { tokens, first_target: prompt.len() })
}

/// The training records as token sequences: a control code is given, the text is learnt. Of each the number of its privacy
/// unit. What has no declared class, or no text, is left out without a word.
fn records(
    spec: &SynthesiseSpec,
    dataset: &Dataset,
    unit: &str,
    model: &LanguageModel,
) -> Result<Vec<(usize, Encoded)>, AgentError> {
    let classes = spec.schema.declared.as_ref().map(|d| d.classes.as_slice()).unwrap_or_default();
    let mut prompts = BTreeMap::new();
    for class in classes {
        prompts.insert(class.as_str(), prompt(model, &control(spec, class))?);
    }
    let mut records = Vec::new();
    for (owner, rows) in dataset.units(unit, Split::Train)?.into_iter().enumerate() {
        for (text, label) in dataset.labelled_texts(&rows)? {
            let Some(prompt) = prompts.get(label) else { continue };
            let record = encoded(model, prompt, text, spec.max_tokens)?;
            if record.targets() > 0 {
                records.push((owner, record));
            }
        }
    }
    Ok(records)
}

fn synthesise(
    spec: &SynthesiseSpec,
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Vec<u8>, Made), AgentError> {
    if !spec.control.contains(LABEL) {
        return Err(AgentError::Task(format!("the control code has no {LABEL} in it")));
    }
    let dataset = source.open(&spec.schema, resources.assets)?;
    let unit = spec.privacy.as_ref().map_or(sheaf_data::ROW_UNIT, |privacy| privacy.unit.as_str());
    models::check_hash(&spec.model, Some(&spec.model_sha256))?;
    let model = models::language(&spec.model, resources)?;
    let records = records(spec, &dataset, unit, &model)?;
    let lora_spec = LoraSpec {
        schema: spec.schema.clone(),
        model: spec.model.clone(),
        model_sha256: spec.model_sha256.clone(),
        adapter: spec.adapter.clone(),
        max_tokens: spec.max_tokens,
    };
    let round = RoundSpec {
        round: 1,
        training: Training {
            epochs: spec.tuning.epochs,
            batch: spec.tuning.batch,
            learning_rate: spec.tuning.learning_rate,
            optimizer: Optimizer::AdamW,
            mu: 0.0,
            weight_decay: 0.0,
            seed: spec.tuning.seed,
        },
        max_rows: 0,
        privacy: spec.privacy.clone(),
        head: Head::Lora(lora_spec.clone()),
    };
    resources.tell("tuning");
    let (adapter, made) = lora::tuned(&round, &lora_spec, None, records, resources, cancelled)?;
    if let Some(folder) = resources.kept(GENERATOR)? {
        adapter.save(&folder, &spec.model)?;
    }
    let texts = write(spec, &model, &adapter, &|what| resources.tell(what), cancelled)?;
    Ok((to_lines(&texts).map_err(|e| AgentError::Task(e.to_string()))?, made))
}

/// Writes the texts: of every class the same number, whatever classes the site has. All of it reads the adapter alone, so that it
/// may be told how far it is.
fn write(
    spec: &SynthesiseSpec,
    model: &LanguageModel,
    adapter: &sheaf_models::Adapter,
    tell: &dyn Fn(&str),
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Labelled>, AgentError> {
    let lora = adapter.to_device(model.config(), model.device())?;
    let classes = spec.schema.declared.as_ref().map(|d| d.classes.as_slice()).unwrap_or_default();
    let sampling = generate::Sampling {
        max_tokens: spec.sampling.max_tokens,
        temperature: spec.sampling.temperature,
        top_k: spec.sampling.top_k,
        top_p: spec.sampling.top_p,
        ..generate::Sampling::default()
    };
    // Sites begin with one seed; their texts must differ as their adapters do.
    let own = digest(adapter);
    let mut requests = Vec::new();
    for (number, label) in classes.iter().enumerate() {
        let prompt = prompt(model, &control(spec, label))?;
        for copy in 0..spec.sampling.per_class as u64 {
            // Another draw for every text.
            let place = ((number as u64) << 32) + copy;
            requests.push((prompt.clone(), own.wrapping_add(spec.tuning.seed).wrapping_add(place)));
        }
    }
    let labels = classes.iter().flat_map(|label| std::iter::repeat_n(label, spec.sampling.per_class));
    let mut labels = labels.into_iter();
    let (mut written, mut seen, mut done) = (Vec::new(), BTreeSet::new(), 0);
    for batch in requests.chunks(BATCH) {
        tell(&format!("writing texts, {done} of {}", requests.len()));
        let texts = model.generate_each(Some(&lora), batch, &sampling, cancelled)?;
        for (text, label) in texts.into_iter().zip(&mut labels) {
            let text = text.text.split_whitespace().collect::<Vec<_>>().join(" ");
            // One without a word is no text, however few are asked for: the coordinator would refuse the whole answer.
            let long_enough = text.split_whitespace().count() >= spec.sampling.min_words.max(1);
            if long_enough && seen.insert(text.to_lowercase()) {
                written.push(Labelled { text, label: label.clone() });
            }
        }
        done += batch.len();
    }
    Ok(written)
}

/// Of the adapter alone, so that what follows from it is as private as the adapter.
fn digest(adapter: &sheaf_models::Adapter) -> u64 {
    let values = adapter.tensors.values().flat_map(|tensor| &tensor.data);
    let hash = Sha256::new_with_prefix("sheaf fdkt 1");
    let hash = values.fold(hash, |hash, value| hash.chain_update(value.to_le_bytes())).finalize();
    u64::from_le_bytes(std::array::from_fn(|at| hash[at]))
}

#[cfg(test)]
mod tests;
