//! What can go wrong with the store.

use std::path::{Path, PathBuf};

use redb::DatabaseError;

use super::{RecordError, SCHEMA_VERSION};

/// Why a store cannot be opened. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no store yet.
    #[error("there is no store at {0}: run `vaultd init` once")]
    Missing(PathBuf),
    /// Another process has it open.
    #[error("the store {0} is in use by another process: stop the running vaultd first")]
    InUse(PathBuf),
    /// The file is something else.
    #[error("{0} is not a vault store: correct store.dir, or move the file away")]
    NotAStore(PathBuf),
    /// A later version wrote it.
    #[error(
        "the store {path} has schema {found}, this vaultd knows up to {SCHEMA_VERSION}: install a newer vaultd"
    )]
    NewerSchema {
        /// The store's file.
        path: PathBuf,
        /// The schema found in it.
        found: u32,
    },
    /// An earlier version wrote it, and it was not to be changed.
    #[error("the store {path} has schema {found}: `vaultd serve` brings it to schema {SCHEMA_VERSION}")]
    OlderSchema {
        /// The store's file.
        path: PathBuf,
        /// The schema found in it.
        found: u32,
    },
    /// The database layer failed.
    #[error("cannot open the store {path}: {reason}")]
    Failed {
        /// The store's file.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
}

/// Why an operation on an open store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database layer failed; a change is not acknowledged, and may have been kept if its commit failed half way.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The database layer met a page that is none, or there is a fault in this program; nothing was changed.
    #[error(
        "a page of its file is damaged, or this is a fault of vaultd's own: the line before says where. `vaultd check --deep` \
         tells; what is damaged, a backup restores"
    )]
    Panicked,
    /// More changes are waiting than `store.queue` allows.
    #[error("the store's queue is full")]
    Busy,
    /// A record does not decode.
    #[error("a record in the store is damaged: {0}")]
    Damaged(#[from] RecordError),
    /// A key has sealed as much as it may (SP 800-38D, 8.3).
    #[error("the key {0} has reached its limit of encryptions: rotate it")]
    SealsSpent(String),
}

/// Every kind of redb error, for `?`.
macro_rules! from_redb {
    ($($kind:ty),+) => {
        $(impl From<$kind> for StoreError {
            fn from(error: $kind) -> Self {
                Self::Failed(error.to_string())
            }
        })+
    };
}

from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::CursorError
);

/// Why `path` does not open, from what the database layer says.
pub(super) fn opening(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.to_owned()),
        DatabaseError::Storage(redb::StorageError::Io(reason))
            if reason.kind() == std::io::ErrorKind::InvalidData =>
        {
            OpenError::NotAStore(path.to_owned())
        }
        other => failed(path, &other),
    }
}

/// Any other failure with the store at `path`.
pub(super) fn failed(path: &Path, error: &impl ToString) -> OpenError {
    OpenError::Failed { path: path.to_owned(), reason: error.to_string() }
}
