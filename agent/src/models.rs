//! Pre-trained models by name: which file a name stands for, and the language models of this process. Each of those is
//! loaded once, however many rounds, tasks and agents of a simulation use it; it is frozen, what a task tunes is an
//! adapter of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sheaf_data::catalogue::{Catalogue, Role};
use sheaf_models::LanguageModel;

use crate::{error::AgentError, task::Resources};

/// Locked while a model loads: whoever wants the same one waits for it.
static LOADED: Mutex<Option<HashMap<String, Arc<LanguageModel>>>> = Mutex::new(None);

/// Refuses a model that is not, to the bit, the one in this version's catalogue.
///
/// # Errors
/// [`AgentError::Denied`] for another hash, or none.
pub fn check_hash(name: &str, asked: Option<&str>) -> Result<(), AgentError> {
    let known = Catalogue::known()?.model(name)?.sha256();
    match asked {
        Some(asked) if *asked == known => Ok(()),
        Some(asked) => Err(AgentError::Denied(format!(
            "the run asks for model {name} with SHA-256 {asked}, this agent knows it with {known}; use one version of \
             Sheaf at the coordinator and the sites"
        ))),
        None => Err(AgentError::Denied(format!(
            "the run names model {name} without its SHA-256; the coordinator must write it into the task"
        ))),
    }
}

/// The language model of this name on the site's device; the first call fetches, checks and loads it.
///
/// # Errors
/// [`AgentError::Task`] for an asset that is no language model or a damaged one, [`AgentError::Device`].
pub fn language(name: &str, resources: &Resources<'_>) -> Result<Arc<LanguageModel>, AgentError> {
    let compute = resources.compute()?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    let key = format!("{name} on {}", compute.name);
    if let Some(model) = loaded.get(&key) {
        return Ok(Arc::clone(model));
    }
    tracing::info!(model = name, "loading the model");
    let files = resources.assets.ensure(name, &mut |_| {})?;
    let weights = files
        .paths(Role::Weights)
        .into_iter()
        .next()
        .ok_or_else(|| AgentError::Task(format!("the asset {name} is no language model")))?;
    let model = LanguageModel::load(&weights, &compute)
        .map_err(|e| AgentError::Task(format!("model {name} cannot be loaded: {e}")))?;
    let model = Arc::new(model);
    loaded.insert(key, Arc::clone(&model));
    Ok(model)
}
