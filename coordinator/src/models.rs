//! The coordinator's own models: the language model of `[llm]`, and encoders of texts. This crate computes on none itself;
//! whoever starts the coordinator lends it those that run in its process.

pub mod adapted;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use sheaf_data::Backbone;
use tokio_util::sync::CancellationToken;

use self::adapted::AdaptedModels;
use crate::{
    error::Error,
    home::Home,
    llm::{
        Cached, Llm,
        config::{Kind, LlmConfig},
    },
};

/// Models that run in the coordinator's process.
pub trait LocalModels: Send + Sync {
    /// A language model by its name in the catalogue; a default one without a name. It need not be loaded yet.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for a name that is no language model's.
    fn language(&self, name: Option<&str>) -> Result<Arc<dyn Llm>, Error>;

    /// The feature vectors of texts, `[texts, dim]` row by row, as the sites compute them. Blocks.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for a backbone that does not read texts; what is wrong with its files;
    /// [`crate::error::Class::Transient`] when `stop` was called.
    fn embed(
        &self,
        encoder: &Backbone,
        texts: &[&str],
        stop: &CancellationToken,
    ) -> Result<(usize, Vec<f32>), Error>;

    /// Language models that run and learn with adapters.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] where there are none.
    fn adapted(&self) -> Result<Arc<dyn AdaptedModels>, Error> {
        Err(Error::invalid("this coordinator cannot run or tune language models with adapters"))
    }
}

/// A coordinator that was lent no model: every workload but those that ask for one runs.
pub struct NoModels;

impl LocalModels for NoModels {
    fn language(&self, _name: Option<&str>) -> Result<Arc<dyn Llm>, Error> {
        Err(Error::invalid(
            "this coordinator has no language model of its own; name a server in [llm] of coordinator.toml",
        ))
    }

    fn embed(
        &self,
        encoder: &Backbone,
        _texts: &[&str],
        _stop: &CancellationToken,
    ) -> Result<(usize, Vec<f32>), Error> {
        Err(Error::invalid(format!("this coordinator cannot run the encoder {}", encoder.model)))
    }
}

/// What workloads may ask.
pub struct Models {
    config: LlmConfig,
    home: PathBuf,
    cache: PathBuf,
    local: Arc<dyn LocalModels>,
    llm: OnceLock<Arc<dyn Llm>>,
}

impl Models {
    /// Those of a home's configuration; nothing is loaded or asked yet.
    pub fn new(home: &Home, config: LlmConfig, local: Arc<dyn LocalModels>) -> Self {
        let (folder, cache) = (home.path().to_owned(), home.llm_cache());
        Self { config, home: folder, cache, local, llm: OnceLock::new() }
    }

    /// The language model of `[llm]`, behind the cache of the home.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for what `[llm]` has wrong.
    pub fn llm(&self) -> Result<Arc<dyn Llm>, Error> {
        if let Some(llm) = self.llm.get() {
            return Ok(Arc::clone(llm));
        }
        let llm: Arc<dyn Llm> = match self.config.kind {
            Kind::Endpoint => Arc::new(Cached::open(self.config.endpoint(&self.home)?, &self.cache)?),
            Kind::Embedded => {
                let model = self.local.language(self.config.model.as_deref())?;
                Arc::new(Cached::open(model, &self.cache)?)
            }
        };
        Ok(Arc::clone(self.llm.get_or_init(|| llm)))
    }

    /// See [`LocalModels::adapted`].
    ///
    /// # Errors
    /// As there.
    pub fn adapted(&self) -> Result<Arc<dyn AdaptedModels>, Error> {
        self.local.adapted()
    }

    /// See [`LocalModels::embed`].
    ///
    /// # Errors
    /// As there.
    pub fn embed(
        &self,
        encoder: &Backbone,
        texts: &[&str],
        stop: &CancellationToken,
    ) -> Result<(usize, Vec<f32>), Error> {
        self.local.embed(encoder, texts, stop)
    }
}

/// What a workload may use where it merges: models, and how it tells of long work.
pub struct Tools<'a> {
    /// The coordinator's models.
    pub models: &'a Models,
    /// Called when the coordinator stops: the work is given up, and done again by the next one.
    pub stop: &'a CancellationToken,
    /// Hears what is done of how much.
    pub tell: &'a (dyn Fn(&str, u64, u64) + Sync),
}
