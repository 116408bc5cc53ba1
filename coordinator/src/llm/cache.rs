//! Completions on disk, by what was asked: a process that was killed asks for nothing that it has been given, and the
//! same question that is asked twice at once is asked once.
//!
//! ```text
//! llm-cache/
//!   3f/a0/3fa0….json    a completion, named by the SHA-256 of its question
//!   incoming/           files on their way; what a killed process left there goes after a day
//! ```
//!
//! A file appears whole or not at all, by its new name. It is not forced to the disk: after a power cut a file may be
//! damaged, and a damaged file is as good as none.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use sheaf_transport::{digest::sha256_hex, keys::create_private_folder};

use super::{Completion, Llm, LlmError, Prompt, Totals, totals::Meter};
use crate::error::Error;

/// Goes into every key: a change of what a key is made of changes it.
const FORMAT: &str = "sheaf-llm-1";
/// Nobody goes on with a file on its way after so long.
const ABANDONED: Duration = Duration::from_secs(86_400);

type Outcome = Result<Completion, LlmError>;
type Flight = BoxFuture<'static, Outcome>;

/// A model with a memory on disk. Several processes may share a folder.
pub struct Cached<L> {
    shared: Arc<State<L>>,
}

struct State<L> {
    model: L,
    folder: PathBuf,
    meter: Meter,
    /// Questions that are being asked now. The askers hold them: one that is given up by all of them is given up.
    flights: Mutex<HashMap<String, WeakShared<Flight>>>,
    /// Files on their way so far: makes their names different.
    staged: AtomicU64,
}

/// The name of a question's file: SHA-256, hex, over the model's name and everything in the prompt.
pub fn key(model: &str, prompt: &Prompt) -> Result<String, LlmError> {
    // A checked prompt has no number that JSON could not tell from another.
    prompt.check()?;
    let text = serde_json::to_vec(&(FORMAT, model, prompt))
        .map_err(|e| LlmError::Refused { what: format!("a prompt cannot be written as JSON: {e}") })?;
    Ok(sha256_hex(&text))
}

impl<L: Llm + 'static> Cached<L> {
    /// Puts a folder before a model; it is made where there is none, for its owner alone.
    ///
    /// # Errors
    /// [`crate::error::Class::Transient`] where the folder cannot be made or read.
    pub fn open(model: L, folder: &Path) -> Result<Self, Error> {
        let incoming = folder.join("incoming");
        create_private_folder(&incoming)
            .map_err(|e| Error::transient(format!("language-model cache: {e}")))?;
        for entry in fs::read_dir(&incoming)? {
            let path = entry?.path();
            // Another process may sweep at the same time: what is gone is gone.
            let changed = fs::metadata(&path).and_then(|m| m.modified());
            if changed.is_ok_and(|at| at.elapsed().unwrap_or_default() > ABANDONED) {
                let _ = fs::remove_file(&path);
            }
        }
        let state = State {
            model,
            folder: folder.to_owned(),
            meter: Meter::default(),
            flights: Mutex::default(),
            staged: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(state) })
    }

    /// The flight of a question, and whether it is another asker's.
    fn board(&self, key: String, prompt: &Prompt) -> (Shared<Flight>, bool) {
        let mut flights = self.shared.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            return (flight, true);
        }
        flights.retain(|_, flight| flight.upgrade().is_some());
        let (state, prompt, name) = (self.shared.clone(), prompt.clone(), key.clone());
        let flight = async move {
            let outcome = state.look_up_or_ask(&name, &prompt).await;
            state.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            outcome
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        (flight, false)
    }
}

impl<L: Llm + 'static> State<L> {
    /// The file is looked for within the flight: an asker that comes just after another one has landed finds it.
    async fn look_up_or_ask(self: &Arc<Self>, key: &str, prompt: &Prompt) -> Outcome {
        let path = self.path(key);
        if let Some(completion) = read(&path).await {
            self.meter.cache_hit();
            return Ok(completion);
        }
        let completion = self.model.complete(prompt).await?;
        let (state, answer) = (self.clone(), completion.clone());
        // On a thread of its own: it goes on when the asker is cancelled, and what was paid for is kept.
        let kept = tokio::task::spawn_blocking(move || state.write(&path, &answer)).await;
        if let Err(error) = kept.map_err(io::Error::other).flatten() {
            tracing::warn!(
                "an answer cannot be kept in {}: {error}; it is used, and will be asked for again next time",
                self.folder.display()
            );
        }
        Ok(completion)
    }

    fn path(&self, key: &str) -> PathBuf {
        // Two levels of 256 folders keep a million answers listable.
        self.folder.join(&key[..2]).join(&key[2..4]).join(format!("{key}.json"))
    }

    fn write(&self, path: &Path, completion: &Completion) -> io::Result<()> {
        let number = self.staged.fetch_add(1, Relaxed);
        // The address tells two caches of one process apart.
        let name = format!("{}-{:p}-{number}", std::process::id(), self);
        let staged = self.folder.join("incoming").join(name);
        fs::write(&staged, serde_json::to_vec(completion)?)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(&staged, path)
    }
}

/// A kept completion. What cannot be read is a miss, and is written anew.
async fn read(path: &Path) -> Option<Completion> {
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!("{}: {error}; the prompt is asked again", path.display());
            }
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        .inspect_err(|error| {
            tracing::warn!("{} is damaged ({error}); the prompt is asked again", path.display());
        })
        .ok()
}

#[tonic::async_trait]
impl<L: Llm + 'static> Llm for Cached<L> {
    fn name(&self) -> String {
        self.shared.model.name()
    }

    fn concurrency(&self) -> usize {
        self.shared.model.concurrency()
    }

    fn follows_instructions(&self) -> bool {
        self.shared.model.follows_instructions()
    }

    fn totals(&self) -> Totals {
        self.shared.model.totals() + self.shared.meter.totals(None)
    }

    async fn complete(&self, prompt: &Prompt) -> Result<Completion, LlmError> {
        let key = key(&self.name(), prompt)?;
        let (flight, joined) = self.board(key, prompt);
        let outcome = flight.await;
        if joined && outcome.is_ok() {
            self.shared.meter.cache_hit();
        }
        outcome
    }
}
