//! Features that were computed before, on the disk: one safetensors file a model with its options and device, with
//! `digest` `[n, 32]` (SHA-256 of what the model read), `check` `[n, 8]` (the head of the SHA-256 of the row's bytes) and
//! `features` `[n, dim]`.
//!
//! Only the rows that are wanted are read, so that a hundred agents of a simulation can share one large file. A file or
//! row that is damaged counts as not there. Features are private like the records they come from: the file is its owner's
//! alone (mode 0600), and a site's file holds no records but those that are in its data now.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use safetensors::{Dtype, tensor::TensorView};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use sheaf_data::Backbone;

use super::Watch;
use crate::{VERSION, error::AgentError, task::Resources};

/// SHA-256 of what a model reads of a record.
pub(super) type Digest = [u8; 32];

/// Bytes of a row's check.
const CHECK: usize = 8;
/// Longest header that is read; ours has a few hundred bytes.
const HEADER_LIMIT: u64 = 1 << 16;
/// Between two looks whether another task is done.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Where features of one kind are kept.
pub(super) struct Cache {
    path: PathBuf,
    shared: bool,
}

/// Features of the wanted records, as far as they are known.
pub(super) struct Table {
    dim: usize,
    values: Vec<f32>,
    known: Vec<bool>,
    /// Records in the file, wanted or not.
    in_file: usize,
}

impl Cache {
    /// The cache of a model with its options on a device; a site's also by data set.
    pub(super) fn new(resources: &Resources<'_>, backbone: &Backbone, device: &str) -> Self {
        let mut hash = Sha256::new();
        // Another version may compute another last bit.
        let owner = resources.owner.unwrap_or_default();
        let sha256 = backbone.sha256.as_deref().unwrap_or_default();
        for part in ["sheaf features 1", VERSION, device, owner, &backbone.model, sha256] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update((backbone.image_size as u64).to_le_bytes());
        hash.update((backbone.max_tokens as u64).to_le_bytes());
        let name = format!("{}-{}.safetensors", backbone.model, &hex::encode(hash.finalize())[..32]);
        Self { path: resources.cache.join("features").join(name), shared: resources.owner.is_none() }
    }

    /// A cache in one file, for tests.
    #[cfg(test)]
    pub(super) fn at(path: PathBuf, shared: bool) -> Self {
        Self { path, shared }
    }

    /// What is there of the wanted records, which are all different.
    pub(super) fn read(&self, wanted: &[Digest]) -> Table {
        let empty = Table { dim: 0, values: Vec::new(), known: vec![false; wanted.len()], in_file: 0 };
        match Stored::open(&self.path).and_then(|mut stored| stored.table(wanted)) {
            Ok((table, 0)) => table,
            Ok((table, damaged)) => {
                tracing::warn!(
                    "{}: {damaged} rows are damaged and will be computed again",
                    self.path.display()
                );
                table
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => empty,
            Err(error) => {
                tracing::warn!("{}: {error}; the features will be computed again", self.path.display());
                empty
            }
        }
    }

    /// Whether the file holds records that the data no longer have and that must go.
    pub(super) fn has_others(&self, table: &Table) -> bool {
        !self.shared && table.in_file > table.known.len()
    }

    /// Keeps the known rows: in a site's cache these alone, in a shared one beside what is there.
    pub(super) fn write(&self, wanted: &[Digest], table: &Table) -> Result<(), AgentError> {
        let (mut digests, mut values) = (Vec::new(), Vec::new());
        for (place, digest) in wanted.iter().enumerate().filter(|(place, _)| table.known[*place]) {
            digests.extend_from_slice(digest);
            values.extend_from_slice(table.row(place));
        }
        if self.shared
            && let Ok(mut stored) = Stored::open(&self.path)
            && stored.dim == table.dim
        {
            stored.others(wanted, &mut digests, &mut values).map_err(AgentError::file(&self.path))?;
        }
        if values.is_empty() {
            return Ok(());
        }
        save(&self.path, &digests, table.dim, &values).map_err(AgentError::file(&self.path))
    }

    /// Waits until no other task, agent or process computes into this cache.
    pub(super) fn lock(&self, watch: Watch<'_>) -> Result<File, AgentError> {
        let path = self.path.with_extension("lock");
        make_folder(&path).map_err(AgentError::file(&path))?;
        let file = File::create(&path).map_err(AgentError::file(&path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => {
                    watch(0, 0)?;
                    std::thread::sleep(LOCK_POLL);
                }
                Err(fs::TryLockError::Error(source)) => return Err(AgentError::File { path, source }),
            }
        }
    }
}

impl Table {
    pub(super) fn is_complete(&self) -> bool {
        self.known.iter().all(|&known| known)
    }

    /// Places of the wanted records that are to be computed.
    pub(super) fn missing(&self) -> Vec<usize> {
        (0..self.known.len()).filter(|&place| !self.known[place]).collect()
    }

    pub(super) const fn dim(&self) -> usize {
        self.dim
    }

    /// Rows of another width than the model's are worth nothing.
    pub(super) fn expect_dim(&mut self, dim: usize) {
        if self.dim != dim {
            self.known.fill(false);
            self.dim = dim;
        }
        self.values.resize(self.known.len() * dim, 0.0);
    }

