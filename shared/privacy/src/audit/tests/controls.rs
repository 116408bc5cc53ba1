//! DP-SGD as this crate does it, and the ways in which other code gets it wrong. The model is the sum itself: 1000 canaries,
//! each with a gradient of its own coordinate, among ordinary units with long gradients elsewhere. That is the strongest
//! place for an observer, who sees every released sum.

use super::super::{NoiseCheck, OneRun, OneRunResult, StepResiduals};
use crate::{
    Delta, Epsilon, Event, Rate, Sigma,
    accountant::Composition,
    dpsgd::{Clip, ClippedSum, NoiseStream, PoissonSampler, PublicUnits, Units},
    ledger::{StepToken, tests::token},
};

const CANARIES: usize = 1000;
const ORDINARY: usize = 200;
const ELSEWHERE: usize = 32;
const GUESSES: u64 = 400;
const RATE: f64 = 0.128;
const SIGMA: f64 = 2.11;
const STEPS: u64 = 40;
const DELTA: f64 = 1e-5;
/// Length of every gradient, with a clipping norm of 1.
const LENGTH: f32 = 20.0;

#[derive(Clone, Copy, PartialEq)]
enum Training {
    Honest,
    NoNoise,
    TenthOfSigma,
    NoClip,
    NoiseReused,
    ClipPerBatch,
}

struct Found {
    audit: OneRunResult,
    size: NoiseCheck,
    freshness: NoiseCheck,
}

fn accounted() -> Epsilon {
    let (rate, sigma) = (Rate::new(RATE).unwrap(), Sigma::new(SIGMA).unwrap());
    let events: Composition = [Event::PoissonGaussian { rate, sigma, steps: STEPS }].into_iter().collect();
    events.account(Delta::new(DELTA).unwrap()).unwrap().epsilon_pld
}

fn step_token(sigma: f64) -> StepToken {
    let (rate, sigma) = (Rate::new(RATE).unwrap(), Sigma::new(sigma).unwrap());
    token(Event::PoissonGaussian { rate, sigma, steps: STEPS })
}

/// A gradient over [canaries | elsewhere]: a canary's own coordinate, or a direction of an ordinary unit.
fn gradient(unit: usize) -> Vec<f32> {
    let mut gradient = vec![0.0; CANARIES + ELSEWHERE];
    if unit < CANARIES {
        gradient[unit] = LENGTH;
    } else {
        for (i, value) in gradient[CANARIES..].iter_mut().enumerate() {
            *value = LENGTH * ((unit * (i + 1)) as f32).sin();
        }
    }
    gradient
}

fn sum_of(batch: &[usize], clip: Clip) -> ClippedSum {
    let mut sum = ClippedSum::new(&[CANARIES + ELSEWHERE], clip);
    for unit in batch {
        sum.add(&[&gradient(*unit)]).unwrap();
    }
    sum
}

/// The sum that a training with a fault releases in place of the exact clipped one, before noise.
fn faulty(training: Training, batch: &[usize]) -> Vec<f64> {
    let exact = sum_of(batch, Clip::new(1e9).unwrap()).exact()[0].clone();
    if training != Training::ClipPerBatch {
        return exact;
    }
    let norm = exact.iter().map(|v| v * v).sum::<f64>().sqrt() / batch.len().max(1) as f64;
    exact.iter().map(|v| v / norm.max(1.0)).collect()
}

/// One step: what is released, by this crate's own code but for the fault.
fn release(training: Training, batch: &[usize], token: StepToken, noise: &mut NoiseStream) -> Vec<f64> {
    let clip = Clip::new(1.0).unwrap();
    let sum = match training {
        Training::NoNoise => return sum_of(batch, clip).exact()[0].clone(),
        Training::NoClip | Training::ClipPerBatch => ClippedSum::new(&[CANARIES + ELSEWHERE], clip),
        Training::Honest | Training::TenthOfSigma | Training::NoiseReused => sum_of(batch, clip),
    };
    let done = sum.privatise(PublicUnits::new(700).unwrap(), token, noise).unwrap();
    let released = done.mean[0].iter().map(|v| f64::from(*v) * done.expected_batch);
    match training {
        Training::NoClip | Training::ClipPerBatch => {
            released.zip(faulty(training, batch)).map(|(noise, sum)| noise + sum).collect()
        }
        _ => released.collect(),
    }
}

