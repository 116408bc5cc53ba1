use std::sync::{Arc, Mutex};

use super::super::{Row, Store, StoreError};

/// What becomes of the row whose append fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// It is gone.
    Lost,
    /// It is on the disk, though the writer was told of an error.
    Kept,
}

/// A disk that fails once and is dead from then on. The rows stay behind for whoever opens the ledger next.
pub(super) struct FaultStore {
    pub(super) disk: Arc<Mutex<Vec<Row>>>,
    /// Appends until the fault.
    pub(super) left: Arc<Mutex<Option<u64>>>,
    pub(super) fault: Fault,
}

impl Store for FaultStore {
    fn rows(&self) -> Result<Vec<Row>, StoreError> {
        Ok(self.disk.lock().unwrap().clone())
    }

    fn append(&mut self, row: &Row) -> Result<(), StoreError> {
        let mut left = self.left.lock().unwrap();
        match &mut *left {
            None => return Err(StoreError::Failed("dead".to_owned())),
            Some(0) => {
                *left = None;
                if self.fault == Fault::Kept {
                    self.disk.lock().unwrap().push(row.clone());
                }
                return Err(StoreError::Failed("power cut".to_owned()));
            }
            Some(left) => *left -= 1,
        }
        self.disk.lock().unwrap().push(row.clone());
        Ok(())
    }
}
