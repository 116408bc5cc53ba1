//! Whether a reservation fits under the cap.
//!
//! **Claim.** Whatever is admitted, all releases from a data set together are (epsilon, delta)-DP at the cap, add/remove,
//! though each run, its noise and its length may be chosen after seeing the results of all before it.
//!
//! **Why it holds.** The Rényi filter sums costs at orders fixed by the cap; such sums stay a bound when each cost is chosen
//! after the results so far ([`crate::accountant::filter`] has the sources). Privacy-loss distributions are tighter, but
//! adding them up is proved for costs fixed beforehand. So they decide only where there is nothing to add to: one event on
//! a data set with nothing charged. Such a reservation is counted whole for ever, also when it ends early, since a second run
//! after an early end would be an adaptive choice again.
//!
//! **Test.** `ledger/tests/budget.rs`.

use super::{
    books::{Books, Charge},
    entry::{Basis, Cap, Request},
};
use crate::{
    Event,
    accountant::{Account, AccountError, Composition, Filter},
};

/// The bound under which a request fits, or the refusal with its numbers.
pub(super) fn admit(books: &Books, cap: &Cap, request: &Request) -> Result<Basis, AccountError> {
    let counted: Vec<Event> = of(books, cap).filter_map(Charge::counted).collect();
    let mut filter = Filter::new(cap.epsilon, cap.delta)?;
    for event in &counted {
        filter.record(event);
    }
    let Err(refusal) = filter.check(&request.event) else { return Ok(Basis::Renyi) };
    if !counted.is_empty() {
        return Err(refusal);
    }
    Composition::new().fits(&request.event, cap.epsilon, cap.delta)?;
    Ok(Basis::LossDistribution)
}

/// What was spent on a data set, at its cap's delta, by every accountant.
pub(super) fn account(books: &Books, cap: &Cap) -> Result<Account, AccountError> {
    of(books, cap).filter_map(Charge::event).collect::<Composition>().account(cap.delta)
}

/// Epsilon by the filter: what admissions go by.
pub(super) fn counted(books: &Books, cap: &Cap) -> Result<f64, AccountError> {
    let mut filter = Filter::new(cap.epsilon, cap.delta)?;
    for event in of(books, cap).filter_map(Charge::counted) {
        filter.record(&event);
    }
    Ok(filter.spent())
}

pub(super) fn of<'a>(books: &'a Books, cap: &'a Cap) -> impl Iterator<Item = &'a Charge> {
    books.charges().filter(|charge| charge.request.dataset == cap.dataset)
}
