//! Texts: JSON lines, or CSV with the columns `text` and `label` (or `category`).

use super::bytes;
use crate::dataset::{Records, Text};
use crate::{DataError, Dataset, Levels, Schema, Split, TextPart, split};
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// One line. Further keys (`context`, `meta`) are left aside.
#[derive(Deserialize)]
struct Line {
    id: Option<String>,
    split: Option<String>,
    text: String,
    #[serde(alias = "category")]
    label: Option<String>,
    answer: Option<String>,
    site: Option<String>,
}

/// What the rows of one file are for where the file does not say.
pub(crate) type TextFile = (PathBuf, Option<Split>);

/// Reads the files one after the other.
pub(crate) fn read(files: &[TextFile], schema: &Schema) -> Result<Dataset, DataError> {
    let mut texts = Vec::new();
    let (mut labels, mut splits, mut sites) = (Vec::new(), Vec::new(), Vec::new());
    for (path, of_file) in files {
        for (row, line) in lines(path)?.into_iter().enumerate() {
            let split = match (line.split.as_deref(), of_file) {
                (Some(name), _) => split::parse(name).ok_or_else(|| {
                    DataError::cell(
                        path,
                        row,
                        "split",
                        "is none of train, valid and test; leave such rows out",
                    )
                })?,
                (None, Some(split)) => *split,
                (None, None) => {
                    let content = line.id.as_deref().unwrap_or(&line.text);
                    split::decide(schema.split.as_ref(), std::iter::once(content.as_bytes()))
                }
            };
            splits.push(split);
            labels.push(line.label);
            sites.push(line.site);
            let body = match (schema.text, &line.answer) {
                (TextPart::Answer, Some(answer)) => answer.clone(),
                _ => line.text,
            };
            texts.push(Text { id: line.id, body, answer: line.answer });
        }
    }
    let has_sites = sites.iter().any(Option::is_some);
    Ok(Dataset {
        records: Records::Text(texts),
        labels: Levels::new(labels),
        split: splits,
        sites: has_sites.then(|| Levels::new(sites)),
    })
}

fn lines(path: &Path) -> Result<Vec<Line>, DataError> {
    let reader = bytes::open(path)?;
    match bytes::extension(path).as_str() {
        "jsonl" | "ndjson" => BufReader::new(reader)
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.as_ref().is_ok_and(|line| line.trim().is_empty()))
            .map(|(row, line)| {
                let line = line.map_err(|e| DataError::read(path, e))?;
                // The parser's message names a place but never quotes the text.
                serde_json::from_str(&line).map_err(|e| {
                    let problem = format!(
                        "not a JSON object with a text: {:?} error at character {}",
                        e.classify(),
                        e.column()
                    );
                    DataError::row(path, row, problem)
                })
            })
            .collect(),
        "csv" => csv::Reader::from_reader(reader)
            .deserialize()
            .enumerate()
            .map(|(row, line)| {
                line.map_err(|e| DataError::row(path, row, format!("not a row with the column text: {e}")))
            })
            .collect(),
        other => Err(DataError::file(
            path,
            format!("ends in .{other}; texts are read from .jsonl, .jsonl.gz and .csv"),
        )),
    }
}
