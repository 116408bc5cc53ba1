//! Synthetic records, plans that fit them, and the model of all rows in one place.

use std::{fmt::Write as _, fs, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use sheaf_agent::task::afl;
use sheaf_analytic::solve;
use sheaf_coordinator::{run::plan::Plan, workload::afl::AflOptions};
use sheaf_data::{AssetStore, Dataset, Encoding, Partition, SiteRows, Source, partition, survey};
use sheaf_proto::afl::SumsSpec;

use crate::random::Random;

/// Records and the plan that reads them.
#[derive(Clone)]
pub struct Study {
    /// All rows.
    pub dataset: Dataset,
    /// The plan's text.
    pub plan: String,
}

/// No asset is ever fetched by a test.
pub fn no_assets() -> AssetStore {
    AssetStore::new("no-assets".into(), None)
}

/// A plan for [`features`]; `run` is put into its `[run]` section.
pub fn features_plan(run: &str) -> String {
    format!("[run]\nname = 'features'\nworkload = 'afl'\n{run}\n[afl]\nlambda = 0.5\nbias = true\n")
}

/// Feature vectors of `classes` classes, every fifth row for testing. The encoding of features is fixed, so the
/// same question is asked whoever takes part.
pub fn features(rows: usize, dim: usize, classes: usize, seed: u64, run: &str) -> Study {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.safetensors");
    let mut random = Random::new(seed);
    let (mut x, mut y, mut split) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        let class = row % classes;
        for column in 0..dim {
            let centre = if column % classes == class { 0.6 } else { 0.0 };
            x.extend_from_slice(&((centre + random.unit()) as f32).to_le_bytes());
        }
        y.extend_from_slice(&(class as i64).to_le_bytes());
        split.push(u8::from(row % 5 == 4));
    }
    let tensors = [
        ("x", TensorView::new(Dtype::F32, vec![rows, dim], &x).unwrap()),
        ("y", TensorView::new(Dtype::I64, vec![rows], &y).unwrap()),
        ("split", TensorView::new(Dtype::U8, vec![rows], &split).unwrap()),
    ];
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    let source: Source = toml::from_str(&format!("kind = 'features'\ntrain = '{}'", path.display())).unwrap();
    open(&source, features_plan(run))
}

/// Names that stand for a person in [`table_with_canaries`].
pub const CANARIES: [&str; 2] = ["canary-ward-7f3a91", "canary-person-c04e55"];
/// A number that stands for a person.
pub const CANARY_NUMBER: f64 = 31_337.424_242;

/// The records of [`table`], read by a plan that declares what they may hold and has this `[privacy]` section.
pub fn private_table(rows: usize, seed: u64, run: &str, privacy: &str) -> Study {
    let plan = format!(
        "[run]\nname = 'private'\nworkload = 'afl'\n{run}\n{privacy}[schema]\ntarget = 'ill'\nid = 'id'\n\
         numeric = ['age', 'dose']\ncategorical = ['ward']\n[schema.missing]\ncategorical = 'zero'\n[schema.split]\n\
         test_fraction = 0.25\nseed = 3\n[schema.declared]\nclasses = ['0', '1']\nranges = {{ age = [40, 70], dose = [0, 3] }}\n\
         levels = {{ ward = ['north', 'south', 'east'] }}\n[afl]\nlambda = 2.0\n"
    );
    open_table(&table_text(rows, seed), plan)
}

/// The same study with a person in it who can be found again: a rare ward, a number nobody else has, an id.
pub fn table_with_canaries(study: Study) -> Study {
    let folder = tempfile::tempdir().unwrap();
    let source = study.dataset.write(folder.path()).unwrap();
    let Source::Table { path: Some(path), .. } = source else { panic!("not a table") };
    let text = fs::read_to_string(&path).unwrap();
    let header = text.lines().next().unwrap();
    // At every site, and in both splits.
    let person = |n: usize| {
        let cell = |column: &str| match column {
            "id" => format!("{}-{n}", CANARIES[1]),
            "ward" => CANARIES[0].to_owned(),
            "age" | "dose" => CANARY_NUMBER.to_string(),
            _ => "1".to_owned(),
        };
        header.split(',').map(cell).collect::<Vec<_>>().join(",") + "\n"
    };
    let people: String = (0..24).map(person).collect();
    open_table(&format!("{text}{people}"), study.plan)
}

