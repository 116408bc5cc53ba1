use proptest::prelude::*;

use super::{Clip, ClippedSum, DpError, MOST_UNITS_IN_F32, NoiseStream, PoissonSampler, PublicUnits, Units};
use crate::{
    Epsilon, Event, Rate, Sigma,
    audit::chi_square_tails,
    ledger::{StepToken, tests::token},
};

const FALSE_ALARM: f64 = 1e-6;

fn step_token(rate: f64, sigma: f64) -> StepToken {
    let (rate, sigma) = (Rate::new(rate).unwrap(), Sigma::new(sigma).unwrap());
    token(Event::PoissonGaussian { rate, sigma, steps: 1 })
}

fn clip(norm: f64) -> Clip {
    Clip::new(norm).unwrap()
}

fn norm(tensors: &[Vec<f64>]) -> f64 {
    tensors.iter().flatten().map(|v| v * v).sum::<f64>().sqrt()
}

fn units(number: u64) -> PublicUnits {
    PublicUnits::new(number).unwrap()
}

#[test]
fn every_unit_is_drawn_independently_at_the_rate() {
    let (units, rate, steps) = (Units::each_row(50), 0.1, 20_000);
    let mut sampler = PoissonSampler::simulated(1);
    let mut each = vec![0.0; units.len()];
    let (mut sizes, mut pairs) = ([0.0; 12], 0.0);
    for _ in 0..steps {
        let batch = sampler.draw(&units, &step_token(rate, 1.0)).unwrap();
        batch.iter().for_each(|unit| each[*unit] += 1.0);
        sizes[batch.len().min(11)] += 1.0;
        pairs += if batch.contains(&3) && batch.contains(&4) { 1.0 } else { 0.0 };
    }
    let n = f64::from(steps);
    let statistic = each.iter().map(|seen| (seen - n * rate).powi(2) / (n * rate * (1.0 - rate))).sum();
    assert!(chi_square_tails(statistic, 50).1 > FALSE_ALARM, "units: {statistic}");
    // Sizes are binomial: empty batches too (103 in 20,000 expected).
    let mut probability = 0.9_f64.powi(50);
    let (mut statistic, mut rest) = (0.0, 1.0);
    for (size, seen) in sizes.iter().take(11).enumerate() {
        statistic += (seen - n * probability).powi(2) / (n * probability);
        rest -= probability;
        probability *= (50 - size) as f64 / (size + 1) as f64 * rate / (1.0 - rate);
    }
    statistic += (sizes[11] - n * rest).powi(2) / (n * rest);
    assert!(chi_square_tails(statistic, 11).1 > FALSE_ALARM, "sizes: {statistic}");
    assert!((pairs - n * rate * rate).abs() < 5.0 * (n * rate * rate).sqrt(), "pairs: {pairs}");
}

#[test]
fn rate_one_takes_all_and_no_units_give_empty_batches() {
    let mut sampler = PoissonSampler::new().unwrap();
    assert_eq!(sampler.draw(&Units::each_row(4), &step_token(1.0, 1.0)), Ok(vec![0, 1, 2, 3]));
    assert_eq!(sampler.draw(&Units::each_row(0), &step_token(0.5, 1.0)), Ok(vec![]));
    let other = token(Event::Pure { epsilon: Epsilon::new(1.0).unwrap() });
    assert!(matches!(sampler.draw(&Units::each_row(4), &other), Err(DpError::OtherMechanism(_))));
}

#[test]
fn rows_of_one_label_are_one_unit() {
    let units = Units::by_label(&["b", "a", "b", "c", "b"]);
    assert_eq!(units.len(), 3);
    let rows: Vec<&[usize]> = (0..3).map(|unit| units.rows(unit)).collect();
    assert_eq!(rows, [&[1][..], &[0, 2, 4], &[3]]);
}

#[test]
fn two_samplers_of_the_system_differ() {
    let units = Units::each_row(256);
    let draw = || PoissonSampler::new().unwrap().draw(&units, &step_token(0.5, 1.0)).unwrap();
    assert_ne!(draw(), draw());
}