    pub(super) fn set(&mut self, place: usize, row: &[f32]) {
        self.values[place * self.dim..(place + 1) * self.dim].copy_from_slice(row);
        self.known[place] = true;
    }

    pub(super) fn row(&self, place: usize) -> &[f32] {
        &self.values[place * self.dim..(place + 1) * self.dim]
    }
}

/// One tensor of a safetensors header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// A cache file, open, its header read.
struct Stored {
    file: File,
    digests: Vec<Digest>,
    checks: Vec<u8>,
    dim: usize,
    /// Where the features begin.
    offset: u64,
}

fn damaged(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a whole feature cache: {problem}"))
}

impl Stored {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_LIMIT {
            return Err(damaged("its header is too long"));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header)?;
        let entries: BTreeMap<String, Entry> =
            serde_json::from_slice(&header).map_err(|_| damaged("its header cannot be read"))?;
        let base = 8 + length;
        // Offset and shape of a two-dimensional tensor that lies within the file.
        let find = |name: &str, dtype: &str, width: u64| {
            let entry = entries.get(name).filter(|entry| entry.dtype == dtype)?;
            let &[rows, columns] = entry.shape.as_slice() else { return None };
            let bytes = (rows as u64).checked_mul(columns as u64)?.checked_mul(width)?;
            let (from, to) = entry.data_offsets;
            let whole = from.checked_add(bytes) == Some(to) && base.checked_add(to)? <= size;
            whole.then_some((base + from, rows, columns))
        };
        let lacking = || damaged("a tensor is missing or cut off");
        let (digest_at, rows, 32) = find("digest", "U8", 1).ok_or_else(lacking)? else {
            return Err(lacking());
        };
        let (check_at, checks, CHECK) = find("check", "U8", 1).ok_or_else(lacking)? else {
            return Err(lacking());
        };
        let (offset, features, dim) = find("features", "F32", 4).ok_or_else(lacking)?;
        if checks != rows || features != rows || dim == 0 {
            return Err(damaged("its tensors do not belong together"));
        }
        let mut read = |at, bytes: usize| -> io::Result<Vec<u8>> {
            let mut buffer = vec![0; bytes];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut buffer)?;
            Ok(buffer)
        };
        let digests = read(digest_at, rows * 32)?.as_chunks::<32>().0.to_vec();
        let checks = read(check_at, rows * CHECK)?;
        Ok(Self { file, digests, checks, dim, offset })
    }

    /// One row; `None` where its bytes are not what was written.
    fn row(&mut self, at: usize) -> io::Result<Option<Vec<f32>>> {
        let mut bytes = vec![0; self.dim * 4];
        self.file.seek(SeekFrom::Start(self.offset + (at * bytes.len()) as u64))?;
        self.file.read_exact(&mut bytes)?;
        let whole = check(&bytes) == self.checks[at * CHECK..(at + 1) * CHECK];
        Ok(whole.then(|| bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
    }

    /// The wanted rows that are there, and how many of them are damaged.
    fn table(&mut self, wanted: &[Digest]) -> io::Result<(Table, usize)> {
        let places: HashMap<Digest, usize> = self.digests.iter().copied().zip(0..).collect();
        let dim = self.dim;
        let mut table = Table {
            dim,
            values: vec![0.0; wanted.len() * dim],
            known: vec![false; wanted.len()],
            in_file: self.digests.len(),
        };
        let mut damaged = 0;
        for (place, digest) in wanted.iter().enumerate() {
            let Some(&at) = places.get(digest) else { continue };
            match self.row(at)? {
                Some(row) => table.set(place, &row),
                None => damaged += 1,
            }
        }
        Ok((table, damaged))
    }

    /// Appends the whole rows that are not wanted.
    fn others(&mut self, wanted: &[Digest], digests: &mut Vec<u8>, values: &mut Vec<f32>) -> io::Result<()> {
        let wanted: std::collections::HashSet<&Digest> = wanted.iter().collect();
        for at in 0..self.digests.len() {
            if !wanted.contains(&self.digests[at])
                && let Some(row) = self.row(at)?
            {
                digests.extend_from_slice(&self.digests[at]);
                values.extend_from_slice(&row);
            }
        }
        Ok(())
    }
}

fn check(row: &[u8]) -> [u8; CHECK] {
    let mut head = [0; CHECK];
    head.copy_from_slice(&Sha256::digest(row)[..CHECK]);
    head
}

/// The folder of a cache file, its owner's alone.
fn make_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Writes the file beside its place and renames it: it is there whole or not at all.
fn save(path: &Path, digests: &[u8], dim: usize, values: &[f32]) -> io::Result<()> {
    make_folder(path)?;
    let rows = values.len() / dim;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let checks: Vec<u8> = bytes.chunks_exact(dim * 4).flat_map(check).collect();
    let view =
        |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).map_err(io::Error::other);
    let tensors = [
        ("digest", view(Dtype::U8, &[rows, 32], digests)?),
        ("check", view(Dtype::U8, &[rows, CHECK], &checks)?),
        ("features", view(Dtype::F32, &[rows, dim], &bytes)?),
    ];
    let content = safetensors::serialize(tensors, None).map_err(io::Error::other)?;
    // A temporary file is readable by its owner alone, and stays so under its new name.
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(&content)?;
    file.persist(path).map(drop).map_err(|e| e.error)
}
