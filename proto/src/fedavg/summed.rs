//! Parameters as a vector of a secure sum: every value times the site's weight on a grid, then the weight. The sum of the
//! vectors gives the weighted mean, and no site's part of it.

use sheaf_secagg::{FixedPoint, SecAggError};

use super::{Parameters, Tensor};

/// Parameters beyond this have diverged.
const LARGEST: u64 = 64;
/// Steps of the grid in 1.
const FRACTION: u32 = FixedPoint::COARSEST;

/// The grid for sites of at most so many rows.
///
/// # Errors
/// More rows than fit: 2^23.
pub fn grid(max_rows: u64) -> Result<FixedPoint, SecAggError> {
    FixedPoint::new(FRACTION, (LARGEST * max_rows.max(1)) as f64)
}

/// The largest number of a vector.
pub const fn bound(max_rows: u64) -> u64 {
    (LARGEST * if max_rows == 0 { 1 } else { max_rows }) << FRACTION
}

/// Numbers of a vector of these parameters.
pub fn length(parameters: &Parameters) -> u64 {
    parameters.values().map(|tensor| tensor.data.len() as u64).sum::<u64>() + 1
}

/// A site's vector.
///
/// # Errors
/// [`SecAggError::OutOfRange`] for parameters beyond 64 in magnitude, [`SecAggError::NotFinite`].
pub fn vector(parameters: &Parameters, weight: u64, grid: &FixedPoint) -> Result<Vec<i64>, SecAggError> {
    let values = parameters.values().flat_map(|tensor| &tensor.data);
    let mut vector = grid.encode(values.map(|value| f64::from(*value) * weight as f64))?;
    vector.push(i64::try_from(weight).unwrap_or(i64::MAX));
    Ok(vector)
}

/// The weighted mean from a sum of vectors, in the shapes of `like`, and the whole weight.
///
/// # Errors
/// A sentence on what cannot be: another length, no weight, a mean beyond what any site may send.
pub fn mean(like: &Parameters, sum: &[i64], grid: &FixedPoint) -> Result<(Parameters, u64), String> {
    let Some((weight, values)) = sum.split_last().filter(|_| sum.len() as u64 == length(like)) else {
        return Err(format!("it has {} numbers, expected {}", sum.len(), length(like)));
    };
    let weight =
        u64::try_from(*weight).ok().filter(|weight| *weight > 0).ok_or("its weight is not above 0")?;
    let means: Vec<f32> = grid.decode(values).into_iter().map(|sum| (sum / weight as f64) as f32).collect();
    if means.iter().any(|mean| mean.abs() > LARGEST as f32) {
        return Err(format!("a mean is beyond {LARGEST}"));
    }
    let mut rest = means.as_slice();
    let mut take = |tensor: &Tensor| {
        let (data, after) = rest.split_at(tensor.data.len());
        rest = after;
        Tensor { shape: tensor.shape.clone(), data: data.to_vec() }
    };
    Ok((like.iter().map(|(name, tensor)| (name.clone(), take(tensor))).collect(), weight))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parameters(values: &[f32]) -> Parameters {
        let (a, b) = values.split_at(2);
        let tensor = |data: &[f32]| Tensor { shape: vec![data.len()], data: data.to_vec() };
        [("a".to_owned(), tensor(a)), ("b".to_owned(), tensor(b))].into()
    }

    proptest! {
        #[test]
        fn the_mean_of_the_sum_is_the_weighted_mean(
            sites in prop::collection::vec((prop::collection::vec(-8.0_f32..8.0, 5), 1_u64..1_000_000), 1..9),
        ) {
            let grid = grid(1_000_000).unwrap();
            let mut sum = vec![0_i64; 6];
            for (values, weight) in &sites {
                let vector = vector(&parameters(values), *weight, &grid).unwrap();
                prop_assert!(vector.iter().all(|v| v.unsigned_abs() <= bound(1_000_000)));
                sum.iter_mut().zip(vector).for_each(|(sum, v)| *sum += v);
            }
            let total: u64 = sites.iter().map(|(_, weight)| weight).sum();
            let (mean, weight) = mean(&parameters(&[0.0; 5]), &sum, &grid).unwrap();
            prop_assert_eq!(weight, total);
            let means: Vec<f32> = mean.values().flat_map(|t| t.data.clone()).collect();
            for (at, mean) in means.iter().enumerate() {
                let exact: f64 = sites.iter().map(|(v, w)| f64::from(v[at]) * *w as f64).sum::<f64>() / total as f64;
                prop_assert!((f64::from(*mean) - exact).abs() < 1e-6, "{mean} {exact}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let grid = grid(10).unwrap();
        assert!(vector(&parameters(&[65.0, 0.0, 0.0, 0.0, 0.0]), 10, &grid).is_err());
        assert!(vector(&parameters(&[f32::NAN, 0.0, 0.0, 0.0, 0.0]), 1, &grid).is_err());
        let like = parameters(&[0.0; 5]);
        for (sum, part) in [
            (vec![0; 5], "expected 6"),
            (vec![0; 6], "weight"),
            (vec![0, 0, 0, 0, 0, -1], "weight"),
            (vec![i64::MAX, 0, 0, 0, 0, 1], "beyond"),
        ] {
            assert!(mean(&like, &sum, &grid).unwrap_err().contains(part));
        }
        assert!(super::grid(1 << 24).is_err());
    }
}
