//! What a ledger tells people: `ledger show`, and the figures a site signs for the report.

use serde::{Deserialize, Serialize, de::Error as _};

use super::{
    Broken, Cap, Charge, Digest, Head, Ledger, LedgerError, PrivacyUnit, Row, Rule, RunId, books::Books,
    budget, chain::replay,
};
use crate::{
    Delta, Epsilon, Event,
    accountant::{Account, AccountError, Composition},
};

/// First line of what a site signs.
const HEADER: &[u8] = b"sheaf-spend-statement-1\n";

/// What was spent on a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spent {
    /// Every accountant's epsilon of what was done, at the cap's delta. The PLD one is the spent epsilon. Absent when no finite
    /// epsilon holds: the site has lowered delta since.
    pub account: Option<Account>,
    /// What admissions count, which may be more: `ledger/budget.rs`.
    pub counted: f64,
    /// The cap less what is counted: at least this much more fits.
    pub left: f64,
}

/// A data set's page of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatasetSpend {
    /// Cap, unit and delta.
    pub cap: Cap,
    /// What was spent.
    pub spent: Spent,
    /// Every reservation.
    pub charges: Vec<Charge>,
}

/// What a run cost, for the site to sign. Adjacency is add/remove of one privacy unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The run.
    pub run: RunId,
    /// The data set.
    pub dataset: Digest,
    /// The unit.
    pub privacy_unit: PrivacyUnit,
    /// Plans of the run's reservations.
    pub plans: Vec<Digest>,
    /// What the run did, or may have done.
    pub events: Vec<Event>,
    /// The delta of these figures: the one the run asked for, the smallest where it asked for several.
    pub delta: Delta,
    /// PLD epsilon of the run, upper estimate: what it spent.
    pub epsilon_pld: Epsilon,
    /// Rényi epsilon of the run.
    pub epsilon_rdp: Epsilon,
    /// PLD epsilon of the run under replace-one.
    pub epsilon_replace_one: Epsilon,
    /// PLD epsilon of everything done with the data set, at the cap's delta.
    pub epsilon_total: Epsilon,
    /// The cap.
    pub cap: Epsilon,
    /// The cap's delta.
    pub cap_delta: Delta,
    /// The ledger's head at that moment: for the coordinator to remember.
    pub head: Head,
    /// Unix seconds.
    pub at: u64,
}

impl Statement {
    /// The bytes to sign and to check a signature over.
    ///
    /// # Errors
    /// None in practice: all fields have a JSON form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = HEADER.to_vec();
        serde_json::to_writer(&mut bytes, self)?;
        Ok(bytes)
    }

    /// Reads what [`Self::to_bytes`] gives.
    ///
    /// # Errors
    /// Bytes without the header line, or with another document after it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let body =
            bytes.strip_prefix(HEADER).ok_or_else(|| serde_json::Error::custom("it lacks its header"))?;
        serde_json::from_slice(body)
    }
}

impl DatasetSpend {
    fn of(books: &Books, cap: &Cap) -> Result<Self, LedgerError> {
        let counted = budget::counted(books, cap)?;
        let account = match budget::account(books, cap) {
            Err(AccountError::Unbounded { .. }) => None,
            account => Some(account?),
        };
        let spent = Spent { account, counted, left: (cap.epsilon.get() - counted).max(0.0) };
        Ok(Self { cap: cap.clone(), spent, charges: budget::of(books, cap).cloned().collect() })
    }

    /// The pages of a ledger that is not open for spending: `ledger show` beside a running agent.
    ///
    /// # Errors
    /// [`Broken`] at the first entry that is not good.
    pub fn read(rows: &[Row]) -> Result<Vec<Self>, LedgerError> {
        let books = replay(rows)?;
        books.caps().map(|cap| Self::of(&books, cap)).collect()
    }
}

impl Ledger {
    /// Every data set's page.
    ///
    /// # Errors
    /// Parameters without a meaning.
    pub fn show(&self) -> Result<Vec<DatasetSpend>, LedgerError> {
        let locked = self.lock();
        locked.books().caps().map(|cap| DatasetSpend::of(locked.books(), cap)).collect()
    }

    /// What a run cost on a data set; nothing when it never reserved.
    ///
    /// # Errors
    /// Accounts without a finite epsilon.
    pub fn statement(&self, run: &RunId, dataset: &Digest) -> Result<Option<Statement>, LedgerError> {
        let locked = self.lock();
        let books = locked.books();
        let cap = books.cap(dataset).ok_or(Rule::NoCap { dataset: *dataset })?;
        let charges: Vec<&Charge> = budget::of(books, cap).filter(|c| c.request.run == *run).collect();
        let Some(delta) = charges.iter().map(|c| c.request.delta).min_by(|a, b| a.get().total_cmp(&b.get()))
        else {
            return Ok(None);
        };
        let events: Vec<Event> = charges.iter().filter_map(|c| c.event()).collect();
        let own = events.iter().copied().collect::<Composition>().account(delta)?;
        let mut plans: Vec<Digest> = charges.iter().map(|c| c.request.plan).collect();
        plans.dedup();
        Ok(Some(Statement {
            run: run.clone(),
            dataset: *dataset,
            privacy_unit: cap.privacy_unit.clone(),
            plans,
            events,
            delta,
            epsilon_pld: own.epsilon_pld,
            epsilon_rdp: own.epsilon_rdp,
            epsilon_replace_one: own.epsilon_replace_one,
            epsilon_total: budget::account(books, cap)?.epsilon_pld,
            cap: cap.epsilon,
            cap_delta: cap.delta,
            head: books.head(),
            at: locked.now(),
        }))
    }

    /// Reads the store again and walks its chain.
    ///
    /// # Errors
    /// [`LedgerError::Broken`] with the first entry that is not good; a failing store.
    pub fn verify(&self) -> Result<Head, LedgerError> {
        let head = super::verify(&self.lock().rows()?)?;
        let ours = self.head();
        if head == ours {
            return Ok(head);
        }
        let reason = "the store has other entries than this process wrote or read".to_owned();
        Err(Broken { counter: head.counter.min(ours.counter) + 1, reason }.into())
    }
}
