//! `[llm]` in `coordinator.toml`: which language model the coordinator asks, and how.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    endpoint::{self, Endpoint},
    key::ApiKey,
    totals::Price,
};
use crate::{error::Error, home::in_plain_units};

/// Most requests at once that are believed; more is a slip of the pen.
const MOST_CONCURRENCY: usize = 1024;
/// Most attempts at a prompt that are believed.
const MOST_ATTEMPTS: usize = 100;

/// Where the model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In the coordinator's own process.
    #[default]
    Embedded,
    /// On a server that speaks the chat-completions protocol.
    Endpoint,
}

/// The section `[llm]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlmConfig {
    /// Where the model runs.
    pub kind: Kind,
    /// The server: what stands before `/chat/completions`, "http://127.0.0.1:8000/v1".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The model's name on the server, or that of the embedded one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A file that holds the server's key and nothing else, readable by its owner alone. Relative to the folder of the
    /// configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// How long one attempt may take, "120s".
    #[serde(deserialize_with = "humantime_serde::deserialize", serialize_with = "in_plain_units")]
    pub timeout: Duration,
    /// Most requests at once.
    pub concurrency: usize,
    /// Attempts at a prompt in all.
    pub attempts: usize,
    /// Whether plain HTTP may go to another machine.
    pub allow_plaintext: bool,
    /// Whether the server's model can judge samples and keep to a layout. A small one cannot; it is then given texts to go
    /// on with.
    pub follows_instructions: bool,
    /// Price of a million tokens read, in any currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_in: Option<f64>,
    /// Price of a million tokens written, in the same currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_out: Option<f64>,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            kind: Kind::Embedded,
            base_url: None,
            model: None,
            key_file: None,
            timeout: Duration::from_secs(120),
            concurrency: 4,
            attempts: 5,
            allow_plaintext: false,
            follows_instructions: true,
            price_in: None,
            price_out: None,
        }
    }
}

