//! Cutting one data set into sites for a simulation, seeded: the same plan gives the same sites on every machine.

mod dirichlet;
mod random;
#[cfg(test)]
mod tests;

use crate::{DataError, Dataset, Levels, Schema, Split};
use random::Random;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most sites a partition may have.
const SITES_LIMIT: usize = 100_000;

/// How rows are spread over sites.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Partition {
    /// The sites that the data name.
    Column {
        /// A column of the table; without it the schema's `site`, or the sites the source names.
        #[serde(default)]
        column: Option<String>,
    },
    /// Shuffled and dealt out evenly.
    Iid {
        /// Number of sites.
        sites: usize,
        /// Another seed, another partition; 0 when absent.
        #[serde(default)]
        seed: u64,
    },
    /// Label skew (Hsu et al. 2019; Li et al. 2022): for every class the parts of the sites are drawn from
    /// Dirichlet(`alpha`, .., `alpha`); sites that already hold their even share of rows get no more.
    Dirichlet {
        /// Number of sites.
        sites: usize,
        /// Smaller is more skewed; above 0.
        alpha: f64,
        /// Another seed, another partition; 0 when absent.
        #[serde(default)]
        seed: u64,
        /// Every site gets at least so many training rows: missing ones are taken from the largest site.
        #[serde(default = "one")]
        min_rows: usize,
    },
    /// Rows sorted by class are cut into `sites * shards` pieces, of which every site gets `shards` (McMahan et al.
    /// 2017).
    Shards {
        /// Number of sites.
        sites: usize,
        /// Pieces of each site; about the number of classes it sees.
        shards: usize,
        /// Another seed, another partition; 0 when absent.
        #[serde(default)]
        seed: u64,
    },
}

fn one() -> usize {
    1
}

/// The rows of one simulated site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRows {
    /// The column's value in lower case with `-` for other characters, or `site-0001` and so on.
    pub name: String,
    /// Rows of the data set, ascending, training and test.
    pub rows: Vec<usize>,
}

/// Spreads rows over sites. With `central_test` only training rows are spread, for the test is one file apart; else
/// test rows are spread too, by the same rule: every row is at exactly one site. Every site has a training row, except
/// that a site named by a column has the rows that it has.
///
/// # Errors
/// [`DataError::Partition`] where there are too few rows, a number is out of range, or a row names no site.
pub fn partition(
    dataset: &Dataset,
    schema: &Schema,
    partition: &Partition,
    central_test: bool,
) -> Result<Vec<SiteRows>, DataError> {
    let train = dataset.rows(Split::Train);
    let test = if central_test { Vec::new() } else { dataset.rows(Split::Test) };
    let sites = match *partition {
        Partition::Column { ref column } => {
            return by_column(dataset, schema, column.as_deref(), train, test);
        }
        Partition::Iid { sites, seed } => {
            demand(sites, 1, train.len())?;
            let mut random = Random::new("iid", seed);
            let mut parts = vec![Vec::new(); sites];
            for rows in [train, test] {
                let mut rows = rows;
                random.shuffle(&mut rows);
                rows.into_iter().enumerate().for_each(|(at, row)| parts[at % sites].push(row));
            }
            parts
        }
        Partition::Dirichlet { sites, alpha, seed, min_rows } => {
            demand(sites, min_rows.max(1), train.len())?;
            if !alpha.is_finite() || alpha <= 0.0 {
                return Err(DataError::Partition(format!("alpha must be above 0, not {alpha}")));
            }
            let mut random = Random::new("dirichlet", seed);
            dirichlet::split(&by_class(dataset, &train, &test), sites, alpha, min_rows.max(1), &mut random)
        }
        Partition::Shards { sites, shards, seed } => {
            if shards == 0 || shards > SITES_LIMIT {
                return Err(DataError::Partition(format!("shards must be 1 to {SITES_LIMIT}, not {shards}")));
            }
            demand(sites, shards, train.len())?;
            by_shards(&by_class(dataset, &train, &test), sites, shards, &mut Random::new("shards", seed))
        }
    };
    let digits = sites.len().to_string().len().max(4);
    Ok(sites
        .into_iter()
        .enumerate()
        .map(|(at, mut rows)| {
            rows.sort_unstable();
            SiteRows { name: format!("site-{:0digits$}", at + 1), rows }
        })
        .collect())
}

