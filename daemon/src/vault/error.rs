//! What a failure means to the caller.

use crate::{
    card::{CardExpiryError, PanError},
    hsm::HsmError,
    store::StoreError,
};

/// Why the vault did not do what it was asked. No message holds card data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The PAN is not acceptable.
    #[error(transparent)]
    Pan(#[from] PanError),
    /// Another part of the request is not acceptable; the text says which and why.
    #[error("{0}")]
    Request(String),
    /// The token's text has no known form.
    #[error("the token is not a UUID, a number of 12 to 19 digits or `tok_` and base58")]
    MalformedToken,
    /// The tenant has no such token.
    #[error("there is no such token")]
    UnknownToken,
    /// The token has ended.
    #[error("the token's lifetime is over")]
    TokenExpired,
    /// Every candidate for a new token was taken.
    #[error("no free token was found: the template's numbers are used up for cards of this kind")]
    TokenSpaceExhausted,
    /// A record does not open: it was altered, moved, or sealed by another vault.
    #[error("the record of this token fails authentication")]
    RecordForged,
    /// The envelope cannot be opened; the text says why.
    #[error("{0}")]
    EnvelopeInvalid(&'static str),
    /// The envelope's time is over.
    #[error("the envelope's lifetime is over")]
    EnvelopeExpired,
    /// The envelope may be opened once, and was.
    #[error("the envelope was opened before")]
    EnvelopeReplayed,
    /// No more openings of single-use envelopes can be remembered for now.
    #[error("too many single-use envelopes are open")]
    TooManyUses,
    /// There is no such key.
    #[error("there is no such key")]
    UnknownKey,
    /// The key is still needed; the text says what for.
    #[error("{0}")]
    KeyInUse(String),
    /// The keys have changed since the work began: it is to be done once more.
    #[error("the vault's keys have changed meanwhile")]
    KeysChanged,
    /// The HSM failed.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CardExpiryError> for VaultError {
    fn from(error: CardExpiryError) -> Self {
        Self::Request(error.to_string())
    }
}
