//! What can go wrong with the log.

use std::{io, path::PathBuf};

/// Why the log cannot be opened at start-up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Files or the directory cannot be used.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Some of the log is gone or was changed.
    #[error(
        "{0}. Put back what was there, or accept the loss on the record with `vaultd audit resume`; \
         `vaultd audit verify` says more"
    )]
    Damaged(String),
}

/// Why an entry is not on the disk. The text is for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The log cannot be written.
    #[error("{0}")]
    Unavailable(String),
    /// It is not known whether the entry will be written.
    #[error("the disk of the audit log does not answer")]
    Late,
    /// More entries wait than may.
    #[error("more entries wait to be written than audit.queue")]
    Busy,
}

/// The error of `path`.
pub(super) fn io_error(path: &std::path::Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |error| OpenError::Io { path, error }
}
