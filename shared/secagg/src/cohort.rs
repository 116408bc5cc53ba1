//! A roster that was checked: who takes part, with which keys, joined how.

use std::collections::BTreeSet;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{SecAggError, Stage};
use crate::graph::{Graph, MAX_SITES, Member};
use crate::identity::{SiteId, Statement, Verifier};
use crate::keys::{End, Secret, pair_key};
use crate::mask::{Mask, Sign};
use crate::message::{Advert, Roster};
use crate::terms::Terms;

/// The sites of a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cohort {
    terms: [u8; 32],
    digest: [u8; 32],
    adverts: Vec<Advert>,
    graph: Graph,
    survivors: usize,
}

/// The bytes under a site's signature over its keys.
pub(crate) fn advert_statement(
    terms: &Terms,
    site: &SiteId,
    mask_key: &[u8; 32],
    seal_key: &[u8; 32],
) -> Statement {
    Statement::new("advert")
        .field(&terms.digest())
        .field(site.as_str().as_bytes())
        .field(mask_key)
        .field(seal_key)
}

/// Whether an advert is signed by the site it names, for these terms.
pub(crate) fn verify_advert(
    terms: &Terms,
    advert: &Advert,
    verifier: &impl Verifier,
) -> Result<(), SecAggError> {
    let statement = advert_statement(terms, &advert.site, &advert.mask_key, &advert.seal_key);
    if verifier.verify(&advert.site, statement.bytes(), &advert.signature) {
        Ok(())
    } else {
        Err(SecAggError::Signature { stage: Stage::Advertise, site: advert.site.clone() })
    }
}

impl Cohort {
    /// Checks every signature, that no site and no key stands twice, and that there are enough sites.
    pub(crate) fn verify(
        terms: &Terms,
        roster: Roster,
        verifier: &impl Verifier,
    ) -> Result<Self, SecAggError> {
        let cohort = Self::assemble(terms, roster)?;
        cohort.adverts.par_iter().try_for_each(|advert| verify_advert(terms, advert, verifier))?;
        Ok(cohort)
    }

    /// The same without the signatures, for whoever has checked each of them before.
    pub(crate) fn assemble(terms: &Terms, Roster { adverts }: Roster) -> Result<Self, SecAggError> {
        let refuse = |reason: String| Err(SecAggError::Roster { reason });
        let sites = adverts.len();
        if sites > MAX_SITES {
            return Err(SecAggError::TooMany { got: sites, limit: MAX_SITES });
        }
        let survivors = terms.survivors(sites);
        let needed = survivors.max(terms.min_cohort as usize);
        if sites < needed {
            return Err(SecAggError::TooFew { stage: Stage::Advertise, got: sites, needed });
        }
        if let Some(pair) = adverts.windows(2).find(|pair| pair[0].site >= pair[1].site) {
            return refuse(format!(
                "{} and {} are out of order or the same site",
                pair[0].site, pair[1].site
            ));
        }
        let mut keys = BTreeSet::new();
        for advert in &adverts {
            if !keys.insert(advert.mask_key) || !keys.insert(advert.seal_key) {
                return refuse(format!("a key of {} stands in it twice", advert.site));
            }
        }
        let digest = Self::digest_of(terms, &adverts);
        let seed = Statement::new("graph").field(&digest).digest();
        let graph = Graph::new(seed, sites);
        Ok(Self { terms: terms.digest(), digest, adverts, graph, survivors })
    }

    /// Digest of terms and keys. Signatures are left out: a site may sign the same statement twice.
    fn digest_of(terms: &Terms, adverts: &[Advert]) -> [u8; 32] {
        let begin = Statement::new("roster").field(&terms.digest());
        let all = adverts.iter().fold(begin, |statement, advert| {
            statement.field(advert.site.as_str().as_bytes()).field(&advert.mask_key).field(&advert.seal_key)
        });
        all.digest()
    }

    /// Whether `roster` holds the same sites with the same keys.
    pub(crate) fn is_of(&self, terms: &Terms, roster: &Roster) -> bool {
        Self::digest_of(terms, &roster.adverts) == self.digest
    }

