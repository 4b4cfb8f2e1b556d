//! What can go wrong with an HSM, before and after it serves.

use std::path::PathBuf;

use cryptoki::error::{Error as Pkcs11Error, RvError};

/// Why the HSM cannot be taken into service. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The module is not there or is not a PKCS#11 module.
    #[error("cannot load the PKCS#11 module {path}: {reason}; install it or correct hsm.module")]
    Module {
        /// Where it was looked for.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// No token fits the selector.
    #[error("no PKCS#11 token with {wanted} in module {path}: {found}")]
    NoToken {
        /// The selector in words.
        wanted: String,
        /// The module.
        path: PathBuf,
        /// Which tokens there are, and what to do.
        found: String,
    },
    /// Several tokens fit the selector.
    #[error("{count} PKCS#11 tokens have {wanted}: select one with hsm.token_serial")]
    AmbiguousToken {
        /// The selector in words.
        wanted: String,
        /// How many fit.
        count: usize,
    },
    /// The PIN was refused. It is not tried again: tokens lock themselves after a few wrong ones.
    #[error(
        "the token refused the PIN ({reason}); it was tried once: correct hsm.pin_file before the next start"
    )]
    Pin {
        /// What the token said.
        reason: String,
    },
    /// A key is missing, doubled, or not as it must be.
    #[error("{0}")]
    Key(String),
    /// The module failed in the middle of something.
    #[error("PKCS#11 {0}")]
    Pkcs11(#[from] Pkcs11Error),
}

/// Why an operation failed while serving.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HsmError {
    /// The token cannot be used now; it may come back.
    #[error("the HSM is unavailable: {0}")]
    Unavailable(String),
    /// More operations are waiting than `hsm.queue` allows.
    #[error("the HSM queue is full")]
    Busy,
    /// No answer within `hsm.call_timeout_seconds`.
    #[error("the HSM did not answer in time")]
    TimedOut,
    /// The token holds no key of this version.
    #[error("the HSM holds no {0}")]
    NoKey(String),
}

/// A failed call in few words, for messages that name several; the library's own have a paragraph of the standard each.
pub(super) fn brief(error: &Pkcs11Error) -> String {
    match error {
        Pkcs11Error::Pkcs11(rv, function) => format!("C_{function:?}: {rv:?}"),
        other => other.to_string(),
    }
}

/// What a failed PKCS#11 call means for the operation it was part of.
#[derive(Debug)]
pub(super) enum Fault {
    /// Session, login, handles or device: worth another try on a new connection.
    Connection(Pkcs11Error),
    /// Nothing that another try would mend.
    Permanent(Pkcs11Error),
    /// No key of this version in the ring.
    NoKey(String),
}

impl From<Pkcs11Error> for Fault {
    fn from(error: Pkcs11Error) -> Self {
        match error {
            Pkcs11Error::Pkcs11(rv, _) if mends_with_new_connection(rv) => Self::Connection(error),
            _ => Self::Permanent(error),
        }
    }
}

impl From<Fault> for SetupError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Connection(error) | Fault::Permanent(error) => Self::Pkcs11(error),
            Fault::NoKey(name) => Self::Key(format!("the token holds no key {name}; run `vaultd init`")),
        }
    }
}

impl From<Fault> for HsmError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Connection(error) | Fault::Permanent(error) => Self::Unavailable(error.to_string()),
            Fault::NoKey(name) => Self::NoKey(name),
        }
    }
}

/// Return values after which a new session, a new login or fresh handles can succeed (PKCS #11 v3.1, 5.1).
fn mends_with_new_connection(rv: RvError) -> bool {
    matches!(
        rv,
        RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::UserNotLoggedIn
            | RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
            | RvError::DeviceError
            | RvError::DeviceMemory
            | RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::CryptokiNotInitialized
            | RvError::FunctionFailed
            | RvError::GeneralError
    )
}
