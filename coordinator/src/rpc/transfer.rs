//! The Transfer service: blobs in and out, resumable, checked.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, stream::BoxStream};
use sheaf_proto::{
    BlobId, CHUNK_BYTES,
    v1::{
        Chunk, DownloadRequest, StatRequest, StatResponse, UploadHeader, UploadMessage, UploadResponse,
        transfer_server::Transfer, upload_message::Body,
    },
};
use sheaf_transport::{digest::BlobHasher, identity::SiteName};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
    sync::OwnedMutexGuard,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::authz::{Caller, Serial};
use crate::{error::Error, hub::Hub};

pub(super) struct TransferService {
    hub: Arc<Hub>,
    uploads: Uploads,
    sent: Mutex<HashMap<(SiteName, String, String), BTreeSet<BlobId>>>,
}

/// An honest site sends one answer to a task, and another when its disk damaged the first: more only fill the
/// coordinator's disk.
const ANSWERS_A_TASK: usize = 4;

/// Uploads under way, by staged file: a new one of the same blob takes the place of one whose link died.
#[derive(Default)]
struct Uploads(Mutex<HashMap<PathBuf, Turn>>);

/// What ends the present upload of a file, and what the next one waits for.
type Turn = (CancellationToken, Arc<tokio::sync::Mutex<()>>);

impl Uploads {
    async fn take_over(&self, path: &PathBuf) -> (CancellationToken, OwnedMutexGuard<()>) {
        let (token, turn) = {
            let mut uploads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            uploads.retain(|_, (_, turn)| Arc::strong_count(turn) > 1);
            let turn = match uploads.get(path) {
                Some((older, turn)) => {
                    older.cancel();
                    Arc::clone(turn)
                }
                None => Arc::default(),
            };
            let token = CancellationToken::new();
            uploads.insert(path.clone(), (token.clone(), Arc::clone(&turn)));
            (token, turn)
        };
        (token, turn.lock_owned().await)
    }
}

