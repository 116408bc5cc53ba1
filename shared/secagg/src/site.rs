//! A site's side of a round.
//!
//! Each step is answered once. The same request again gets the same answer, so a lost message is asked for again
//! without danger; another request is refused. A step's outcome is saved before its message is handed out, so a site
//! that was killed goes on from its last saved state and can neither draw new secrets within the round nor sign a
//! second set. A site whose state is lost must sit the round out: [`History`] refuses to begin it again.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cohort::{Cohort, advert_statement};
use crate::error::{SecAggError, Stage};
use crate::graph::Member;
use crate::history::{History, Subject};
use crate::identity::{Signer, SiteId, Verifier};
use crate::keys::Secret;
use crate::mask::{Sign, apply};
use crate::message::{
    Advert, Inbox, KeyShares, MaskedInput, OpenShare, Roster, SealedShares, UnmaskRequest, UnmaskShares,
    Uploaded, Vote,
};
use crate::packing::pack;
use crate::policy::SitePolicy;
use crate::seal::{SharePair, open, seal};
use crate::shamir::{Share, split};
use crate::terms::Terms;

mod checks;

use checks::{check_uploads, check_votes, names};

/// Where a site keeps what must survive a crash.
pub trait SiteStore {
    /// Saves both, in one transaction, and returns once they are on the disk; or says why not, in words for an operator.
    /// The state holds secrets: write it where only the agent can read.
    fn save(&mut self, site: &Site, history: &History) -> Result<(), String>;
}

/// What a site is asked to take part in, and on which conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Terms of the round, from the plan.
    pub terms: Terms,
    /// This site.
    pub site: SiteId,
    /// What is summed.
    pub subject: Subject,
    /// The site's own limits.
    pub policy: SitePolicy,
}

