//! Sites that are connected now: one session each, the newest wins.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sheaf_proto::{
    BlobId,
    v1::{CancelTask, CoordinatorMessage, Task, coordinator_message::Body},
};
use sheaf_transport::identity::SiteName;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages a session may have waiting; a site that reads none for so long is not there.
pub const SESSION_QUEUE: usize = 64;

/// Blobs of the latest offers that a session may fetch.
const FETCHABLE: usize = 256;

/// The registry of sessions.
#[derive(Debug, Default)]
pub struct Fleet {
    sessions: Mutex<HashMap<SiteName, Session>>,
}

#[derive(Debug)]
struct Session {
    id: u64,
    sender: mpsc::Sender<CoordinatorMessage>,
    end: CancellationToken,
    /// Blobs this site was asked to fetch in this session.
    fetchable: Vec<BlobId>,
}

/// A session that has just been opened.
pub struct OpenSession {
    /// Names it among the sessions of a site.
    pub id: u64,
    /// Cancelled when a newer session, a revocation or the coordinator's end takes its place.
    pub end: CancellationToken,
}

impl Fleet {
    fn lock(&self) -> MutexGuard<'_, HashMap<SiteName, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a session; an older one of the same site ends.
    pub fn open(
        &self,
        site: &SiteName,
        sender: mpsc::Sender<CoordinatorMessage>,
        parent: &CancellationToken,
    ) -> OpenSession {
        let mut sessions = self.lock();
        let id = sessions.get(site).map_or(0, |old| {
            old.end.cancel();
            old.id + 1
        });
        let end = parent.child_token();
        let session = Session {
            id,
            sender,
            end: end.clone(),
            fetchable: Vec::new(),
        };
        sessions.insert(site.clone(), session);
        OpenSession { id, end }
    }

    /// Removes a session that has ended, unless a newer one is there.
    pub fn close(&self, site: &SiteName, id: u64) {
        let mut sessions = self.lock();
        if sessions.get(site).is_some_and(|session| session.id == id) {
            sessions.remove(site);
        }
    }

    /// Ends a site's session now.
    pub fn expel(&self, site: &SiteName) {
        if let Some(session) = self.lock().remove(site) {
            session.end.cancel();
        }
    }

    /// Whether a site is connected.
    pub fn connected(&self, site: &SiteName) -> bool {
        self.lock().contains_key(site)
    }

    /// How many sites are connected.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offers a task to a connected site. `false` when it is not connected: it is offered again when it is.
    pub fn offer(&self, site: &SiteName, task: Task) -> bool {
        let blobs: Vec<_> = task
            .spec
            .iter()
            .chain(&task.inputs)
            .filter_map(|blob| BlobId::from_wire(Some(blob)).ok())
            .collect();
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(site) else {
            return false;
        };
        session.fetchable.extend(blobs);
        let forgotten = session.fetchable.len().saturating_sub(FETCHABLE);
        session.fetchable.drain(..forgotten);
        session
            .sender
            .try_send(CoordinatorMessage {
                body: Some(Body::Task(task)),
            })
            .is_ok()
    }

    /// Tells a connected site to drop a task.
    pub fn cancel(&self, site: &SiteName, cancel: CancelTask) {
        if let Some(session) = self.lock().get(site) {
            // A full queue means a site that reads nothing; its answer would be turned away as late anyway.
            drop(session.sender.try_send(CoordinatorMessage {
                body: Some(Body::Cancel(cancel)),
            }));
        }
    }

    /// Whether a site was asked to fetch a blob.
    pub fn may_fetch(&self, site: &SiteName, blob: &BlobId) -> bool {
        self.lock()
            .get(site)
            .is_some_and(|session| session.fetchable.contains(blob))
    }
}
