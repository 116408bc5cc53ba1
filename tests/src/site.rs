//! A site: its folder, its configuration, its agent.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sheaf_agent::{
    budget::{self, Budget, dataset_name},
    config::Config,
    identity::enrol,
    state::State,
};
use sheaf_data::Source;
use sheaf_privacy::{
    Delta, Epsilon,
    ledger::{Cap, PrivacyUnit},
};

use crate::data::no_assets;

/// What a site's owner writes into `agent.toml`.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `[agent] url`, when it is not the token's.
    pub url: Option<String>,
    /// `[agent] durable`: only where the machine, not just the process, could fail does it matter to a test.
    pub durable: bool,
    /// `[policy] workloads`
    pub workloads: &'static [&'static str],
    /// `[policy] release`
    pub release: &'static [&'static str],
    /// `[policy] models`
    pub models: &'static [&'static str],
    /// `[policy] min_cohort`
    pub min_cohort: u32,
    /// `[policy] min_rows`
    pub min_rows: u64,
    /// `[policy] approve`
    pub approve: &'static str,
    /// `[policy] require_dp`
    pub require_dp: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            url: None,
            durable: false,
            workloads: &["afl", "fedavg"],
            release: &["statistics", "sums", "updates", "metrics"],
            models: &[],
            min_cohort: 1,
            min_rows: 1,
            approve: "auto",
            require_dp: false,
        }
    }
}

/// A site on the disk.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
}

impl Site {
    /// Writes the configuration.
    pub fn create(name: &str, folder: &Path, source: &Source, rules: &Rules) -> Self {
        fs::create_dir_all(folder).unwrap();
        let mut data = toml::Table::new();
        data.insert("data".to_owned(), toml::Value::try_from(source).unwrap());
        let mut file = toml::Table::new();
        file.insert("data".to_owned(), toml::Value::Table(data));
        let url = rules.url.as_ref().map_or_else(String::new, |url| format!("url = '{url}'\n"));
        let Rules { durable, workloads, release, models, min_cohort, min_rows, approve, require_dp, .. } =
            rules;
        // Lists of plain names are written alike in Rust and in TOML.
        let text = format!(
            "[agent]\nhome = 'home'\n{url}stop_grace = '1s'\ndurable = {durable}\n[policy]\nworkloads = {workloads:?}\n\
             release = {release:?}\nmodels = {models:?}\nmin_cohort = {min_cohort}\nmin_rows = {min_rows}\n\
             approve = '{approve}'\nrequire_dp = {require_dp}\n{file}",
        );
        fs::write(folder.join("agent.toml"), text).unwrap();
        Self { name: name.to_owned(), folder: folder.to_owned() }
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("agent.toml")
    }

    /// The configuration.
    pub fn config(&self) -> Config {
        Config::read(&self.config_file()).unwrap()
    }

    /// Enrols with a token.
    pub async fn enrol(&self, token: &str) {
        enrol(&token.parse().unwrap(), &self.config()).await.unwrap();
    }

    /// SHA-256 of the content of the site's data.
    pub fn content(&self) -> [u8; 32] {
        self.config().data["data"].digest(&no_assets()).unwrap()
    }

    /// Lets all runs together spend so much on the site's records, as its officer would.
    pub fn cap(&self, epsilon: f64, delta: f64, unit: &str) {
        let config = self.config();
        let cap = Cap {
            dataset: dataset_name(&config.home, &self.content()).unwrap(),
            privacy_unit: PrivacyUnit::new(unit).unwrap(),
            epsilon: Epsilon::new(epsilon).unwrap(),
            delta: Delta::new(delta).unwrap(),
        };
        Budget::open(&config.home).unwrap().set_cap(cap).unwrap();
    }

    /// What all runs have cost the site by its own ledger, as epsilon at the cap's delta, and how many mechanisms that is;
    /// may be read beside a running agent.
    pub fn spent(&self) -> (f64, usize) {
        let book = budget::read(&self.config().home).unwrap().expect("the site has a ledger");
        let [page] = book.pages.as_slice() else { panic!("{} data sets", book.pages.len()) };
        // There is no account where no epsilon holds.
        let epsilon = page.spent.account.as_ref().map_or(f64::INFINITY, |account| account.epsilon_pld.get());
        (epsilon, page.charges.iter().filter(|charge| charge.event().is_some()).count())
    }

    /// The folder of what a run has left at the site, for the site alone.
    pub fn kept(&self, run: &str) -> PathBuf {
        self.config().home.join("runs").join(run)
    }

    /// What the agent remembers; may be opened beside a running agent.
    pub fn state(&self) -> State {
        let config = self.config();
        State::open(&config.home, config.durable).unwrap()
    }

    /// How often something left the site for each task, by task key.
    pub fn releases(&self) -> std::collections::BTreeMap<String, usize> {
        let mut count = std::collections::BTreeMap::new();
        for release in self.state().releases(1000).unwrap() {
            *count.entry(release.task).or_insert(0) += 1;
        }
        count
    }
}
