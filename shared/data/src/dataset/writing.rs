//! Writing a data set in its own kind, so that another process can open it.

use super::{Column, Dataset, Levels, Records, Split, Text, Values};
use crate::{DataError, Source};
use safetensors::{Dtype, tensor::TensorView};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

impl Dataset {
    /// Writes the records into `dir` (made if absent) and returns the source that opens them again with the same
    /// schema: a table as CSV with the cells as read (corrections applied), dense values as safetensors in their own
    /// type (`x` `[N, d]`, of images `[N, h, w, c]` or `[N, c, h, w]`; `y`, `split`, `site`), texts as JSON lines.
    /// Labels and sites that are not whole numbers are written as places in the lists `y.names` and `site.names` of the
    /// file's metadata, -1 where a row has none.
    ///
    /// # Errors
    /// [`DataError::Write`].
    pub fn write(&self, dir: &Path) -> Result<Source, DataError> {
        std::fs::create_dir_all(dir).map_err(|e| DataError::write(dir, e))?;
        match &self.records {
            Records::Table(columns) => {
                let path = dir.join("records.csv");
                write_table(&path, columns, self.len())?;
                Ok(Source::Table { path: Some(path), asset: None })
            }
            Records::Dense { dim, values, image } => {
                let path = dir.join("records.safetensors");
                let shape: Vec<usize> = match image {
                    Some(image) => std::iter::once(self.len()).chain(image.dims()).collect(),
                    None => vec![self.len(), *dim],
                };
                self.write_dense(&path, shape, values)?;
                Ok(Source::features(path))
            }
            Records::Text(texts) => {
                let path = dir.join("records.jsonl");
                self.write_text(&path, texts)?;
                Ok(Source::Text { path: Some(path), asset: None })
            }
        }
    }

    fn write_dense(&self, path: &Path, shape: Vec<usize>, values: &Values) -> Result<(), DataError> {
        let rows = self.len();
        let dtype = match values {
            Values::U8(_) => Dtype::U8,
            Values::F32(_) => Dtype::F32,
            Values::F64(_) => Dtype::F64,
        };
        let mut tensors: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = vec![
            ("x", dtype, shape, values.to_le_bytes()),
            (
                "split",
                Dtype::U8,
                vec![rows],
                self.split.iter().map(|&s| u8::from(s == Split::Test)).collect(),
            ),
        ];
        let mut names = HashMap::new();
        for (name, levels) in [("y", Some(&self.labels)), ("site", self.sites.as_ref())] {
            let Some(levels) = levels.filter(|levels| levels.codes().any(|code| code.is_some())) else {
                continue;
            };
            let numbers = integers(levels).unwrap_or_else(|| {
                names.insert(format!("{name}.names"), serde_json::Value::from(levels.names()).to_string());
                levels.codes().map(|code| code.map_or(-1, i64::from)).collect()
            });
            tensors.push((
                name,
                Dtype::I64,
                vec![rows],
                numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
            ));
        }
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|e| DataError::Source(format!("the records do not form tensors: {e}")))?;
        safetensors::serialize_to_file(views, (!names.is_empty()).then_some(names), path)
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
            if let Some(tests) = &text.tests {
                let meta = serde_json::json!({ "tests": tests.asserts, "setup": tests.setup });
                line.insert("meta".into(), meta);
            }
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

/// Every row's name as the whole number that it is; `None` where some row's is not one, or is not written plainly.
fn integers(levels: &Levels) -> Option<Vec<i64>> {
    let number = |name: &String| name.parse::<i64>().ok().filter(|number| number.to_string() == *name);
    let of_level: Vec<_> = levels.names().iter().map(number).collect();
    levels.codes().map(|code| of_level[code? as usize]).collect()
}
