//! The client's half of the Transfer service: blobs up and down in chunks, resumed where they were cut,
//! checked against their name at the end. Memory is a few chunks whatever the blob's size.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use sheaf_proto::{
    BlobId, CHUNK_BYTES, MESSAGE_BYTES,
    v1::{
        Chunk, DownloadRequest, StatRequest, UploadHeader, UploadMessage, transfer_client::TransferClient,
        upload_message::Body,
    },
};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    channel::CallerChannel,
    digest::{BlobHasher, blob_id},
};

/// Chunks read ahead of the network.
const AHEAD: usize = 2;

/// Why a blob did not get through. What arrived is kept: calling again resumes.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The other side refused or the link broke; `retry::is_transient` tells which.
    #[error("transfer of {blob}: {status}")]
    Rpc {
        /// The blob.
        blob: BlobId,
        /// What the other side said.
        status: Box<Status>,
    },
    /// The local file could not be read or written.
    #[error("transfer: {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What arrived is not what was named; it was thrown away.
    #[error("transfer: expected {expected}, received {received}; the partial file was removed")]
    Corrupt {
        /// Asked for.
        expected: BlobId,
        /// Came.
        received: BlobId,
    },
}

impl TransferError {
    /// Whether the same transfer may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Rpc { status, .. } if crate::retry::is_transient(status))
    }
}

/// The task an uploaded blob answers: what entitles a site to upload at all.
#[derive(Debug, Clone, Default)]
pub struct UploadPurpose {
    /// Run id; empty for an operator.
    pub run_id: String,
    /// Task key; empty for an operator.
    pub task_key: String,
}

/// Moves blobs over one channel.
#[derive(Clone)]
pub struct BlobMover {
    client: TransferClient<CallerChannel>,
}

impl BlobMover {
    /// Uses an established channel.
    pub fn new(channel: CallerChannel) -> Self {
        let client = TransferClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        Self { client }
    }

    /// Sends the file as `blob`, from where the coordinator already has it.
    pub async fn upload(
        &self,
        blob: BlobId,
        path: &Path,
        purpose: &UploadPurpose,
    ) -> Result<(), TransferError> {
        let rpc = |status: Status| TransferError::Rpc { blob, status: Box::new(status) };
        let file = |source| TransferError::File { path: path.into(), source };
        let mut client = self.client.clone();
        let held = client.stat(StatRequest { blob: Some(blob.to_wire()) }).await.map_err(rpc)?.into_inner();
        if held.complete {
            return Ok(());
        }
        let mut reader = File::open(path).await.map_err(file)?;
        reader.seek(SeekFrom::Start(held.offset)).await.map_err(file)?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let header = UploadHeader {
            blob: Some(blob.to_wire()),
            offset: held.offset,
            run_id: purpose.run_id.clone(),
            task_key: purpose.task_key.clone(),
        };
        let pump = tokio::spawn(pump_file(reader, header, blob.size(), sender));
        let answer = client.upload(ReceiverStream::new(receiver)).await;
        let pumped = pump.await.map_err(|e| file(io::Error::other(e)))?;
        // A file that cannot be read ends the stream early, which the other side can only take for a cut.
        pumped.map_err(file)?;
        answer.map_err(rpc)?;
        Ok(())
    }

    /// Fetches `blob` into `path` by way of `path.part`, which a broken transfer leaves for the next call.
    pub async fn download(&self, blob: BlobId, path: &Path) -> Result<(), TransferError> {
        let rpc = |status: Status| TransferError::Rpc { blob, status: Box::new(status) };
        let file = |source| TransferError::File { path: path.into(), source };
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let held = fs::metadata(&part).await.map_or(0, |m| m.len()).min(blob.size());
        let mut hasher = if held == 0 {
            BlobHasher::default()
        } else {
            let part = part.clone();
            tokio::task::spawn_blocking(move || BlobHasher::of_prefix(&part, held))
                .await
                .map_err(|e| file(io::Error::other(e)))?
                .map_err(file)?
        };
        let mut writer =
            OpenOptions::new().create(true).write(true).truncate(false).open(&part).await.map_err(file)?;
        writer.set_len(held).await.map_err(file)?;
        writer.seek(SeekFrom::Start(held)).await.map_err(file)?;
        let request = DownloadRequest { blob: Some(blob.to_wire()), offset: held };
        let mut chunks = self.client.clone().download(request).await.map_err(rpc)?.into_inner();
        let mut ended = false;
        while let Some(chunk) = chunks.message().await.map_err(rpc)? {
            hasher.update(&chunk.data);
            writer.write_all(&chunk.data).await.map_err(file)?;
            ended = chunk.last;
            if hasher.size() > blob.size() {
                break;
            }
        }
        writer.flush().await.map_err(file)?;
        if !ended {
            return Err(rpc(Status::unavailable("the stream ended before the last chunk")));
        }
        let received = hasher.finish();
        if received != blob {
            fs::remove_file(&part).await.map_err(file)?;
            return Err(TransferError::Corrupt { expected: blob, received });
        }
        writer.sync_all().await.map_err(file)?;
        fs::rename(&part, path).await.map_err(file)
    }

    /// Fetches a small `blob` into memory. What `held` has of it from a broken transfer is not fetched again.
    pub async fn fetch(&self, blob: BlobId, held: &mut Vec<u8>) -> Result<(), TransferError> {
        let rpc = |status: Status| TransferError::Rpc { blob, status: Box::new(status) };
        let request = DownloadRequest { blob: Some(blob.to_wire()), offset: held.len() as u64 };
        let mut chunks = self.client.clone().download(request).await.map_err(rpc)?.into_inner();
        let mut ended = false;
        while let Some(chunk) = chunks.message().await.map_err(rpc)? {
            held.extend_from_slice(&chunk.data);
            ended = chunk.last;
            if held.len() as u64 > blob.size() {
                break;
            }
        }
        let received = blob_id(held);
        if received == blob {
            return Ok(());
        }
        if !ended && received.size() < blob.size() {
            return Err(rpc(Status::unavailable("the stream ended before the last chunk")));
        }
        held.clear();
        Err(TransferError::Corrupt { expected: blob, received })
    }
}

async fn pump_file(
    mut reader: File,
    header: UploadHeader,
    size: u64,
    sender: mpsc::Sender<UploadMessage>,
) -> io::Result<()> {
    let mut offset = header.offset;
    // The receiver goes away when the call fails; the call's own status tells why.
    if sender.send(UploadMessage { body: Some(Body::Header(header)) }).await.is_err() {
        return Ok(());
    }
    loop {
        let data = read_chunk(&mut reader).await?;
        let length = data.len() as u64;
        let last = offset + length >= size;
        let chunk = Chunk { offset, data, last };
        if sender.send(UploadMessage { body: Some(Body::Chunk(chunk)) }).await.is_err() || last {
            return Ok(());
        }
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was sent",
            ));
        }
        offset += length;
    }
}

/// The next chunk of a reader, at most [`CHUNK_BYTES`]; empty at the end.
pub async fn read_chunk(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    while buffer.len() < CHUNK_BYTES {
        let room = CHUNK_BYTES - buffer.len();
        let mut limited = (&mut *reader).take(room as u64);
        if limited.read_buf(&mut buffer).await? == 0 {
            break;
        }
    }
    Ok(buffer.freeze())
}
