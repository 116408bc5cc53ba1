//! Votes of real sites through a whole secure sum, with a coordinator made of the protocol alone.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use sheaf_data::{AssetStore, Encoding, Schema};
use sheaf_models::DeviceChoice;
use sheaf_privacy::{
    Delta, Epsilon, Event, Sigma,
    ledger::{Cap, Digest as Name, PrivacyUnit},
};
use sheaf_proto::{
    afl::SumsSpec,
    fdkt::{Labelled, VOTE_UNIT},
    privacy::PrivacySpec,
    secure::{Introduction, Register, SecurePhase, phase},
};
use sheaf_secagg::{KeyShares, MaskedInput, Ring, Server, SiteId, Terms, UnmaskShares, Verifier, Vote, Wire};
use sheaf_text::to_lines;
use sheaf_transport::{identity::Identity as Peer, signature::Credentials};
use tempfile::TempDir;

use super::*;
use crate::{budget::Budget, config::Config, identity::Identity, secure::SecureRounds, state::State};

const RUN: &str = "run-1";
const PLAN: [u8; 32] = [5; 32];
const PLAN_HEX: &str = "0505050505050505050505050505050505050505050505050505050505050505";
const SITES: usize = 4;
/// Fewest sites in a sum.
const LEAST: u32 = 3;
const SIGMA: f64 = 2.0;

struct Site {
    id: SiteId,
    _folder: TempDir,
    config: Config,
    identity: Identity,
    state: State,
    turn: Mutex<()>,
    budget: Arc<Budget>,
    source: Source,
    assets: AssetStore,
}

impl Site {
    fn new(issuer: &Issuer<'static, KeyPair>, authority: &str, n: usize) -> Self {
        let (name, folder) = (format!("s{n}"), tempfile::tempdir().unwrap());
        let home = folder.path().join("agent-home");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = Peer::Site(name.parse().unwrap()).uri();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let certificate = params.signed_by(&key, issuer).unwrap().pem();
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("identity.pem"), format!("{}{certificate}", key.serialize_pem())).unwrap();
        fs::write(home.join("ca.pem"), authority).unwrap();
        fs::write(home.join("site.toml"), format!("site = '{name}'\nurl = 'https://localhost:1'\n")).unwrap();
        let config = Config::parse("", folder.path()).unwrap();
        let path = folder.path().join("records.jsonl");
        let record = |at: usize| {
            let label = ["a", "b"][(at + n) % 2];
            format!(
                "{{\"id\":\"{at}\",\"text\":\"word{} word{n}\",\"label\":\"{label}\",\"split\":\"train\"}}\n",
                at % 5
            )
        };
        fs::write(&path, (0..12 + n).map(record).collect::<String>()).unwrap();
        let budget = Budget::open(&config.home).unwrap();
        let (privacy_unit, epsilon) = (PrivacyUnit::new("row").unwrap(), Epsilon::new(2.2).unwrap());
        let delta = Delta::new(1e-3).unwrap();
        budget.set_cap(Cap { dataset: dataset(), privacy_unit, epsilon, delta }).unwrap();
        Self {
            id: name.parse().unwrap(),
            identity: Identity::load(&config).unwrap(),
            state: State::open(&config.home, false).unwrap(),
            turn: Mutex::default(),
            budget,
            source: Source::Text { path: Some(path), asset: None },
            assets: AssetStore::new(folder.path().join("assets"), None),
            config,
            _folder: folder,
        }
    }

    fn resources(&self, spec: &VoteSpec) -> Resources<'_> {
        let purse = spec
            .sums
            .privacy
            .as_ref()
            .map(|privacy| self.budget.purse(RUN, PLAN_HEX, dataset(), privacy).unwrap());
        let secure = SecureRounds {
            state: &self.state,
            identity: &self.identity,
            policy: &self.config.policy,
            turn: &self.turn,
            run_id: RUN,
            plan_sha256: PLAN_HEX,
        };
        Resources::new(&self.assets, Path::new("unused"), None, DeviceChoice::Cpu)
            .with_purse(purse)
            .with_secure(Some(secure))
    }

    /// Answers a stage, and hands over what was paid.
    fn answer(
        &self,
        spec: &VoteSpec,
        (terms, stage): (&Terms, Stage),
        inputs: Vec<Vec<u8>>,
    ) -> Result<Vec<u8>, AgentError> {
        let secure = SecureSpec { terms: terms.clone(), stage, state: None };
        let asked = SecurePhase { secure, spec };
        let phase = phase("vote-1", stage);
        let assignment = Assignment { phase, spec: serde_json::to_vec(&asked).unwrap(), inputs, min_rows: 0 };
        let resources = self.resources(spec);
        let (bytes, made) = vote_stage(&assignment, &asked.secure, &self.source, &resources, &|| false)?;
        match made {
            Made::Protocol => assert_ne!(stage, Stage::MaskedInput),
            Made::OfRows(rows) => {
                assert!(rows >= 12 && stage == Stage::MaskedInput && spec.sums.privacy.is_none());
            }
            Made::WithNoise(charge) => {
                assert_eq!(stage, Stage::MaskedInput);
                charge.release(&bytes)?;
            }
        }
        Ok(bytes)
    }

    fn exact(&self, spec: &VoteSpec, candidates: &[u8]) -> Vec<i64> {
        let exact = VoteSpec { sums: SumsSpec { privacy: None, ..spec.sums.clone() }, ..spec.clone() };
        let resources = self.resources(spec);
        votes::share(&exact, (candidates, LEAST), &self.source, &resources, &|| false).unwrap().0
    }
}

