//! Where rows are kept. The ledger's promises hold if a store keeps its one: when `append` returns Ok, the row survives
//! a power cut.

use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use super::chain::Row;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Another process wrote the entry first.
    #[error("another process wrote entry {0} of the ledger meanwhile; open the ledger again")]
    Conflict(u64),
    /// The row may be there or not.
    #[error("the ledger's store failed: {0}; see to the disk, then open the ledger again")]
    Failed(String),
    /// It holds something else than a ledger's rows.
    #[error("the ledger's store is damaged: {0}; restore it from the newest good copy")]
    Damaged(String),
}

/// A durable list of rows that only grows.
pub trait Store: Send {
    /// All rows in order.
    fn rows(&self) -> Result<Vec<Row>, StoreError>;

    /// Adds the next row and makes it durable before returning. After an error the row may be there or not.
    fn append(&mut self, row: &Row) -> Result<(), StoreError>;
}

/// Rows in memory, shared by its clones: for simulations and tests. Nothing survives the process.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Vec<Row>>>);

impl Store for MemoryStore {
    fn rows(&self) -> Result<Vec<Row>, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn append(&mut self, row: &Row) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if row.counter != rows.len() as u64 + 1 {
            return Err(StoreError::Conflict(row.counter));
        }
        rows.push(row.clone());
        Ok(())
    }
}
