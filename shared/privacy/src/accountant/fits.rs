use std::fmt;

use serde::Serialize;

use crate::{event::Event, units::Sigma};

/// Noise is raised to so many times what was asked, looking for enough.
const MOST_NOISE: f64 = 1e4;
/// Relative precision of the noise proposed, rounded up.
const PRECISION: f64 = 1e-3;

/// What of a refused event would fit under the cap.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Fits {
    /// The most steps (or releases) with the noise that was asked; absent when not even one fits.
    pub steps: Option<u64>,
    /// The least Gaussian noise with the steps that were asked; absent when the event has none or no noise is enough.
    pub sigma: Option<Sigma>,
}

impl Fits {
    /// Looks for what of `event` holds under a rule that fewer steps and more noise can only help.
    pub(super) fn of(event: &Event, holds: impl Fn(&Event) -> bool) -> Self {
        Self { steps: most_steps(event, &holds), sigma: least_sigma(event, &holds) }
    }
}

fn most_steps(event: &Event, holds: impl Fn(&Event) -> bool) -> Option<u64> {
    let (mut fits, mut fails) = (0, event.count());
    while fits + 1 < fails {
        let middle = fits + (fails - fits) / 2;
        if holds(&event.with_count(middle)) {
            fits = middle;
        } else {
            fails = middle;
        }
    }
    (fits > 0).then_some(fits)
}

fn least_sigma(event: &Event, holds: impl Fn(&Event) -> bool) -> Option<Sigma> {
    let asked = event.sigma()?.get();
    let at = |sigma: f64| Sigma::new(sigma).ok().filter(|&sigma| holds(&event.with_sigma(sigma)));
    let mut fails = asked;
    let mut found = loop {
        let next = 2.0 * fails;
        match at(next) {
            Some(sigma) => break sigma,
            None if next > MOST_NOISE * asked => return None,
            None => fails = next,
        }
    };
    while found.get() / fails > 1.0 + PRECISION {
        let middle = (fails * found.get()).sqrt();
        match at(middle) {
            Some(sigma) => found = sigma,
            None => fails = middle,
        }
    }
    Some(found)
}

impl fmt::Display for Fits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded up: the noise shown must be enough too.
        let sigma = self.sigma.map(|sigma| (sigma.get() * 1e4).ceil() / 1e4);
        match (self.steps, sigma) {
            (Some(steps), Some(sigma)) => write!(f, "{steps} steps, or sigma {sigma:.4}, would fit"),
            (Some(steps), None) => write!(f, "{steps} would fit"),
            (None, Some(sigma)) => write!(f, "sigma {sigma:.4} would fit"),
            (None, None) => write!(f, "nothing of this kind fits any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Epsilon, Rate, Scale};

    fn dp_sgd(sigma: f64, steps: u64) -> Event {
        Event::PoissonGaussian { rate: Rate::new(0.1).unwrap(), sigma: Sigma::new(sigma).unwrap(), steps }
    }

    #[test]
    fn the_edges_are_found() {
        let holds = |event: &Event| event.count() as f64 <= 7.0 * event.sigma().unwrap().get();
        let fits = Fits::of(&dp_sgd(1.0, 100), holds);
        assert_eq!(fits.steps, Some(7));
        let sigma = fits.sigma.unwrap().get();
        assert!((100.0 / 7.0..100.0 / 7.0 * 1.001).contains(&sigma), "{sigma}");
        assert_eq!(
            fits.to_string(),
            format!("7 steps, or sigma {:.4}, would fit", (sigma * 1e4).ceil() / 1e4)
        );
    }

    #[test]
    fn nothing_may_fit() {
        assert_eq!(Fits::of(&dp_sgd(1.0, 100), |_| false), Fits::default());
        let laplace = Event::Laplace { scale: Scale::new(1.0).unwrap(), count: 4 };
        assert_eq!(Fits::of(&laplace, |event| event.count() < 3), Fits { steps: Some(2), sigma: None });
        let pure = Event::Pure { epsilon: Epsilon::new(1.0).unwrap() };
        assert_eq!(Fits::of(&pure, |_| false).to_string(), "nothing of this kind fits any more");
    }
}
