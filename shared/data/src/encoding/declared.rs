//! An encoding from what a plan declares, without a look at any record.

use std::collections::BTreeSet;

use super::{ColumnEncoding, Encoding, Inputs};
use crate::schema::{Declared, MissingCategorical, MissingNumeric};
use crate::{DataError, Schema};

impl Encoding {
    /// The encoding that a schema declares; `None` where it declares none and a survey must decide. A pure function of the
    /// schema: what it gives is as public as the plan.
    ///
    /// # Errors
    /// [`DataError::Schema`] where the schema contradicts itself, [`DataError::Encoding`] where there are no inputs or too
    /// many.
    pub fn declared(schema: &Schema) -> Result<Option<Self>, DataError> {
        schema.validate()?;
        let Some(declared) = &schema.declared else {
            return Ok(None);
        };
        let columns = schema.numeric.len() + schema.categorical.len();
        let inputs = match declared.dim {
            Some(dim) => Inputs::Dense { dim, standardize: None },
            None if columns == 0 => Inputs::HashedText { dim: schema.text_dim },
            None => {
                let numeric = schema.numeric.iter().map(|name| numeric(name, declared, schema));
                let categorical = schema.categorical.iter().map(|name| categorical(name, declared, schema));
                Inputs::Table { columns: numeric.chain(categorical).collect() }
            }
        };
        let encoding = Self { classes: declared.classes.clone(), inputs };
        encoding.check()?;
        Ok(Some(encoding))
    }
}

fn numeric(name: &str, declared: &Declared, schema: &Schema) -> ColumnEncoding {
    let [low, high] = declared.ranges[name];
    let policy = schema.missing.numeric;
    let mean = f64::midpoint(low, high);
    ColumnEncoding::Numeric {
        name: name.to_owned(),
        mean,
        std: (high - low) / 2.0,
        fill: match policy {
            MissingNumeric::Mean | MissingNumeric::Indicator => Some(mean),
            MissingNumeric::Zero => Some(0.0),
            MissingNumeric::Refuse => None,
        },
        // Whether any number is missing is private, so the column is there in any case.
        indicator: policy == MissingNumeric::Indicator,
    }
}

fn categorical(name: &str, declared: &Declared, schema: &Schema) -> ColumnEncoding {
    let mut categories: BTreeSet<String> = declared.levels[name].iter().cloned().collect();
    if schema.missing.categorical == MissingCategorical::Level {
        categories.insert(String::new());
    }
    ColumnEncoding::Categorical { name: name.to_owned(), categories: categories.into_iter().collect() }
}
