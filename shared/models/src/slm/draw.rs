//! One token from logits.

use std::borrow::Cow;

use rand::{Rng, RngExt};

use super::generate::Sampling;
use crate::{ModelError, kernels};

/// Draws one token from logits after the tokens `seen`.
///
/// # Errors
/// [`ModelError::Diverged`] for logits that are not numbers.
pub(super) fn draw(
    logits: &[f32],
    seen: &[u32],
    sampling: &Sampling,
    random: &mut impl Rng,
) -> Result<u32, ModelError> {
    let logits = penalised(logits, seen, sampling.repetition_penalty as f32);
    let most = kernels::largest(&logits);
    // No early end: a loop without one vectorises.
    if logits.iter().fold(!most.is_finite(), |bad, logit| bad | logit.is_nan()) {
        return Err(ModelError::Diverged(
            "the model's output is not a number; its weights are damaged".to_owned(),
        ));
    }
    if sampling.temperature == 0.0 {
        return Ok(logits.iter().position(|logit| *logit == most).unwrap_or(0) as u32);
    }
    let scale = (1.0 / sampling.temperature) as f32;
    let (candidates, p) = if (1..logits.len()).contains(&sampling.top_k) {
        let candidates = likeliest(&logits, sampling.top_k);
        let mut p: Vec<f32> = candidates.iter().map(|(logit, _)| *logit).collect();
        kernels::softmax(&mut p, scale);
        (candidates, p)
    } else {
        among_all(&logits, scale, sampling.top_p)
    };
    let mut mass = 0.0;
    let kept = p.iter().position(|p| {
        mass += f64::from(*p);
        mass >= sampling.top_p
    });
    let kept = kept.map_or(p.len(), |last| last + 1);
    let total: f64 = p[..kept].iter().map(|p| f64::from(*p)).sum();
    let mut at = random.random::<f64>() * total;
    for (p, (_, token)) in p[..kept].iter().zip(&candidates) {
        at -= f64::from(*p);
        if at <= 0.0 {
            return Ok(*token);
        }
    }
    Ok(candidates[kept - 1].1)
}

/// Logits with those of tokens seen before made less likely; they are copied only for that.
fn penalised<'a>(logits: &'a [f32], seen: &[u32], penalty: f32) -> Cow<'a, [f32]> {
    if penalty == 1.0 {
        return Cow::Borrowed(logits);
    }
    let mut seen: Vec<u32> = seen.to_vec();
    seen.sort_unstable();
    seen.dedup();
    let mut changed = logits.to_vec();
    for token in seen {
        let logit = &mut changed[token as usize];
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
    }
    Cow::Owned(changed)
}

/// Likelier first; of equals the smaller token.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "sorting calls it so")]
fn descending(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// The `count` likeliest tokens with their logits, descending. A pass over the vocabulary in which nearly every token is passed
/// over at a glance: of the others twice `count` are held at most.
fn likeliest(logits: &[f32], count: usize) -> Vec<(f32, u32)> {
    const CHUNK: usize = 64;
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(2 * count);
    let mut least: Option<f32> = None;
    for (chunk, logits) in (0..).step_by(CHUNK).zip(logits.chunks(CHUNK)) {
        // A later token that equals the least of the best is behind it.
        let passes = |logit: f32| least.is_none_or(|least| logit > least);
        if !passes(kernels::largest(logits)) {
            continue;
        }
        best.extend(logits.iter().copied().zip(chunk..).filter(|(logit, _)| passes(*logit)));
        if best.len() >= count + CHUNK {
            best.select_nth_unstable_by(count - 1, descending);
            best.truncate(count);
            least = Some(best[count - 1].0);
        }
    }
    best.sort_unstable_by(descending);
    best.truncate(count);
    best
}

/// All tokens that may be among those with the mass `top_p`, descending, and their probabilities. The others are not sorted: so
/// unlikely that all of them together are not even what is cut off.
fn among_all(logits: &[f32], scale: f32, top_p: f64) -> (Vec<(f32, u32)>, Vec<f32>) {
    let mut p = logits.to_vec();
    kernels::softmax(&mut p, scale);
    let least = ((1.0 - top_p) / logits.len() as f64) as f32;
    let mut candidates: Vec<(f32, u32)> =
        logits.iter().copied().zip(0..).filter(|(_, token)| p[*token as usize] >= least).collect();
    candidates.sort_unstable_by(descending);
    let p = candidates.iter().map(|(_, token)| p[*token as usize]).collect();
    (candidates, p)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn drawn(logits: &[f32], seen: &[u32], sampling: &Sampling) -> Vec<u32> {
        let mut random = ChaCha8Rng::seed_from_u64(sampling.seed);
        (0..500).map(|_| draw(logits, seen, sampling, &mut random).unwrap()).collect()
    }

    #[test]
    fn options_narrow_the_draw() {
        let logits = [1.0, 3.0, 2.0, -1.0];
        let plain = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, ..Sampling::default() };
        let all = drawn(&logits, &[], &plain);
        assert!((0..4).all(|token| all.contains(&token)));
        // p = 0.09, 0.66, 0.24, 0.01
        let share = all.iter().filter(|token| **token == 1).count() as f64 / 500.0;
        assert!((0.58..0.74).contains(&share), "{share}");
        let greedy = Sampling { temperature: 0.0, ..plain.clone() };
        assert!(drawn(&logits, &[], &greedy).iter().all(|token| *token == 1));
        let two = Sampling { top_k: 2, ..plain.clone() };
        assert!(drawn(&logits, &[], &two).iter().all(|token| [1, 2].contains(token)));
        let half = Sampling { top_p: 0.5, ..plain.clone() };
        assert!(drawn(&logits, &[], &half).iter().all(|token| *token == 1));
        let penalty = Sampling { repetition_penalty: 10.0, temperature: 0.0, ..plain.clone() };
        assert!(drawn(&logits, &[1, 1], &penalty).iter().all(|token| *token == 2));
        assert_eq!(drawn(&logits, &[], &plain), all, "a seed repeats the draw");
        assert!(draw(&[f32::NAN, 0.0], &[], &plain, &mut ChaCha8Rng::seed_from_u64(1)).is_err());
    }

    #[test]
    fn the_likeliest_are_those_of_a_full_sort() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        for (length, count) in [(7, 3), (1000, 50), (1000, 999), (5000, 64), (130, 1)] {
            // Few values, so that many are equal.
            let logits: Vec<f32> = (0..length).map(|_| random.random_range(-40..40) as f32 / 4.0).collect();
            let mut wanted: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
            wanted.sort_unstable_by(descending);
            assert_eq!(likeliest(&logits, count), wanted[..count], "{count} of {length}");
            let (among, p) = among_all(&logits, 1.0, 0.9);
            assert_eq!(among, wanted[..among.len()]);
            assert!(p.iter().map(|p| f64::from(*p)).sum::<f64>() > 0.9 && among.len() < length);
        }
    }
}
