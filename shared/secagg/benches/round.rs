//! A whole AFL round of 100 sites, d = 512, 10 classes, plain and under secure aggregation: seconds and bytes, one JSON
//! line a case. All parties run in this process, one after the other, with ECDSA P-256 identities; no network.
//!
//! `cargo bench -p sheaf-secagg --bench round`

use std::collections::BTreeMap;
use std::time::Instant;

use rand_chacha::{ChaCha20Rng, rand_core::Rng as _, rand_core::SeedableRng as _};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use sheaf_analytic::{FeatureMap, FeatureSpec, Featurizer, GramAccumulator, Normalize, Sums, codec, solve};
use sheaf_secagg::{
    Advert, History, Ring, Roster, Server, Signer, Site, SiteId, SitePolicy, SiteStore, Task, Terms,
    Verifier, add,
};

const SITES: usize = 100;
const DIM: usize = 512;
const CLASSES: usize = 10;

struct Identity(EcdsaKeyPair);

impl Signer for Identity {
    fn sign(&self, statement: &[u8]) -> Result<Vec<u8>, String> {
        let signature = self.0.sign(&SystemRandom::new(), statement).map_err(|e| e.to_string())?;
        Ok(signature.as_ref().to_vec())
    }
}

struct Directory(BTreeMap<SiteId, Vec<u8>>);

impl Verifier for Directory {
    fn verify(&self, site: &SiteId, statement: &[u8], signature: &[u8]) -> bool {
        let key = |key| UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
        self.0.get(site).is_some_and(|bytes| key(bytes).verify(statement, signature).is_ok())
    }
}

/// Not a disk: its speed is not what is measured.
struct Nowhere;

impl SiteStore for Nowhere {
    fn save(&mut self, _: &Site, _: &History) -> Result<(), String> {
        Ok(())
    }
}

fn spec() -> FeatureSpec {
    FeatureSpec { input_dim: DIM, map: FeatureMap::Identity, normalize: Normalize::L2, bits: 14, bias: false }
}

/// ReLU-like features: half of them zero, as a backbone's last layer gives.
fn site_sums(site: u64, rows: usize) -> Sums {
    let mut rng = ChaCha20Rng::seed_from_u64(site);
    let mut feature = || f64::from(rng.next_u32() as i32).max(0.0);
    let features: Vec<f64> = (0..rows * DIM).map(|_| feature()).collect();
    let labels: Vec<u32> = (0..rows).map(|row| (row % CLASSES) as u32).collect();
    let start = Instant::now();
    let quantised = Featurizer::new(&spec()).and_then(|f| f.quantise(&features, rows)).expect("finite rows");
    let mut accumulator = GramAccumulator::new(DIM, CLASSES, 14, spec().max_abs()).expect("a valid shape");
    accumulator.push(&quantised, &labels).expect("rows of the shape");
    let sums = accumulator.finish();
    GRAM_SECONDS.with(|total| total.set(total.get() + start.elapsed().as_secs_f64()));
    sums
}

std::thread_local! {
    static GRAM_SECONDS: std::cell::Cell<f64> = const { std::cell::Cell::new(0.0) };
}

fn flatten(sums: &Sums) -> Vec<i64> {
    let counts = sums.counts().iter().map(|&n| n as i64);
    let head = std::iter::once(sums.rows() as i64).chain(counts);
    head.chain(sums.gram().iter().copied()).chain(sums.cross().iter().copied()).collect()
}

struct Party {
    name: SiteId,
    identity: Identity,
    history: History,
    rng: ChaCha20Rng,
    site: Option<Site>,
}

fn parties() -> (Vec<Party>, Directory) {
    let random = SystemRandom::new();
    let party = |n: usize| {
        let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(signing, &random).expect("entropy");
        let pair = EcdsaKeyPair::from_pkcs8(signing, document.as_ref(), &random).expect("a fresh key");
        let name = format!("site-{n:04}").parse().expect("a short name");
        let (identity, rng) = (Identity(pair), ChaCha20Rng::seed_from_u64(n as u64));
        Party { name, identity, history: History::default(), rng, site: None }
    };
    let parties: Vec<Party> = (0..SITES).map(party).collect();
    let key = |party: &Party| (party.name.clone(), party.identity.0.public_key().as_ref().to_vec());
    let directory = Directory(parties.iter().map(key).collect());
    (parties, directory)
}