/// A table with missing cells that is standardised, so that what is asked depends on who takes part.
pub fn table(rows: usize, seed: u64, run: &str) -> Study {
    let plan = format!(
        "[run]\nname = 'table'\nworkload = 'afl'\n{run}\n[schema]\ntarget = 'ill'\nid = 'id'\nnumeric = ['age', 'dose']\n\
         categorical = ['ward']\n[schema.missing]\nnumeric = 'indicator'\n[schema.split]\ntest_fraction = 0.25\n\
         seed = 3\n[afl]\nlambda = 2.0\nbias = true\n"
    );
    open_table(&table_text(rows, seed), plan)
}

fn open_table(text: &str, plan: String) -> Study {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.csv");
    fs::write(&path, text).unwrap();
    let source: Source = toml::from_str(&format!("kind = 'table'\npath = '{}'", path.display())).unwrap();
    open(&source, plan)
}

fn table_text(rows: usize, seed: u64) -> String {
    let mut random = Random::new(seed);
    let mut text = String::from("id,age,dose,ward,ill\n");
    for row in 0..rows {
        let ill = random.below(2);
        let age = 40.0 + 20.0 * random.unit() + 8.0 * ill as f64;
        let dose = match random.below(7) {
            0 => String::new(),
            _ => format!("{:.3}", random.unit() * 3.0),
        };
        let ward = ["north", "south", "east", ""][random.below(4) as usize];
        writeln!(text, "p{row},{age:.2},{dose},{ward},{ill}").unwrap();
    }
    text
}

fn open(source: &Source, plan: String) -> Study {
    let schema = Plan::parse(&plan).unwrap().schema;
    Study { dataset: source.open(&schema, &no_assets()).unwrap(), plan }
}

impl Study {
    /// The checked plan.
    pub fn parsed(&self) -> Plan {
        Plan::parse(&self.plan).unwrap()
    }

    /// Cuts the rows into sites: every row is at exactly one.
    pub fn cut(&self, how: &Partition) -> Vec<SiteRows> {
        partition(&self.dataset, &self.parsed().schema, how, false).unwrap()
    }

    /// Cuts the rows evenly.
    pub fn deal(&self, sites: usize) -> Vec<SiteRows> {
        self.cut(&Partition::Iid { sites, seed: 5 })
    }

    /// Writes the rows of a site and gives the source that opens them.
    pub fn write(&self, rows: &[usize], folder: &Path) -> Source {
        self.dataset.subset(rows).write(folder).unwrap()
    }

    /// SHA-256 of the model of all rows in one place.
    pub fn pooled_hash(&self) -> String {
        let all: Vec<_> = (0..self.dataset.len()).collect();
        self.hash_of(&all)
    }

    /// SHA-256 of the model of the rows of these sites in one place.
    pub fn hash_of_sites<'a>(&self, sites: impl IntoIterator<Item = &'a SiteRows>) -> String {
        let rows: Vec<_> = sites.into_iter().flat_map(|site| site.rows.clone()).collect();
        self.hash_of(&rows)
    }

    fn hash_of(&self, rows: &[usize]) -> String {
        let (plan, dataset) = (self.parsed(), self.dataset.subset(rows));
        let options = AflOptions::of(&plan).unwrap();
        let standardizes = options.standardizes(&plan);
        let survey = survey(&dataset, &plan.schema, standardizes).unwrap();
        let encoding = Encoding::decide(&survey, &plan.schema, standardizes).unwrap();
        let spec = SumsSpec {
            features: options.features(encoding.input_dim()),
            schema: plan.schema,
            encoding,
            privacy: None,
        };
        let sums = afl::sums(&spec, &dataset, &|| false).unwrap();
        solve(&sums, options.lambda).unwrap().sha256()
    }
}
