//! Why a client's call failed, and what that means for what is stored.

use tako_flatbuf::Misfit;
use tako_types::{ErrorKind, Version};

use crate::{configuration::SourceError, proxy::ProxyError, replication::RequestError};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No configuration could be had in time; what was said last.
    #[error("no configuration: {0}")]
    Configuration(#[source] SourceError),
    /// It is of no use.
    #[error(transparent)]
    Unusable(#[from] ProxyError),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The call cannot be made as it is; nothing was done.
    #[error("{0}")]
    Invalid(String),
    /// The condition does not hold; nothing was done.
    #[error("the condition does not hold: {}", there_is(*version))]
    Condition {
        /// Of the value that there is; `None` for none.
        version: Option<Version>,
    },
    /// What is there cannot be edited so; nothing was done.
    #[error("what is there cannot be edited so: {0:?}")]
    Misfit(Misfit),
    /// It was tried until the deadline, and nothing was done, or it could not be read.
    #[error("nothing was done: {0}")]
    Unavailable(#[source] RequestError),
    /// It may have been done, or may yet be within seconds: read what is there before going on.
    #[error("the outcome is unknown: {reason}")]
    Unknown {
        /// Why.
        reason: String,
    },
}

impl ClientError {
    /// Of a plain write: where it is not known that nobody took it, nobody knows.
    pub(super) fn of_write(error: RequestError) -> Self {
        match &error {
            RequestError::Invalid(_) | RequestError::Drift(_) => Self::Invalid(error.to_string()),
            RequestError::Clock { .. } => Self::Unavailable(error),
            _ => Self::Unknown { reason: error.to_string() },
        }
    }

    pub(super) fn of_nothing_done(error: RequestError) -> Self {
        match error.kind() {
            ErrorKind::Invalid => Self::Invalid(error.to_string()),
            _ => Self::Unavailable(error),
        }
    }
}

fn there_is(version: Option<Version>) -> String {
    version.map_or("there is no value".to_owned(), |version| format!("there is version {version}"))
}
