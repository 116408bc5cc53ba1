//! AdamW on host memory. Adapters are small; the base never moves.

use std::collections::BTreeMap;

use crate::weights::HostTensor;

/// Tensors by name: parameters, gradients, moments.
pub type Named = BTreeMap<String, HostTensor>;

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), as in PyTorch: decay apart from the gradient, moments corrected
/// for their start at zero.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second.
    pub beta2: f64,
    /// Keeps the quotient finite.
    pub eps: f64,
    /// Share of a parameter that is taken away each step, times the learning rate.
    pub weight_decay: f64,
    pub(crate) steps: u64,
    pub(crate) first: Named,
    pub(crate) second: Named,
}

impl AdamW {
    /// With the usual decays, 0.9 and 0.999.
    pub fn new(weight_decay: f64) -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay,
            steps: 0,
            first: Named::new(),
            second: Named::new(),
        }
    }

    /// Moves `parameters` by one step against `gradients`, which has the same names and shapes.
    pub fn step(&mut self, parameters: &mut Named, gradients: &Named, learning_rate: f64) {
        self.steps += 1;
        let update = self.update(self.steps, learning_rate);
        for (name, parameter) in parameters {
            let Some(gradient) = gradients.get(name) else { continue };
            let zeros = || HostTensor::zeros(&parameter.shape);
            let first = self.first.entry(name.clone()).or_insert_with(zeros);
            let second = self.second.entry(name.clone()).or_insert_with(zeros);
            update.apply(&mut parameter.data, &gradient.data, &mut first.data, &mut second.data);
        }
    }

    /// The factors of the step of this number, from 1.
    pub(crate) fn update(&self, step: u64, learning_rate: f64) -> Update {
        let power = step.min(1 << 30) as i32;
        let (c1, c2) = (1.0 - self.beta1.powi(power), 1.0 - self.beta2.powi(power));
        Update {
            b1: self.beta1 as f32,
            b2: self.beta2 as f32,
            keep: (1.0 - learning_rate * self.weight_decay) as f32,
            rate: (learning_rate / c1) as f32,
            root: (1.0 / c2.sqrt()) as f32,
            eps: self.eps as f32,
        }
    }
}

/// What one step does to every value.
pub(crate) struct Update {
    b1: f32,
    b2: f32,
    keep: f32,
    rate: f32,
    root: f32,
    eps: f32,
}

impl Update {
    /// Moves values against their gradient and keeps both moments. All four are of one length.
    pub(crate) fn apply(&self, values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let moments = first.iter_mut().zip(second);
        for ((p, g), (m, v)) in values.iter_mut().zip(gradient).zip(moments) {
            *m = self.b1 * *m + (1.0 - self.b1) * g;
            *v = self.b2 * *v + (1.0 - self.b2) * g * g;
            *p = *p * self.keep - self.rate * *m / (v.sqrt() * self.root + self.eps);
        }
    }
}

/// Length of all gradients together.
pub fn global_norm(gradients: &Named) -> f64 {
    let square = |tensor: &HostTensor| tensor.data.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    gradients.values().map(square).sum::<f64>().sqrt()
}

/// Multiplies all gradients by one factor.
pub fn rescale(gradients: &mut Named, factor: f64) {
    for value in gradients.values_mut().flat_map(|tensor| &mut tensor.data) {
        *value *= factor as f32;
    }
}

/// Linear warm-up over the first `warmup` share of the steps, then a cosine down to a tenth.
pub fn schedule(peak: f64, warmup: f64, step: usize, steps: usize) -> f64 {
    let (at, total) = (step as f64, steps.max(1) as f64);
    let begin = (warmup * total).floor();
    if at < begin {
        return peak * (at + 1.0) / (begin + 1.0);
    }
    let progress = (at - begin) / (total - begin).max(1.0);
    peak * (0.1 + 0.45 * (1.0 + (std::f64::consts::PI * progress).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_rises_and_falls() {
        let rates: Vec<f64> = (0..100).map(|step| schedule(1.0, 0.1, step, 100)).collect();
        assert!(rates[0] > 0.0 && rates[0] < 0.2);
        assert!((rates[10] - 1.0).abs() < 1e-9);
        assert!(rates[10..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!((rates[99] - 0.1).abs() < 0.01);
        assert!((schedule(1.0, 0.0, 0, 10) - 1.0).abs() < 1e-12);
    }
}
