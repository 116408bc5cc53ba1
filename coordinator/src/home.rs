//! A coordinator's home: one folder with its configuration, authority, database and blobs.
//!
//! ```text
//! home/
//!   coordinator.toml         configuration
//!   ca/                      authority and report-signing keys (0600)
//!   operator/                the first operator's certificate and profile
//!   sheaf.db                 database
//!   store/blobs, incoming    blobs, and uploads on their way
//!   llm-cache/               what language models have answered
//! ```

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sheaf_transport::{
    identity::{Identity, SiteName},
    keys::{KeyError, SecretKey, create_private_folder, save_certificates, write_private},
};

use crate::{
    error::Error,
    identity::{
        authority::{Authority, Usage},
        signer::Signer,
    },
    llm::config::LlmConfig,
    store::Database,
};

/// `coordinator.toml`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The address agents and operators dial: `https://host:port`. Its host must be in `names`.
    #[serde(default = "default_url")]
    pub url: String,
    /// DNS names and addresses the server's certificate stands for.
    #[serde(default = "default_names")]
    pub names: Vec<String>,
    /// How long a site's certificate lives, "90d"; agents renew at two thirds.
    #[serde(
        default = "default_certificate_life",
        deserialize_with = "humantime_serde::deserialize",
        serialize_with = "in_plain_units"
    )]
    pub certificate_life: Duration,
    /// Largest file an operator may upload, MiB.
    #[serde(default = "default_upload_mib")]
    pub operator_upload_mib: u64,
    /// The language model for workloads that ask one. Last, since tables end a file's plain keys.
    #[serde(default, skip_serializing_if = "LlmConfig::is_default")]
    pub llm: LlmConfig,
}

/// "90d" rather than months and days: what a person would write.
pub(crate) fn in_plain_units<S: serde::Serializer>(
    life: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    const DAY: u64 = 86_400;
    let seconds = life.as_secs();
    serializer.serialize_str(&if seconds.is_multiple_of(DAY) {
        format!("{}d", seconds / DAY)
    } else {
        format!("{seconds}s")
    })
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 7443))
}
fn default_url() -> String {
    "https://localhost:7443".to_owned()
}
fn default_names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
}
const fn default_certificate_life() -> Duration {
    Duration::from_hours(2160)
}
const fn default_upload_mib() -> u64 {
    4096
}

/// How an operator's command line reaches the coordinator: `operator/profile.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `https://host:port`
    pub url: String,
}

/// The folder and its parts.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

/// Life of an operator's certificate.
const OPERATOR_LIFE: Duration = Duration::from_hours(43800);

impl Home {
    /// Names a folder; nothing is read yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("coordinator.toml")
    }
    /// The authority's folder.
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca")
    }
    /// The first operator's folder.
    pub fn operator(&self) -> PathBuf {
        self.0.join("operator")
    }
    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.0.join("sheaf.db")
    }
    /// The blobs' folder.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }
    /// The folder of what language models have answered.
    pub fn llm_cache(&self) -> PathBuf {
        self.0.join("llm-cache")
    }

    /// Whether `sheaf init` has been here.
    pub fn exists(&self) -> bool {
        self.config_file().exists()
    }

    /// Makes a home: configuration, authority, report key, database, first operator. Gives back the
    /// authority's fingerprint.
    ///
    /// # Errors
    /// There is one already, or the folder cannot be written.
    pub fn init(&self, config: &Config) -> Result<String, Error> {
        create_private_folder(&self.0).map_err(file)?;
        let authority = Authority::create(&self.ca())?;
        Signer::create(&self.ca(), &authority)?;
        let database = Database::open(&self.database())?;
        self.make_operator(&authority, &database, config)?;
        let text = toml::to_string(config).map_err(|e| Error::bug(e.to_string()))?;
        // Last: a home with a configuration is a whole one.
        write_private(&self.config_file(), text.as_bytes()).map_err(file)?;
        Ok(hex::encode(authority.fingerprint()))
    }

    fn make_operator(
        &self,
        authority: &Authority,
        database: &Database,
        config: &Config,
    ) -> Result<(), Error> {
        let folder = self.operator();
        fs::create_dir_all(&folder)?;
        let key = SecretKey::generate().map_err(|e| Error::bug(e.to_string()))?;
        let name: SiteName = "admin".parse()?;
        let certificate =
            authority.issue(&key, &Identity::Operator(name), &[], Usage::Client, OPERATOR_LIFE)?;
        database.admit(&Authority::read(&certificate)?)?;
        let profile = Profile { url: config.url.clone() };
        let profile = toml::to_string(&profile).map_err(|e| Error::bug(e.to_string()))?;
        key.save(&folder.join("key.pem")).map_err(file)?;
        save_certificates(&folder.join("cert.pem"), &[certificate]).map_err(file)?;
        save_certificates(&folder.join("ca.pem"), &[authority.certificate().clone()]).map_err(file)?;
        write_private(&folder.join("profile.toml"), profile.as_bytes()).map_err(file)
    }

    /// Reads the configuration.
    pub fn config(&self) -> Result<Config, Error> {
        let path = self.config_file();
        let text = fs::read_to_string(&path).map_err(|e| {
            Error::not_found(format!("{}: {e}; make a coordinator home with `sheaf init`", path.display()))
        })?;
        let config: Config =
            toml::from_str(&text).map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
        config.llm.check().map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
        Ok(config)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: default_listen(),
            url: default_url(),
            names: default_names(),
            certificate_life: default_certificate_life(),
            operator_upload_mib: default_upload_mib(),
            llm: LlmConfig::default(),
        }
    }
}

fn file(error: KeyError) -> Error {
    Error::transient(error.to_string())
}
