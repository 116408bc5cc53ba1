//! The right to draw noise once.

use crate::Event;

/// One step or release that the ledger has charged. Every function that draws noise takes one and uses it up, and takes the
/// amount of noise from it: noise that nobody accounted for does not compile.
///
/// A token is made by [`Reservation::token`](super::Reservation::token) and by nothing else:
///
/// ```compile_fail,E0451
/// # use sheaf_privacy::{Event, Epsilon, ledger::StepToken};
/// let event = Event::Pure { epsilon: Epsilon::new(1.0).unwrap() };
/// let forged = StepToken { reservation: 1, step: 1, event };
/// ```
///
/// ```compile_fail,E0599
/// # use sheaf_privacy::ledger::StepToken;
/// fn again(token: StepToken) -> (StepToken, StepToken) {
///     (token.clone(), token)
/// }
/// ```
///
/// Using it up moves it, so it cannot pay twice:
///
/// ```compile_fail,E0382
/// # use sheaf_privacy::{dpsgd::*, ledger::StepToken};
/// fn twice(a: ClippedSum, b: ClippedSum, units: PublicUnits, token: StepToken, noise: &mut NoiseStream) {
///     a.privatise(units, token, noise).unwrap();
///     b.privatise(units, token, noise).unwrap();
/// }
/// ```
///
/// Once is fine:
///
/// ```
/// # use sheaf_privacy::{dpsgd::*, ledger::StepToken};
/// fn once(sum: ClippedSum, units: PublicUnits, token: StepToken, noise: &mut NoiseStream) {
///     sum.privatise(units, token, noise).unwrap();
/// }
/// ```
#[derive(Debug, PartialEq)]
#[must_use = "the step is charged whether noise is drawn or not"]
pub struct StepToken {
    reservation: u64,
    step: u64,
    event: Event,
}

impl StepToken {
    pub(super) fn new(reservation: u64, step: u64, event: Event) -> Self {
        Self { reservation, step, event: event.with_count(1) }
    }

    /// The reservation it belongs to.
    pub fn reservation(&self) -> u64 {
        self.reservation
    }

    /// Its place among the reservation's steps, from 1.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// What it pays for: one step or release.
    pub fn event(&self) -> Event {
        self.event
    }
}
