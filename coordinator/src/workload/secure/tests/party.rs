//! A site of the tests: real keys and the real protocol, no agent around it.

use std::{path::Path, sync::Arc, time::Duration};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use sheaf_proto::secure::{Introduction, MaybeSecure, Register};
use sheaf_secagg::{History, Signer, Site, SiteId, SitePolicy, SiteStore, Stage, Task, Verifier, Wire};
use sheaf_transport::{
    identity::{Identity, SiteName},
    keys::SecretKey,
    signature::{Credentials, SigningKey},
    tls::SwappableCertificate,
};

use crate::{identity::authority::Authority, run::event::PhaseSpec, store::blobs::BlobStore};

pub(in crate::workload) struct Party {
    pub(in crate::workload) name: SiteName,
    pub(in crate::workload) values: Vec<i64>,
    signing: SigningKey,
    certificate: Arc<SwappableCertificate>,
    site: Option<Site>,
    history: History,
    rng: ChaCha20Rng,
    min_difference: u32,
}

struct Key<'a>(&'a SigningKey);

impl Signer for Key<'_> {
    fn sign(&self, statement: &[u8]) -> Result<Vec<u8>, String> {
        self.0.sign(statement).map_err(|e| e.to_string())
    }
}

struct Peers(Register<Credentials>);

impl Verifier for Peers {
    fn verify(&self, site: &SiteId, statement: &[u8], signature: &[u8]) -> bool {
        let at = self.0.roster.adverts.iter().position(|advert| advert.site == *site);
        at.is_some_and(|at| self.0.credentials[at].verify(statement, signature))
    }
}

struct Memory;

impl SiteStore for Memory {
    fn save(&mut self, _: &Site, _: &History) -> Result<(), String> {
        Ok(())
    }
}

impl Party {
    pub(in crate::workload) fn new(folder: &Path, authority: &Authority, n: usize, length: usize) -> Self {
        let name: SiteName = format!("s{n}").parse().unwrap();
        let key = SecretKey::generate().unwrap();
        let identity = Identity::Site(name.clone());
        let leaf =
            authority.sign_request(&key.request().unwrap(), &identity, Duration::from_secs(600)).unwrap();
        Self {
            values: (0..length).map(|i| (n * 10 + i) as i64 * if i % 2 == 0 { 1 } else { -1 }).collect(),
            signing: SigningKey::open(&folder.join(format!("{name}.pem"))).unwrap(),
            certificate: SwappableCertificate::new(vec![leaf], &key.to_der()).unwrap(),
            site: None,
            history: History::default(),
            rng: ChaCha20Rng::seed_from_u64(n as u64),
            min_difference: 0,
            name,
        }
    }

    /// Sums over the same data that differ by fewer sites are refused from now on.
    pub(in crate::workload) fn compare_cohorts(&mut self, min_difference: u32) {
        self.min_difference = min_difference;
    }

    pub(in crate::workload) fn credentials(&self) -> Credentials {
        self.signing.credentials(&self.certificate).unwrap()
    }

    /// The answer to a stage, or why the site refuses it.
    pub(in crate::workload) fn answer(
        &mut self,
        blobs: &BlobStore,
        phase: &PhaseSpec,
    ) -> Result<Vec<u8>, String> {
        let spec: MaybeSecure = serde_json::from_slice(&blobs.get(&phase.spec).unwrap()).unwrap();
        let spec = spec.secure.unwrap();
        let inputs: Vec<Vec<u8>> = phase.inputs_of(&self.name).map(|b| blobs.get(b).unwrap()).collect();
        let credentials = self.credentials();
        let Self { history, rng, signing, .. } = self;
        if spec.stage == Stage::Advertise {
            if self.site.as_ref().is_none_or(|site| site.task().terms != spec.terms) {
                let policy =
                    SitePolicy { min_cohort: 2, min_survivors: 2, min_difference: self.min_difference };
                let site = self.name.as_str().parse().unwrap();
                let task = Task { terms: spec.terms, site, subject: [7; 32], policy };
                let begun = Site::begin(task, history, rng, &Key(signing), &mut Memory);
                self.site = Some(begun.map_err(|e| e.to_string())?.0);
            }
            let advert = self.site.as_ref().unwrap().advert().clone();
            return Ok(Introduction { advert, credentials }.to_bytes().unwrap());
        }
        let site = self.site.as_mut().unwrap();
        assert_eq!(site.task().terms, spec.terms, "one sum has the same terms in all stages");
        let register = |at: usize| Register::from_bytes(&inputs[at]).unwrap();
        let answer = match spec.stage {
            Stage::Advertise => unreachable!("answered above"),
            Stage::ShareKeys => {
                let register = register(0);
                let roster = register.roster.clone();
                site.share_keys(roster, history, rng, &Peers(register), &mut Memory)
                    .map(|m| m.to_bytes().unwrap())
            }
            Stage::MaskedInput => {
                // After what the vector is made of.
                let inbox = Wire::from_bytes(inputs.last().unwrap()).unwrap();
                site.mask(&inbox, &self.values, history, &mut Memory).map(|m| m.to_bytes().unwrap())
            }
            Stage::Consistency => {
                let uploaded = Wire::from_bytes(&inputs[0]).unwrap();
                site.consistency(&uploaded, history, &Key(signing), &mut Memory)
                    .map(|m| m.to_bytes().unwrap())
            }
            Stage::Unmask => {
                let request = Wire::from_bytes(&inputs[0]).unwrap();
                site.unmask(&request, history, &Peers(register(1)), &mut Memory)
                    .map(|m| m.to_bytes().unwrap())
            }
        };
        answer.map_err(|e| e.to_string())
    }
}
