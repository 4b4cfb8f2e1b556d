//! Why something is not a backup that can be used.

use std::io;

use super::header::FORMAT;
use crate::{
    hsm::{HsmError, KeyName, SetupError},
    store::{SCHEMA_VERSION, StoreError},
};

/// Why a backup cannot be read. Each message says what was found; the name of the file is for the caller to say.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It begins otherwise.
    #[error("it is not a backup of a vault")]
    NotABackup,
    /// Another version wrote it.
    #[error("it has format {0}, and this vaultd knows format {FORMAT}: install the vaultd that made it")]
    Format(u16),
    /// Another version wrote what is in it.
    #[error(
        "it holds a store of schema {0}, and this vaultd knows up to {SCHEMA_VERSION}: install a newer vaultd"
    )]
    Schema(u32),
    /// It ends too early.
    #[error("it is cut short: it ends {0}")]
    CutShort(String),
    /// Its header is not what was written.
    #[error("its header was altered")]
    Header,
    /// The token lacks the key that sealed it.
    #[error(
        "the token holds no key {0}, which sealed it: it is of another vault, or the key was destroyed since"
    )]
    NoKey(KeyName),
    /// The token's key of that name is another one.
    #[error("it is of another vault: key {0} of this token is not the one that sealed it")]
    OtherVault(KeyName),
    /// The data key does not open.
    #[error("it was altered: key {0} is the right one, and does not open what header and data key say")]
    DataKey(KeyName),
    /// A chunk does not open.
    #[error("it was altered: chunk {chunk}, which begins at byte {offset}, does not open where it stands")]
    Chunk {
        /// Which, from 1.
        chunk: u64,
        /// Where it begins in the file.
        offset: u64,
    },
    /// Something follows its end.
    #[error("something was appended to it, from byte {0} on")]
    Appended(u64),
    /// It opens, and is no store: only the vault that made it can have done that.
    #[error("what is in it is no store: {0}")]
    Content(String),
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The token cannot be used.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The token cannot be asked about its keys.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// What was read cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}
