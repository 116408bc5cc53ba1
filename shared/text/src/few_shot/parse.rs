use crate::funnel::Step;
use crate::labels::Labels;
use crate::record::Labelled;
use crate::words::single_line;

/// What an answer held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The samples, labels by their names in the plan, texts on one line.
    pub samples: Vec<Labelled>,
    /// How many samples the answer had, and why some were dropped.
    pub step: Step,
}

/// Reads samples in the layout of [`layout`](super::layout) out of an answer.
///
/// Tolerant of what models add: numbering, bullets, bold keys, a delimiter repeated at the start or left out, keys in any
/// case, label and text on one line, an answer in a Markdown fence, words before the first sample and after a blank line.
/// A text goes on over lines up to a blank one, the next label or the next delimiter.
///
/// Strict on labels: [`Labels::find`] or dropped. Dropped and counted: "unknown label", "no label", "no text". An answer
/// that holds no sample gives none, with 0 in the step's `given`: ask again.
pub fn parse_generated(answer: &str, labels: &Labels) -> Generated {
    let mut reader = Reader {
        labels,
        label: None,
        text: None,
        closed: false,
        samples: Vec::new(),
        step: Step::new("parse", 0),
    };
    for line in answer.lines() {
        reader.line(line);
    }
    reader.finish();
    Generated { samples: reader.samples, step: reader.step }
}

struct Reader<'a> {
    labels: &'a Labels,
    /// The open sample's label as it was written.
    label: Option<String>,
    text: Option<String>,
    /// A blank line has ended the text.
    closed: bool,
    samples: Vec<Labelled>,
    step: Step,
}

impl Reader<'_> {
    fn line(&mut self, line: &str) {
        let line = line.trim();
        if let Some(label) = field(line, "label") {
            self.finish();
            self.take_label(label);
        } else if let Some(text) = field(line, "text") {
            if self.text.is_some() {
                self.finish();
            }
            self.text = Some(single_line(text));
        } else if is_delimiter(line) {
            self.finish();
        } else if line.is_empty() {
            self.closed = self.text.as_ref().is_some_and(|text| !text.is_empty());
        } else if !self.closed && (self.label.is_some() || self.text.is_some()) {
            let (text, line) = (self.text.get_or_insert_default(), single_line(line));
            if !text.is_empty() && !line.is_empty() {
                text.push(' ');
            }
            text.push_str(&line);
        }
    }

    /// A label, or a label and the text after it on the same line.
    fn take_label(&mut self, value: &str) {
        if self.labels.find(value).is_none() {
            let cut = value.char_indices().find_map(|(at, _)| {
                let text = key(&value[at..], "text")?;
                let label = value[..at].trim_end_matches([' ', '|', ',', ';', '-']);
                (at > 0 && value[..at].ends_with([' ', '|', ',', ';', '*'])).then_some((label, text))
            });
            if let Some((label, text)) = cut {
                self.label = Some(label.to_owned());
                self.text = Some(single_line(text));
                return;
            }
        }
        self.label = Some(value.to_owned());
    }

    fn finish(&mut self) {
        let (label, text) = (self.label.take(), self.text.take().filter(|text| !text.is_empty()));
        self.closed = false;
        if label.is_none() && text.is_none() {
            return;
        }
        self.step.given += 1;
        let known = label.as_ref().map(|label| self.labels.find(label));
        match (known, text) {
            (Some(Some(index)), Some(text)) => {
                self.samples.push(Labelled { text, label: self.labels.names()[index].clone() });
            }
            (None, _) => self.step.drop_one("no label"),
            (Some(None), _) => self.step.drop_one("unknown label"),
            (Some(Some(_)), None) => self.step.drop_one("no text"),
        }
    }
}

/// The value of a line `key: value`, behind numbering, bullets and a delimiter, with or without bold marks.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = line;
    loop {
        if let Some(value) = key(rest, name) {
            return Some(value);
        }
        let shorter = without_mark(rest);
        if shorter.len() == rest.len() {
            return None;
        }
        rest = shorter;
    }
}

/// The value of `key: value` at the very start.
fn key<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let bare = text.trim_start_matches('*');
    let bold = bare.len() < text.len();
    let rest = strip_word(bare, name)?;
    let rest = if bold { rest.trim_start_matches('*') } else { rest };
    let value = rest.trim_start().strip_prefix(':')?;
    let value = if bold { value.trim_start_matches('*') } else { value };
    Some(value.trim())
}

/// `text` behind the ASCII word `word`, in any case.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| &text[word.len()..])
}

/// Without one bullet, number or "Sample" at the start.
fn without_mark(text: &str) -> &str {
    let rest = text.trim_start_matches(|c: char| c.is_whitespace() || "#-=*•>([`".contains(c));
    if rest.len() < text.len() {
        return rest;
    }
    let word = strip_word(text, "sample").or_else(|| strip_word(text, "example"));
    let rest = word.map_or(text, str::trim_start);
    let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = digits.len() < rest.len();
    let after = digits.trim_start_matches([':', '.', ')', ']', '*', ' ', '-']);
    let marked = after.len() < digits.len() || digits.is_empty();
    if (numbered || word.is_some()) && marked { after } else { text }
}

/// Whether a whole line is a delimiter: rules, fences, numbers, "Sample 3:".
fn is_delimiter(line: &str) -> bool {
    if line.starts_with("```") {
        return true;
    }
    let mut rest = line;
    loop {
        let shorter = without_mark(rest);
        if shorter.is_empty() {
            return !rest.is_empty();
        }
        if shorter.len() == rest.len() {
            return false;
        }
        rest = shorter;
    }
}

#[cfg(test)]
mod tests;
