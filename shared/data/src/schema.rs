//! How columns are to be read: part of the plan, sent to every site, so that all sites read alike.

use crate::DataError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// Largest number of hashed text features: a Gram matrix of this size already takes 512 GiB.
const MAX_TEXT_DIM: usize = 1 << 18;
/// Pixels that images may be scaled to for a backbone.
const IMAGE_SIZES: RangeInclusive<usize> = 32..=1024;
/// Largest cut-off for texts; models have their own below it.
const MAX_TOKENS: usize = 8192;

/// How the columns of a table become a label and inputs. Every key is optional for features, images and text, which
/// carry their own labels.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Schema {
    /// Column that holds the label.
    pub target: Option<String>,
    /// Makes the target binary: a value above this is class `1`, any other is class `0`.
    pub positive_above: Option<f64>,
    /// Columns read as numbers, in the order of the inputs.
    pub numeric: Vec<String>,
    /// Columns read as names, one input for each name, after the numeric ones.
    pub categorical: Vec<String>,
    /// Column that names the row; only the split rule uses it.
    pub id: Option<String>,
    /// Column that names the site that owns the row.
    pub site: Option<String>,
    /// Which cells count as missing and what stands for them.
    pub missing: Missing,
    /// Known errors of the published files, mended while reading, in this order.
    pub corrections: Vec<Correction>,
    /// How rows are split into training and test where the source does not say.
    pub split: Option<SplitRule>,
    /// Inputs that hashed text gets.
    pub text_dim: usize,
    /// Which part of a text record is its text.
    #[serde(skip_serializing_if = "TextPart::is_default")]
    pub text: TextPart,
    /// A pre-trained model whose features stand for images or texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Backbone>,
    /// What is known of the records without looking at them, in place of a survey.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<Declared>,
}

/// The part of a text record that is read as its text.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TextPart {
    /// `text`.
    #[default]
    Text,
    /// `answer`, where the record has one.
    Answer,
    /// `context`, where the record has one, then `text`.
    WithContext,
    /// `text`, then the first of the tests in `meta`, where the record has any: it says what a program's function is called.
    WithTest,
}

impl TextPart {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::Text
    }
}

/// What is known of the records without looking at them: from a code book, not from the data. It takes the place of the
/// survey, whose counts and lists of names would tell about single records.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Declared {
    /// Every class there may be; rows of another are left out.
    pub classes: Vec<String>,
    /// Values of a row, for features, images and what a backbone makes of records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// Lowest and highest usual value of every numeric column: it is scaled to -1 to 1, and a missing one is the middle.
    pub ranges: BTreeMap<String, [f64; 2]>,
    /// Every name of every categorical column; others count as none. Where missing names are a level, so are they here.
    pub levels: BTreeMap<String, Vec<String>>,
}

impl Declared {
    fn validate(&self, schema: &Schema) -> Result<(), DataError> {
        let refuse = |problem: String| Err(DataError::Schema(format!("declared.{problem}")));
        if self.classes.is_empty() || self.classes.iter().collect::<BTreeSet<_>>().len() != self.classes.len()
        {
            return refuse("classes must name every class, each once".into());
        }
        for (what, named, columns) in [
            ("ranges", self.ranges.keys().collect::<BTreeSet<_>>(), &schema.numeric),
            ("levels", self.levels.keys().collect(), &schema.categorical),
        ] {
            let columns: BTreeSet<_> = columns.iter().collect();
            if let Some(column) = columns.symmetric_difference(&named).next() {
                return refuse(format!("{what} and the columns that are read differ in {column}"));
            }
        }
        let usable = |[low, high]: &[f64; 2]| low.is_finite() && high.is_finite() && low < high;
        if let Some((column, _)) = self.ranges.iter().find(|(_, range)| !usable(range)) {
            return refuse(format!("ranges.{column} must be [low, high] with low below high"));
        }
        if self.dim == Some(0) || (self.dim.is_some() && !(self.ranges.is_empty() && self.levels.is_empty()))
        {
            return refuse("dim is for rows without columns, and above 0".into());
        }
        if schema.backbone.is_some() && self.dim.is_none() {
            return refuse("dim must be the width of the backbone's features".into());
        }
        Ok(())
    }
}

