//! Whose rows are whose: what differential privacy protects.

use std::collections::BTreeMap;

use super::{Dataset, Records, Split};
use crate::DataError;

/// The name of the privacy unit where every row is one.
pub const ROW_UNIT: &str = "row";

impl Dataset {
    /// The rows of a split by privacy unit: `row`, a table's column whose equal cells are one unit (empty cells too: rows
    /// that nobody is named for share one unit, which costs accuracy and no privacy), or `id` of texts.
    ///
    /// # Errors
    /// [`DataError::Schema`] where the data have no such column.
    pub fn units(&self, unit: &str, split: Split) -> Result<Vec<Vec<usize>>, DataError> {
        let rows = self.rows(split);
        if unit == ROW_UNIT {
            return Ok(rows.into_iter().map(|row| vec![row]).collect());
        }
        let mut units: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
        match &self.records {
            Records::Table(_) => {
                let cells = &self.column(unit)?.cells;
                for row in rows {
                    units.entry(cells.get(row).map(str::trim)).or_default().push(row);
                }
            }
            Records::Text(texts) if unit == "id" => {
                for row in rows {
                    units.entry(texts[row].id.as_deref()).or_default().push(row);
                }
            }
            Records::Text(_) | Records::Dense { .. } => {
                return Err(DataError::Schema(format!(
                    "the data have no column {unit} that could be the privacy unit; tables have columns, texts have id, \
                     and all data have {ROW_UNIT}"
                )));
            }
        }
        Ok(units.into_values().collect())
    }
}