impl LlmConfig {
    /// Whether nothing is set, so that nothing needs to be written.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what can be checked without opening a file or a connection.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] names the key, what is wrong with it, and what to write.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |key: &str, what: &str| Err(Error::invalid(format!("[llm] {key}: {what}")));
        if self.timeout.is_zero() {
            return wrong("timeout", "it must be longer than nothing, \"120s\"");
        }
        if !(1..=MOST_CONCURRENCY).contains(&self.concurrency) {
            return wrong("concurrency", &format!("it must be from 1 to {MOST_CONCURRENCY}"));
        }
        if !(1..=MOST_ATTEMPTS).contains(&self.attempts) {
            return wrong("attempts", &format!("it must be from 1 to {MOST_ATTEMPTS}"));
        }
        for (key, price) in [("price_in", self.price_in), ("price_out", self.price_out)] {
            if price.is_some_and(|price| !price.is_finite() || price < 0.0) {
                return wrong(key, "it must be a number from 0, per million tokens");
            }
        }
        if self.price_in.is_some() != self.price_out.is_some() {
            let missing = if self.price_in.is_none() { "price_in" } else { "price_out" };
            return wrong(missing, "it is missing; a cost needs both prices");
        }
        if self.model.as_ref().is_some_and(|model| model.trim().is_empty()) {
            return wrong("model", "it is empty");
        }
        match self.kind {
            Kind::Endpoint => self.settings(None)?.check().map(drop),
            Kind::Embedded if self.base_url.is_some() => {
                wrong("base_url", "an embedded model has none; write kind = \"endpoint\" to use a server")
            }
            Kind::Embedded if self.key_file.is_some() => {
                wrong("key_file", "an embedded model needs none; write kind = \"endpoint\" to use a server")
            }
            Kind::Embedded => Ok(()),
        }
    }

    /// The server that is set; `folder` is that of the configuration.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for what [`LlmConfig::check`] refuses, where `kind` is not `endpoint`, and where
    /// the key cannot be read or can be read by others.
    pub fn endpoint(&self, folder: &Path) -> Result<Endpoint, Error> {
        if self.kind != Kind::Endpoint {
            return Err(Error::invalid("[llm] kind: it must be \"endpoint\" to use a server"));
        }
        self.check()?;
        let key = self.key_file.as_ref().map(|file| ApiKey::load(&folder.join(file))).transpose()?;
        Endpoint::new(self.settings(key)?)
    }

    fn settings(&self, key: Option<ApiKey>) -> Result<endpoint::Settings, Error> {
        let missing = |key: &str| Error::invalid(format!("[llm] {key}: kind = \"endpoint\" needs it"));
        Ok(endpoint::Settings {
            base_url: self.base_url.clone().ok_or_else(|| missing("base_url"))?,
            model: self.model.clone().ok_or_else(|| missing("model"))?,
            key,
            timeout: self.timeout,
            concurrency: self.concurrency,
            attempts: self.attempts,
            allow_plaintext: self.allow_plaintext,
            follows_instructions: self.follows_instructions,
            price: self.price_in.zip(self.price_out).map(|(input, output)| Price { input, output }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{home::Home, llm::Llm as _};

    fn read(section: &str) -> Result<LlmConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        fs::write(home.config_file(), format!("[llm]\n{section}\n")).unwrap();
        home.config().map(|config| config.llm).map_err(|e| e.message)
    }

    #[test]
    fn nothing_set_is_an_embedded_model_and_is_not_written() {
        let config = read("").unwrap();
        assert_eq!((config.kind, config.is_default()), (Kind::Embedded, true));
        let text = toml::to_string(&crate::home::Config::default()).unwrap();
        assert!(!text.contains("llm"), "{text}");
        assert!(config.endpoint(Path::new(".")).unwrap_err().message.contains("kind"));
    }

    #[test]
    fn a_server_is_read_whole_and_written_back() {
        let config = read(
            "kind = \"endpoint\"\nbase_url = \"https://api.example.org/v1\"\nmodel = \"m\"\ntimeout = \"3m\"\n\
             concurrency = 8\nattempts = 2\nprice_in = 0.5\nprice_out = 2",
        )
        .unwrap();
        assert_eq!((config.timeout, config.concurrency, config.attempts), (Duration::from_secs(180), 8, 2));
        let endpoint = config.endpoint(Path::new(".")).unwrap();
        assert_eq!(endpoint.name(), "m at https://api.example.org/v1");
        assert_eq!((endpoint.concurrency(), endpoint.totals().cost), (8, Some(0.0)));
        let whole = crate::home::Config { llm: config.clone(), ..Default::default() };
        let text = toml::to_string(&whole).unwrap();
        assert_eq!(toml::from_str::<crate::home::Config>(&text).unwrap().llm, config);
    }

    #[test]
    fn the_key_file_is_relative_to_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let text = "kind = \"endpoint\"\nbase_url = \"https://h/v1\"\nmodel = \"m\"\nkey_file = \"key\"";
        let config = read(text).unwrap();
        assert!(config.endpoint(folder.path()).unwrap_err().message.contains("key_file"));
        sheaf_transport::keys::write_private(&folder.path().join("key"), b"sk-123456\n").unwrap();
        let endpoint = config.endpoint(folder.path()).unwrap();
        assert!(!format!("{endpoint:?}").contains("sk-123456"));
    }

    #[test]
    fn mistakes_are_named_by_key() {
        let server = "kind = \"endpoint\"\nbase_url = \"https://h/v1\"\nmodel = \"m\"\n";
        for (section, part) in [
            ("kin = 1".to_owned(), "kin"),
            ("kind = \"cloud\"".to_owned(), "cloud"),
            ("kind = \"endpoint\"\nmodel = \"m\"".to_owned(), "[llm] base_url"),
            ("kind = \"endpoint\"\nbase_url = \"https://h\"".to_owned(), "[llm] model"),
            ("base_url = \"https://h\"".to_owned(), "kind = \"endpoint\""),
            ("key_file = \"key\"".to_owned(), "[llm] key_file"),
            ("kind = \"endpoint\"\nbase_url = \"http://h\"\nmodel = \"m\"".to_owned(), "allow_plaintext"),
            (format!("{server}timeout = \"0s\""), "[llm] timeout"),
            (format!("{server}timeout = \"soon\""), "timeout"),
            (format!("{server}concurrency = 0"), "[llm] concurrency"),
            (format!("{server}attempts = 0"), "[llm] attempts"),
            (format!("{server}attempts = -1"), "attempts"),
            (format!("{server}price_in = 1.0"), "[llm] price_out"),
            (format!("{server}price_in = nan\nprice_out = 1.0"), "[llm] price_in"),
            ("model = \" \"".to_owned(), "[llm] model"),
        ] {
            let error = read(&section).unwrap_err();
            assert!(error.contains(part), "{section}: {error}");
            assert!(error.contains("coordinator.toml"), "{error}");
        }
    }
}