#[test]
fn norms_are_over_all_tensors() {
    let mut sum = ClippedSum::new(&[1, 2], clip(2.0));
    sum.add(&[&[3.0], &[0.0, 4.0]]).unwrap();
    let applied = 2.0 * (1.0 - 1.0 / 1024.0);
    assert!((norm(sum.exact()) - applied).abs() < 1e-12);
    assert!((sum.exact()[0][0] - applied * 0.6).abs() < 1e-12);
    // Short gradients stay as they are.
    let mut sum = ClippedSum::new(&[1, 2], clip(6.0));
    sum.add(&[&[3.0], &[0.0, 4.0]]).unwrap();
    assert_eq!(sum.exact(), [vec![3.0], vec![0.0, 4.0]]);
}

#[test]
fn losses_of_a_unit_are_averaged_before_the_clip() {
    let mut sum = ClippedSum::new(&[2], clip(1.0));
    let (first, second): (&[&[f32]], &[&[f32]]) = (&[&[100.0, 0.5]], &[&[-100.0, 0.5]]);
    sum.add_mean(&[first, second]).unwrap();
    assert_eq!(sum.exact(), [vec![0.0, 0.5]]);
    // Many losses of one unit weigh no more than one.
    let mut sum = ClippedSum::new(&[2], clip(1.0));
    let long: &[&[f32]] = &[&[30.0, 40.0]];
    sum.add_mean(&[long; 50]).unwrap();
    sum.add_mean(&[]).unwrap();
    assert!(norm(sum.exact()) <= 1.0);
}

#[test]
fn a_gradient_that_is_not_finite_counts_as_zero() {
    let mut sum = ClippedSum::new(&[2], clip(1.0));
    sum.add(&[&[0.25, 0.5]]).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        sum.add(&[&[bad, 0.1]]).unwrap();
    }
    assert_eq!(sum.dropped(), 3);
    assert_eq!(sum.exact(), [vec![0.25, 0.5]]);
}

#[test]
fn huge_gradients_are_clipped_and_not_dropped() {
    let mut sum = ClippedSum::new(&[2], clip(1.0));
    sum.add(&[&[f32::MAX, f32::MAX]]).unwrap();
    assert_eq!(sum.dropped(), 0);
    assert!((norm(sum.exact()) - (1.0 - 1.0 / 1024.0)).abs() < 1e-6);
}

#[test]
fn other_shapes_are_refused() {
    let mut sum = ClippedSum::new(&[2, 1], clip(1.0));
    assert_eq!(sum.add(&[&[1.0, 2.0]]), Err(DpError::Tensors { expected: 2, found: 1 }));
    let shape = DpError::Shape { tensor: 1, expected: 1, found: 2 };
    assert_eq!(sum.add(&[&[1.0, 2.0], &[1.0, 2.0]]), Err(shape.clone()));
    assert_eq!(sum.add_clipped(&[&[1.0, 2.0], &[1.0, 2.0]], 1), Err(shape));
    assert_eq!(sum.add_clipped(&[&[1.0, f32::NAN], &[1.0]], 1), Err(DpError::NotFinite));
    let many = MOST_UNITS_IN_F32 + 1;
    let refused = DpError::TooManyUnits { most: MOST_UNITS_IN_F32, found: many };
    assert_eq!(sum.add_clipped(&[&[1.0, 2.0], &[1.0]], many), Err(refused));
    sum.add_clipped(&[&[1.0, 2.0], &[3.0]], 64).unwrap();
    assert_eq!(sum.exact(), [vec![1.0, 2.0], vec![3.0]]);
    assert!(Clip::new(0.0).is_err() && Clip::new(f64::INFINITY).is_err() && Clip::new(-1.0).is_err());
}