fn dataset() -> Name {
    Name::of(b"these records")
}

fn sites() -> Vec<Site> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    (0..SITES).map(|n| Site::new(&issuer, &authority, n)).collect()
}

fn spec(noised: bool) -> VoteSpec {
    let schema: Schema = toml::from_str("text_dim = 32\n[declared]\nclasses = ['a', 'b']\n").unwrap();
    let encoding = Encoding::declared(&schema).unwrap().unwrap();
    let features = sheaf_analytic::FeatureSpec {
        input_dim: encoding.input_dim(),
        map: sheaf_analytic::FeatureMap::Identity,
        normalize: sheaf_analytic::Normalize::L2,
        bits: 20,
        bias: false,
    };
    let event = Event::Gaussian { sigma: Sigma::new(SIGMA).unwrap(), count: 2 };
    let privacy = PrivacySpec {
        unit: "row".to_owned(),
        delta: Delta::new(1e-3).unwrap(),
        event,
        later: Vec::new(),
        training: None,
    };
    VoteSpec { sums: SumsSpec { schema, encoding, features, privacy: noised.then_some(privacy) }, left: 2 }
}

fn candidates(per_label: usize) -> Vec<u8> {
    let of =
        |label: &'static str| (0..per_label).map(move |at| Labelled::new(format!("word{at} more"), label));
    to_lines(&of("a").chain(of("b")).collect::<Vec<_>>()).unwrap()
}

struct Peers(BTreeMap<SiteId, Credentials>);

impl Verifier for Peers {
    fn verify(&self, site: &SiteId, statement: &[u8], signature: &[u8]) -> bool {
        self.0.get(site).is_some_and(|credentials| credentials.verify(statement, signature))
    }
}

/// One secure sum of the votes of all sites.
fn sum(sites: &[Site], spec: &VoteSpec, candidates: &[u8], round: u32) -> Result<Vec<i64>, AgentError> {
    let length = votes::labels(candidates)?.len() as u64;
    let (run, ring) = (RUN.to_owned(), Ring::holding(1 << 50, SITES).unwrap());
    let (min_cohort, min_survivors) = (LEAST, LEAST);
    let terms = Terms { run, round, plan: PLAN, length, ring, min_cohort, min_survivors };
    let mut server = Server::new(terms.clone()).unwrap();
    let mut peers = Peers(BTreeMap::new());
    for site in sites {
        let bytes = site.answer(spec, (&terms, Stage::Advertise), vec![candidates.to_vec()])?;
        let Introduction { advert, credentials } = Introduction::from_bytes(&bytes).unwrap();
        peers.0.insert(site.id.clone(), credentials);
        server.advert(&site.id, advert, &peers).unwrap();
    }
    let roster = server.close_adverts().unwrap();
    let register = Register { roster, credentials: peers.0.values().cloned().collect() }.to_bytes().unwrap();
    for site in sites {
        let bytes = site.answer(spec, (&terms, Stage::ShareKeys), vec![register.clone()])?;
        server.shares(&site.id, KeyShares::from_bytes(&bytes).unwrap()).unwrap();
    }
    server.close_shares().unwrap();
    for site in sites {
        let inbox = server.inbox(&site.id).unwrap().to_bytes().unwrap();
        let bytes = site.answer(spec, (&terms, Stage::MaskedInput), vec![candidates.to_vec(), inbox])?;
        server.input(&site.id, &MaskedInput::from_bytes(&bytes).unwrap()).unwrap();
    }
    let uploaded = server.close_inputs().unwrap().to_bytes().unwrap();
    for site in sites {
        let bytes = site.answer(spec, (&terms, Stage::Consistency), vec![uploaded.clone()])?;
        server.vote(&site.id, Vote::from_bytes(&bytes).unwrap(), &peers).unwrap();
    }
    let request = server.close_votes().unwrap().to_bytes().unwrap();
    for site in sites {
        let bytes = site.answer(spec, (&terms, Stage::Unmask), vec![request.clone(), register.clone()])?;
        server.answer(&site.id, UnmaskShares::from_bytes(&bytes).unwrap()).unwrap();
    }
    Ok(server.finish().unwrap().values)
}

