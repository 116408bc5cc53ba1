//! Sites with ECDSA identities and a coordinator between them, message by message.

use std::collections::BTreeMap;
use std::rc::Rc;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use sheaf_secagg::{
    History, KeyShares, MaskedInput, Ring, Roster, SecAggError, Server, Signer, Site, SiteId, SitePolicy,
    SiteStore, Stage, Sum, Task, Terms, UnmaskRequest, UnmaskShares, Uploaded, Verifier, Vote,
};

pub(crate) struct Identity(EcdsaKeyPair);

impl Identity {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap())
    }
}

impl Signer for Identity {
    fn sign(&self, statement: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self.0.sign(&SystemRandom::new(), statement).map_err(|e| e.to_string())?;
        Ok(signature.as_ref().to_vec())
    }
}

/// The pinned keys of all sites.
#[derive(Default)]
pub(crate) struct Directory(BTreeMap<SiteId, Vec<u8>>);

impl Verifier for Directory {
    fn verify(&self, site: &SiteId, statement: &[u8], signature: &[u8]) -> bool {
        let verify = |key: &Vec<u8>| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(statement, signature)
        };
        self.0.get(site).is_some_and(|key| verify(key).is_ok())
    }
}

/// Keeps the last saved state as bytes, as a disk would; can be made to fail.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) site: Vec<u8>,
    pub(crate) history: Vec<u8>,
    pub(crate) broken: bool,
}

impl SiteStore for Disk {
    fn save(&mut self, site: &Site, history: &History) -> Result<(), String> {
        if self.broken {
            return Err("disk full".to_owned());
        }
        (self.site, self.history) = (serde_json::to_vec(site).unwrap(), serde_json::to_vec(history).unwrap());
        Ok(())
    }
}

pub(crate) struct Party {
    pub(crate) name: SiteId,
    pub(crate) identity: Identity,
    pub(crate) history: History,
    pub(crate) disk: Disk,
    pub(crate) site: Option<Site>,
    directory: Rc<Directory>,
    rng: ChaCha20Rng,
}

impl Party {
    pub(crate) fn task(&self, terms: &Terms) -> Task {
        let policy = SitePolicy { min_cohort: 2, min_survivors: 2, min_difference: 2 };
        Task { terms: terms.clone(), site: self.name.clone(), subject: [3; 32], policy }
    }

    pub(crate) fn begin(&mut self, task: Task) -> Result<sheaf_secagg::Advert, SecAggError> {
        let Self { history, rng, identity, disk, .. } = self;
        let (site, advert) = Site::begin(task, history, rng, identity, disk)?;
        self.site = Some(site);
        Ok(advert)
    }

    pub(crate) fn share_keys(&mut self, roster: &Roster) -> Result<KeyShares, SecAggError> {
        let Self { site, history, rng, directory, disk, .. } = self;
        site.as_mut().unwrap().share_keys(roster.clone(), history, rng, &**directory, disk)
    }

    pub(crate) fn mask(
        &mut self,
        inbox: &sheaf_secagg::Inbox,
        values: &[i64],
    ) -> Result<MaskedInput, SecAggError> {
        self.site.as_mut().unwrap().mask(inbox, values, &self.history, &mut self.disk)
    }

    pub(crate) fn consistency(&mut self, uploaded: &Uploaded) -> Result<Vote, SecAggError> {
        let Self { site, history, identity, disk, .. } = self;
        site.as_mut().unwrap().consistency(uploaded, history, identity, disk)
    }

    pub(crate) fn unmask(&mut self, request: &UnmaskRequest) -> Result<UnmaskShares, SecAggError> {
        let Self { site, history, directory, disk, .. } = self;
        site.as_mut().unwrap().unmask(request, history, &**directory, disk)
    }

    /// Killed and started again from what is on the disk.
    pub(crate) fn restart(&mut self) {
        self.site = Some(serde_json::from_slice(&self.disk.site).unwrap());
        self.history = serde_json::from_slice(&self.disk.history).unwrap();
    }
}

pub(crate) struct Federation {
    pub(crate) terms: Terms,
    pub(crate) parties: Vec<Party>,
    pub(crate) directory: Rc<Directory>,
    pub(crate) server: Server,
}

pub(crate) fn terms(length: usize, ring: Ring) -> Terms {
    let (run, plan) = ("run-1".to_owned(), [1; 32]);
    Terms { run, round: 1, plan, length: length as u64, ring, min_cohort: 2, min_survivors: 2 }
}