/// What one round cost.
#[derive(Default)]
struct Cost {
    deal_seconds: f64,
    mask_seconds: f64,
    vote_seconds: f64,
    unmask_seconds: f64,
    server_seconds: f64,
    upload: usize,
    vector: usize,
    download: usize,
}

/// Runs `work` on the clock of `into`.
fn timed<T>(into: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *into += start.elapsed().as_secs_f64();
    result
}

fn advert_bytes(advert: &Advert) -> usize {
    advert.site.as_str().len() + 64 + advert.signature.len()
}

fn secure(vectors: &[Vec<i64>], ring: Ring, dropped: usize) -> (Vec<i64>, Cost) {
    let (mut parties, directory) = parties();
    let length = vectors[0].len() as u64;
    let (run, plan) = ("bench".to_owned(), [0; 32]);
    let terms = Terms { run, round: 1, plan, length, ring, min_cohort: 3, min_survivors: 3 };
    let (mut cost, mut history_free) = (Cost::default(), Nowhere);
    let mut server = Server::new(terms.clone()).expect("valid terms");
    for party in &mut parties {
        let policy = SitePolicy::default();
        let task = Task { terms: terms.clone(), site: party.name.clone(), subject: [0; 32], policy };
        let (site, advert) = timed(&mut cost.deal_seconds, || {
            Site::begin(task, &mut party.history, &mut party.rng, &party.identity, &mut history_free)
        })
        .expect("begins");
        party.site = Some(site);
        cost.upload += advert_bytes(&advert);
        timed(&mut cost.server_seconds, || server.advert(&party.name, advert, &directory)).expect("signed");
    }
    let roster = timed(&mut cost.server_seconds, || server.close_adverts()).expect("enough");
    deal(&mut parties, &mut server, &roster, &directory, &mut cost);
    let there = SITES - dropped;
    upload(&mut parties[..there], &mut server, vectors, &mut cost);
    let values = open(&mut parties[..there], &mut server, &directory, &mut cost);
    (values, cost)
}

fn deal(parties: &mut [Party], server: &mut Server, roster: &Roster, directory: &Directory, cost: &mut Cost) {
    for party in parties {
        let Party { site, history, rng, .. } = party;
        let site = site.as_mut().expect("begun");
        cost.download += roster.adverts.iter().map(advert_bytes).sum::<usize>();
        let shares = timed(&mut cost.deal_seconds, || {
            site.share_keys(roster.clone(), history, rng, directory, &mut Nowhere)
        })
        .expect("a sound roster");
        cost.upload += 32 + shares.sealed.iter().map(|sealed| 2 + sealed.bytes.len()).sum::<usize>();
        timed(&mut cost.server_seconds, || server.shares(&party.name, shares)).expect("complete");
    }
    server.close_shares().expect("enough");
}

fn upload(parties: &mut [Party], server: &mut Server, vectors: &[Vec<i64>], cost: &mut Cost) {
    for (party, vector) in parties.iter_mut().zip(vectors) {
        let site = party.site.as_mut().expect("begun");
        let inbox = timed(&mut cost.server_seconds, || server.inbox(&party.name)).expect("dealt");
        cost.download += inbox.sealed.iter().map(|sealed| 2 + sealed.bytes.len()).sum::<usize>();
        let input = timed(&mut cost.mask_seconds, || site.mask(&inbox, vector, &party.history, &mut Nowhere))
            .expect("in range");
        cost.vector += input.packed.len();
        timed(&mut cost.server_seconds, || server.input(&party.name, &input)).expect("the length");
    }
}

