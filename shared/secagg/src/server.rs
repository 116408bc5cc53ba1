//! The coordinator's side of a round.
//!
//! It keeps one running sum, whatever the number of sites, and all of it is serialisable: a coordinator that was killed
//! goes on from its last saved state. It holds no secret of its own; what it may not learn, the sites do not send.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cohort::{Cohort, verify_advert};
use crate::error::{SecAggError, Stage};
use crate::graph::Member;
use crate::identity::{SiteId, Verifier};
use crate::keys::Secret;
use crate::mask::{Mask, Sign, apply};
use crate::message::{
    Advert, Inbox, KeyShares, MaskedInput, Roster, SealedShares, UnmaskRequest, UnmaskShares, Uploaded, Vote,
};
use crate::packing::unpack_add;
use crate::seal::SEALED_LEN;
use crate::shamir::{Share, recover};
use crate::terms::Terms;

/// An opened sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Element by element over the sites.
    pub values: Vec<i64>,
    /// Whose vectors are in it.
    pub sites: Vec<SiteId>,
}

/// The coordinator within one round. Every sender named in a call is one the channel has authenticated.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    terms: Terms,
    stage: Stage,
    adverts: BTreeMap<SiteId, Advert>,
    cohort: Option<Cohort>,
    deals: BTreeMap<Member, KeyShares>,
    /// Digests of the masked vectors in `sum`.
    inputs: BTreeMap<Member, [u8; 32]>,
    sum: Vec<u64>,
    votes: BTreeMap<Member, Vec<u8>>,
    answers: BTreeMap<Member, UnmaskShares>,
}

impl Server {
    /// Opens a round.
    pub fn new(terms: Terms) -> Result<Self, SecAggError> {
        terms.validate()?;
        Ok(Self {
            terms,
            stage: Stage::Advertise,
            adverts: BTreeMap::new(),
            cohort: None,
            deals: BTreeMap::new(),
            inputs: BTreeMap::new(),
            sum: Vec::new(),
            votes: BTreeMap::new(),
            answers: BTreeMap::new(),
        })
    }

    /// The stage whose messages are taken.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The roster, once it is closed.
    pub fn cohort(&self) -> Option<&Cohort> {
        self.cohort.as_ref()
    }

    /// Takes a site's keys.
    pub fn advert(
        &mut self,
        from: &SiteId,
        advert: Advert,
        verifier: &impl Verifier,
    ) -> Result<(), SecAggError> {
        self.expect(Stage::Advertise)?;
        if *from != advert.site {
            let reason = format!("it advertises for {}", advert.site);
            return Err(SecAggError::Message { stage: self.stage, site: from.clone(), reason });
        }
        verify_advert(&self.terms, &advert, verifier)?;
        match self.adverts.get(from) {
            Some(before) if (before.mask_key, before.seal_key) != (advert.mask_key, advert.seal_key) => {
                Err(changed(self.stage, from))
            }
            Some(_) => Ok(()),
            None => {
                self.adverts.insert(from.clone(), advert);
                Ok(())
            }
        }
    }

    /// Ends the first stage.
    pub fn close_adverts(&mut self) -> Result<Roster, SecAggError> {
        self.expect(Stage::Advertise)?;
        let roster = Roster { adverts: self.adverts.values().cloned().collect() };
        self.cohort = Some(Cohort::assemble(&self.terms, roster.clone())?);
        self.stage = Stage::ShareKeys;
        Ok(roster)
    }

    /// Takes a site's sealed shares.
    pub fn shares(&mut self, from: &SiteId, message: KeyShares) -> Result<(), SecAggError> {
        self.expect(Stage::ShareKeys)?;
        let (cohort, me) = self.sender(from)?;
        let mut wanted = cohort.graph().closed_neighbourhood(me);
        wanted.retain(|&member| member != me);
        let complete = message.sealed.iter().map(|sealed| sealed.peer).eq(wanted)
            && message.sealed.iter().all(|sealed| sealed.bytes.len() == SEALED_LEN);
        if !complete {
            let reason = "it must deal one share of the right size to each neighbour, in order".to_owned();
            return Err(SecAggError::Message { stage: self.stage, site: from.clone(), reason });
        }
        if *self.deals.entry(me).or_insert_with(|| message.clone()) == message {
            Ok(())
        } else {
            Err(changed(self.stage, from))
        }
    }

