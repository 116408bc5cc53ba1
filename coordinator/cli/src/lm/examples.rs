//! Examples to tune on, from a JSONL file.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use sheaf_models::train::Example;

/// Reads `.jsonl` or `.jsonl.gz`: one object a line with `prompt` and `response`, or `text` and `answer`, or `text` alone.
pub(super) fn read(path: &Path) -> Result<Vec<Example>> {
    let file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let zipped = path.extension().is_some_and(|e| e == "gz");
    let reader: Box<dyn Read> =
        if zipped { Box::new(flate2::read::GzDecoder::new(file)) } else { Box::new(file) };
    let mut examples = Vec::new();
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let at = || format!("{}, line {}", path.display(), number + 1);
        let line = line.with_context(at)?;
        if line.trim().is_empty() {
            continue;
        }
        let record: Value = serde_json::from_str(&line).with_context(at)?;
        let text = |key: &str| record[key].as_str().map(str::to_owned);
        let example = match (text("prompt"), text("response"), text("text"), text("answer")) {
            (prompt, Some(response), ..) => Example { prompt: prompt.unwrap_or_default(), response },
            (None, None, Some(prompt), Some(response)) => Example { prompt, response },
            (None, None, Some(response), None) => Example { prompt: String::new(), response },
            _ => bail!("{}: needs prompt and response, or text and answer, or text", at()),
        };
        if example.response.trim().is_empty() {
            bail!("{}: the text to learn is empty", at());
        }
        examples.push(example);
    }
    anyhow::ensure!(!examples.is_empty(), "{} holds no examples", path.display());
    Ok(examples)
}
