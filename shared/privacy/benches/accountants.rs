//! Seconds on the clock of the accountants; the best of several runs. `cargo bench -p sheaf-privacy`.

use std::{hint::black_box, time::Instant};

use sheaf_privacy::{
    Delta, Epsilon, Event, Rate, Sigma, UnitError,
    accountant::{AccountError, Adjacency, Calibration, Composition, Estimate, Pld},
};

fn best(name: &str, work: impl Fn() -> Result<f64, AccountError>) -> Result<(), AccountError> {
    let mut least = f64::INFINITY;
    let mut result = 0.0;
    for _ in 0..5 {
        let start = Instant::now();
        result = black_box(work())?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    println!("{name:<58} {least:>8.3} s   {result:.6}");
    Ok(())
}

fn dp_sgd(q: f64, sigma: f64, steps: u64) -> Result<Event, UnitError> {
    Ok(Event::PoissonGaussian { rate: Rate::new(q)?, sigma: Sigma::new(sigma)?, steps })
}

fn main() -> Result<(), AccountError> {
    let delta = Delta::new(1e-5)?;
    for (q, sigma, steps) in
        [(0.064, 1.0, 78), (0.0043, 0.7, 10_530), (0.128, 0.6, 78), (0.01, 2.0, 1_000_000)]
    {
        let events = [dp_sgd(q, sigma, steps)?];
        for adjacency in [Adjacency::AddRemove, Adjacency::ReplaceOne] {
            best(&format!("PLD {adjacency:?} q {q} sigma {sigma} steps {steps}"), || {
                Ok(Pld::of(&events, adjacency, Estimate::Pessimistic).epsilon(delta)?.get())
            })?;
        }
    }
    let many: Result<Vec<Event>, UnitError> =
        (0..100).map(|i| dp_sgd(0.01 + 1e-4 * f64::from(i), 1.0 + 0.01 * f64::from(i), 78)).collect();
    let many = many?;
    for estimate in [Estimate::Pessimistic, Estimate::Optimistic] {
        best(&format!("PLD of 100 different runs, {estimate:?}"), || {
            Ok(Pld::of(&many, Adjacency::AddRemove, estimate).epsilon(delta)?.get())
        })?;
    }
    best("RDP of the same", || {
        Ok(many.iter().copied().collect::<Composition>().rdp().epsilon(delta)?.0.get())
    })?;
    let asked =
        Calibration { epsilon: Epsilon::new(4.0)?, delta, rate: Rate::new(0.064)?, steps: 78, records: None };
    best("calibration, epsilon 4, q 0.064, steps 78", || Ok(asked.solve()?.sigma.get()))
}
