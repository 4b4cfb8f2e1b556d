//! How a command ends when it does not do what it was asked.

use std::fmt::Display;

use crate::{
    config::ConfigErrors,
    hsm::{HsmError, SetupError},
    http::SocketError,
    sandbox::{ConfineError, IdentityError, PermissionError},
    store::{OpenError, StoreError},
    vault::VaultError,
};

/// Why a command failed, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration is wrong; every error has its line.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// What the command line names is not what the command works on.
    #[error("{0}")]
    Usage(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    /// A failure in doing `what`.
    pub fn new(what: &str, why: impl Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }

    /// The exit status: 2 for a wrong configuration or command line, 1 for the rest (contract, section 1).
    pub fn exit_status(&self) -> i32 {
        match self {
            Self::Config(_) | Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

macro_rules! failed_from {
    ($($kind:ty),+) => {
        $(impl From<$kind> for CommandError {
            fn from(error: $kind) -> Self {
                Self::Failed(error.to_string())
            }
        })+
    };
}

failed_from!(
    ConfineError,
    HsmError,
    IdentityError,
    OpenError,
    PermissionError,
    SetupError,
    SocketError,
    StoreError,
    VaultError
);