fn demand(sites: usize, each: usize, rows: usize) -> Result<(), DataError> {
    if sites == 0 || sites > SITES_LIMIT {
        return Err(DataError::Partition(format!("sites must be 1 to {SITES_LIMIT}, not {sites}")));
    }
    match sites.checked_mul(each) {
        Some(needed) if needed <= rows => Ok(()),
        _ => Err(DataError::Partition(format!(
            "{sites} sites with {each} each need more than the {rows} training rows there are; ask for fewer sites"
        ))),
    }
}

/// Training and test rows of one class.
struct ClassRows {
    train: Vec<usize>,
    test: Vec<usize>,
}

/// The rows of every class, in the order of the names; rows without a label come first.
fn by_class(dataset: &Dataset, train: &[usize], test: &[usize]) -> Vec<ClassRows> {
    let mut classes: BTreeMap<Option<u32>, ClassRows> = BTreeMap::new();
    let mut of = |row: usize, split: Split| {
        let class = classes
            .entry(dataset.labels().code(row))
            .or_insert_with(|| ClassRows { train: Vec::new(), test: Vec::new() });
        if split == Split::Train {
            class.train.push(row);
        } else {
            class.test.push(row);
        }
    };
    for &row in train {
        of(row, Split::Train);
    }
    for &row in test {
        of(row, Split::Test);
    }
    classes.into_values().collect()
}

fn by_shards(classes: &[ClassRows], sites: usize, shards: usize, random: &mut Random) -> Vec<Vec<usize>> {
    let pieces = sites * shards;
    let mut owners: Vec<usize> = (0..pieces).map(|piece| piece / shards).collect();
    random.shuffle(&mut owners);
    let mut parts = vec![Vec::new(); sites];
    for rows in [|class: &ClassRows| class.train.clone(), |class: &ClassRows| class.test.clone()] {
        let mut sorted = Vec::new();
        for class in classes {
            let mut rows = rows(class);
            random.shuffle(&mut rows);
            sorted.extend(rows);
        }
        for (piece, &owner) in owners.iter().enumerate() {
            let cut = |at: usize| (at as u128 * sorted.len() as u128 / pieces as u128) as usize;
            parts[owner].extend_from_slice(&sorted[cut(piece)..cut(piece + 1)]);
        }
    }
    parts
}

fn by_column(
    dataset: &Dataset,
    schema: &Schema,
    column: Option<&str>,
    train: Vec<usize>,
    test: Vec<usize>,
) -> Result<Vec<SiteRows>, DataError> {
    let owners: &Levels = match column {
        Some(column) if Some(column) != schema.site.as_deref() => &dataset.column(column)?.cells,
        _ => dataset.sites().ok_or_else(|| {
            DataError::Partition(
                "the data name no sites; set schema.site or partition.column, or use iid or dirichlet".into(),
            )
        })?,
    };
    let mut sites: BTreeMap<String, (&str, Vec<usize>)> = BTreeMap::new();
    for row in train.into_iter().chain(test) {
        let owner = owners.get(row).ok_or_else(|| {
            DataError::Partition(format!("row {} names no site; correct it in the schema", row + 1))
        })?;
        let name = slug(owner);
        let site = sites.entry(name.clone()).or_insert_with(|| (owner, Vec::new()));
        if name.is_empty() || site.0 != owner {
            let problem =
                format!("row {}: its site has no name of its own in letters and digits; correct it", row + 1);
            return Err(DataError::Partition(problem));
        }
        site.1.push(row);
    }
    Ok(sites
        .into_iter()
        .map(|(name, (_, mut rows))| {
            rows.sort_unstable();
            SiteRows { name, rows }
        })
        .collect())
}

/// Lower-case letters and digits, `-` for everything between them: `VA Long Beach` becomes `va-long-beach`.
fn slug(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}