/// A frozen pre-trained model that turns images or texts into feature vectors.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Backbone {
    /// Its id in the catalogue.
    pub model: String,
    /// The catalogue's hash of it, 64 hexadecimal digits. The coordinator fills it in; a site refuses another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Pixels that images are scaled to, height and width; 0 for the model's own.
    #[serde(default)]
    pub image_size: usize,
    /// Tokens after which texts are cut off; 0 for the model's own limit.
    #[serde(default)]
    pub max_tokens: usize,
}

impl Backbone {
    /// Checks the ranges of the options.
    fn validate(&self) -> Result<(), DataError> {
        let refuse = |problem: String| Err(DataError::Schema(problem));
        if self.model.is_empty() {
            return refuse("backbone.model is empty; name a model of the catalogue".into());
        }
        if self.sha256.as_ref().is_some_and(|hash| !hex::decode(hash).is_ok_and(|hash| hash.len() == 32)) {
            return refuse("backbone.sha256 must be 64 hexadecimal digits, or absent".into());
        }
        if self.image_size != 0 && !IMAGE_SIZES.contains(&self.image_size) {
            return refuse(format!("backbone.image_size must be 0 or 32 to 1024, not {}", self.image_size));
        }
        if self.max_tokens > MAX_TOKENS {
            return refuse(format!(
                "backbone.max_tokens must be at most {MAX_TOKENS}, not {}",
                self.max_tokens
            ));
        }
        Ok(())
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self {
            target: None,
            positive_above: None,
            numeric: Vec::new(),
            categorical: Vec::new(),
            id: None,
            site: None,
            missing: Missing::default(),
            corrections: Vec::new(),
            split: None,
            text_dim: 2048,
            text: TextPart::Text,
            backbone: None,
            declared: None,
        }
    }
}

/// Which cells are missing, and what stands for them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Missing {
    /// Cells that mean "missing" in every column, after trimming.
    pub values: Vec<String>,
    /// Further such cells of single columns, for example `chol = ["0"]`.
    pub extra: BTreeMap<String, Vec<String>>,
    /// What stands for a missing number.
    pub numeric: MissingNumeric,
    /// What stands for a missing name.
    pub categorical: MissingCategorical,
}

impl Default for Missing {
    fn default() -> Self {
        Self {
            values: ["", "NA", "?", "NaN"].map(String::from).to_vec(),
            extra: BTreeMap::new(),
            numeric: MissingNumeric::default(),
            categorical: MissingCategorical::default(),
        }
    }
}

impl Missing {
    /// True when `cell` means "missing" in `column`. Numbers are compared as numbers, so `0` also covers `0.0`.
    pub(crate) fn is_missing(&self, column: &str, cell: &str) -> bool {
        let cell = cell.trim();
        let same = |value: &String| {
            value == cell
                || matches!((value.parse::<f64>(), cell.parse::<f64>()), (Ok(a), Ok(b)) if a.total_cmp(&b).is_eq())
        };
        self.values.iter().any(|value| value == cell)
            || self.extra.get(column).is_some_and(|extra| extra.iter().any(same))
    }
}

/// What stands for a missing number.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum MissingNumeric {
    /// The mean over all sites' training rows.
    #[default]
    Mean,
    /// The number 0, before standardising.
    Zero,
    /// The mean, and one more input that is 1 where the number is missing (only for columns that lack one somewhere
    /// in the training rows).
    Indicator,
    /// Nothing: a missing number is an error.
    Refuse,
}

/// What stands for a missing name.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum MissingCategorical {
    /// A level of its own.
    #[default]
    Level,
    /// All inputs of the column are 0.
    Zero,
}

/// Mends known errors: in every row where `column` equals `equals`, the cells in `set` are replaced.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// Column that is looked at.
    pub column: String,
    /// The cell's text, exactly.
    pub equals: String,
    /// Column and new cell.
    pub set: BTreeMap<String, String>,
}

/// Splits rows into training and test where the source does not say itself.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct SplitRule {
    /// Column with `train`, `valid` or `0`, and `test` or `1`.
    pub column: Option<String>,
    /// Without a column: about this part of the rows is test. A row is test when the hash of (seed, id column or
    /// else the row's own content) is below it, whatever the order of the rows and whoever holds them.
    pub test_fraction: f64,
    /// Another seed, another split.
    pub seed: u64,
}