    /// Ends the second stage; [`Server::inbox`] then has what each site gets.
    pub fn close_shares(&mut self) -> Result<(), SecAggError> {
        self.expect(Stage::ShareKeys)?;
        self.enough(self.deals.len())?;
        self.sum = vec![0; self.terms.length as usize];
        self.stage = Stage::MaskedInput;
        Ok(())
    }

    /// What the neighbours of a site dealt it.
    pub fn inbox(&self, to: &SiteId) -> Result<Inbox, SecAggError> {
        let (cohort, me) = self.sender(to)?;
        if self.stage < Stage::MaskedInput || !self.deals.contains_key(&me) {
            return Err(SecAggError::Order { asked: Stage::MaskedInput, at: self.stage });
        }
        let of = |peer: Member| {
            let dealt = self.deals.get(&peer).filter(|_| peer != me)?;
            let found = dealt.sealed.binary_search_by_key(&me, |sealed| sealed.peer).ok()?;
            Some(SealedShares { peer, bytes: dealt.sealed[found].bytes.clone() })
        };
        Ok(Inbox { sealed: cohort.graph().closed_neighbourhood(me).into_iter().filter_map(of).collect() })
    }

    /// Adds a masked vector.
    pub fn input(&mut self, from: &SiteId, input: &MaskedInput) -> Result<(), SecAggError> {
        self.expect(Stage::MaskedInput)?;
        let (_, me) = self.sender(from)?;
        if !self.deals.contains_key(&me) {
            let reason = "it has dealt no shares".to_owned();
            return Err(SecAggError::Message { stage: self.stage, site: from.clone(), reason });
        }
        let digest: [u8; 32] = Sha256::digest(&input.packed).into();
        match self.inputs.get(&me) {
            Some(before) if *before == digest => Ok(()),
            Some(_) => Err(changed(self.stage, from)),
            None => {
                unpack_add(self.terms.ring, &input.packed, &mut self.sum)?;
                self.inputs.insert(me, digest);
                Ok(())
            }
        }
    }

    /// Ends the third stage.
    pub fn close_inputs(&mut self) -> Result<Uploaded, SecAggError> {
        self.expect(Stage::MaskedInput)?;
        self.enough(self.inputs.len())?;
        self.stage = Stage::Consistency;
        Ok(Uploaded { members: self.inputs.keys().copied().collect() })
    }

    /// Takes a site's signature over the set.
    pub fn vote(&mut self, from: &SiteId, vote: Vote, verifier: &impl Verifier) -> Result<(), SecAggError> {
        self.expect(Stage::Consistency)?;
        let (cohort, me) = self.uploader(from)?;
        let members: Vec<Member> = self.inputs.keys().copied().collect();
        let statement = cohort.uploaded_statement(&members);
        if !verifier.verify(from, statement.bytes(), &vote.signature) {
            return Err(SecAggError::Signature { stage: self.stage, site: from.clone() });
        }
        self.votes.insert(me, vote.signature);
        Ok(())
    }

    /// Ends the fourth stage. As many votes go out as are needed, no more.
    pub fn close_votes(&mut self) -> Result<UnmaskRequest, SecAggError> {
        self.expect(Stage::Consistency)?;
        let needed = self.enough(self.votes.len())?;
        self.stage = Stage::Unmask;
        let votes = self.votes.iter().take(needed).map(|(member, vote)| (*member, vote.clone())).collect();
        Ok(UnmaskRequest { members: self.inputs.keys().copied().collect(), votes })
    }

    /// Takes a site's shares. Shares of the wrong kind are refused: together with the right ones they would open a site.
    pub fn answer(&mut self, from: &SiteId, answer: UnmaskShares) -> Result<(), SecAggError> {
        self.expect(Stage::Unmask)?;
        let (cohort, me) = self.uploader(from)?;
        let right = |of: Member, uploaded: bool| {
            self.inputs.contains_key(&of) == uploaded
                && self.deals.contains_key(&of)
                && (of == me || cohort.graph().adjacent(of, me))
        };
        let fits = answer.seeds.iter().all(|share| right(share.of, true))
            && answer.keys.iter().all(|share| right(share.of, false));
        if !fits {
            let reason = "a share of the wrong kind or of a site that is no neighbour".to_owned();
            return Err(SecAggError::Message { stage: self.stage, site: from.clone(), reason });
        }
        self.answers.insert(me, answer);
        Ok(())
    }

