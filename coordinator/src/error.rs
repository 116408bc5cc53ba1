//! One error for the whole coordinator: a class, which decides the gRPC code and whether to try again,
//! and a sentence for the person on the other side.

use tonic::{Code, Status};

/// What kind of failure this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request can never succeed as it is.
    Invalid,
    /// The named thing is not there.
    NotFound,
    /// The caller may not.
    Denied,
    /// The request does not fit the present state.
    Conflict,
    /// A limit is reached.
    Exhausted,
    /// The same call may succeed later.
    Transient,
    /// Stored or received data are damaged.
    Corrupt,
    /// A defect of this program.
    Bug,
}

/// A failure: its class and what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure.
    pub class: Class,
    /// For the person on the other side: no secrets, no paths inside the coordinator's home unless the
    /// operator is local.
    pub message: String,
}

macro_rules! constructors {
    ($($name:ident $class:ident),*) => { impl Error { $(
        #[doc = concat!("A failure of class [`Class::", stringify!($class), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Self { class: Class::$class, message: message.into() }
        }
    )* } };
}

constructors!(invalid Invalid, not_found NotFound, denied Denied, conflict Conflict, exhausted Exhausted,
    transient Transient, corrupt Corrupt, bug Bug);

impl Class {
    const fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Denied => Code::PermissionDenied,
            Self::Conflict => Code::FailedPrecondition,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Transient => Code::Unavailable,
            Self::Corrupt => Code::DataLoss,
            Self::Bug => Code::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if matches!(error.class, Class::Corrupt | Class::Bug) {
            tracing::error!(class = ?error.class, "{}", error.message);
        }
        Self::new(error.class.code(), error.message)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => Self::transient(format!("the database is busy: {error}")),
            Some(DiskFull) => {
                Self::exhausted("the coordinator's disk is full; free some space and resume the run")
            }
            Some(NotADatabase) => Self::corrupt(format!("the database file is damaged: {error}")),
            _ => Self::bug(format!("database: {error}")),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull => {
                Self::exhausted("the coordinator's disk is full; free some space and resume the run")
            }
            std::io::ErrorKind::NotFound => Self::not_found(format!("file: {error}")),
            _ => Self::transient(format!("file: {error}")),
        }
    }
}

impl From<sheaf_proto::BlobIdError> for Error {
    fn from(error: sheaf_proto::BlobIdError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<sheaf_transport::identity::IdentityError> for Error {
    fn from(error: sheaf_transport::identity::IdentityError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<sheaf_data::DataError> for Error {
    fn from(error: sheaf_data::DataError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<sheaf_text::TextError> for Error {
    fn from(error: sheaf_text::TextError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::corrupt(format!("a document cannot be read: {error}"))
    }
}
