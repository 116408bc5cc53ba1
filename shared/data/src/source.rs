//! Where records are.

use crate::catalogue::{Catalogue, Kind, Role};
use crate::reader::{array, cifar, idx, images, table, text};
use crate::{AssetStore, DataError, Dataset, Schema, Split};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Where records are: `[data.NAME]` in an agent's file, `[data]` in a plan for simulation. Either paths or the id of
/// an asset of the catalogue.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A table with named columns: `.csv`, `.csv.gz` or `.parquet`.
    Table {
        /// The file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
        /// Or an asset.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asset: Option<String>,
    },
    /// Feature vectors: `.safetensors` with `x` `[N, d]` (f64, f32, f16, u8), `y` `[N]` (i64, i32, u8) and, if they
    /// are there, `site` `[N]` and `split` `[N]` (0 training, 1 test); or pairs of `.npy` files.
    Features {
        /// Safetensors.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train: Option<PathBuf>,
        /// Safetensors; all its rows are test rows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test: Option<PathBuf>,
        /// `.npy`, `[N, ...]`, trailing dimensions flattened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train_x: Option<PathBuf>,
        /// `.npy`, `[N]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train_y: Option<PathBuf>,
        /// `.npy`, `[N, ...]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test_x: Option<PathBuf>,
        /// `.npy`, `[N]`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test_y: Option<PathBuf>,
        /// Or an asset.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asset: Option<String>,
    },
    /// IDX files (the MNIST family), plain or `.gz`.
    Idx {
        /// Images, `[N, ...]` u8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train_x: Option<PathBuf>,
        /// Labels, `[N]` u8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train_y: Option<PathBuf>,
        /// Test images.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test_x: Option<PathBuf>,
        /// Test labels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test_y: Option<PathBuf>,
        /// Or an asset.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asset: Option<String>,
    },
    /// CIFAR-10 binary files (1 label byte, 3,072 bytes in planes R, G, B), plain or `.gz`.
    Cifar {
        /// Training batches, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        train: Vec<PathBuf>,
        /// Test batches, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        test: Vec<PathBuf>,
        /// Or an asset.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asset: Option<String>,
    },
    /// JPEG and PNG files with an index: a table with `label` and either `path` (relative to the index) or `offset` and
    /// `length` (bytes in `pack`) and, if they are there, `split`, `site`, `id`. The schema may name other columns. Rows
    /// become red, green and blue bytes `[height, width, 3]`.
    Images {
        /// The index, `.csv` or `.csv.gz`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<PathBuf>,
        /// Image files end to end in one file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pack: Option<PathBuf>,
        /// Scales every image to this height and width, cutting off what is too long of the longer side; without it all
        /// images must have one size already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<usize>,
        /// Or an asset.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asset: Option<String>,
    },
    /// Texts: `.jsonl` or `.jsonl.gz` with `text` and, if they are there, `id`, `split`, `label`, `answer`, `site`; or
    /// `.csv` with the columns `text` and `label` (or `category`).
    Text {
        /// The file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
        /// Or an asset.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asset: Option<String>,
    },
}

/// An array's inputs and, where there are any, labels.
type Pair = (PathBuf, Option<PathBuf>);

impl Source {
    /// Features in one safetensors file.
    pub(crate) fn features(train: PathBuf) -> Self {
        Self::Features {
            train: Some(train),
            test: None,
            train_x: None,
            train_y: None,
            test_x: None,
            test_y: None,
            asset: None,
        }
    }

