//! Writing a data set in its own kind, so that another process can open it.

use super::{Column, Dataset, Levels, Records, Split, Text, Values};
use crate::{DataError, Source};
use safetensors::{Dtype, tensor::TensorView};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

impl Dataset {
    /// Writes the records into `dir` (made if absent) and returns the source that opens them again with the same
    /// schema: a table as CSV with the cells as read (corrections applied), dense values as safetensors
    /// (`x` `[N, d]`, `y`, `split`, `site`), texts as JSON lines.
    ///
    /// # Errors
    /// [`DataError::Write`], or [`DataError::Source`] where dense labels are not whole numbers or only partly there.
    pub fn write(&self, dir: &Path) -> Result<Source, DataError> {
        std::fs::create_dir_all(dir).map_err(|e| DataError::write(dir, e))?;
        match &self.records {
            Records::Table(columns) => {
                let path = dir.join("records.csv");
                write_table(&path, columns, self.len())?;
                Ok(Source::Table { path: Some(path), asset: None })
            }
            Records::Dense { dim, values } => {
                let path = dir.join("records.safetensors");
                self.write_dense(&path, *dim, values)?;
                Ok(Source::features(path))
            }
            Records::Text(texts) => {
                let path = dir.join("records.jsonl");
                self.write_text(&path, texts)?;
                Ok(Source::Text { path: Some(path), asset: None })
            }
        }
    }

    fn write_dense(&self, path: &Path, dim: usize, values: &Values) -> Result<(), DataError> {
        let rows = self.len();
        let dtype = match values {
            Values::U8(_) => Dtype::U8,
            Values::F32(_) => Dtype::F32,
            Values::F64(_) => Dtype::F64,
        };
        let mut tensors: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = vec![
            ("x", dtype, vec![rows, dim], values.to_le_bytes()),
            (
                "split",
                Dtype::U8,
                vec![rows],
                self.split.iter().map(|&s| u8::from(s == Split::Test)).collect(),
            ),
        ];
        if let Some(labels) = integers(&self.labels, "labels")? {
            tensors.push(("y", Dtype::I64, vec![rows], labels));
        }
        if let Some(sites) = &self.sites
            && let Some(sites) = integers(sites, "sites")?
        {
            tensors.push(("site", Dtype::I64, vec![rows], sites));
        }
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|e| DataError::Source(format!("the records do not form tensors: {e}")))?;
        safetensors::serialize_to_file(views, None, path)
            .map_err(|e| DataError::write(path, std::io::Error::other(e.to_string())))
    }

    fn write_text(&self, path: &PathBuf, texts: &[Text]) -> Result<(), DataError> {
        let fail = |e: std::io::Error| DataError::write(path, e);
        let mut out = BufWriter::new(File::create(path).map_err(fail)?);
        for (row, text) in texts.iter().enumerate() {
            let mut line = serde_json::Map::new();
            let mut put = |key: &str, value: Option<&str>| {
                if let Some(value) = value {
                    line.insert(key.into(), value.into());
                }
            };
            put("id", text.id.as_deref());
            put("split", Some(if self.split[row] == Split::Test { "test" } else { "train" }));
            put("text", Some(&text.body));
            put("label", self.labels.get(row));
            put("answer", text.answer.as_deref());
            put("site", self.sites.as_ref().and_then(|sites| sites.get(row)));
            writeln!(out, "{}", serde_json::Value::Object(line)).map_err(fail)?;
        }
        out.flush().map_err(fail)
    }
}

fn write_table(path: &Path, columns: &[Column], rows: usize) -> Result<(), DataError> {
    let fail = |e: csv::Error| DataError::write(path, e.into());
    let mut out = csv::Writer::from_path(path).map_err(fail)?;
    out.write_record(columns.iter().map(|column| &column.name)).map_err(fail)?;
    for row in 0..rows {
        out.write_record(columns.iter().map(|column| column.cells.get(row).unwrap_or_default()))
            .map_err(fail)?;
    }
    out.flush().map_err(|e| DataError::write(path, e))
}

/// The names as little-endian 64-bit integers; `None` where no row has one.
fn integers(levels: &Levels, what: &str) -> Result<Option<Vec<u8>>, DataError> {
    if levels.codes().all(|code| code.is_none()) {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(levels.len() * 8);
    for name in levels.iter() {
        let number = name.and_then(|name| name.parse::<i64>().ok()).ok_or_else(|| {
            DataError::Source(format!(
                "{what} of dense records are written as integers, and some row has none"
            ))
        })?;
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    Ok(Some(bytes))
}
