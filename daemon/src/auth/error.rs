//! Why a caller is turned away.

use vault_api::Scope;

/// Why a request is not authorized. No message repeats any part of the JWT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No bearer token.
    #[error("send the header `Authorization: Bearer` with a JWT")]
    Missing,
    /// A rule is broken; the text says which.
    #[error("{0}")]
    Invalid(&'static str),
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
    Tenant,
    /// The JWT is bound to another peer.
    #[error("the JWT is bound to another user id than the caller's")]
    Sender,
    /// The replay memory is full of JWTs that have not expired yet.
    #[error("too many single-use JWTs are in use")]
    ReplayMemoryFull,
}
