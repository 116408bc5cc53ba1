//! Powers and products of laws in the frequency domain.

use realfft::{RealFftPlanner, num_complex::Complex};

use super::cells::Points;

/// Below this logarithm a value of the spectrum is nothing.
const NOTHING: f64 = -100.0;

/// A product of spectra as logarithm and angle, so that a power of a million is one multiplication.
pub(super) struct Spectrum {
    points: usize,
    planner: RealFftPlanner<f64>,
    values: Vec<(f64, f64)>,
}

impl Spectrum {
    /// The spectrum of no loss on a circle of this many points.
    pub(super) fn new(points: usize) -> Self {
        Self { points, planner: RealFftPlanner::new(), values: vec![(0.0, 0.0); points / 2 + 1] }
    }

    /// Multiplies with a law's spectrum to the power `count`.
    pub(super) fn multiply(&mut self, law: &Points, count: u64) {
        let forward = self.planner.plan_fft_forward(self.points);
        let mut circle = forward.make_input_vec();
        let mut at = law.first.rem_euclid(self.points as i64) as usize;
        for &mass in &law.mass {
            circle[at] += mass;
            at = if at + 1 == self.points { 0 } else { at + 1 };
        }
        let mut spectrum = forward.make_output_vec();
        #[expect(clippy::expect_used, reason = "the plan made both buffers itself")]
        forward.process(&mut circle, &mut spectrum).expect("buffers of the plan's lengths");
        let count = count as f64;
        for (value, z) in self.values.iter_mut().zip(&spectrum) {
            value.0 += count * 0.5 * z.norm_sqr().ln();
            if value.0 > NOTHING {
                value.1 += count * z.arg();
            }
        }
    }

    /// The masses at the points `first..`, back from the frequencies.
    pub(super) fn into_masses(mut self, first: i64) -> Vec<f64> {
        let inverse = self.planner.plan_fft_inverse(self.points);
        let scale = 1.0 / self.points as f64;
        let back = |&(log, angle): &(f64, f64)| {
            if log > NOTHING { Complex::from_polar(log.exp() * scale, angle) } else { Complex::ZERO }
        };
        let mut spectrum: Vec<_> = self.values.iter().map(back).collect();
        // Of a real law the first and the last value are real, but for rounding.
        for end in [0, self.points / 2] {
            spectrum[end].im = 0.0;
        }
        let mut circle = inverse.make_output_vec();
        #[expect(clippy::expect_used, reason = "the buffers have the plan's lengths and real ends")]
        inverse.process(&mut spectrum, &mut circle).expect("a spectrum of a real law");
        circle.rotate_left(first.rem_euclid(self.points as i64) as usize);
        circle
    }
}
