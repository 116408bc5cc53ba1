//! `[afl]` of a plan.

use serde::Deserialize;
use sheaf_analytic::{FeatureMap, FeatureSpec, Normalize};
use sheaf_data::Source;

use super::private;
use crate::{error::Error, run::plan::Plan};

/// `[afl]` of a plan.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AflOptions {
    /// Ridge parameter, in units of squared feature rows.
    #[serde(default = "one")]
    pub lambda: f64,
    /// Scale every feature row to length 1 ("l2") or leave it ("none").
    #[serde(default = "l2")]
    pub normalize: Normalize,
    /// s: values become integers round(x 2^s).
    #[serde(default = "bits")]
    pub quantisation: u32,
    /// Append a constant column.
    #[serde(default)]
    pub bias: bool,
    /// Subtract the federated mean and divide by the federated standard deviation. On for tables.
    #[serde(default)]
    pub standardize: Option<bool>,
    /// Width of a random ReLU buffer (RHL) before the linear layer; none when absent.
    #[serde(default)]
    pub random_relu: Option<usize>,
    /// Seed of the random ReLU buffer.
    #[serde(default)]
    pub seed: u64,
    /// Under `[privacy]`: the ridge parameter is at least this many times the noise's own size.
    #[serde(default = "noise_ridge")]
    pub noise_ridge: f64,
}

const fn one() -> f64 {
    1.0
}
const fn l2() -> Normalize {
    Normalize::L2
}
const fn bits() -> u32 {
    14
}
const fn noise_ridge() -> f64 {
    4.0
}

impl Default for AflOptions {
    fn default() -> Self {
        Self {
            lambda: one(),
            normalize: l2(),
            quantisation: bits(),
            bias: false,
            standardize: None,
            random_relu: None,
            seed: 0,
            noise_ridge: noise_ridge(),
        }
    }
}

impl AflOptions {
    /// Reads and checks the plan's table.
    pub fn of(plan: &Plan) -> Result<Self, Error> {
        let mut options: Self = plan
            .options
            .clone()
            .try_into()
            .map_err(|e: toml::de::Error| Error::invalid(format!("[afl] {}", e.message())))?;
        if !(options.lambda.is_finite() && options.lambda >= 0.0) {
            return Err(Error::invalid("[afl] lambda must be a number of at least 0"));
        }
        if !(options.noise_ridge.is_finite() && options.noise_ridge >= 0.0) {
            return Err(Error::invalid("[afl] noise_ridge must be a number of at least 0"));
        }
        if plan.schema.declared.is_some() && options.standardize == Some(true) {
            return Err(Error::invalid(
                "[afl] standardize needs a survey of the records; with [schema.declared] columns are scaled by their ranges",
            ));
        }
        if plan.privacy.is_some() {
            private::check(plan, &mut options)?;
        }
        options.features(1).validate().map_err(|e| Error::invalid(format!("[afl] {e}")))?;
        Ok(options)
    }

    /// The feature map for inputs of this many columns.
    pub fn features(&self, input_dim: usize) -> FeatureSpec {
        let map = match self.random_relu {
            None => FeatureMap::Identity,
            Some(width) => FeatureMap::RandomRelu { width, seed: self.seed },
        };
        FeatureSpec { input_dim, map, normalize: self.normalize, bits: self.quantisation, bias: self.bias }
    }

    /// Whether inputs are standardised: as the plan says, else for tables and not for features or pixels.
    pub fn standardizes(&self, plan: &Plan) -> bool {
        if plan.schema.declared.is_some() {
            return false;
        }
        let table = match &plan.data {
            _ if plan.schema.backbone.is_some() => false,
            Some(source) => matches!(source, Source::Table { .. }),
            None => !plan.schema.numeric.is_empty() || !plan.schema.categorical.is_empty(),
        };
        self.standardize.unwrap_or(table)
    }
}