impl TransferService {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, uploads: Uploads::default(), sent: Mutex::default() }
    }

    /// Whether the caller may send this blob: a site only as the answer to a task it has now.
    fn may_upload(&self, caller: &Caller, header: &UploadHeader, blob: &BlobId) -> Result<(), Error> {
        let limit = match caller {
            Caller::Operator(_) => self.hub.config.operator_upload_mib << 20,
            Caller::Site(site) => {
                let run = self.hub.run(&header.run_id)?;
                let state = run.run();
                let phase =
                    state.task_for(site).filter(|phase| phase.key == header.task_key).ok_or_else(|| {
                        Error::conflict("this site has no such task now; the phase may be over")
                    })?;
                let limit = phase.max_result_bytes;
                drop(state);
                self.count_answer(site, header, blob)?;
                limit
            }
            Caller::Anonymous => return Err(Error::denied("uploads need a certificate")),
        };
        if blob.size() > limit {
            return Err(Error::invalid(format!(
                "the blob has {} bytes, at most {limit} are taken for this task",
                blob.size()
            )));
        }
        Ok(())
    }

    fn count_answer(&self, site: &SiteName, header: &UploadHeader, blob: &BlobId) -> Result<(), Error> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let task = (site.clone(), header.run_id.clone(), header.task_key.clone());
        let answers = sent.entry(task).or_default();
        answers.insert(*blob);
        if answers.len() > ANSWERS_A_TASK {
            answers.remove(blob);
            return Err(Error::invalid(format!(
                "this site has sent {ANSWERS_A_TASK} answers to this task already"
            )));
        }
        Ok(())
    }

    async fn receive(
        &self,
        caller: &Caller,
        standing: &Standing,
        header: &UploadHeader,
        inbound: &mut Streaming<UploadMessage>,
    ) -> Result<u64, Status> {
        let blob = BlobId::from_wire(header.blob.as_ref()).map_err(Error::from)?;
        self.may_upload(caller, header, &blob)?;
        // A site sends its bytes even when equal ones are held: what others hold is not for it to know.
        if matches!(caller, Caller::Operator(_)) && self.hub.blobs.contains(&blob) {
            return Ok(blob.size());
        }
        let staged = self.hub.blobs.staging(&owner(caller), &blob);
        let (superseded, turn) = self.uploads.take_over(&staged).await;
        let mut sink = Sink::open(staged.clone(), header.offset).await?;
        loop {
            let message = tokio::select! {
                () = superseded.cancelled() => return Err(Status::aborted("a newer upload of the same blob took over")),
                () = self.hub.shutdown.cancelled() => return Err(Status::unavailable("the coordinator is stopping")),
                message = inbound.message() => message?,
            };
            let Some(UploadMessage { body }) = message else {
                sink.flush().await?;
                return Err(Status::unavailable(
                    "the stream ended before the last chunk; what arrived is kept",
                ));
            };
            let Some(Body::Chunk(chunk)) = body else {
                return Err(Status::invalid_argument("after the header of an upload only chunks follow"));
            };
            if chunk.offset != sink.hasher.size()
                || sink.hasher.size() + chunk.data.len() as u64 > blob.size()
            {
                return Err(Status::out_of_range(format!(
                    "a chunk at {} of {} bytes does not follow the {} bytes held",
                    chunk.offset,
                    chunk.data.len(),
                    sink.hasher.size()
                )));
            }
            standing.check()?;
            sink.write(&chunk.data).await?;
            if chunk.last {
                break;
            }
        }
        sink.flush().await?;
        let received = sink.hasher.finish();
        if received != blob {
            fs::remove_file(&staged).await.map_err(Error::from)?;
            return Err(Status::data_loss(format!(
                "expected {blob}, received {received}; the upload was thrown away"
            )));
        }
        let (blobs, size) = (self.hub.blobs.clone(), blob.size());
        // The turn goes along: a caller that hangs up now must not let the next one into the same file.
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            blobs.commit(&staged, &blob)
        })
        .await
        .map_err(|e| Error::bug(e.to_string()))??;
        Ok(size)
    }

    fn standing<T>(&self, request: &Request<T>) -> Standing {
        Standing(Arc::clone(&self.hub), request.extensions().get().cloned())
    }

    fn may_download(&self, caller: &Caller, blob: &BlobId) -> bool {
        match caller {
            Caller::Operator(_) => true,
            Caller::Site(site) => self.hub.may_fetch(site, blob),
            Caller::Anonymous => false,
        }
    }
}

/// Whether a call that takes long is still allowed: its certificate may be revoked while it runs.
#[derive(Clone)]
struct Standing(Arc<Hub>, Option<Serial>);

impl Standing {
    fn check(&self) -> Result<(), Status> {
        match &self.1 {
            Some(Serial(serial)) if self.0.desk.admitted.holds(serial) => Ok(()),
            _ => Err(Status::unauthenticated("this certificate was revoked")),
        }
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("no caller"))
}

/// Staged files of a caller are its own.
fn owner(caller: &Caller) -> String {
    match caller {
        Caller::Site(name) => format!("site-{name}"),
        Caller::Operator(name) => format!("operator-{name}"),
        Caller::Anonymous => "nobody".to_owned(),
    }
}

