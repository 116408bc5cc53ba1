//! What can go wrong with a model, its files or its inputs.

use std::path::PathBuf;

use thiserror::Error;

/// Why a model could not be loaded, run or trained. Nothing is changed where an error is returned.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file's bytes are not what its format demands: truncated, damaged, or of another kind.
    #[error("{file}: {reason}")]
    Format {
        /// The file, or what it is for.
        file: String,
        /// What is wrong, where, and what to do.
        reason: String,
    },
    /// A file is well formed but describes a model that this version cannot run.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// The architecture, tensor type or option.
        what: String,
        /// What is supported.
        reason: String,
    },
    /// A tensor is missing, has another shape, or holds NaN or infinite values.
    #[error("tensor {name}: {reason}")]
    Tensor {
        /// Its name in the file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An image, a text or a record cannot be used.
    #[error("{0}")]
    Input(String),
    /// An option is outside what makes sense.
    #[error("{option}: {reason}")]
    Config {
        /// The option's name as a user writes it.
        option: &'static str,
        /// What is allowed.
        reason: String,
    },
    /// A device cannot be used.
    #[error("device {device}: {reason}")]
    Device {
        /// As the user wrote it.
        device: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// Training left the finite numbers.
    #[error("{0}")]
    Diverged(String),
    /// Somebody asked to stop.
    #[error("stopped")]
    Stopped,
}

impl ModelError {
    /// A file error with its path.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
