//! What can go wrong at a site.

use std::path::{Path, PathBuf};

/// A failure at the site: what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration cannot be used.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The agent's own database failed.
    #[error("the agent's database: {0}")]
    State(String),
    /// The site has no identity yet, or not a usable one.
    #[error("{0}")]
    Identity(String),
    /// The site's policy says no.
    #[error("policy: {0}")]
    Denied(String),
    /// The site's privacy ledger cannot be used, or refuses.
    #[error("ledger: {0}")]
    Ledger(String),
    /// The site's records do not fit the task.
    #[error("data: {0}")]
    Data(String),
    /// The device that the configuration names cannot be used.
    #[error("{0}")]
    Device(String),
    /// A task cannot be understood or computed.
    #[error("task: {0}")]
    Task(String),
    /// The coordinator cannot be reached or refused.
    #[error("{0}")]
    Link(String),
    /// The task was cancelled.
    #[error("the task was cancelled")]
    Cancelled,
}

impl AgentError {
    /// A file failure.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

impl From<rusqlite::Error> for AgentError {
    fn from(error: rusqlite::Error) -> Self {
        Self::State(error.to_string())
    }
}

impl From<sheaf_data::DataError> for AgentError {
    fn from(error: sheaf_data::DataError) -> Self {
        Self::Data(error.to_string())
    }
}

impl From<sheaf_models::ModelError> for AgentError {
    fn from(error: sheaf_models::ModelError) -> Self {
        match error {
            sheaf_models::ModelError::Stopped => Self::Cancelled,
            sheaf_models::ModelError::Device { .. } => Self::Device(error.to_string()),
            _ => Self::Task(error.to_string()),
        }
    }
}

impl From<sheaf_analytic::AnalyticError> for AgentError {
    fn from(error: sheaf_analytic::AnalyticError) -> Self {
        Self::Data(error.to_string())
    }
}
