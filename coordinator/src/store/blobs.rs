//! Content-addressed blobs on disk through `object_store`, with a staging folder beside them in which
//! uploads grow until they are whole.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt as _, local::LocalFileSystem,
    path::Path as ObjectPath,
};
use serde::de::DeserializeOwned;
use sheaf_proto::BlobId;
use sheaf_transport::{digest::blob_id, transfer::read_chunk};
use tokio::io::AsyncReadExt as _;

use crate::error::Error;

/// Nobody resumes an upload after so long.
const ABANDONED: Duration = Duration::from_secs(7 * 86_400);

/// The blobs of a coordinator.
#[derive(Clone)]
pub struct BlobStore {
    root: Arc<PathBuf>,
    store: Arc<LocalFileSystem>,
}

fn key(id: &BlobId) -> String {
    let hex = id.hex();
    format!("blobs/{}/{hex}", &hex[..2])
}

impl BlobStore {
    /// Opens or creates the folders.
    pub fn open(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root.join("blobs"))?;
        let incoming = root.join("incoming");
        fs::create_dir_all(&incoming)?;
        for entry in fs::read_dir(&incoming)? {
            let entry = entry?;
            let idle = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if idle > ABANDONED {
                fs::remove_file(entry.path())?;
            }
        }
        let store = LocalFileSystem::new_with_prefix(root).map_err(|e| Error::bug(e.to_string()))?;
        Ok(Self { root: Arc::new(root.to_owned()), store: Arc::new(store) })
    }

    /// Where an upload of `id` by `owner` grows; one per owner, so that nobody can spoil another's.
    pub fn staging(&self, owner: &str, id: &BlobId) -> PathBuf {
        self.root.join("incoming").join(format!("{owner}-{}.part", id.hex()))
    }

    /// The file of a blob, for readers that may block.
    pub fn path(&self, id: &BlobId) -> PathBuf {
        self.root.join(key(id))
    }

    /// Whether the blob is held, whole.
    pub fn contains(&self, id: &BlobId) -> bool {
        fs::metadata(self.path(id)).is_ok_and(|m| m.len() == id.size())
    }

    /// Takes over a staged file whose content has been checked. On return it survives a power cut.
    pub fn commit(&self, staged: &Path, id: &BlobId) -> Result<(), Error> {
        let path = self.path(id);
        File::open(staged)?.sync_all()?;
        let folder = path.parent().ok_or_else(|| Error::bug("a blob has no folder"))?;
        fs::create_dir_all(folder)?;
        fs::rename(staged, &path)?;
        File::open(folder)?.sync_all()?;
        Ok(())
    }

    /// Stores bytes made here; durable on return.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobId, Error> {
        let id = blob_id(bytes);
        if self.contains(&id) {
            return Ok(id);
        }
        let staged = self.staging(&format!("self-{:?}", std::thread::current().id()), &id);
        File::create(&staged)?.write_all(bytes)?;
        self.commit(&staged, &id)?;
        Ok(id)
    }

    /// Reads a whole blob and checks its digest, so that a damaged disk cannot change a model silently.
    pub fn get(&self, id: &BlobId) -> Result<Vec<u8>, Error> {
        let bytes = fs::read(self.path(id))
            .map_err(|e| Error::corrupt(format!("blob {id} is missing from the store: {e}")))?;
        if blob_id(&bytes) == *id {
            Ok(bytes)
        } else {
            Err(Error::corrupt(format!(
                "blob {id} is damaged on disk; restore the blobs folder from a backup"
            )))
        }
    }

    /// Reads a blob that is a JSON document.
    pub fn document<T: DeserializeOwned>(&self, id: &BlobId) -> Result<T, Error> {
        Ok(serde_json::from_slice(&self.get(id)?)?)
    }

    /// The first bytes of a blob, without a look at its digest.
    pub fn head(&self, id: &BlobId, length: usize) -> Result<Vec<u8>, Error> {
        let mut head = Vec::with_capacity(length);
        File::open(self.path(id))
            .and_then(|file| file.take(length as u64).read_to_end(&mut head))
            .map_err(|e| Error::corrupt(format!("blob {id} is missing from the store: {e}")))?;
        Ok(head)
    }

    /// Streams a blob from `offset`.
    pub async fn stream(
        &self,
        id: &BlobId,
        offset: u64,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, Error> {
        let options = GetOptions { range: Some(GetRange::Offset(offset)), ..GetOptions::default() };
        let found = self
            .store
            .get_opts(&ObjectPath::from(key(id)), options)
            .await
            .map_err(|e| Error::not_found(format!("blob {id}: {e}")))?;
        let range = found.range.clone();
        match found.payload {
            // The store's own stream reads 8 KiB at a time, each on another thread.
            GetResultPayload::File(mut file, _) => {
                file.seek(SeekFrom::Start(range.start))?;
                let file = tokio::fs::File::from_std(file).take(range.end - range.start);
                Ok(parts(file).boxed())
            }
            GetResultPayload::Stream(stream) => Ok(stream),
        }
    }

    /// Forgets a blob; one that is not there is as good as forgotten.
    pub async fn delete(&self, id: &BlobId) -> Result<(), Error> {
        match self.store.delete(&ObjectPath::from(key(id))).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(Error::transient(format!("blob {id} cannot be deleted: {e}"))),
        }
    }
}

/// A file in pieces as large as a chunk on the wire.
fn parts(file: tokio::io::Take<tokio::fs::File>) -> impl futures::Stream<Item = object_store::Result<Bytes>> {
    futures::stream::try_unfold(file, |mut file| async move {
        match read_chunk(&mut file).await {
            Ok(part) => Ok((!part.is_empty()).then_some((part, file))),
            Err(source) => Err(object_store::Error::Generic { store: "blobs", source: Box::new(source) }),
        }
    })
}
