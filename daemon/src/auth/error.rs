//! Why a caller is turned away.

use vault_api::Scope;

use crate::{jose::JwsError, store::StoreError};

/// Whom a JWT names whose signature is good, and which lets nobody call all the same. For the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its `iss`.
    pub issuer: String,
    /// Its `sub`.
    pub subject: String,
    /// Its `tenant`, if that is a name that a tenant can have.
    pub tenant: Option<String>,
}

/// Why a request is not authorized. No message repeats any part of the JWT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No bearer token.
    #[error("send the header `Authorization: Bearer` with a JWT")]
    Missing,
    /// A rule is broken; the text says which.
    #[error("{0}")]
    Invalid(&'static str),
    /// The JWT's `kid` is not among its issuer's keys.
    #[error("the JWT's `kid` names no key of its issuer")]
    UnknownKey,
    /// The JWT's time is over.
    #[error("the JWT's `exp` is past: get a new one")]
    Expired,
    /// The `jti` was used before.
    #[error("this JWT's `jti` was used before: get a new JWT for each request")]
    Replayed,
    /// The JWT lacks the scope.
    #[error("this needs the scope `{0}`")]
    Scope(Scope),
    /// The issuer may not speak for the tenant.
    #[error("the JWT's issuer may not speak for the tenant it names")]
    Tenant(Box<Stranger>),
    /// The JWT approves somebody else's request, and was sent as the caller's own.
    #[error("this JWT approves a request of somebody else, and nothing more")]
    Approval(Box<Stranger>),
    /// The JWT is bound to another peer.
    #[error("the JWT is bound to another user id than the caller's")]
    Sender,
    /// Whether the JWT was used before cannot be found out.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The replay memory is full of JWTs that have not expired yet.
    #[error("too many single-use JWTs are in use")]
    ReplayMemoryFull,
}

impl From<JwsError> for AuthError {
    fn from(error: JwsError) -> Self {
        Self::Invalid(error.0)
    }
}
