//! What can go wrong with an HSM, before and after it serves.

use std::path::PathBuf;

use cryptoki::{
    context::Function,
    error::{Error as Pkcs11Error, RvError},
};

use super::class::{Class, told};

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
    /// The module is one, and does not start.
    #[error(
        "the PKCS#11 module {path} does not start: {reason}; correct what it reads its own configuration from, \
         hsm.environment (SOFTHSM2_CONF for SoftHSM2) or hsm.init_parameters, and the files that are named there"
    )]
    Start {
        /// Where it is.
        path: PathBuf,
        /// What it said.
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
    /// A wrong PIN would be the last one.
    #[error(
        "one try of the PIN is left before the token locks itself, and it is not used up here: correct hsm.pin_file, then \
         log in once by other means (pkcs11-tool --login --list-objects)"
    )]
    LastTry,
    /// A key is missing, doubled, or not as it must be.
    #[error("{0}")]
    Key(String),
    /// The module failed in the middle of something.
    #[error("{}", told(.0))]
    Pkcs11(#[from] Pkcs11Error),
}

impl SetupError {
    /// Whether all that is wrong is that the token opens no further session.
    pub(super) fn wants_a_session(&self) -> bool {
        matches!(self, Self::Pkcs11(error) if wants_a_session(error))
    }
}

/// Whether the token said that it has no room for another session. What is open can be worked in.
pub(super) fn wants_a_session(error: &Pkcs11Error) -> bool {
    matches!(
        error,
        Pkcs11Error::Pkcs11(
            RvError::SessionCount | RvError::DeviceMemory | RvError::HostMemory,
            Function::OpenSession
        )
    )
}

/// Why an operation failed while serving.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HsmError {
    /// The token cannot be used now; it may come back.
    #[error("the HSM is unavailable: {0}")]
    Unavailable(String),
    /// It is known to be so: it was logged when that began, and is not tried for this caller.
    #[error("the HSM is down: {0}")]
    Down(String),
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

impl HsmError {
    /// Its name in counts.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Down(_) => "down",
            Self::Busy => "busy",
            Self::TimedOut => "timed_out",
            Self::NoKey(_) => "no_key",
        }
    }
}

/// A failed call in few words, for messages that name several; the library's own have a paragraph of the standard each.
pub(super) fn brief(error: &Pkcs11Error) -> String {
    match error {
        Pkcs11Error::Pkcs11(rv, function) => format!("C_{function:?}: {rv:?}"),
        other => other.to_string(),
    }
}

/// Why an operation on a session failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The module refused or failed.
    #[error("{}", told(.0))]
    Call(#[from] Pkcs11Error),
    /// The module gave out something that cannot be right. Nobody gets to see it.
    #[error("the module gave out {bytes} bytes where {what} has {must_be}")]
    Length {
        /// What it should have been.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long that must be.
        must_be: usize,
    },
    /// No key of this version in the ring.
    #[error("the token holds no {0}")]
    NoKey(String),
}

impl Fault {
    /// What it takes to work again.
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Call(error) => Class::of(error),
            Self::Length { .. } => Class::Module,
            Self::NoKey(_) => Class::Request,
        }
    }

    /// Whether all that is wrong is that the token opens no further session.
    pub(super) fn wants_a_session(&self) -> bool {
        matches!(self, Self::Call(error) if wants_a_session(error))
    }

    /// Gives out `output` if it has the length that `what` must have.
    pub(super) fn check_length<T: AsRef<[u8]>>(
        what: &'static str,
        must_be: usize,
        output: T,
    ) -> Result<T, Self> {
        let bytes = output.as_ref().len();
        if bytes == must_be { Ok(output) } else { Err(Self::Length { what, bytes, must_be }) }
    }
}

impl From<Fault> for SetupError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Call(error) => Self::Pkcs11(error),
            Fault::Length { .. } => Self::Key(fault.to_string()),
            Fault::NoKey(name) => Self::Key(format!("the token holds no key {name}; run `vaultd init`")),
        }
    }
}

impl From<Fault> for HsmError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Call(_) | Fault::Length { .. } => Self::Unavailable(fault.to_string()),
            Fault::NoKey(name) => Self::NoKey(name),
        }
    }
}