impl Schema {
    /// Every column of a table that reading by this schema looks into, sorted.
    pub fn columns(&self) -> Vec<String> {
        let split = self.split.as_ref().and_then(|split| split.column.as_ref());
        let corrected = self.corrections.iter().flat_map(|c| c.set.keys().chain([&c.column]));
        let named = self.numeric.iter().chain(&self.categorical);
        let single = self.target.iter().chain(&self.id).chain(&self.site).chain(split);
        named.chain(single).chain(corrected).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Checks that the schema does not contradict itself.
    ///
    /// # Errors
    /// [`DataError::Schema`] naming the key.
    pub fn validate(&self) -> Result<(), DataError> {
        let refuse = |problem: String| Err(DataError::Schema(problem));
        let mut seen = BTreeSet::new();
        for column in self.numeric.iter().chain(&self.categorical).chain(&self.target) {
            if !seen.insert(column) {
                return refuse(format!(
                    "column {column} is named twice among numeric, categorical and target; keep one"
                ));
            }
        }
        if self.positive_above.is_some_and(|v| !v.is_finite()) {
            return refuse("positive_above must be a finite number".into());
        }
        if self.positive_above.is_some() && self.target.is_none() {
            return refuse("positive_above needs a target column".into());
        }
        if self.text_dim == 0 || self.text_dim > MAX_TEXT_DIM {
            return refuse(format!("text_dim must be 1 to {MAX_TEXT_DIM}, not {}", self.text_dim));
        }
        for correction in &self.corrections {
            if correction.set.is_empty() {
                return refuse(format!(
                    "the correction of column {} sets nothing; add set = {{ .. }}",
                    correction.column
                ));
            }
        }
        if let Some(split) = &self.split
            && !(0.0..1.0).contains(&split.test_fraction)
        {
            return refuse(format!(
                "split.test_fraction must be at least 0 and below 1, not {}",
                split.test_fraction
            ));
        }
        if let Some(declared) = &self.declared {
            declared.validate(self)?;
        }
        if let Some(backbone) = &self.backbone {
            backbone.validate()?;
            if let Some(column) = self.numeric.iter().chain(&self.categorical).next() {
                return refuse(format!(
                    "a backbone reads images or texts, column {column} is of a table; keep one of them"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_schema_is_the_default_and_unknown_keys_are_refused() {
        let schema: Schema = toml::from_str("").unwrap();
        assert_eq!(schema, Schema::default());
        assert!(toml::from_str::<Schema>("targt = 'x'").is_err());
        assert!(toml::from_str::<Schema>("[missing]\nnumeric = 'guess'").is_err());
    }

    #[test]
    fn missing_cells_are_found_by_text_and_by_number() {
        let missing: Missing = toml::from_str("[extra]\nchol = ['0']").unwrap();
        for cell in ["", " ", "NA", "?", "NaN"] {
            assert!(missing.is_missing("age", cell), "{cell:?}");
        }
        assert!(missing.is_missing("chol", "0") && missing.is_missing("chol", "0.0"));
        assert!(!missing.is_missing("age", "0") && !missing.is_missing("chol", "200"));
    }

    #[test]
    fn contradictions_are_named() {
        let cases = [
            ("numeric = ['a']\ncategorical = ['a']", "named twice"),
            ("positive_above = 0.0", "needs a target"),
            ("target = 'y'\npositive_above = nan", "finite"),
            ("text_dim = 0", "text_dim"),
            ("[split]\ntest_fraction = 1.0", "test_fraction"),
            ("[declared]\nclasses = []", "every class"),
            ("numeric = ['a']\n[declared]\nclasses = ['0']", "differ in a"),
            ("[declared]\nclasses = ['0']\nlevels = { b = ['x'] }", "differ in b"),
            ("numeric = ['a']\n[declared]\nclasses = ['0']\nranges = { a = [1, 1] }", "low below high"),
            ("[declared]\nclasses = ['0']\ndim = 0", "above 0"),
            ("[declared]\nclasses = ['0']\n[backbone]\nmodel = 'm'", "width of the backbone"),
            ("[backbone]\nmodel = ''", "model is empty"),
            ("[backbone]\nmodel = 'm'\nimage_size = 8", "32 to 1024"),
            ("[backbone]\nmodel = 'm'\nsha256 = 'abc'", "64 hexadecimal"),
            ("[backbone]\nmodel = 'm'\nmax_tokens = 100000", "max_tokens"),
            ("numeric = ['a']\n[backbone]\nmodel = 'm'", "keep one"),
            ("[[corrections]]\ncolumn = 'id'\nequals = '3'\nset = {}", "sets nothing"),
        ];
        for (text, expected) in cases {
            let error = toml::from_str::<Schema>(text).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
