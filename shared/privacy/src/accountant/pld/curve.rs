//! A composed distribution on its grid, read as delta(epsilon) and epsilon(delta).

/// The law of the loss in one direction: mass at the points `(first + j) * step`, and mass at infinity.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    step: f64,
    first: i64,
    /// `tail[j]`: mass at points j and above.
    tail: Vec<f64>,
    /// `delta[j]`: delta at the point j, without what is at infinity.
    delta: Vec<f64>,
    infinite: f64,
}

impl Curve {
    /// Takes the masses; a negative `infinite` is what a lower estimate takes off for rounding.
    pub(super) fn new(step: f64, first: i64, mass: &[f64], infinite: f64) -> Self {
        let shrink = (-step).exp();
        let lift = -(-step).exp_m1();
        let mut tail = vec![0.0; mass.len()];
        let mut delta = vec![0.0; mass.len()];
        let (mut above, mut at) = (0.0, 0.0);
        for (j, &mass) in mass.iter().enumerate().rev() {
            // 1 - e^(-step) w = (1 - e^(-step)) + e^(-step) (1 - w): sums of positive numbers only.
            at = above * lift + at * shrink;
            above += mass;
            (tail[j], delta[j]) = (above, at);
        }
        Self { step, first, tail, delta, infinite }
    }

    pub(super) fn delta(&self, epsilon: f64) -> f64 {
        // The point at or above epsilon, then down from it by the rest.
        let point = (epsilon / self.step).ceil();
        let index = point - self.first as f64;
        if index >= self.tail.len() as f64 {
            return self.infinite;
        }
        let index = index.max(0.0);
        let down = ((self.first as f64 + index) * self.step - epsilon).max(0.0);
        let index = index as usize;
        self.infinite - (-down).exp_m1() * self.tail[index] + (-down).exp() * self.delta[index]
    }

    /// The least epsilon, 0 or more; infinite when there is none.
    pub(super) fn epsilon(&self, delta: f64) -> f64 {
        if self.delta(0.0) <= delta {
            return 0.0;
        }
        let finite = delta - self.infinite;
        if finite < 0.0 {
            return f64::INFINITY;
        }
        // delta falls along the points, up to rounding where it is next to nothing: take the last that is too large.
        let Some(last) = self.delta.iter().rposition(|&at| at > finite) else {
            return self.between(0, finite).max(0.0);
        };
        if last + 1 == self.tail.len() {
            return (self.first + last as i64) as f64 * self.step;
        }
        self.between(last + 1, finite).max(0.0)
    }

    /// Where, below the point `index`, delta is `finite`.
    fn between(&self, index: usize, finite: f64) -> f64 {
        let point = (self.first as f64 + index as f64) * self.step;
        let (tail, at) = (self.tail[index], self.delta[index]);
        // Solves tail (1 - e^-d) + at e^-d = finite for the distance d.
        point + ((tail - finite) / (tail - at)).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_atom_has_the_hockey_stick_of_its_loss() {
        // Mass 0.6 at loss 0.5, 0.1 at infinity.
        let curve = Curve::new(0.25, -1, &[0.3, 0.0, 0.0, 0.6], 0.1);
        for epsilon in [0.0_f64, 0.1, 0.25, 0.3, 0.5] {
            let expected = 0.1 + 0.6 * (1.0 - (epsilon - 0.5_f64).exp());
            assert!((curve.delta(epsilon) - expected).abs() < 1e-15);
            assert!((curve.epsilon(expected) - epsilon).abs() < 1e-12, "{epsilon}");
        }
        assert_eq!(curve.delta(0.7), 0.1);
        assert_eq!(curve.epsilon(0.05), f64::INFINITY);
        assert_eq!(curve.epsilon(0.9), 0.0);
    }

    #[test]
    fn a_loss_wholly_above_zero_is_read_below_its_first_point() {
        let curve = Curve::new(0.5, 4, &[1.0], 0.0);
        assert!((curve.delta(1.0) - (1.0 - (-1.0_f64).exp())).abs() < 1e-15);
        assert!((curve.epsilon(1.0 - (-1.0_f64).exp()) - 1.0).abs() < 1e-12);
        assert_eq!(curve.epsilon(0.0), 2.0);
    }

    #[test]
    fn no_loss_needs_no_epsilon() {
        let curve = Curve::new(1e-4, 0, &[1.0], 0.0);
        assert_eq!((curve.epsilon(0.0), curve.delta(0.0)), (0.0, 0.0));
    }
}
