//! What the site keeps of secure sums: the state of a round, the history over all rounds, and the peers it has met.

use sheaf_secagg::{History, Site, SiteStore, Subject, Terms, Wire};

use crate::{
    error::AgentError,
    state::{SecureRound, State},
};

/// The memory of one stage, loaded; what the stage changes is saved through its [`Store`].
pub(super) struct Memory<'a> {
    site: Option<Site>,
    history: History,
    store: Store<'a>,
}

/// Saves the state of a round, the history and the peers in one transaction.
pub(super) struct Store<'a> {
    state: &'a State,
    run_id: String,
    round: u32,
    met: Vec<(String, String)>,
}

impl SiteStore for Store<'_> {
    fn save(&mut self, site: &Site, history: &History) -> Result<(), String> {
        let written = |bytes: Result<Vec<u8>, sheaf_secagg::SecAggError>| bytes.map_err(|e| e.to_string());
        let (site, history) = (written(site.to_bytes())?, written(history.to_bytes())?);
        let round = SecureRound { run_id: &self.run_id, round: self.round, site: &site };
        self.state.save_secure_round(&round, &history, &self.met).map_err(|e| e.to_string())
    }
}

impl<'a> Memory<'a> {
    pub(super) fn load(state: &'a State, terms: &Terms) -> Result<Self, AgentError> {
        let damaged = |e: sheaf_secagg::SecAggError| AgentError::State(e.to_string());
        let (site, history) = (state.secure_round(&terms.run, terms.round)?, state.secure_history()?);
        Ok(Self {
            site: site.map(|bytes| Site::from_bytes(&bytes)).transpose().map_err(damaged)?,
            history: history
                .map(|bytes| History::from_bytes(&bytes))
                .transpose()
                .map_err(damaged)?
                .unwrap_or_default(),
            store: Store { state, run_id: terms.run.clone(), round: terms.round, met: Vec::new() },
        })
    }

    /// The round, if it has begun here.
    pub(super) fn site(&self) -> Option<&Site> {
        self.site.as_ref()
    }

    /// The round, which must have begun.
    pub(super) fn begun(&self) -> Result<&Site, AgentError> {
        self.site().ok_or_else(lost)
    }

    /// Refuses a round that was begun on other terms, and with a subject one over other data than it was begun with.
    pub(super) fn check(&self, terms: &Terms, subject: Option<&Subject>) -> Result<(), AgentError> {
        if let Some(site) = self.site().filter(|site| site.task().terms != *terms) {
            return Err(AgentError::Denied(format!(
                "round {} of this run was begun on other terms; the operator must submit a new run",
                site.task().terms.round
            )));
        }
        let Some(subject) = subject else { return Ok(()) };
        if self.begun()?.task().subject != *subject {
            return Err(AgentError::Data(
                "the data set has changed since the secure sum began; it needs a new run".to_owned(),
            ));
        }
        Ok(())
    }

    /// For a stage after the first.
    pub(super) fn parts(&mut self) -> Result<(&mut Site, &mut History, &mut Store<'a>), AgentError> {
        let Self { site, history, store } = self;
        Ok((site.as_mut().ok_or_else(lost)?, history, store))
    }

    /// For the first stage.
    pub(super) fn fresh(&mut self) -> (&mut History, &mut Store<'a>) {
        (&mut self.history, &mut self.store)
    }

    /// Peers to remember if the stage is accepted: name and fingerprint.
    pub(super) fn meet(&mut self, peers: Vec<(String, String)>) {
        self.store.met = peers;
    }
}

fn lost() -> AgentError {
    AgentError::Denied(
        "this site has no state of the secure sum, so it sits the round out; the run goes on without it"
            .to_owned(),
    )
}
