//! The weighted mean of parameters, one answer in memory at a time.

use std::collections::BTreeMap;

use sheaf_proto::fedavg::{Parameters, Tensor};

use crate::error::Error;

/// Sums in f64, in the order they are added: the same answers in the same order give the same bits.
#[derive(Default)]
pub(in crate::workload) struct Average {
    sums: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    weight: f64,
}

impl Average {
    /// Adds parameters `weight` times. The first ones decide the shapes.
    pub(in crate::workload) fn add(&mut self, parameters: &Parameters, weight: u64) -> Result<(), Error> {
        let weight = weight as f64;
        if self.sums.is_empty() {
            let zeros = |tensor: &Tensor| (tensor.shape.clone(), vec![0.0; tensor.data.len()]);
            self.sums = parameters.iter().map(|(name, tensor)| (name.clone(), zeros(tensor))).collect();
        }
        let shapes = self.sums.iter().map(|(name, (shape, _))| (name, shape.as_slice()));
        check_shapes(parameters, shapes)?;
        for ((_, sums), tensor) in self.sums.values_mut().zip(parameters.values()) {
            for (sum, value) in sums.iter_mut().zip(&tensor.data) {
                *sum += weight * f64::from(*value);
            }
        }
        self.weight += weight;
        Ok(())
    }

    /// The mean; none without anything added.
    pub(in crate::workload) fn finish(self) -> Option<Parameters> {
        let weight = self.weight;
        (weight > 0.0).then(|| {
            let mean = |(shape, sums): (Vec<usize>, Vec<f64>)| Tensor {
                shape,
                data: sums.into_iter().map(|sum| (sum / weight) as f32).collect(),
            };
            self.sums.into_iter().map(|(name, sums)| (name, mean(sums))).collect()
        })
    }
}

/// Refuses parameters that are not exactly these tensors.
pub(in crate::workload) fn check_shapes<'a>(
    parameters: &Parameters,
    expected: impl Iterator<Item = (&'a String, &'a [usize])>,
) -> Result<(), Error> {
    let mut count = 0;
    for (name, shape) in expected {
        count += 1;
        match parameters.get(name) {
            Some(tensor) if tensor.shape == shape => {}
            Some(tensor) => {
                return Err(Error::invalid(format!(
                    "tensor {name} has the shape {:?}, expected {shape:?}",
                    tensor.shape
                )));
            }
            None => return Err(Error::invalid(format!("tensor {name} is missing"))),
        }
    }
    if count < parameters.len() {
        return Err(Error::invalid(format!("there are {} tensors, expected {count}", parameters.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parameters(values: &[f32]) -> Parameters {
        [("w".to_owned(), Tensor { shape: vec![values.len()], data: values.to_vec() })].into()
    }

    fn average(all: &[(Vec<f32>, u64)]) -> Vec<f32> {
        let mut average = Average::default();
        for (values, weight) in all {
            average.add(&parameters(values), *weight).unwrap();
        }
        average.finish().unwrap().remove("w").unwrap().data
    }

    proptest! {
        #[test]
        fn the_mean_is_the_weighted_mean(
            all in prop::collection::vec((prop::collection::vec(-1e3_f32..1e3, 5), 1_u64..1_000_000), 1..20),
        ) {
            let mean = average(&all);
            let weight: f64 = all.iter().map(|(_, n)| *n as f64).sum();
            for (at, mean) in mean.iter().enumerate() {
                let exact: f64 = all.iter().map(|(v, n)| f64::from(v[at]) * *n as f64).sum::<f64>() / weight;
                let (low, high) = all.iter().fold((f32::MAX, f32::MIN), |(l, h), (v, _)| (l.min(v[at]), h.max(v[at])));
                prop_assert!((f64::from(*mean) - exact).abs() <= 1e-6 * exact.abs().max(1e-3));
                prop_assert!(*mean >= low && *mean <= high, "a mean lies between its parts");
            }
        }

        #[test]
        fn equal_parameters_average_to_themselves(
            values in prop::collection::vec(any::<f32>().prop_filter("finite", |v| v.is_finite()), 1..50),
            weights in prop::collection::vec(1_u64..1_000_000_000, 1..20),
        ) {
            let all: Vec<_> = weights.into_iter().map(|weight| (values.clone(), weight)).collect();
            for (mean, value) in average(&all).iter().zip(&values) {
                prop_assert_eq!(mean, value);
            }
        }
    }

    #[test]
    fn what_has_another_shape_is_refused() {
        let mut average = Average::default();
        assert!(Average::default().finish().is_none());
        average.add(&parameters(&[1.0, 2.0]), 3).unwrap();
        assert!(average.add(&parameters(&[1.0]), 3).unwrap_err().to_string().contains("shape"));
        assert!(average.add(&Parameters::new(), 3).unwrap_err().to_string().contains("missing"));
        let mut more = parameters(&[1.0, 2.0]);
        more.insert("x".to_owned(), Tensor { shape: vec![0], data: vec![] });
        assert!(average.add(&more, 3).unwrap_err().to_string().contains("2 tensors"));
        assert_eq!(average.finish().unwrap(), parameters(&[1.0, 2.0]), "nothing of the refused is in it");
    }
}
