//! Whose signing keys the site accepts. A certificate shows that the authority calls a key a site's; the authority
//! belongs to the coordinator, which could call its own keys sites. So keys are compared with those in
//! `[policy] peers`, or, where there are none, with the keys that the site saw first under the same names.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use sheaf_proto::secure::Register;
use sheaf_secagg::{SiteId, Verifier};
use sheaf_transport::{
    identity::SiteName,
    signature::{Credentials, SignatureError},
    tls::fingerprint,
};

use crate::{config::Policy, error::AgentError, identity::Identity, state::State};

/// Credentials that are remembered as checked.
const REMEMBERED: usize = 4096;

/// Sites whose keys were checked.
pub(super) struct Peers(BTreeMap<SiteId, Credentials>);

impl Verifier for Peers {
    fn verify(&self, site: &SiteId, statement: &[u8], signature: &[u8]) -> bool {
        self.0.get(site).is_some_and(|credentials| credentials.verify(statement, signature))
    }
}

impl Peers {
    /// Checks every site of a register against the authority and against what this site knows of it.
    ///
    /// # Errors
    /// [`AgentError::Denied`] with the site and what to do.
    pub(super) fn check(
        register: Register<Credentials>,
        identity: &Identity,
        policy: &Policy,
        state: &State,
    ) -> Result<Self, AgentError> {
        let Register { roster, credentials } = register;
        let mut checked = BTreeMap::new();
        for (advert, credentials) in roster.adverts.iter().zip(credentials) {
            let name = &advert.site;
            let shown = owner(&credentials, identity.authority())
                .map_err(|e| AgentError::Denied(format!("secure aggregation, site {name}: {e}")))?;
            if shown.as_str() != name.as_str() {
                return Err(AgentError::Denied(format!(
                    "secure aggregation: {name} takes part with the credentials of {shown}"
                )));
            }
            if shown != identity.profile.site {
                check_key(&shown, credentials.fingerprint(), policy, state)?;
            } else if identity.credentials()?.fingerprint() != credentials.fingerprint() {
                return Err(AgentError::Denied(
                    "secure aggregation: another signing key takes part in this site's name; has a second agent the same \
                     home, or was the site enrolled twice?"
                        .to_owned(),
                ));
            }
            checked.insert(name.clone(), credentials);
        }
        Ok(Self(checked))
    }

    /// Names and fingerprints, hexadecimal.
    pub(super) fn fingerprints(&self) -> Vec<(String, String)> {
        let print =
            |(site, keys): (&SiteId, &Credentials)| (site.to_string(), hex::encode(keys.fingerprint()));
        self.0.iter().map(print).collect()
    }
}

/// Whose credentials these are, by an authority. What was found once is not computed again: every stage and every sum shows
/// the same ones, and two signatures are checked for each.
fn owner(credentials: &Credentials, authority: &[u8]) -> Result<SiteName, SignatureError> {
    type Found = HashMap<(Credentials, [u8; 32]), SiteName>;
    static FOUND: Mutex<Option<Found>> = Mutex::new(None);
    let key = (credentials.clone(), fingerprint(authority));
    let found = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(site) = found().get_or_insert_default().get(&key) {
        return Ok(site.clone());
    }
    let site = credentials.site(authority)?;
    let mut found = found();
    let found = found.get_or_insert_default();
    if found.len() >= REMEMBERED {
        found.clear();
    }
    found.insert(key, site.clone());
    Ok(site)
}

/// Pinned keys count alone where there are any; else the first key seen under a name.
fn check_key(site: &SiteName, key: [u8; 32], policy: &Policy, state: &State) -> Result<(), AgentError> {
    let now = hex::encode(key);
    let ask = format!(
        "Have {site} read out its signing key from `sheaf-agent status`, by telephone, before anything else"
    );
    if !policy.peers.is_empty() {
        return match policy.peers.get(site) {
            Some(pinned) if pinned.0 == key => Ok(()),
            Some(_) => Err(AgentError::Denied(format!(
                "secure aggregation: the signing key of {site} is {now}, not the one in [policy] peers. {ask}"
            ))),
            None => Err(AgentError::Denied(format!(
                "secure aggregation: {site} is not in [policy] peers; its signing key is {now}. {ask}"
            ))),
        };
    }
    match state.peer(site.as_str())? {
        Some(before) if before != now => Err(AgentError::Denied(format!(
            "secure aggregation: the signing key of {site} was {before} and is now {now}. {ask}; if {site} has enrolled \
             anew, name the keys of all sites of the run in [policy] peers"
        ))),
        _ => Ok(()),
    }
}
