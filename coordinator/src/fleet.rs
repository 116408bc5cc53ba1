//! Sites that are connected now: one session each, the newest wins.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use sheaf_proto::v1::{CancelTask, CoordinatorMessage, Task, coordinator_message::Body};
use sheaf_transport::identity::SiteName;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages a session may have waiting; a site that reads none for so long is not there.
pub const SESSION_QUEUE: usize = 64;

/// The registry of sessions.
#[derive(Debug, Default)]
pub struct Fleet {
    sessions: Mutex<HashMap<SiteName, Session>>,
    /// Sessions ever opened: names the next one.
    opened: AtomicU64,
}

#[derive(Debug)]
struct Session {
    id: u64,
    sender: mpsc::Sender<CoordinatorMessage>,
    end: CancellationToken,
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
        if let Some(old) = sessions.get(site) {
            old.end.cancel();
        }
        let id = self.opened.fetch_add(1, Ordering::Relaxed);
        let end = parent.child_token();
        let session = Session { id, sender, end: end.clone() };
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
        let sessions = self.lock();
        let Some(session) = sessions.get(site) else {
            return false;
        };
        session.sender.try_send(CoordinatorMessage { body: Some(Body::Task(task)) }).is_ok()
    }

    /// Tells a connected site to drop a task.
    pub fn cancel(&self, site: &SiteName, cancel: CancelTask) {
        if let Some(session) = self.lock().get(site) {
            // A full queue means a site that reads nothing; its answer would be turned away as late anyway.
            drop(session.sender.try_send(CoordinatorMessage { body: Some(Body::Cancel(cancel)) }));
        }
    }
}