fn train(training: Training, seed: u64) -> Found {
    let mut coins = NoiseStream::simulated(3 * seed);
    let mut sampler = PoissonSampler::simulated(3 * seed + 1);
    let mut noise = NoiseStream::simulated(3 * seed + 2);
    let audit = OneRun::new(CANARIES as u64, GUESSES, Delta::new(DELTA).unwrap()).unwrap();
    let canaries = audit.flip(&mut coins);
    let present: Vec<usize> = (0..CANARIES + ORDINARY)
        .filter(|unit| canaries.included().get(*unit).copied().unwrap_or(true))
        .collect();
    let clip = Clip::new(1.0).unwrap();
    let mut residuals = StepResiduals::new(CANARIES + ELSEWHERE, Sigma::new(SIGMA).unwrap(), clip);
    let mut scores = vec![0.0; CANARIES];
    for _ in 0..STEPS {
        let sigma = if training == Training::TenthOfSigma { SIGMA / 10.0 } else { SIGMA };
        let token = step_token(sigma);
        let drawn = sampler.draw(&Units::each_row(present.len()), &token).unwrap();
        let batch: Vec<usize> = drawn.into_iter().map(|unit| present[unit]).collect();
        if training == Training::NoiseReused {
            noise = NoiseStream::simulated(3 * seed + 2);
        }
        let released = release(training, &batch, token, &mut noise);
        residuals.add(&released, &sum_of(&batch, clip).exact()[0]);
        scores.iter_mut().zip(&released).for_each(|(score, value)| *score += value);
    }
    let audit = canaries.judge(&scores).unwrap();
    Found { audit, size: residuals.size(), freshness: residuals.freshness() }
}

#[test]
fn honest_runs_pass_on_twenty_seeds() {
    let accounted = accounted();
    for seed in 0..20 {
        let found = train(Training::Honest, seed);
        println!("seed {seed}: bound {:.3}, accounted {accounted:.3}", found.audit.epsilon_lower);
        assert!(!found.audit.refutes(accounted), "seed {seed}: {:?}", found.audit);
        assert!(found.size.passes(), "seed {seed}: {:?}", found.size);
        assert!(found.freshness.passes(), "seed {seed}: {:?}", found.freshness);
    }
}

#[test]
fn no_noise_is_caught_by_the_audit_and_by_the_size() {
    let found = train(Training::NoNoise, 1);
    assert!(found.audit.refutes(accounted()), "{:?}", found.audit);
    assert!(!found.size.passes());
    assert!(found.size.ratio < 1e-6);
}

#[test]
fn a_tenth_of_sigma_is_caught_by_the_audit_and_by_the_size() {
    let found = train(Training::TenthOfSigma, 1);
    assert!(found.audit.refutes(accounted()), "{:?}", found.audit);
    assert!(!found.size.passes());
    assert!((found.size.ratio - 0.1).abs() < 0.002, "{:?}", found.size);
}

#[test]
fn no_clip_is_caught_by_the_audit_and_by_the_size() {
    let found = train(Training::NoClip, 1);
    assert!(found.audit.refutes(accounted()), "{:?}", found.audit);
    assert!(!found.size.passes());
}

#[test]
fn reused_noise_is_caught_by_the_freshness() {
    let found = train(Training::NoiseReused, 1);
    assert!(!found.freshness.passes(), "{:?}", found.freshness);
    assert!(found.freshness.ratio > 6.0, "sqrt(40) = 6.3: {:?}", found.freshness);
    // The audit's sum of scores does not show it: one step's noise, forty times over, hides more, not less.
    assert!(!found.audit.refutes(accounted()));
}

#[test]
fn clipping_per_batch_is_caught_by_the_size() {
    let found = train(Training::ClipPerBatch, 1);
    println!("clip per batch: bound {:.3}, ratio {:.3}", found.audit.epsilon_lower, found.size.ratio);
    assert!(!found.size.passes(), "{:?}", found.size);
}

#[test]
fn a_check_of_nothing_passes_and_of_other_lengths_fails() {
    let new = || StepResiduals::new(4, Sigma::new(1.0).unwrap(), Clip::new(1.0).unwrap());
    assert!(new().size().passes() && new().freshness().passes());
    let mut residuals = new();
    residuals.add(&[0.0; 3], &[0.0; 4]);
    assert!(!residuals.size().passes());
}
