use super::{Digest, Entry, Head, Ledger, LedgerError, Released, Rule, StepToken};
use crate::Event;

/// Draws that one durable entry allows: one disk flush for so many steps, and so many steps at most lost to a crash.
const BLOCK: u64 = 16;

/// The right to take the steps of one reservation, charged whole until it ends.
///
/// It ends with [`Self::settle`] or [`Self::void`]. When it is dropped (an early return, a panic) it settles to the tokens it
/// issued; if that cannot be written it stays charged whole.
#[must_use = "the whole reservation stays charged until it is settled"]
pub struct Reservation {
    ledger: Ledger,
    id: u64,
    event: Event,
    issued: u64,
    block: u64,
    ended: bool,
}

impl Reservation {
    pub(super) fn new(ledger: Ledger, id: u64, event: Event, issued: u64) -> Self {
        Self { ledger, id, event, issued, block: BLOCK, ended: false }
    }

    /// Puts every draw on the disk by itself: a flush a step, and no step lost to a crash or to going on later. For steps that
    /// take much longer than a flush.
    pub fn one_by_one(self) -> Self {
        // Assigned to, not rebuilt: it has a Drop.
        let mut this = self;
        this.block = 1;
        this
    }

    /// Its name: the counter of its entry.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What was reserved.
    pub fn event(&self) -> Event {
        self.event
    }

    /// Tokens issued; after a resumption, all that may have been.
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// Tokens left.
    pub fn remaining(&self) -> u64 {
        self.event.count() - self.issued
    }

    /// The right to the next step. Where the draws on record are used up, it first puts a block of further ones on the disk.
    ///
    /// # Errors
    /// [`LedgerError::UsedUp`], [`LedgerError::Stale`]; a failing store. No token was issued then.
    pub fn token(&mut self) -> Result<StepToken, LedgerError> {
        let (reservation, reserved) = (self.id, self.event.count());
        if self.issued >= reserved {
            return Err(LedgerError::UsedUp { reservation, reserved });
        }
        let mut locked = self.ledger.lock();
        // Also where the block on record would do: a ledger found to be stale issues nothing more.
        locked.writable()?;
        let drawn = locked.books().charge(reservation).ok_or(Rule::NotOpen(reservation))?.drawn;
        if self.issued >= drawn {
            locked.append(Entry::Draw { reservation, upto: reserved.min(drawn + self.block) })?;
        }
        drop(locked);
        self.issued += 1;
        Ok(StepToken::new(reservation, self.issued, self.event))
    }

    /// Writes down what leaves the site, before it does. The same bytes again are free and make no entry.
    ///
    /// # Errors
    /// [`Rule::NotOpen`] before the first token: nothing can have been computed with noise. A failing store.
    pub fn release(&self, output: Digest) -> Result<Released, LedgerError> {
        let mut locked = self.ledger.lock();
        if let Some(entry) = locked.books().released(&output) {
            return Ok(Released::Before(entry));
        }
        locked.append(Entry::Release { reservation: self.id, output })?;
        Ok(Released::Now)
    }

    /// Ends it: from now on the tokens that were issued are charged.
    ///
    /// # Errors
    /// A failing store; it then stays charged whole.
    pub fn settle(mut self) -> Result<Head, LedgerError> {
        self.end()
    }

    /// Ends it without a charge.
    ///
    /// # Errors
    /// [`Rule::Drawn`] when a token was issued: it then settles. A failing store.
    pub fn void(mut self) -> Result<Head, LedgerError> {
        if self.issued > 0 {
            return Err(Rule::Drawn(self.id).into());
        }
        self.end()
    }

    fn end(&mut self) -> Result<Head, LedgerError> {
        self.ended = true;
        let mut locked = self.ledger.lock();
        locked.end(self.id);
        let drawn = locked.books().charge(self.id).ok_or(Rule::NotOpen(self.id))?.drawn;
        let (reservation, count) = (self.id, self.issued);
        locked.append(if drawn == 0 {
            Entry::Void { reservation }
        } else {
            Entry::Settle { reservation, count }
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.ended {
            // A failure leaves the reservation open, and so charged whole: the safe side, and all that a drop can do.
            drop(self.end());
        }
    }
}