/// A site within one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Site {
    task: Task,
    mask_secret: Secret,
    seal_secret: Secret,
    seed: Secret,
    advert: Advert,
    dealt: Option<Dealt>,
    masked: Option<Masked>,
    signed: Option<Signed>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Dealt {
    cohort: Cohort,
    me: Member,
    message: KeyShares,
    /// The own share of the own seed. The one of the own mask key is not kept: nobody may ask this site for it.
    own_seed: Share,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Masked {
    held: Vec<Held>,
    /// SHA-256 of the masked vector: a second one under the same masks would give the difference away.
    digest: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Held {
    of: Member,
    seed: Share,
    key: Share,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Signed {
    members: Vec<Member>,
    vote: Vote,
}

impl Site {
    /// Draws the secrets of a round and advertises the keys. `rng` must be the system's generator.
    pub fn begin(
        task: Task,
        history: &mut History,
        rng: &mut impl CryptoRng,
        signer: &impl Signer,
        store: &mut impl SiteStore,
    ) -> Result<(Self, Advert), SecAggError> {
        task.policy.check(&task.terms)?;
        let mut next = history.clone();
        next.begin(&task.terms)?;
        let (mask_secret, seal_secret, seed) = (Secret::draw(rng), Secret::draw(rng), Secret::draw(rng));
        let (mask_key, seal_key) = (mask_secret.public_key(), seal_secret.public_key());
        let statement = advert_statement(&task.terms, &task.site, &mask_key, &seal_key);
        let signature = signer.sign(statement.bytes()).map_err(SecAggError::Signer)?;
        let advert = Advert { site: task.site.clone(), mask_key, seal_key, signature };
        let (dealt, masked, signed) = (None, None, None);
        let site =
            Self { task, mask_secret, seal_secret, seed, advert: advert.clone(), dealt, masked, signed };
        store.save(&site, &next).map_err(SecAggError::Store)?;
        *history = next;
        Ok((site, advert))
    }

    /// The stage whose request comes next.
    pub fn stage(&self) -> Stage {
        match (&self.dealt, &self.masked, &self.signed) {
            (None, ..) => Stage::ShareKeys,
            (_, None, _) => Stage::MaskedInput,
            (.., None) => Stage::Consistency,
            _ => Stage::Unmask,
        }
    }

    /// What this site takes part in.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The advert again, for a site that was restarted.
    pub fn advert(&self) -> &Advert {
        &self.advert
    }

    /// The roster, once it was accepted.
    pub fn cohort(&self) -> Option<&Cohort> {
        self.dealt.as_ref().map(|dealt| &dealt.cohort)
    }

    /// Checks the roster and deals shares of this site's secrets to its neighbours.
    pub fn share_keys(
        &mut self,
        roster: Roster,
        history: &mut History,
        rng: &mut impl CryptoRng,
        verifier: &impl Verifier,
        store: &mut impl SiteStore,
    ) -> Result<KeyShares, SecAggError> {
        if let Some(dealt) = &self.dealt {
            let same = dealt.cohort.is_of(&self.task.terms, &roster);
            return if same { Ok(dealt.message.clone()) } else { Err(changed(Stage::ShareKeys)) };
        }
        let cohort = Cohort::verify(&self.task.terms, roster, verifier)?;
        let own = cohort.member(&self.task.site).filter(|&me| {
            let listed = cohort.advert(me);
            (listed.mask_key, listed.seal_key) == (self.advert.mask_key, self.advert.seal_key)
        });
        let Some(me) = own else {
            let reason = format!("it lacks {} or gives it other keys", self.task.site);
            return Err(SecAggError::Roster { reason });
        };
        let mut remembered = history.clone();
        remembered.take_keys(&cohort)?;
        let dealt = self.deal(cohort, me, rng)?;
        let message = dealt.message.clone();
        let next = Self { dealt: Some(dealt), ..self.clone() };
        store.save(&next, &remembered).map_err(SecAggError::Store)?;
        (*self, *history) = (next, remembered);
        Ok(message)
    }

    fn deal(&self, cohort: Cohort, me: Member, rng: &mut impl CryptoRng) -> Result<Dealt, SecAggError> {
        let neighbours = cohort.graph().closed_neighbourhood(me);
        let threshold = cohort.graph().share_threshold();
        let seeds = split(&self.task.site, &self.seed, threshold, neighbours.len(), rng)?;
        let keys = split(&self.task.site, &self.mask_secret, threshold, neighbours.len(), rng)?;
        let mut own_seed = None;
        let mut sealed = Vec::with_capacity(neighbours.len());
        for ((to, seed), key) in neighbours.into_iter().zip(seeds).zip(keys) {
            if to == me {
                own_seed = Some(seed);
                continue;
            }
            let (pair_key, context) = cohort.seal_key(&self.seal_secret, to, me, to)?;
            let shares = SharePair { seed, key };
            let bytes = seal(&pair_key, &shares, context.bytes(), cohort.site(to), rng)?;
            sealed.push(SealedShares { peer: to, bytes });
        }
        let message = KeyShares { commitment: cohort.commitment(me, &self.seed), sealed };
        let own_seed = own_seed.ok_or_else(|| SecAggError::Sharing {
            site: self.task.site.clone(),
            reason: "the site is not in its own neighbourhood".to_owned(),
        })?;
        Ok(Dealt { cohort, me, message, own_seed })
    }

    /// Opens what the neighbours dealt and masks `values`: the self-mask and a mask for every neighbour that dealt.
    pub fn mask(
        &mut self,
        inbox: &Inbox,
        values: &[i64],
        history: &History,
        store: &mut impl SiteStore,
    ) -> Result<MaskedInput, SecAggError> {
        let dealt = self.dealt.as_ref().ok_or_else(|| self.out_of_order(Stage::MaskedInput))?;
        let held = self.open_inbox(dealt, inbox)?;
        let packed = self.masked_vector(dealt, &held, values)?;
        let digest = Sha256::digest(&packed).into();
        if let Some(before) = &self.masked {
            if before.held != held {
                return Err(changed(Stage::MaskedInput));
            }
            if before.digest != digest {
                return Err(SecAggError::Changed {
                    stage: Stage::MaskedInput,
                    from: self.task.site.to_string(),
                });
            }
        } else {
            let next = Self { masked: Some(Masked { held, digest }), ..self.clone() };
            store.save(&next, history).map_err(SecAggError::Store)?;
            *self = next;
        }
        Ok(MaskedInput { packed })
    }

    fn open_inbox(&self, Dealt { cohort, me, .. }: &Dealt, inbox: &Inbox) -> Result<Vec<Held>, SecAggError> {
        let mut held = BTreeMap::new();
        for SealedShares { peer, bytes } in &inbox.sealed {
            cohort.check(Stage::MaskedInput, *peer)?;
            let from = cohort.site(*peer);
            let adjacent = cohort.graph().adjacent(*me, *peer);
            if !adjacent || held.contains_key(peer) {
                let reason = if adjacent { "its shares come twice" } else { "it is no neighbour" };
                return Err(SecAggError::Message {
                    stage: Stage::MaskedInput,
                    site: from.clone(),
                    reason: reason.to_owned(),
                });
            }
            let (key, context) = cohort.seal_key(&self.seal_secret, *peer, *peer, *me)?;
            let SharePair { seed, key } = open(&key, bytes, context.bytes(), from)?;
            held.insert(*peer, Held { of: *peer, seed, key });
        }
        // With the own share. Fewer could not open this site's self-mask later on.
        let (got, needed) = (held.len() + 1, cohort.graph().share_threshold());
        if got < needed {
            return Err(SecAggError::TooFew { stage: Stage::ShareKeys, got, needed });
        }
        Ok(held.into_values().collect())
    }

    fn masked_vector(
        &self,
        Dealt { cohort, me, .. }: &Dealt,
        held: &[Held],
        values: &[i64],
    ) -> Result<Vec<u8>, SecAggError> {
        let Terms { length, ring, .. } = self.task.terms;
        if values.len() as u64 != length {
            return Err(SecAggError::Length { expected: length, got: values.len() as u64 });
        }
        let mut vector = ring.encode(values, cohort.len())?;
        let mut masks = vec![(Zeroizing::new(*self.seed.bytes()), Sign::Plus)];
        for Held { of, .. } in held {
            masks.push(cohort.pair_mask(*me, &self.mask_secret, *of)?);
        }
        apply(&masks, &mut vector);
        Ok(pack(ring, &vector))
    }

    /// Signs the set of uploads, once. Checks that this site is in it, that it is large enough, and that the sum over it,
    /// set against earlier ones, does not single out a few sites.
    pub fn consistency(
        &mut self,
        uploaded: &Uploaded,
        history: &History,
        signer: &impl Signer,
        store: &mut impl SiteStore,
    ) -> Result<Vote, SecAggError> {
        if let Some(Signed { members, vote }) = &self.signed {
            let same = *members == uploaded.members;
            return if same { Ok(vote.clone()) } else { Err(changed(Stage::Consistency)) };
        }
        let (Some(dealt), Some(masked)) = (&self.dealt, &self.masked) else {
            return Err(self.out_of_order(Stage::Consistency));
        };
        check_uploads(dealt, masked, &uploaded.members)?;
        let cohort = names(&dealt.cohort, &uploaded.members);
        history.check_difference(&self.task.subject, &cohort, self.task.policy.min_difference as usize)?;
        let statement = dealt.cohort.uploaded_statement(&uploaded.members);
        let signature = signer.sign(statement.bytes()).map_err(SecAggError::Signer)?;
        let vote = Vote { signature };
        let signed = Signed { members: uploaded.members.clone(), vote: vote.clone() };
        let next = Self { signed: Some(signed), ..self.clone() };
        store.save(&next, history).map_err(SecAggError::Store)?;
        *self = next;
        Ok(vote)
    }

    /// Releases, of each neighbour, either the share of its seed or the share of its mask key, by the one set this site
    /// signed, given the signatures of enough others over that set.
    pub fn unmask(
        &mut self,
        request: &UnmaskRequest,
        history: &mut History,
        verifier: &impl Verifier,
        store: &mut impl SiteStore,
    ) -> Result<UnmaskShares, SecAggError> {
        let (
            Some(Dealt { cohort, me, own_seed, .. }),
            Some(Masked { held, .. }),
            Some(Signed { members, .. }),
        ) = (&self.dealt, &self.masked, &self.signed)
        else {
            return Err(self.out_of_order(Stage::Unmask));
        };
        if *members != request.members {
            return Err(changed(Stage::Unmask));
        }
        check_votes(cohort, request, verifier)?;
        let mut remembered = history.clone();
        // Again: another round may have been opened since this one was signed.
        let opened = names(cohort, members);
        remembered.check_difference(&self.task.subject, &opened, self.task.policy.min_difference as usize)?;
        remembered.opened(&self.task.subject, opened);
        let (uploaded, dropped): (Vec<&Held>, Vec<&Held>) =
            held.iter().partition(|held| members.binary_search(&held.of).is_ok());
        let mut seeds = vec![OpenShare { of: *me, bytes: *own_seed.bytes() }];
        seeds.extend(uploaded.iter().map(|held| OpenShare { of: held.of, bytes: *held.seed.bytes() }));
        let keys = dropped.iter().map(|held| OpenShare { of: held.of, bytes: *held.key.bytes() }).collect();
        store.save(self, &remembered).map_err(SecAggError::Store)?;
        *history = remembered;
        Ok(UnmaskShares { seeds, keys })
    }

    fn out_of_order(&self, asked: Stage) -> SecAggError {
        SecAggError::Order { asked, at: self.stage() }
    }
}

fn changed(stage: Stage) -> SecAggError {
    SecAggError::Changed { stage, from: "the coordinator".to_owned() }
}