    /// Opens the sum: takes out the self-masks of all that uploaded, and what those that dropped out after dealing have
    /// left in their neighbours' vectors. May be called again after more answers.
    pub fn finish(&self) -> Result<Sum, SecAggError> {
        self.expect(Stage::Unmask)?;
        let cohort = self.closed_cohort()?;
        // All secrets first, so that a round that cannot be finished fails before the work.
        let mut masks: Vec<Mask> = Vec::with_capacity(self.deals.len());
        for (&of, deal) in &self.deals {
            if self.inputs.contains_key(&of) {
                let seed = self.open(cohort, of, true, deal)?;
                masks.push((Zeroizing::new(*seed.bytes()), Sign::Minus));
                continue;
            }
            let mut peers = self.inputs.keys().filter(|&&peer| cohort.graph().adjacent(of, peer)).peekable();
            if peers.peek().is_some() {
                let secret = self.open(cohort, of, false, deal)?;
                // With the sign of the site that is gone, since it cancels what the other one put in.
                for &peer in peers {
                    masks.push(cohort.pair_mask(of, &secret, peer)?);
                }
            }
        }
        let mut vector = self.sum.clone();
        apply(&masks, &mut vector);
        let ring = self.terms.ring;
        Ok(Sum {
            values: vector.into_iter().map(|element| ring.signed(element)).collect(),
            sites: self.inputs.keys().map(|&member| cohort.site(member).clone()).collect(),
        })
    }

    fn open(
        &self,
        cohort: &Cohort,
        of: Member,
        uploaded: bool,
        deal: &KeyShares,
    ) -> Result<Secret, SecAggError> {
        let site = cohort.site(of);
        let share = |(holder, answer): (&Member, &UnmaskShares)| {
            let shares = if uploaded { &answer.seeds } else { &answer.keys };
            let share = shares.iter().find(|share| share.of == of)?;
            Some((cohort.place(of, *holder)?, Share::from_bytes(share.bytes)))
        };
        let shares: Vec<_> = self.answers.iter().filter_map(share).collect();
        let secret = recover(site, &shares, cohort.graph().share_threshold())?;
        let is_true = if uploaded {
            cohort.commitment(of, &secret) == deal.commitment
        } else {
            secret.public_key() == cohort.advert(of).mask_key
        };
        if is_true { Ok(secret) } else { Err(SecAggError::FalseShare { site: site.clone() }) }
    }

    fn expect(&self, asked: Stage) -> Result<(), SecAggError> {
        if self.stage == asked { Ok(()) } else { Err(SecAggError::Order { asked, at: self.stage }) }
    }

    fn enough(&self, got: usize) -> Result<usize, SecAggError> {
        let needed = self.closed_cohort()?.survivors();
        if got < needed { Err(SecAggError::TooFew { stage: self.stage, got, needed }) } else { Ok(needed) }
    }

    fn closed_cohort(&self) -> Result<&Cohort, SecAggError> {
        self.cohort.as_ref().ok_or(SecAggError::Order { asked: Stage::ShareKeys, at: self.stage })
    }

    fn sender(&self, from: &SiteId) -> Result<(&Cohort, Member), SecAggError> {
        let cohort = self.closed_cohort()?;
        let member = cohort.member(from).ok_or_else(|| SecAggError::Message {
            stage: self.stage,
            site: from.clone(),
            reason: "it is not in the roster".to_owned(),
        })?;
        Ok((cohort, member))
    }

    fn uploader(&self, from: &SiteId) -> Result<(&Cohort, Member), SecAggError> {
        let (cohort, member) = self.sender(from)?;
        if self.inputs.contains_key(&member) {
            return Ok((cohort, member));
        }
        let reason = "it has uploaded nothing".to_owned();
        Err(SecAggError::Message { stage: self.stage, site: from.clone(), reason })
    }
}

fn changed(stage: Stage, site: &SiteId) -> SecAggError {
    SecAggError::Changed { stage, from: site.to_string() }
}
