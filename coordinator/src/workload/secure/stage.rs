//! The coordinator's side of one stage: what it holds before, how an answer is taken, how the stage ends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_proto::{
    BlobId,
    secure::{Introduction, Register, SecureSpec},
};
use sheaf_secagg::{
    KeyShares, MaskedInput, SecAggError, Server, SiteId, Stage, UnmaskShares, Verifier, Vote, Wire,
};
use sheaf_transport::{identity::SiteName, signature::Credentials};

use super::{Opened, StageOutcome, refused};
use crate::{error::Error, workload::Context};

/// What the coordinator holds between two stages.
#[derive(Serialize, Deserialize)]
pub(super) struct Held {
    server: Server,
    credentials: Directory,
    /// Keys and credentials as the sites get them; none before the first stage is over.
    register: Option<BlobId>,
}

impl Wire for Held {
    const NAME: &'static str = "the coordinator's state of a secure sum";
}

/// Signing keys by site, each shown by the site's certificate to be the site's.
#[derive(Default, Serialize, Deserialize)]
struct Directory(BTreeMap<SiteId, Credentials>);

impl Verifier for Directory {
    fn verify(&self, site: &SiteId, statement: &[u8], signature: &[u8]) -> bool {
        self.0.get(site).is_some_and(|credentials| credentials.verify(statement, signature))
    }
}

impl Held {
    /// The state that a stage begins with.
    pub(super) fn before(context: &Context<'_>, secure: &SecureSpec) -> Result<Self, Error> {
        match &secure.state {
            None => Ok(Self {
                server: Server::new(secure.terms.clone()).map_err(refused)?,
                credentials: Directory::default(),
                register: None,
            }),
            Some(state) => {
                Self::from_bytes(&context.blobs.get(state)?).map_err(|e| Error::corrupt(e.to_string()))
            }
        }
    }

    /// Takes a site's answer.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] with what is wrong about it.
    pub(super) fn take(
        &mut self,
        context: &Context<'_>,
        stage: Stage,
        site: &SiteName,
        answer: &[u8],
    ) -> Result<(), Error> {
        let from = id(site).map_err(refused)?;
        let Self { server, credentials, .. } = self;
        let taken = match stage {
            Stage::Advertise => {
                let introduction = Introduction::from_bytes(answer).map_err(refused)?;
                return self.introduce(context, site, from, introduction);
            }
            Stage::ShareKeys => KeyShares::from_bytes(answer).and_then(|shares| server.shares(&from, shares)),
            Stage::MaskedInput => {
                MaskedInput::from_bytes(answer).and_then(|input| server.input(&from, &input))
            }
            Stage::Consistency => {
                Vote::from_bytes(answer).and_then(|vote| server.vote(&from, vote, credentials))
            }
            Stage::Unmask => UnmaskShares::from_bytes(answer).and_then(|shares| server.answer(&from, shares)),
        };
        taken.map_err(|e| Error::invalid(format!("secure aggregation, site {site}: {e}")))
    }

    fn introduce(
        &mut self,
        context: &Context<'_>,
        site: &SiteName,
        from: SiteId,
        Introduction { advert, credentials }: Introduction<Credentials>,
    ) -> Result<(), Error> {
        let refused =
            |e: &dyn std::fmt::Display| Error::invalid(format!("secure aggregation, site {site}: {e}"));
        let owner = credentials.site(context.authority).map_err(|e| refused(&e))?;
        if owner != *site {
            return Err(refused(&format!("it shows the credentials of {owner}")));
        }
        let own = Directory([(from.clone(), credentials)].into());
        self.server.advert(&from, advert, &own).map_err(|e| refused(&e))?;
        self.credentials.0.extend(own.0);
        Ok(())
    }

    /// Ends the stage and stores what it has led to.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] when too few sites have answered or shares are false.
    pub(super) fn close(
        mut self,
        context: &Context<'_>,
        secure: SecureSpec,
        answered: Vec<SiteName>,
    ) -> Result<StageOutcome, Error> {
        let (mut common, mut own, mut opened) = (None, BTreeMap::new(), None);
        match secure.stage {
            Stage::Advertise => {
                let roster = self.server.close_adverts().map_err(refused)?;
                let credentials = roster.adverts.iter().filter_map(|a| self.credentials.0.get(&a.site));
                let register = Register { credentials: credentials.cloned().collect(), roster };
                self.register = Some(store(context, &register)?);
            }
            Stage::ShareKeys => {
                self.server.close_shares().map_err(refused)?;
                for site in &answered {
                    let inbox = id(site).and_then(|id| self.server.inbox(&id)).map_err(refused)?;
                    own.insert(site.clone(), store(context, &inbox)?);
                }
            }
            Stage::MaskedInput => {
                common = Some(store(context, &self.server.close_inputs().map_err(refused)?)?);
            }
            Stage::Consistency => {
                common = Some(store(context, &self.server.close_votes().map_err(refused)?)?);
            }
            Stage::Unmask => {
                let sum = self.server.finish().map_err(refused)?;
                let sites: Result<Vec<SiteName>, _> =
                    sum.sites.iter().map(|site| site.as_str().parse()).collect();
                let sites = sites.map_err(|e| Error::bug(format!("a member with no site's name: {e}")))?;
                opened = Some(store(context, &Opened { values: sum.values, sites })?);
            }
        }
        let register = self.register.ok_or_else(|| Error::bug("a secure sum without its register"))?;
        let state = store(context, &self)?;
        Ok(StageOutcome { terms: secure.terms, state, register, common, own, answered, opened })
    }
}

fn id(site: &SiteName) -> Result<SiteId, SecAggError> {
    site.as_str().parse()
}

fn store(context: &Context<'_>, document: &impl Wire) -> Result<BlobId, Error> {
    context.blobs.put(&document.to_bytes().map_err(refused)?)
}
