//! The documents of the AFL workload: what the coordinator asks in each phase and what a site answers.
//! JSON, so that a site's data-protection officer can read what was asked and what left; the sums alone
//! are binary (`sheaf_analytic::codec`).
//!
//! | phase | specification | answer |
//! |---|---|---|
//! | survey | [`SurveySpec`] | `sheaf_data::Survey` |
//! | sums | [`SumsSpec`] | `sheaf_analytic` sums: G, B, counts; with noise [`NoisedSums`] |
//! | evaluate | [`EvaluateSpec`], input: the model file | [`Evaluation`] |

use serde::{Deserialize, Serialize};
use sheaf_analytic::{
    FeatureSpec,
    metrics::{Confusion, ScoreHistogram},
};
use sheaf_data::{Encoding, Schema};

use crate::privacy::PrivacySpec;

mod noised;

pub use noised::{NoisedError, NoisedSums};

/// Workload name on the wire and in plans.
pub const WORKLOAD: &str = "afl";
/// Phase names.
pub const SURVEY: &str = "survey";
/// Phase names.
pub const SUMS: &str = "sums";
/// Phase names.
pub const EVALUATE: &str = "evaluate";

/// Kinds of output a site's policy allows or forbids.
pub const RELEASE_STATISTICS: &str = "statistics";
/// Kinds of output a site's policy allows or forbids.
pub const RELEASE_SUMS: &str = "sums";
/// Kinds of output a site's policy allows or forbids.
pub const RELEASE_METRICS: &str = "metrics";

/// Asks for class counts, category lists and, where inputs are standardised, exact moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SurveySpec {
    /// How columns are read.
    pub schema: Schema,
    /// Whether sums for mean and variance are wanted.
    pub moments: bool,
}

/// Asks for the exact sums of quantised feature rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SumsSpec {
    /// How columns are read.
    pub schema: Schema,
    /// How records become input rows; decided from the merged survey.
    pub encoding: Encoding,
    /// How input rows become integer feature rows.
    pub features: FeatureSpec,
    /// What the answer must be paid for with: then it is [`NoisedSums`]. In [`EvaluateSpec`] it is about the figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacySpec>,
}

/// Asks how well the model does on the site's test rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluateSpec {
    /// As for the sums.
    #[serde(flatten)]
    pub sums: SumsSpec,
    /// Ridge parameter, for the site's own model.
    pub lambda: f64,
    /// Whether to train and measure a model on the site's rows alone.
    pub local_baseline: bool,
}

impl EvaluateSpec {
    /// Whether figures have a histogram of scores: for two classes, where no noise has to be paid for.
    fn has_scores(&self) -> bool {
        self.sums.encoding.classes.len() == 2 && self.sums.privacy.is_none()
    }

    /// Numbers of an evaluation in a secure sum.
    pub fn vector_len(&self) -> usize {
        let classes = self.sums.encoding.classes.len();
        classes * classes + 1 + if self.has_scores() { ScoreHistogram::new().counts().len() } else { 0 }
    }

    /// A site's figures as a vector of a secure sum: confusion matrix, rows of unknown classes, histogram. Adding vectors
    /// adds the figures; zeros where nothing was measured.
    pub fn to_vector(&self, figures: &Evaluation) -> Vec<i64> {
        let mut vector: Vec<u64> = Vec::with_capacity(self.vector_len());
        let counts = figures.federated.as_ref().map(Confusion::counts).unwrap_or_default();
        vector.extend_from_slice(counts);
        vector.resize(self.sums.encoding.classes.len().pow(2), 0);
        vector.push(figures.unknown_class_rows);
        let scores = figures.scores.as_ref().filter(|_| self.has_scores());
        vector.extend_from_slice(scores.map(ScoreHistogram::counts).unwrap_or_default());
        vector.resize(self.vector_len(), 0);
        // Counts of rows are far below 2^63.
        vector.into_iter().map(|count| count as i64).collect()
    }

    /// Reads a sum of what [`Self::to_vector`] wrote.
    ///
    /// # Errors
    /// Another length, a negative count.
    pub fn from_vector(
        &self,
        vector: &[i64],
    ) -> Result<(Confusion, Option<ScoreHistogram>), sheaf_analytic::AnalyticError> {
        use sheaf_analytic::AnalyticError;
        let classes = self.sums.encoding.classes.len();
        let counts: Result<Vec<u64>, _> = vector.iter().map(|count| u64::try_from(*count)).collect();
        let mut counts = counts.map_err(|_| AnalyticError::Overflow { what: "a count" })?;
        let (expected, got) = (self.vector_len(), counts.len());
        if expected != got {
            return Err(AnalyticError::Length { what: "the vector of figures", expected, got });
        }
        let rest = counts.split_off(classes * classes);
        let scores =
            self.has_scores().then(|| ScoreHistogram::from_counts(rest[1..].to_vec())).transpose()?;
        Ok((Confusion::from_counts(classes, counts)?, scores))
    }
}

/// How well models do at a site: integers only, so that they add up exactly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Rows the site's sums were made of.
    pub train_rows: u64,
    /// Test rows measured.
    pub test_rows: u64,
    /// Test rows left out since no training row anywhere had their class.
    pub unknown_class_rows: u64,
    /// The federated model's confusion matrix; none without test rows.
    pub federated: Option<Confusion>,
    /// The federated model's score histogram; two classes only.
    pub scores: Option<ScoreHistogram>,
    /// The confusion matrix of the model of this site's rows alone.
    pub local: Option<Confusion>,
    /// What computed the features of a pre-trained model, such as `cpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}