fn plain(sites: &[Site], spec: &VoteSpec, candidates: &[u8]) -> Vec<i64> {
    let mut total = vec![0; votes::labels(candidates).unwrap().len()];
    for site in sites {
        let votes = site.exact(spec, candidates);
        total.iter_mut().zip(votes).for_each(|(sum, votes)| *sum += votes);
    }
    total
}

#[test]
fn votes_and_worth_are_told_from_other_phases_by_name() {
    assert_eq!(stage("vote-2.vote"), Some((Summed::Votes, Stage::Consistency)));
    assert_eq!(stage("transfer.input"), Some((Summed::Worth, Stage::MaskedInput)));
    for phase in ["vote-2", "transfer", "synthesise", "sums.input"] {
        assert_eq!(stage(phase), None, "{phase}");
    }
}

#[test]
fn without_noise_the_sum_is_that_of_the_plain_votes() {
    let (sites, spec, candidates) = (sites(), spec(false), candidates(4));
    let total = plain(&sites, &spec, &candidates);
    assert_eq!(total.iter().sum::<i64>(), (12 + 13 + 14 + 15) * VOTE_UNIT, "a record has one vote");
    assert_eq!(sum(&sites, &spec, &candidates, 1).unwrap(), total);
}

#[test]
fn a_vote_for_another_number_of_candidates_is_not_begun() {
    let (sites, spec) = (sites(), spec(false));
    let ring = Ring::new(40).unwrap();
    let terms = Terms {
        run: RUN.to_owned(),
        round: 1,
        plan: PLAN,
        length: 3,
        ring,
        min_cohort: LEAST,
        min_survivors: LEAST,
    };
    let error = sites[0].answer(&spec, (&terms, Stage::Advertise), vec![candidates(4)]).unwrap_err();
    assert!(matches!(&error, AgentError::Task(reason) if reason.contains("3 numbers")), "{error}");
}

/// Four sites of at least three: the noise has the variance of 4 / 3 draws, and all votes are one reservation.
#[test]
fn with_noise_each_site_adds_a_third_of_it_and_pays_once_for_all_votes() {
    let (sites, spec, candidates) = (sites(), spec(true), candidates(300));
    let exact = plain(&sites, &spec, &candidates);
    for round in [1, 2] {
        let noised = sum(&sites, &spec, &candidates, round).unwrap();
        let squares: f64 = noised.iter().zip(&exact).map(|(a, b)| ((a - b) as f64).powi(2)).sum();
        let deviation = (squares / exact.len() as f64).sqrt() / (SIGMA * VOTE_UNIT as f64);
        let expected = (SITES as f64 / f64::from(LEAST)).sqrt();
        // Of 600 numbers: nine times the error; whole noise at each site would be 2.
        assert!((deviation / expected - 1.0).abs() < 0.27, "{deviation} against {expected}");
    }
    let error = sum(&sites, &spec, &candidates, 3).unwrap_err();
    assert!(matches!(error, AgentError::Denied(_)), "the run has asked for two votes: {error}");
}

#[test]
fn sums_that_sizes_of_classes_can_be_read_from_are_of_one_subject() {
    let (content, exact, noised) = ([7; 32], spec(false), spec(true));
    let (one, other) = (candidates(3), candidates(4));
    assert_eq!(subject_of(&exact, &one, &content), subject_of(&exact, &other, &content));
    assert_eq!(subject_of(&exact, &one, &content), subject(SUMMED, &content, &[]), "as AFL's sums");
    assert_ne!(subject_of(&noised, &one, &content), subject_of(&noised, &other, &content));
    assert_ne!(subject_of(&noised, &one, &content), subject_of(&exact, &one, &content));
}