#[tonic::async_trait]
impl Transfer for TransferService {
    async fn stat(&self, request: Request<StatRequest>) -> Result<Response<StatResponse>, Status> {
        let caller = caller(&request)?;
        let blob = BlobId::from_wire(request.get_ref().blob.as_ref()).map_err(Error::from)?;
        // A site learns only of its own uploads: knowing what others hold would be knowing something of them.
        let complete = matches!(caller, Caller::Operator(_)) && self.hub.blobs.contains(&blob);
        let staged = self.hub.blobs.staging(&owner(&caller), &blob);
        let held = fs::metadata(&staged).await.map_or(0, |m| m.len()).min(blob.size());
        let offset = if complete { blob.size() } else { held };
        Ok(Response::new(StatResponse { offset, complete }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<UploadMessage>>,
    ) -> Result<Response<UploadResponse>, Status> {
        let caller = caller(&request)?;
        let standing = self.standing(&request);
        let mut inbound = request.into_inner();
        let Some(UploadMessage { body: Some(Body::Header(header)) }) = inbound.message().await? else {
            return Err(Status::invalid_argument("the first message of an upload must be its header"));
        };
        let size = self.receive(&caller, &standing, &header, &mut inbound).await?;
        Ok(Response::new(UploadResponse { size }))
    }

    type DownloadStream = BoxStream<'static, Result<Chunk, Status>>;

    async fn download(
        &self,
        request: Request<DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let (caller, standing) = (caller(&request)?, self.standing(&request));
        let request = request.into_inner();
        let blob = BlobId::from_wire(request.blob.as_ref()).map_err(Error::from)?;
        if !self.may_download(&caller, &blob) {
            return Err(Status::permission_denied("this blob is not part of a task offered to this site"));
        }
        if !self.hub.blobs.contains(&blob) || request.offset > blob.size() {
            return Err(Status::not_found(format!("blob {blob} is not held, or not up to that offset")));
        }
        if request.offset == blob.size() {
            let end = Chunk { offset: blob.size(), data: bytes::Bytes::new(), last: true };
            return Ok(Response::new(futures::stream::iter([Ok(end)]).boxed()));
        }
        let parts = self.hub.blobs.stream(&blob, request.offset).await?;
        Ok(Response::new(chunks(parts, request.offset, blob.size(), standing).boxed()))
    }
}

/// Cuts what the store reads into chunks of the wire's size.
fn chunks(
    parts: BoxStream<'static, object_store::Result<bytes::Bytes>>,
    mut offset: u64,
    size: u64,
    standing: Standing,
) -> impl futures::Stream<Item = Result<Chunk, Status>> {
    parts.flat_map(move |part| {
        let mut out = Vec::new();
        let read = |e| Status::data_loss(format!("the blob cannot be read: {e}"));
        match standing.check().and(part.map_err(read)) {
            Err(status) => out.push(Err(status)),
            Ok(mut part) => {
                while !part.is_empty() {
                    let data = part.split_to(part.len().min(CHUNK_BYTES));
                    let at = offset;
                    offset += data.len() as u64;
                    out.push(Ok(Chunk { offset: at, data, last: offset >= size }));
                }
            }
        }
        futures::stream::iter(out)
    })
}

/// A staged file that grows, with the digest of all that is in it.
struct Sink {
    file: File,
    hasher: BlobHasher,
}

impl Sink {
    /// Opens the file at `offset`; what lies beyond is cut off, what lies before is read into the digest.
    async fn open(path: PathBuf, offset: u64) -> Result<Self, Error> {
        let held = fs::metadata(&path).await.map_or(0, |m| m.len());
        if offset > held {
            return Err(Error::transient(format!(
                "the upload begins at {offset}, but only {held} bytes are held; ask again"
            )));
        }
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).await?;
        file.set_len(offset).await?;
        file.seek(io::SeekFrom::Start(offset)).await?;
        file.set_max_buf_size(CHUNK_BYTES);
        let hasher = if offset == 0 {
            BlobHasher::default()
        } else {
            tokio::task::spawn_blocking(move || BlobHasher::of_prefix(&path, offset))
                .await
                .map_err(|e| Error::bug(e.to_string()))??
        };
        Ok(Self { file, hasher })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        // The write goes to its own thread; hashing here meanwhile keeps both busy.
        self.file.write_all(bytes).await?;
        self.hasher.update(bytes);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        Ok(self.file.flush().await?)
    }
}
