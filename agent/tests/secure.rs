//! Sites in secure sums: real homes, keys and databases, with a coordinator made of the protocol alone.

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path, sync::Mutex};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    use sheaf_agent::{
        config::Config, egress::Made, error::AgentError, identity::Identity, secure::SecureRounds,
        state::State,
    };
    use sheaf_proto::secure::{Introduction, Register, SecureSpec};
    use sheaf_secagg::{
        KeyShares, MaskedInput, Ring, Server, SiteId, Stage, Sum, Terms, UnmaskShares, Verifier, Vote, Wire,
    };
    use sheaf_transport::{
        identity::{Identity as Name, SiteName},
        signature::Credentials,
    };
    use tempfile::TempDir;

    const PLAN: [u8; 32] = [5; 32];
    const LENGTH: usize = 3;

    /// The authority that all sites have enrolled with.
    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        certificate: String,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).unwrap().pem();
            Self { issuer: Issuer::new(params, key), certificate }
        }

        /// What enrolment leaves in a home.
        fn enrol(&self, name: &str, home: &Path) {
            let site: SiteName = name.parse().unwrap();
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.subject_alt_names.push(SanType::URI(Name::Site(site).uri().try_into().unwrap()));
            let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
            fs::create_dir_all(home).unwrap();
            fs::write(home.join("identity.pem"), format!("{}{certificate}", key.serialize_pem())).unwrap();
            fs::write(home.join("ca.pem"), &self.certificate).unwrap();
            fs::write(home.join("site.toml"), format!("site = '{name}'\nurl = 'https://localhost:1'\n"))
                .unwrap();
        }
    }

    struct Agent {
        name: String,
        folder: TempDir,
        config: Config,
        identity: Identity,
        state: State,
        turn: Mutex<()>,
        values: Vec<i64>,
        subject: [u8; 32],
    }

    impl Agent {
        fn new(authority: &Authority, n: usize) -> Self {
            let (name, folder) = (format!("s{n}"), tempfile::tempdir().unwrap());
            authority.enrol(&name, &folder.path().join("agent-home"));
            let config = Config::parse("", folder.path()).unwrap();
            let (identity, state) =
                (Identity::load(&config).unwrap(), State::open(&config.home, false).unwrap());
            let values = vec![n as i64 + 1; LENGTH];
            Self { name, folder, config, identity, state, turn: Mutex::default(), values, subject: [1; 32] }
        }

        /// Killed and started again with another policy.
        fn restart(&mut self, policy: &str) {
            self.config = Config::parse(policy, self.folder.path()).unwrap();
            self.identity = Identity::load(&self.config).unwrap();
            self.state = State::open(&self.config.home, false).unwrap();
        }

        fn fingerprint(&self) -> String {
            hex::encode(self.identity.credentials().unwrap().fingerprint())
        }

        fn answer(&self, spec: &SecureSpec, inputs: &[Vec<u8>]) -> Result<Vec<u8>, AgentError> {
            let rounds = SecureRounds {
                state: &self.state,
                identity: &self.identity,
                policy: &self.config.policy,
                turn: &self.turn,
                run_id: "run",
                plan_sha256: &hex::encode(PLAN),
            };
            let values = || Ok((self.values.clone(), Made::OfRows(1)));
            rounds.answer(spec, inputs, || Ok(self.subject), values).map(|(bytes, _)| bytes)
        }

        fn denied(&self, spec: &SecureSpec, inputs: &[Vec<u8>]) -> String {
            match self.answer(spec, inputs) {
                Err(AgentError::Denied(reason)) => reason,
                Err(other) => panic!("not declined but failed: {other}"),
                Ok(_) => panic!("{} answers the {}", self.name, spec.stage),
            }
        }
    }

    struct Peers(BTreeMap<SiteId, Credentials>);

    impl Verifier for Peers {
        fn verify(&self, site: &SiteId, statement: &[u8], signature: &[u8]) -> bool {
            self.0.get(site).is_some_and(|credentials| credentials.verify(statement, signature))
        }
    }

    /// The coordinator's side of one round.
    struct Round {
        terms: Terms,
        server: Server,
        peers: Peers,
    }

    impl Round {
        fn new(round: u32) -> Self {
            let terms = Terms {
                run: "run".to_owned(),
                round,
                plan: PLAN,
                length: LENGTH as u64,
                ring: Ring::new(16).unwrap(),
                min_cohort: 3,
                min_survivors: 3,
            };
            Self { server: Server::new(terms.clone()).unwrap(), terms, peers: Peers(BTreeMap::new()) }
        }

        fn spec(&self, stage: Stage) -> SecureSpec {
            SecureSpec { terms: self.terms.clone(), stage, state: None }
        }

        /// The first stage; gives the register.
        fn advertise(&mut self, agents: &[Agent]) -> Vec<u8> {
            for agent in agents {
                let bytes = agent.answer(&self.spec(Stage::Advertise), &[]).unwrap();
                let id: SiteId = agent.name.parse().unwrap();
                let Introduction { advert, credentials } = Introduction::from_bytes(&bytes).unwrap();
                self.peers.0.insert(id.clone(), credentials);
                self.server.advert(&id, advert, &self.peers).unwrap();
            }
            let roster = self.server.close_adverts().unwrap();
            let credentials = self.peers.0.values().cloned().collect();
            Register { roster, credentials }.to_bytes().unwrap()
        }

        /// The second stage.
        fn share(&mut self, agents: &[Agent], register: &[u8]) {
            for agent in agents {
                let bytes = agent.answer(&self.spec(Stage::ShareKeys), &[register.to_vec()]).unwrap();
                let id: SiteId = agent.name.parse().unwrap();
                self.server.shares(&id, KeyShares::from_bytes(&bytes).unwrap()).unwrap();
            }
            self.server.close_shares().unwrap();
        }

        fn inbox(&self, agent: &Agent) -> Vec<Vec<u8>> {
            vec![self.server.inbox(&agent.name.parse().unwrap()).unwrap().to_bytes().unwrap()]
        }

        /// The third to the fifth stage.
        fn open(&mut self, agents: &[Agent], register: &[u8]) -> Sum {
            for agent in agents {
                let bytes = agent.answer(&self.spec(Stage::MaskedInput), &self.inbox(agent)).unwrap();
                let input = MaskedInput::from_bytes(&bytes).unwrap();
                self.server.input(&agent.name.parse().unwrap(), &input).unwrap();
            }
            let uploaded = [self.server.close_inputs().unwrap().to_bytes().unwrap()];
            for agent in agents {
                let bytes = agent.answer(&self.spec(Stage::Consistency), &uploaded).unwrap();
                let vote = Vote::from_bytes(&bytes).unwrap();
                self.server.vote(&agent.name.parse().unwrap(), vote, &self.peers).unwrap();
            }
            let request = [self.server.close_votes().unwrap().to_bytes().unwrap(), register.to_vec()];
            for agent in agents {
                let bytes = agent.answer(&self.spec(Stage::Unmask), &request).unwrap();
                let shares = UnmaskShares::from_bytes(&bytes).unwrap();
                self.server.answer(&agent.name.parse().unwrap(), shares).unwrap();
            }
            self.server.finish().unwrap()
        }
    }

    fn agents(count: usize) -> Vec<Agent> {
        let authority = Authority::new();
        (0..count).map(|n| Agent::new(&authority, n)).collect()
    }

    #[test]
    fn a_sum_is_opened_and_a_restarted_agent_says_the_same_again() {
        let mut agents = agents(4);
        let mut round = Round::new(1);
        let register = round.advertise(&agents);
        agents[0].restart("");
        round.share(&agents, &register);
        let again = agents[0].answer(&round.spec(Stage::ShareKeys), std::slice::from_ref(&register)).unwrap();
        agents[0].restart("");
        let first = agents[0].answer(&round.spec(Stage::ShareKeys), std::slice::from_ref(&register)).unwrap();
        assert_eq!(first, again, "a stage is answered once");
        let input = agents[0].answer(&round.spec(Stage::MaskedInput), &round.inbox(&agents[0])).unwrap();
        agents[0].restart("");
        let same = agents[0].answer(&round.spec(Stage::MaskedInput), &round.inbox(&agents[0])).unwrap();
        assert_eq!(same, input);
        agents[0].values[0] += 1;
        let reason = agents[0].denied(&round.spec(Stage::MaskedInput), &round.inbox(&agents[0]));
        assert!(reason.contains("answered once"), "{reason}");
        agents[0].values[0] -= 1;
        let sum = round.open(&agents, &register);
        assert_eq!(sum.values, vec![1 + 2 + 3 + 4; LENGTH]);
    }

    #[test]
    fn the_sum_is_of_the_tasks_run_and_of_data_that_stay() {
        let mut agents = agents(4);
        let mut round = Round::new(1);
        let mut other = round.spec(Stage::Advertise);
        other.terms.run = "another".to_owned();
        assert!(agents[0].denied(&other, &[]).contains("another run or plan"));
        let register = round.advertise(&agents);
        let mut changed = round.spec(Stage::ShareKeys);
        changed.terms.min_survivors = 4;
        assert!(agents[0].denied(&changed, std::slice::from_ref(&register)).contains("other terms"));
        round.share(&agents, &register);
        agents[0].subject = [2; 32];
        let error = agents[0].answer(&round.spec(Stage::MaskedInput), &round.inbox(&agents[0]));
        assert!(matches!(error, Err(AgentError::Data(reason)) if reason.contains("changed")));
    }

    #[test]
    fn a_site_whose_state_is_gone_sits_the_round_out() {
        let agents = agents(4);
        let mut round = Round::new(1);
        let register = round.advertise(&agents);
        let database = agents[0].config.home.join("agent.db");
        rusqlite::Connection::open(database).unwrap().execute("DELETE FROM secure_rounds", []).unwrap();
        assert!(agents[0].denied(&round.spec(Stage::ShareKeys), &[register]).contains("sits the round out"));
        assert!(agents[0].denied(&round.spec(Stage::Advertise), &[]).contains("begun before"));
    }

    #[test]
    fn a_plan_below_the_sites_limits_is_declined() {
        let agents = agents(1);
        let mut low = Round::new(1).spec(Stage::Advertise);
        (low.terms.min_cohort, low.terms.min_survivors) = (2, 2);
        assert!(agents[0].denied(&low, &[]).contains("accepts no less than 3"));
    }

    #[test]
    fn only_pinned_peers_take_part_where_there_are_any() {
        let mut agents = agents(4);
        let pins = |agents: &[Agent], key: &str| {
            let key = |n: usize| if n == 3 { key.to_owned() } else { agents[n].fingerprint() };
            let pins: Vec<_> = (1..4).map(|n| format!("s{n} = '{}'", key(n))).collect();
            format!("[policy]\npeers = {{ {} }}\n", pins.join(", "))
        };
        let mut round = Round::new(1);
        let register = [round.advertise(&agents)];
        let (right, wrong) = (pins(&agents, &agents[3].fingerprint()), pins(&agents, &"0".repeat(64)));
        let few = format!("[policy]\npeers = {{ s1 = '{}' }}\n", agents[1].fingerprint());
        agents[0].restart(&few);
        assert!(
            agents[0]
                .denied(&round.spec(Stage::ShareKeys), &register)
                .contains("s2 is not in [policy] peers")
        );
        agents[0].restart(&wrong);
        let reason = agents[0].denied(&round.spec(Stage::ShareKeys), &register);
        assert!(reason.contains("not the one in [policy] peers"), "{reason}");
        agents[0].restart(&right);
        round.share(&agents, &register[0]);
        assert_eq!(round.open(&agents, &register[0]).sites.len(), 4);
    }

    #[test]
    fn a_peer_with_another_key_than_before_is_refused() {
        let mut agents = agents(4);
        let mut round = Round::new(1);
        let register = round.advertise(&agents);
        round.share(&agents, &register);
        fs::remove_file(agents[3].config.home.join("signing.pem")).unwrap();
        agents[3].restart("");
        let mut next = Round::new(2);
        let register = next.advertise(&agents);
        let reason = agents[0].denied(&next.spec(Stage::ShareKeys), &[register]);
        assert!(reason.contains("signing key of s3 was") && reason.contains("by telephone"), "{reason}");
    }
}
