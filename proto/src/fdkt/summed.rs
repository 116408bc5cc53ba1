//! What sites measure of texts as a vector of a secure sum: adding vectors adds the counts.

use super::{Arm, TaskModel, Transfer, TransferSpec};

/// Why a sum is none of counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCounts {
    /// Another length.
    #[error("{got} numbers where {expected} are counted")]
    Length {
        /// Of the sum.
        got: usize,
        /// Of the specification.
        expected: usize,
    },
    /// A count below 0.
    #[error("a count of {0}")]
    Negative(i64),
    /// Without noise no model is right on more records than there are.
    #[error("{correct} of {rows} test records are right")]
    TooMany {
        /// Records that a model gets right.
        correct: u64,
        /// All of them.
        rows: u64,
    },
}

impl TransferSpec {
    /// The arms that are counted. A model that has learnt from a record may be right or wrong on any number of test records for
    /// that one record, which no noise on counts covers: under privacy there are the arms without a record alone.
    pub fn arms(&self) -> Vec<Arm> {
        let exact = self.sums.privacy.is_none();
        let of_texts =
            self.texts.iter().flat_map(|texts| [exact.then_some(texts.arm()), Some(texts.alone())]);
        std::iter::once(exact.then_some(Arm::Local)).chain(of_texts).flatten().collect()
    }

    /// The models that are counted, in the order of the counts.
    pub fn models(&self) -> Vec<(TaskModel, Arm)> {
        let arms = self.arms();
        self.task.iter().flat_map(|task| arms.iter().map(|arm| (*task, *arm))).collect()
    }

    /// Numbers in a secure sum of what is measured.
    pub fn vector_len(&self) -> usize {
        1 + self.models().len()
    }

    /// Test records, then how many of them each model gets right; zeros where nothing was measured.
    pub fn to_vector(&self, measured: &Transfer) -> Vec<i64> {
        let right = self.models().into_iter().map(|(task, arm)| measured.right(task, arm).unwrap_or(0));
        // Counts of records are far below 2^63.
        std::iter::once(measured.rows).chain(right).map(|count| count as i64).collect()
    }

    /// Reads a sum of what [`Self::to_vector`] wrote.
    ///
    /// # Errors
    /// [`NoCounts`].
    pub fn from_vector(&self, sum: &[i64]) -> Result<Transfer, NoCounts> {
        let (got, expected) = (sum.len(), self.vector_len());
        if got != expected {
            return Err(NoCounts::Length { got, expected });
        }
        let count = |count: &i64| u64::try_from(*count).map_err(|_| NoCounts::Negative(*count));
        let counts = sum.iter().map(count).collect::<Result<Vec<u64>, _>>()?;
        let rows = counts.first().copied().unwrap_or(0);
        let correct = counts.iter().skip(1).copied();
        let exact = self.sums.privacy.is_none();
        if let Some(correct) = correct.clone().find(|correct| exact && *correct > rows) {
            return Err(NoCounts::TooMany { correct, rows });
        }
        Ok(Transfer::of(rows, self.models().into_iter().zip(correct)))
    }
}

#[cfg(test)]
mod tests {
    use sheaf_data::{Encoding, Inputs, Schema};
    use sheaf_privacy::{Delta, Event, Scale};

    use super::*;
    use crate::{afl::SumsSpec, fdkt::Texts, privacy::PrivacySpec};

    fn spec(privacy: Option<PrivacySpec>) -> TransferSpec {
        let classes = ["a", "b"].map(str::to_owned).to_vec();
        let encoding = Encoding { classes, inputs: Inputs::Dense { dim: 4, standardize: None } };
        let features = sheaf_analytic::FeatureSpec {
            input_dim: 4,
            map: sheaf_analytic::FeatureMap::Identity,
            normalize: sheaf_analytic::Normalize::L2,
            bits: 14,
            bias: false,
        };
        let sums = SumsSpec { schema: Schema::default(), encoding, features, privacy };
        let texts = vec![Texts::Synthetic, Texts::Fdkt];
        TransferSpec {
            sums,
            lambda: 1.0,
            weight: 4,
            texts,
            task: vec![TaskModel::Analytic],
            classifier: None,
        }
    }

    #[test]
    fn adding_vectors_adds_what_sites_have_measured() {
        let spec = spec(None);
        let spec = TransferSpec { task: TaskModel::ALL.to_vec(), ..spec };
        let measured = |rows, right: u64| Transfer::of(rows, spec.models().into_iter().zip(right..));
        let (a, b) = (measured(30, 20), measured(12, 3));
        let sites = [&a, &b, &Transfer::default()].map(|measured| spec.to_vector(measured));
        let mut sum = vec![0; spec.vector_len()];
        sites.iter().for_each(|site| sum.iter_mut().zip(site).for_each(|(sum, count)| *sum += count));
        let mut both = a;
        both.add(&b);
        assert_eq!(spec.from_vector(&sum).unwrap(), both);
    }

    #[test]
    fn a_sum_that_cannot_be_is_refused() {
        let exact = spec(None);
        assert!(matches!(exact.from_vector(&[0; 3]), Err(NoCounts::Length { got: 3, expected: 6 })));
        assert_eq!(exact.from_vector(&[5, 1, 1, -1, 1, 1]), Err(NoCounts::Negative(-1)));
        let too_many = [5, 1, 1, 6, 1, 1];
        assert_eq!(exact.from_vector(&too_many), Err(NoCounts::TooMany { correct: 6, rows: 5 }));
        let event = Event::Laplace { scale: Scale::new(1.0).unwrap(), count: 1 };
        let delta = Delta::new(1e-4).unwrap();
        let noised = spec(Some(PrivacySpec {
            unit: "row".to_owned(),
            delta,
            event,
            later: Vec::new(),
            training: None,
        }));
        assert_eq!(
            noised.arms(),
            [Arm::SyntheticAlone, Arm::FdktAlone],
            "no arm that has learnt from a record"
        );
        assert!(noised.from_vector(&[5, 1, 6]).is_ok(), "noise may find more right ones");
    }
}