    /// How many sites.
    pub fn len(&self) -> usize {
        self.adverts.len()
    }

    /// Never: a roster without sites is refused.
    pub fn is_empty(&self) -> bool {
        self.adverts.is_empty()
    }

    /// Who shares masks with whom.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Sites that must have uploaded for a sum to be opened.
    pub fn survivors(&self) -> usize {
        self.survivors
    }

    /// Position of a site.
    pub fn member(&self, site: &SiteId) -> Option<Member> {
        let found = self.adverts.binary_search_by(|advert| advert.site.cmp(site));
        found.ok().map(|at| Member(at as u16))
    }

    /// The site at a position that was checked.
    pub fn site(&self, member: Member) -> &SiteId {
        &self.advert(member).site
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (&SiteId, &[u8; 32])> {
        self.adverts.iter().map(|advert| (&advert.site, &advert.mask_key))
    }

    pub(crate) fn advert(&self, member: Member) -> &Advert {
        &self.adverts[member.index()]
    }

    /// Checks that a position from outside is one of the roster.
    pub(crate) fn check(&self, stage: Stage, member: Member) -> Result<(), SecAggError> {
        let sites = self.adverts.len();
        if member.index() < sites {
            Ok(())
        } else {
            Err(SecAggError::Unknown { stage, member: member.0, sites })
        }
    }

    /// Checks a set from outside: ascending, of the roster, large enough.
    pub(crate) fn check_uploaded(&self, stage: Stage, members: &[Member]) -> Result<(), SecAggError> {
        members.iter().try_for_each(|&member| self.check(stage, member))?;
        if members.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(SecAggError::Roster { reason: "the uploaded set names a site twice".to_owned() });
        }
        let (got, needed) = (members.len(), self.survivors);
        if got < needed { Err(SecAggError::TooFew { stage, got, needed }) } else { Ok(()) }
    }

    /// The bytes under a vote.
    pub(crate) fn uploaded_statement(&self, members: &[Member]) -> Statement {
        let begin = Statement::new("uploaded").field(&self.terms).field(&self.digest);
        members.iter().fold(begin, |statement, member| statement.number(u64::from(member.0)))
    }

    /// Place of `holder`'s share among the shares of `owner`.
    pub(crate) fn place(&self, owner: Member, holder: Member) -> Option<usize> {
        self.graph.closed_neighbourhood(owner).binary_search(&holder).ok()
    }

    /// The common mask of `me`, whose secret is given, and `peer`, with the sign for `me`.
    pub(crate) fn pair_mask(&self, me: Member, secret: &Secret, peer: Member) -> Result<Mask, SecAggError> {
        let end = |member: Member| End { site: self.site(member), key: &self.advert(member).mask_key };
        let ends = (end(me.min(peer)), end(me.max(peer)));
        let key = pair_key(secret, &end(peer), "mask", &self.terms, (&ends.0, &ends.1))?;
        Ok((key, Sign::of(me, peer)))
    }

    /// The key and the context of shares from one site to another; `secret` is that of whichever of them is not `peer`.
    pub(crate) fn seal_key(
        &self,
        secret: &Secret,
        peer: Member,
        from: Member,
        to: Member,
    ) -> Result<(Zeroizing<[u8; 32]>, Statement), SecAggError> {
        let end = |member: Member| End { site: self.site(member), key: &self.advert(member).seal_key };
        let key = pair_key(secret, &end(peer), "seal", &self.terms, (&end(from), &end(to)))?;
        let context = Statement::new("shares")
            .field(&self.terms)
            .field(&self.digest)
            .field(self.site(from).as_str().as_bytes())
            .field(self.site(to).as_str().as_bytes());
        Ok((key, context))
    }

    /// What a site commits its seed with.
    pub(crate) fn commitment(&self, owner: Member, seed: &Secret) -> [u8; 32] {
        Statement::new("seed")
            .field(&self.terms)
            .field(self.site(owner).as_str().as_bytes())
            .field(seed.bytes())
            .digest()
    }
}