    /// Makes relative paths relative to `base`, the folder of the file that names them.
    pub fn resolve_paths(&mut self, base: &Path) {
        for path in self.paths_mut() {
            // `join` keeps an absolute path as it is.
            *path = base.join(&*path);
        }
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Table { path, .. } | Self::Text { path, .. } => path.iter_mut().collect(),
            Self::Features { train, test, train_x, train_y, test_x, test_y, .. } => {
                [train, test, train_x, train_y, test_x, test_y].into_iter().flatten().collect()
            }
            Self::Idx { train_x, train_y, test_x, test_y, .. } => {
                [train_x, train_y, test_x, test_y].into_iter().flatten().collect()
            }
            Self::Cifar { train, test, .. } => train.iter_mut().chain(test).collect(),
            Self::Images { index, pack, .. } => index.iter_mut().chain(pack).collect(),
        }
    }

    /// SHA-256 over the content of all its files, whatever their names, order and the columns that are read: what a data
    /// set is to a privacy ledger. One byte more or less makes it another data set.
    ///
    /// # Errors
    /// A file cannot be read, an asset not fetched.
    pub fn digest(&self, assets: &AssetStore) -> Result<[u8; 32], DataError> {
        let paths: Vec<PathBuf> = match self.asset() {
            Some(id) => assets.ensure(id, &mut |_| {})?.files.into_iter().map(|(_, path)| path).collect(),
            None => self.clone().paths_mut().into_iter().map(|path| path.clone()).collect(),
        };
        let digests: BTreeSet<[u8; 32]> =
            paths.iter().map(|path| file_digest(path)).collect::<Result<_, _>>()?;
        let mut whole = Sha256::new();
        digests.iter().for_each(|digest| whole.update(digest));
        Ok(whole.finalize().into())
    }

    /// The id of the asset, where the source is one.
    pub fn asset(&self) -> Option<&str> {
        match self {
            Self::Table { asset, .. }
            | Self::Features { asset, .. }
            | Self::Idx { asset, .. }
            | Self::Cifar { asset, .. }
            | Self::Images { asset, .. }
            | Self::Text { asset, .. } => asset.as_deref(),
        }
    }

    /// True when the source has test files of its own, so that a simulation tests in one place. A `split` within
    /// one file (a column, a tensor, a field) is not that: those test rows belong to the sites.
    pub fn has_test(&self) -> bool {
        let own = match self {
            Self::Table { .. } | Self::Text { .. } | Self::Images { .. } => return false,
            Self::Features { test, test_x, .. } => test.is_some() || test_x.is_some(),
            Self::Idx { test_x, .. } => test_x.is_some(),
            Self::Cifar { test, .. } => !test.is_empty(),
        };
        own || self.asset().is_some_and(|id| {
            Catalogue::known()
                .ok()
                .and_then(|catalogue| {
                    catalogue
                        .find(id)
                        .ok()
                        .map(|asset| asset.has_role(Role::Test) || asset.has_role(Role::TestX))
                })
                .unwrap_or(false)
        })
    }

    /// Reads all records into memory. An asset that is not in the cache is fetched first, without showing progress;
    /// call [`AssetStore::ensure`] before to show it.
    ///
    /// # Errors
    /// Any [`DataError`] but survey, encoding and partition ones; readers name file, row and column.
    pub fn open(&self, schema: &Schema, assets: &AssetStore) -> Result<Dataset, DataError> {
        schema.validate()?;
        let dataset = match self.asset() {
            Some(id) => self.open_asset(id, schema, assets),
            None => self.open_paths(schema),
        }?;
        if dataset.is_empty() {
            return Err(DataError::Source("the data have no rows; check the paths".into()));
        }
        Ok(dataset)
    }

    fn open_paths(&self, schema: &Schema) -> Result<Dataset, DataError> {
        match self {
            Self::Table { path, .. } => table::read(required(path.as_ref(), "path")?, schema),
            Self::Text { path, .. } => {
                text::read(&[(required(path.as_ref(), "path")?.clone(), None)], None, schema)
            }
            Self::Cifar { train, test, .. } => cifar::read(train, test, schema),
            Self::Images { index, pack, size, .. } => {
                images::read(required(index.as_ref(), "index")?, pack.as_deref(), *size, schema)
            }
            Self::Idx { train_x, train_y, test_x, test_y, .. } => {
                let train = pair(train_x.as_ref(), train_y.as_ref(), "train_x")?;
                let test =
                    test_x.as_ref().map(|_| pair(test_x.as_ref(), test_y.as_ref(), "test_x")).transpose()?;
                idx::read(&train, test.as_ref(), schema)
            }
            Self::Features {
                train: Some(train),
                test,
                train_x: None,
                train_y: None,
                test_x: None,
                test_y: None,
                ..
            } => array::read_safetensors(train, test.as_deref(), schema),
            Self::Features { train: Some(_), .. } => Err(DataError::Source(
                "features come from train and test, or from *_x and *_y, not from both".into(),
            )),
            Self::Features { train_x, train_y, test_x, test_y, .. } => {
                let train = pair(train_x.as_ref(), train_y.as_ref(), "train (safetensors) or train_x (npy)")?;
                let test =
                    test_x.as_ref().map(|_| pair(test_x.as_ref(), test_y.as_ref(), "test_x")).transpose()?;
                array::read_npy(&train, test.as_ref(), schema)
            }
        }
    }

    fn open_asset(&self, id: &str, schema: &Schema, assets: &AssetStore) -> Result<Dataset, DataError> {
        if self.has_paths() {
            return Err(DataError::Source(format!("asset {id} and paths are both given; keep one of them")));
        }
        let catalogue = Catalogue::known()?;
        let asset = catalogue.find(id)?;
        let kind = asset.kind;
        if kind == Kind::Model {
            return Err(DataError::Source(format!("asset {id} is a model, not a data set")));
        }
        if kind != self.kind() {
            let (right, wrong) = (kind.name(), self.kind().name());
            return Err(DataError::Source(format!(
                "asset {id} is read with kind = \"{right}\", not \"{wrong}\""
            )));
        }
        let files = assets.ensure(id, &mut |_| {})?;
        let one = |role| files.paths(role).into_iter().next();
        let source = match self {
            Self::Table { .. } => Self::Table { path: one(Role::Records), asset: None },
            Self::Text { .. } => {
                let texts: Vec<_> = [
                    (Role::Records, None),
                    (Role::Train, Some(Split::Train)),
                    (Role::Test, Some(Split::Test)),
                ]
                .into_iter()
                .flat_map(|(role, split)| files.paths(role).into_iter().map(move |path| (path, split)))
                .collect();
                return text::read(&texts, asset.layout.as_ref(), schema);
            }
            Self::Features { .. } => Self::Features {
                train: one(Role::Train),
                test: one(Role::Test),
                train_x: one(Role::TrainX),
                train_y: one(Role::TrainY),
                test_x: one(Role::TestX),
                test_y: one(Role::TestY),
                asset: None,
            },
            Self::Idx { .. } => Self::Idx {
                train_x: one(Role::TrainX),
                train_y: one(Role::TrainY),
                test_x: one(Role::TestX),
                test_y: one(Role::TestY),
                asset: None,
            },
            Self::Images { size, .. } => {
                Self::Images { index: one(Role::Index), pack: one(Role::Pack), size: *size, asset: None }
            }
            Self::Cifar { .. } => {
                Self::Cifar { train: files.paths(Role::Train), test: files.paths(Role::Test), asset: None }
            }
        };
        source.open_paths(schema)
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Table { .. } => Kind::Table,
            Self::Features { .. } => Kind::Features,
            Self::Idx { .. } => Kind::Idx,
            Self::Cifar { .. } => Kind::Cifar,
            Self::Images { .. } => Kind::Images,
            Self::Text { .. } => Kind::Text,
        }
    }

    fn has_paths(&self) -> bool {
        match self {
            Self::Table { path, .. } | Self::Text { path, .. } => path.is_some(),
            Self::Features { train, test, train_x, train_y, test_x, test_y, .. } => {
                [train, test, train_x, train_y, test_x, test_y].into_iter().any(Option::is_some)
            }
            Self::Idx { train_x, train_y, test_x, test_y, .. } => {
                [train_x, train_y, test_x, test_y].into_iter().any(Option::is_some)
            }
            Self::Cifar { train, test, .. } => !train.is_empty() || !test.is_empty(),
            Self::Images { index, pack, .. } => index.is_some() || pack.is_some(),
        }
    }
}

fn file_digest(path: &Path) -> Result<[u8; 32], DataError> {
    let read = |e| DataError::read(path, e);
    let mut file = File::open(path).map_err(read)?;
    let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut block).map_err(read)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&block[..n]),
        }
    }
}

fn required<'a>(path: Option<&'a PathBuf>, key: &str) -> Result<&'a PathBuf, DataError> {
    path.ok_or_else(|| DataError::Source(format!("neither {key} nor asset is given; add one of them")))
}

fn pair(x: Option<&PathBuf>, y: Option<&PathBuf>, key: &str) -> Result<Pair, DataError> {
    Ok((required(x, key)?.clone(), y.cloned()))
}