proptest! {
    /// The promise that the noise is measured against, after all rounding: one unit moves the sum by at most C.
    #[test]
    fn one_unit_moves_the_sum_by_at_most_the_norm(
        others in prop::collection::vec(prop::collection::vec(-1e3_f32..1e3, 7), 0..40),
        unit in prop::collection::vec(prop::num::f32::ANY, 7),
        c in 0.01_f64..100.0,
    ) {
        let sum = |unit: Option<&Vec<f32>>| {
            let mut sum = ClippedSum::new(&[3, 4], clip(c));
            for gradient in others.iter().chain(unit) {
                sum.add(&[&gradient[..3], &gradient[3..]]).unwrap();
            }
            sum.into_exact()
        };
        let (with, without) = (sum(Some(&unit)), sum(None));
        let moved = with.iter().flatten().zip(without.iter().flatten());
        let moved = moved.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        prop_assert!(moved <= c, "moved by {moved}, C = {c}");
    }
}

#[test]
fn noise_is_normal() {
    let mut noise = NoiseStream::simulated(2);
    let mut values = vec![0.0_f64; 640_000];
    noise.add_gaussian(&mut values, 2.5);
    let mut cells = [0.0; 64];
    let mut far = 0.0;
    for value in &values {
        let z = value / 2.5;
        let below = 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
        cells[((64.0 * below) as usize).min(63)] += 1.0;
        far += if z.abs() > 3.890_591_886_413_1 { 1.0 } else { 0.0 };
    }
    let statistic = cells.iter().map(|seen: &f64| (seen - 1e4).powi(2) / 1e4).sum();
    assert!(chi_square_tails(statistic, 63).1 > FALSE_ALARM, "{statistic}");
    // Beyond the ziggurat's last box (3.65) the tail is drawn another way: 1e-4 lies outside 3.89, so 64 +- 8.
    assert!((far - 64.0_f64).abs() < 45.0, "{far} far out");
}

#[test]
fn a_step_adds_sigma_c_once_and_divides_by_the_expected_batch() {
    let mut noise = NoiseStream::simulated(3);
    let mut sum = ClippedSum::new(&[60_000, 40_000], clip(0.5));
    sum.add_clipped(&[&vec![0.0; 60_000], &vec![7.0; 40_000]], 1).unwrap();
    let done = sum.privatise(units(1000), step_token(0.02, 1.5), &mut noise).unwrap();
    let std = 1.5 * 0.5 / 20.0;
    assert!((done.noise_std - std).abs() < 1e-15 && (done.expected_batch - 20.0).abs() < 1e-12);
    let (a, b) = (&done.mean[0], &done.mean[1]);
    let residuals = a.iter().map(|v| f64::from(*v)).chain(b.iter().map(|v| f64::from(*v) - 7.0 / 20.0));
    let (lower, upper) = chi_square_tails(residuals.map(|r| (r / std).powi(2)).sum(), 100_000);
    assert!(lower.min(upper) > FALSE_ALARM, "{lower:e}, {upper:e}");
    // The mean of 40,000 values stands at 7 / 20, whatever the batch was.
    let mean = b.iter().map(|v| f64::from(*v)).sum::<f64>() / 40_000.0;
    assert!((mean - 0.35).abs() < 6.0 * std / 200.0);
}

#[test]
fn an_empty_batch_is_noised_and_no_noise_is_used_twice() {
    let mut noise = NoiseStream::new().unwrap();
    let mut step = || {
        let sum = ClippedSum::new(&[64], clip(1.0));
        sum.privatise(units(100), step_token(0.1, 1.0), &mut noise).unwrap().mean.remove(0)
    };
    let (first, second) = (step(), step());
    assert!(first.iter().all(|v| *v != 0.0));
    assert!(first.iter().zip(&second).all(|(a, b)| a != b));
}

#[test]
fn what_was_not_charged_as_training_is_refused() {
    let mut noise = NoiseStream::simulated(4);
    let other = token(Event::Gaussian { sigma: Sigma::new(1.0).unwrap(), count: 1 });
    let refused = ClippedSum::new(&[1], clip(1.0)).privatise(units(100), other, &mut noise);
    assert!(matches!(refused, Err(DpError::OtherMechanism(_))));
    assert_eq!(PublicUnits::new(0), Err(DpError::NoUnits));
}