fn open(parties: &mut [Party], server: &mut Server, directory: &Directory, cost: &mut Cost) -> Vec<i64> {
    let uploaded = server.close_inputs().expect("enough");
    for party in &mut *parties {
        let Party { site, history, identity, .. } = party;
        let site = site.as_mut().expect("begun");
        cost.download += 2 * uploaded.members.len();
        let vote =
            timed(&mut cost.vote_seconds, || site.consistency(&uploaded, history, identity, &mut Nowhere))
                .expect("a sound set");
        cost.upload += vote.signature.len();
        timed(&mut cost.server_seconds, || server.vote(&party.name, vote, directory)).expect("signed");
    }
    let request = server.close_votes().expect("enough");
    for party in &mut *parties {
        let Party { site, history, .. } = party;
        let site = site.as_mut().expect("begun");
        let votes: usize = request.votes.iter().map(|(_, vote)| 2 + vote.len()).sum();
        cost.download += 2 * request.members.len() + votes;
        let answer =
            timed(&mut cost.unmask_seconds, || site.unmask(&request, history, directory, &mut Nowhere))
                .expect("enough votes");
        cost.upload += 34 * (answer.seeds.len() + answer.keys.len());
        server.answer(&party.name, answer).expect("shares asked for");
    }
    timed(&mut cost.server_seconds, || server.finish()).expect("enough shares").values
}

fn main() {
    for rows in [500, 2000] {
        let sites: Vec<Sums> = (0..SITES as u64).map(|site| site_sums(site, rows)).collect();
        let gram_seconds = GRAM_SECONDS.take();
        let start = Instant::now();
        let encoded: Vec<Vec<u8>> = sites.iter().map(codec::encode).collect();
        let encode_seconds = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let mut total = Sums::zero(DIM, CLASSES, 14);
        encoded
            .iter()
            .for_each(|bytes| codec::decode_add(bytes, &mut total, spec().max_abs()).expect("own bytes"));
        let merge_seconds = start.elapsed().as_secs_f64();
        let start = Instant::now();
        solve(&total, 1.0).expect("positive definite");
        let solve_seconds = start.elapsed().as_secs_f64();
        let plain_seconds = gram_seconds + encode_seconds + merge_seconds + solve_seconds;
        let encoded_bytes: usize = encoded.iter().map(Vec::len).sum();

        let vectors: Vec<Vec<i64>> = sites.iter().map(flatten).collect();
        let raw_bytes = SITES * 8 * vectors[0].len();
        // What the plan knows beforehand: the most rows a site may have, and the grid.
        let ring = Ring::holding(rows as u64 * spec().max_abs().unsigned_abs().pow(2), SITES).expect("fits");
        for dropped in [0, 10] {
            let (values, cost) = secure(&vectors, ring, dropped);
            let mut expected = vec![0_u64; vectors[0].len()];
            for vector in &vectors[..SITES - dropped] {
                add(&mut expected, &vector.iter().map(|&value| value as u64).collect::<Vec<_>>());
            }
            assert!(values.iter().zip(&expected).all(|(a, b)| *a as u64 == *b), "not the plain sum");
            let mask_seconds =
                cost.deal_seconds + cost.mask_seconds + cost.vote_seconds + cost.unmask_seconds;
            let secure_seconds = gram_seconds + mask_seconds + cost.server_seconds + solve_seconds;
            // Of the sites that stayed: an upload that never came is no saving.
            let share = (SITES - dropped) as f64 / SITES as f64;
            let bytes = (cost.vector + cost.upload + cost.download) as f64 / share;
            println!(
                "{{\"sites\":{SITES},\"dropped\":{dropped},\"rows_per_site\":{rows},\"elements\":{},\"ring_bits\":{},\
                 \"plain_seconds\":{plain_seconds:.3},\"gram_seconds\":{gram_seconds:.3},\"solve_seconds\":{solve_seconds:.3},\
                 \"sites_deal_seconds\":{:.3},\"sites_mask_seconds\":{:.3},\"sites_vote_seconds\":{:.3},\"sites_unmask_seconds\":{:.3},\"server_seconds\":{:.3},\"time_ratio\":{:.2},\
                 \"plain_bytes_64\":{raw_bytes},\"plain_bytes_codec\":{encoded_bytes},\"vector_bytes\":{},\
                 \"other_upload_bytes\":{},\"other_download_bytes\":{},\"bytes_ratio_64\":{:.3},\"bytes_ratio_codec\":{:.3}}}",
                vectors[0].len(),
                ring.bits(),
                cost.deal_seconds,
                cost.mask_seconds,
                cost.vote_seconds,
                cost.unmask_seconds,
                cost.server_seconds,
                secure_seconds / plain_seconds,
                cost.vector,
                cost.upload,
                cost.download,
                bytes / raw_bytes as f64,
                bytes / encoded_bytes as f64,
            );
        }
    }
}
