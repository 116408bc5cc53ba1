use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Cap, Charge, Digest, Entry, Head, LedgerError, Record, Request, Reservation, Rule, RunId, Standing,
    Store, StoreError,
    books::Books,
    budget,
    chain::{replay, seal},
};

type Clock = Box<dyn Fn() -> u64 + Send>;

/// An open ledger. Its clones are the same ledger; calls block on the disk.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<Inner>>);

struct Inner {
    store: Box<dyn Store>,
    clock: Clock,
    books: Books,
    /// Reservations in use by this process.
    live: BTreeSet<u64>,
    /// An append failed: the disk may be ahead of `books`.
    uncertain: bool,
    /// A head that this ledger should have passed and has not.
    remembered: Option<Head>,
}

/// Whether bytes are new to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Written down now.
    Now,
    /// The same bytes left before, under this entry: free.
    Before(u64),
}

impl Ledger {
    /// Reads and verifies the whole chain. `clock` gives Unix seconds. With a `remembered` head that this ledger never had,
    /// it opens for reading and spends nothing: every other call then answers [`LedgerError::Stale`].
    ///
    /// # Errors
    /// [`LedgerError::Broken`], [`LedgerError::Store`].
    pub fn open(
        store: impl Store + 'static,
        clock: impl Fn() -> u64 + Send + 'static,
        remembered: Option<Head>,
    ) -> Result<Self, LedgerError> {
        let books = replay(&store.rows()?)?;
        let inner = Inner {
            store: Box::new(store),
            clock: Box::new(clock),
            remembered: remembered.filter(|head| !books.has_passed(*head)),
            books,
            live: BTreeSet::new(),
            uncertain: false,
        };
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        Locked(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest entry: for the coordinator to remember.
    pub fn head(&self) -> Head {
        self.lock().0.books.head()
    }

    /// Holds this ledger against a head that another party remembers. Once it fails, nothing is spent any more.
    ///
    /// # Errors
    /// [`LedgerError::Stale`].
    pub fn compare(&self, remembered: Head) -> Result<(), LedgerError> {
        let mut locked = self.lock();
        if locked.0.books.has_passed(remembered) {
            return Ok(());
        }
        locked.0.remembered = Some(remembered);
        Err(LedgerError::Stale { ours: locked.0.books.head(), remembered })
    }

    /// Takes in what another process has appended to the same store: a cap, set while an agent runs.
    ///
    /// # Errors
    /// [`LedgerError::Broken`]; [`LedgerError::Stale`] where the store has lost entries that this ledger has seen; a failing
    /// store.
    pub fn refresh(&self) -> Result<(), LedgerError> {
        let mut locked = self.lock();
        let books = replay(&locked.rows()?)?;
        let ours = locked.0.books.head();
        if !books.has_passed(ours) {
            locked.0.remembered = Some(ours);
            return Err(LedgerError::Stale { ours: books.head(), remembered: ours });
        }
        locked.0.books = books;
        Ok(())
    }

    /// Sets, raises or lowers the cap of a data set. A decision of the site: no message of a coordinator may lead here.
    ///
    /// # Errors
    /// [`Rule::OtherUnit`] while anything is charged under another unit; a failing store.
    pub fn set_cap(&self, cap: Cap) -> Result<Head, LedgerError> {
        self.lock().append(Entry::Cap { cap })
    }

    /// Charges the whole of a request, durably, before anything is drawn.
    ///
    /// # Errors
    /// [`LedgerError::Account`] over the cap, [`Rule::NoCap`], [`Rule::OtherUnit`], [`Rule::Nothing`], a failing store.
    pub fn reserve(&self, request: Request) -> Result<Reservation, LedgerError> {
        let mut locked = self.lock();
        locked.writable()?;
        let dataset = request.dataset;
        let cap = locked.0.books.cap(&dataset).ok_or(Rule::NoCap { dataset })?;
        let basis = budget::admit(&locked.0.books, cap, &request)?;
        let event = request.event;
        let head = locked.append(Entry::Reserve { basis, request })?;
        locked.0.live.insert(head.counter);
        drop(locked);
        Ok(Reservation::new(self.clone(), head.counter, event, 0))
    }

    /// Every reservation, oldest first.
    pub fn charges(&self) -> Vec<Charge> {
        self.lock().0.books.charges().cloned().collect()
    }

    /// Reservations that no process has settled, oldest first.
    pub fn open_reservations(&self) -> Vec<Charge> {
        self.lock().0.books.charges().filter(|c| c.standing == Standing::Open).cloned().collect()
    }

    /// Goes on with a reservation after a crash. Every draw on record counts as made, so up to 16 steps may be lost.
    ///
    /// # Errors
    /// [`Rule::NotOpen`], [`LedgerError::InUse`].
    pub fn resume(&self, reservation: u64) -> Result<Reservation, LedgerError> {
        let mut locked = self.lock();
        locked.writable()?;
        let charge = locked
            .0
            .books
            .charge(reservation)
            .filter(|charge| charge.standing == Standing::Open)
            .ok_or(Rule::NotOpen(reservation))?;
        let (event, drawn) = (charge.request.event, charge.drawn);
        if !locked.0.live.insert(reservation) {
            return Err(LedgerError::InUse(reservation));
        }
        drop(locked);
        Ok(Reservation::new(self.clone(), reservation, event, drawn))
    }

    /// Ends what a crash left open, but for runs that will be resumed: whole, though fewer steps may have been done; void
    /// where no draw is on record, since then no token was issued. Returns the reservations that were ended.
    ///
    /// # Errors
    /// A failing store.
    pub fn recover(&self, resumed: &[RunId]) -> Result<Vec<u64>, LedgerError> {
        let mut locked = self.lock();
        let left: Vec<(u64, u64, u64)> = locked
            .0
            .books
            .charges()
            .filter(|c| c.standing == Standing::Open && !locked.0.live.contains(&c.reservation))
            .filter(|c| !resumed.contains(&c.request.run))
            .map(|c| (c.reservation, c.drawn, c.request.event.count()))
            .collect();
        for (reservation, drawn, count) in &left {
            let (reservation, count) = (*reservation, *count);
            locked.append(match drawn {
                0 => Entry::Void { reservation },
                _ => Entry::Settle { reservation, count },
            })?;
        }
        Ok(left.into_iter().map(|(reservation, ..)| reservation).collect())
    }

    /// The entry under which these very bytes left before: sending them again is free.
    pub fn released(&self, output: &Digest) -> Option<u64> {
        self.lock().0.books.released(output)
    }
}

/// The ledger while one caller has it.
pub(super) struct Locked<'a>(MutexGuard<'a, Inner>);

impl Locked<'_> {
    pub(super) fn books(&self) -> &Books {
        &self.0.books
    }

    pub(super) fn rows(&self) -> Result<Vec<super::Row>, StoreError> {
        self.0.store.rows()
    }

    pub(super) fn now(&self) -> u64 {
        (self.0.clock)()
    }

    pub(super) fn end(&mut self, reservation: u64) {
        self.0.live.remove(&reservation);
    }

    pub(super) fn writable(&self) -> Result<(), LedgerError> {
        if let Some(remembered) = self.0.remembered {
            return Err(LedgerError::Stale { ours: self.0.books.head(), remembered });
        }
        if self.0.uncertain { Err(LedgerError::Uncertain) } else { Ok(()) }
    }

    /// Writes an entry durably, then counts it.
    pub(super) fn append(&mut self, entry: Entry) -> Result<Head, LedgerError> {
        self.writable()?;
        self.0.books.check(&entry)?;
        let head = self.0.books.head();
        let record = Record { counter: head.counter + 1, at: self.now(), entry };
        let row = seal(head, &record)?;
        if let Err(error) = self.0.store.append(&row) {
            self.0.uncertain = true;
            return Err(error.into());
        }
        self.0.books.apply(&record, row.hash)?;
        Ok(self.0.books.head())
    }
}
