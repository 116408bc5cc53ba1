//! Texts: JSON lines, or CSV and Parquet with the columns `text` and `label` (or `category`).

use super::{bytes, parquet, table::RawColumn};
use crate::catalogue::Layout;
use crate::dataset::{Records, Tests, Text};
use crate::{DataError, Dataset, Levels, Schema, Split, TextPart, split};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The tests of an answer that is a program, in a line's `meta`. What else may stand there is anybody's.
#[derive(Deserialize)]
struct Meta {
    tests: Vec<String>,
    #[serde(default)]
    setup: String,
}

impl Meta {
    fn tests(meta: serde_json::Value) -> Option<Tests> {
        let meta: Self = serde_json::from_value(meta).ok()?;
        (!meta.tests.is_empty()).then_some(Tests { setup: meta.setup, asserts: meta.tests })
    }
}

/// One line. Other keys are left aside.
#[derive(Deserialize)]
struct Line {
    id: Option<String>,
    split: Option<String>,
    text: String,
    #[serde(alias = "category")]
    label: Option<String>,
    answer: Option<String>,
    context: Option<String>,
    site: Option<String>,
    #[serde(default)]
    meta: serde_json::Value,
}

/// What the rows of one file are for where the file does not say.
pub(crate) type TextFile = (PathBuf, Option<Split>);

/// Reads the files one after the other; with a layout they are CSV without a header.
pub(crate) fn read(
    files: &[TextFile],
    layout: Option<&Layout>,
    schema: &Schema,
) -> Result<Dataset, DataError> {
    let mut texts = Vec::new();
    let (mut labels, mut splits, mut sites) = (Vec::new(), Vec::new(), Vec::new());
    for (path, of_file) in files {
        for (row, line) in lines(path, layout)?.into_iter().enumerate() {
            let split = match (line.split.as_deref(), of_file) {
                (Some(name), _) => split::parse(name).ok_or_else(|| {
                    DataError::cell(
                        path,
                        row,
                        "split",
                        "is none of train, valid, prompt and test; leave such rows out",
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
            let tests = Meta::tests(line.meta);
            let body = match (schema.text, &line.answer) {
                (TextPart::Answer, Some(answer)) => answer.clone(),
                (TextPart::WithContext, _) => match line.context {
                    Some(context) => format!("{context}\n{}", line.text),
                    None => line.text,
                },
                (TextPart::WithTest, _) => match tests.as_ref().and_then(|tests| tests.asserts.first()) {
                    // A data set that was written with it has it already.
                    Some(test) if !line.text.ends_with(test) => format!("{}\n{test}", line.text),
                    _ => line.text,
                },
                _ => line.text,
            };
            texts.push(Text { id: line.id, body, answer: line.answer, tests });
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

fn lines(path: &Path, layout: Option<&Layout>) -> Result<Vec<Line>, DataError> {
    let extension = bytes::extension(path);
    if extension == "parquet" {
        return of_columns(path, parquet::read(path)?);
    }
    let reader = bytes::open(path)?;
    match extension.as_str() {
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
        "csv" => of_csv(path, reader, layout),
        other => Err(DataError::file(
            path,
            format!("ends in .{other}; texts are read from .jsonl, .jsonl.gz, .csv and .parquet"),
        )),
    }
}

fn of_csv(path: &Path, reader: impl Read, layout: Option<&Layout>) -> Result<Vec<Line>, DataError> {
    let mut csv = csv::Reader::from_reader(reader);
    if let Some(layout) = layout {
        // Before the first row is read: it stays a row then.
        csv.set_headers(csv::StringRecord::from(layout.columns.clone()));
    }
    let named = |label: String, row: usize| match layout.map(|layout| &layout.classes) {
        Some(classes) if !classes.is_empty() => {
            let place = label.trim().parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            place.and_then(|place| classes.get(place)).cloned().ok_or_else(|| {
                DataError::cell(path, row, "label", format!("is none of 1 to {}", classes.len()))
            })
        }
        _ => Ok(label),
    };
    let read = |(row, line): (usize, Result<Line, csv::Error>)| {
        // The message names a place and a column, and never quotes the text.
        let line =
            line.map_err(|e| DataError::row(path, row, format!("not a row with the column text: {e}")))?;
        Ok(Line { label: line.label.map(|label| named(label, row)).transpose()?, ..line })
    };
    csv.deserialize().enumerate().map(read).collect()
}

fn of_columns(path: &Path, columns: Vec<RawColumn>) -> Result<Vec<Line>, DataError> {
    let mut by_name: BTreeMap<String, Vec<String>> =
        columns.into_iter().map(|column| (column.name, column.cells)).collect();
    let names: Vec<String> = by_name.keys().cloned().collect();
    let text = by_name.remove("text").ok_or_else(|| {
        DataError::file(path, format!("has no column text; its columns are {}", names.join(", ")))
    })?;
    let mut labels = by_name.remove("label").or_else(|| by_name.remove("category"));
    let mut others = ["id", "split", "answer", "site", "context"].map(|name| by_name.remove(name));
    let take = |column: &mut Option<Vec<String>>, row: usize| {
        let cell = column.as_mut().and_then(|cells| cells.get_mut(row)).map(std::mem::take);
        cell.filter(|cell| !cell.is_empty())
    };
    let line = |(row, text): (usize, String)| {
        let label = take(&mut labels, row);
        let [id, split, answer, site, context] = &mut others;
        let (id, split) = (take(id, row), take(split, row));
        let (answer, context, site) = (take(answer, row), take(context, row), take(site, row));
        Line { id, split, text, label, answer, context, site, meta: serde_json::Value::Null }
    };
    Ok(text.into_iter().enumerate().map(line).collect())
}