impl Federation {
    pub(crate) fn new(sites: usize, terms: Terms, seed: u64) -> Self {
        let identities: Vec<_> = (0..sites).map(|_| Identity::new()).collect();
        let name = |n: usize| format!("site-{n:04}").parse::<SiteId>().unwrap();
        let public = |identity: &Identity| identity.0.public_key().as_ref().to_vec();
        let directory =
            Rc::new(Directory(identities.iter().enumerate().map(|(n, i)| (name(n), public(i))).collect()));
        let party = |(n, identity)| Party {
            name: name(n),
            identity,
            history: History::default(),
            disk: Disk::default(),
            site: None,
            directory: Rc::clone(&directory),
            rng: ChaCha20Rng::seed_from_u64(seed.wrapping_mul(10_000).wrapping_add(n as u64)),
        };
        let parties = identities.into_iter().enumerate().map(party).collect();
        Self { server: Server::new(terms.clone()).unwrap(), terms, parties, directory }
    }

    /// The next round of the same sites.
    pub(crate) fn next_round(&mut self) {
        self.terms.round += 1;
        self.server = Server::new(self.terms.clone()).unwrap();
    }

    /// The first stage of those sites that `there` names.
    pub(crate) fn advertise(&mut self, there: impl Fn(usize) -> bool) -> Result<Roster, SecAggError> {
        for (_, party) in self.parties.iter_mut().enumerate().filter(|(n, _)| there(*n)) {
            let advert = party.begin(party.task(&self.terms))?;
            self.server.advert(&party.name, advert, &*self.directory)?;
        }
        self.server.close_adverts()
    }

    /// Up to the inboxes.
    pub(crate) fn deal(&mut self, roster: &Roster, there: impl Fn(usize) -> bool) -> Result<(), SecAggError> {
        for (_, party) in self.parties.iter_mut().enumerate().filter(|(n, _)| there(*n)) {
            let shares = party.share_keys(roster)?;
            self.server.shares(&party.name, shares)?;
        }
        self.server.close_shares()
    }

    /// Up to the set of uploads.
    pub(crate) fn upload(
        &mut self,
        values: &[Vec<i64>],
        there: impl Fn(usize) -> bool,
    ) -> Result<Uploaded, SecAggError> {
        for (n, party) in self.parties.iter_mut().enumerate().filter(|(n, _)| there(*n)) {
            let input = party.mask(&self.server.inbox(&party.name)?, &values[n])?;
            self.server.input(&party.name, &input)?;
        }
        self.server.close_inputs()
    }

    /// Up to the request to unmask.
    pub(crate) fn vote(
        &mut self,
        uploaded: &Uploaded,
        there: impl Fn(usize) -> bool,
    ) -> Result<UnmaskRequest, SecAggError> {
        for (_, party) in self.parties.iter_mut().enumerate().filter(|(n, _)| there(*n)) {
            let vote = party.consistency(uploaded)?;
            self.server.vote(&party.name, vote, &*self.directory)?;
        }
        self.server.close_votes()
    }

    /// Up to the sum.
    pub(crate) fn open(
        &mut self,
        request: &UnmaskRequest,
        there: impl Fn(usize) -> bool,
    ) -> Result<Sum, SecAggError> {
        for (_, party) in self.parties.iter_mut().enumerate().filter(|(n, _)| there(*n)) {
            let answer = party.unmask(request)?;
            self.server.answer(&party.name, answer)?;
        }
        self.server.finish()
    }

    /// A whole round. `leaves[n]` is the stage from which on site `n` is silent.
    pub(crate) fn run(&mut self, values: &[Vec<i64>], leaves: &[Option<Stage>]) -> Result<Sum, SecAggError> {
        let there = |stage: Stage| move |n: usize| leaves[n].is_none_or(|left| stage < left);
        let roster = self.advertise(there(Stage::Advertise))?;
        self.deal(&roster, there(Stage::ShareKeys))?;
        let uploaded = self.upload(values, there(Stage::MaskedInput))?;
        let request = self.vote(&uploaded, there(Stage::Consistency))?;
        self.open(&request, there(Stage::Unmask))
    }
}

/// The integer sum over the sites that `counts` names.
pub(crate) fn plain_sum(values: &[Vec<i64>], counts: impl Fn(usize) -> bool) -> Vec<i64> {
    let mut sum = vec![0_i64; values[0].len()];
    for (_, vector) in values.iter().enumerate().filter(|(n, _)| counts(*n)) {
        sum.iter_mut().zip(vector).for_each(|(a, b)| *a += b);
    }
    sum
}

/// Vectors of any values that the ring holds.
pub(crate) fn vectors(sites: usize, length: usize, ring: Ring, seed: u64) -> Vec<Vec<i64>> {
    use rand_chacha::rand_core::Rng as _;
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let bound = i128::from(ring.bound(sites));
    let mut value = || (i128::from(rng.next_u64() as i64) % (bound + 1)) as i64;
    (0..sites).map(|_| (0..length).map(|_| value()).collect()).collect()
}
