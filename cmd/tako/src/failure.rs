//! Why the program ends without success: a kind, which gives the exit code, and words.
//!
//! The one place where errors of the libraries become exit codes; the numbers are in `--help`.

use std::{error::Error, fmt, process::ExitCode};

use tako_coordinator::CoordinatorError;
use tako_node_core::{
    configuration::{AdoptError, SourceError},
    node::NodeError,
    proxy::ProxyError,
};
use tako_snapshot::{StoreError, backup::BackupError};
use tako_types::ErrorKind;

/// What `main` reports.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    text: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Arguments or configuration must be changed.
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, text)
    }

    /// Something needed is not there; it may be later.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, text)
    }

    /// What the caller does about it.
    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// An error with its causes, each said once.
    fn of(kind: ErrorKind, error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        Self { kind, text }
    }

    /// The codes that `tako --help` lists.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            ErrorKind::Internal => 1,
            ErrorKind::Invalid => 2,
            ErrorKind::NotFound => 3,
            ErrorKind::Conflict => 4,
            ErrorKind::StaleEpoch => 5,
            ErrorKind::Unavailable | ErrorKind::Closed => 6,
            ErrorKind::Corrupt => 7,
            ErrorKind::Busy => 8,
            ErrorKind::Deadline => 9,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let kind = match &error {
            NodeError::Stopped => ErrorKind::Closed,
            NodeError::Unknown { .. } | NodeError::NotStartable(_) => ErrorKind::Invalid,
            NodeError::Source(error) => source_kind(error),
            NodeError::Configuration(error) => adopt_kind(error),
            NodeError::Store { source, .. } => source.kind(),
            NodeError::Snapshot(error) => error.kind(),
            NodeError::Folder(error) => error.kind(),
            NodeError::Engine(error) => error.kind(),
            NodeError::Listen { source, .. } => listen_kind(source),
            _ => ErrorKind::Internal,
        };
        Self::of(kind, &error)
    }
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        let kind = match &error {
            ProxyError::Source(error) => source_kind(error),
            ProxyError::Configuration(error) => adopt_kind(error),
            _ => ErrorKind::Internal,
        };
        Self::of(kind, &error)
    }
}

impl From<CoordinatorError> for Failure {
    fn from(error: CoordinatorError) -> Self {
        Self::of(error.kind(), &error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let mut failure = Self::of(error.kind(), &error);
        failure.text = format!("object store: {}", failure.text);
        failure
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Store(error) => error.into(),
            error => Self::of(error.kind(), &error),
        }
    }
}

fn source_kind(error: &SourceError) -> ErrorKind {
    match error {
        SourceError::Config(_) => ErrorKind::Invalid,
        SourceError::Published(error) => error.kind(),
        _ => ErrorKind::Unavailable,
    }
}

fn adopt_kind(error: &AdoptError) -> ErrorKind {
    match error {
        AdoptError::Fork { .. } => ErrorKind::Conflict,
        AdoptError::Refused(_) => ErrorKind::Invalid,
        AdoptError::Disk { .. } => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

/// A refused address is the operator's to change; a taken one may become free.
pub(crate) fn listen_kind(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::InvalidInput => {
            ErrorKind::Invalid
        }
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let said = source.to_string();
        let failure = Failure::from(NodeError::Listen { address: "a:1".into(), source });
        assert_eq!(failure.text.matches(&said).count(), 1, "{failure}");
        assert_eq!(failure.kind, ErrorKind::Unavailable);
    }
}
