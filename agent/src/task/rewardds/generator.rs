//! The generation proxy at a site (spec C1): an adapter tuned on control code, query and response.

use sheaf_data::{Dataset, Dialogue, Source, Split};
use sheaf_models::{LanguageModel, ModelError, train::Encoded};
use sheaf_proto::{
    fdkt::{LABEL, Tuning},
    fedavg::{LoraSpec, Optimizer, Parameters, RoundSpec, Training},
    rewardds::{Exchange, Generator, GeneratorSpec, Round, control},
};

use super::{
    super::{Resources, fedavg::lora, parameters::sent},
    language,
};
use crate::{egress::Made, error::AgentError, models};

/// The folder of the generation proxy among what stays at the site.
pub(super) const KEPT: &str = "generator";

/// A record under its control code; none where it has no response, or no class that the code could name.
pub(super) fn exchange(generator: &Generator, classes: &[String], record: Dialogue<'_>) -> Option<Exchange> {
    let control = if generator.control.contains(LABEL) {
        let label = record.label.filter(|label| classes.iter().any(|class| class == label))?;
        control(&generator.control, label)
    } else {
        generator.control.clone()
    };
    Some(Exchange { control, query: record.query.to_owned(), response: record.response.to_owned() })
}

/// Longest text of a record that is read, bytes: of a longer one nothing is, since a model's refusal would tell that it is there.
const LONGEST: usize = 1 << 20;

/// A row as query and response; none where it has no response or is far too long.
pub(super) fn readable(dataset: &Dataset, row: usize) -> Option<Dialogue<'_>> {
    dataset.dialogue(row).filter(|record| record.query.len().max(record.response.len()) <= LONGEST)
}

/// The declared classes of a schema.
pub(super) fn classes(schema: &sheaf_data::Schema) -> &[String] {
    schema.declared.as_ref().map(|declared| declared.classes.as_slice()).unwrap_or_default()
}

/// The training records of each privacy unit, with the unit's number. What cannot be used is left out without a word: that it is
/// there is private.
pub(super) fn exchanges(
    generator: &Generator,
    schema: &sheaf_data::Schema,
    dataset: &Dataset,
    unit: &str,
) -> Result<Vec<(usize, Exchange)>, AgentError> {
    // Data of another kind are a mistake in the plan.
    dataset.dialogues(&[])?;
    let mut all = Vec::new();
    for (owner, rows) in dataset.units(unit, Split::Train)?.into_iter().enumerate() {
        let records = rows.into_iter().filter_map(|row| readable(dataset, row));
        let records = records.filter_map(|record| exchange(generator, classes(schema), record));
        all.extend(records.map(|exchange| (owner, exchange)));
    }
    Ok(all)
}

/// The unit that a round protects.
pub(super) fn unit(round: &Round) -> &str {
    round.privacy.as_ref().map_or(sheaf_data::ROW_UNIT, |privacy| privacy.unit.as_str())
}

/// The round as a tuning of an adapter.
fn round_spec(spec: &GeneratorSpec) -> (RoundSpec, LoraSpec) {
    let Generator { model, model_sha256, adapter, max_tokens, .. } = &spec.generator;
    let lora = LoraSpec {
        schema: spec.schema.clone(),
        model: model.clone(),
        model_sha256: model_sha256.clone(),
        adapter: adapter.clone(),
        max_tokens: *max_tokens,
    };
    let Tuning { epochs, batch, learning_rate, seed } = spec.tuning;
    let training = Training {
        epochs,
        batch,
        learning_rate,
        optimizer: Optimizer::AdamW,
        mu: 0.0,
        weight_decay: 0.0,
        seed,
    };
    let Round { round, max_rows, privacy } = spec.round.clone();
    let head = sheaf_proto::fedavg::Head::Lora(lora.clone());
    (RoundSpec { round, training, max_rows, privacy, head }, lora)
}

fn records(
    model: &LanguageModel,
    spec: &GeneratorSpec,
    dataset: &Dataset,
) -> Result<Vec<(usize, Encoded)>, AgentError> {
    let mut records = Vec::new();
    for (owner, exchange) in exchanges(&spec.generator, &spec.schema, dataset, unit(&spec.round))? {
        match language::encoded(model, &spec.generator, &exchange, true) {
            Ok(record) if record.targets() > 0 => records.push((owner, record)),
            Ok(_) | Err(ModelError::Input(_)) => {}
            Err(error) => return Err(language::failed(error)),
        }
    }
    Ok(records)
}

/// One round: the proxy's parameters after it, and the number of records where that may be told.
pub(super) fn train(
    spec: &GeneratorSpec,
    start: &[u8],
    source: &Source,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Parameters, Made), AgentError> {
    let dataset = source.open(&spec.schema, resources.assets)?;
    models::check_hash(&spec.generator.model, Some(&spec.generator.model_sha256))?;
    let model = models::language(&spec.generator.model, resources)?;
    language::check_limits(&model, spec.generator.max_tokens, spec.generator.answer_tokens)?;
    let records = records(&model, spec, &dataset)?;
    let (round, lora_spec) = round_spec(spec);
    resources.tell("tuning the generation proxy");
    let (adapter, made) = lora::tuned(&round, &lora_spec, Some(start), records, resources, cancelled)?;
    // What is paid for is sent, whether or not the site's own copy can be written.
    let kept = || match resources.kept(KEPT)? {
        Some(folder) => Ok(adapter.save(&folder, &spec.generator.model)?),
        None => Ok::<_, AgentError>(()),
    };
    if let Err(error) = kept() {
        tracing::warn!("the generation proxy is not kept here: {error}");
    }
    Ok((sent(adapter.tensors), made))
}

#[cfg(test)]
mod tests;
