//! The pre-trained models of this process: each is loaded once, whoever uses it, and computes for one at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sheaf_data::{AssetStore, Backbone, RgbImage};
use sheaf_models::{Compute, Extractor, ExtractorOptions, Image};

use crate::error::AgentError;

/// Turns records into feature vectors. A row's features must not depend on the rows beside it.
pub(super) trait Extract: Send {
    /// Values of a feature vector.
    fn dim(&self) -> usize;
    /// `[images, dim]`.
    fn images(&self, images: &[RgbImage<'_>]) -> Result<Vec<f32>, AgentError>;
    /// `[texts, dim]`.
    fn texts(&self, texts: &[&str]) -> Result<Vec<f32>, AgentError>;
}

/// A loaded model, used by one task at a time: it takes all cores itself.
pub(super) type Shared = Arc<Mutex<Box<dyn Extract>>>;

/// Locked while a model loads: whoever wants the same one waits for it.
static LOADED: Mutex<Option<HashMap<String, Shared>>> = Mutex::new(None);

/// The model of these options on this device; the first call fetches, checks and loads it.
pub(super) fn loaded(
    backbone: &Backbone,
    assets: &AssetStore,
    compute: &Compute,
) -> Result<Shared, AgentError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    let key = format!("{backbone:?} on {}", compute.name);
    if let Some(model) = loaded.get(&key) {
        return Ok(Arc::clone(model));
    }
    let model: Shared = Arc::new(Mutex::new(load(backbone, assets, compute)?));
    loaded.insert(key, Arc::clone(&model));
    Ok(model)
}

fn load(backbone: &Backbone, assets: &AssetStore, compute: &Compute) -> Result<Box<dyn Extract>, AgentError> {
    tracing::info!(model = backbone.model, "loading the model");
    let files = assets.ensure(&backbone.model, &mut |_| {})?.by_role();
    let options = ExtractorOptions { image_size: backbone.image_size, max_tokens: backbone.max_tokens };
    Ok(Box::new(Extractor::load(&backbone.model, &files, &options, compute)?))
}

impl Extract for Extractor {
    fn dim(&self) -> usize {
        Self::dim(self)
    }

    fn images(&self, images: &[RgbImage<'_>]) -> Result<Vec<f32>, AgentError> {
        let images: Vec<_> = images
            .iter()
            .map(|image| Image { height: image.height, width: image.width, rgb: &image.rgb })
            .collect();
        Ok(Self::images(self, &images)?)
    }

    fn texts(&self, texts: &[&str]) -> Result<Vec<f32>, AgentError> {
        Ok(Self::texts(self, texts)?)
    }
}
